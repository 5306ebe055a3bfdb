//! The server side of ACS for one agent (spec/control-plane.md 3): heartbeats, payloads until they are
//! acknowledged (again on each new connection), renewed credentials, and a manifest after each connect, by
//! which tasks end that nobody wants any more.
//!
//! One connection counts for an instance: a newer one replaces it, as after a half-dead network.

use super::{SEND_TIMEOUT, Socket};
use crate::control::acs::wire::{
    AgentMessage, HeartbeatMessage, IamRoleCredentialsMessage, TaskIdentifier, TaskManifestMessage,
    TaskStopVerificationAck, TaskStopVerificationMessage, encode,
};
use crate::local::shared::{Change, Shared, ended, now_ms};
use futures_util::{SinkExt, StreamExt};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::{Notify, watch};
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_tungstenite::tungstenite::Message;
use uuid::Uuid;

/// Heartbeats that may stay unanswered before the connection is given up (protocol version 2).
const MISSED_HEARTBEATS: u32 = 2;
static CONNECTIONS: AtomicU64 = AtomicU64::new(1);

/// Why a session ends; for the log.
type End = &'static str;

struct AcsSession<'a> {
    socket: Socket,
    shared: &'a Shared,
    instance_arn: &'a str,
    connection: u64,
    sent: BTreeSet<i64>,
    heartbeats_out: u32,
    manifest: Option<String>,
    /// Messages with credentials that are not acknowledged yet, and the task of each.
    credentials_out: BTreeMap<String, String>,
}

/// Speaks ACS until the agent goes, is replaced, or the control plane stops.
pub async fn run(
    socket: Socket,
    shared: &Shared,
    instance_arn: &str,
    query: &BTreeMap<String, String>,
    mut stopped: watch::Receiver<bool>,
) {
    let connection = CONNECTIONS.fetch_add(1, Ordering::Relaxed);
    let Some(wake) = attach(shared, instance_arn, connection, query) else { return };
    let detach = Detach { shared, instance_arn, connection };
    let expects_heartbeat_acks = query.get("protocolVersion").is_some_and(|version| version == "2");
    let mut session = AcsSession {
        socket,
        shared,
        instance_arn,
        connection,
        sent: BTreeSet::new(),
        heartbeats_out: 0,
        manifest: None,
        credentials_out: BTreeMap::new(),
    };
    let end = session.speak(&wake, expects_heartbeat_acks, &mut stopped).await;
    tracing::info!(instance = instance_arn, end, "agent disconnected");
    let _ = timeout(SEND_TIMEOUT, session.socket.close(None)).await;
    drop(detach);
}

/// Makes this the connection that counts.
fn attach(
    shared: &Shared,
    arn: &str,
    connection: u64,
    query: &BTreeMap<String, String>,
) -> Option<Arc<Notify>> {
    let mut state = shared.lock();
    let instance = state.instances.get_mut(arn)?;
    // The connection before this one, if any, wakes up, finds itself replaced and ends. It must not take
    // the permit that is meant for us: each connection gets a notifier of its own.
    let old = std::mem::replace(&mut instance.wake, Arc::new(Notify::new()));
    old.notify_one();
    instance.connection = Some(connection);
    instance.version_info = super::version_info(query);
    instance.version += 1;
    let result = Arc::clone(&instance.wake);
    drop(state);
    tracing::info!(instance = arn, "agent connected");
    shared.announce(Change::Instance { arn: arn.to_owned(), is_connected: true });
    Some(result)
}

/// Notes that the agent is gone, however the session ends, unless another connection took over.
struct Detach<'a> {
    shared: &'a Shared,
    instance_arn: &'a str,
    connection: u64,
}

impl Drop for Detach<'_> {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        let Some(instance) = state.instances.get_mut(self.instance_arn) else { return };
        if instance.connection == Some(self.connection) {
            instance.connection = None;
            instance.version += 1;
            drop(state);
            self.shared.announce(Change::Instance { arn: self.instance_arn.to_owned(), is_connected: false });
        }
    }
}

