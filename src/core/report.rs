//! What the control plane is told of a task, in the original's order (spec/control-plane.md 5.2, 5.3):
//!
//! A task is reported when all its images are known (PENDING), when it runs and when it has stopped.
//! What happens to single containers in between is collected and goes out with the next of those, or
//! by a ticker of 10 to 30 s. Reports of one task are sent one after another; what was acknowledged is
//! recorded, and after a restart only what was not is told again.

use crate::core::event::EffectId;
use crate::core::plan::spread;
use crate::model::{
    ContainerChange, ContainerProgress, ContainerStatus, Mono, Now, TaskProgress, TaskSpec, TaskStateChange,
    TaskStatus,
};
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// What is still to be told of one task. Not stored: it follows from the progress.
#[derive(Debug, Clone, Default)]
pub(super) struct Reports {
    /// Complete reports, in order; the first is under way where `under` is set.
    outbox: VecDeque<TaskStateChange>,
    under: Option<EffectId>,
    /// Changes of containers that no report carries yet.
    collected: Vec<ContainerChange>,
    /// How far each container, and the task, has been put into reports.
    containers: BTreeMap<String, ContainerStatus>,
    task: TaskStatus,
    /// When collected changes go out by themselves.
    flush_at: Option<Mono>,
}

impl Reports {
    /// Everything acknowledged before counts as told.
    pub fn restored(progress: &TaskProgress) -> Self {
        let containers = progress.containers.iter().map(|(name, c)| (name.clone(), c.sent)).collect();
        Self { containers, task: progress.sent, ..Self::default() }
    }

    /// When collected changes are due.
    pub fn next_deadline(&self, known: TaskStatus) -> Option<Mono> {
        self.flush_at.filter(|_| known != TaskStatus::Stopped)
    }

    /// The reports that follow from what is known now.
    pub fn collect(&mut self, spec: &TaskSpec, progress: &TaskProgress, now: Now) -> Vec<TaskStateChange> {
        for container in spec.containers.iter().filter(|container| !container.is_internal()) {
            if let Some(known) = progress.containers.get(&container.name) {
                self.collect_container(spec, &container.name, known);
            }
        }
        let resolved = progress.containers.values().any(|c| c.digest.is_some());
        let reportable = match progress.known {
            TaskStatus::None => false,
            TaskStatus::ManifestPulled | TaskStatus::Created => resolved,
            TaskStatus::Running | TaskStatus::Stopped => true,
        };
        // CREATED is no report of its own.
        let told = if self.task == TaskStatus::ManifestPulled { TaskStatus::Created } else { self.task };
        let mut due = Vec::new();
        if reportable && progress.known > told {
            self.task = progress.known;
            due.push(self.report(spec, progress));
        } else if self.collected.is_empty() || progress.known == TaskStatus::Stopped {
            self.flush_at = None;
        } else if self.flush_at.is_some_and(|at| at <= now.mono) {
            due.push(self.report(spec, progress));
        } else if self.flush_at.is_none() {
            self.flush_at = Some(now.mono.plus(flush_after(spec.arn.as_str(), now)));
        }
        due
    }

    fn collect_container(&mut self, spec: &TaskSpec, name: &str, known: &ContainerProgress) {
        if !self.containers.contains_key(name) {
            self.containers.insert(name.to_owned(), ContainerStatus::default());
        }
        let Some(told) = self.containers.get_mut(name) else { return };
        for status in [ContainerStatus::ManifestPulled, ContainerStatus::Running, ContainerStatus::Stopped] {
            let reached = match status {
                // Only where the registry told the digest, and nothing later is known already.
                ContainerStatus::ManifestPulled => {
                    known.digest.is_some() && (status..ContainerStatus::Running).contains(&known.known)
                }
                // A process that ended before this was looked at has run all the same, but was never
                // seen running: only its end is told.
                ContainerStatus::Running => known.known == status,
                _ => known.known == status,
            };
            if reached && status > *told {
                *told = status;
                self.collected.push(change(spec, name, status, known));
            }
        }
    }

    fn report(&mut self, spec: &TaskSpec, progress: &TaskProgress) -> TaskStateChange {
        self.flush_at = None;
        let stopped = progress.known == TaskStatus::Stopped;
        TaskStateChange {
            task: spec.arn.clone(),
            status: progress.known,
            reason: if stopped { progress.reason.clone() } else { String::new() },
            containers: std::mem::take(&mut self.collected),
            pull_started_at: progress.pull_started_at,
            pull_stopped_at: progress.pull_stopped_at,
            execution_stopped_at: progress.execution_stopped_at,
        }
    }

    pub fn enqueue(&mut self, change: TaskStateChange) {
        self.outbox.push_back(change);
    }

    /// The report to send now, where none is under way.
    pub fn next(&self) -> Option<TaskStateChange> {
        if self.under.is_some() { None } else { self.outbox.front().cloned() }
    }

    pub fn begun(&mut self, id: EffectId) {
        self.under = Some(id);
    }

    /// The report under way came to its end: what it told is recorded. False where it was another.
    pub fn finished(&mut self, id: EffectId, progress: &mut TaskProgress) -> bool {
        if self.under != Some(id) {
            return false;
        }
        self.under = None;
        if let Some(told) = self.outbox.pop_front() {
            progress.sent = progress.sent.max(told.status);
            for change in told.containers {
                if let Some(container) = progress.containers.get_mut(&change.name) {
                    container.sent = container.sent.max(change.status);
                }
            }
        }
        true
    }
}

fn change(
    spec: &TaskSpec,
    name: &str,
    status: ContainerStatus,
    known: &ContainerProgress,
) -> ContainerChange {
    let stopped = status == ContainerStatus::Stopped;
    ContainerChange {
        name: name.to_owned(),
        status,
        runtime_id: known.created_at.map(|_| spec.container_id(name)),
        digest: known.digest.clone(),
        exit_code: known.exit.as_ref().filter(|_| stopped).and_then(|exit| exit.code),
        reason: known.error.as_ref().filter(|_| stopped).map(ToString::to_string),
        bindings: known.address.bindings.clone(),
    }
}

/// 10 to 30 s, spread over tasks and moments.
fn flush_after(arn: &str, now: Now) -> Duration {
    let text = format!("{arn} {}", now.wall.0);
    Duration::from_secs(10) + spread(&text, Duration::from_secs(20))
}
