//! What ACS tells the engine and the updater, and what a session remembers beyond its connection.

use super::wire;
use crate::model::{Attachment, CredentialsId, DesiredStatus, TaskArn, TaskSpec};
use std::collections::VecDeque;
use std::sync::Arc;
use tokio::sync::oneshot;

/// Which of a task's two roles.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RoleKind {
    /// The task role: for the containers.
    Application,
    /// The execution role: for the agent.
    Execution,
}

/// What ACS tells the engine. Events come in the order of the messages.
#[derive(Debug)]
pub enum AcsEvent {
    /// Tasks and the states that they shall have, stops first.
    Payload {
        /// Of the message, for the log.
        message_id: String,
        /// The tasks, and the form in which each is to be stored.
        tasks: Vec<(DesiredStatus, Arc<TaskSpec>, Arc<str>)>,
        /// Tasks that can't be run, and the reason to report with STOPPED.
        rejected: Vec<(TaskArn, String)>,
        /// Told `Ok` when all of it would survive a crash. Only then, and only where nothing was
        /// rejected, is the message acknowledged.
        respond: oneshot::Sender<Result<(), ()>>,
    },
    /// Fresh credentials of a task, already in the [`CredentialsStore`].
    Credentials {
        /// The task.
        task: TaskArn,
        /// Which role.
        role: RoleKind,
        /// Their id.
        id: CredentialsId,
        /// Told `Ok` where the task is known. Only then are they acknowledged.
        respond: oneshot::Sender<Result<(), ()>>,
    },
    /// The control plane listed all tasks of the instance.
    Manifest {
        /// To be stored as the newest (`task-manifest-seq-num`).
        timeline: i64,
        /// Told the tasks that are wanted running here, once the timeline is stored.
        respond: oneshot::Sender<Result<Vec<TaskArn>, ()>>,
    },
    /// Tasks that the control plane, asked again, wants stopped.
    StopTasks(Vec<TaskArn>),
    /// Network interfaces that the host will have.
    Attachments {
        /// All of one message.
        attachments: Vec<Attachment>,
        /// Told `Ok` when they would survive a crash. Only then is the message acknowledged.
        respond: oneshot::Sender<Result<(), ()>>,
    },
    /// The staged agent is to be started: save the state and end with exit code 42.
    Update,
    /// The control plane is well: time for a look at our own health.
    Heartbeat,
    /// The instance is not registered any more.
    Deregistered,
}

/// What outlives a connection.
#[derive(Debug)]
pub(super) struct Memory {
    /// ACS still has to send the credentials of all tasks.
    pub(super) send_credentials: bool,
    /// The newest payload or manifest.
    pub(super) sequence: i64,
    /// Manifest whose stop candidates are being verified.
    pub(super) manifest: Option<String>,
    /// Updates of the agent are taken.
    pub(super) updates: bool,
    /// Events that the engine had no room for yet.
    pub(super) backlog: VecDeque<AcsEvent>,
}

impl Memory {
    /// Before the first connection; `timeline` is that of the newest manifest that was seen,
    /// `updates` whether the agent may be updated.
    pub(super) fn new(timeline: i64, updates: bool) -> Self {
        Self { send_credentials: true, sequence: timeline, manifest: None, updates, backlog: VecDeque::new() }
    }
}

/// What is asked of the updater.
#[derive(Debug)]
pub(crate) enum UpdateAsk {
    /// Fetch a new agent.
    Stage(wire::StageUpdateMessage),
    /// End, so that it is started.
    Perform(wire::PerformUpdateMessage),
}