impl AcsSession<'_> {
    async fn speak(
        &mut self,
        wake: &Notify,
        expects_heartbeat_acks: bool,
        stopped: &mut watch::Receiver<bool>,
    ) -> End {
        let mut heartbeat = interval(self.shared.heartbeat);
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut credentials = self.shared.credentials.subscribe();
        // After its own restart an agent has none and says so; one that was cut off may have missed some.
        credentials.mark_changed();
        if let Err(end) = self.send_manifest().await {
            return end;
        }
        if let Err(end) = self.send_outbox().await {
            return end;
        }
        loop {
            // Cancel-safe: reading frames, the tick, the permit and the watches all keep what they have.
            let result = tokio::select! {
                _ = ended(stopped) => Err("the control plane stops"),
                _ = wake.notified() => self.send_outbox().await,
                Ok(()) = credentials.changed() => self.send_credentials().await,
                _ = heartbeat.tick() => {
                    if expects_heartbeat_acks && self.heartbeats_out >= MISSED_HEARTBEATS {
                        Err("heartbeats were not answered")
                    } else {
                        self.heartbeats_out += 1;
                        let id = Uuid::new_v4().to_string();
                        self.send(encode(&HeartbeatMessage { healthy: true, message_id: id })).await
                    }
                }
                frame = self.socket.next() => match frame {
                    Some(Ok(Message::Text(text))) => self.take(&text).await,
                    Some(Ok(Message::Close(_))) | None => Err("the agent closed the connection"),
                    Some(Ok(_)) => Ok(()),
                    Some(Err(error)) => {
                        tracing::debug!(%error, "ACS connection failed");
                        Err("the connection failed")
                    }
                },
            };
            if let Err(end) = result {
                return end;
            }
        }
    }

    async fn send(&mut self, text: String) -> Result<(), End> {
        match timeout(SEND_TIMEOUT, self.socket.send(Message::text(text))).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err("the connection failed"),
            Err(_) => Err("the agent does not read"),
        }
    }

    /// Sends every payload that this connection has not sent and nobody has acknowledged, in order.
    async fn send_outbox(&mut self) -> Result<(), End> {
        loop {
            let next = {
                let state = self.shared.lock();
                let instance = state.instances.get(self.instance_arn).ok_or("the instance is gone")?;
                if instance.connection != Some(self.connection) {
                    return Err("a newer connection of the same instance took over");
                }
                let mut waiting = instance.outbox.iter();
                self.sent.retain(|sequence| instance.outbox.contains_key(sequence));
                waiting
                    .find(|(sequence, _)| !self.sent.contains(sequence))
                    .map(|(s, (_, frame))| (*s, frame.0.clone()))
            };
            let Some((sequence, text)) = next else { return Ok(()) };
            self.send(text).await?;
            self.sent.insert(sequence);
        }
    }

    /// Tells an agent what it shall have, so that it asks about the rest.
    async fn send_manifest(&mut self) -> Result<(), End> {
        let message_id = Uuid::new_v4().to_string();
        let text = {
            let mut state = self.shared.lock();
            let timeline = state.next_sequence();
            let cluster = state.instances.get(self.instance_arn).map(|i| i.cluster.clone());
            let cluster_arn = state.names.cluster(&cluster.unwrap_or_default());
            let identifier = |arn: &str, desired: &str| TaskIdentifier {
                task_arn: arn.to_owned(),
                task_cluster_arn: cluster_arn.clone(),
                desired_status: desired.to_owned(),
            };
            let own = state.tasks.iter().filter(|t| t.instance_arn == self.instance_arn && !t.is_stopped());
            encode(&TaskManifestMessage {
                message_id: message_id.clone(),
                tasks: own.map(|t| identifier(&t.arn, &t.desired_status)).collect(),
                cluster_arn: cluster_arn.clone(),
                container_instance_arn: self.instance_arn.to_owned(),
                generated_at: now_ms(),
                timeline,
            })
        };
        self.manifest = Some(message_id);
        self.send(text).await
    }

    /// The credentials as they are now, to every task of the instance that has a role.
    async fn send_credentials(&mut self) -> Result<(), End> {
        for task in std::mem::take(&mut self.credentials_out).values() {
            tracing::warn!(task, "the agent has not acknowledged the credentials before these");
        }
        let mut frames = Vec::new();
        {
            let state = self.shared.lock();
            let Some(held) = self.shared.credentials.borrow().clone() else { return Ok(()) };
            let own = state.tasks.iter().filter(|t| {
                t.instance_arn == self.instance_arn && !t.is_stopped() && t.desired_status == "RUNNING"
            });
            for task in own {
                let roles = [("TaskApplication", &task.roles.task), ("TaskExecution", &task.roles.execution)];
                for (kind, role) in roles {
                    let Some(role) = role else { continue };
                    let message_id = Uuid::new_v4().to_string();
                    frames.push(encode(&IamRoleCredentialsMessage {
                        message_id: message_id.clone(),
                        task_arn: task.arn.clone(),
                        task_cluster_arn: state.names.cluster(&task.cluster),
                        role_type: kind.to_owned(),
                        role_credentials: Some(held.wire(&role.credentials_id, &role.arn)),
                    }));
                    self.credentials_out.insert(message_id, task.arn.clone());
                }
            }
        }
        for frame in frames {
            self.send(frame).await?;
        }
        Ok(())
    }

    async fn take(&mut self, text: &str) -> Result<(), End> {
        match AgentMessage::decode(text) {
            Ok(AgentMessage::HeartbeatAck(_)) => self.heartbeats_out = 0,
            Ok(AgentMessage::Ack(ack)) => {
                let mut state = self.shared.lock();
                if let Some(instance) = state.instances.get_mut(self.instance_arn) {
                    instance.outbox.retain(|_, (id, _)| *id != ack.message_id);
                }
            }
            Ok(AgentMessage::StopVerification(message)) => return self.verify_stops(message).await,
            Ok(AgentMessage::CredentialsAck(ack)) => drop(self.credentials_out.remove(&ack.message_id)),
            Ok(AgentMessage::Nack(_)) => {}
            Err(error) => tracing::warn!(%error, "frame of the agent dropped"),
        }
        Ok(())
    }

    /// Confirms those candidates that really are wanted no more.
    async fn verify_stops(&mut self, message: TaskStopVerificationMessage) -> Result<(), End> {
        if self.manifest.take().as_deref() != Some(message.message_id.as_str()) {
            return Ok(());
        }
        let stop_tasks: Vec<_> = {
            let state = self.shared.lock();
            let wanted =
                |arn: &str| state.tasks.iter().any(|t| t.arn == arn && t.desired_status == "RUNNING");
            message.stop_candidates.into_iter().filter(|c| !wanted(&c.task_arn)).collect()
        };
        let ack =
            TaskStopVerificationAck { message_id: message.message_id, generated_at: now_ms(), stop_tasks };
        self.send(encode(&ack)).await
    }
}
