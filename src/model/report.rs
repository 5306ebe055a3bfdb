//! What is told to the control plane (spec/control-plane.md 5.4).

use crate::model::ids::{ContainerId, TaskArn};
use crate::model::image::ImageDigest;
use crate::model::network::NetworkBinding;
use crate::model::status::{ContainerStatus, TaskStatus};
use crate::model::time::Wall;

/// The body of one SubmitTaskStateChange.
#[derive(Debug, Clone, PartialEq)]
pub struct TaskStateChange {
    /// The task.
    pub task: TaskArn,
    /// Its status; written as PENDING before RUNNING.
    pub status: TaskStatus,
    /// Always sent, mostly empty.
    pub reason: String,
    /// Containers that changed since the last report.
    pub containers: Vec<ContainerChange>,
    /// First pull started.
    pub pull_started_at: Option<Wall>,
    /// Last pull ended.
    pub pull_stopped_at: Option<Wall>,
    /// First essential container ended.
    pub execution_stopped_at: Option<Wall>,
}

/// One container in a report.
#[derive(Debug, Clone, PartialEq)]
pub struct ContainerChange {
    /// Name.
    pub name: String,
    /// Status; written as PENDING before RUNNING.
    pub status: ContainerStatus,
    /// Runtime id, once created.
    pub runtime_id: Option<ContainerId>,
    /// Digest of the image's tag.
    pub digest: Option<ImageDigest>,
    /// Exit code, once stopped; 0 is sent.
    pub exit_code: Option<i32>,
    /// What went wrong.
    pub reason: Option<String>,
    /// Host ports.
    pub bindings: Vec<NetworkBinding>,
}
