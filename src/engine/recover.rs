//! Taking up what is there: after a start, and whenever something may have been missed.

use crate::core::{EffectId, Event, Observed};
use crate::engine::{Effect, Engine, Input, Ports};
use crate::model::{
    ContainerAddress, ContainerKey, ContainerStatus, StopReason, TaskId, TaskProgress, TaskSpec,
};
use crate::ports::{StoreChange, StoreError};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// What the runtime answered, and of when.
#[derive(Debug)]
pub(super) struct Listing {
    containers: Result<BTreeMap<ContainerKey, Observed>, StopReason>,
    as_of: EffectId,
    /// Networks were restored and half-made containers removed: the core may judge.
    settled: bool,
}

/// The tasks that the store holds. One that can't be read any more is dropped, with a loud word.
pub(super) fn stored_tasks(ports: &Ports) -> Result<Vec<(Arc<TaskSpec>, TaskProgress)>, StoreError> {
    let loaded = ports.store.load()?;
    if loaded.quarantined > 0 {
        tracing::error!(records = loaded.quarantined, "unreadable records were set aside; the rest is used");
    }
    let mut tasks = Vec::new();
    for (id, source, progress) in loaded.tasks {
        match ports.decoder.decode(&source) {
            Ok(spec) => tasks.push((Arc::new(spec), progress.unwrap_or_else(|| unreadable_progress(&id)))),
            Err(error) => {
                tracing::error!(task = %id, error, "a stored task can't be read and is dropped");
                ports.store.commit(&[StoreChange::RemoveTask(id)])?;
            }
        }
    }
    Ok(tasks)
}

/// A task whose progress was lost is taken for admitted: what the runtime holds of it is found by
/// its containers' derived ids.
fn unreadable_progress(id: &TaskId) -> TaskProgress {
    tracing::error!(task = %id, "progress of a stored task can't be read; it is found out again");
    TaskProgress { admitted: true, ..TaskProgress::default() }
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
        tokio::spawn(async move {
            tokio::time::sleep(pause).await;
            let containers = containers.list().await;
            let _ = inbox.send(Input::Listed(Listing { containers, as_of, settled: false })).await;
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
        if !listing.settled && self.recovering {
            self.settle(containers, listing.as_of);
            return;
        }
        self.listing = false;
        self.recovering = false;
        let running: Vec<ContainerKey> = containers
            .iter()
            .filter(|(_, seen)| matches!(seen, Observed::Running))
            .map(|(key, _)| key.clone())
            .collect();
        self.step(Event::Reconciled { containers, as_of: listing.as_of }, effects);
        for container in running {
            self.watch(container);
        }
    }

    /// Once after a start: removes containers that were being made when the agent ended (they are
    /// made again from nothing), and has the network take back what live ones use.
    fn settle(&mut self, mut containers: BTreeMap<ContainerKey, Observed>, as_of: EffectId) {
        let mut live: Vec<(ContainerKey, ContainerAddress)> = Vec::new();
        let mut half_made = Vec::new();
        for (key, seen) in &containers {
            let task = self.state.task(&key.task);
            let Some((task, known)) = task.and_then(|t| Some((t, t.progress.containers.get(&key.name)?)))
            else {
                tracing::warn!(container = %key, "a container of ours belongs to no known task; it is left alone");
                continue;
            };
            if *seen == Observed::Created && known.known < ContainerStatus::Created {
                half_made.push((key.clone(), task.spec.container_id(&key.name)));
            } else if !matches!(seen, Observed::Exited(_)) || task.may_restart(&key.name) {
                live.push((key.clone(), known.address.clone()));
            }
        }
        for (key, _) in &half_made {
            containers.remove(key);
        }
        let ports = self.executor.ports().clone();
        let inbox = self.to_inbox.clone();
        tokio::spawn(async move {
            for (key, id) in half_made {
                let released = ports.containers.release(&id).await;
                let removed = ports.containers.remove(&id).await;
                if let Err(reason) = released.and(removed) {
                    tracing::warn!(container = %key, error = %reason, "a half-made container could not be removed");
                }
            }
            if let Err(reason) = ports.networks.restore(live).await {
                tracing::warn!(error = %reason, "networks could not be restored completely");
            }
            let containers = Ok(containers);
            let _ = inbox.send(Input::Listed(Listing { containers, as_of, settled: true })).await;
        });
    }
}
