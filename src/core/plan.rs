//! What follows from what is known: for every container the next effect towards what is wanted, and
//! the same for the task as a whole. Called after everything that was learned about a task.

use crate::core::container::{Operation, Under};
use crate::core::depends::Verdict;
use crate::core::effect::Effect;
use crate::core::task::{Holds, Prepared, Removal, Task};
use crate::core::{Action, Rules, State, Step};
use crate::model::{
    ContainerKey, ContainerStatus, DesiredStatus, Mono, Now, StopReason, TaskId, TaskStatus, Wall,
};
use std::time::Duration;

/// The exit code that the control plane gets for a container whose dependencies can't be met any
/// more (the original's).
const DEPENDENCY_FAILED: i32 = 143;

impl State {
    /// Brings a task as far as what is known allows, and collects the effects that are due.
    pub(super) fn advance(&mut self, id: &TaskId, now: Now, step: &mut Step) {
        // Planning one container may decide another's fate (an essential container that failed, a
        // dependency that is met): go round until nothing changes. Every round that goes on has moved
        // a status forward or begun an effect, so this ends.
        self.tell(id, now);
        while self.round(id, now, step) {}
        self.tell(id, now);
        let Some(task) = self.tasks.get_mut(id) else { return };
        if let Some(change) = task.reports.next() {
            let effect = self.run(step, id, None, Duration::MAX, Action::Report(change));
            if let Some(task) = self.tasks.get_mut(id) {
                task.reports.begun(effect);
            }
        }
        self.plan_removal(id, now, step);
        self.index(id, step);
    }

    /// Puts what is known into reports. What was learnt is told before anything is planned: PENDING
    /// then says nothing yet of the pull that follows it, as the original's.
    fn tell(&mut self, id: &TaskId, now: Now) {
        let reconciled = self.reconciled;
        let Some(task) = self.tasks.get_mut(id) else { return };
        if reconciled {
            task.refresh_known(now);
        }
        for report in task.reports.collect(&task.spec, &task.progress, now) {
            task.reports.enqueue(report);
        }
    }

    fn round(&mut self, id: &TaskId, now: Now, step: &mut Step) -> bool {
        if !self.reconciled {
            return false;
        }
        let Some(task) = self.tasks.get_mut(id) else { return false };
        let before = task.mark();
        if task.progress.desired == DesiredStatus::Running && task.must_end() {
            task.progress.desired = DesiredStatus::Stopped;
        }
        let spec = task.spec.clone();
        for container in &spec.containers {
            self.plan_container(&ContainerKey { task: id.clone(), name: container.name.clone() }, now, step);
        }
        let Some(task) = self.tasks.get_mut(id) else { return false };
        task.refresh_known(now);
        task.mark() != before
    }

    /// The next effect for one container, where nothing is under way for it.
    fn plan_container(&mut self, key: &ContainerKey, now: Now, step: &mut Step) {
        let Self { tasks, rules, .. } = self;
        let Some(task) = tasks.get_mut(&key.task) else { return };
        let next = if task.wants_stop() {
            task.towards_stopped(key, rules, now)
        } else {
            task.towards_running(key, rules, now)
        };
        let Some((operation, action)) = next else { return };
        let whole_task = operation == Operation::Prepare;
        let container = (!whole_task).then_some(key.name.as_str());
        let limit = operation.limit(&self.rules.timeouts);
        let effect = self.run(step, &key.task, container, limit, action);
        let under = Under::begin(effect, operation, limit, now);
        if operation == Operation::Restart {
            // How often it was restarted is durable before it is.
            step.persist.insert(key.task.clone());
        }
        let Some(task) = self.tasks.get_mut(&key.task) else { return };
        if whole_task {
            task.prepared = Prepared::Under(under);
        } else if let Some(run) = task.runs.get_mut(&key.name) {
            run.looked_at = effect;
            run.under = Some(under);
        }
    }

    /// Cleans up once the end of the task was told and its wait is over.
    fn plan_removal(&mut self, id: &TaskId, now: Now, step: &mut Step) {
        if !self.reconciled {
            return;
        }
        let wait = self.rules.cleanup_wait + spread(id.as_str(), self.rules.cleanup_jitter);
        let limit = Operation::Remove.limit(&self.rules.timeouts);
        let Some(task) = self.tasks.get_mut(id) else { return };
        if task.progress.sent != TaskStatus::Stopped || !task.all_released() {
            return;
        }
        if task.nameless {
            self.drop_task(id, step);
            return;
        }
        if task.removal == Removal::NotDue {
            task.removal = Removal::At(cleanup_at(task.progress.stopped_at, wait, now));
        }
        if let Removal::At(at) = task.removal
            && at <= now.mono
        {
            let action = Action::RemoveTask { spec: task.spec.clone() };
            let effect = self.run(step, id, None, limit, action);
            if let Some(task) = self.tasks.get_mut(id) {
                task.removal = Removal::Under(Under::begin(effect, Operation::Remove, limit, now));
            }
        }
    }

    /// Nothing is left of it: forget it.
    pub(super) fn drop_task(&mut self, id: &TaskId, step: &mut Step) {
        if let Some(task) = self.tasks.remove(id) {
            self.queue_due |= task.held != Holds::Nothing;
            if let Some(at) = task.deadline {
                self.deadlines.remove(&(at, id.clone()));
            }
            if !task.nameless {
                step.forget.push(id.clone());
            }
        }
        self.pending.retain(|_, pending| pending.task != *id);
        step.run.retain(|effect| match effect {
            Effect::Run { id, .. } => self.pending.contains_key(id),
            Effect::Persist(_) | Effect::Forget(_) => true,
        });
    }
}

