//! Images, end to end: a private containerd, a real registry, and a fake one that fails as told.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

#[path = "images/aws.rs"]
mod aws;
#[path = "images/hostile.rs"]
mod hostile;
#[path = "images/hosts.rs"]
mod hosts;
#[path = "images/layers.rs"]
mod layers;
#[path = "images/stalls.rs"]
mod stalls;
mod support;

use containerd_client::services::v1::ListContentRequest;
use containerd_client::services::v1::content_client::ContentClient;
use containerd_client::services::v1::leases_client::LeasesClient;
use containerd_client::services::v1::snapshots::ListSnapshotsRequest;
use containerd_client::services::v1::snapshots::snapshots_client::SnapshotsClient;
use containerd_client::services::v1::{ListRequest, ListStatusesRequest};
use ecsd::containerd::Connection;
use ecsd::containerd::image::archive::{RootfsConfig, RootfsContent, RootfsFile, oci_archive};
use ecsd::containerd::image::import::{build_rootfs_image, import_stream};
use ecsd::containerd::images::{Backoff, ImageOptions, ImageService, PullTuning};
use ecsd::model::{ImageDigest, ImageRequest, PullBehavior, RegistryAuth};
use ecsd::ports::Images;
use std::time::{Duration, Instant};
use support::containerd::PrivateContainerd;
use support::registry::{DockerRegistry, FakeRegistry, Fault, TestImage, digest, noise};

struct Setup {
    containerd: PrivateContainerd,
    conn: Connection,
}

fn setup() -> Setup {
    setup_on(PrivateContainerd::start(None))
}

fn setup_on(containerd: PrivateContainerd) -> Setup {
    let conn = Connection::new(containerd.socket(), "ecs").unwrap();
    Setup { containerd, conn }
}

fn options() -> ImageOptions {
    let quick =
        Backoff { attempts: 5, first: Duration::from_millis(5), factor: 2.0, cap: Duration::from_millis(50) };
    ImageOptions {
        tuning: PullTuning { retry: quick, resolve_retry: quick, ..PullTuning::default() },
        ..ImageOptions::default()
    }
}

impl Setup {
    fn service(&self, options: ImageOptions) -> ImageService {
        ImageService::new(self.conn.clone(), options)
    }

    /// Blobs, partial blobs, snapshots and leases that containerd holds.
    async fn held(&self) -> (usize, usize, usize, usize) {
        self.held_by("overlayfs").await
    }

    /// The same, with snapshots of that snapshotter.
    async fn held_by(&self, snapshotter: &str) -> (usize, usize, usize, usize) {
        let mut content = ContentClient::new(self.conn.channel());
        let request = self.conn.request(ListContentRequest { filters: Vec::new() });
        let mut blobs = 0;
        let mut listed = content.list(request).await.unwrap().into_inner();
        while let Some(part) = listed.message().await.unwrap() {
            blobs += part.info.len();
        }
        let request = self.conn.request(ListStatusesRequest { filters: Vec::new() });
        let partial = content.list_statuses(request).await.unwrap().into_inner().statuses.len();
        let request = ListSnapshotsRequest { snapshotter: snapshotter.into(), filters: Vec::new() };
        let mut listed = SnapshotsClient::new(self.conn.channel())
            .list(self.conn.request(request))
            .await
            .unwrap()
            .into_inner();
        let mut snapshots = 0;
        while let Some(part) = listed.message().await.unwrap() {
            snapshots += part.info.len();
        }
        let request = self.conn.request(ListRequest { filters: Vec::new() });
        let leases =
            LeasesClient::new(self.conn.channel()).list(request).await.unwrap().into_inner().leases.len();
        (blobs, partial, snapshots, leases)
    }
}

fn small_image(seed: u64) -> TestImage {
    TestImage::new(&[&[("bin/app", &noise(seed, 100_000))], &[("etc/conf", &noise(seed + 1, 1000))]])
}

/// An image by its name alone.
fn of(image: &str) -> ImageRequest<'_> {
    image.into()
}

