//! The messages of the ACS websocket, both ways (spec/control-plane.md 3.2 to 3.6).
//!
//! Owns the JSON shapes and nothing else: the agent's session decodes what the embedded control
//! plane (`local`) encodes from the same types, and the other way round. Every member is optional
//! on the wire: absent, `null` and the type's zero are the same, zero members are not written, and
//! members that nobody here knows are ignored. What a message must hold to be acted upon is checked
//! where it is acted upon.

mod task;

pub use task::{
    AsmAuthData, Association, AssociationContent, Attachment, AttachmentProperty, Container,
    ContainerDependency, DockerConfig, DockerVolume, EcrAuthData, EfsAuthorization, EfsVolume,
    ElasticNetworkInterface, EnvironmentFile, FirelensConfiguration, HostVolume, Ipv4Address, Ipv6Address,
    ManagedAgent, MountPoint, PortMapping, ProxyConfiguration, RegistryAuthentication, RestartPolicy,
    RoleCredentials, Secret, Task, VlanProperties, Volume, VolumeFrom,
};

use serde::de::{DeserializeOwned, Deserializer, IgnoredAny};
use serde::{Deserialize, Serialize};

/// The largest frame that is read. A task definition has at most 64 KiB, a payload some dozens of
/// tasks.
pub const MAX_FRAME_BYTES: usize = 16 * 1024 * 1024;

/// A frame that can't be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// No JSON object with a `type`.
    #[error("frame of {bytes} bytes is no message {{\"type\", \"message\"}}: {reason}")]
    Envelope {
        /// Its length.
        bytes: usize,
        /// What the parser said, without the frame's values.
        reason: String,
    },
    /// A `type` that neither side knows.
    #[error("message of unknown type {0:?}")]
    UnknownType(String),
    /// The members of a known type don't fit.
    #[error("{kind}: {reason}")]
    Message {
        /// Type name.
        kind: String,
        /// What the parser said, without the frame's values.
        reason: String,
    },
}

/// Absent, `null` and zero are one.
fn nullable<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(from: D) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(from)?.unwrap_or_default())
}

