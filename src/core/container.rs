//! One container: what is under way for it, and what its events mean.

use crate::core::Timeouts;
use crate::core::event::{ContainerExit, EffectId, Outcome, PullFailure};
use crate::core::stop::Stopping;
use crate::core::task::Task;
use crate::model::{ContainerStatus, DesiredStatus, Health, Mono, Now, StopReason, Wall};
use std::time::Duration;

/// What is under way for a container. Not stored: after a crash everything is asked for again, and
/// every effect is safe to repeat.
#[derive(Debug, Clone, Default)]
pub(super) struct Run {
    pub under: Option<Under>,
    pub stopping: Stopping,
    /// Its process, network and ports were given back.
    pub released: bool,
    /// The newest effect of all when one of this container's was begun or answered last: a look at the
    /// runtime from before says nothing.
    pub looked_at: EffectId,
    /// Its start failed, so nobody knows whether a process runs: it is released first, and has
    /// stopped, for this reason, when that is done.
    pub doubt: Option<StopReason>,
    /// Releases that failed in a row, and when the next one is due.
    pub failed_releases: u32,
    pub retry_at: Option<Mono>,
    /// Since when it is known to run, and how long it had run before that: dependents wait no longer
    /// than its start timeout.
    pub running_since: Option<(Mono, Duration)>,
    /// Which of its restarts the newest effect is for.
    pub restart: u32,
    /// What its health checks say; after a crash they begin again.
    pub health: Health,
}

/// An effect under way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Under {
    pub id: EffectId,
    pub operation: Operation,
    /// When the shell must have answered; after that it counts as failed.
    pub overdue_at: Mono,
    pub limit: Duration,
}

/// What an effect under way does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operation {
    Resolve,
    Pull,
    Create,
    Start,
    Restart,
    Signal,
    Kill,
    Release,
    Prepare,
    Remove,
}

impl Operation {
    /// How long the shell may take.
    pub fn limit(self, timeouts: &Timeouts) -> Duration {
        match self {
            Self::Resolve => timeouts.resolve,
            Self::Pull => timeouts.pull,
            Self::Create => timeouts.create,
            Self::Start | Self::Restart => timeouts.start,
            Self::Release => Duration::from_secs(60),
            // Volumes have five minutes of it.
            Self::Prepare => Duration::from_secs(360),
            Self::Signal | Self::Kill => Duration::from_secs(30),
            Self::Remove => Duration::from_secs(300),
        }
    }

    /// How it ended where it took longer than `limit`.
    pub fn timed_out(self, limit: Duration) -> Outcome {
        let reason = timed_out(self.towards(), limit);
        let pull = |reason| PullFailure { reason, local: None };
        match self {
            Self::Resolve => Outcome::Resolved(Err(pull(reason))),
            Self::Pull => Outcome::Pulled(Err(pull(reason))),
            Self::Create => Outcome::Created(Err(reason)),
            Self::Start | Self::Restart => Outcome::Started(Err(reason)),
            Self::Signal | Self::Kill => Outcome::Signalled(Err(reason)),
            Self::Release => Outcome::Released(Err(reason)),
            Self::Prepare => Outcome::TaskPrepared(Err(reason)),
            Self::Remove => Outcome::TaskRemoved(Err(reason)),
        }
    }

    /// The status that it leads to, for messages.
    fn towards(self) -> &'static str {
        match self {
            Self::Resolve => "manifest_pulled",
            Self::Pull => "pulled",
            Self::Create | Self::Prepare => "created",
            Self::Start | Self::Restart => "started",
            Self::Signal | Self::Kill => "stopped",
            Self::Release | Self::Remove => "removed",
        }
    }
}

impl Under {
    /// Begun now. The shell keeps the deadline; some seconds more are left for its answer.
    pub fn begin(id: EffectId, operation: Operation, limit: Duration, now: Now) -> Self {
        Self { id, operation, overdue_at: now.mono.plus(limit + Duration::from_secs(10)), limit }
    }

    /// The answer that stands for one that never came.
    pub fn fail(&self) -> (EffectId, Outcome) {
        (self.id, self.operation.timed_out(self.limit))
    }
}

/// The original's words for an effect that took too long.
fn timed_out(towards: &str, limit: Duration) -> StopReason {
    let limit = written(limit);
    StopReason::new(
        "DockerTimeoutError",
        format!("Could not transition to {towards}; timed out after waiting {limit}"),
    )
}

/// Whole seconds as the original writes them: `1h0m0s`, `3m0s`, `45s`.
fn written(time: Duration) -> String {
    let (hours, minutes, seconds) = (time.as_secs() / 3600, time.as_secs() / 60 % 60, time.as_secs() % 60);
    match (hours, minutes) {
        (0, 0) => format!("{seconds}s"),
        (0, _) => format!("{minutes}m{seconds}s"),
        _ => format!("{hours}h{minutes}m{seconds}s"),
    }
}

impl Run {
    pub fn next_deadline(&self) -> Option<Mono> {
        let under = self.under.as_ref().map(|under| under.overdue_at);
        // While something is under way its answer is what is waited for; but SIGKILL does not wait
        // for a stop signal that hangs.
        let escalates = matches!(self.operation(), None | Some(Operation::Signal));
        let stopping = self.stopping.next_deadline().filter(|_| escalates);
        let retry = self.retry_at.filter(|_| under.is_none());
        under.into_iter().chain(stopping).chain(retry).min()
    }

    /// The operation under way, where there is one.
    pub fn operation(&self) -> Option<Operation> {
        self.under.as_ref().map(|under| under.operation)
    }
}

impl Task {
    /// A container is known to run, and started at that time.
    pub(super) fn runs_since(&mut self, name: &str, started: Wall, now: Now) {
        if let Some(run) = self.runs.get_mut(name) {
            run.running_since.get_or_insert((now.mono, now.wall.since(started)));
        }
    }

    /// The process of a container has ended: so has the container, unless it is restarted.
    pub(super) fn container_exited(&mut self, name: &str, end: ContainerExit, now: Now) {
        if self.restarts_after(name, &end.exit, now) {
            return;
        }
        let Some(container) = self.progress.containers.get_mut(name) else { return };
        if container.known == ContainerStatus::Stopped {
            return;
        }
        let stopping = self.runs.get(name).map(|run| run.stopping).unwrap_or_default();
        let of_memory = end.oom_killed && stopping.explains_less_than_memory(end.exit.code);
        container.exit = Some(end.exit);
        let error =
            of_memory.then(|| StopReason::new("OutOfMemoryError", "Container killed due to memory usage"));
        self.container_stopped(name, error, now);
    }

    /// The container is to be stopped: its task is, or it alone will never start.
    pub(super) fn wants_stop(&self) -> bool {
        self.progress.desired == DesiredStatus::Stopped
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_written_as_the_original_writes_them() {
        for (seconds, text) in [(45, "45s"), (180, "3m0s"), (7200, "2h0m0s"), (3661, "1h1m1s")] {
            assert_eq!(written(Duration::from_secs(seconds)), text);
        }
    }
}
