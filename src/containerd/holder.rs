//! The container that holds the namespaces which the containers of a task share (`pidMode`, `ipcMode`;
//! spec task-engine 1.12), and how others join them.
//!
//! It is a container like another, so that it is found again, watched and ended like one, in its task's
//! shim; but it has no image. Its root is empty and read-only, the init program in it is called `pause`,
//! and it may do nothing: it has no capability and an empty network.
//!
//! ```text
//!   holder:  pid and ipc of its own;               /dev/shm is a tmpfs of the host, <shm_dir>/<holder's id>
//!   others:  /proc/<holder's process>/ns/pid, ipc; /dev/shm is the same tmpfs
//! ```

use crate::containerd::connection::failure;
use crate::containerd::containers::ContainerService;
use crate::containerd::create::{Creation, SIGTERM, cannot_create};
use crate::containerd::docker_config::{
    self, ContainerSettings, DEFAULT_SHM_BYTES, IpcChoice, NamespaceSettings, PidChoice, Relabel,
};
use crate::containerd::events::now;
use crate::containerd::rootfs::ImageLook;
use crate::containerd::runtimes::RuntimeChoice;
use crate::containerd::shared_memory;
use crate::containerd::spec::mounts::BindMount;
use crate::containerd::volumes::Volume;
use crate::model::{
    ContainerId, ContainerSpec, IpcMode, LogDriver, LogSettings, NAMESPACE_HOLDER, PidMode, StopReason,
    TaskArn, TaskSpec, Wall,
};
use crate::ports::CreatePlan;
use containerd_client::types::v1::Status;
use oci_spec::image::ImageConfiguration;
use oci_spec::runtime::Spec;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Where the holder finds its program; its first argument, which tells it its role.
const PROGRAM: &str = "/pause";

impl ContainerService {
    /// Makes the holder and its process.
    pub(super) async fn create_holder(
        &self,
        plan: &CreatePlan,
        container: &ContainerSpec,
    ) -> Result<Wall, StopReason> {
        let unwritten = || cannot_create("the program that holds namespaces could not be written");
        let program = self.options.init_program.as_deref().ok_or_else(unwritten)?;
        let mut volumes = vec![volume(program, PROGRAM, true)];
        if plan.spec.ipc_mode == IpcMode::Task {
            let shared = self.shared_memory_of(&plan.spec.arn);
            let directory = shared.clone();
            let work = move || shared_memory::mount(&directory, DEFAULT_SHM_BYTES);
            let mounted = tokio::task::spawn_blocking(work).await.map_err(cannot_create)?;
            mounted.map_err(|error| cannot_create(format!("shared memory {}: {error}", shared.display())))?;
            volumes.push(volume(&shared, "/dev/shm", false));
        }
        let creation = Creation {
            plan,
            settings: settings(container)?,
            image: Arc::new(ImageConfiguration::default()),
            chain_id: None,
            image_name: "",
            image_id: String::new(),
            runtime: RuntimeChoice::default_of(&self.options),
            stop_signal: SIGTERM,
            volumes,
            links: Vec::new(),
            health: None,
        };
        let ground = self.lay(&creation).await?;
        self.record_container(&creation, &ground, &ImageLook::default()).await?;
        self.create_process(&creation, Vec::new(), ground.output).await?;
        Ok(now())
    }

    /// Puts what the task asks for in the place of what the documents do. Namespaces are named by a
    /// process: whether that was the holder until they were joined, [`Self::holds_still`] tells.
    pub(super) async fn join_namespaces(
        &self,
        task: &TaskSpec,
        into: &mut NamespaceSettings,
    ) -> Result<(), StopReason> {
        match task.pid_mode {
            PidMode::Unset => {}
            PidMode::Host => into.pid = PidChoice::Host,
            PidMode::Task => into.pid = PidChoice::Of(self.holder(&task.arn).await?),
        }
        match task.ipc_mode {
            IpcMode::Unset => {}
            IpcMode::None => into.ipc = IpcChoice::OwnWithoutShm,
            IpcMode::Host => into.ipc = IpcChoice::Host,
            IpcMode::Task => {
                let pid = self.holder(&task.arn).await?;
                into.ipc = IpcChoice::Of { pid, shm: self.shared_memory_of(&task.arn) };
            }
        }
        Ok(())
    }

