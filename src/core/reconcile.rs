//! What the runtime really holds, against what is known: the way back from lost events, and from a
//! crash.

use crate::core::event::{EffectId, Observed};
use crate::core::task::Task;
use crate::core::{State, Step};
use crate::model::{ContainerKey, ContainerStatus, Now, StopReason, TaskId};
use std::collections::BTreeMap;

impl State {
    pub(super) fn reconcile(
        &mut self,
        containers: &BTreeMap<ContainerKey, Observed>,
        as_of: EffectId,
        now: Now,
        step: &mut Step,
    ) {
        self.reconciled = true;
        let ids: Vec<TaskId> = self.tasks.keys().cloned().collect();
        for id in ids {
            if let Some(task) = self.tasks.get_mut(&id) {
                for container in task.spec.clone().containers.iter() {
                    let key = ContainerKey { task: id.clone(), name: container.name.clone() };
                    task.observed(&key.name, containers.get(&key), as_of, now);
                }
            }
            self.advance(&id, now, step);
        }
    }
}

impl Task {
    /// What was seen of one container; nothing may have been seen of it at all.
    fn observed(&mut self, name: &str, seen: Option<&Observed>, as_of: EffectId, now: Now) {
        let Some(known) = self.progress.containers.get(name).map(|c| c.known) else { return };
        let Some(run) = self.runs.get(name) else { return };
        // What was begun or answered after the look is not judged by it, and what is under way will answer.
        if run.looked_at >= as_of || run.under.is_some() || known == ContainerStatus::Stopped {
            return;
        }
        let (restarts, doubted) = (self.restart_due(name), run.doubt.is_some());
        match seen {
            // It is to be released, whatever runs.
            Some(Observed::Running | Observed::Created) if doubted => {}
            // The end that a restart answers, which is still to be done.
            Some(Observed::Exited(end)) if restarts && self.is_answered(name, &end.exit) => {}
            // The same, although the restart was done: nothing is known of the process that it made.
            Some(Observed::Exited(end)) if self.is_answered(name, &end.exit) => self.vanished(name, now),
            Some(Observed::Exited(end)) => self.container_exited(name, end.clone(), now),
            Some(Observed::Gone { exit, why }) => {
                if let Some(container) = self.progress.containers.get_mut(name) {
                    container.exit = Some(exit.clone()).filter(|exit| exit.code.is_some());
                }
                self.container_stopped(name, Some(why.clone()), now);
            }
            Some(Observed::Running) => {
                self.restart_seen(name, now);
                self.learn(name, ContainerStatus::Running, |c| {
                    c.started_at.get_or_insert(now.wall);
                    c.created_at.get_or_insert(now.wall);
                });
                let started = self.progress.containers.get(name).and_then(|c| c.started_at);
                self.runs_since(name, started.unwrap_or(now.wall), now);
            }
            Some(Observed::Unknown) => {}
            // Made but not started. Where that is not known yet, it is made again: that finds it.
            Some(Observed::Created) if known < ContainerStatus::Running || restarts => {}
            // It had a process and has none any more, or is not there at all.
            Some(Observed::Created) | None if known >= ContainerStatus::Created => self.vanished(name, now),
            Some(Observed::Created) | None => {}
        }
    }

    fn vanished(&mut self, name: &str, now: Now) {
        let reason = StopReason::new(
            "ContainerVanishedError",
            "the container runtime no longer knows this container; its exit code is lost",
        );
        self.container_stopped(name, Some(reason), now);
    }
}
