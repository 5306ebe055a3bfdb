//! Containers in our namespace that no task brought: what they use of images, and their removal where
//! `ECS_ENABLE_UNTRACKED_IMAGE_CLEANUP` asks for it. Containers of tasks are never touched here.

use crate::containerd::Connection;
use crate::containerd::containers::{LABEL_TASK_ARN, LARGEST_ANSWER};
use crate::containerd::events::wall;
use crate::containerd::image::error::PullError;
use crate::model::Wall;
use containerd_client::services::v1::containers_client::ContainersClient;
use containerd_client::services::v1::snapshots::RemoveSnapshotRequest;
use containerd_client::services::v1::snapshots::snapshots_client::SnapshotsClient;
use containerd_client::services::v1::tasks_client::TasksClient;
use containerd_client::services::v1::{
    Container, DeleteContainerRequest, DeleteTaskRequest, GetRequest, ListContainersRequest,
};
use containerd_client::types::v1::Status;
use std::time::Duration;
use tonic::Code;

/// What is removed, and how much of it at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StrangerRules {
    /// `NONECS_NUM_CONTAINERS_DELETE_PER_CYCLE`.
    pub per_cycle: usize,
    /// `ECS_ENGINE_TASK_CLEANUP_WAIT_DURATION`: since it ended, or was made where it never ran.
    pub minimum_age: Duration,
}

/// Every container record of our namespace.
///
/// # Errors
/// Where containerd does not say.
pub async fn containers(conn: &Connection) -> Result<Vec<Container>, PullError> {
    let mut client = ContainersClient::new(conn.channel()).max_decoding_message_size(LARGEST_ANSWER);
    let answer = client.list(conn.request(ListContainersRequest { filters: Vec::new() })).await;
    let answer = answer.map_err(|status| PullError::containerd("list containers", status))?;
    Ok(answer.into_inner().containers)
}

/// Removes those that ended long enough ago; answers how many.
pub async fn remove(conn: &Connection, containers: Vec<Container>, rules: StrangerRules, now: Wall) -> usize {
    let mut removed = 0;
    for container in containers.into_iter().filter(|c| !c.labels.contains_key(LABEL_TASK_ARN)) {
        if removed >= rules.per_cycle {
            break;
        }
        let Some(ended) = ended(conn, &container).await else { continue };
        if now.since(ended) < rules.minimum_age {
            continue;
        }
        match remove_one(conn, &container).await {
            Ok(()) => {
                tracing::info!(container = container.id, "a container that no task brought is removed");
                removed += 1;
            }
            Err(status) => {
                let error = status.message();
                tracing::warn!(container = container.id, error, "a container could not be removed");
            }
        }
    }
    removed
}

/// Since when it does nothing; `None` while it may do something.
async fn ended(conn: &Connection, container: &Container) -> Option<Wall> {
    let request = GetRequest { container_id: container.id.clone(), exec_id: String::new() };
    let made = container.created_at.as_ref().map(wall);
    match TasksClient::new(conn.channel()).get(conn.request(request)).await {
        Ok(answer) => {
            let process = answer.into_inner().process?;
            match Status::try_from(process.status) {
                Ok(Status::Stopped) => process.exited_at.as_ref().map(wall),
                // Never started.
                Ok(Status::Created) => made,
                _ => None,
            }
        }
        Err(status) if status.code() == Code::NotFound => made,
        Err(_) => None,
    }
}

async fn remove_one(conn: &Connection, container: &Container) -> Result<(), tonic::Status> {
    let gone = |result: Result<(), tonic::Status>| match result {
        Err(status) if status.code() == Code::NotFound => Ok(()),
        other => other,
    };
    // Refused where it was started meanwhile: then nothing else is touched.
    let request = DeleteTaskRequest { container_id: container.id.clone() };
    gone(TasksClient::new(conn.channel()).delete(conn.request(request)).await.map(drop))?;
    let request = DeleteContainerRequest { id: container.id.clone() };
    gone(ContainersClient::new(conn.channel()).delete(conn.request(request)).await.map(drop))?;
    if container.snapshot_key.is_empty() {
        return Ok(());
    }
    let request = RemoveSnapshotRequest {
        snapshotter: container.snapshotter.clone(),
        key: container.snapshot_key.clone(),
    };
    gone(SnapshotsClient::new(conn.channel()).remove(conn.request(request)).await.map(drop))
}
