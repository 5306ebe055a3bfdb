//! Kinds of layers, and where they are unpacked to.

use super::support::containerd::PrivateContainerd;
use super::support::registry::{DockerRegistry, TestImage, TestLayer, digest, noise, tar_of};
use super::{of, options, setup};
use containerd_client::services::v1::snapshots::ViewSnapshotRequest;
use containerd_client::services::v1::snapshots::snapshots_client::SnapshotsClient;
use ecsd::containerd::images::ImageOptions;
use ecsd::ports::Images;
use std::path::PathBuf;

/// A zstd frame of blocks that are not compressed (RFC 8878).
fn zstd(bytes: &[u8]) -> Vec<u8> {
    // Magic; one segment with its length in four bytes.
    let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, 0xa0];
    frame.extend_from_slice(&u32::try_from(bytes.len()).unwrap().to_le_bytes());
    let blocks = bytes.chunks(100_000);
    let last = blocks.len() - 1;
    for (n, block) in blocks.enumerate() {
        let head = (u32::try_from(block.len()).unwrap() << 3) | u32::from(n == last);
        frame.extend_from_slice(&head.to_le_bytes()[..3]);
        frame.extend_from_slice(block);
    }
    frame
}

/// One layer of each kind.
fn of_all_kinds() -> TestImage {
    let tar = |name: &str, seed: u64| tar_of(&[(name, &noise(seed, 300_000))]);
    let (zipped, plain, docker) = (tar("of-zstd", 1), tar("plain", 2), tar("of-docker", 3));
    let docker = TestLayer::gzipped(&docker);
    TestImage::of(vec![
        TestLayer::of(zstd(&zipped), "application/vnd.oci.image.layer.v1.tar+zstd", digest(&zipped)),
        TestLayer::of(plain.clone(), "application/vnd.oci.image.layer.v1.tar", digest(&plain)),
        TestLayer { kind: "application/vnd.docker.image.rootfs.diff.tar.gzip".into(), ..docker },
        TestLayer::gzipped(&tar("oci", 4)),
    ])
}

#[tokio::test(flavor = "multi_thread")]
async fn layers_of_all_kinds_are_unpacked_by_overlayfs_and_by_native() {
    for snapshotter in ["overlayfs", "native"] {
        let setup = setup();
        let registry = DockerRegistry::start(None);
        let image = of_all_kinds();
        registry.push("app", "1", &image);
        let name = format!("{}/app:1", registry.host());
        let service = setup.service(ImageOptions { snapshotter: snapshotter.to_owned(), ..options() });
        service.pull(of(&name), None).await.unwrap();
        assert_eq!(setup.held_by(snapshotter).await, (7, 0, 4, 0));
        let other = if snapshotter == "native" { "overlayfs" } else { "native" };
        assert_eq!(setup.held_by(other).await, (7, 0, 0, 0));
        // The files of the lowest layer, as the topmost snapshot has them.
        let unpacked = service.image_config(&name).await.unwrap();
        let view = ViewSnapshotRequest {
            snapshotter: snapshotter.to_owned(),
            key: "look".to_owned(),
            parent: unpacked.chain_id.clone(),
            ..ViewSnapshotRequest::default()
        };
        let view = SnapshotsClient::new(setup.conn.channel()).view(setup.conn.request(view)).await.unwrap();
        let mounts = view.into_inner().mounts;
        let lower = mounts[0].options.iter().find_map(|option| option.strip_prefix("lowerdir="));
        let directories: Vec<PathBuf> = match lower {
            Some(lower) => lower.split(':').map(PathBuf::from).collect(),
            None => vec![PathBuf::from(&mounts[0].source)],
        };
        for (file, seed) in [("of-zstd", 1), ("plain", 2), ("of-docker", 3), ("oci", 4)] {
            let found = directories.iter().find_map(|directory| std::fs::read(directory.join(file)).ok());
            assert!(found.is_some_and(|found| found == noise(seed, 300_000)), "{snapshotter}: {file}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshotter_that_is_not_there_is_named() {
    let setup = super::setup_on(PrivateContainerd::start(None));
    let registry = DockerRegistry::start(None);
    registry.push("app", "1", &super::small_image(400));
    let service = setup.service(ImageOptions { snapshotter: "no-such".to_owned(), ..options() });
    let failed = service.pull(of(&format!("{}/app:1", registry.host())), None).await.unwrap_err();
    assert!(failed.reason.message.contains("no-such"), "{failed:?}");
    assert_eq!(setup.held().await, (0, 0, 0, 0));
}
