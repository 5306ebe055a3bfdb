//! TLS of the API and of both websockets: a private CA, an unknown one, and `-k`.

use crate::environment::in_child_of;
use crate::support::backend::{Backend, Channel};
use crate::support::containerd::TempDir;
use crate::support::tls::Authority;
use crate::{account, reach_everything, registration};
use ecsd::control::http::SchemeClient;
use ecsd::control::proxy::Proxies;
use ecsd::control::tls::Tls;
use ecsd::control::{Account, AgentIdentity, EcsApi, credentials, ws};

pub fn account_of_child() -> Account {
    use crate::support::sigv4::{ACCESS_KEY, REGION, SECRET};
    let key = aws_credential_types::Credentials::new(ACCESS_KEY, SECRET, None, None, "test");
    let endpoint = std::env::var("ECSD_TEST_ENDPOINT").unwrap();
    Account::new(REGION, Some(endpoint), AgentIdentity::default())
        .with_credentials(credentials::CredentialsCache::from_provider(key))
}

#[tokio::test]
async fn a_ca_that_is_named_is_trusted() {
    let (authority, dir) = (Authority::new(), TempDir::new("ca"));
    let file = dir.path().join("ca.pem");
    std::fs::write(&file, authority.pem()).unwrap();
    let mut backend = Backend::start_tls(authority.server(&["localhost"])).await;
    let endpoint = backend.endpoint().to_owned();
    let vars = [("ECSD_TEST_ENDPOINT", endpoint.as_str()), ("SSL_CERT_FILE", file.to_str().unwrap())];
    if in_child_of("tls", "a_ca_that_is_named_is_trusted", &vars).await {
        return reach_everything(&account_of_child()).await;
    }
    backend.accept(Channel::Acs).await;
    backend.accept(Channel::Tcs).await;
}

#[tokio::test]
async fn an_unknown_ca_is_an_error_that_names_the_cure() {
    let (authority, dir) = (Authority::new(), TempDir::new("ca"));
    let file = dir.path().join("other.pem");
    std::fs::write(&file, Authority::new().pem()).unwrap();
    let mut backend = Backend::start_tls(authority.server(&["localhost"])).await;
    let endpoint = backend.endpoint().to_owned();
    let vars = [("ECSD_TEST_ENDPOINT", endpoint.as_str()), ("SSL_CERT_FILE", file.to_str().unwrap())];
    if in_child_of("tls", "an_unknown_ca_is_an_error_that_names_the_cure", &vars).await {
        let account = account_of_child();
        let error = EcsApi::new(&account).register_container_instance(&registration()).await.unwrap_err();
        assert_eq!(error.exit_code(), 1);
        let api = format!("{:?}", std::error::Error::source(&error).unwrap());
        let url = ws::address(&std::env::var("ECSD_TEST_ENDPOINT").unwrap(), &[]).unwrap();
        let socket = ws::connect(&account, &url).await.unwrap_err().to_string();
        for text in [api, socket] {
            assert!(text.contains("SSL_CERT_FILE") && text.contains("localhost"), "{text}");
        }
        return;
    }
    assert!(backend.waiting_calls().is_empty());
}

#[tokio::test]
async fn any_certificate_will_do_where_that_is_asked_for() {
    let mut backend = Backend::start_tls(Authority::new().server(&["somebody.else"])).await;
    let http = SchemeClient::new(Proxies::from_vars(|_| None), Tls::any_certificate());
    reach_everything(&account(&backend, None).with_http(http)).await;
    backend.accept(Channel::Acs).await;
    backend.accept(Channel::Tcs).await;
}
