//! The state behind its lock, and the broadcast of what changed in it.

use crate::local::api::message::payload;
use crate::local::error::ApiError;
use crate::local::instance::MAX_OUTBOX;
use crate::local::roles::Held;
use crate::local::state::State;
use crate::local::task::Task;
use crate::local::telemetry::Telemetry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::{broadcast, watch};

/// Changes that a slow subscriber may lag behind before it misses some.
const CHANGES_KEPT: usize = 1024;

/// Something that subscribers may show.
#[derive(Debug, Clone)]
pub enum Change {
    /// A task is new, or something was reported of it.
    Task(Arc<Task>),
    /// A container instance's agent came or went.
    Instance {
        /// ARN of the instance.
        arn: String,
        /// Its agent is connected.
        is_connected: bool,
    },
}

/// What all connections share.
#[derive(Debug)]
pub struct Shared {
    state: Mutex<State>,
    telemetry: Mutex<Telemetry>,
    changes: broadcast::Sender<Change>,
    /// Time between heartbeats on ACS.
    pub heartbeat: Duration,
    /// What tasks with a role have; a change is passed on to them.
    pub credentials: watch::Sender<Option<Arc<Held>>>,
}

impl Shared {
    /// Around an empty state.
    pub fn new(state: State, heartbeat: Duration, credentials: Option<Arc<Held>>) -> Self {
        Self {
            state: Mutex::new(state),
            telemetry: Mutex::default(),
            changes: broadcast::channel(CHANGES_KEPT).0,
            heartbeat,
            credentials: watch::channel(credentials).0,
        }
    }

    /// The state. A panic elsewhere left it as it was: each change is one assignment or more that make
    /// sense alone.
    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What agents told of themselves last. Taken after the state's lock, never before it.
    pub fn telemetry(&self) -> MutexGuard<'_, Telemetry> {
        self.telemetry.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All changes from now on.
    pub fn subscribe(&self) -> broadcast::Receiver<Change> {
        self.changes.subscribe()
    }

    /// Tells subscribers; none is fine.
    pub fn announce(&self, change: Change) {
        let _ = self.changes.send(change);
    }

    /// Tells subscribers of a task as it is now.
    pub fn announce_task(&self, task: &Task) {
        self.announce(Change::Task(Arc::new(task.clone())));
    }

    /// Puts the task, as it is wanted now, on its way to its instance.
    ///
    /// # Errors
    /// `ServerException` where the agent has not acknowledged anything for too long.
    pub fn dispatch(&self, state: &mut State, at: usize) -> Result<(), ApiError> {
        let sequence = state.next_sequence();
        let Some(task) = state.tasks.get(at) else { return Ok(()) };
        let message = payload(state, task, sequence, self.credentials.borrow().as_deref());
        let arn = task.instance_arn.clone();
        let Some(instance) = state.instances.get_mut(&arn) else { return Ok(()) };
        if instance.outbox.len() >= MAX_OUTBOX {
            return Err(ApiError {
                kind: "ServerException",
                status: 500,
                message: format!(
                    "{MAX_OUTBOX} messages wait for {arn} to acknowledge them: is its agent running?"
                ),
            });
        }
        instance.outbox.insert(sequence, message);
        instance.wake.notify_one();
        Ok(())
    }
}

/// Resolves when the control plane stops, or every handle of it is gone. Cancel-safe.
pub async fn ended(stopped: &mut watch::Receiver<bool>) {
    let _ = stopped.wait_for(|stop| *stop).await;
}

/// Seconds since 1970 with a millisecond fraction, as all timestamps of the API.
pub fn now() -> f64 {
    now_ms() as f64 / 1000.0
}

/// Milliseconds since 1970.
pub fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