fn parsed(text: &str) -> ImageDigest {
    ImageDigest::parse(text).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_is_pulled_found_again_without_network_and_removed_without_trace() {
    let setup = setup();
    let registry = DockerRegistry::start(None);
    let big = noise(7, 20 << 20);
    let image = TestImage::new(&[&[("bin/app", b"app")], &[("big", &big)], &[("etc/x", b"x")]]);
    registry.push("team/app", "1", &image);
    let name = format!("{}/team/app:1", registry.host());
    let service = setup.service(options());

    let resolved = service.resolve(of(&name)).await.unwrap();
    assert_eq!(resolved.digest, Some(parsed(&image.digest())));
    assert!(!resolved.local);
    let id = service.pull(of(&name), resolved.digest.as_ref()).await.unwrap();
    assert_eq!(id.as_str(), image.config_digest);
    // index, manifest, config, three layers
    assert_eq!(setup.held().await, (6, 0, 3, 0));

    let config = service.image_config(&name).await.unwrap();
    assert_eq!(config.id, id);
    let cmd = config.config.config().as_ref().and_then(|c| c.cmd().clone());
    assert_eq!(cmd, Some(vec!["/bin/app".to_owned()]));
    assert!(service.resolve(of(&name)).await.unwrap().local);
    assert_eq!(service.list().await.unwrap()[0].name, name);

    // A service that knows nothing, and no registry.
    drop(registry);
    let service = setup.service(options());
    let begun = Instant::now();
    let failed = service.resolve(of(&name)).await.unwrap_err();
    assert!(failed.local.is_some(), "{failed:?}");
    assert!(failed.reason.message.contains("Connection refused"), "{failed:?}");
    assert!(begun.elapsed() < Duration::from_secs(3));
    assert_eq!(service.pull(of(&name), Some(&parsed(&image.digest()))).await.unwrap(), id);
    let cached = ImageOptions { pull_behavior: PullBehavior::PreferCached, ..options() };
    let cached = setup.service(cached);
    let resolved = cached.resolve(of(&name)).await.unwrap();
    assert_eq!((resolved.digest, resolved.local), (Some(parsed(&image.digest())), true));
    assert_eq!(cached.pull(of(&name), None).await.unwrap(), id);
    let always = setup.service(ImageOptions { pull_behavior: PullBehavior::Always, ..options() });
    assert!(always.resolve(of(&name)).await.unwrap_err().local.is_none());

    // Pinned by digest: the content is there, so only a record is made.
    let pinned = format!("{}@{}", name.trim_end_matches(":1"), image.digest());
    let resolved = service.resolve(of(&pinned)).await.unwrap();
    assert_eq!((resolved.digest, resolved.local), (None, false));
    assert_eq!(service.pull(of(&pinned), None).await.unwrap(), id);
    assert!(service.resolve(of(&pinned)).await.unwrap().local);

    service.remove_image(&name).await.unwrap();
    assert_eq!(service.image_config(&pinned).await.unwrap().id, id);
    service.remove_image(&pinned).await.unwrap();
    assert_eq!(setup.held().await, (0, 0, 0, 0));
    assert!(service.image_config(&name).await.unwrap_err().message.contains("no such image"));
}

#[tokio::test(flavor = "multi_thread")]
async fn basic_auth_is_answered_and_never_told() {
    let setup = setup();
    let registry = DockerRegistry::start(Some(("robot", "CANARY")));
    let image = small_image(1);
    registry.push("app", "1", &image);
    let name = format!("{}/app:1", registry.host());
    let with = |password: &str| {
        let auth = RegistryAuth { username: "robot".into(), password: password.into() };
        setup.service(ImageOptions { auth: vec![(registry.host(), auth)], ..options() })
    };
    let none = setup.service(options()).resolve(of(&name)).await.unwrap_err();
    assert!(none.reason.message.contains("401"), "{none:?}");
    assert!(none.reason.message.contains("UNAUTHORIZED"), "{none:?}");
    assert!(none.reason.message.contains("no credentials"), "{none:?}");
    let wrong = with("CANARYWRONG").resolve(of(&name)).await.unwrap_err();
    assert!(wrong.reason.message.contains("401") && !format!("{wrong:?}").contains("CANARY"), "{wrong:?}");
    let service = with("CANARY");
    let resolved = service.resolve(of(&name)).await.unwrap();
    service.pull(of(&name), resolved.digest.as_ref()).await.unwrap();
    assert!(!format!("{service:?}").contains("CANARY"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_image_fails_at_once_in_the_registrys_words() {
    let setup = setup();
    let registry = DockerRegistry::start(None);
    let service = setup.service(ImageOptions::default());
    let name = format!("{}/no/such:tag", registry.host());
    let begun = Instant::now();
    let resolved = service.resolve(of(&name)).await.unwrap_err();
    let pulled = service.pull(of(&name), None).await.unwrap_err();
    assert!(begun.elapsed() < Duration::from_secs(2));
    for failed in [resolved, pulled] {
        assert_eq!(failed.reason.name, "CannotPullContainerError");
        for word in ["404", "MANIFEST_UNKNOWN: manifest unknown", &name, &registry.host()] {
            assert!(failed.reason.message.contains(word), "{word}: {failed:?}");
        }
        assert!(failed.local.is_none());
    }
    for bad in ["", "A b", "x@sha256:1", "../../x"] {
        assert!(!service.pull(of(bad), None).await.unwrap_err().reason.message.is_empty());
    }
    assert_eq!(setup.held().await, (0, 0, 0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_stumbles_is_tried_again() {
    let setup = setup();
    let registry = FakeRegistry::start();
    let image = small_image(10);
    registry.put("app", "1", &image);
    let name = format!("{}/app:1", registry.host());
    let service = setup.service(options());
    let layer = image.layers[0].clone();
    let busy = Fault::Answer(503, String::new(), "busy".into());
    registry.fault("HEAD /v2/app/manifests/1", busy.clone(), 2);
    registry.fault(
        "GET /v2/app/manifests",
        Fault::Answer(429, "Retry-After: 0\r\n".into(), String::new()),
        1,
    );
    registry.fault("GET /v2/app/manifests", Fault::CloseAfter(10), 1);
    registry.fault(&layer, busy, 1);
    registry.fault(&layer, Fault::CloseAfter(40_000), 1);
    registry.fault(&layer, Fault::NoRanges, 1);
    registry.fault(&image.layers[1], Fault::WrongBytes, 1);
    let resolved = service.resolve(of(&name)).await.unwrap();
    assert_eq!(
        service.pull(of(&name), resolved.digest.as_ref()).await.unwrap().as_str(),
        image.config_digest
    );
    assert_eq!(setup.held().await, (5, 0, 2, 0));
    assert_eq!(registry.seen(&layer).len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_keeps_failing_is_named_and_nothing_is_left() {
    let setup = setup();
    let registry = FakeRegistry::start();
    let image = small_image(20);
    registry.put("app", "1", &image);
    let name = format!("{}/app:1", registry.host());
    let service = setup.service(options());
    let layer = image.layers[0].clone();
    let told = |failed: &ecsd::core::PullFailure, more: &str| {
        assert_eq!(failed.reason.name, "CannotPullContainerError");
        for word in [layer.as_str(), &registry.host(), "5 attempt(s)", more] {
            assert!(failed.reason.message.contains(word), "{word}: {failed:?}");
        }
    };
    registry.fault(&layer, Fault::CloseAfter(1000), usize::MAX);
    told(&service.pull(of(&name), None).await.unwrap_err(), "broke");
    registry.heal();
    registry.fault(&layer, Fault::WrongBytes, usize::MAX);
    told(&service.pull(of(&name), None).await.unwrap_err(), "does not match the digest");
    registry.heal();
    registry.fault(&layer, Fault::Answer(500, String::new(), "boom".into()), usize::MAX);
    told(&service.pull(of(&name), None).await.unwrap_err(), "boom");
    registry.heal();
    let before = registry.seen(&layer).len();
    registry.fault(&layer, Fault::Answer(403, String::new(), "go away".into()), usize::MAX);
    let denied = service.pull(of(&name), None).await.unwrap_err();
    assert!(denied.reason.message.contains("403") && denied.reason.message.contains("go away"), "{denied:?}");
    assert_eq!(registry.seen(&layer).len(), before + 1);
    assert_eq!(setup.held().await, (0, 0, 0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_never_answers_is_given_up_and_a_local_image_serves_quickly() {
    let setup = setup();
    let registry = FakeRegistry::start();
    let image = small_image(30);
    registry.put("app", "1", &image);
    let name = format!("{}/app:1", registry.host());
    let mut options = options();
    options.tuning.local_patience = Duration::from_millis(300);
    let service = setup.service(options.clone());
    let id = service.pull(of(&name), None).await.unwrap();
    // HEAD is answered even by a hanging fake: make it refuse, so that GET hangs.
    registry.fault("HEAD /v2/app/manifests", Fault::Answer(405, String::new(), String::new()), usize::MAX);
    registry.fault("GET /v2/app/manifests", Fault::HangAfter(0), usize::MAX);
    let begun = Instant::now();
    let failed = service.resolve(of(&name)).await.unwrap_err();
    assert!(failed.local.is_some(), "{failed:?}");
    let asked = registry.seen("").len();
    let again = service.pull(of(&name), None).await.unwrap_err();
    assert!(again.local.is_some() && again.reason.message.contains("could not be reached"), "{again:?}");
    assert_eq!(registry.seen("").len(), asked);
    assert!(begun.elapsed() < Duration::from_secs(2));
    assert_eq!(service.image_config(&name).await.unwrap().id, id);

    options.tuning.inactivity_timeout = Duration::from_millis(50);
    let other = setup.service(options);
    other.remove_image(&name).await.unwrap();
    let failed = other.resolve(of(&name)).await.unwrap_err();
    assert!(failed.local.is_none() && failed.reason.message.contains("nothing came"), "{failed:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn many_pulls_of_one_image_fetch_it_once_even_if_the_first_leaves() {
    let setup = setup();
    let registry = FakeRegistry::start();
    let image = small_image(40);
    registry.put("app", "1", &image);
    registry.put("twin", "1", &image);
    let name = format!("{}/app:1", registry.host());
    let twin = format!("{}/twin:1", registry.host());
    let service = setup.service(options());
    let wanted = parsed(&image.digest());
    let mut first = service.pull(of(&name), Some(&wanted));
    let _ = tokio::time::timeout(Duration::from_millis(20), &mut first).await;
    let others = (0..8).map(|n| service.pull(of(if n == 0 { &twin } else { &name }), Some(&wanted)));
    let others = futures_util::future::join_all(others);
    let (_, ids) = tokio::join!(async move { drop(first) }, others);
    assert!(ids.iter().all(|id| id.as_ref().unwrap().as_str() == image.config_digest), "{ids:?}");
    for blob in image.blobs.keys() {
        assert_eq!(registry.seen(blob).len(), 1, "{blob}");
    }
    assert_eq!(setup.held().await, (5, 0, 2, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_pull_goes_on_where_it_stopped() {
    let setup = setup();
    let registry = FakeRegistry::start();
    let image = TestImage::new(&[&[("bin/app", &noise(50, 3 << 20))]]);
    registry.put("app", "1", &image);
    let name = format!("{}/app:1", registry.host());
    let layer = image.layers[0].clone();
    registry.fault(&layer, Fault::HangAfter(2 << 20), 1);
    let service = setup.service(options());
    let cut = tokio::time::timeout(Duration::from_millis(700), service.pull(of(&name), None)).await;
    assert!(cut.is_err());
    service.pull(of(&name), None).await.unwrap();
    let ranges: Vec<_> = registry.seen(&layer).into_iter().map(|seen| seen.range).collect();
    let from =
        ranges[1].as_deref().and_then(|r| r.strip_prefix("bytes=")?.split('-').next()?.parse::<u64>().ok());
    assert!(from.is_some_and(|from| from >= 1 << 20), "{ranges:?}");
    assert_eq!(setup.held().await, (4, 0, 1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_are_fetched_once_and_redirects_carry_none() {
    let setup = setup();
    let (registry, storage) = (FakeRegistry::start(), FakeRegistry::start());
    let image = small_image(60);
    registry.put("team/app", "1", &image);
    let realm = format!("http://{}/token", registry.host());
    registry.page("/token", 200, "", r#"{"token":"CANARYTOKEN","expires_in":300}"#);
    registry.guard("Bearer CANARYTOKEN", &format!("Bearer realm=\"{realm}\",service=\"s\""));
    let layer = image.layers[0].clone();
    storage.page("/signed", 200, "", "");
    storage.put("stored", "1", &image);
    let place = format!("Location: http://{}/stored/{layer}?Signature=CANARYSIGN\r\n", storage.host());
    registry.page(&format!("/v2/team/app/blobs/{layer}"), 307, &place, "");
    let name = format!("{}/team/app:1", registry.host());
    let auth = RegistryAuth { username: "u".into(), password: "CANARYPASS".into() };
    let options = ImageOptions { auth: vec![(registry.host(), auth)], ..options() };
    let service = setup.service(options);
    service.pull(of(&name), None).await.unwrap();
    let tokens = registry.seen("/token");
    assert!(tokens[0].path.contains("scope=repository%3Ateam%2Fapp%3Apull"), "{tokens:?}");
    assert!(tokens[0].authorization.as_deref().is_some_and(|a| a.starts_with("Basic ")));
    assert_eq!(tokens.len(), 1);
    let stored = storage.seen(&layer);
    assert_eq!(stored.len(), 1);
    assert_eq!(stored[0].authorization, None);

    let other = small_image(61);
    registry.put("team/app", "2", &other);
    let place = format!("Location: http://{}/gone?Signature=CANARYSIGN\r\n", storage.host());
    registry.page(&format!("/v2/team/app/blobs/{}", other.layers[0]), 307, &place, "");
    let failed = service.pull(of(&format!("{}/team/app:2", registry.host())), None).await.unwrap_err();
    assert!(failed.reason.message.contains("404") && !format!("{failed:?}").contains("CANARY"), "{failed:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_kept_until_it_expires() {
    let setup = setup();
    let registry = FakeRegistry::start();
    registry.put("app", "1", &small_image(65));
    registry.page("/token", 200, "", r#"{"access_token":"T","expires_in":2}"#);
    registry.guard("Bearer T", &format!("Bearer realm=\"http://{}/token\"", registry.host()));
    let service = setup.service(options());
    let name = format!("{}/app:1", registry.host());
    let begun = Instant::now();
    service.resolve(of(&name)).await.unwrap();
    let mut asked = 1;
    while registry.seen("/token").len() == 1 {
        assert!(begun.elapsed() < Duration::from_secs(30), "it never expires");
        service.resolve(of(&name)).await.unwrap();
        asked += 1;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(asked > 2 && registry.seen("/token").len() == 2);
    // It was not shown once more after its time.
    assert_eq!(registry.seen("HEAD").iter().filter(|seen| seen.authorization.is_none()).count(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_told_and_nothing_is_left() {
    let setup = setup_on(PrivateContainerd::start_on_small_disk(24));
    let registry = FakeRegistry::start();
    let image = TestImage::new(&[&[("small", b"x")], &[("big", &noise(70, 40 << 20))]]);
    registry.put("app", "1", &image);
    let service = setup.service(options());
    let failed = service.pull(of(&format!("{}/app:1", registry.host())), None).await.unwrap_err();
    assert!(failed.reason.message.contains("no space left"), "{failed:?}");
    assert_eq!(setup.held().await, (0, 0, 0, 0));
    // The disk is of use again.
    let small = small_image(71);
    registry.put("app", "2", &small);
    service.pull(of(&format!("{}/app:2", registry.host())), None).await.unwrap();
    assert!(setup.containerd.directory().exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tag_that_moves_is_followed() {
    let setup = setup();
    let registry = FakeRegistry::start();
    let (old, new) = (small_image(80), small_image(90));
    registry.put("app", "1", &old);
    let name = format!("{}/app:1", registry.host());
    let service = setup.service(options());
    let first = service.pull(of(&name), None).await.unwrap();
    registry.put("app", "1", &new);
    let resolved = service.resolve(of(&name)).await.unwrap();
    assert_eq!(
        (resolved.digest.as_ref().map(ImageDigest::as_str), resolved.local),
        (Some(&*new.digest()), false)
    );
    let second = service.pull(of(&name), resolved.digest.as_ref()).await.unwrap();
    assert_ne!(first, second);
    assert_eq!(service.image_config(&name).await.unwrap().id, second);
    let once = setup.service(ImageOptions { pull_behavior: PullBehavior::Once, ..options() });
    assert!(once.resolve(of(&name)).await.unwrap().local);
    service.remove_image(&name).await.unwrap();
    assert_eq!(setup.held().await, (0, 0, 0, 0));
}

fn rootfs() -> Vec<RootfsFile> {
    let file = |path: &str, mode, content| RootfsFile { path: path.into(), mode, content };
    vec![
        file("bin", 0o755, RootfsContent::Directory),
        file("bin/busybox", 0o755, RootfsContent::Bytes(std::fs::read("/bin/busybox").unwrap())),
        file("bin/sh", 0o777, RootfsContent::Symlink("busybox".into())),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn archives_are_loaded() {
    let setup = setup();
    let service = setup.service(ImageOptions { pull_behavior: PullBehavior::PreferCached, ..options() });
    let config = RootfsConfig { cmd: vec!["/bin/sh".into()], ..RootfsConfig::default() };
    let name = build_rootfs_image(&service, "hello:1", &rootfs(), &config).await.unwrap();
    assert_eq!(name, "docker.io/library/hello:1");
    let resolved = service.resolve(of("hello:1")).await.unwrap();
    assert_eq!((resolved.digest, resolved.local), (None, true));
    let hello = service.image_config("hello:1").await.unwrap();
    assert_eq!(service.pull(of("hello:1"), None).await.unwrap(), hello.id);

    // The same by way of docker save's format, gzipped, with a linked layer.
    let path = setup.containerd.directory().join("saved.tar.gz");
    let layer = layer_bytes();
    let empty = vec![0; 1024];
    let config = serde_json::json!({
        "architecture": "amd64", "os": "linux", "config": {"Cmd": ["/x"]},
        "rootfs": {"type": "layers", "diff_ids": [digest(&layer), digest(&empty), digest(&empty)]},
    });
    let config = config.to_string().into_bytes();
    let manifest = serde_json::json!([{
        "Config": "c.json", "RepoTags": ["saved:2", "team/saved:2"], "Layers": ["a/layer.tar", "b/layer.tar", "c/layer.tar"],
    }]);
    let mut tar = tar::Builder::new(flate2::write::GzEncoder::new(
        std::fs::File::create(&path).unwrap(),
        flate2::Compression::fast(),
    ));
    add(&mut tar, "a/VERSION", b"1.0");
    add(&mut tar, "a/layer.tar", &layer);
    add(&mut tar, "b/layer.tar", &empty);
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Symlink);
    header.set_size(0);
    tar.append_link(&mut header, "c/layer.tar", "../b/layer.tar").unwrap();
    add(&mut tar, "c.json", &config);
    add(&mut tar, "manifest.json", manifest.to_string().as_bytes());
    tar.into_inner().unwrap().finish().unwrap();
    let mut names = service.import(&path).await.unwrap();
    names.sort();
    assert_eq!(names, ["docker.io/library/saved:2", "docker.io/team/saved:2"]);
    assert_eq!(service.image_config("saved:2").await.unwrap().id.as_str(), digest(&config));

    for name in ["hello:1", "saved:2", "team/saved:2"] {
        service.remove_image(name).await.unwrap();
    }
    assert_eq!(setup.held().await, (0, 0, 0, 0));
}

fn layer_bytes() -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    add(&mut tar, "x", b"x");
    tar.into_inner().unwrap()
}

fn add(tar: &mut tar::Builder<impl std::io::Write>, path: &str, bytes: &[u8]) {
    let mut header = tar::Header::new_gnu();
    header.set_size(bytes.len() as u64);
    header.set_mode(0o644);
    tar.append_data(&mut header, path, bytes).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn broken_archives_are_refused_and_leave_nothing() {
    let setup = setup();
    let service = setup.service(options());
    let good = oci_archive("hello:1", &rootfs(), &RootfsConfig::default()).unwrap();
    let mut cases: Vec<(Vec<u8>, &str)> = vec![
        (b"not a tar".repeat(200), "can't be read"),
        (good[..good.len() / 2].to_vec(), "ends within"),
        (Vec::new(), "neither index.json nor manifest.json"),
    ];
    // Each entry but the layout file left out, or changed, in turn.
    let entries: Vec<(String, Vec<u8>)> = tar::Archive::new(&good[..])
        .entries()
        .unwrap()
        .map(|entry| {
            let mut entry = entry.unwrap();
            let mut bytes = Vec::new();
            std::io::Read::read_to_end(&mut entry, &mut bytes).unwrap();
            (entry.path().unwrap().display().to_string(), bytes)
        })
        .collect();
    let pack = |entries: Vec<(String, Vec<u8>)>| {
        let mut tar = tar::Builder::new(Vec::new());
        entries.iter().for_each(|(path, bytes)| add(&mut tar, path, bytes));
        tar.into_inner().unwrap()
    };
    for left_out in 2..entries.len() {
        let mut fewer = entries.clone();
        fewer.remove(left_out);
        cases.push((pack(fewer), "not in the archive"));
        let mut changed = entries.clone();
        changed[left_out].1[0] ^= 1;
        cases.push((pack(changed), "does not match its digest"));
    }
    let evil = r#"[{"Config":"../../etc/passwd","RepoTags":["x:1"],"Layers":[]}]"#;
    cases.push((pack(vec![("manifest.json".into(), evil.into())]), "not in the archive"));
    let evil = r#"[{"Config":"c.json","RepoTags":["../x:1"],"Layers":[]}]"#;
    cases.push((pack(vec![("manifest.json".into(), evil.into())]), "image archive"));
    for (archive, word) in cases {
        let error = import_stream(&service, std::io::Cursor::new(archive)).await.unwrap_err();
        let text = error.to_string();
        assert!(text.contains(word), "{word}: {text}");
        assert_eq!(setup.held().await, (0, 0, 0, 0), "{text}");
    }
    let missing = service.import(std::path::Path::new("/no/such.tar")).await.unwrap_err();
    assert!(missing.to_string().contains("/no/such.tar"));
}
