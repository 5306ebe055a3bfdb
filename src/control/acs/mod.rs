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

/// How long to wait for the next connection.
struct Pauses {
    backoff: Backoff,
    /// Clean ends of connections of no use, one after the other.
    useless: u32,
}

impl Pauses {
    fn new((least, most): (Duration, Duration)) -> Self {
        Self { backoff: Backoff::new(least, most, 0.2, 1.5), useless: 0 }
    }

    fn after_clean_end(&mut self, lasted: Duration) -> Duration {
        self.useless = if lasted < OF_USE { self.useless + 1 } else { 0 };
        if self.useless > 1 {
            return self.backoff.next_delay();
        }
        self.backoff.reset();
        Duration::ZERO
    }

    /// A connection that was steady shows that what failed before is over.
    fn after_failure(&mut self, was_steady: bool) -> Duration {
        if was_steady {
            self.backoff.reset();
        }
        self.backoff.next_delay()
    }
}

async fn connections(context: AcsContext, events: mpsc::Sender<AcsEvent>, mut updates: Updates) {
    let mut pauses = Pauses::new(context.timings.backoff);
    let mut memory = Memory::new(context.timeline, context.updates.is_some());
    while !events.is_closed() {
        let steady = jittered(context.timings.inactivity.0, context.timings.inactivity.1);
        let mut connected: Option<Instant> = None;
        let ended = session::run(&context, &events, &mut memory, &mut updates, &mut connected).await;
        let lasted = connected.map(|at| at.elapsed()).unwrap_or_default();
        let delay = match ended {
            Ended::Clean => {
                tracing::info!(?lasted, "The ACS connection was closed; connecting again");
                pauses.after_clean_end(lasted)
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
                let delay = pauses.after_failure(lasted >= steady);
                tracing::warn!(error = %crate::control::chain(&error), ?delay, "The ACS connection failed");
                delay
            }
        };
        tokio::time::sleep(delay).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn failures_wait_longer_each_time_until_a_connection_was_steady() {
        let mut pauses = Pauses::new((SECOND, SECOND * 100));
        let delays: Vec<Duration> = (0..5).map(|_| pauses.after_failure(false)).collect();
        assert!(delays[4] > SECOND * 5, "{delays:?}");
        assert!(pauses.after_failure(true) < SECOND * 2, "begun anew");
        assert!(pauses.after_failure(false) >= SECOND.mul_f64(1.5), "and longer again");
    }

    #[test]
    fn a_clean_end_begins_anew_but_for_connections_of_no_use() {
        let mut pauses = Pauses::new((SECOND, SECOND * 100));
        assert!((0..5).map(|_| pauses.after_failure(false)).is_sorted());
        assert_eq!(pauses.after_clean_end(SECOND * 60), Duration::ZERO);
        assert!(pauses.after_failure(false) < SECOND * 2);
        assert_eq!(pauses.after_clean_end(Duration::ZERO), Duration::ZERO, "once is nothing");
        assert!(pauses.after_clean_end(Duration::ZERO) >= SECOND, "twice is a habit");
        assert_eq!(pauses.after_clean_end(OF_USE), Duration::ZERO);
    }
}
