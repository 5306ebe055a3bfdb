//! What each message of ACS means (spec/control-plane.md 3.4, 3.5). No I/O: frames to write and
//! events to pass on are answered to the session.

use super::session::Acks;
use super::wire::{self, ServerMessage, encode};
use super::{AcsContext, AcsEvent, Memory, RoleKind};
use crate::control::payload;
use crate::model::{DesiredStatus, TaskArn, TaskSpec};
use std::sync::Arc;
use tokio::sync::oneshot;

/// What to do about a message.
#[derive(Default)]
pub(super) struct Handled {
    /// Frames to write at once.
    pub(super) now: Vec<String>,
    /// Events for the engine.
    pub(super) events: Vec<AcsEvent>,
    /// Frames to write when the engine has answered.
    pub(super) later: Option<Acks>,
}

pub(super) fn handle(context: &AcsContext, memory: &mut Memory, message: ServerMessage) -> Handled {
    match message {
        ServerMessage::Heartbeat(beat) => {
            let ack = wire::HeartbeatAckRequest { message_id: beat.message_id };
            Handled { now: vec![encode(&ack)], events: vec![AcsEvent::Heartbeat], later: None }
        }
        ServerMessage::Payload(message, unreadable) => take_payload(context, memory, message, unreadable),
        ServerMessage::Credentials(message) => take_credentials(context, message),
        ServerMessage::Manifest(message) => take_manifest(memory, message),
        ServerMessage::StopVerificationAck(message) => stop_verified(memory, message),
        ServerMessage::StageUpdate(m) => refuse_update(m.message_id, m.cluster_arn, m.container_instance_arn),
        ServerMessage::PerformUpdate(m) => {
            refuse_update(m.message_id, m.cluster_arn, m.container_instance_arn)
        }
        ServerMessage::AttachTaskInterfaces(m) => ignored("network interface of a task", &m.message_id),
        ServerMessage::AttachInstanceInterfaces(m) => ignored("trunk network interface", &m.message_id),
        ServerMessage::ConfirmAttachment(m) => ignored("attachment", &m.message_id),
        ServerMessage::Notice { kind, message } => {
            tracing::warn!(%kind, %message, "ACS sent a notice");
            Handled::default()
        }
    }
}

/// Not acknowledged: the control plane then knows that it was not taken.
fn ignored(what: &str, message_id: &str) -> Handled {
    tracing::warn!(%message_id, "Ignoring a {what}: this agent does not advertise them");
    Handled::default()
}

fn refuse_update(message_id: String, cluster: String, container_instance: String) -> Handled {
    let reason = "Updates are disabled".to_owned();
    let nack = wire::NackRequest { cluster, container_instance, message_id, reason };
    Handled { now: vec![encode(&nack)], ..Handled::default() }
}

fn take_payload(
    context: &AcsContext,
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
        taken.task(context, &message_id, task);
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
    Handled { now: Vec::new(), events: vec![event], later: Some(later) }
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

    fn task(&mut self, context: &AcsContext, message_id: &str, task: &wire::Task) {
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
        for credentials in [converted.role, converted.execution_role].into_iter().flatten() {
            self.acks.push(encode(&wire::IamRoleCredentialsAckRequest {
                message_id: message_id.to_owned(),
                expiration: credentials.expiration.clone(),
                credentials_id: credentials.id.0.clone(),
            }));
            if !context.roles.put(credentials) {
                tracing::error!("There is no room for more role credentials");
                self.complete = false;
            }
        }
        let spec = converted.spec;
        let endpoints: Vec<_> =
            spec.containers.iter().map(|c| (c.name.clone(), c.endpoint.clone())).collect();
        let source = payload::to_stored(task, &endpoints).into();
        self.tasks.push((converted.desired, Arc::new(spec), source));
    }
}

fn take_credentials(context: &AcsContext, message: wire::IamRoleCredentialsMessage) -> Handled {
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
    if !context.roles.put(credentials) {
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
    Handled { now: Vec::new(), events: vec![event], later: Some(later) }
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
    Handled { now: Vec::new(), events: vec![event], later: Some(later) }
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
