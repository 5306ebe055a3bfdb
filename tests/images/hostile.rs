//! Registries and images that mean harm: a clear error, nothing left, nothing written outside.

use super::support::containerd::{PrivateContainerd, TempDir};
use super::support::registry::{
    FakeRegistry, Fault, OCI_INDEX, OCI_MANIFEST, TestImage, TestLayer, digest, tar_of,
};
use super::{of, options, parsed, setup, setup_on, small_image};
use ecsd::containerd::images::{ImageService, UnpackBounds};
use ecsd::ports::Images;
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

/// A pull that must fail; its words.
async fn refused(service: &ImageService, name: &str) -> String {
    let failed = service.pull(of(name), None).await.unwrap_err();
    assert_eq!(failed.reason.name, "CannotPullContainerError");
    assert!(failed.local.is_none() && failed.reason.message.len() < 2000, "{failed:?}");
    failed.reason.message
}

#[tokio::test(flavor = "multi_thread")]
async fn documents_beyond_all_measure_are_refused() {
    let setup = setup();
    let registry = FakeRegistry::start();
    let image = small_image(300);
    let platform = json!({ "os": "linux", "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" } });
    let entry = |of: &[u8]| json!({"mediaType": OCI_INDEX, "digest": digest(of), "size": of.len(), "platform": platform});
    let index = |of: &[u8]| json!({"schemaVersion": 2, "manifests": [entry(of)]}).to_string().into_bytes();
    // Index of index of index of index: none of them ever an image.
    let mut chain = vec![image.manifest.clone()];
    for _ in 0..4 {
        let next = index(chain.last().unwrap());
        registry.put_document("chain", "x", OCI_INDEX, &next);
        chain.push(next);
    }
    registry.put_document("chain", "1", OCI_INDEX, chain.last().unwrap());
    // One that names itself, as far as that can be done: what comes under its digest is another.
    let itself = index(b"itself");
    registry.put_document("itself", "1", OCI_INDEX, &itself);
    registry.page(
        &format!("/v2/itself/manifests/{}", digest(b"itself")),
        200,
        "",
        &String::from_utf8(itself).unwrap(),
    );
    let layer = json!({"digest": digest(b"x"), "size": 1});
    let many =
        json!({"schemaVersion": 2, "config": layer, "layers": vec![layer.clone(); 20_000]}).to_string();
    registry.put_document("many", "1", OCI_MANIFEST, many.as_bytes());
    registry.put_document("deep", "1", OCI_MANIFEST, "[".repeat(1 << 20).as_bytes());
    let huge_config =
        json!({"config": {"digest": digest(b"x"), "size": 1u64 << 33}, "layers": []}).to_string();
    registry.put_document("config", "1", OCI_MANIFEST, huge_config.as_bytes());
    let exabyte =
        json!({"config": layer, "layers": [{"digest": digest(b"y"), "size": u64::MAX}]}).to_string();
    registry.put_document("exabyte", "1", OCI_MANIFEST, exabyte.as_bytes());
    registry.page("/v2/huge/manifests/1", 200, "", &" ".repeat(100 << 20));
    let service = setup.service(options());
    for (name, words) in [
        ("huge", "more than 4194304 bytes"),
        ("chain", "an index of indexes of indexes"),
        ("itself", "the manifest that came has the digest"),
        ("many", "20000 layers: 512 is the most"),
        ("deep", "at line 1"),
        ("config", "8589934592 bytes"),
        ("exabyte", "would have 18446744073709551615 bytes"),
    ] {
        let told = refused(&service, &format!("{}/{name}:1", registry.host())).await;
        assert!(told.contains(words), "{name}: {told}");
        assert_eq!(setup.held().await, (0, 0, 0, 0), "{name}");
    }
    // By its digest it is no smaller.
    registry.page(&format!("/v2/huge/manifests/{}", digest(b"z")), 200, "", &" ".repeat(100 << 20));
    let pinned = format!("{}/huge@{}", registry.host(), digest(b"z"));
    assert!(refused(&service, &pinned).await.contains("more than 4194304 bytes"));
}

#[tokio::test(flavor = "multi_thread")]
async fn sizes_that_are_not_true_are_found_out() {
    let setup = setup();
    let registry = FakeRegistry::start();
    let service = setup.service(options());
    let layer = || TestLayer::gzipped(&tar_of(&[("x", &[7; 5000])]));
    let length = layer().blob.len();
    for (n, (size, words)) in [
        (length - 1, "does not match the digest"),
        (length + 1000, "bytes"),
        (1 << 30, "bytes"),
        (0, "digest"),
    ]
    .into_iter()
    .enumerate()
    {
        let image = TestImage::of(vec![TestLayer { size, ..layer() }]);
        registry.put(&format!("size{n}"), "1", &image);
        let told = refused(&service, &format!("{}/size{n}:1", registry.host())).await;
        assert!(told.contains(words) && told.contains(&image.layers[0]), "{size}: {told}");
        assert_eq!(setup.held().await, (0, 0, 0, 0), "{size}");
    }
    // What it unpacks to is not what the configuration promises.
    registry.put("diff", "1", &TestImage::of(vec![TestLayer { diff_id: digest(b"other"), ..layer() }]));
    let told = refused(&service, &format!("{}/diff:1", registry.host())).await;
    assert!(told.contains("promises"), "{told}");
    assert_eq!(setup.held().await, (0, 0, 0, 0));
}

