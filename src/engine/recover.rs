//! Taking up what is there: after a start, and whenever something may have been missed.

use crate::core::{EffectId, Event, Observed};
use crate::crashpoint::{self, Moment};
use crate::engine::execute::remove_directory;
use crate::engine::lost::{self, Found, Held, Seen, Verdict};
use crate::engine::persist::BOOT_ID;
use crate::engine::{Effect, Engine, Input, Ports};
use crate::model::{
    ContainerId, ContainerKey, ContainerStatus, StopReason, TaskArn, TaskId, TaskProgress, TaskSpec,
};
use crate::ports::{Cgroups, StoreChange, StoreError, task_directory};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// What the runtime answered, and of when.
#[derive(Debug)]
pub(super) struct Listing {
    containers: Result<Seen, StopReason>,
    /// What it knows of each, where that is asked for.
    held: Held,
    as_of: EffectId,
    /// Networks were restored and half-made containers removed: the core may judge.
    settled: bool,
}

/// What is still to be found out after a start.
#[derive(Debug, Default)]
pub(super) struct Recovery {
    /// Tasks that the store holds.
    stored: BTreeSet<TaskId>,
    /// Those of them whose progress is lost.
    lost: BTreeSet<TaskId>,
    /// The store was written before the host was restarted.
    restarted: bool,
    /// This boot, where the store is to be told of it.
    boot: Option<String>,
}

/// A task that the store holds.
pub(super) struct StoredTask {
    pub spec: Arc<TaskSpec>,
    pub source: Arc<str>,
    pub progress: TaskProgress,
}

/// The tasks that the store holds. One that can't be read any more is dropped, with a loud word.
pub(super) fn stored_tasks(ports: &Ports, boot: &str) -> Result<(Vec<StoredTask>, Recovery), StoreError> {
    let loaded = ports.store.load()?;
    if loaded.quarantined > 0 {
        tracing::error!(records = loaded.quarantined, "unreadable records were set aside; the rest is used");
    }
    let before = loaded.meta.get(BOOT_ID).map(String::as_str);
    let mut recovery = Recovery {
        restarted: before.is_some_and(|before| !boot.is_empty() && before != boot),
        boot: (before != Some(boot) && !boot.is_empty()).then(|| boot.to_owned()),
        ..Recovery::default()
    };
    let mut tasks = Vec::new();
    for (id, source, progress) in loaded.tasks {
        match ports.decoder.decode(&source) {
            Ok(spec) => {
                if progress.is_none() {
                    tracing::error!(task = %id, "progress of a stored task can't be read; it is found out again");
                    recovery.lost.insert(id.clone());
                }
                recovery.stored.insert(id);
                // Until then it counts as admitted, so that nobody else gets what it may be using.
                let unknown = || TaskProgress { admitted: true, ..TaskProgress::default() };
                let progress = progress.unwrap_or_else(unknown);
                tasks.push(StoredTask { spec: Arc::new(spec), source, progress });
            }
            Err(error) => {
                tracing::error!(task = %id, error, "a stored task can't be read and is dropped");
                ports.store.commit(&[StoreChange::RemoveTask(id)])?;
            }
        }
    }
    Ok((tasks, recovery))
}

impl Engine {
    /// Asks the runtime what it holds; the answer comes in as an input.
    pub(super) fn list(&mut self) {
        if self.listing {
            return;
        }
        self.listing = true;
        self.ask(Duration::ZERO);
    }

    /// Asks after a pause; what is begun meanwhile is not judged by the answer.
    fn ask(&mut self, pause: Duration) {
        let as_of = self.state.look();
        let containers = self.executor.ports().containers.clone();
        let inbox = self.to_inbox.clone();
        let recovers = self.recovery.is_some();
        tokio::spawn(async move {
            tokio::time::sleep(pause).await;
            let listed = async {
                // Records first: what is listed then has one.
                let held = if recovers { containers.held().await? } else { Held::new() };
                Ok((containers.list().await?, held))
            };
            let (containers, held) = match listed.await {
                Ok((seen, held)) => (Ok(seen), held),
                Err(reason) => (Err(reason), Held::new()),
            };
            let _ = inbox.send(Input::Listed(Listing { containers, held, as_of, settled: false })).await;
        });
    }

    /// Takes the answer: first the shell's own part (once), then the core's.
    pub(super) fn listed(&mut self, listing: Listing, effects: &mut Vec<Effect>) {
        let containers = match listing.containers {
            Ok(containers) => containers,
            Err(reason) => {
                tracing::warn!(error = %reason, "the container runtime does not say what it holds; asked again in 1 s");
                self.ask(Duration::from_secs(1));
                return;
            }
        };
        if !listing.settled && self.recovery.is_some() {
            self.settle(containers, listing.held, listing.as_of, effects);
            return;
        }
        self.listing = false;
        if let Some(boot) = self.recovery.take().and_then(|recovery| recovery.boot) {
            self.journal.booted(boot);
        }
        // What does not answer may run as well: its end is waited for.
        let may_run = |seen: &Observed| matches!(seen, Observed::Running | Observed::Unknown);
        let running = containers.iter().filter(|(_, seen)| may_run(seen));
        let running: Vec<ContainerKey> = running.map(|(key, _)| key.clone()).collect();
        self.step(Event::Reconciled { containers, as_of: listing.as_of }, effects);
        for container in running {
            let task = self.state.task(&container.task);
            let known = task.and_then(|task| task.progress.containers.get(&container.name));
            let started = known.and_then(|known| known.restarts.last.or(known.started_at));
            let started = started.unwrap_or_else(|| self.now().wall);
            self.watch(container, started);
        }
    }

