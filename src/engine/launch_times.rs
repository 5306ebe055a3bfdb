//! How long each phase of a launch took: told once for every task, when the control plane has taken
//! its RUNNING. Containers start side by side, so a phase counts the longest of them.

use crate::core::Action;
use crate::model::{ContainerKey, TaskId, TaskStatus};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// The phases of a launch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Looking up and fetching the image.
    Pull,
    /// Namespace, address and ports.
    Network,
    /// Snapshot, container and process, not started.
    Create,
    /// Starting the process.
    Start,
    /// For a slot, before any of these.
    Wait,
}

/// Times of tasks that are being launched; shared by the effects that take them.
#[derive(Debug, Clone, Default)]
pub(super) struct LaunchTimes(Arc<Mutex<BTreeMap<TaskId, Times>>>);

#[derive(Debug)]
struct Times {
    received: Instant,
    /// From the payload to the first effect.
    payload: Option<Duration>,
    containers: BTreeMap<String, [Duration; 5]>,
}

impl LaunchTimes {
    pub fn received(&self, task: &TaskId) {
        let times = Times { received: Instant::now(), payload: None, containers: BTreeMap::new() };
        self.lock().insert(task.clone(), times);
    }

    pub fn forget(&self, task: &TaskId) {
        self.lock().remove(task);
    }

    /// An effect begins: the first one ends the payload's phase.
    pub fn begun(&self, task: &TaskId) {
        if let Some(times) = self.lock().get_mut(task) {
            let since = times.received.elapsed();
            times.payload.get_or_insert(since);
        }
    }

    /// A phase of one container took that long.
    pub fn took(&self, container: &ContainerKey, phase: Phase, time: Duration) {
        let slot = match phase {
            Phase::Pull => 0,
            Phase::Network => 1,
            Phase::Create => 2,
            Phase::Start => 3,
            Phase::Wait => 4,
        };
        if let Some(times) = self.lock().get_mut(&container.task) {
            let phases = times.containers.entry(container.name.clone()).or_default();
            if let Some(spent) = phases.get_mut(slot) {
                *spent += time;
            }
        }
    }

    /// A report was taken: that of RUNNING ends the launch and tells it in the log, that of STOPPED
    /// drops it.
    pub fn reported(&self, task: &TaskId, status: TaskStatus, time: Duration) {
        if status < TaskStatus::Running {
            return;
        }
        let Some(times) = self.lock().remove(task) else { return };
        if status != TaskStatus::Running {
            return;
        }
        let longest = |slot: usize| {
            times.containers.values().filter_map(|phases| phases.get(slot)).max().copied().unwrap_or_default()
        };
        tracing::info!(
            task = %task,
            payload_ms = ms(times.payload.unwrap_or_default()),
            wait_ms = ms(longest(4)),
            pull_ms = ms(longest(0)),
            network_ms = ms(longest(1)),
            create_ms = ms(longest(2)),
            start_ms = ms(longest(3)),
            report_ms = ms(time),
            total_ms = ms(times.received.elapsed()),
            "task launched"
        );
    }

    /// A panic while this was held can't have left it half-written.
    fn lock(&self) -> MutexGuard<'_, BTreeMap<TaskId, Times>> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// The task that an action is about, and the container where it is about one.
pub(super) fn subject_of(action: &Action) -> (TaskId, Option<ContainerKey>) {
    let container = match action {
        Action::Resolve { container, .. }
        | Action::Pull { container, .. }
        | Action::Create { container, .. }
        | Action::Start { container, .. }
        | Action::Restart { container, .. }
        | Action::Signal { container, .. }
        | Action::Kill { container, .. }
        | Action::Release { container, .. } => container,
        Action::PrepareTask { spec } | Action::RemoveTask { spec } => return (spec.id(), None),
        Action::Report(change) => return (change.task.id(), None),
    };
    (container.task.clone(), Some(container.clone()))
}

fn ms(time: Duration) -> f64 {
    (time.as_secs_f64() * 10_000.0).round() / 10.0
}
