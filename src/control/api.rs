//! The ECS API (spec/control-plane.md 1): registering the instance, finding the websockets'
//! addresses, submitting state changes. The only module that names the SDK's client.

mod attach;
mod discover;
mod drain;
mod error;
mod order;
mod register;
mod submit;
mod tasks;

pub use discover::PollEndpoints;
pub use error::ApiError;
pub use register::{RegisterError, RegisterTimings, Registered, Registration};
pub use submit::{InstanceReporter, SubmitTimings};

use super::account::Account;
use aws_config::BehaviorVersion;
use aws_sdk_ecs::config::timeout::TimeoutConfig;
use aws_sdk_ecs::config::{IdentityCache, Region, StalledStreamProtectionConfig, retry::RetryConfig};
use aws_smithy_async::rt::sleep::TokioSleep;
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use aws_smithy_types::body::SdkBody;
use aws_smithy_types::retry::ReconnectMode;
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;

/// Dialling.
const CONNECT: Duration = Duration::from_secs(30);
/// One attempt from dialling to the last byte (0.2).
const ROUND_TRIP: Duration = Duration::from_secs(42);

/// The API of one account and region; cheap to clone.
#[derive(Debug, Clone)]
pub struct EcsApi {
    client: aws_sdk_ecs::Client,
    user_agent: Arc<str>,
    discovered: Arc<discover::Cache>,
}

impl EcsApi {
    /// Puts the client together. Does no I/O: certificates, credentials and addresses are looked up
    /// by the first call.
    pub fn new(account: &Account) -> Self {
        let timeouts =
            TimeoutConfig::builder().connect_timeout(CONNECT).operation_attempt_timeout(ROUND_TRIP).build();
        let mut config = aws_sdk_ecs::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new(account.region.clone()))
            .http_client(account.http.clone())
            .credentials_provider(account.credentials.clone())
            // The account's cache serves the websockets too; a second one would only hold on to
            // credentials that it gave up.
            .identity_cache(IdentityCache::no_cache())
            .sleep_impl(TokioSleep::new())
            .timeout_config(timeouts)
            .retry_config(retries(RetryConfig::standard()))
            .interceptor(account.clock.clone())
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled());
        config = match &account.endpoint {
            Some(endpoint) => config.endpoint_url(endpoint),
            None => config.use_dual_stack(account.dual_stack),
        };
        Self {
            client: aws_sdk_ecs::Client::from_conf(config.build()),
            user_agent: account.identity.user_agent().into(),
            discovered: Arc::default(),
        }
    }

    /// With another age at which the websockets' addresses are asked for again (tests).
    pub fn with_discovery_ttl(mut self, ttl: Duration) -> Self {
        self.discovered = Arc::new(discover::Cache::new(ttl));
        self
    }

    /// What is done to each request before it is signed: the original's User-Agent instead of the
    /// SDK's, and members that the public model lacks or writes otherwise.
    fn finish(
        &self,
        members: serde_json::Map<String, Value>,
    ) -> impl Fn(&mut HttpRequest) + Send + Sync + use<> + 'static {
        let user_agent = Arc::clone(&self.user_agent);
        move |request| {
            let headers = request.headers_mut();
            headers.remove("x-amz-user-agent");
            headers.insert("user-agent", user_agent.to_string());
            if !members.is_empty() {
                set_members(request, &members);
            }
        }
    }
}

/// An error of the service says nothing against the connection that brought it.
fn retries(config: RetryConfig) -> RetryConfig {
    config.with_reconnect_mode(ReconnectMode::ReuseAllConnections)
}

/// Adds members to a JSON body, or replaces them.
fn set_members(request: &mut HttpRequest, members: &serde_json::Map<String, Value>) {
    let body = request.body().bytes().and_then(|bytes| serde_json::from_slice(bytes).ok());
    let Some(Value::Object(mut whole)) = body else { return };
    whole.extend(members.clone());
    let text = Value::Object(whole).to_string();
    request.headers_mut().insert("content-length", text.len().to_string());
    *request.body_mut() = SdkBody::from(text);
}
