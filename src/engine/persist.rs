//! Write-ahead: what is made durable, and when.
//!
//! A commit costs a disk's flush, so the launch path has as few as can be. Only these rely on one: an
//! acknowledgement (the task must survive), a start (address and ports of the container that is about
//! to run must), a restart (the exit that it answers, lest it be answered twice), a release (the exit
//! code, which the runtime forgets) and a report of RUNNING or STOPPED (what was told is never taken
//! back). Everything else is written with the next of those, or by itself shortly after, and would be
//! seen again by reconciling.

use crate::core::{Action, State};
use crate::engine::writer::Writer;
use crate::model::{TaskId, TaskStatus};
use crate::ports::{Store, StoreChange};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Key of the boot that the stored tasks are of.
pub(super) const BOOT_ID: &str = "boot-id";

/// What nothing relies on may stay unwritten that long.
const SOON: Duration = Duration::from_millis(100);

/// Whether an effect may only begin once the step that asked for it is durable.
pub(super) fn relies_on_store(action: &Action) -> bool {
    match action {
        Action::Start { .. } | Action::Restart { .. } | Action::Release { .. } => true,
        Action::Report(change) => change.status >= TaskStatus::Running,
        _ => false,
    }
}

/// Changes on their way to the store.
pub(super) struct Journal {
    writer: Writer,
    /// What the containers of a task carry, until all of them are made; and what the store is to keep.
    sources: BTreeMap<TaskId, Arc<str>>,
    /// Tasks that the store does not have yet.
    unwritten: BTreeSet<TaskId>,
    /// Tasks that it can't have: nobody knows what was asked.
    sourceless: BTreeSet<TaskId>,
    dirty: BTreeSet<TaskId>,
    gone: BTreeSet<TaskId>,
    /// The boot that the tasks are of.
    boot: Option<String>,
    since: Option<Instant>,
    failed: bool,
}

impl Journal {
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self {
            writer: Writer::new(store),
            sources: BTreeMap::new(),
            unwritten: BTreeSet::new(),
            sourceless: BTreeSet::new(),
            dirty: BTreeSet::new(),
            gone: BTreeSet::new(),
            boot: None,
            since: None,
            failed: false,
        }
    }

    /// A task that the store does not have yet.
    pub fn new_task(&mut self, id: TaskId, source: Arc<str>) {
        self.unwritten.insert(id.clone());
        self.sources.insert(id, source);
    }

    /// A task that the store has.
    pub fn stored_task(&mut self, id: TaskId, source: Arc<str>) {
        self.sources.insert(id, source);
    }

    /// A task that is never stored.
    pub fn sourceless_task(&mut self, id: TaskId) {
        self.sourceless.insert(id);
    }

    /// The task as the store keeps it, until all its containers are made.
    pub fn source(&self, id: &TaskId) -> Option<Arc<str>> {
        self.sources.get(id).cloned()
    }

    /// All that is stored from now on is of this boot.
    pub fn booted(&mut self, boot: String) {
        self.boot = Some(boot);
        self.since.get_or_insert_with(Instant::now);
    }

    pub fn changed(&mut self, id: TaskId) {
        if self.sourceless.contains(&id) {
            return;
        }
        self.dirty.insert(id);
        self.since.get_or_insert_with(Instant::now);
    }

    pub fn forget(&mut self, id: TaskId) {
        self.dirty.remove(&id);
        self.sources.remove(&id);
        if !self.unwritten.remove(&id) && !self.sourceless.remove(&id) {
            self.gone.insert(id);
            self.since.get_or_insert_with(Instant::now);
        }
    }

    /// Makes everything durable now. False where the store failed: it is tried again with the next.
    pub async fn commit(&mut self, state: &State) -> bool {
        let changes = self.changes(state);
        if changes.is_empty() {
            return true;
        }
        match self.writer.commit(changes).await {
            Ok(()) => {
                if std::mem::take(&mut self.failed) {
                    tracing::info!("state is durable again");
                }
                let makes = |id: &TaskId| {
                    state.task(id).is_some_and(|task| task.progress.known < TaskStatus::Running)
                };
                self.sources.retain(|id, _| makes(id));
                self.unwritten.retain(|id| !self.dirty.contains(id));
                self.dirty.clear();
                self.gone.clear();
                self.boot = None;
                self.since = None;
                true
            }
            Err(error) => {
                // The next try is due a while from now, not from the first change.
                self.since = Some(Instant::now());
                if !std::mem::replace(&mut self.failed, true) {
                    tracing::error!(
                        error,
                        "state could not be stored; tasks go on, new ones are not acknowledged"
                    );
                }
                false
            }
        }
    }

    /// The newest commit failed.
    pub fn is_failing(&self) -> bool {
        self.failed
    }

    /// When waiting changes must be written, though nothing relies on them.
    pub fn due(&self) -> Option<Instant> {
        self.since.map(|since| since + if self.failed { Duration::from_secs(1) } else { SOON })
    }

    fn changes(&self, state: &State) -> Vec<StoreChange> {
        let mut changes = Vec::new();
        for id in &self.dirty {
            let Some(task) = state.task(id) else { continue };
            if let Some(source) = self.sources.get(id).filter(|_| self.unwritten.contains(id)) {
                changes.push(StoreChange::PutTask { id: id.clone(), source: source.clone() });
            }
            changes.push(StoreChange::PutProgress { id: id.clone(), progress: task.progress.clone() });
        }
        changes.extend(self.gone.iter().cloned().map(StoreChange::RemoveTask));
        changes.extend(self.boot.iter().cloned().map(|boot| StoreChange::PutMeta(BOOT_ID, boot)));
        changes
    }
}
