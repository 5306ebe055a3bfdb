//! Registries that hang hold up nobody else, and pulls that are cut off are gone on with or given up.

use super::support::registry::{FakeRegistry, Fault, TestImage, noise};
use super::{of, options, setup, small_image};
use ecsd::ports::Images;
use std::time::{Duration, Instant};

/// Longer than anything here takes.
const LONG: Duration = Duration::from_secs(40);

#[tokio::test(flavor = "multi_thread")]
async fn registries_that_hang_keep_no_places_from_others() {
    let setup = setup();
    let (dead, also_dead, well) = (FakeRegistry::start(), FakeRegistry::start(), FakeRegistry::start());
    let mut options = options();
    (options.tuning.parts, options.tuning.streams) = (2, 2);
    options.tuning.part_bytes = 256 << 10;
    options.tuning.stall = Duration::from_millis(50);
    let service = setup.service(options);
    let mut hanging = Vec::new();
    for (n, registry) in [&dead, &also_dead].into_iter().cycle().take(12).enumerate() {
        // Some in parts and some in one stream; some hang before the first byte and some after.
        let length = if n % 3 == 0 { 100_000 } else { 3 << 20 };
        let image = TestImage::new(&[&[("x", &noise(500 + n as u64, length))]]);
        registry.put(&format!("app{n}"), "1", &image);
        registry.fault(&image.layers[0], Fault::HangAfter(if n % 2 == 0 { 0 } else { 70_000 }), usize::MAX);
        let (service, name) = (service.clone(), format!("{}/app{n}:1", registry.host()));
        hanging.push(tokio::spawn(async move { service.pull((&name).into(), None).await }));
    }
    let begun = Instant::now();
    while dead.seen("blobs").len() + also_dead.seen("blobs").len() < 12 {
        assert!(begun.elapsed() < LONG, "the pulls do not begin");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let image = TestImage::new(&[&[("big", &noise(520, 3 << 20))], &[("small", &noise(521, 1000))]]);
    well.put("app", "1", &image);
    let pulled = tokio::time::timeout(LONG, service.pull(of(&format!("{}/app:1", well.host())), None)).await;
    assert_eq!(pulled.expect("it waits for the dead").unwrap().as_str(), image.config_digest);
    assert!(hanging.iter().all(|pull| !pull.is_finished()));
    hanging.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_that_stands_still_goes_on_in_one_stream() {
    let setup = setup();
    let registry = FakeRegistry::start();
    let image = TestImage::new(&[&[("big", &noise(530, 4 << 20))]]);
    registry.put("app", "1", &image);
    let mut options = options();
    options.tuning.part_bytes = 1 << 20;
    options.tuning.stall = Duration::from_millis(50);
    let layer = image.layers[0].clone();
    registry.fault(&layer, Fault::HangAfter(300_000), 2);
    registry.fault(&layer, Fault::CloseAfter(300_000), 2);
    let service = setup.service(options);
    let pulled = service.pull(of(&format!("{}/app:1", registry.host())), None).await.unwrap();
    assert_eq!(pulled.as_str(), image.config_digest);
    assert_eq!(setup.held().await, (4, 0, 1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_that_was_cut_off_is_gone_on_with_by_the_next_agent_or_given_up() {
    let setup = setup();
    let registry = FakeRegistry::start();
    let image = TestImage::new(&[&[("bin/app", &noise(540, 3 << 20))]]);
    registry.put("app", "1", &image);
    let name = format!("{}/app:1", registry.host());
    let layer = image.layers[0].clone();
    let cut_off = async |kept: usize| {
        registry.fault(&layer, Fault::HangAfter(kept), 1);
        let before = registry.seen(&layer).len();
        let service = setup.service(options());
        let mut pull = service.pull(of(&name), None);
        while registry.seen(&layer).len() == before || setup.held().await.1 == 0 {
            let _ = tokio::time::timeout(Duration::from_millis(20), &mut pull).await;
        }
        // A while, in which what came is written.
        let _ = tokio::time::timeout(Duration::from_millis(500), &mut pull).await;
    };
    cut_off(2 << 20).await;
    assert_eq!(setup.held().await.3, 1);
    let service = setup.service(options());
    service.give_back_abandoned().await;
    service.pull(of(&name), None).await.unwrap();
    let ranges: Vec<_> = registry.seen(&layer).into_iter().map(|seen| seen.range).collect();
    let from = ranges.last().unwrap().as_deref().and_then(|range| range.strip_prefix("bytes="));
    let from: u64 = from.and_then(|range| range.split('-').next()?.parse().ok()).unwrap();
    assert!(from >= 1 << 20, "{ranges:?}");
    assert_eq!(setup.held().await, (4, 0, 1, 0));
    service.remove_image(&name).await.unwrap();
    service.give_back_abandoned().await;

    cut_off(1 << 20).await;
    service.give_back_abandoned().await;
    assert_eq!(setup.held().await.3, 1, "it may be gone on with yet");
    service.give_back_abandoned().await;
    assert_eq!(setup.held().await.3, 0);
    // Whatever a pull has that is under way is its own.
    registry.put("other", "1", &small_image(550));
    registry.fault("/other/blobs", Fault::HangAfter(0), 1);
    let other = format!("{}/other:1", registry.host());
    let mut pull = service.pull(of(&other), None);
    while registry.seen("/other/blobs").is_empty() {
        let _ = tokio::time::timeout(Duration::from_millis(20), &mut pull).await;
    }
    for _ in 0..3 {
        service.give_back_abandoned().await;
    }
    assert_eq!(setup.held().await.3, 1);
}
