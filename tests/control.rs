//! The control plane's client side against a scripted service in this process, over real sockets.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

#[path = "control/acs.rs"]
mod acs;
#[path = "control/acs_rules.rs"]
mod acs_rules;
#[path = "control/api.rs"]
mod api;
#[path = "control/attach.rs"]
mod attach;
#[path = "control/clock.rs"]
mod clock;
#[path = "control/environment.rs"]
mod environment;
#[path = "control/families.rs"]
mod families;
#[path = "control/instance.rs"]
mod instance;
#[path = "control/proxies.rs"]
mod proxies;
#[path = "control/recovery.rs"]
mod recovery;
mod support;
#[path = "control/tcs.rs"]
mod tcs;
#[path = "control/tcs_rules.rs"]
mod tcs_rules;
#[path = "control/timers.rs"]
mod timers;
#[path = "control/tls.rs"]
mod tls;
#[path = "control/update.rs"]
mod update;

use aws_credential_types::Credentials;
use ecsd::control::acs::{AcsContext, AcsTimings};
use ecsd::control::api::Registration;
use ecsd::control::credentials::CredentialsCache;
use ecsd::control::{Account, AgentIdentity, CredentialsStore, EcsApi, ws};
use std::time::Duration;
use support::backend::{Backend, INSTANCE};
use support::sigv4::{ACCESS_KEY, REGION, SECRET};

fn registration() -> Registration {
    Registration { cluster: "peer".into(), ..Registration::default() }
}

/// Registers, then opens both websockets where the service says they are.
async fn reach_everything(account: &Account) {
    let api = EcsApi::new(account);
    let done = api.register_container_instance(&registration()).await.unwrap();
    let found = api.discover_poll_endpoint("peer", &done.arn).await.unwrap();
    for endpoint in [found.acs, found.telemetry] {
        ws::connect(account, &ws::address(&endpoint, &[("a", "b")]).unwrap()).await.unwrap();
    }
}

fn account(backend: &Backend, token: Option<&str>) -> Account {
    let identity =
        AgentIdentity { version: "1.105.1".into(), hash: "*a8b3e7d3".into(), os_family: "LINUX".into() };
    let credentials = Credentials::new(ACCESS_KEY, SECRET, token.map(str::to_owned), None, "test");
    Account::new(REGION, Some(backend.endpoint().to_owned()), identity)
        .with_credentials(CredentialsCache::from_provider(credentials))
}

fn api_of(backend: &Backend) -> EcsApi {
    EcsApi::new(&account(backend, None))
}

fn acs_context(backend: &Backend) -> AcsContext {
    let account = account(backend, None);
    AcsContext {
        api: EcsApi::new(&account),
        account,
        cluster: "peer".into(),
        instance: INSTANCE.into(),
        roles: CredentialsStore::default(),
        timeline: -1,
        updates: None,
        timings: AcsTimings {
            backoff: (Duration::from_millis(10), Duration::from_millis(50)),
            ..AcsTimings::default()
        },
    }
}

fn fixture(name: &str) -> serde_json::Value {
    let path = format!("{}/tests/fixtures/control/{name}.json", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}
