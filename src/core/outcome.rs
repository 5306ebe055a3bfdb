//! What the answer to an effect means.

use crate::core::container::{Operation, Under};
use crate::core::event::{EffectId, Outcome, PullFailure};
use crate::core::stop::Stopping;
use crate::core::task::{Prepared, Removal, Task};
use crate::core::{CreatedContainer, Rules, State, Step};
use crate::model::{ContainerStatus, DesiredStatus, ImageDigest, Now, ResolvedImage, StopReason, Wall};
use std::time::Duration;

/// Before a failed release or clean-up is tried again.
const RETRY: Duration = Duration::from_secs(15);
/// Failed releases after which a container whose start failed counts as stopped.
const GIVE_UP_AFTER: u32 = 8;

impl State {
    pub(super) fn done(&mut self, id: EffectId, outcome: Outcome, now: Now, step: &mut Step) {
        // An answer that nobody waits for (repeated, or of an earlier life) says nothing.
        let Some(pending) = self.pending.remove(&id) else { return };
        let Some(task) = self.tasks.get_mut(&pending.task) else { return };
        // A look that began before this answer may have been too early to see what it tells of.
        if let Some(run) = pending.container.as_ref().and_then(|name| task.runs.get_mut(name)) {
            run.looked_at = self.last_effect;
        }
        match (outcome, pending.container) {
            // Accepted or refused, it is off the list.
            (Outcome::Reported(_), _) => {
                if task.reports.finished(id, &mut task.progress) && !task.nameless {
                    step.persist.insert(pending.task.clone());
                }
            }
            (Outcome::TaskPrepared(result), _) => task.task_prepared(id, result, now),
            (Outcome::TaskRemoved(result), _) => match result {
                Ok(()) => self.drop_task(&pending.task, step),
                Err(_) => task.removal = Removal::At(now.mono.plus(RETRY)),
            },
            (outcome, Some(name)) => {
                if matches!(outcome, Outcome::Started(_)) {
                    // A restart that is done changes nothing else that would be written.
                    step.persist.insert(pending.task.clone());
                }
                task.container_answered(id, &name, outcome, &self.rules, now);
            }
            (_, None) => {}
        }
        self.advance(&pending.task, now, step);
    }
}

impl Task {
    fn task_prepared(&mut self, id: EffectId, result: Result<(), StopReason>, now: Now) {
        if !matches!(&self.prepared, Prepared::Under(under) if under.id == id) {
            return;
        }
        match result {
            Ok(()) => self.prepared = Prepared::Yes,
            Err(reason) => {
                self.prepared = Prepared::No;
                self.progress.desired = DesiredStatus::Stopped;
                if self.progress.reason.is_empty() {
                    self.progress.reason = reason.to_string();
                }
                // Everything that waits for it has nothing to wait for any more.
                let names: Vec<String> = self.runs.keys().cloned().collect();
                for name in names {
                    if self.runs.get(&name).is_some_and(|run| run.operation().is_none())
                        && self
                            .progress
                            .containers
                            .get(&name)
                            .is_some_and(|c| c.known < ContainerStatus::Created)
                    {
                        self.container_stopped(&name, None, now);
                    }
                }
            }
        }
    }

    fn container_answered(&mut self, id: EffectId, name: &str, outcome: Outcome, rules: &Rules, now: Now) {
        let Some(run) = self.runs.get_mut(name) else { return };
        let Some(Under { operation, .. }) = run.under.take_if(|under| under.id == id) else { return };
        match outcome {
            Outcome::Resolved(result) => self.resolved(name, result, rules, now),
            Outcome::Pulled(result) => self.pulled(name, result, rules, now),
            Outcome::Created(result) => self.created(name, result, now),
            Outcome::Started(result) if operation == Operation::Restart => self.restarted(name, result),
            Outcome::Started(result) => self.started(name, result, now),
            Outcome::Released(result) => self.was_released(name, result, now),
            // A stop signal that could not be sent is not waited for: SIGKILL follows at once.
            Outcome::Signalled(Err(_)) if operation == Operation::Signal => {
                run.stopping = Stopping::Asked { kill_at: now.mono };
            }
            Outcome::Signalled(_)
            | Outcome::NotBegun
            | Outcome::TaskPrepared(_)
            | Outcome::TaskRemoved(_)
            | Outcome::Reported(_) => {}
        }
    }

