//! How the agent's program reaches a back end: TLS, `-k`, IPv6, the region's own endpoint. The rules in
//! detail are held by `tests/control` (`tls`, `families`, `proxies`).

use crate::scripted::prepared_host;
use crate::support::backend::{Backend, Channel, Connection};
use crate::support::host::{Host, on_own_network, run};
use crate::support::proxy::Proxy;
use crate::support::tls::Authority;

/// Everything that the agent sends, to where the service says it is. The answer is to be held: a websocket
/// that is dropped is followed by another.
async fn is_reached(backend: &mut Backend) -> [Connection; 2] {
    assert_eq!(backend.call().await.operation, "RegisterContainerInstance");
    let mut acs = backend.accept(Channel::Acs).await;
    acs.is_quiet().await;
    let mut tcs = backend.accept(Channel::Tcs).await;
    assert_eq!(tcs.receive_signed().await.0, "PublishMetricsRequest");
    [acs, tcs]
}

#[test]
fn a_certificate_must_be_vouched_for_unless_k_is_given() {
    on_own_network(|| async {
        let authority = Authority::new();
        let mut backend = Backend::start_tls(authority.server(&["localhost"])).await;
        let mut host = prepared_host().await;
        host.start_agent_at(backend.endpoint());
        assert_eq!(host.agent_exit().await, Some(1));
        assert!(host.agent_log().contains("is not trusted"), "{}", host.agent_log());
        assert!(backend.waiting_calls().is_empty());

        host.start_agent_with(&["-k"], backend.endpoint());
        let held = is_reached(&mut backend).await;
        assert!(host.agent_log().contains("certificates are not verified"), "it is said");
        host.kill_agent();
        drop(held);
        backend.waiting_calls();

        let file = host.dir.path().join("ca.pem");
        std::fs::write(&file, authority.pem()).unwrap();
        host.set("SSL_CERT_FILE", file.to_str().unwrap());
        host.start_agent_at(backend.endpoint());
        is_reached(&mut backend).await;
    });
}

#[test]
fn an_endpoint_may_be_an_ipv6_address() {
    on_own_network(|| async {
        let mut backend =
            Backend::start_at("[::1]:0", None, |(_, address)| format!("http://{address}")).await;
        let mut host = prepared_host().await;
        host.start_agent_at(backend.endpoint());
        is_reached(&mut backend).await;
    });
}

/// Whom an agent without `ECS_BACKEND_HOST` asks, by what it asks its proxy for.
async fn asked(host: &mut Host, proxy: &Proxy) -> String {
    let before = proxy.asked().len();
    host.start_agent_at("");
    assert_eq!(host.agent_exit().await, Some(1), "the proxy refuses");
    proxy.asked()[before].clone()
}

#[test]
fn an_instance_with_ipv6_alone_asks_the_endpoint_that_has_it() {
    on_own_network(|| async {
        let (plain, dual) = ("CONNECT ecs.us-west-2.amazonaws.com:443", "CONNECT ecs.us-west-2.api.aws:443");
        run("ip", &["link", "add", "uplink", "type", "veth", "peer", "name", "far"]);
        run("ip", &["link", "set", "far", "up"]);
        run("ip", &["address", "add", "fd00:77::2/64", "dev", "uplink", "nodad"]);
        run("ip", &["link", "set", "uplink", "up"]);
        run("ip", &["-6", "route", "add", "default", "via", "fd00:77::1"]);
        let proxy = Proxy::start(([127, 0, 0, 1], 1).into()).await;
        let mut host = prepared_host().await;
        host.set("HTTPS_PROXY", &proxy.url("wrong"));
        assert_eq!(asked(&mut host, &proxy).await, dual);
        host.set("ECS_INSTANCE_IP_COMPATIBILITY", "ipv4");
        assert_eq!(asked(&mut host, &proxy).await, plain);
        host.set("ECS_INSTANCE_IP_COMPATIBILITY", "");
        run("ip", &["address", "add", "10.77.0.2/24", "dev", "uplink"]);
        run("ip", &["route", "add", "default", "via", "10.77.0.1"]);
        assert_eq!(asked(&mut host, &proxy).await, plain, "it has both");
        host.set("ECS_INSTANCE_IP_COMPATIBILITY", "IPv6");
        assert_eq!(asked(&mut host, &proxy).await, dual);
    });
}
