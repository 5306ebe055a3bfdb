//! Mirrors and certificates of registries, as `hosts.toml` names them: a real registry behind TLS, and
//! fakes that tell what they were asked.

use super::support::containerd::TempDir;
use super::support::front::{Front, Manners};
use super::support::registry::{DockerRegistry, FakeRegistry, Fault, TestImage, noise};
use super::support::tls::Authority;
use super::{Setup, of, options, parsed, setup, small_image};
use ecsd::containerd::images::{ImageOptions, ImageService};
use ecsd::model::RegistryAuth;
use ecsd::ports::Images;
use std::path::Path;

/// The directory, with a `hosts.toml` for each host.
struct Hosts(TempDir);

impl Hosts {
    fn new() -> Self {
        Self(TempDir::new("certs.d"))
    }

    fn put(&self, host: &str, file: &str, text: &str) {
        let directory = self.0.path().join(host);
        std::fs::create_dir_all(&directory).unwrap();
        std::fs::write(directory.join(file), text).unwrap();
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

/// A service that goes by the directory and has one password.
fn service(setup: &Setup, hosts: &Hosts, registry: &str) -> ImageService {
    let auth = RegistryAuth { username: "robot".into(), password: "CANARY".into() };
    let auth = vec![(registry.to_owned(), auth)];
    setup.service(ImageOptions { hosts_dir: hosts.path().to_owned(), auth, ..options() })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_behind_tls_is_known_by_its_ca_and_knows_us_by_a_certificate() {
    let (setup, hosts, authority) = (setup(), Hosts::new(), Authority::new());
    let registry = DockerRegistry::start(Some(("robot", "CANARY")));
    registry.push("app", "1", &small_image(200));
    let upstream = registry.host().parse().unwrap();
    let tls = |config| Manners { tls: Some(config), ..Manners::default() };
    let open = Front::start(upstream, tls(authority.server(&["localhost"]))).await;
    let closed = Front::start(upstream, tls(authority.server_for_clients(&["localhost"]))).await;
    let (certificate, key) = authority.client();
    for (front, lines, works) in [
        (&open, "", false),
        (&open, "ca = \"own.crt\"", true),
        (&open, "skip_verify = true", true),
        (&closed, "ca = \"own.crt\"", false),
        (&closed, "ca = [\"own.crt\"]\nclient = [[\"me.pem\", \"me.key\"]]", true),
        (&closed, "skip_verify = true\nclient = \"both.pem\"", true),
    ] {
        let host = format!("localhost:{}", front.port());
        hosts.put(&host, "hosts.toml", &format!("server = \"https://{host}\"\n{lines}"));
        hosts.put(&host, "own.crt", &authority.pem());
        hosts.put(&host, "me.pem", &certificate);
        hosts.put(&host, "me.key", &key);
        hosts.put(&host, "both.pem", &format!("{certificate}{key}"));
        let name = format!("{host}/app:1");
        let service = service(&setup, &hosts, &host);
        let pulled = service.pull(of(&name), None).await;
        assert_eq!(pulled.is_ok(), works, "{lines}: {pulled:?}");
        if let Err(failed) = pulled {
            assert!(failed.reason.message.contains(&host), "{failed:?}");
            assert!(!format!("{failed:?}").contains("CANARY"));
        } else {
            service.remove_image(&name).await.unwrap();
        }
    }
    // A certificate that can't be read fails the pull, and says where it is.
    let host = format!("localhost:{}", open.port());
    hosts.put(&host, "hosts.toml", &format!("server = \"https://{host}\"\nca = \"no-such.crt\""));
    let failed = service(&setup, &hosts, &host).pull(of(&format!("{host}/app:1")), None).await.unwrap_err();
    assert!(failed.reason.message.contains("no-such.crt: no such file"), "{failed:?}");
    assert_eq!(setup.held().await, (0, 0, 0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn mirrors_are_asked_in_order_for_what_they_may_be_and_never_with_the_registrys_password() {
    let (setup, hosts) = (setup(), Hosts::new());
    let (registry, empty, lying, mirror) =
        (FakeRegistry::start(), FakeRegistry::start(), FakeRegistry::start(), FakeRegistry::start());
    let image = small_image(210);
    for one in [&registry, &lying, &mirror] {
        one.put("team/app", "1", &image);
    }
    // Whatever it is asked for, it gives something else.
    for part in ["manifests", "blobs"] {
        lying.fault(
            part,
            Fault::Answer(200, "Content-Type: text/html\r\n".into(), "<html>".into()),
            usize::MAX,
        );
    }
    let host = registry.host();
    let toml = format!(
        "server = \"http://{host}\"\n\
         [host.\"http://127.0.0.1:1\"]\n\
         [host.\"http://{}\"]\ncapabilities = [\"pull\", \"resolve\"]\n\
         [host.\"http://{}\"]\ncapabilities = [\"pull\"]\n[host.\"http://{}\".header]\nauthorization = \"Basic own\"\n",
        empty.host(),
        mirror.host(),
        mirror.host(),
    );
    hosts.put(&host, "hosts.toml", &toml);
    registry.guard("Basic cm9ib3Q6Q0FOQVJZ", "Basic realm=\"x\"");
    let service = service(&setup, &hosts, &host);
    let name = format!("{host}/team/app:1");
    let resolved = service.resolve(of(&name)).await.unwrap();
    assert_eq!(resolved.digest, Some(parsed(&image.digest())));
    service.pull(of(&name), resolved.digest.as_ref()).await.unwrap();
    // The tag's digest is the registry's word; all content came from the mirror.
    assert!(registry.seen("").iter().all(|seen| seen.method == "HEAD"), "{:?}", registry.seen(""));
    assert_eq!(mirror.seen("HEAD").len(), 0);
    assert_eq!(mirror.seen("manifests/sha256:").len(), 2);
    for blob in image.blobs.keys() {
        let seen = mirror.seen(blob);
        assert_eq!(seen.len(), 1);
        assert!(seen[0].path.ends_with(&format!("?ns={host}")), "{seen:?}");
        assert_eq!(seen[0].authorization.as_deref(), Some("Basic own"));
    }
    assert!(!empty.seen("").is_empty());
    assert!(empty.seen("").iter().all(|seen| seen.authorization.is_none()));
    service.remove_image(&name).await.unwrap();

    // What a mirror gives is believed by its digest alone: then it is the registry's turn.
    hosts.put(
        &host,
        "hosts.toml",
        &format!("server = \"http://{host}\"\n[host.\"http://{}\"]\n", lying.host()),
    );
    let id = service.pull(of(&name), Some(&parsed(&image.digest()))).await.unwrap();
    assert_eq!(id.as_str(), image.config_digest);
    assert!(!lying.seen("manifests").is_empty() && !lying.seen("blobs").is_empty());
    assert!(lying.seen("").iter().all(|seen| seen.authorization.is_none()));
    service.remove_image(&name).await.unwrap();
    assert_eq!(setup.held().await, (0, 0, 0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_http_beyond_this_machine_is_spoken_where_it_is_configured() {
    let (setup, hosts) = (setup(), Hosts::new());
    let registry = FakeRegistry::start();
    registry.put("app", "1", &small_image(220));
    // This machine by an address that does not look like it.
    let host = registry.host().replace("127.0.0.1", "0.0.0.0");
    let name = format!("{host}/app:1");
    let service = service(&setup, &hosts, &host);
    service.resolve(of(&name)).await.unwrap_err();
    assert!(registry.seen("").is_empty());
    hosts.put("_default", "hosts.toml", &format!("server = \"http://{host}\""));
    service.pull(of(&name), None).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_is_slow_and_cuts_is_drained_all_the_same() {
    let setup = setup();
    let registry = DockerRegistry::start(None);
    let image = TestImage::new(&[&[("big", &noise(230, 24 << 20))], &[("small", &noise(231, 5000))]]);
    registry.push("app", "1", &image);
    let manners = Manners { tls: None, bytes_per_second: Some(16 << 20), cut: Some((4, 3 << 20)) };
    let front = Front::start(registry.host().parse().unwrap(), manners).await;
    let name = format!("127.0.0.1:{}/app:1", front.port());
    let service = setup.service(options());
    let id = service.pull(of(&name), None).await.unwrap();
    assert_eq!(id.as_str(), image.config_digest);
    assert_eq!(front.cuts(), 4);
    assert_eq!(setup.held().await, (5, 0, 2, 0));
}