    /// Finds out what the store has lost; answers what is to become of the rest.
    fn find_out(&mut self, seen: &mut Seen, held: Held, effects: &mut Vec<Effect>) -> Verdict {
        let Some(recovery) = &self.recovery else { return Verdict::default() };
        let now = self.now().wall;
        if recovery.restarted {
            tracing::warn!("the host was restarted: what ran on it has ended");
            lost::after_restart(&self.state, |id| recovery.lost.contains(id), seen, now);
        }
        let mut restored = Vec::new();
        for task in recovery.lost.iter().filter_map(|id| self.state.task(id)) {
            restored.push((task.spec.clone(), lost::find_out(&task.spec, &held, seen, now)));
        }
        restored.extend(lost::with_addresses(&self.state, |id| recovery.lost.contains(id), &held, seen));
        let unknown = held.into_iter().filter(|(key, _)| !recovery.stored.contains(&key.task)).collect();
        let ports = self.executor.ports();
        let mut verdict = lost::judge(unknown, seen, &*ports.facts, &*ports.decoder, now);
        for Found { spec, progress, source } in std::mem::take(&mut verdict.found) {
            match source {
                Some(source) => self.journal.new_task(spec.id(), source),
                None => self.journal.sourceless_task(spec.id()),
            }
            restored.push((spec, progress));
        }
        for (spec, progress) in restored {
            let id = spec.id();
            self.step(Event::TaskRestored { spec, progress }, effects);
            self.changed(id);
        }
        verdict
    }

    /// Once after a start: finds out what the store has lost, removes what nobody has any more and
    /// containers that were being made when the agent ended (they are made again from nothing), and has
    /// the network take back what live ones use.
    fn settle(&mut self, mut containers: Seen, held: Held, as_of: EffectId, effects: &mut Vec<Effect>) {
        let ids: BTreeMap<ContainerKey, ContainerId> =
            held.iter().map(|(key, container)| (key.clone(), container.id.clone())).collect();
        let Verdict { removed, left: mut live, .. } = self.find_out(&mut containers, held, effects);
        let mut half_made = removed;
        for (key, seen) in &containers {
            let Some(task) = self.state.task(&key.task) else { continue };
            let Some(known) = task.progress.containers.get(&key.name) else { continue };
            let is_live = match seen {
                // A start begins when the making is stored: what has ended of it never ran.
                Observed::Created | Observed::Exited(_) if known.known < ContainerStatus::Created => {
                    half_made.extend(ids.get(key).map(|id| (key.clone(), id.clone())));
                    false
                }
                // One that has stopped gave its address and ports back: they may be another's by now.
                Observed::Created => known.known != ContainerStatus::Stopped,
                Observed::Running | Observed::Unknown => true,
                Observed::Exited(_) => task.may_restart(&key.name),
                Observed::Gone { .. } => false,
            };
            if is_live {
                live.push((key.clone(), known.address.clone()));
            }
        }
        for (key, _) in &half_made {
            containers.remove(key);
        }
        let known: BTreeSet<TaskId> =
            self.state.tasks().keys().chain(containers.keys().map(|key| &key.task)).cloned().collect();
        let ports = self.executor.ports().clone();
        let data_dir = self.executor.data_dir().to_owned();
        let inbox = self.to_inbox.clone();
        tokio::spawn(async move {
            crashpoint::pass(Moment::Before, "settle");
            for (key, id) in half_made {
                let released = ports.containers.release(&id).await;
                let removed = ports.containers.remove(&id).await;
                if let Err(reason) = released.and(removed) {
                    tracing::warn!(container = %key, error = %reason, "a container that nobody has could not be removed");
                }
            }
            if let Err(reason) = ports.networks.restore(live).await {
                tracing::warn!(error = %reason, "networks could not be restored completely");
            }
            let cgroups = ports.cgroups.clone();
            let swept = tokio::task::spawn_blocking(move || sweep(&data_dir, &known, &*cgroups)).await;
            if let Err(panic) = swept {
                tracing::warn!(error = %panic, "directories of tasks that are gone could not be removed");
            }
            crashpoint::pass(Moment::After, "settle");
            let (containers, held) = (Ok(containers), Held::new());
            let _ = inbox.send(Input::Listed(Listing { containers, held, as_of, settled: true })).await;
        });
    }
}

/// Removes directories, and the cgroups that go with them, of tasks that nobody knows.
fn sweep(data_dir: &Path, known: &BTreeSet<TaskId>, cgroups: &dyn Cgroups) {
    for entry in std::fs::read_dir(data_dir.join("tasks")).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Ok(arn) = TaskArn::parse(&format!("arn:aws:ecs:::task/{name}")) else { continue };
        let id = arn.id();
        if known.contains(&id) {
            continue;
        }
        tracing::warn!(task = %id, "what is left of a task that nobody knows is removed");
        if let Err(reason) = cgroups.remove(&id) {
            tracing::warn!(task = %id, error = %reason, "its cgroup could not be removed");
        }
        if let Err(error) = remove_directory(&task_directory(data_dir, &id)) {
            tracing::warn!(task = %id, %error, "its directory could not be removed");
        }
    }
}
