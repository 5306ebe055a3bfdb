//! TCS: the websocket by which the agent tells of itself (spec/control-plane.md 4).
//!
//! ```text
//!  run ── connect ── session ── every 20 s: metrics, health, instance status ──> TCS
//!   ^        │          │  ^
//!   └back-off┘          │  └── acks, heartbeats: signs of life
//!                       └── Telemetry: what there is to tell, and what was told
//! ```
//! Keeps the connection alive and the cadence, signs and cuts messages. It never measures anything:
//! `app` brings a [`Telemetry`] along. The cadence outlives a connection; what could not be written is
//! told as soon as there is another.

mod chunk;
mod publish;
mod wire;

use super::account::Account;
use super::acs::wire::message_type;
use super::api::EcsApi;
use super::backoff::{Backoff, jittered};
use super::sigv4;
use super::ws::{self, Ended, Socket, WsError};
use crate::model::{InstanceCheck, Metrics, TaskHealth, TaskMetrics};
use futures_util::{SinkExt, StreamExt};
use publish::Publisher;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

/// What there is to tell. Asked at each publication; must answer at once.
pub trait Telemetry: Send + Sync {
    /// Metrics that were not confirmed yet.
    fn metrics(&self) -> Metrics;
    /// These tasks' metrics were written.
    fn confirm(&self, told: &[TaskMetrics]);
    /// Health of containers with a health check; none is not told.
    fn health(&self) -> Vec<TaskHealth>;
    /// Checks of the instance. They are told once for each of their runs.
    fn checks(&self) -> Vec<InstanceCheck>;
}

/// How long the peer may take to answer a close frame.
const CLOSING: Duration = Duration::from_secs(10);

/// How long things take; shortened by tests.
#[derive(Debug, Clone)]
pub struct TcsTimings {
    /// Between two publications.
    pub publish: Duration,
    /// Silence after which the connection is closed, and how much is added at random.
    pub inactivity: (Duration, Duration),
    /// Age at which a connection is closed, and how much is added at random.
    pub age: (Duration, Duration),
    /// The first and the greatest delay after a failure.
    pub backoff: (Duration, Duration),
}

impl Default for TcsTimings {
    fn default() -> Self {
        let (second, minute) = (Duration::from_secs(1), Duration::from_secs(60));
        Self {
            publish: second * 20,
            inactivity: (minute, minute),
            age: (minute * 30, minute * 5),
            backoff: (second, minute),
        }
    }
}

/// All that a session needs.
#[derive(Clone)]
pub struct TcsContext {
    /// Finds the address.
    pub api: EcsApi,
    /// Region, credentials, TLS.
    pub account: Account,
    /// As registered.
    pub cluster: String,
    /// ARN of the instance.
    pub instance: String,
    /// What there is to tell.
    pub telemetry: Arc<dyn Telemetry>,
    /// Notified where the connection shall be dropped: the instance was deregistered.
    pub drop_connection: Arc<Notify>,
    /// Timers.
    pub timings: TcsTimings,
}

/// What outlives a connection.
struct Pace {
    /// When metrics and health are told next.
    next: Instant,
    /// Runs of the instance's checks that were told; `None` before the first.
    checks_told: Option<u64>,
    /// The first publication has no status of the instance: its checks have hardly begun.
    is_first: bool,
}

/// Keeps a session with TCS. Dropping the future is the way to stop it.
pub async fn run(context: TcsContext) {
    let (least, most) = context.timings.backoff;
    let mut backoff = Backoff::new(least, most, 0.2, 2.0);
    let mut useless = 0;
    let mut pace = Pace { next: Instant::now(), checks_told: None, is_first: true };
    loop {
        let begun = Instant::now();
        let delay = match session(&context, &mut pace).await {
            Ended::Clean => {
                // A service that accepts and cuts, over and over, is not hammered.
                useless = if begun.elapsed() < Duration::from_secs(1) { useless + 1 } else { 0 };
                if useless > 1 {
                    backoff.next_delay()
                } else {
                    backoff.reset();
                    Duration::ZERO
                }
            }
            Ended::Failed(error) => {
                let delay = backoff.next_delay();
                tracing::warn!(error = %super::chain(&error), ?delay, "The TCS connection failed");
                delay
            }
        };
        tokio::time::sleep(delay).await;
    }
}

