//! What each message of ACS means (spec/control-plane.md 3.4, 3.5). No I/O: frames to write and
//! events to pass on are answered to the session.

use super::attach;
use super::event::{AcsEvent, Memory, RoleKind, UpdateAsk};
use super::wire::{self, ServerMessage, encode};
use crate::control::payload;
use crate::control::roles::CredentialsStore;
use crate::model::{Attachment, DesiredStatus, TaskArn, TaskSpec};
use futures_util::future::BoxFuture;
use std::sync::Arc;
use tokio::sync::oneshot;

/// Frames to write once the engine has answered; none where it said no.
pub(super) type Acks = BoxFuture<'static, Vec<String>>;

/// What to do about a message.
#[derive(Default)]
pub(super) struct Handled {
    /// Frames to write at once.
    pub(super) now: Vec<String>,
    /// Events for the engine.
    pub(super) events: Vec<AcsEvent>,
    /// Frames to write when the engine has answered.
    pub(super) later: Option<Acks>,
    /// For the updater.
    pub(super) update: Option<UpdateAsk>,
}

/// Role credentials go to `roles` at once; everything else is answered.
pub(super) fn handle(roles: &CredentialsStore, memory: &mut Memory, message: ServerMessage) -> Handled {
    match message {
        ServerMessage::Heartbeat(beat) => {
            let ack = wire::HeartbeatAckRequest { message_id: beat.message_id };
            Handled { now: vec![encode(&ack)], events: vec![AcsEvent::Heartbeat], ..Handled::default() }
        }
        ServerMessage::Payload(message, unreadable) => take_payload(roles, memory, message, unreadable),
        ServerMessage::Credentials(message) => take_credentials(roles, message),
        ServerMessage::Manifest(message) => take_manifest(memory, message),
        ServerMessage::StopVerificationAck(message) => stop_verified(memory, message),
        ServerMessage::StageUpdate(m) => {
            let ack = ack(&m.message_id, &m.cluster_arn, &m.container_instance_arn);
            update(memory.updates, ack, UpdateAsk::Stage(m))
        }
        ServerMessage::PerformUpdate(m) => {
            let ack = ack(&m.message_id, &m.cluster_arn, &m.container_instance_arn);
            update(memory.updates, ack, UpdateAsk::Perform(m))
        }
        ServerMessage::AttachTaskInterfaces(m) => {
            let ack = ack(&m.message_id, &m.cluster_arn, &m.container_instance_arn);
            announce("a network interface of a task", ack, attach::of_task(&m))
        }
        ServerMessage::AttachInstanceInterfaces(m) => {
            let ack = ack(&m.message_id, &m.cluster_arn, &m.container_instance_arn);
            announce("a network interface of the instance", ack, attach::of_instance(&m))
        }
        ServerMessage::ConfirmAttachment(m) => confirm(&m),
        ServerMessage::Notice { kind, message } => {
            tracing::warn!(%kind, %message, "ACS sent a notice");
            Handled::default()
        }
    }
}

fn ack(message_id: &str, cluster: &str, container_instance: &str) -> wire::AckRequest {
    wire::AckRequest {
        cluster: cluster.to_owned(),
        container_instance: container_instance.to_owned(),
        message_id: message_id.to_owned(),
    }
}

/// Acknowledged as soon as they are durable, whether or not they ever come.
fn announce(
    what: &str,
    ack: wire::AckRequest,
    announced: Result<Vec<Attachment>, attach::AttachError>,
) -> Handled {
    let attachments = match announced {
        Ok(attachments) => attachments,
        Err(error) => {
            tracing::warn!(message_id = ack.message_id, %error, "Ignoring {what}");
            return Handled::default();
        }
    };
    let (respond, answer) = oneshot::channel();
    let later: Acks = Box::pin(async move {
        match answer.await {
            Ok(Ok(())) => vec![encode(&ack)],
            _ => Vec::new(),
        }
    });
    let event = AcsEvent::Attachments { attachments, respond };
    Handled { events: vec![event], later: Some(later), ..Handled::default() }
}

/// Acknowledged at once where it is well-formed. Nothing is done about it: this agent mounts no block
/// devices, says so when it registers, and the control plane learns of it by the attachment's expiry.
fn confirm(message: &wire::ConfirmAttachmentMessage) -> Handled {
    let message_id = &message.message_id;
    match attach::check_confirmation(message) {
        Ok(kind) => {
            tracing::warn!(%message_id, %kind, "An attachment was acknowledged, and is left alone: this agent mounts none");
            let ack = ack(message_id, &message.cluster_arn, &message.container_instance_arn);
            Handled { now: vec![encode(&ack)], ..Handled::default() }
        }
        Err(error) => {
            tracing::warn!(%message_id, %error, "Ignoring an attachment");
            Handled::default()
        }
    }
}

