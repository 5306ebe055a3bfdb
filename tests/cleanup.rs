//! Image clean-up on real parts: a private containerd, a real registry, and the disk below.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod support;

use ecsd::containerd::Connection;
use ecsd::containerd::cleanup::policy::{Removal, Rules};
use ecsd::containerd::cleanup::room::Watermarks;
use ecsd::containerd::cleanup::{CleanupOptions, Janitor, Removals, StrangerRules};
use ecsd::containerd::images::{ImageOptions, ImageService};
use ecsd::model::{
    ContainerProgress, ContainerSpec, ContainerStatus, PullBehavior, TaskArn, TaskProgress, TaskSpec,
};
use ecsd::ports::{Images, TaskView, TasksView};
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use support::containerd::PrivateContainerd;
use support::host::PATIENCE;
use support::registry::{DockerRegistry, TestImage, noise};
use tokio::sync::watch;

const MIB: usize = 1 << 20;

struct Setup {
    containerd: PrivateContainerd,
    registry: DockerRegistry,
    service: ImageService,
    conn: Connection,
    tasks: watch::Sender<TasksView>,
    removals: Removals,
}

impl Setup {
    fn new(containerd: PrivateContainerd) -> Self {
        let conn = Connection::new(containerd.socket(), "ecs").unwrap();
        Self {
            registry: DockerRegistry::start(None),
            service: ImageService::new(conn.clone(), ImageOptions::default()),
            conn,
            containerd,
            tasks: watch::channel(TasksView::default()).0,
            removals: Removals::default(),
        }
    }

    /// A layer that all images share, and one of its own of so many MiB.
    fn push(&self, repository: &str, seed: u64, mib: usize) -> (String, TestImage) {
        let image = TestImage::new(&[&[("base", &noise(1, MIB))], &[("own", &noise(seed, mib * MIB))]]);
        self.registry.push(repository, "1", &image);
        (format!("{}/{repository}:1", self.registry.host()), image)
    }

    async fn pulled(&self, repository: &str, seed: u64, mib: usize) -> (String, TestImage) {
        let (name, image) = self.push(repository, seed, mib);
        self.service.pull((&name).into(), None).await.unwrap();
        (name, image)
    }

    fn janitor(&self, options: CleanupOptions) -> Janitor {
        Janitor::new(self.conn.clone(), options, self.tasks.subscribe(), self.removals.clone())
    }

    /// There is this one task, whose container has got so far; none is no task.
    fn task_of(&self, image: Option<&str>, known: ContainerStatus) {
        let view = image.map(|image| {
            let arn = TaskArn::parse("arn:aws:ecs:us-east-1:123456789012:task/local/0a1b").unwrap();
            let container = ContainerSpec { image: image.to_owned(), ..ContainerSpec::empty("main") };
            let mut progress = TaskProgress::default();
            progress.containers.insert("main".into(), ContainerProgress { known, ..Default::default() });
            let spec = Arc::new(TaskSpec { containers: vec![container], ..TaskSpec::empty(arn) });
            let health = Default::default();
            (spec.id(), Arc::new(TaskView { spec, progress, waiting_for: None, health }))
        });
        self.tasks.send_replace(Arc::new(view.into_iter().collect()));
    }

    fn has_blob(&self, digest: &str) -> bool {
        let blobs = "root/io.containerd.content.v1.content/blobs/sha256";
        self.containerd.directory().join(blobs).join(digest.trim_start_matches("sha256:")).exists()
    }

    fn bytes_on_disk(&self) -> u64 {
        bytes_below(&self.containerd.directory().join("root"))
    }

    /// Names of the images that are there.
    async fn names(&self) -> BTreeSet<String> {
        self.service.list().await.unwrap().into_iter().map(|image| image.name).collect()
    }

    fn label(&self, name: &str) -> String {
        let listed = self.containerd.run_ctr("ecs", &["images", "ls", &format!("name=={name}")]);
        let label = listed.split("ecsd/usage=").nth(1).unwrap_or_default();
        label.split(',').next().unwrap().trim().to_owned()
    }
}

fn bytes_below(directory: &Path) -> u64 {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.metadata() {
            Ok(found) if found.is_dir() => bytes_below(&entry.path()),
            Ok(found) => found.len(),
            Err(_) => 0,
        })
        .sum()
}

fn options() -> CleanupOptions {
    CleanupOptions {
        snapshotter: "overlayfs".into(),
        interval: Some(Duration::from_secs(3600)),
        rules: Rules {
            per_cycle: 1,
            minimum_age: Duration::ZERO,
            untracked_minimum_age: None,
            excluded: BTreeSet::new(),
        },
        watermarks: None,
        strangers: None,
    }
}

