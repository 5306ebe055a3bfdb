//! Endpoints by IPv6: an address, and a name that has both families of which one leads nowhere.

use crate::environment::in_child_of;
use crate::support::backend::{Backend, Channel};
use crate::support::containerd::TempDir;
use crate::support::host::{on_own_network, run};
use crate::support::tls::Authority;
use crate::{account, reach_everything, tls};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

const NAME: &str = "ecs.test";

/// Only for this test's own thread and its children: the name has these addresses.
fn name_has(addresses: &[&str], dir: &TempDir) {
    unshare(CloneFlags::CLONE_NEWNS).unwrap();
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_PRIVATE | MsFlags::MS_REC, none).unwrap();
    let hosts = dir.path().join("hosts");
    let lines: Vec<String> = addresses.iter().map(|address| format!("{address} {NAME}\n")).collect();
    std::fs::write(&hosts, lines.concat()).unwrap();
    mount(Some(&hosts), "/etc/hosts", none, MsFlags::MS_BIND, none).unwrap();
}

#[tokio::test]
async fn an_ipv6_address_is_an_endpoint() {
    let mut backend = Backend::start_at("[::1]:0", None, |(_, address)| format!("http://{address}")).await;
    reach_everything(&account(&backend, None)).await;
    let host = backend.call().await.headers["host"].clone();
    assert_eq!(host, backend.address().to_string());
    for channel in [Channel::Acs, Channel::Tcs] {
        assert_eq!(backend.accept(channel).await.headers["host"], host);
    }
}

#[tokio::test]
async fn the_certificate_of_an_ipv6_address_is_verified() {
    let (authority, dir) = (Authority::new(), TempDir::new("ca"));
    let file = dir.path().join("ca.pem");
    std::fs::write(&file, authority.pem()).unwrap();
    for (name, is_trusted) in [("::1", true), ("::2", false)] {
        let tls = Some(authority.server(&[name]));
        let mut backend =
            Backend::start_at("[::1]:0", tls, |(_, address)| format!("https://{address}")).await;
        let endpoint = backend.endpoint().to_owned();
        let vars = [
            ("ECSD_TEST_ENDPOINT", endpoint.as_str()),
            ("SSL_CERT_FILE", file.to_str().unwrap()),
            ("ECSD_TEST_TRUSTED", if is_trusted { "1" } else { "0" }),
        ];
        if in_child_of("families", "the_certificate_of_an_ipv6_address_is_verified", &vars).await {
            let account = tls::account_of_child();
            if std::env::var("ECSD_TEST_TRUSTED").unwrap() == "1" {
                return reach_everything(&account).await;
            }
            let api = ecsd::control::EcsApi::new(&account);
            let error = api.register_container_instance(&crate::registration()).await.unwrap_err();
            let text = format!("{:?}", std::error::Error::source(&error).unwrap());
            assert!(text.contains("is not trusted"), "{text}");
            return;
        }
        if is_trusted {
            backend.accept(Channel::Acs).await;
            backend.accept(Channel::Tcs).await;
        }
    }
}

#[test]
fn a_name_with_both_families_is_reached_by_the_one_that_leads_somewhere() {
    on_own_network(|| async {
        let dir = TempDir::new("hosts");
        name_has(&["::1", "127.0.0.1"], &dir);
        run("nft", &["add table inet silent { chain in { type filter hook input priority 0; }; }"]);
        for (listens, silent) in [
            ("[::1]:0", None),
            ("127.0.0.1:0", None),
            ("[::1]:0", Some("ip daddr 127.0.0.1")),
            ("127.0.0.1:0", Some("ip6 daddr ::1")),
        ] {
            let called =
                |(_, address): (_, std::net::SocketAddr)| format!("http://{NAME}:{}", address.port());
            let mut backend = Backend::start_at(listens, None, called).await;
            if let Some(addresses) = silent {
                let port = backend.address().port();
                // No answer at all, as behind a firewall.
                run("nft", &[&format!("add rule inet silent in {addresses} tcp dport {port} drop")]);
            }
            reach_everything(&account(&backend, None)).await;
            backend.accept(Channel::Acs).await;
            backend.accept(Channel::Tcs).await;
        }
    });
}