fn is_zero<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// Defines a wire struct: camelCase keys, every member as lenient as the module says.
macro_rules! wire_struct {
    ($($(#[$meta:meta])* pub struct $name:ident { $($(#[$field_meta:meta])* pub $field:ident: $type:ty,)* })*) => {$(
        $(#[$meta])*
        #[derive(Clone, PartialEq, Default, serde::Serialize, serde::Deserialize)]
        #[serde(rename_all = "camelCase", default)]
        pub struct $name {$(
            $(#[$field_meta])*
            #[serde(deserialize_with = "crate::control::acs::wire::nullable",
                    skip_serializing_if = "crate::control::acs::wire::is_zero")]
            pub $field: $type,
        )*}
    )*};
}
use wire_struct;

/// One kind of message.
pub trait Message: Serialize + DeserializeOwned {
    /// The `type` of its envelope.
    const TYPE: &'static str;
}

macro_rules! message_types {
    ($($name:ident = $word:literal),* $(,)?) => {$(
        impl Message for $name { const TYPE: &'static str = $word; }
    )*};
}

wire_struct! {
    /// Keeps the connection alive; answered with [`HeartbeatAckRequest`].
    #[derive(Debug)]
    pub struct HeartbeatMessage {
        /// The service is well.
        pub healthy: bool,
        /// Echoed in the answer.
        pub message_id: String,
    }

    /// Answer to [`HeartbeatMessage`].
    #[derive(Debug)]
    pub struct HeartbeatAckRequest {
        /// Of the heartbeat.
        pub message_id: String,
    }

    /// Tasks and the states that they shall have.
    #[derive(Debug)]
    pub struct PayloadMessage {
        /// Cluster ARN; echoed in the ack.
        pub cluster_arn: String,
        /// Container instance ARN; echoed in the ack.
        pub container_instance_arn: String,
        /// Milliseconds since 1970.
        pub generated_at: i64,
        /// Echoed in the acks.
        pub message_id: String,
        /// Grows with each payload.
        pub seq_num: i64,
        /// Of the manifest that this payload follows.
        pub timeline: i64,
        /// The tasks.
        pub tasks: Vec<Task>,
    }

    /// "Taken, and it will survive a crash."
    #[derive(Debug)]
    pub struct AckRequest {
        /// The message's `clusterArn`.
        pub cluster: String,
        /// The message's `containerInstanceArn`.
        pub container_instance: String,
        /// Of the message.
        pub message_id: String,
    }

    /// Refusal of an agent update.
    #[derive(Debug)]
    pub struct NackRequest {
        /// The message's `clusterArn`.
        pub cluster: String,
        /// The message's `containerInstanceArn`.
        pub container_instance: String,
        /// Of the message.
        pub message_id: String,
        /// Why.
        pub reason: String,
    }

    /// Fresh credentials for a task's role.
    #[derive(Debug)]
    pub struct IamRoleCredentialsMessage {
        /// Echoed in the ack.
        pub message_id: String,
        /// The task.
        pub task_arn: String,
        /// Its cluster.
        pub task_cluster_arn: String,
        /// `TaskApplication` or `TaskExecution`.
        pub role_type: String,
        /// The credentials.
        pub role_credentials: Option<RoleCredentials>,
    }

    /// "These credentials are in use."
    #[derive(Debug)]
    pub struct IamRoleCredentialsAckRequest {
        /// Of the message (also where that was a payload).
        pub message_id: String,
        /// Echoed.
        pub expiration: String,
        /// Echoed.
        pub credentials_id: String,
    }

    /// A network interface for a task comes.
    #[derive(Debug)]
    pub struct AttachTaskNetworkInterfacesMessage {
        /// Echoed in the ack.
        pub message_id: String,
        /// Echoed in the ack.
        pub cluster_arn: String,
        /// Echoed in the ack.
        pub container_instance_arn: String,
        /// The task.
        pub task_arn: String,
        /// Its cluster.
        pub task_cluster_arn: String,
        /// Milliseconds since 1970.
        pub generated_at: i64,
        /// How long to wait for it.
        pub wait_timeout_ms: i64,
        /// The interfaces.
        pub elastic_network_interfaces: Vec<ElasticNetworkInterface>,
    }

    /// A network interface for the instance (trunk) comes.
    #[derive(Debug)]
    pub struct AttachInstanceNetworkInterfacesMessage {
        /// Echoed in the ack.
        pub message_id: String,
        /// Echoed in the ack.
        pub cluster_arn: String,
        /// Echoed in the ack.
        pub container_instance_arn: String,
        /// Milliseconds since 1970.
        pub generated_at: i64,
        /// How long to wait for it.
        pub wait_timeout_ms: i64,
        /// The interfaces.
        pub elastic_network_interfaces: Vec<ElasticNetworkInterface>,
    }

    /// A block device for a task comes.
    #[derive(Debug)]
    pub struct ConfirmAttachmentMessage {
        /// Echoed in the ack.
        pub message_id: String,
        /// Echoed in the ack.
        pub cluster_arn: String,
        /// Echoed in the ack.
        pub container_instance_arn: String,
        /// The task.
        pub task_arn: String,
        /// Its cluster.
        pub task_cluster_arn: String,
        /// Milliseconds since 1970.
        pub generated_at: i64,
        /// How long to wait for it; 0 is 300000.
        pub wait_timeout_ms: i64,
        /// The attachment.
        pub attachment: Option<Attachment>,
    }

    /// All tasks that this instance shall have.
    #[derive(Debug)]
    pub struct TaskManifestMessage {
        /// Echoed in the ack and in [`TaskStopVerificationMessage`].
        pub message_id: String,
        /// Echoed in the ack.
        pub cluster_arn: String,
        /// Echoed in the ack.
        pub container_instance_arn: String,
        /// Milliseconds since 1970.
        pub generated_at: i64,
        /// Newer manifests have greater ones.
        pub timeline: i64,
        /// The tasks.
        pub tasks: Vec<TaskIdentifier>,
    }

    /// A task and the state that it shall have.
    #[derive(Debug)]
    pub struct TaskIdentifier {
        /// The task.
        pub task_arn: String,
        /// Its cluster.
        pub task_cluster_arn: String,
        /// `RUNNING` or `STOPPED`.
        pub desired_status: String,
    }

    /// "These run here and are not in your manifest: stop them?"
    #[derive(Debug)]
    pub struct TaskStopVerificationMessage {
        /// Of the manifest.
        pub message_id: String,
        /// The tasks in question.
        pub stop_candidates: Vec<TaskIdentifier>,
    }

    /// "Yes, stop these."
    #[derive(Debug)]
    pub struct TaskStopVerificationAck {
        /// Of the manifest.
        pub message_id: String,
        /// Milliseconds since 1970.
        pub generated_at: i64,
        /// The tasks to stop.
        pub stop_tasks: Vec<TaskIdentifier>,
    }

    /// Fetch a new agent.
    #[derive(Debug)]
    pub struct StageUpdateMessage {
        /// Echoed in the ack.
        pub message_id: String,
        /// Echoed in the ack.
        pub cluster_arn: String,
        /// Echoed in the ack.
        pub container_instance_arn: String,
        /// What to fetch.
        pub update_info: Option<UpdateInfo>,
    }

    /// A new agent. Debug keeps the location's query to itself: it may be signed.
    pub struct UpdateInfo {
        /// Where it is.
        pub location: String,
        /// SHA-256 of the file, in hex.
        pub signature: String,
    }

    /// Start the new agent.
    #[derive(Debug)]
    pub struct PerformUpdateMessage {
        /// Echoed in the ack.
        pub message_id: String,
        /// Echoed in the ack.
        pub cluster_arn: String,
        /// Echoed in the ack.
        pub container_instance_arn: String,
        /// As staged.
        pub update_info: Option<UpdateInfo>,
    }

    /// The service is about to close the connection, or the body of an exception.
    #[derive(Debug)]
    pub struct NoticeMessage {
        /// Text for the log.
        pub message: String,
    }
}

impl std::fmt::Debug for UpdateInfo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let location = self.location.split('?').next();
        f.debug_struct("UpdateInfo").field("location", &location).field("signature", &self.signature).finish()
    }
}