fn of(removed: &[Removal]) -> Vec<&str> {
    removed.iter().flat_map(|removal| removal.names.iter().map(String::as_str)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_oldest_goes_from_the_disk_and_what_it_shares_stays() {
    let setup = Setup::new(PrivateContainerd::start(None));
    let (first, first_image) = setup.pulled("first", 10, 4).await;
    let (second, second_image) = setup.pulled("second", 11, 1).await;
    let (third, third_image) = setup.pulled("third", 12, 1).await;
    let before = setup.bytes_on_disk();
    let young = Rules { minimum_age: Duration::from_secs(3600), ..options().rules };
    let nothing = setup.janitor(CleanupOptions { rules: young, ..options() }).cycle().await.unwrap();
    assert_eq!(of(&nothing), Vec::<&str>::new());

    let janitor = setup.janitor(options());
    assert_eq!(of(&janitor.cycle().await.unwrap()), [first.as_str()]);
    assert!(!setup.has_blob(&first_image.layers[1]) && !setup.has_blob(&first_image.config_digest));
    assert!(setup.has_blob(&second_image.layers[0]), "the shared layer");
    // The layer and what it was unpacked to.
    let freed = before - setup.bytes_on_disk();
    assert!(freed >= 8 * MIB as u64, "{freed}");

    // The second has a container that no task made, the third a task that has not pulled yet.
    setup.containerd.run_ctr("ecs", &["containers", "create", &second, "by-hand"]);
    setup.task_of(Some(&third), ContainerStatus::None);
    assert_eq!(of(&janitor.cycle().await.unwrap()), Vec::<&str>::new());
    setup.task_of(None, ContainerStatus::None);
    assert_eq!(of(&janitor.cycle().await.unwrap()), [third.as_str()]);
    assert!(!setup.has_blob(&third_image.layers[1]) && setup.has_blob(&second_image.layers[0]));
    setup.containerd.run_ctr("ecs", &["containers", "rm", "by-hand"]);
    assert_eq!(of(&janitor.cycle().await.unwrap()), [second.as_str()]);
    assert!(!setup.has_blob(&second_image.layers[0]));
    let snapshots = setup.containerd.run_ctr("ecs", &["snapshots", "ls"]);
    assert_eq!(snapshots.lines().count(), 1, "{snapshots}");
    let left = setup.bytes_on_disk();
    assert!(left < MIB as u64, "{left} bytes are left");

    // What was removed can be had again.
    setup.service.pull((&first).into(), None).await.unwrap();
    assert!(setup.has_blob(&first_image.layers[1]) && setup.has_blob(&first_image.layers[0]));
}

#[tokio::test(flavor = "multi_thread")]
async fn when_an_image_was_used_last_survives_the_agent() {
    let setup = Setup::new(PrivateContainerd::start(None));
    let (first, _) = setup.pulled("first", 10, 1).await;
    // Whole seconds are kept: the order must not depend on less.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let (second, _) = setup.pulled("second", 11, 1).await;
    tokio::time::sleep(Duration::from_millis(1100)).await;
    setup.task_of(Some(&first), ContainerStatus::Running);
    let life = tokio::spawn(setup.janitor(options()).run());
    until("the use is noted", || !setup.label(&first).is_empty()).await;
    life.abort();
    let _ = life.await;
    let noted = setup.label(&first);

    // Another life, in which the task ends and is cleaned up.
    let life = tokio::spawn(setup.janitor(options()).run());
    tokio::time::sleep(Duration::from_millis(1100)).await;
    setup.task_of(None, ContainerStatus::None);
    until("the end of the use is noted", || setup.label(&first).split(' ').nth(1) != noted.split(' ').nth(1))
        .await;
    life.abort();
    let _ = life.await;
    let label = setup.label(&first);
    assert_eq!(label.split(' ').next(), noted.split(' ').next(), "known since then: {label}");

    let janitor = setup.janitor(options());
    assert_eq!(
        of(&janitor.cycle().await.unwrap()),
        [second.as_str()],
        "it was pulled later, but not used since"
    );
    assert_eq!(of(&janitor.cycle().await.unwrap()), [first.as_str()]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_is_too_full_is_emptied_to_the_low_watermark_and_no_further() {
    let setup = Setup::new(PrivateContainerd::start_on_small_disk(64));
    let mut names = Vec::new();
    for n in 0..4 {
        names.push(setup.pulled(&format!("image{n}"), 20 + n, 6).await.0);
    }
    let percent = || {
        let root = setup.containerd.directory().join("root");
        ecsd::containerd::cleanup::room::Fill::measure(&root).unwrap().percent()
    };
    let full = percent();
    assert!(full > 70, "{full} percent");
    let with = |high, low| {
        let rules = Rules { minimum_age: Duration::from_secs(3600), ..options().rules };
        setup.janitor(CleanupOptions { watermarks: Some(Watermarks { high, low }), rules, ..options() })
    };
    assert_eq!(with(99, 10).make_room().await.unwrap(), None, "there is room");
    // The least recently used is in use now.
    setup.task_of(Some(&names[0]), ContainerStatus::Running);
    let removed = with(70, 65).make_room().await.unwrap().unwrap();
    assert_eq!(of(&removed), [names[1].as_str()], "12 of 64 MiB are freed by one");
    assert!(percent() <= 65, "{} percent", percent());
    let removed = with(1, 0).make_room().await.unwrap().unwrap();
    assert_eq!(of(&removed), [names[2].as_str(), names[3].as_str()], "all but what the task needs");
    assert_eq!(setup.names().await, BTreeSet::from([names[0].clone()]));
    let config = setup.service.image_config(&names[0]).await.unwrap();
    let snapshots = setup.containerd.run_ctr("ecs", &["snapshots", "ls"]);
    assert!(snapshots.contains(&config.chain_id), "{snapshots}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_task_brought_goes_only_where_that_is_asked_for_and_from_our_namespace_alone() {
    let setup = Setup::new(PrivateContainerd::start(None));
    let (name, _) = setup.push("by-hand", 30, 1);
    for namespace in ["ecs", "other"] {
        setup.containerd.run_ctr(namespace, &["images", "pull", "--plain-http", &name]);
        setup.containerd.run_ctr(namespace, &["containers", "create", &name, "made-by-hand"]);
    }
    let janitor = setup.janitor(options());
    assert_eq!(of(&janitor.cycle().await.unwrap()), Vec::<&str>::new());
    let old_enough = |containers, age| {
        let rules = Rules { untracked_minimum_age: Some(Duration::ZERO), ..options().rules };
        let strangers = Some(StrangerRules { per_cycle: containers, minimum_age: age });
        setup.janitor(CleanupOptions { rules, strangers, ..options() })
    };
    // The container is too young, or none may go: it keeps its image.
    for janitor in [old_enough(5, Duration::from_secs(3600)), old_enough(0, Duration::ZERO)] {
        assert_eq!(of(&janitor.cycle().await.unwrap()), Vec::<&str>::new());
    }
    assert_eq!(of(&old_enough(5, Duration::ZERO).cycle().await.unwrap()), [name.as_str()]);
    let listed = |namespace, what: &str| setup.containerd.run_ctr(namespace, &[what, "ls", "-q"]);
    assert_eq!((listed("ecs", "containers").as_str(), listed("ecs", "images").as_str()), ("", ""));
    assert_eq!(listed("other", "containers").trim(), "made-by-hand");
    assert_eq!(listed("other", "images").trim(), name);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_preloaded_image_is_asked_for_once_and_then_counts_as_pulled() {
    let setup = Setup::new(PrivateContainerd::start(None));
    let (name, _) = setup.push("preloaded", 40, 1);
    setup.containerd.run_ctr("ecs", &["images", "pull", "--plain-http", &name]);
    let once = ImageOptions { pull_behavior: PullBehavior::Once, ..ImageOptions::default() };
    let service = ImageService::new(setup.conn.clone(), once);
    let resolved = service.resolve((&name).into()).await.unwrap();
    service.pull((&name).into(), resolved.digest.as_ref()).await.unwrap();
    // Nobody is there to be asked any more, in this life and in another.
    let Setup { registry, conn, containerd, .. } = setup;
    drop(registry);
    let once = ImageOptions { pull_behavior: PullBehavior::Once, ..ImageOptions::default() };
    for service in [service, ImageService::new(conn, once)] {
        let resolved = service.resolve((&name).into()).await.unwrap();
        service.pull((&name).into(), resolved.digest.as_ref()).await.unwrap();
    }
    drop(containerd);
}

/// A task that comes while its image is being removed gets it all the same.
#[tokio::test(flavor = "multi_thread")]
async fn a_pull_and_a_removal_of_one_image_never_meet() {
    let setup = Setup::new(PrivateContainerd::start(None));
    let (name, _) = setup.pulled("contested", 50, 1).await;
    let janitor = setup.janitor(options());
    let images = setup.removals.guard(setup.service.clone());
    let mut gone = 0;
    for round in 0..40u32 {
        setup.task_of(None, ContainerStatus::None);
        let start = async {
            // Another place in the removal each time.
            for _ in 0..round * 3 {
                tokio::task::yield_now().await;
            }
            tokio::time::sleep(Duration::from_micros(u64::from(round) * 150)).await;
            // The engine's order: published, then begun.
            setup.task_of(Some(&name), ContainerStatus::None);
            let resolved = images.resolve((&name).into()).await.unwrap();
            images.pull((&name).into(), resolved.digest.as_ref()).await.unwrap();
        };
        let (removed, ()) = tokio::join!(janitor.cycle(), start);
        gone += removed.unwrap().len();
        let config = setup.service.image_config(&name).await.unwrap();
        let snapshots = setup.containerd.run_ctr("ecs", &["snapshots", "ls"]);
        assert!(snapshots.contains(&config.chain_id), "round {round}: {snapshots}");
    }
    assert!(gone > 0, "no removal was ever first");
}

async fn until(what: &str, so: impl Fn() -> bool) {
    let begun = Instant::now();
    while !so() {
        assert!(begun.elapsed() < PATIENCE, "in vain: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