    fn resolved(&mut self, name: &str, result: Result<ResolvedImage, PullFailure>, rules: &Rules, now: Now) {
        match result {
            Ok(image) => self.learn(name, ContainerStatus::ManifestPulled, |c| c.digest = image.digest),
            Err(failure) => self.pull_failed(name, failure, rules, now),
        }
    }

    fn pulled(&mut self, name: &str, result: Result<ImageDigest, PullFailure>, rules: &Rules, now: Now) {
        self.progress.pull_stopped_at = Some(now.wall);
        match result {
            Ok(id) => self.learn(name, ContainerStatus::Pulled, |c| c.image_id = Some(id)),
            Err(failure) => self.pull_failed(name, failure, rules, now),
        }
    }

    /// A look-up or pull that failed: a local image may serve, else the container has stopped.
    fn pull_failed(&mut self, name: &str, failure: PullFailure, rules: &Rules, now: Now) {
        self.progress.pull_started_at.get_or_insert(now.wall);
        self.progress.pull_stopped_at = Some(now.wall);
        if let Some(local) = failure.local.filter(|_| !rules.pull_failure_stops_task) {
            self.learn(name, ContainerStatus::Pulled, |c| c.image_id = Some(local));
            return;
        }
        self.container_stopped(name, Some(failure.reason), now);
        if rules.pull_failure_stops_task {
            self.progress.desired = DesiredStatus::Stopped;
        }
    }

    fn created(&mut self, name: &str, result: Result<CreatedContainer, StopReason>, now: Now) {
        match result {
            Ok(created) => self.learn(name, ContainerStatus::Created, |c| {
                c.created_at = Some(created.at);
                c.address = created.address;
            }),
            Err(reason) => self.container_stopped(name, Some(reason), now),
        }
    }

    fn started(&mut self, name: &str, result: Result<Wall, StopReason>, now: Now) {
        match result {
            Ok(at) => {
                self.learn(name, ContainerStatus::Running, |c| c.started_at = Some(at));
                self.runs_since(name, at, now);
                self.health_begins(name, now.wall);
            }
            Err(reason) => self.doubts(name, reason),
        }
    }

    /// A start failed, so nobody knows whether a process runs. That is remembered over a crash: what is
    /// released may not be taken for a container that ended by itself.
    pub(super) fn doubts(&mut self, name: &str, reason: StopReason) {
        if let Some(container) = self.progress.containers.get_mut(name) {
            container.error.get_or_insert_with(|| reason.clone());
        }
        if let Some(run) = self.runs.get_mut(name) {
            run.doubt = Some(reason);
        }
    }

    /// Process, network and ports were given back, or not.
    fn was_released(&mut self, name: &str, result: Result<(), StopReason>, now: Now) {
        let Some(run) = self.runs.get_mut(name) else { return };
        match result {
            Ok(()) => run.released = true,
            Err(_) => {
                run.failed_releases += 1;
                run.retry_at = Some(now.mono.plus(RETRY));
            }
        }
        // Not even the runtime can tell: the task's end is not held back for ever.
        if (run.released || run.failed_releases >= GIVE_UP_AFTER)
            && let Some(reason) = run.doubt.take()
        {
            self.container_stopped(name, Some(reason), now);
        }
    }

    /// A container got as far as `status`, unless it is known to be further.
    pub(super) fn learn(
        &mut self,
        name: &str,
        status: ContainerStatus,
        more: impl FnOnce(&mut crate::model::ContainerProgress),
    ) {
        if let Some(container) = self.progress.containers.get_mut(name)
            && container.known < status
        {
            container.known = status;
            more(container);
        }
    }
}
