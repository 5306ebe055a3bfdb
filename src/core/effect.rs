//! What the state machine wants done. The shell executes effects, each within the limits of its
//! class, and answers with [`crate::core::Event::Done`] under the effect's id.

use crate::core::container::Operation;
use crate::core::event::{EffectId, Outcome, PullFailure};
use crate::model::{ContainerKey, ImageDigest, StopReason, TaskArn, TaskId, TaskSpec, TaskStateChange};
use std::sync::Arc;
use std::time::Duration;

/// One thing to do. `Arc<TaskSpec>` is shared with the state: an effect carries all it needs.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Write the task's progress (and its spec where it is new) before any other effect of this
    /// step is begun. Not answered.
    Persist(TaskId),
    /// Forget the task in the store. Not answered.
    Forget(TaskId),
    /// Everything below: begun after the step was persisted, answered by id.
    Run {
        /// Answered under this id.
        id: EffectId,
        /// The longest it may take; then the shell answers with a failure of its own.
        deadline: Duration,
        /// What to do.
        action: Action,
    },
}

/// An effect that is answered.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Find the digest of a container's image.
    Resolve {
        /// The task.
        spec: Arc<TaskSpec>,
        /// Which container.
        container: ContainerKey,
    },
    /// Fetch and unpack a container's image.
    Pull {
        /// The task.
        spec: Arc<TaskSpec>,
        /// Which container.
        container: ContainerKey,
        /// Resolved digest; `None` takes whatever the name means.
        digest: Option<ImageDigest>,
    },
    /// Make what all containers of the task share: cgroup, directories.
    PrepareTask {
        /// The task.
        spec: Arc<TaskSpec>,
    },
    /// Make the container, its network and its process, not yet started. Safe to repeat.
    Create {
        /// The task.
        spec: Arc<TaskSpec>,
        /// Which container.
        container: ContainerKey,
    },
    /// Start the process, and from then on watch for its end.
    Start {
        /// Which container.
        container: ContainerKey,
        /// Its task.
        arn: TaskArn,
    },
    /// The process has ended: give it back, and start another of the same container, in its network,
    /// on its files. From then on watch for its end. Safe to repeat: one that runs is left alone.
    Restart {
        /// Which container.
        container: ContainerKey,
        /// Its task.
        arn: TaskArn,
    },
    /// Send the container's stop signal.
    Signal {
        /// Which container.
        container: ContainerKey,
        /// Its task.
        arn: TaskArn,
    },
    /// Send SIGKILL to all of the container's processes.
    Kill {
        /// Which container.
        container: ContainerKey,
        /// Its task.
        arn: TaskArn,
    },
    /// The process has ended: give back its shim, network and ports, but keep its record and
    /// files until the task is cleaned up. Safe to repeat.
    Release {
        /// Which container.
        container: ContainerKey,
        /// Its task.
        spec: Arc<TaskSpec>,
    },
    /// Remove all that is left of a stopped task: records, snapshots, volumes, cgroup,
    /// directories. Safe to repeat.
    RemoveTask {
        /// The task.
        spec: Arc<TaskSpec>,
    },
    /// Tell the control plane. Retried inside for as long as it takes; reports of one task are
    /// issued one at a time.
    Report(TaskStateChange),
}

/// Makes the kinds of actions and the list of them all from one list.
macro_rules! kinds {
    ($($kind:ident: $name:literal),* $(,)?) => {
        /// Which action it is, without what it is about.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum ActionKind {
            $(#[doc = concat!("[`Action::", stringify!($kind), "`]")] $kind,)*
        }

        impl ActionKind {
            /// Every kind.
            pub const ALL: &'static [Self] = &[$(Self::$kind),*];

            /// Its name, in lower case.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$kind => $name,)*
                }
            }
        }
    };
}

kinds! {
    Resolve: "resolve",
    Pull: "pull",
    PrepareTask: "prepare",
    Create: "create",
    Start: "start",
    Restart: "restart",
    Signal: "signal",
    Kill: "kill",
    Release: "release",
    RemoveTask: "remove",
    Report: "report",
}

/// Effects of one class share a limit on how many run at once, so that a stop always gets through
/// however many pulls hang.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EffectClass {
    /// Asking a registry for a digest.
    Resolve,
    /// Fetching and unpacking.
    Pull,
    /// Making and starting.
    Launch,
    /// Stopping.
    Stop,
    /// Cleaning up.
    Cleanup,
    /// Telling the control plane.
    Report,
}

impl Action {
    /// How it ended where it took longer than `limit`; `None` for reports, which never do.
    pub fn timed_out(&self, limit: Duration) -> Option<Outcome> {
        let operation = match self {
            Self::Resolve { .. } => Operation::Resolve,
            Self::Pull { .. } => Operation::Pull,
            Self::PrepareTask { .. } => Operation::Prepare,
            Self::Create { .. } => Operation::Create,
            Self::Start { .. } => Operation::Start,
            Self::Restart { .. } => Operation::Restart,
            Self::Signal { .. } => Operation::Signal,
            Self::Kill { .. } => Operation::Kill,
            Self::Release { .. } => Operation::Release,
            Self::RemoveTask { .. } => Operation::Remove,
            Self::Report(_) => return None,
        };
        Some(operation.timed_out(limit))
    }

    /// How it ends where its task is to stop: a look-up or a pull is given up then. `None` for all that
    /// has to come to its own end.
    pub fn given_up(&self) -> Option<Outcome> {
        let reason =
            || StopReason::new("TaskStoppedBeforePullBeginError", "Task stopped before task pull begins");
        let failure = || PullFailure { reason: reason(), local: None };
        match self {
            Self::Resolve { .. } => Some(Outcome::Resolved(Err(failure()))),
            Self::Pull { .. } => Some(Outcome::Pulled(Err(failure()))),
            _ => None,
        }
    }

    /// Which one it is.
    pub fn kind(&self) -> ActionKind {
        match self {
            Self::Resolve { .. } => ActionKind::Resolve,
            Self::Pull { .. } => ActionKind::Pull,
            Self::PrepareTask { .. } => ActionKind::PrepareTask,
            Self::Create { .. } => ActionKind::Create,
            Self::Start { .. } => ActionKind::Start,
            Self::Restart { .. } => ActionKind::Restart,
            Self::Signal { .. } => ActionKind::Signal,
            Self::Kill { .. } => ActionKind::Kill,
            Self::Release { .. } => ActionKind::Release,
            Self::RemoveTask { .. } => ActionKind::RemoveTask,
            Self::Report(_) => ActionKind::Report,
        }
    }

    /// The class that limits it.
    pub fn class(&self) -> EffectClass {
        match self {
            Self::Resolve { .. } => EffectClass::Resolve,
            Self::Pull { .. } => EffectClass::Pull,
            Self::PrepareTask { .. } | Self::Create { .. } | Self::Start { .. } | Self::Restart { .. } => {
                EffectClass::Launch
            }
            Self::Signal { .. } | Self::Kill { .. } | Self::Release { .. } => EffectClass::Stop,
            Self::RemoveTask { .. } => EffectClass::Cleanup,
            Self::Report(_) => EffectClass::Report,
        }
    }
}