/// Where updates are off the control plane is told so, and need not wait.
fn update(taken: bool, ack: wire::AckRequest, ask: UpdateAsk) -> Handled {
    let wire::AckRequest { cluster, container_instance, message_id } = ack;
    if message_id.is_empty() {
        tracing::warn!("Ignoring an agent update without a messageId");
        return Handled::default();
    }
    if taken {
        return Handled { update: Some(ask), ..Handled::default() };
    }
    let reason = "Updates are disabled".to_owned();
    let nack = wire::NackRequest { cluster, container_instance, message_id, reason };
    Handled { now: vec![encode(&nack)], ..Handled::default() }
}

fn take_payload(
    roles: &CredentialsStore,
    memory: &mut Memory,
    message: wire::PayloadMessage,
    unreadable: Vec<wire::UnreadableTask>,
) -> Handled {
    let message_id = message.message_id;
    if message_id.is_empty() || message.cluster_arn.is_empty() || message.container_instance_arn.is_empty() {
        tracing::warn!(%message_id, "Ignoring a payload without messageId, clusterArn or containerInstanceArn");
        return Handled::default();
    }
    memory.sequence = memory.sequence.max(message.seq_num);
    let mut taken = Taken { complete: unreadable.is_empty(), ..Taken::default() };
    for task in unreadable {
        taken.unreadable(task);
    }
    let ack = wire::AckRequest {
        cluster: message.cluster_arn,
        container_instance: message.container_instance_arn,
        message_id: message_id.clone(),
    };
    taken.acks.push(encode(&ack));
    for task in &message.tasks {
        taken.task(roles, &message_id, task);
    }
    // A stop frees what a start may need.
    taken.tasks.sort_by_key(|(desired, _, _)| *desired != DesiredStatus::Stopped);
    let (respond, answer) = oneshot::channel();
    let Taken { tasks, rejected, acks, complete } = taken;
    let event = AcsEvent::Payload { message_id, tasks, rejected, respond };
    let later: Acks = Box::pin(async move {
        match answer.await {
            Ok(Ok(())) if complete => acks,
            _ => Vec::new(),
        }
    });
    Handled { events: vec![event], later: Some(later), ..Handled::default() }
}

/// What has come of a payload's tasks so far.
#[derive(Default)]
struct Taken {
    tasks: Vec<(DesiredStatus, Arc<TaskSpec>, Arc<str>)>,
    rejected: Vec<(TaskArn, String)>,
    acks: Vec<String>,
    complete: bool,
}

impl Taken {
    fn unreadable(&mut self, task: wire::UnreadableTask) {
        let reason = task.reason;
        match task.arn.as_deref().map(TaskArn::parse) {
            Some(Ok(arn)) => {
                tracing::error!(task = %arn, %reason, "A task can't be read");
                self.rejected.push((arn, format!("UnrecogniedTaskError: Error loading task - {reason}")));
            }
            _ => tracing::error!(%reason, "A task without a usable ARN can't be read"),
        }
    }

    fn task(&mut self, roles: &CredentialsStore, message_id: &str, task: &wire::Task) {
        let converted = match payload::convert(task) {
            Ok(converted) => converted,
            Err(error) => {
                self.complete &= error.acknowledged();
                match TaskArn::parse(&task.arn) {
                    Ok(arn) => {
                        tracing::error!(task = %arn, %error, "A task can't be run");
                        let reason = error.stop_reason(&arn);
                        self.rejected.push((arn, reason));
                    }
                    Err(error) => tracing::error!(%error, "A task without a usable ARN can't be run"),
                }
                return;
            }
        };
        let spec = converted.spec;
        for credentials in [converted.role, converted.execution_role].into_iter().flatten() {
            self.acks.push(encode(&wire::IamRoleCredentialsAckRequest {
                message_id: message_id.to_owned(),
                expiration: credentials.expiration.clone(),
                credentials_id: credentials.id.0.clone(),
            }));
            if !roles.put(&spec.arn, credentials) {
                tracing::error!("There is no room for more role credentials");
                self.complete = false;
            }
        }
        let endpoints: Vec<_> =
            spec.containers.iter().map(|c| (c.name.clone(), c.endpoint.clone())).collect();
        let source = payload::to_stored(task, &endpoints).into();
        self.tasks.push((converted.desired, Arc::new(spec), source));
    }
}