message_types! {
    HeartbeatMessage = "HeartbeatMessage",
    HeartbeatAckRequest = "HeartbeatAckRequest",
    PayloadMessage = "PayloadMessage",
    AckRequest = "AckRequest",
    NackRequest = "NackRequest",
    IamRoleCredentialsMessage = "IAMRoleCredentialsMessage",
    IamRoleCredentialsAckRequest = "IAMRoleCredentialsAckRequest",
    AttachTaskNetworkInterfacesMessage = "AttachTaskNetworkInterfacesMessage",
    AttachInstanceNetworkInterfacesMessage = "AttachInstanceNetworkInterfacesMessage",
    ConfirmAttachmentMessage = "ConfirmAttachmentMessage",
    TaskManifestMessage = "TaskManifestMessage",
    TaskStopVerificationMessage = "TaskStopVerificationMessage",
    TaskStopVerificationAck = "TaskStopVerificationAck",
    StageUpdateMessage = "StageUpdateMessage",
    PerformUpdateMessage = "PerformUpdateMessage",
}

/// What the service sends.
#[derive(Debug, Clone, PartialEq)]
pub enum ServerMessage {
    /// See [`HeartbeatMessage`].
    Heartbeat(HeartbeatMessage),
    /// See [`PayloadMessage`], with the tasks that could not be read.
    Payload(PayloadMessage, Vec<UnreadableTask>),
    /// See [`IamRoleCredentialsMessage`].
    Credentials(IamRoleCredentialsMessage),
    /// See [`AttachTaskNetworkInterfacesMessage`].
    AttachTaskInterfaces(AttachTaskNetworkInterfacesMessage),
    /// See [`AttachInstanceNetworkInterfacesMessage`].
    AttachInstanceInterfaces(AttachInstanceNetworkInterfacesMessage),
    /// See [`ConfirmAttachmentMessage`].
    ConfirmAttachment(ConfirmAttachmentMessage),
    /// See [`TaskManifestMessage`].
    Manifest(TaskManifestMessage),
    /// See [`TaskStopVerificationAck`].
    StopVerificationAck(TaskStopVerificationAck),
    /// See [`StageUpdateMessage`].
    StageUpdate(StageUpdateMessage),
    /// See [`PerformUpdateMessage`].
    PerformUpdate(PerformUpdateMessage),
    /// `CloseMessage`, `ErrorMessage` and the exceptions: for the log.
    Notice {
        /// Type name.
        kind: String,
        /// Its text.
        message: String,
    },
}

/// What the agent sends.
#[derive(Debug, Clone, PartialEq)]
pub enum AgentMessage {
    /// See [`HeartbeatAckRequest`].
    HeartbeatAck(HeartbeatAckRequest),
    /// See [`AckRequest`].
    Ack(AckRequest),
    /// See [`NackRequest`].
    Nack(NackRequest),
    /// See [`IamRoleCredentialsAckRequest`].
    CredentialsAck(IamRoleCredentialsAckRequest),
    /// See [`TaskStopVerificationMessage`].
    StopVerification(TaskStopVerificationMessage),
}

/// A task of a payload whose members have the wrong types.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnreadableTask {
    /// Its ARN, where that much can be read.
    pub arn: Option<String>,
    /// What the parser said.
    pub reason: String,
}

