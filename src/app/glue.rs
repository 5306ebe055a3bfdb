//! Where adapters meet that must not know one another: each type here holds one and answers for it
//! under the trait of another.

use crate::containerd::images::{ImageStore, Pulls};
use crate::containerd::{ImageLookup, UnpackedImageInfo, logger_file};
use crate::control::CredentialsStore;
use crate::logs::counters;
use crate::model::{CredentialsId, PullUnderWay, RoleCredentials, StopReason, TaskSpec};
use crate::ports::{TasksView, task_directory};
use crate::tmds::{CredentialsAnswer, CredentialsLookup, LogsLookup, PullsLookup, Snapshot};
use futures_util::future::BoxFuture;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::watch;

/// Images for whoever makes containers.
pub struct Images(pub ImageStore);

impl ImageLookup for Images {
    fn unpacked<'a>(&'a self, image: &'a str) -> BoxFuture<'a, Result<UnpackedImageInfo, StopReason>> {
        Box::pin(async move {
            let image = self.0.image_config(image).await?;
            Ok(UnpackedImageInfo {
                config: image.config.clone(),
                health: image.health.clone(),
                chain_id: image.chain_id.clone(),
                id: image.id.clone(),
            })
        })
    }
}

/// Pulls for the introspection endpoint.
pub struct PullsUnderWay(pub Pulls);

impl PullsLookup for PullsUnderWay {
    fn pulls(&self) -> Vec<PullUnderWay> {
        self.0.now()
    }
}

/// Role credentials for the metadata endpoint. An id that belongs to a task but was not delivered in
/// this life yet is known all the same: the SDKs then ask again.
pub struct Credentials {
    /// What ACS delivered.
    pub delivered: CredentialsStore,
    /// The tasks, for the ids they name.
    pub tasks: watch::Receiver<TasksView>,
}

impl CredentialsLookup for Credentials {
    fn get(&self, id: &str) -> CredentialsAnswer {
        let id = CredentialsId(id.to_owned());
        if let Some(found) = self.delivered.get(&id) {
            return CredentialsAnswer::Found(RoleCredentials::clone(&found));
        }
        let names = |task: &crate::ports::TaskView| {
            task.spec.task_role.as_ref() == Some(&id) || task.spec.execution_role.as_ref() == Some(&id)
        };
        if self.tasks.borrow().values().any(|task| names(task)) {
            CredentialsAnswer::KnownButAbsent
        } else {
            CredentialsAnswer::Unknown
        }
    }
}

/// What the loggers lost, for the introspection endpoint.
pub struct LogLosses {
    /// `ECS_DATADIR`
    pub data_dir: PathBuf,
}

impl LogsLookup for LogLosses {
    fn dropped(&self, task: &TaskSpec, container: &str) -> u64 {
        let directory = task_directory(&self.data_dir, &task.id()).join(container);
        counters::dropped(&logger_file(&directory))
    }
}

/// What the endpoints answer from, made of the engine's view and what registering told; runs for as
/// long as the engine does.
pub async fn publish_snapshots(
    mut tasks: watch::Receiver<TasksView>,
    mut instance: watch::Receiver<Instance>,
    snapshots: watch::Sender<Arc<Snapshot>>,
) {
    loop {
        let view = tasks.borrow_and_update().clone();
        let about = instance.borrow_and_update().clone();
        snapshots.send_replace(Arc::new(Snapshot {
            cluster: about.cluster,
            container_instance_arn: about.arn,
            availability_zone: about.availability_zone,
            tasks: view.values().cloned().collect(),
            ..Snapshot::default()
        }));
        // Both only tell that there is something newer: cancel-safe.
        tokio::select! {
            changed = tasks.changed() => if changed.is_err() { return },
            changed = instance.changed() => if changed.is_err() { return },
        }
    }
}

/// What is known of the container instance.
#[derive(Debug, Clone, Default)]
pub struct Instance {
    /// Cluster.
    pub cluster: String,
    /// ARN, once registered.
    pub arn: Option<String>,
    /// Availability zone.
    pub availability_zone: Option<String>,
}
