//! Pulls of one image, where those of another hang in containerd.

use crate::support::containerd::PrivateContainerd;
use crate::support::faulty::{Calls, FaultyContainerd};
use crate::support::registry::{FakeRegistry, TestImage, noise};
use ecsd::containerd::Connection;
use ecsd::containerd::images::{ImageOptions, ImageService, PullTuning};
use ecsd::ports::Images;
use std::time::Duration;

/// One layer is unpacked at once, and soon not waited for by the others.
fn options() -> ImageOptions {
    let tuning =
        PullTuning { unpacks: 1, unpack_patience: Duration::from_millis(20), ..PullTuning::default() };
    ImageOptions { tuning, ..ImageOptions::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_that_hangs_anywhere_in_containerd_holds_up_none_of_another_image() {
    let containerd = PrivateContainerd::start(None);
    let faulty = FaultyContainerd::start(containerd.socket());
    let registry = FakeRegistry::start();
    let connection = Connection::new(faulty.socket(), "ecs").unwrap();
    let service = ImageService::new(connection, options());
    for (n, method) in [
        "Leases/Create",
        "Content/Write",
        "Content/Read",
        "Snapshots/Prepare",
        "Diff/Apply",
        "Snapshots/Commit",
        "Images/Create",
    ]
    .into_iter()
    .enumerate()
    {
        let name = |kind: &str| format!("{}/{kind}{n}:1", registry.host());
        let seed = u64::try_from(n).unwrap();
        registry.put(&format!("hangs{n}"), "1", &TestImage::new(&[&[("app", &noise(seed, 1000))]]));
        registry.put(&format!("other{n}"), "1", &TestImage::new(&[&[("app", &noise(100 + seed, 1000))]]));
        let held = faulty.hold(Calls::of(method).times(1));
        let hanging = {
            let (service, name) = (service.clone(), name("hangs"));
            tokio::spawn(async move { service.pull((&name).into(), None).await })
        };
        held.caught(1).await;
        service.pull((&name("other")).into(), None).await.unwrap_or_else(|e| panic!("{method}: {e:?}"));
        assert!(!hanging.is_finished(), "{method}");
        drop(held);
        hanging.await.unwrap().unwrap_or_else(|e| panic!("{method}: {e:?}"));
    }
}