fn take_credentials(roles: &CredentialsStore, message: wire::IamRoleCredentialsMessage) -> Handled {
    let message_id = message.message_id;
    let role = match message.role_type.as_str() {
        "TaskApplication" => Some(RoleKind::Application),
        "TaskExecution" => Some(RoleKind::Execution),
        _ => None,
    };
    let credentials = message.role_credentials.as_ref().and_then(payload::from_wire_credentials);
    let (Some(role), Some(credentials), Ok(task), false) =
        (role, credentials, TaskArn::parse(&message.task_arn), message_id.is_empty())
    else {
        tracing::warn!(%message_id, role = %message.role_type, task = %message.task_arn,
            "Ignoring role credentials: messageId, taskArn, roleType and credentialsId must be usable");
        return Handled::default();
    };
    let ack = wire::IamRoleCredentialsAckRequest {
        message_id,
        expiration: credentials.expiration.clone(),
        credentials_id: credentials.id.0.clone(),
    };
    let id = credentials.id.clone();
    if !roles.put(&task, credentials) {
        tracing::error!(%task, "There is no room for more role credentials");
        return Handled::default();
    }
    let (respond, answer) = oneshot::channel();
    let later: Acks = Box::pin(async move {
        match answer.await {
            Ok(Ok(())) => vec![encode(&ack)],
            _ => {
                tracing::warn!(credentials = %ack.credentials_id, "Role credentials for a task that is not known");
                Vec::new()
            }
        }
    });
    let event = AcsEvent::Credentials { task, role, id, respond };
    Handled { events: vec![event], later: Some(later), ..Handled::default() }
}

fn take_manifest(memory: &mut Memory, message: wire::TaskManifestMessage) -> Handled {
    let wire::TaskManifestMessage {
        message_id, cluster_arn, container_instance_arn, timeline, tasks, ..
    } = message;
    if message_id.is_empty() || cluster_arn.is_empty() || container_instance_arn.is_empty() {
        tracing::warn!(%message_id, "Ignoring a task manifest without its ids");
        return Handled::default();
    }
    if timeline <= memory.sequence {
        tracing::debug!(%message_id, timeline, newest = memory.sequence, "Discarding an old task manifest");
        return Handled::default();
    }
    memory.sequence = timeline;
    memory.manifest = Some(message_id.clone());
    let (respond, answer) = oneshot::channel::<Result<Vec<TaskArn>, ()>>();
    let later: Acks = Box::pin(async move {
        let Ok(Ok(running)) = answer.await else { return Vec::new() };
        let listed =
            |arn: &TaskArn| tasks.iter().any(|t| t.task_arn == arn.as_str() && t.desired_status == "RUNNING");
        let stop_candidates: Vec<_> = running
            .iter()
            .filter(|arn| !listed(arn))
            .map(|arn| wire::TaskIdentifier {
                task_arn: arn.as_str().to_owned(),
                task_cluster_arn: cluster_arn.clone(),
                desired_status: "STOPPED".to_owned(),
            })
            .collect();
        let mut frames = vec![encode(&wire::AckRequest {
            cluster: cluster_arn,
            container_instance: container_instance_arn,
            message_id: message_id.clone(),
        })];
        if !stop_candidates.is_empty() {
            frames.push(encode(&wire::TaskStopVerificationMessage { message_id, stop_candidates }));
        }
        frames
    });
    let event = AcsEvent::Manifest { timeline, respond };
    Handled { events: vec![event], later: Some(later), ..Handled::default() }
}

fn stop_verified(memory: &mut Memory, message: wire::TaskStopVerificationAck) -> Handled {
    if memory.manifest.as_deref() != Some(message.message_id.as_str()) {
        tracing::warn!(message_id = %message.message_id, "Ignoring a stop verification that was not asked for");
        return Handled::default();
    }
    memory.manifest = None;
    let stops = message.stop_tasks.iter().filter_map(|t| TaskArn::parse(&t.task_arn).ok()).collect();
    Handled { events: vec![AcsEvent::StopTasks(stops)], ..Handled::default() }
}

// Under `cfg(fuzzing)` too: the fuzz targets build this file.
#[cfg(any(test, fuzzing))]
#[path = "handle_check.rs"]
pub mod check;

#[cfg(test)]
#[path = "handle_tests.rs"]
mod tests;
