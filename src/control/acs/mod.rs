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

mod attach;
pub mod connect;
mod event;
mod handle;
mod session;
pub mod wire;

pub(crate) use event::UpdateAsk;
pub use event::{AcsEvent, RoleKind};

use super::account::Account;
use super::api::EcsApi;
use super::backoff::{Backoff, jittered};
use super::roles::CredentialsStore;
use super::update::{self, UpdateOptions};
use super::ws::Ended;
use event::Memory;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

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
    /// Where updates of the agent go; `None` refuses them.
    pub updates: Option<UpdateOptions>,
    /// Timers.
    pub timings: AcsTimings,
}

/// A clean end counts as such only for a connection that was of some use: a service that accepts and
/// cuts, over and over, is not hammered.
const OF_USE: Duration = Duration::from_secs(1);

/// Asks and answers of the updater that may wait; beyond it the control plane asks again.
const UPDATES: usize = 16;

/// Keeps a session with ACS for as long as somebody takes the events; ends when nobody does.
/// Dropping the future is the way to stop it.
pub async fn run(context: AcsContext, events: mpsc::Sender<AcsEvent>) {
    let (asks, asked) = mpsc::channel(UPDATES);
    let (answer, answers) = mpsc::channel(UPDATES);
    let Some(options) = context.updates.clone() else {
        return connections(context, events, Updates { asks, answers }).await;
    };
    // One of both ends with the other; neither is cut short by the other going on.
    tokio::select! {
        () = connections(context, events, Updates { asks, answers }) => {},
        () = update::run(options, asked, answer) => {},
    }
}

/// The session's ends of the updater.
struct Updates {
    asks: mpsc::Sender<UpdateAsk>,
    answers: mpsc::Receiver<update::Answer>,
}

async fn connections(context: AcsContext, events: mpsc::Sender<AcsEvent>, mut updates: Updates) {
    let (least, most) = context.timings.backoff;
    let mut backoff = Backoff::new(least, most, 0.2, 1.5);
    let mut memory = Memory::new(context.timeline, context.updates.is_some());
    let mut useless = 0;
    while !events.is_closed() {
        let steady = jittered(context.timings.inactivity.0, context.timings.inactivity.1);
        let mut connected: Option<Instant> = None;
        let ended = session::run(&context, &events, &mut memory, &mut updates, &mut connected).await;
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