    /// After the namespaces of a process were joined: one that still lives was no other meanwhile.
    pub(super) async fn holds_still(&self, task: &TaskArn, joined: Option<u32>) -> Result<(), StopReason> {
        match joined {
            Some(pid) if self.holder(task).await? != pid => Err(gone()),
            _ => Ok(()),
        }
    }

    /// The holder's process, by its number on the host.
    async fn holder(&self, task: &TaskArn) -> Result<u32, StopReason> {
        let process = self.process(&ContainerId::derive(task, NAMESPACE_HOLDER)).await;
        let process = process
            .map_err(|status| failure("CannotCreateContainerError", "look up the namespaces", &status))?;
        process.filter(|p| p.status == Status::Running as i32).map(|p| p.pid).ok_or_else(gone)
    }

    /// Gives back the memory that a holder's containers shared; says nothing of other containers.
    pub(super) async fn give_back_memory(&self, id: &ContainerId) -> Result<(), StopReason> {
        let directory = self.options.shm_dir.join(id.as_str());
        let failed = |words: String| StopReason::new("CannotRemoveContainerError", words);
        let unmounted = tokio::task::spawn_blocking(move || shared_memory::unmount(&directory)).await;
        let unmounted = unmounted.map_err(|error| failed(error.to_string()))?;
        unmounted.map_err(|error| failed(format!("shared memory of {id}: {error}")))
    }

    fn shared_memory_of(&self, task: &TaskArn) -> PathBuf {
        self.options.shm_dir.join(ContainerId::derive(task, NAMESPACE_HOLDER).as_str())
    }
}

/// The process whose namespaces a container joins.
pub(super) fn joined_process(document: &Spec) -> Option<u32> {
    let namespaces = document.linux().as_ref().and_then(|linux| linux.namespaces().as_ref());
    let paths = namespaces.into_iter().flatten().filter_map(|namespace| namespace.path().as_ref());
    paths.filter_map(|path| path.to_str()?.strip_prefix("/proc/")?.split('/').next()?.parse().ok()).next()
}

fn gone() -> StopReason {
    cannot_create("the task's shared namespaces are gone: what held them does not run")
}

/// A container that may do nothing.
fn settings(holder: &ContainerSpec) -> Result<ContainerSettings, StopReason> {
    Ok(ContainerSettings {
        entry_point: Some(vec![PROGRAM.to_owned()]),
        cap_drop: vec!["ALL"],
        no_new_privileges: true,
        read_only_rootfs: true,
        log: Some(LogSettings { driver: LogDriver::None, ..LogSettings::default() }),
        ..docker_config::merge(holder)?
    })
}

fn volume(source: &Path, target: &str, read_only: bool) -> Volume {
    let bind = BindMount {
        source: source.to_owned(),
        target: target.to_owned(),
        read_only,
        propagation: None,
        without_submounts: false,
    };
    Volume { bind, copy_up: false, make: false, relabel: Relabel::No }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_tells_whose_namespaces_it_joins() {
        let document = |path: Option<&str>| {
            let pid = serde_json::json!({"type": "pid", "path": path});
            let network = serde_json::json!({"type": "network", "path": "/run/ecsd/netns/n"});
            serde_json::from_value(serde_json::json!({
                "ociVersion": "1.0.2", "linux": {"namespaces": [network, {"type": "mount"}, pid]}
            }))
            .unwrap()
        };
        assert_eq!(joined_process(&document(Some("/proc/4711/ns/pid"))), Some(4711));
        assert_eq!(joined_process(&document(None)), None);
        assert_eq!(joined_process(&Spec::default()), None);
    }
}
