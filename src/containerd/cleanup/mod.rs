//! Image clean-up: removes what no task needs any more, by the original's rules (spec/task-engine.md
//! 3.5), and whenever containerd's disk is too full.
//!
//! ```text
//!  tasks (view) ──> in use ─┐
//!  containers' images ──────┼─> policy::plan ──> in order: hold the name, look again, Images.Delete (sync)
//!  image records + usage ───┘   (pure)                                  until the budget or the room is there
//! ```
//!
//! Only our own namespace is looked at. Never removed is what a task that is not cleaned up names, and what
//! a container is of, whoever made it. Removing is synchronous: when it returns, containerd has collected
//! the content and snapshots that nothing else holds. How it is kept apart from pulls: [`gate`].

mod gate;
pub mod policy;
pub mod room;
mod strangers;
mod usage;

use crate::containerd::Connection;
use crate::containerd::image::error::{PullError, chain};
use crate::containerd::image::record;
use crate::containerd::image::reference::Reference;
use crate::model::{ContainerStatus, Wall};
use crate::ports::TasksView;
pub use gate::{GuardedImages, Removals};
use policy::{Purpose, Removal, Rules};
use room::{Fill, Watermarks};
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};
pub use strangers::StrangerRules;
use tokio::sync::{OnceCell, watch};
use tokio::time::{Instant, sleep, sleep_until};
pub(crate) use usage::adopt;

/// Between two looks at how full the disk is while no task changes.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// Between two looks while tasks change.
const AT_MOST_EVERY: Duration = Duration::from_secs(1);
/// Before room is made again where nothing could be removed.
const IN_VAIN: Duration = Duration::from_secs(60);

/// What the operator wants of clean-up.
#[derive(Debug, Clone)]
pub struct CleanupOptions {
    /// `ECS_CONTAINERD_SNAPSHOTTER`.
    pub snapshotter: String,
    /// `ECS_IMAGE_CLEANUP_INTERVAL`; `None` where clean-up is off altogether.
    pub interval: Option<Duration>,
    /// Which images may go.
    pub rules: Rules,
    /// When the disk is too full; `None` where that is no reason.
    pub watermarks: Option<Watermarks>,
    /// Which containers of nobody's task go; `None` is none.
    pub strangers: Option<StrangerRules>,
}

/// Cleans up, for as long as there are tasks to come.
#[derive(Debug)]
pub struct Janitor {
    conn: Connection,
    options: CleanupOptions,
    tasks: watch::Receiver<TasksView>,
    removals: Removals,
    directories: OnceCell<Vec<PathBuf>>,
}

impl Janitor {
    /// Of `conn`'s namespace. `tasks` must be published before any effect of a task begins; whoever
    /// pulls must do so through the guard of `removals`.
    pub fn new(
        conn: Connection,
        options: CleanupOptions,
        tasks: watch::Receiver<TasksView>,
        removals: Removals,
    ) -> Self {
        Self { conn, options, tasks, removals, directories: OnceCell::new() }
    }

