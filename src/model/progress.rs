//! What has become of a task: all that must survive a crash, and nothing that can be derived.

use crate::model::image::ImageDigest;
use crate::model::network::ContainerAddress;
use crate::model::status::{ContainerStatus, DesiredStatus, TaskStatus};
use crate::model::time::Wall;
use std::collections::BTreeMap;

/// The progress of a task and its containers.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct TaskProgress {
    /// What is wanted of it.
    pub desired: DesiredStatus,
    /// What is known of it.
    pub known: TaskStatus,
    /// The greatest status that the control plane has acknowledged.
    pub sent: TaskStatus,
    /// Why the task as a whole ended; empty where the containers tell.
    pub reason: String,
    /// It holds resources of the host.
    pub admitted: bool,
    /// First attempt to pull.
    pub pull_started_at: Option<Wall>,
    /// Last pull ended.
    pub pull_stopped_at: Option<Wall>,
    /// First essential container ended.
    pub execution_stopped_at: Option<Wall>,
    /// `known` became STOPPED.
    pub stopped_at: Option<Wall>,
    /// By container name.
    pub containers: BTreeMap<String, ContainerProgress>,
}

/// The progress of a container.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ContainerProgress {
    /// What is known of it.
    pub known: ContainerStatus,
    /// The greatest status that the control plane has acknowledged.
    pub sent: ContainerStatus,
    /// Digest that the registry gave for its tag.
    pub digest: Option<ImageDigest>,
    /// Digest of the image's configuration (Docker's image id).
    pub image_id: Option<ImageDigest>,
    /// Created in the runtime.
    pub created_at: Option<Wall>,
    /// Process started.
    pub started_at: Option<Wall>,
    /// How it ended.
    pub exit: Option<ExitRecord>,
    /// What went wrong, where anything did.
    pub error: Option<StopReason>,
    /// Where it is on the network.
    pub address: ContainerAddress,
    /// Restarts by its policy.
    pub restarts: Restarts,
}

/// How often a container was restarted by its policy, and the last time.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Restarts {
    /// How many were begun.
    pub count: u32,
    /// When the last one was begun.
    pub last: Option<Wall>,
    /// The exit that the last one answers: seen again, it is no new one.
    pub answers: Option<ExitRecord>,
    /// The last one was begun, and nobody has seen its process run yet.
    pub under_way: bool,
}

/// How a container's process ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExitRecord {
    /// Exit code; `None` where the process never ran, or its code is lost.
    pub code: Option<i32>,
    /// When.
    pub at: Wall,
}

/// An error as the control plane and its users see it: `<name>: <message>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StopReason {
    /// The original agent's name for it, such as `CannotPullContainerError`; empty where it has none.
    pub name: String,
    /// What happened, with the registry's or the runtime's own words.
    pub message: String,
}

impl StopReason {
    /// Puts a reason together.
    pub fn new(name: &str, message: impl Into<String>) -> Self {
        Self { name: name.to_owned(), message: message.into() }
    }
}

impl std::fmt::Display for StopReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.name.is_empty() {
            true => f.write_str(&self.message),
            false => write!(f, "{}: {}", self.name, self.message),
        }
    }
}
