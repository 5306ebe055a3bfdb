//! What an announcement of network interfaces or of an attachment must hold to be taken
//! (spec/control-plane.md 3.4).

use super::wire;
use crate::control::payload::interface::{self, InterfaceError};
use crate::model::{Attachment, MacAddress, TaskArn, Wall};
use std::time::SystemTime;

/// Interfaces in one message.
const MAX_INTERFACES: usize = 128;

/// Why a message is not taken. It is not acknowledged then.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum AttachError {
    /// A member that must be there.
    #[error("{0} is empty")]
    Empty(&'static str),
    /// A number or a list out of bounds.
    #[error("{what} is {value}: it must be {limits}")]
    OutOfBounds {
        /// The member.
        what: &'static str,
        /// What it is.
        value: i64,
        /// What it may be.
        limits: &'static str,
    },
    /// Not the ARN of a task.
    #[error(transparent)]
    Task(#[from] crate::model::ids::IdError),
    /// Not an ARN at all.
    #[error("{what} {value:?} is no ARN")]
    Arn {
        /// The member.
        what: &'static str,
        /// What it is, cut to a sensible length.
        value: String,
    },
    /// An interface that can't be used.
    #[error(transparent)]
    Interface(#[from] InterfaceError),
    /// A property that the type of attachment asks for.
    #[error("an attachment of type {kind:?} has no usable property {property}")]
    Property {
        /// Type.
        kind: String,
        /// Property.
        property: &'static str,
    },
}

/// The interfaces announced for a task.
pub(super) fn of_task(
    message: &wire::AttachTaskNetworkInterfacesMessage,
) -> Result<Vec<Attachment>, AttachError> {
    filled("messageId", &message.message_id)?;
    filled("clusterArn", &message.cluster_arn)?;
    filled("containerInstanceArn", &message.container_instance_arn)?;
    filled("taskClusterArn", &message.task_cluster_arn)?;
    let task = TaskArn::parse(&message.task_arn)?;
    attachments(&message.elastic_network_interfaces, message.wait_timeout_ms, Some(task))
}

/// The interfaces announced for the instance.
pub(super) fn of_instance(
    message: &wire::AttachInstanceNetworkInterfacesMessage,
) -> Result<Vec<Attachment>, AttachError> {
    filled("messageId", &message.message_id)?;
    filled("clusterArn", &message.cluster_arn)?;
    filled("containerInstanceArn", &message.container_instance_arn)?;
    attachments(&message.elastic_network_interfaces, message.wait_timeout_ms, None)
}

fn attachments(
    interfaces: &[wire::ElasticNetworkInterface],
    wait_timeout_ms: i64,
    task: Option<TaskArn>,
) -> Result<Vec<Attachment>, AttachError> {
    let wait_ms =
        u64::try_from(wait_timeout_ms).ok().filter(|ms| *ms > 0).ok_or(AttachError::OutOfBounds {
            what: "waitTimeoutMs",
            value: wait_timeout_ms,
            limits: "more than 0",
        })?;
    if interfaces.is_empty() || interfaces.len() > MAX_INTERFACES {
        let value = i64::try_from(interfaces.len()).unwrap_or(i64::MAX);
        let what = "elasticNetworkInterfaces: their number";
        return Err(AttachError::OutOfBounds { what, value, limits: "1 to 128" });
    }
    let Wall(now) = SystemTime::now().into();
    let expires_at = Wall(now.saturating_add(wait_ms.saturating_mul(1_000_000)));
    let attachment = |interface: &wire::ElasticNetworkInterface| {
        let mac: MacAddress = interface::check(interface)?;
        filled("attachmentArn", &interface.attachment_arn)?;
        let arn = interface.attachment_arn.clone();
        Ok(Attachment { arn, mac, task: task.clone(), expires_at, sent: false })
    };
    interfaces.iter().map(attachment).collect()
}

/// Checks a ConfirmAttachmentMessage; answers the type of its attachment.
pub(super) fn check_confirmation(message: &wire::ConfirmAttachmentMessage) -> Result<String, AttachError> {
    filled("messageId", &message.message_id)?;
    arn("clusterArn", &message.cluster_arn)?;
    arn("containerInstanceArn", &message.container_instance_arn)?;
    filled("taskClusterArn", &message.task_cluster_arn)?;
    TaskArn::parse(&message.task_arn)?;
    if message.wait_timeout_ms < 0 {
        let (value, limits) = (message.wait_timeout_ms, "0 for 300000, or more");
        return Err(AttachError::OutOfBounds { what: "waitTimeoutMs", value, limits });
    }
    let attachment = message.attachment.as_ref().ok_or(AttachError::Empty("attachment"))?;
    arn("attachmentArn", &attachment.attachment_arn)?;
    let kind: String = attachment.attachment_type.chars().take(64).collect();
    let value = |name: &str| {
        attachment.attachment_properties.iter().find(|p| p.name == name).map_or("", |p| p.value.as_str())
    };
    let missing = |property| AttachError::Property { kind: kind.clone(), property };
    let required: &[&'static str] = match kind.as_str() {
        "amazonebs" => {
            if !matches!(value("fileSystem"), "" | "xfs" | "ext2" | "ext3" | "ext4" | "ntfs") {
                return Err(missing("fileSystem"));
            }
            &["volumeId", "volumeSizeGib", "deviceName", "sourceVolumeHostPath", "volumeName"]
        }
        _ => match value("resourceType") {
            "EphemeralStorage" | "ElasticBlockStorage" => &["volumeID", "deviceName"],
            _ => return Err(missing("resourceType")),
        },
    };
    match required.iter().find(|name| value(name).is_empty()) {
        Some(name) => Err(missing(name)),
        None => Ok(kind),
    }
}

fn filled(what: &'static str, value: &str) -> Result<(), AttachError> {
    if value.is_empty() { Err(AttachError::Empty(what)) } else { Ok(()) }
}

/// `arn:<partition>:<service>:<region>:<account>:<resource>`
fn arn(what: &'static str, value: &str) -> Result<(), AttachError> {
    if value.starts_with("arn:") && value.splitn(6, ':').count() == 6 {
        return Ok(());
    }
    Err(AttachError::Arn { what, value: value.chars().take(128).collect() })
}