    /// Runs until the engine ends.
    pub async fn run(mut self) {
        let after = |interval: Option<Duration>| interval.map(|interval| Instant::now() + interval);
        let mut next_cycle = after(self.options.interval);
        let mut next_room = Instant::now();
        let mut noted = BTreeSet::new();
        self.tasks.mark_changed();
        loop {
            let cycle = async {
                match next_cycle {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            // All only say what is to be done next: cancel-safe.
            tokio::select! {
                () = cycle => {
                    next_cycle = after(self.options.interval);
                    tell(self.cycle().await);
                }
                changed = self.tasks.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    self.note_uses(&mut noted).await;
                    sleep(AT_MOST_EVERY).await;
                }
                () = sleep(LOOK_EVERY) => {}
            }
            if Instant::now() >= next_room && tell(self.make_room().await) == Some(0) {
                next_room = Instant::now() + IN_VAIN;
            }
        }
    }

    /// One cycle: containers that no task brought, then images. Answers what was removed.
    ///
    /// # Errors
    /// Where containerd does not say what there is.
    pub async fn cycle(&self) -> Result<Vec<Removal>, PullError> {
        if let Some(rules) = self.options.strangers {
            let containers = strangers::containers(&self.conn).await?;
            strangers::remove(&self.conn, containers, rules, now()).await;
        }
        let mut removed = Vec::new();
        for removal in self.planned(Purpose::Cycle).await? {
            if self.remove(&removal, "it is old and not in use").await {
                removed.push(removal);
            }
        }
        Ok(removed)
    }

    /// Where the disk is too full: removes images until it is not. Answers what was removed; `None`
    /// where there was room.
    ///
    /// # Errors
    /// Where containerd does not say what there is.
    pub async fn make_room(&self) -> Result<Option<Vec<Removal>>, PullError> {
        let Some(Watermarks { high, low }) = self.options.watermarks else { return Ok(None) };
        let Some(full) = self.fullest_above(high).await? else { return Ok(None) };
        let (path, percent) = (full.path.display(), full.percent());
        tracing::info!(%path, percent, high, "containerd's disk is too full: images are removed");
        let mut removed = Vec::new();
        for removal in self.planned(Purpose::Room).await? {
            if self.fullest_above(low).await?.is_none() {
                break;
            }
            if self.remove(&removal, "the disk is too full").await {
                removed.push(removal);
            }
        }
        if let Some(full) = self.fullest_above(high).await? {
            let (path, percent) = (full.path.display(), full.percent());
            tracing::warn!(
                %path, percent, high,
                "containerd's disk is too full, and there is no image left that may be removed"
            );
        }
        Ok(Some(removed))
    }

    /// The first of containerd's file systems that is fuller than so many percent.
    async fn fullest_above(&self, percent: u32) -> Result<Option<Fill>, PullError> {
        let ask = || room::directories(&self.conn, &self.options.snapshotter);
        let directories = self.directories.get_or_try_init(ask).await?;
        Ok(room::measure(directories.clone()).await.into_iter().find(|fill| fill.is_above(percent)))
    }

    async fn planned(&self, purpose: Purpose) -> Result<Vec<Removal>, PullError> {
        let records = usage::list(&self.conn).await?;
        let containers = strangers::containers(&self.conn).await?;
        let mut in_use = self.needed();
        in_use.extend(containers.into_iter().map(|c| record_name(&c.image).unwrap_or(c.image)));
        Ok(policy::plan(&records, &in_use, &self.options.rules, purpose, now()))
    }

    /// Removes an image, unless a task has come that needs it; answers whether it did.
    async fn remove(&self, removal: &Removal, why: &str) -> bool {
        for name in &removal.names {
            let _held = self.removals.hold(name).await;
            if self.needed().contains(name) {
                return false;
            }
            if let Err(error) = record::remove(&self.conn, name).await {
                tracing::warn!(image = name, error = chain(&error), "an image could not be removed");
                return false;
            }
            tracing::info!(image = name, digest = %removal.target, last_used = ?removal.used, why, "image removed");
        }
        true
    }

    /// The images of all tasks that are not cleaned up, as records are named.
    fn needed(&self) -> BTreeSet<String> {
        self.tasks.borrow().values().flat_map(|task| task.spec.images()).filter_map(record_name).collect()
    }

    /// Notes of each image that tasks have begun or ceased to use since the last time that it was in use.
    async fn note_uses(&mut self, noted: &mut BTreeSet<String>) {
        let view = self.tasks.borrow_and_update().clone();
        let begun = view.values().flat_map(|task| {
            let has = |name: &str| {
                let progress = task.progress.containers.get(name);
                progress.is_some_and(|container| container.known >= ContainerStatus::Pulled)
            };
            task.spec.containers.iter().filter(move |c| !c.is_internal() && has(&c.name))
        });
        let mut used: BTreeSet<String> =
            begun.filter_map(|container| record_name(&container.image)).collect();
        let changed: Vec<String> = used.symmetric_difference(noted).cloned().collect();
        for name in changed {
            if let Err(error) = usage::note(&self.conn, &name, now()).await {
                tracing::warn!(image = name, error = chain(&error), "the use of an image was not noted");
                // As it was: the next change tries again.
                if !used.remove(&name) {
                    used.insert(name);
                }
            }
        }
        *noted = used;
    }
}

/// What an image of a task definition is called in containerd; one that can't be named is none.
pub fn record_name(image: &str) -> Option<String> {
    Some(Reference::parse(image).ok()?.record_name())
}

fn now() -> Wall {
    SystemTime::now().into()
}

/// Logs a failure; answers how many were removed, where anything was to be.
fn tell(done: Result<impl Into<Option<Vec<Removal>>>, PullError>) -> Option<usize> {
    match done {
        Ok(removed) => removed.into().map(|removed| removed.len()),
        Err(error) => {
            tracing::warn!(error = chain(&error), "images could not be cleaned up");
            None
        }
    }
}
