//! What the endpoints answer from: a read-only view of every task, replaced as a whole.

use crate::model::{ContainerProgress, ContainerSpec};
pub use crate::ports::TaskView;
use std::sync::Arc;

/// All that the endpoints may tell. Cheap to publish: tasks that did not change are shared.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// Cluster as registered, name or ARN (`ECS_CLUSTER`).
    pub cluster: String,
    /// Set once the host is registered.
    pub container_instance_arn: Option<String>,
    /// Availability zone; `None` where unknown or `ECS_DISABLE_TASK_METADATA_AZ`.
    pub availability_zone: Option<String>,
    /// Id of the availability zone; the same.
    pub availability_zone_id: Option<String>,
    /// VPC of the host's primary interface.
    pub vpc_id: Option<String>,
    /// Every task that the engine knows.
    pub tasks: Vec<Arc<TaskView>>,
}

/// One container within a snapshot.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ContainerView<'a> {
    pub(crate) task: &'a TaskView,
    pub(crate) spec: &'a ContainerSpec,
    /// `None` where the engine has not begun with it.
    pub(crate) progress: Option<&'a ContainerProgress>,
}

/// How far a container is, as far as the endpoints care.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Not shown at all.
    Unseen,
    /// Its image is there; shown by v4 only, without id and networks.
    Pulled,
    /// The runtime holds it, or held it.
    Created,
}

impl Snapshot {
    /// The task and container that an endpoint id stands for.
    pub(crate) fn endpoint(&self, id: &str) -> Option<ContainerView<'_>> {
        // A few hundred short strings: a scan costs less than keeping an index right.
        self.containers().find(|c| !id.is_empty() && c.spec.endpoint.as_str() == id)
    }

    /// Every container of every task.
    pub(crate) fn containers(&self) -> impl Iterator<Item = ContainerView<'_>> {
        self.tasks.iter().flat_map(|task| task.containers())
    }
}

impl TaskView {
    /// Its containers, in the order of the task definition.
    pub(crate) fn containers(&self) -> impl Iterator<Item = ContainerView<'_>> {
        let view =
            |spec| ContainerView { task: self, spec, progress: self.progress.containers.get(&spec.name) };
        self.spec.containers.iter().map(view)
    }
}

impl ContainerView<'_> {
    /// How far it is.
    pub(crate) fn stage(&self) -> Stage {
        use crate::model::ContainerStatus::Pulled;
        match self.progress {
            Some(p) if p.created_at.is_some() => Stage::Created,
            Some(p) if p.known == Pulled => Stage::Pulled,
            _ => Stage::Unseen,
        }
    }

    /// How often it was restarted; `None` without a restart policy.
    pub(crate) fn restart_count(&self) -> Option<u32> {
        self.spec.restart.as_ref().map(|_| self.progress.map(|p| p.restarts.count).unwrap_or_default())
    }

    /// Its runtime id, in Docker's form.
    pub(crate) fn id(&self) -> String {
        self.task.spec.container_id(&self.spec.name).as_str().to_owned()
    }
}
