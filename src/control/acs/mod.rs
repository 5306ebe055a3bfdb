//! ACS: the websocket by which the control plane tells the agent what to run
//! (spec/control-plane.md 3).
//!
//! ```text
//!  run ── connect ── session ──frames──> AcsEvent ──> engine
//!   ^        │          ^                               │
//!   └─back-off┘          └──── acks, after `respond` ────┘
//! ```
//! It decodes, validates, keeps the connection alive and acknowledges what the engine has made
//! durable. It never decides over tasks and never stores anything but role credentials, in memory.

pub mod connect;
mod handle;
mod session;
pub mod wire;

use super::account::Account;
use super::api::EcsApi;
use super::backoff::{Backoff, jittered};
use super::roles::CredentialsStore;
use super::ws::Ended;
use crate::model::{CredentialsId, DesiredStatus, TaskArn, TaskSpec};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot};

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
    /// The control plane is well: time for a look at our own health.
    Heartbeat,
    /// The instance is not registered any more.
    Deregistered,
}

/// How long things take; shortened by tests.
#[derive(Debug, Clone)]
pub struct AcsTimings {
    /// Silence after which the connection is given up, and how much is added at random.
    pub inactivity: (Duration, Duration),
    /// Age at which a connection is closed, and how much is added at random.
    pub age: (Duration, Duration),
    /// The first and the greatest delay after a failure.
    pub backoff: (Duration, Duration),
    /// The wait after `InactiveInstanceException`.
    pub inactive: Duration,
}

impl Default for AcsTimings {
    fn default() -> Self {
        let minute = Duration::from_secs(60);
        Self {
            inactivity: (minute, minute),
            age: (minute * 30, minute * 5),
            backoff: (Duration::from_millis(250), minute * 2),
            inactive: minute * 60,
        }
    }
}

/// All that a session needs.
#[derive(Debug, Clone)]
pub struct AcsContext {
    /// Finds the address.
    pub api: EcsApi,
    /// Region, credentials, TLS.
    pub account: Account,
    /// As registered: `ECS_CLUSTER` or `default`.
    pub cluster: String,
    /// ARN of the instance.
    pub instance: String,
    /// Where role credentials go.
    pub roles: CredentialsStore,
    /// The newest manifest that was seen, from the store; -1 for none.
    pub timeline: i64,
    /// Timers.
    pub timings: AcsTimings,
}

/// A clean end counts as such only for a connection that was of some use: a service that accepts and
/// cuts, over and over, is not hammered.
const OF_USE: Duration = Duration::from_secs(1);

/// What outlives a connection.
#[derive(Debug)]
struct Memory {
    /// ACS still has to send the credentials of all tasks.
    send_credentials: bool,
    /// The newest payload or manifest.
    sequence: i64,
    /// Manifest whose stop candidates are being verified.
    manifest: Option<String>,
    /// Events that the engine had no room for yet.
    backlog: VecDeque<AcsEvent>,
}

/// Keeps a session with ACS for as long as somebody takes the events; ends when nobody does.
/// Dropping the future is the way to stop it.
pub async fn run(context: AcsContext, events: mpsc::Sender<AcsEvent>) {
    let (least, most) = context.timings.backoff;
    let mut backoff = Backoff::new(least, most, 0.2, 1.5);
    let mut memory = Memory {
        send_credentials: true,
        sequence: context.timeline,
        manifest: None,
        backlog: VecDeque::new(),
    };
    let mut useless = 0;
    while !events.is_closed() {
        let steady = jittered(context.timings.inactivity.0, context.timings.inactivity.1);
        let mut connected: Option<Instant> = None;
        let ended = session::run(&context, &events, &mut memory, &mut connected).await;
        let lasted = connected.map(|at| at.elapsed()).unwrap_or_default();
        if lasted >= steady {
            backoff.reset();
        }
        let delay = match ended {
            Ended::Clean => {
                useless = if lasted < OF_USE { useless + 1 } else { 0 };
                tracing::info!(?lasted, "The ACS connection was closed; connecting again");
                if useless > 1 {
                    backoff.next_delay()
                } else {
                    backoff.reset();
                    Duration::ZERO
                }
            }
            Ended::Failed(error) if error.is_inactive_instance() => {
                let wait = context.timings.inactive;
                tracing::error!(%error, ?wait, "The instance is not registered any more");
                if events.send(AcsEvent::Deregistered).await.is_err() {
                    return;
                }
                wait
            }
            Ended::Failed(error) => {
                let delay = backoff.next_delay();
                tracing::warn!(error = %crate::control::chain(&error), ?delay, "The ACS connection failed");
                delay
            }
        };
        tokio::time::sleep(delay).await;
    }
}
