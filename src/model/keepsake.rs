//! What a container carries of its task, in case that the agent's own record of it is lost.

use crate::model::ids::{ContainerId, TaskArn};
use crate::model::network::ContainerAddress;
use crate::model::time::Wall;
use std::sync::Arc;

/// Kept beside the container by the runtime: with it the task can be taken up again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keepsake {
    /// The task, as the store keeps it.
    pub source: Arc<str>,
    /// Where the container is on the network.
    pub address: ContainerAddress,
    /// ARN of the container instance that made it; empty where that was not known yet.
    pub instance: String,
}

/// A container of an agent, as the runtime knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldContainer {
    /// ARN of its task.
    pub arn: TaskArn,
    /// Its runtime id.
    pub id: ContainerId,
    /// When it was made.
    pub created_at: Option<Wall>,
    /// The cluster that its agent belonged to; empty where it was not noted.
    pub cluster: String,
    /// What it carries; `None` where there is nothing, or nothing that reads.
    pub keepsake: Option<Keepsake>,
}