/// Recognised and without effect: notices, and what only an agent has reason to send.
const NOTICES: [&str; 13] = [
    AckRequest::TYPE,
    NackRequest::TYPE,
    HeartbeatAckRequest::TYPE,
    IamRoleCredentialsAckRequest::TYPE,
    TaskStopVerificationMessage::TYPE,
    "CloseMessage",
    "ErrorMessage",
    "ServerException",
    "BadRequestException",
    "InvalidClusterException",
    "InvalidInstanceException",
    "AccessDeniedException",
    "InactiveInstanceException",
];

/// A message in its envelope `{"type":...,"message":{...}}`.
pub fn encode<M: Message>(message: &M) -> String {
    #[derive(Serialize)]
    struct Out<'a, M> {
        r#type: &'static str,
        message: &'a M,
    }
    // Strings, numbers, lists and maps with string keys always have a JSON form.
    serde_json::to_string(&Out { r#type: M::TYPE, message }).unwrap_or_default()
}

/// The `type` of a frame.
///
/// # Errors
/// [`WireError::Envelope`]
pub fn message_type(text: &str) -> Result<String, WireError> {
    #[derive(Deserialize)]
    struct Head {
        r#type: String,
        #[serde(default, rename = "message")]
        _message: IgnoredAny,
    }
    let head: Result<Head, _> = serde_json::from_str(text);
    head.map(|head| head.r#type).map_err(|e| WireError::Envelope { bytes: text.len(), reason: explain(&e) })
}

/// The body of a frame whose type was looked at before.
///
/// # Errors
/// [`WireError::Message`]
pub fn decode_body<M: DeserializeOwned + Default>(kind: &str, text: &str) -> Result<M, WireError> {
    #[derive(Deserialize)]
    #[serde(bound = "M: DeserializeOwned + Default")]
    struct In<M> {
        #[serde(default, deserialize_with = "nullable")]
        message: M,
    }
    let frame: Result<In<M>, _> = serde_json::from_str(text);
    frame
        .map(|frame| frame.message)
        .map_err(|e| WireError::Message { kind: kind.to_owned(), reason: explain(&e) })
}

impl ServerMessage {
    /// Reads a frame of the service.
    ///
    /// # Errors
    /// [`WireError`]; the frame is to be dropped with a warning.
    pub fn decode(text: &str) -> Result<Self, WireError> {
        let kind = message_type(text)?;
        Ok(match kind.as_str() {
            HeartbeatMessage::TYPE => Self::Heartbeat(decode_body(&kind, text)?),
            PayloadMessage::TYPE => match decode_body(&kind, text) {
                Ok(payload) => Self::Payload(payload, Vec::new()),
                Err(error) => decode_payload_by_task(text).ok_or(error)?,
            },
            IamRoleCredentialsMessage::TYPE => Self::Credentials(decode_body(&kind, text)?),
            AttachTaskNetworkInterfacesMessage::TYPE => Self::AttachTaskInterfaces(decode_body(&kind, text)?),
            AttachInstanceNetworkInterfacesMessage::TYPE => {
                Self::AttachInstanceInterfaces(decode_body(&kind, text)?)
            }
            ConfirmAttachmentMessage::TYPE => Self::ConfirmAttachment(decode_body(&kind, text)?),
            TaskManifestMessage::TYPE => Self::Manifest(decode_body(&kind, text)?),
            TaskStopVerificationAck::TYPE => Self::StopVerificationAck(decode_body(&kind, text)?),
            StageUpdateMessage::TYPE => Self::StageUpdate(decode_body(&kind, text)?),
            PerformUpdateMessage::TYPE => Self::PerformUpdate(decode_body(&kind, text)?),
            other if NOTICES.contains(&other) => {
                let body: NoticeMessage = decode_body(&kind, text)?;
                Self::Notice { kind, message: body.message }
            }
            _ => return Err(WireError::UnknownType(kind.chars().take(128).collect())),
        })
    }
}

impl AgentMessage {
    /// Reads a frame of the agent.
    ///
    /// # Errors
    /// [`WireError`]
    pub fn decode(text: &str) -> Result<Self, WireError> {
        let kind = message_type(text)?;
        Ok(match kind.as_str() {
            HeartbeatAckRequest::TYPE => Self::HeartbeatAck(decode_body(&kind, text)?),
            AckRequest::TYPE => Self::Ack(decode_body(&kind, text)?),
            NackRequest::TYPE => Self::Nack(decode_body(&kind, text)?),
            IamRoleCredentialsAckRequest::TYPE => Self::CredentialsAck(decode_body(&kind, text)?),
            TaskStopVerificationMessage::TYPE => Self::StopVerification(decode_body(&kind, text)?),
            _ => return Err(WireError::UnknownType(kind.chars().take(128).collect())),
        })
    }
}

/// One task with a wrong type in it must not cost the others: each is read on its own. Only for
/// payloads that failed as a whole, as the detour by a JSON tree costs memory.
fn decode_payload_by_task(text: &str) -> Option<ServerMessage> {
    let mut frame: serde_json::Value = serde_json::from_str(text).ok()?;
    let body = frame.get_mut("message")?;
    let tasks = match body.get_mut("tasks")?.take() {
        serde_json::Value::Array(tasks) => tasks,
        _ => return None,
    };
    let mut payload: PayloadMessage = serde_json::from_value(body.take()).ok()?;
    let mut unreadable = Vec::new();
    for task in tasks {
        let arn = task.get("arn").and_then(|arn| arn.as_str()).map(str::to_owned);
        match serde_json::from_value(task) {
            Ok(task) => payload.tasks.push(task),
            Err(error) => unreadable.push(UnreadableTask { arn, reason: explain(&error) }),
        }
    }
    Some(ServerMessage::Payload(payload, unreadable))
}

/// serde's words without the value that it stumbled over: that may be a secret.
pub(crate) fn explain(error: &serde_json::Error) -> String {
    let text = error.to_string();
    for lead in ["invalid type: ", "invalid value: "] {
        if let Some(rest) = text.strip_prefix(lead) {
            let kind = rest.split([' ', ',']).next().unwrap_or_default();
            let expected = rest.rfind(", expected ").and_then(|at| rest.get(at..)).unwrap_or_default();
            return format!("{lead}{kind}{expected}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn envelopes_go_both_ways() {
        let text = encode(&HeartbeatMessage { healthy: true, message_id: "m".into() });
        assert_eq!(text, r#"{"type":"HeartbeatMessage","message":{"healthy":true,"messageId":"m"}}"#);
        assert!(
            matches!(ServerMessage::decode(&text), Ok(ServerMessage::Heartbeat(h)) if h.message_id == "m")
        );
        let text = encode(&IamRoleCredentialsAckRequest { message_id: "m".into(), ..Default::default() });
        assert_eq!(text, r#"{"type":"IAMRoleCredentialsAckRequest","message":{"messageId":"m"}}"#);
        assert!(matches!(AgentMessage::decode(&text), Ok(AgentMessage::CredentialsAck(_))));
    }

    #[test]
    fn null_and_unknown_members_are_nothing() {
        let text = r#"{"message":{"tasks":[{"arn":"a","containers":null,"cpu":null,"new":{"x":[1]}}],
            "messageId":null},"type":"PayloadMessage"}"#;
        let Ok(ServerMessage::Payload(payload, bad)) = ServerMessage::decode(text) else { panic!() };
        assert_eq!((payload.tasks[0].arn.as_str(), bad.len()), ("a", 0));
        assert!(matches!(
            ServerMessage::decode(r#"{"type":"CloseMessage","message":null}"#),
            Ok(ServerMessage::Notice { .. })
        ));
    }

    #[test]
    fn one_unreadable_task_does_not_cost_the_others() {
        let text = r#"{"type":"PayloadMessage","message":{"messageId":"m","tasks":[
            {"arn":"a"},{"arn":"b","memory":"SECRET"},null]}}"#;
        let Ok(ServerMessage::Payload(payload, bad)) = ServerMessage::decode(text) else { panic!() };
        assert_eq!(payload.message_id, "m");
        assert_eq!(payload.tasks.len(), 1);
        assert_eq!(bad[0].arn.as_deref(), Some("b"));
        assert_eq!(bad[0].reason, "invalid type: string, expected i64");
        assert_eq!(bad[1].arn, None);
    }

    #[test]
    fn garbage_is_an_error() {
        for text in [
            "",
            "[]",
            "{}",
            "null",
            r#"{"type":7}"#,
            r#"{"type":"Nope","message":{}}"#,
            "{\"type\":\"PayloadMessage\",\"message\":3}",
        ] {
            assert!(ServerMessage::decode(text).is_err(), "{text}");
        }
    }

    #[test]
    fn debug_keeps_secrets() {
        let text = r#"{"type":"IAMRoleCredentialsMessage","message":{"roleCredentials":{"accessKeyId":"CANARY",
            "secretAccessKey":"CANARY","sessionToken":"CANARY","credentialsId":"id"}}}"#;
        let message = ServerMessage::decode(text).unwrap();
        assert!(!format!("{message:?}").contains("CANARY"));
        let wrong = text.replace("\"CANARY\"", "[\"CANARY\"]");
        assert!(!format!("{:?}", ServerMessage::decode(&wrong)).contains("CANARY"));
    }
}