impl Task {
    fn towards_running(
        &mut self,
        key: &ContainerKey,
        rules: &Rules,
        now: Now,
    ) -> Option<(Operation, Action)> {
        let known = self.progress.containers.get(&key.name)?.known;
        if known == ContainerStatus::Stopped || self.runs.get(&key.name)?.doubt.is_some() {
            return self.release(key, now);
        }
        if !self.progress.admitted {
            return None;
        }
        if self.runs.get(&key.name)?.under.is_some() {
            return None;
        }
        let spec = self.spec.clone();
        let container = spec.container(&key.name)?;
        // What has no image begins where others are when theirs is there.
        let known = if container.is_internal() { known.max(ContainerStatus::Pulled) } else { known };
        // The digest is looked up at once, and the image fetched where that is wished; everything after it
        // waits for the dependencies.
        let waits_from = match rules.pull_upfront {
            true => ContainerStatus::Pulled,
            false => ContainerStatus::ManifestPulled,
        };
        if (waits_from..ContainerStatus::Running).contains(&known) {
            match self.dependencies(container, now) {
                Verdict::Met => {}
                Verdict::Wait => return None,
                Verdict::Never(why) => {
                    self.dependency_failed(&key.name, &why, now);
                    return None;
                }
            }
        }
        let container = key.clone();
        match known {
            ContainerStatus::None => {
                // What the containers share is made while the digest is looked up.
                if self.prepared == Prepared::No {
                    return Some((Operation::Prepare, Action::PrepareTask { spec }));
                }
                Some((Operation::Resolve, Action::Resolve { spec, container }))
            }
            // Nothing is fetched for a task whose volumes can't be had (spec/task-engine.md 1.4).
            ContainerStatus::ManifestPulled | ContainerStatus::Pulled if self.prepared != Prepared::Yes => {
                let idle = self.prepared == Prepared::No;
                idle.then_some((Operation::Prepare, Action::PrepareTask { spec }))
            }
            ContainerStatus::ManifestPulled => {
                self.progress.pull_started_at.get_or_insert(now.wall);
                let digest = self.progress.containers.get(&key.name)?.digest.clone();
                Some((Operation::Pull, Action::Pull { spec, container, digest }))
            }
            ContainerStatus::Pulled => Some((Operation::Create, Action::Create { spec, container })),
            ContainerStatus::Created => {
                Some((Operation::Start, Action::Start { container, arn: self.spec.arn.clone() }))
            }
            ContainerStatus::Running => self.restart(&container),
            ContainerStatus::Stopped => None,
        }
    }

    fn towards_stopped(
        &mut self,
        key: &ContainerKey,
        rules: &Rules,
        now: Now,
    ) -> Option<(Operation, Action)> {
        let known = self.progress.containers.get(&key.name)?.known;
        if known == ContainerStatus::Stopped || self.runs.get(&key.name)?.doubt.is_some() {
            return self.release(key, now);
        }
        match self.runs.get(&key.name)?.operation() {
            // May end in a process: wait for the answer, then stop what there is.
            Some(Operation::Create | Operation::Start | Operation::Restart) => return None,
            Some(Operation::Kill) => return None,
            // Harmless: whatever it answers is not wanted any more.
            Some(_) | None => {}
        }
        if known < ContainerStatus::Running || self.restart_due(&key.name) {
            self.stop_unstarted(&key.name, now);
            return None;
        }
        self.stop_running(key, rules, now)
    }

    /// Gives back process, network and ports of a stopped container.
    fn release(&mut self, key: &ContainerKey, now: Now) -> Option<(Operation, Action)> {
        if !self.progress.admitted {
            return None;
        }
        let run = self.runs.get_mut(&key.name)?;
        let begun = matches!(
            run.operation(),
            Some(Operation::Create | Operation::Start | Operation::Restart | Operation::Release)
        );
        let later = run.retry_at.is_some_and(|at| at > now.mono);
        if run.released || begun || later {
            return None;
        }
        run.retry_at = None;
        Some((Operation::Release, Action::Release { container: key.clone(), spec: self.spec.clone() }))
    }

    /// Every container was released; nothing of a task that was never admitted has to be.
    pub(super) fn all_released(&self) -> bool {
        !self.progress.admitted || self.runs.values().all(|run| run.released)
    }

    fn dependency_failed(&mut self, name: &str, why: &str, now: Now) {
        if let Some(container) = self.progress.containers.get_mut(name) {
            container.exit = Some(crate::model::ExitRecord { code: Some(DEPENDENCY_FAILED), at: now.wall });
        }
        let reason = StopReason::new("CannotStartContainerError", format!("dependency graph: {why}"));
        self.container_stopped(name, Some(reason), now);
    }
}

/// When a task that ended at `stopped` is cleaned up; the wall clock carries it over restarts.
fn cleanup_at(stopped: Option<Wall>, wait: Duration, now: Now) -> Mono {
    let gone = stopped.map_or(Duration::ZERO, |at| now.wall.since(at));
    now.mono.plus(wait.saturating_sub(gone))
}

/// A moment within `most` that is the same for the same text: chance without a source of it.
pub(super) fn spread(text: &str, most: Duration) -> Duration {
    let most = u64::try_from(most.as_millis()).unwrap_or(u64::MAX);
    let mixed = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    Duration::from_millis(if most == 0 { 0 } else { mixed % most })
}
