//! Identifiers. A task ARN is not a string, and no identifier reaches a path or a containerd key
//! before it was checked here.

use sha2::{Digest, Sha256};
use std::fmt;
use std::sync::Arc;

/// What was wrong with an identifier.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// Not `arn:<partition>:ecs:<region>:<account>:task/[<cluster>/]<id>`.
    #[error(
        "{0:?} is not a task ARN: expected arn:<partition>:ecs:<region>:<account>:task/[<cluster>/]<task id>"
    )]
    TaskArn(String),
}

/// The ARN of a task, as the control plane writes it; its last part was checked to be fit for a
/// file name.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskArn(String);

impl TaskArn {
    /// Checks and takes an ARN.
    ///
    /// # Errors
    /// [`IdError::TaskArn`] where the text is no task ARN, or its id holds anything but
    /// `[A-Za-z0-9_-]` (1 to 128 characters): it becomes a path, a cgroup and a unit name.
    pub fn parse(text: &str) -> Result<Self, IdError> {
        let bad = || IdError::TaskArn(text.chars().take(256).collect());
        let mut parts = text.splitn(6, ':');
        let head = (parts.next(), parts.next(), parts.next());
        let resource = parts.nth(2).ok_or_else(bad)?;
        let (Some("arn"), Some(_), Some("ecs")) = head else { return Err(bad()) };
        let path = resource.strip_prefix("task/").ok_or_else(bad)?;
        let id = path.rsplit('/').next().unwrap_or_default();
        let fit = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if id.is_empty() || id.len() > 128 || !id.chars().all(fit) {
            return Err(bad());
        }
        Ok(Self(text.to_owned()))
    }

    /// The task id: the last part of the ARN.
    pub fn id(&self) -> TaskId {
        TaskId(self.0.rsplit('/').next().unwrap_or_default().into())
    }

    /// The ARN as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The last part of a task's ARN; fit for file, cgroup and unit names. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskId(Arc<str>);

impl TaskId {
    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Names one container of one task.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContainerKey {
    /// The task.
    pub task: TaskId,
    /// The container's name in the task definition.
    pub name: String,
}

/// The runtime id of a container: 64 hexadecimal digits, derived from the task's ARN and the
/// container's name, so that a crash between creating and recording can never make a second one.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContainerId(String);

impl ContainerId {
    /// The one id that this container of this task has, always.
    pub fn derive(task: &TaskArn, name: &str) -> Self {
        let mut hash = Sha256::new();
        hash.update(task.as_str().as_bytes());
        hash.update([0]);
        hash.update(name.as_bytes());
        Self(hex::encode(hash.finalize()))
    }

    /// Takes an id that containerd or the store holds; any text, compared only.
    pub fn from_recorded(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The first 12 digits, Docker's short form (host names, log tags).
    pub fn short(&self) -> &str {
        self.0.get(..12).unwrap_or(&self.0)
    }
}

/// The random id by which a container addresses the metadata endpoint (`/v3/<id>`, `/v4/<id>`).
/// Random, not derived: who knows it may read the task's metadata.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EndpointId(String);

impl EndpointId {
    /// Takes a fresh or recorded id.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

macro_rules! show_as_text {
    ($($id:ty),*) => {$(
        impl fmt::Display for $id {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { f.write_str(&self.0) }
        }
        impl fmt::Debug for $id {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { f.write_str(&self.0) }
        }
    )*};
}
show_as_text!(TaskArn, TaskId, ContainerId, EndpointId);

impl fmt::Display for ContainerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.task, self.name)
    }
}

impl fmt::Debug for ContainerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_arn_gives_its_id_in_both_shapes() {
        for arn in ["arn:aws:ecs:us-west-2:1:task/c/0a-1", "arn:aws-cn:ecs:x:1:task/0a-1"] {
            assert_eq!(TaskArn::parse(arn).unwrap().id().as_str(), "0a-1");
        }
    }

    #[test]
    fn hostile_arns_are_refused() {
        for arn in [
            "",
            "x",
            "arn:aws:ecs:r:1:task/c/..",
            "arn:aws:ecs:r:1:task/",
            "arn:aws:s3:r:1:task/a",
            "arn:aws:ecs:r:1:task/c/a b",
            "arn:aws:ecs:r:1:service/a",
        ] {
            assert!(TaskArn::parse(arn).is_err(), "{arn}");
        }
    }

    #[test]
    fn container_ids_are_derived_and_distinct() {
        let arn = TaskArn::parse("arn:aws:ecs:r:1:task/c/a").unwrap();
        let id = ContainerId::derive(&arn, "web");
        assert_eq!(id, ContainerId::derive(&arn, "web"));
        assert_ne!(id, ContainerId::derive(&arn, "web2"));
        assert_eq!((id.as_str().len(), id.short().len()), (64, 12));
    }
}
