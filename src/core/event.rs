//! What the state machine is told. An event says what was seen; the core decides what it means.

use crate::model::{
    ContainerAddress, ContainerKey, DesiredStatus, ExitRecord, Health, ImageDigest, ResolvedImage,
    StopReason, TaskArn, TaskProgress, TaskSpec, Wall,
};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Identifies one effect until its completion came back. Unique within one life of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct EffectId(pub u64);

/// Everything that can happen.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// The control plane wants a task in a state. For a task already known only the desired status
    /// counts, and only forward.
    TaskWanted {
        /// The task.
        spec: Arc<TaskSpec>,
        /// RUNNING or STOPPED.
        desired: DesiredStatus,
    },
    /// A task that can't be run at all: it is reported STOPPED with the reason and forgotten.
    TaskRejected {
        /// The task.
        arn: TaskArn,
        /// What was wrong with it.
        reason: String,
    },
    /// A task from the store, at start, before anything else; or one of which the store has lost
    /// something, found out again before the first [`Event::Reconciled`].
    TaskRestored {
        /// What was asked.
        spec: Arc<TaskSpec>,
        /// What had become of it.
        progress: TaskProgress,
    },
    /// All that the runtime really holds, asked after everything was restored and again whenever
    /// events may have been lost. A container that was created and is missing here is gone.
    Reconciled {
        /// By runtime identity.
        containers: BTreeMap<ContainerKey, Observed>,
        /// What [`crate::core::State::look`] gave before the runtime was asked: what was begun later may
        /// be missing here and still be there.
        as_of: EffectId,
    },
    /// A process ended.
    Exited {
        /// The container.
        container: ContainerKey,
        /// How.
        exit: ExitRecord,
        /// The kernel killed it for memory.
        oom_killed: bool,
    },
    /// The health checks of a running container say something else than before.
    HealthChanged {
        /// The container.
        container: ContainerKey,
        /// What they say now.
        health: Health,
    },
    /// An effect came to its end.
    Done {
        /// Which.
        id: EffectId,
        /// With what.
        outcome: Outcome,
    },
    /// Time passed: sent no later than [`crate::core::State::next_deadline`].
    Tick,
}

/// What the runtime holds of one container.
#[derive(Debug, Clone, PartialEq)]
pub enum Observed {
    /// A container record, perhaps with a process that was never started.
    Created,
    /// A process.
    Running,
    /// A process that has ended.
    Exited(ContainerExit),
    /// It is gone, and nobody saw how it ended: what is told instead.
    Gone {
        /// Code and time.
        exit: ExitRecord,
        /// Why nobody knows better.
        why: StopReason,
    },
    /// Something that does not answer: evidence of nothing.
    Unknown,
}

/// How a process ended, as the runtime saw it.
#[derive(Debug, Clone, PartialEq)]
pub struct ContainerExit {
    /// Code and time.
    pub exit: ExitRecord,
    /// The kernel killed it for memory.
    pub oom_killed: bool,
}

/// How an effect ended. Every [`crate::core::Effect`] that is answered is answered once.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// [`crate::core::Action::Resolve`]
    Resolved(Result<ResolvedImage, PullFailure>),
    /// [`crate::core::Action::Pull`]: the image's id.
    Pulled(Result<ImageDigest, PullFailure>),
    /// [`crate::core::Action::PrepareTask`]
    TaskPrepared(Result<(), StopReason>),
    /// [`crate::core::Action::Create`]
    Created(Result<CreatedContainer, StopReason>),
    /// [`crate::core::Action::Start`], [`crate::core::Action::Restart`]: when it started.
    Started(Result<Wall, StopReason>),
    /// [`crate::core::Action::Signal`], [`crate::core::Action::Kill`]: delivered, or there was
    /// nothing left to deliver it to.
    Signalled(Result<(), StopReason>),
    /// [`crate::core::Action::Release`]
    Released(Result<(), StopReason>),
    /// It was not begun: nothing of it has happened.
    NotBegun,
    /// [`crate::core::Action::RemoveTask`]
    TaskRemoved(Result<(), StopReason>),
    /// [`crate::core::Action::Report`]
    Reported(ReportOutcome),
}

/// A pull or a look-up that failed.
#[derive(Debug, Clone, PartialEq)]
pub struct PullFailure {
    /// What to report.
    pub reason: StopReason,
    /// The local image of that name, where there is one that may serve (pull behaviour `default`).
    pub local: Option<ImageDigest>,
}

/// What creating a container gave.
#[derive(Debug, Clone, PartialEq)]
pub struct CreatedContainer {
    /// When.
    pub at: Wall,
    /// Its address and ports.
    pub address: ContainerAddress,
}

/// What became of a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReportOutcome {
    /// The control plane has it.
    Accepted,
    /// The control plane will never take it; it is dropped.
    Refused,
}
