//! Everything but what is near goes through the proxy that the environment names.

use crate::support::backend::{Backend, Channel};
use crate::support::proxy::Proxy;
use crate::support::tls::Authority;
use crate::{account, reach_everything, registration};
use ecsd::control::http::SchemeClient;
use ecsd::control::proxy::Proxies;
use ecsd::control::tls::Tls;
use ecsd::control::{Account, EcsApi, ws};

fn through(backend: &Backend, vars: &[(&str, &str)]) -> Account {
    let get =
        |name: &str| vars.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
    let http = SchemeClient::new(Proxies::from_vars(get), Tls::any_certificate());
    account(backend, None).with_http(http)
}

#[tokio::test]
async fn https_and_wss_are_tunnelled_with_the_password() {
    let tls = Authority::new().server(&["ecs.test.example"]);
    let mut backend = Backend::start_as(Some(tls), Some("https://ecs.test.example")).await;
    let proxy = Proxy::start(backend.address()).await;
    // HTTPS_PROXY is blank: HTTP_PROXY serves.
    let vars = [("HTTP_PROXY", proxy.url("pa%3Ass")), ("HTTPS_PROXY", String::new())];
    let vars = vars.each_ref().map(|(name, value)| (*name, value.as_str()));
    reach_everything(&through(&backend, &vars)).await;
    backend.accept(Channel::Acs).await;
    backend.accept(Channel::Tcs).await;
    // One for the API, whose connection is used again, and one for each websocket.
    assert_eq!(proxy.asked(), ["CONNECT ecs.test.example:443"; 3]);
}

#[tokio::test]
async fn plain_requests_are_handed_over_whole_and_plain_websockets_tunnelled() {
    let mut backend = Backend::start_as(None, Some("http://ecs.test.example:8080")).await;
    let proxy = Proxy::start(backend.address()).await;
    let url = proxy.url("pa%3Ass");
    reach_everything(&through(&backend, &[("HTTP_PROXY", &url)])).await;
    backend.accept(Channel::Acs).await;
    backend.accept(Channel::Tcs).await;
    let [api, socket] = ["POST http://ecs.test.example:8080/", "CONNECT ecs.test.example:8080"];
    assert_eq!(proxy.asked(), [api, api, socket, socket]);
}

#[tokio::test]
async fn exceptions_and_near_hosts_are_reached_directly() {
    let backend = Backend::start().await;
    let proxy = Proxy::start(backend.address()).await;
    let url = proxy.url("pa%3Ass");
    reach_everything(&through(&backend, &[("HTTP_PROXY", &url), ("NO_PROXY", "x")])).await;
    assert!(proxy.asked().is_empty());

    let elsewhere = Backend::start_as(None, Some("http://ecs.invalid:1")).await;
    let direct = through(&elsewhere, &[("HTTP_PROXY", &url), ("NO_PROXY", ".invalid")]);
    let error = EcsApi::new(&direct).discover_poll_endpoint("peer", "i").await.unwrap_err().to_string();
    assert!(error.contains("ecs.invalid:1 can't be reached"), "{error}");
    assert!(proxy.asked().is_empty());
}

#[tokio::test]
async fn a_refusal_is_told_without_the_password() {
    let tls = Authority::new().server(&["ecs.test.example"]);
    let backend = Backend::start_as(Some(tls), Some("https://ecs.test.example")).await;
    let proxy = Proxy::start(backend.address()).await;
    let url = proxy.url("wrong-canary");
    let account = through(&backend, &[("HTTPS_PROXY", &url)]);
    let api = EcsApi::new(&account).register_container_instance(&registration()).await.unwrap_err();
    let address = ws::address("https://ecs.test.example", &[]).unwrap();
    let socket = ws::connect(&account, &address).await.unwrap_err();
    for text in [format!("{api:?}"), format!("{socket} {socket:?}"), format!("{account:?}{:?}", account.http)]
    {
        assert!(!text.contains("canary"), "{text}");
    }
    assert!(format!("{api:?}").contains("407") && socket.to_string().contains("407"), "{api:?}");
}

#[tokio::test]
async fn a_proxy_may_speak_tls_itself() {
    let authority = Authority::new();
    let tls = authority.server(&["ecs.test.example"]);
    let mut backend = Backend::start_as(Some(tls), Some("https://ecs.test.example")).await;
    let proxy = Proxy::start_as(backend.address(), Some(authority.server(&["127.0.0.1"]))).await;
    let url = proxy.url("pa%3Ass");
    reach_everything(&through(&backend, &[("HTTPS_PROXY", &url)])).await;
    backend.accept(Channel::Acs).await;
    assert_eq!(proxy.asked().len(), 3);
}

#[tokio::test]
async fn without_a_back_end_host_the_regions_own_endpoint_is_asked() {
    for (region, dual_stack, host) in [
        ("us-west-2", false, "ecs.us-west-2.amazonaws.com"),
        ("us-west-2", true, "ecs.us-west-2.api.aws"),
        ("us-gov-west-1", false, "ecs.us-gov-west-1.amazonaws.com"),
        ("cn-north-1", false, "ecs.cn-north-1.amazonaws.com.cn"),
        ("cn-north-1", true, "ecs.cn-north-1.api.amazonwebservices.com.cn"),
    ] {
        let backend = Backend::start().await;
        let proxy = Proxy::start(backend.address()).await;
        let url = proxy.url("wrong");
        let mut account = through(&backend, &[("HTTPS_PROXY", &url)]).with_dual_stack(dual_stack);
        (account.region, account.endpoint) = (region.to_owned(), None);
        EcsApi::new(&account).register_container_instance(&registration()).await.unwrap_err();
        assert_eq!(proxy.asked()[0], format!("CONNECT {host}:443"));
    }
}
