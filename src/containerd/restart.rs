//! Another process of the same container, after one that has ended: on the same snapshot, with the same
//! document, so in the same network and cgroup, and with its output going on in the same file. All that
//! is needed is in containerd's record, so it works for what an earlier life of the agent had made.

use crate::containerd::connection::failure;
use crate::containerd::containers::{ContainerService, LABEL_OUTPUT, LABEL_TASK_ARN};
use crate::containerd::create::with_label;
use crate::containerd::events::now;
use crate::containerd::holder::joined_process;
use crate::containerd::logger;
use crate::model::{ContainerId, StopReason, TaskArn, Wall};
use crate::ports::VolumeUse;
use containerd_client::services::v1::snapshots::MountsRequest;
use containerd_client::services::v1::{Container, CreateTaskRequest};
use containerd_client::types::v1::{Process, Status};
use oci_spec::runtime::Spec;

fn cannot_start(words: impl std::fmt::Display) -> StopReason {
    StopReason::new("CannotStartContainerError", format!("restart: {words}"))
}

impl ContainerService {
    pub(super) async fn restart_process(&self, id: &ContainerId) -> Result<Wall, StopReason> {
        let failed = |status: tonic::Status| failure("CannotStartContainerError", "restart", &status);
        let record = self.record(id).await.map_err(failed)?;
        let record = record.ok_or_else(|| cannot_start("containerd has no such container"))?;
        let before = self.process(id).await.map_err(failed)?;
        match before.as_ref().map(Process::status) {
            // A restart before this one, whose answer was lost, came so far.
            Some(Status::Created) => {}
            Some(Status::Running | Status::Paused | Status::Pausing) => return Ok(now()),
            Some(Status::Stopped | Status::Unknown) | None => {
                // Gone with its shim's last word: its logger has written all that there was.
                self.delete_process(id).await?;
                self.attach_again(id, &record).await?;
                self.make_again(id, &record, before.as_ref()).await?;
            }
        }
        self.start_process(id).await
    }

    /// The host may have started anew in between: what its volumes are to mount is mounted no more.
    async fn attach_again(&self, id: &ContainerId, record: &Container) -> Result<(), StopReason> {
        let spec = document(record).unwrap_or_default();
        let sources = spec.mounts().iter().flatten().filter(|mount| mount.typ().as_deref() == Some("bind"));
        let uses: Vec<VolumeUse> = sources.filter_map(|m| m.source().clone().map(VolumeUse::At)).collect();
        self.volumes.attach(id, &uses).await.map(drop)
    }

    async fn make_again(
        &self,
        id: &ContainerId,
        record: &Container,
        before: Option<&Process>,
    ) -> Result<(), StopReason> {
        let task = record.labels.get(LABEL_TASK_ARN).and_then(|arn| TaskArn::parse(arn).ok());
        let task = task.ok_or_else(|| cannot_start("its record names no task"))?;
        let document = document(record);
        let request =
            MountsRequest { snapshotter: record.snapshotter.clone(), key: record.snapshot_key.clone() };
        let rootfs = self.snapshots().mounts(self.connection.request(request)).await;
        let rootfs =
            rootfs.map_err(|status| failure("CannotStartContainerError", "its snapshot", &status))?;
        // Records of older agents don't tell.
        let output = record.labels.get(LABEL_OUTPUT).cloned();
        let output = output.or_else(|| before.map(|process| process.stdout.clone())).unwrap_or_default();
        let label = document.as_ref().and_then(|d| d.linux().as_ref()?.mount_label().as_deref());
        let request = CreateTaskRequest {
            container_id: id.as_str().to_owned(),
            rootfs: with_label(rootfs.into_inner().mounts, label),
            terminal: document.as_ref().is_some_and(has_terminal),
            stdout: output.clone(),
            stderr: output,
            ..CreateTaskRequest::default()
        };
        let output = request.stdout.clone();
        self.make_process(&task.id(), id, request).await?;
        logger::opened(&output)?;
        let joined = document.as_ref().and_then(joined_process);
        self.holds_still(&task, joined).await
    }
}

/// What the OCI document asks for.
fn has_terminal(document: &Spec) -> bool {
    document.process().as_ref().and_then(|process| process.terminal()).unwrap_or(false)
}

fn document(record: &Container) -> Option<Spec> {
    let document = record.spec.as_ref().map(|spec| spec.value.as_slice()).unwrap_or_default();
    serde_json::from_slice(document).ok()
}
