//! How a container is stopped: its stop signal, SIGKILL when its time is over, SIGKILL again, and at
//! last giving it up, so that a process which can't be killed never holds back its task's report
//! for ever (spec/task-engine.md 1.6).
//!
//! ```text
//!   NotYet ─signal─> Asked ─stop timeout─> Killing ─every 10 s, 12 times─> given up
//! ```

use crate::core::container::Operation;
use crate::core::task::Task;
use crate::core::{Action, Rules};
use crate::model::{ContainerKey, ContainerStatus, Mono, Now, StopReason};
use std::time::Duration;

/// Time between two SIGKILLs.
const KILL_AGAIN: Duration = Duration::from_secs(10);
/// SIGKILLs before a container is given up: two minutes, the original's limit for its stop call.
const KILLS: u32 = 12;

/// Exit code of a process that SIGKILL ended.
const KILLED: i32 = 137;

/// How far the stop of a container has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Stopping {
    #[default]
    NotYet,
    /// Got its stop signal; SIGKILL follows at that time.
    Asked { kill_at: Mono },
    /// Got that many SIGKILLs; the next follows at that time.
    Killing { kills: u32, again_at: Mono },
}

impl Stopping {
    pub fn next_deadline(self) -> Option<Mono> {
        match self {
            Self::NotYet => None,
            Self::Asked { kill_at } => Some(kill_at),
            Self::Killing { again_at, .. } => Some(again_at),
        }
    }

    /// Whether a kill for memory is still the reason of an exit with this code: one process may have been
    /// killed long ago, and the container have gone on and ended because it was asked to. Before
    /// our own SIGKILL nobody but the kernel kills a container.
    pub fn explains_less_than_memory(self, code: Option<i32>) -> bool {
        match self {
            Self::NotYet => true,
            Self::Asked { .. } => code == Some(KILLED),
            Self::Killing { .. } => false,
        }
    }
}

impl Task {
    /// What stops a running container next, where anything is due. Gives it up where all failed.
    pub(super) fn stop_running(
        &mut self,
        key: &ContainerKey,
        rules: &Rules,
        now: Now,
    ) -> Option<(Operation, Action)> {
        if !self.dependents_stopped(&key.name) {
            return None;
        }
        let spec = self.spec.container(&key.name)?;
        let timeout = spec.stop_timeout.filter(|t| !t.is_zero()).unwrap_or(rules.stop_timeout);
        let arn = self.spec.arn.clone();
        let run = self.runs.get_mut(&key.name)?;
        let kill = |arn| Some((Operation::Kill, Action::Kill { container: key.clone(), arn }));
        match run.stopping {
            Stopping::NotYet => {
                run.stopping = Stopping::Asked { kill_at: now.mono.plus(timeout) };
                Some((Operation::Signal, Action::Signal { container: key.clone(), arn }))
            }
            Stopping::Asked { kill_at } if kill_at <= now.mono => {
                run.stopping = Stopping::Killing { kills: 1, again_at: now.mono.plus(KILL_AGAIN) };
                kill(arn)
            }
            Stopping::Killing { kills, again_at } if again_at <= now.mono => {
                if kills >= KILLS {
                    self.abandon(&key.name, now);
                    return None;
                }
                run.stopping = Stopping::Killing { kills: kills + 1, again_at: now.mono.plus(KILL_AGAIN) };
                kill(arn)
            }
            Stopping::Asked { .. } | Stopping::Killing { .. } => None,
        }
    }

    /// The container will not end. The control plane is told that it stopped, and why that may not
    /// be the whole truth; releasing it is tried all the same.
    fn abandon(&mut self, name: &str, now: Now) {
        let reason = StopReason::new(
            "CannotStopContainerError",
            format!("no exit was seen after the stop signal and {KILLS} SIGKILLs; given up"),
        );
        self.container_stopped(name, Some(reason), now);
    }

    /// A container that is to stop and has no process: nothing is called, it has stopped.
    pub(super) fn stop_unstarted(&mut self, name: &str, now: Now) {
        let known = self.progress.containers.get(name).map(|c| c.known);
        debug_assert!(known.is_some_and(|known| known < ContainerStatus::Running) || self.restart_due(name));
        self.container_stopped(name, None, now);
    }
}