/// A layer of one file of zeros.
fn zeros(length: u64) -> TestLayer {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    let mut header = tar::Header::new_gnu();
    header.set_path("zeros").unwrap();
    header.set_size(length);
    header.set_mode(0o644);
    header.set_cksum();
    gzip.write_all(header.as_bytes()).unwrap();
    std::io::copy(&mut std::io::repeat(0).take(length + 1024), &mut gzip).unwrap();
    let kind = "application/vnd.oci.image.layer.v1.tar+gzip";
    TestLayer::of(gzip.finish().unwrap(), kind, digest(b"never computed"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layer_that_unpacks_for_ever_is_stopped_and_the_disk_is_free_again() {
    let registry = FakeRegistry::start();
    let image = TestImage::of(vec![zeros(400 << 20)]);
    registry.put("bomb", "1", &image);
    registry.put("app", "1", &small_image(310));
    let (bomb, app) = (format!("{}/bomb:1", registry.host()), format!("{}/app:1", registry.host()));
    let setup = setup();
    let mut bounded = options();
    bounded.tuning.unpack_bounds = UnpackBounds { times: 10, at_least: 64 << 20, ..UnpackBounds::default() };
    let service = setup.service(bounded);
    let told = refused(&service, &bomb).await;
    assert!(told.contains("unpacks to more than 67108864 bytes: it is refused"), "{told}");
    assert!(told.contains(&image.layers[0]), "{told}");
    assert_eq!(setup.held().await, (0, 0, 0, 0));
    service.pull(of(&app), None).await.unwrap();

    // The same where the disk is the smaller bound.
    let small = setup_on(PrivateContainerd::start_on_small_disk(256));
    let service = small.service(options());
    let told = refused(&service, &bomb).await;
    assert!(told.contains("no space left on the disk"), "{told}");
    assert_eq!(small.held().await, (0, 0, 0, 0));
    service.pull(of(&app), None).await.unwrap();
}

/// An entry whose name and target are taken as they are.
fn raw_entry(tar: &mut Vec<u8>, kind: tar::EntryType, name: &str, target: &str, bytes: &[u8]) {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(0o666);
    header.set_size(bytes.len() as u64);
    let gnu = header.as_gnu_mut().unwrap();
    gnu.name[..name.len()].copy_from_slice(name.as_bytes());
    gnu.linkname[..target.len()].copy_from_slice(target.as_bytes());
    if kind == tar::EntryType::Char {
        header.set_device_major(1).unwrap();
        header.set_device_minor(3).unwrap();
    }
    header.set_cksum();
    tar.extend_from_slice(header.as_bytes());
    tar.extend_from_slice(bytes);
    tar.resize(tar.len().next_multiple_of(512), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn layers_that_reach_out_write_nothing_outside() {
    use tar::EntryType as Kind;
    let setup = setup();
    let registry = FakeRegistry::start();
    let service = setup.service(options());
    let outside = TempDir::new("outside");
    let there = outside.path().display().to_string();
    let victim = outside.path().join("victim");
    std::fs::write(&victim, "as it was").unwrap();
    let up = format!("{}{}", "../".repeat(12), there.trim_start_matches('/'));
    type Entry<'a> = (Kind, &'a str, &'a str, &'a [u8]);
    let (dotdot, absolute) = (format!("{up}/dotdot"), format!("{there}/absolute"));
    let (up_victim, victim_path) = (format!("{up}/victim"), victim.display().to_string());
    let layers: [&[Entry]; 8] = [
        &[(Kind::Regular, &dotdot, "", b"evil")],
        &[(Kind::Regular, &absolute, "", b"evil")],
        &[(Kind::Symlink, "link", &there, b""), (Kind::Regular, "link/through", "", b"evil")],
        &[(Kind::Symlink, "link", &up, b""), (Kind::Regular, "link/victim", "", b"evil")],
        &[(Kind::Link, "hard", &victim_path, b""), (Kind::Regular, "hard", "", b"evil")],
        &[(Kind::Link, "hard", &up_victim, b""), (Kind::Regular, "hard", "", b"evil")],
        &[(Kind::Symlink, "link", &there, b""), (Kind::Regular, "link/.wh.victim", "", b"")],
        &[
            (Kind::Char, "dev/null", "", b""),
            (Kind::Fifo, "fifo", "", b""),
            (Kind::Regular, ".wh...", "", b""),
        ],
    ];
    for (n, entries) in layers.iter().enumerate() {
        let mut tar = Vec::new();
        entries
            .iter()
            .for_each(|(kind, name, target, bytes)| raw_entry(&mut tar, *kind, name, target, bytes));
        tar.resize(tar.len() + 1024, 0);
        // Also on top of a layer that is as it should be: then the snapshot has layers below.
        let below = TestLayer::gzipped(&tar_of(&[("etc/x", b"x")]));
        registry.put(&format!("evil{n}"), "1", &TestImage::of(vec![TestLayer::gzipped(&tar)]));
        registry.put(&format!("upper{n}"), "1", &TestImage::of(vec![below, TestLayer::gzipped(&tar)]));
        for kind in ["evil", "upper"] {
            let name = format!("{}/{kind}{n}:1", registry.host());
            // Refused, or kept within its own tree.
            match service.pull(of(&name), None).await {
                Ok(_) => service.remove_image(&name).await.unwrap(),
                Err(failed) => assert!(failed.reason.message.contains("unpack layer"), "{failed:?}"),
            }
            assert_eq!(setup.held().await, (0, 0, 0, 0), "{name}");
            let mut found: Vec<_> =
                std::fs::read_dir(outside.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
            found.sort();
            assert_eq!(found, ["victim"], "{name}");
            assert_eq!(std::fs::read_to_string(&victim).unwrap(), "as it was", "{name}");
            assert_eq!(std::fs::metadata(&victim).unwrap().nlink(), 1, "{name}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_that_never_come_and_what_is_no_token_are_told() {
    let setup = setup();
    let registry = FakeRegistry::start();
    let image = small_image(320);
    registry.put("app", "1", &image);
    let name = format!("{}/app:1", registry.host());
    let mut options = options();
    options.tuning.header_timeout = Duration::from_millis(300);
    options.tuning.inactivity_timeout = Duration::from_millis(300);
    options.tuning.resolve_retry.attempts = 2;
    let service = setup.service(options);
    // It takes connections and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let long = json!({ "token": "CANARY".repeat(100_000) });
    registry.page("/long", 200, "", &long.to_string());
    registry.page("/hangs", 200, "", "{\"token\":\"CANARY\"}");
    registry.fault("GET /hangs", Fault::HangAfter(5), usize::MAX);
    registry.page("/none", 200, "", "{}");
    registry.page("/text", 200, "", "CANARY");
    registry.page("/line", 200, "", &Value::from("x").to_string());
    registry.page("/newline", 200, "", "{\"token\":\"CANARY\\nX-Evil: 1\"}");
    registry.page("/circle", 307, "Location: /circle\r\n", "");
    registry.page("/denied", 403, "", "{\"errors\":[{\"code\":\"DENIED\",\"message\":\"not you\"}]}");
    let host = registry.host();
    for (realm, words) in [
        (format!("http://{}/token", silent.local_addr().unwrap()), "nothing came from"),
        (format!("http://{host}/hangs"), "nothing came from"),
        (format!("http://{host}/long"), "more than 262144 bytes"),
        (format!("http://{host}/none"), "no token in it"),
        (format!("http://{host}/text"), "no token in it"),
        (format!("http://{host}/line"), "no token in it"),
        (format!("http://{host}/newline"), "a token that fits no header"),
        (format!("http://{host}/circle"), "more than 5 redirects"),
        (format!("http://{host}/denied"), "403 Forbidden: DENIED: not you"),
        ("file:///etc/passwd".to_owned(), "token for"),
        ("http://token.example/x".to_owned(), "plain HTTP is not spoken to it"),
        ("nowhere".to_owned(), "no usable realm"),
    ] {
        registry.guard("Bearer nothing", &format!("Bearer realm=\"{realm}\",service=\"s\""));
        let failed = service.resolve(of(&name)).await.unwrap_err();
        assert!(failed.reason.message.contains(words), "{realm}: {failed:?}");
        assert!(!format!("{failed:?}").contains("CANARY"), "{failed:?}");
    }
    // A token that is good once is not good for ever: each 401 gets one more, and then it is told.
    registry.page("/token", 200, "", "{\"token\":\"CANARY\"}");
    registry.guard("Bearer nothing", &format!("Bearer realm=\"http://{host}/token\""));
    let failed = service.pull(of(&name), Some(&parsed(&image.digest()))).await.unwrap_err();
    assert!(failed.reason.message.contains("401") && !format!("{failed:?}").contains("CANARY"), "{failed:?}");
    assert_eq!(registry.seen("GET /token").len(), 1);
    assert_eq!(setup.held().await, (0, 0, 0, 0));
}