async fn session(context: &TcsContext, pace: &mut Pace) -> Ended {
    let endpoint = match context.api.discover_poll_endpoint(&context.cluster, &context.instance).await {
        Ok(endpoints) => endpoints.telemetry,
        Err(error) => return Ended::Failed(WsError::Discover(error)),
    };
    let identity = &context.account.identity;
    // dockerVersion is for Docker only, and has other names than in ACS.
    let query = [
        ("agentHash", identity.hash.as_str()),
        ("agentVersion", identity.version.as_str()),
        ("cluster", context.cluster.as_str()),
        ("containerInstance", context.instance.as_str()),
    ];
    let url = match ws::address(&endpoint, &query) {
        Ok(url) => url,
        Err(error) => return Ended::Failed(error),
    };
    match ws::connect(&context.account, &url).await {
        Ok(socket) => {
            tracing::info!(host = %sigv4::host_header(&url), "Connected to TCS");
            talk(context, pace, &url, socket).await
        }
        Err(error) => Ended::Failed(error),
    }
}

async fn talk(context: &TcsContext, pace: &mut Pace, url: &url::Url, mut socket: Socket) -> Ended {
    let host = sigv4::host_header(url);
    let timings = &context.timings;
    let quiet = || jittered(timings.inactivity.0, timings.inactivity.1);
    let silence = tokio::time::sleep(quiet());
    let expiry = tokio::time::sleep(jittered(timings.age.0, timings.age.1));
    tokio::pin!(silence, expiry);
    let publisher = Publisher { context, url };
    let mut closing = false;
    loop {
        // The socket and the timers keep their state: losing the race loses nothing.
        tokio::select! {
            frame = socket.next() => match frame {
                Some(Ok(Message::Close(frame))) => {
                    drop(tokio::time::timeout(CLOSING, socket.flush()).await);
                    return ws::closed(host, frame.as_ref());
                }
                Some(Ok(Message::Text(text))) => if is_sign_of_life(&text) && !closing {
                    silence.as_mut().reset(Instant::now() + quiet());
                },
                Some(Ok(_)) => {}
                Some(Err(error)) => return ws::broke(host, error),
                None => return Ended::Clean,
            },
            () = tokio::time::sleep_until(pace.next), if !closing => {
                if let Err(ended) = publish(&publisher, pace, &mut socket).await {
                    return ended;
                }
                // A publication that was long overdue is followed by no other at once.
                let (due, now) = (pace.next + timings.publish, Instant::now());
                pace.next = if due > now { due } else { now + timings.publish };
            },
            () = context.drop_connection.notified() => return Ended::Clean,
            () = &mut expiry, if !closing => {
                closing = true;
                close(&mut socket).await;
                silence.as_mut().reset(Instant::now() + CLOSING);
            },
            () = &mut silence => {
                if closing {
                    return Ended::Clean;
                }
                closing = true;
                close(&mut socket).await;
                silence.as_mut().reset(Instant::now() + CLOSING);
            },
        }
    }
}

async fn close(socket: &mut Socket) {
    let reason = "ConnectionExpired: Reconnect to continue".into();
    let frame = Message::Close(Some(CloseFrame { code: CloseCode::Normal, reason }));
    // A peer that does not take it is left when the time for its answer is over.
    drop(tokio::time::timeout(CLOSING, socket.send(frame)).await);
}

/// Acks and heartbeats are; the rest is for the log.
fn is_sign_of_life(text: &str) -> bool {
    match message_type(text) {
        Ok(kind) => match kind.as_str() {
            "HeartbeatMessage" | "AckPublishMetric" | "AckPublishHealth" | "AckPublishInstanceStatus" => true,
            _ => {
                let text: String = text.chars().take(512).collect();
                tracing::warn!(%text, "TCS sent a notice");
                false
            }
        },
        Err(error) => {
            tracing::warn!(%error, "Dropping a TCS frame");
            false
        }
    }
}

async fn publish(publisher: &Publisher<'_>, pace: &mut Pace, socket: &mut Socket) -> Result<(), Ended> {
    publisher.metrics(socket).await?;
    publisher.health(socket).await?;
    if std::mem::take(&mut pace.is_first) {
        return Ok(());
    }
    let checks = publisher.context.telemetry.checks();
    let runs = checks.iter().map(|check| check.runs).max();
    if runs.is_some() && runs != pace.checks_told {
        publisher.instance_status(socket, &checks).await?;
        pace.checks_told = runs;
    }
    Ok(())
}
