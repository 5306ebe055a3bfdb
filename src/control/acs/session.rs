//! One connection to ACS: reads frames, passes events on, writes acks when they are due, and watches
//! the clock (spec/control-plane.md 3.3).

use super::event::{AcsEvent, Memory};
use super::handle::{Acks, Handled, handle};
use super::{AcsContext, Updates, connect};
use crate::control::backoff::jittered;
use crate::control::update::Answer;
use crate::control::ws::{self, Ended, Socket, WsError};
use futures_util::stream::FuturesUnordered;
use futures_util::{SinkExt, StreamExt};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

/// Events that wait for the engine; beyond it no frame is read.
const MAX_BACKLOG: usize = 64;
/// Messages whose acks wait for the engine; beyond it no frame is read.
const MAX_PENDING: usize = 256;
/// How long the peer may take to answer a close frame.
const CLOSING: Duration = Duration::from_secs(10);

pub(super) async fn run(
    context: &AcsContext,
    events: &mpsc::Sender<AcsEvent>,
    memory: &mut Memory,
    updates: &mut Updates,
    connected: &mut Option<Instant>,
) -> Ended {
    let found = context.api.discover_poll_endpoint(&context.cluster, &context.instance).await;
    let endpoint = match found {
        Ok(endpoints) => endpoints.acs,
        Err(error) => return Ended::Failed(WsError::Discover(error)),
    };
    let opened = match connect::address(context, &endpoint, memory.send_credentials) {
        Ok(url) => {
            ws::connect(&context.account, &url).await.map(|s| (crate::control::sigv4::host_header(&url), s))
        }
        Err(error) => Err(error),
    };
    match opened {
        Ok((host, socket)) => {
            *connected = Some(Instant::now());
            memory.send_credentials = false;
            tracing::info!(%host, "Connected to ACS");
            let pending = FuturesUnordered::new();
            Session { context, events, memory, updates, socket, host, pending }.talk().await
        }
        Err(error) => Ended::Failed(error),
    }
}

struct Session<'a> {
    context: &'a AcsContext,
    events: &'a mpsc::Sender<AcsEvent>,
    memory: &'a mut Memory,
    updates: &'a mut Updates,
    socket: Socket,
    host: String,
    pending: FuturesUnordered<Acks>,
}

impl Session<'_> {
    async fn talk(mut self) -> Ended {
        let (quiet, quiet_jitter) = self.context.timings.inactivity;
        let (age, age_jitter) = self.context.timings.age;
        let mut limit = jittered(quiet, quiet_jitter);
        let silence = tokio::time::sleep(limit);
        let expiry = tokio::time::sleep(jittered(age, age_jitter));
        tokio::pin!(silence, expiry);
        let mut closing = false;
        loop {
            let may_read = self.memory.backlog.len() < MAX_BACKLOG && self.pending.len() < MAX_PENDING;
            // Every arm waits on state that stays where it is: the socket's, the channel's, the
            // set's and the timers'. Losing the race loses nothing.
            tokio::select! {
                frame = self.socket.next(), if may_read => match frame {
                    Some(Ok(frame)) => match self.read(frame).await {
                        Ok(true) => {
                            limit = jittered(quiet, quiet_jitter);
                            if !closing {
                                silence.as_mut().reset(tokio::time::Instant::now() + limit);
                            }
                        }
                        Ok(false) => {}
                        Err(ended) => return ended,
                    },
                    Some(Err(error)) => return ws::broke(self.host, error),
                    None => return Ended::Clean,
                },
                permit = self.events.reserve(), if !self.memory.backlog.is_empty() => match permit {
                    Ok(permit) => if let Some(event) = self.memory.backlog.pop_front() {
                        permit.send(event);
                    },
                    Err(_) => return Ended::Clean,
                },
                Some(frames) = self.pending.next(), if !self.pending.is_empty() => {
                    for frame in frames.into_iter().filter(|_| !closing) {
                        if let Err(ended) = self.send(frame).await {
                            return ended;
                        }
                    }
                },
                Some(answer) = self.updates.answers.recv(), if !closing => {
                    let (Answer::Frame(frame) | Answer::Perform(frame)) = &answer;
                    if let Err(ended) = self.send(frame.clone()).await {
                        return ended;
                    }
                    // Only now: the agent ends by it.
                    if matches!(answer, Answer::Perform(_)) {
                        self.memory.backlog.push_back(AcsEvent::Update);
                    }
                },
                () = &mut expiry, if !closing => {
                    closing = true;
                    if let Err(ended) = self.close().await {
                        return ended;
                    }
                    silence.as_mut().reset(tokio::time::Instant::now() + CLOSING);
                },
                () = &mut silence => {
                    return if closing { Ended::Clean } else {
                        Ended::Failed(WsError::Silent { host: self.host, limit })
                    };
                },
                () = self.events.closed() => return Ended::Clean,
            }
        }
    }

    /// Answers whether the frame counts as a sign of life.
    async fn read(&mut self, frame: Message) -> Result<bool, Ended> {
        let text = match frame {
            Message::Text(text) => text.to_string(),
            Message::Binary(bytes) => match String::from_utf8(bytes.to_vec()) {
                Ok(text) => text,
                Err(_) => {
                    tracing::warn!(bytes = bytes.len(), "Dropping an ACS frame that is no text");
                    return Ok(false);
                }
            },
            Message::Close(frame) => {
                let ended = ws::closed(self.host.clone(), frame.as_ref());
                // The answer to it was queued by the socket; written where the peer still listens.
                drop(tokio::time::timeout(CLOSING, self.socket.flush()).await);
                return Err(ended);
            }
            // Pings are answered by the socket itself.
            _ => return Ok(false),
        };
        let message = match super::wire::ServerMessage::decode(&text) {
            Ok(message) => message,
            Err(error) => {
                tracing::warn!(%error, "Dropping an ACS frame");
                return Ok(false);
            }
        };
        drop(text);
        let Handled { now, events, later, update } = handle(&self.context.roles, self.memory, message);
        self.memory.backlog.extend(events);
        self.pending.extend(later);
        if update.is_some_and(|ask| self.updates.asks.try_send(ask).is_err()) {
            tracing::warn!("Dropping an agent update: too many were asked for at once");
        }
        for frame in now {
            self.send(frame).await?;
        }
        Ok(true)
    }

    async fn send(&mut self, frame: String) -> Result<(), Ended> {
        self.write(Message::text(frame)).await
    }

    async fn close(&mut self) -> Result<(), Ended> {
        let reason = "ConnectionExpired: Reconnect to continue".into();
        self.write(Message::Close(Some(CloseFrame { code: CloseCode::Normal, reason }))).await
    }

    async fn write(&mut self, message: Message) -> Result<(), Ended> {
        match tokio::time::timeout(ws::WRITE, self.socket.send(message)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(ws::broke(self.host.clone(), error)),
            Err(_) => Err(Ended::Failed(WsError::Late { host: self.host.clone(), limit: ws::WRITE })),
        }
    }
}
