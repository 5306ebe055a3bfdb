//! TCS: the websocket by which the agent tells of itself (spec/control-plane.md 4). So far it tells
//! that nothing runs, every 20 seconds, where nothing runs; while tasks run it keeps the connection
//! and says nothing, as the protocol allows where there are no data points.

use super::account::Account;
use super::acs::wire::message_type;
use super::api::EcsApi;
use super::backoff::{Backoff, jittered};
use super::sigv4;
use super::ws::{self, Ended, Socket, WsError};
use futures_util::{SinkExt, StreamExt};
use serde::Serialize;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

/// Whether any container is there to be measured.
pub type IsIdle = Arc<dyn Fn() -> bool + Send + Sync>;

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
    /// Asked at each publication.
    pub idle: IsIdle,
    /// Timers.
    pub timings: TcsTimings,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Metadata<'a> {
    cluster: &'a str,
    container_instance: &'a str,
    fin: bool,
    idle: bool,
    message_id: String,
}

#[derive(Serialize)]
struct PublishMetricsRequest<'a> {
    metadata: Metadata<'a>,
    timestamp: f64,
}

#[derive(Serialize)]
struct Envelope<'a, M> {
    r#type: &'a str,
    message: M,
}

/// Keeps a session with TCS. Dropping the future is the way to stop it.
pub async fn run(context: TcsContext) {
    let (least, most) = context.timings.backoff;
    let mut backoff = Backoff::new(least, most, 0.2, 2.0);
    let mut useless = 0;
    loop {
        let begun = tokio::time::Instant::now();
        let delay = match session(&context).await {
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

async fn session(context: &TcsContext) -> Ended {
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
            talk(context, &url, socket).await
        }
        Err(error) => Ended::Failed(error),
    }
}

async fn talk(context: &TcsContext, url: &url::Url, mut socket: Socket) -> Ended {
    let host = sigv4::host_header(url);
    let timings = &context.timings;
    let quiet = || jittered(timings.inactivity.0, timings.inactivity.1);
    let silence = tokio::time::sleep(quiet());
    let expiry = tokio::time::sleep(jittered(timings.age.0, timings.age.1));
    tokio::pin!(silence, expiry);
    // The first tick is now.
    let mut tick = tokio::time::interval(timings.publish);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
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
                    silence.as_mut().reset(tokio::time::Instant::now() + quiet());
                },
                Some(Ok(_)) => {}
                Some(Err(error)) => return ws::broke(host, error),
                None => return Ended::Clean,
            },
            _ = tick.tick(), if !closing => if (context.idle)() {
                let sent = publish_idle(context, url, &mut socket).await;
                if let Err(ended) = sent {
                    return ended;
                }
            },
            () = &mut expiry, if !closing => {
                closing = true;
                close(&mut socket).await;
                silence.as_mut().reset(tokio::time::Instant::now() + CLOSING);
            },
            () = &mut silence => {
                if closing {
                    return Ended::Clean;
                }
                closing = true;
                close(&mut socket).await;
                silence.as_mut().reset(tokio::time::Instant::now() + CLOSING);
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

async fn publish_idle(context: &TcsContext, url: &url::Url, socket: &mut Socket) -> Result<(), Ended> {
    let now = SystemTime::now();
    let host = || sigv4::host_header(url);
    let since = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let metadata = Metadata {
        cluster: &context.cluster,
        container_instance: &context.instance,
        fin: true,
        idle: true,
        message_id: uuid::Uuid::new_v4().to_string(),
    };
    let message = PublishMetricsRequest { metadata, timestamp: since.as_millis() as f64 / 1000.0 };
    // Strings and numbers always have a JSON form.
    let json =
        serde_json::to_string(&Envelope { r#type: "PublishMetricsRequest", message }).unwrap_or_default();
    let account = &context.account;
    let failed = |error| Ended::Failed(error);
    let credentials = account.credentials.get().await.map_err(|e| failed(WsError::Credentials(e)))?;
    let frame = sigv4::sign_frame(&credentials, &account.region, url, &json, account.clock.now())
        .map_err(|e| failed(e.into()))?;
    match tokio::time::timeout(ws::WRITE, socket.send(Message::text(frame))).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(ws::broke(host(), error)),
        Err(_) => Err(failed(WsError::Late { host: host(), limit: ws::WRITE })),
    }
}
