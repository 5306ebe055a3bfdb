//! Containers and their processes in containerd: the implementation of [`crate::ports::Containers`].
//!
//! ```text
//! create ── create.rs ──> Snapshots.Prepare, Containers.Create, Tasks.Create     (3 calls)
//! start, wait, signal, kill, release ── process.rs ──> Tasks.*
//! restart ── restart.rs ──> Tasks.Delete, Tasks.Create, Tasks.Start
//! remove, list, held ── here;  relist_due ── events.rs
//! ```
//! Snapshot, record and process all have the container's id for key, which is derived from task
//! and name: whatever is found already made is ours, and every call may be made again. The app
//! runs [`ContainerService::follow_events`] for as long as it lives. Nothing here ever stops a
//! container that it was not told to stop, and nothing touches another namespace.

use crate::containerd::Connection;
use crate::containerd::calls::Calls;
use crate::containerd::connection::failure;
use crate::containerd::create::LookCache;
use crate::containerd::events::{EventHub, wall};
use crate::containerd::groups::ShimGroups;
use crate::containerd::keepsake;
use crate::containerd::lookup::ImageLookup;
use crate::containerd::marks::KnownMarks;
use crate::containerd::oom::OomCounters;
use crate::containerd::selinux;
use crate::containerd::spec::facts::HostFacts;
use crate::core::Observed;
use crate::model::logging::LogHost;
use crate::model::{ContainerId, ContainerKey, ExitRecord, HeldContainer, StopReason, TaskArn, Wall};
use crate::ports::{ContainerExit, Containers, CreatePlan, Volumes};
use containerd_client::services::v1::containers_client::ContainersClient;
use containerd_client::services::v1::snapshots::RemoveSnapshotRequest;
use containerd_client::services::v1::snapshots::snapshots_client::SnapshotsClient;
use containerd_client::services::v1::tasks_client::TasksClient;
use containerd_client::services::v1::{
    Container, DeleteContainerRequest, ListContainersRequest, ListTasksRequest,
};
use containerd_client::types::v1::{Process, Status};
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream;
use std::collections::{BTreeMap, HashMap};
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use tonic::Code;

/// Label: ARN of the task. With the name, what makes a container ours.
pub const LABEL_TASK_ARN: &str = "com.amazonaws.ecs.task-arn";
/// Label: name in the task definition.
pub const LABEL_CONTAINER_NAME: &str = "com.amazonaws.ecs.container-name";
/// Label: the cluster that the agent belongs to.
const LABEL_CLUSTER: &str = "com.amazonaws.ecs.cluster";
/// Label: number of the stop signal, so that it outlives the agent.
pub const LABEL_STOP_SIGNAL: &str = "com.ecsd.stop-signal";
/// Label: cgroup, as the OCI spec names it, for its counters.
pub const LABEL_CGROUP: &str = "com.ecsd.cgroup";
/// Label with the address in a network of its own, for those that are linked to it.
pub const LABEL_ADDRESS: &str = "com.ecsd.address";

/// Label: where its output goes, as the shim is told, so that its next process writes there too.
pub const LABEL_OUTPUT: &str = "com.ecsd.output";

/// The largest answer that is taken: a list of many containers carries all their specs.
pub(super) const LARGEST_ANSWER: usize = 64 << 20;

/// Containers that are asked for by name at once, where the list did not tell of them.
const ASKED_AT_ONCE: usize = 32;

/// How containers are made on this host.
#[derive(Debug, Clone)]
pub struct ContainerOptions {
    /// containerd's snapshotter, such as `overlayfs`.
    pub snapshotter: String,
    /// containerd's runtime, such as `io.containerd.runc.v2`.
    pub runtime: String,
    /// A runc-compatible program; `None` is the shim's own choice, `runc`.
    pub runtime_binary: Option<String>,
    /// cgroups are made by systemd, and named `slice:prefix:name`.
    pub systemd_cgroup: bool,
    /// On cgroup v2 a container without a memory limit of its own gets its task's
    /// (ECS_PROPAGATE_TASK_MEMORY_LIMIT_CGROUPV2).
    pub propagate_task_memory: bool,
    /// Containers get SELinux labels, where the host has SELinux (ECS_SELINUX_CAPABLE).
    pub selinux: bool,
    /// The program that writes a container's log; absolute.
    pub logger_program: PathBuf,
    /// What loggers that speak HTTP need to know.
    pub log_host: LogHost,
    /// Where [`super::init::install`] wrote the program that is PID 1; `None` where it could not.
    pub init_program: Option<PathBuf>,
    /// What gives containers GPUs: `nvidia`, a path, or the name of a program (`ECS_NVIDIA_RUNTIME`).
    pub nvidia_runtime: String,
    /// Containers that name Neuron devices get them.
    pub inferentia: bool,
    /// Where memory that containers share is mounted; need not survive a reboot.
    pub shm_dir: PathBuf,
}

/// The containers of one containerd namespace. Shared by reference; every call is concurrent.
pub struct ContainerService {
    pub(super) connection: Connection,
    pub(super) options: ContainerOptions,
    pub(super) images: Arc<dyn ImageLookup>,
    pub(super) volumes: Arc<dyn Volumes>,
    pub(super) host: HostFacts,
    pub(super) events: EventHub,
    pub(super) groups: ShimGroups,
    pub(super) looks: LookCache,
    pub(super) gateway: OnceLock<Ipv4Addr>,
    pub(super) kills: OomCounters,
    pub(super) marks: KnownMarks,
}

impl ContainerService {
    /// Puts it together; reads the host's facts, calls nothing.
    pub fn new(
        connection: Connection,
        options: ContainerOptions,
        images: Arc<dyn ImageLookup>,
        volumes: Arc<dyn Volumes>,
    ) -> Self {
        let selinux = if options.selinux { selinux::contexts() } else { None };
        Self {
            connection,
            images,
            volumes,
            host: HostFacts { selinux, init: options.init_program.clone(), ..HostFacts::read() },
            options,
            events: EventHub::default(),
            groups: ShimGroups::default(),
            looks: LookCache::default(),
            gateway: OnceLock::new(),
            kills: OomCounters::default(),
            marks: KnownMarks::default(),
        }
    }

    /// The host's address on the containers' bridge, for those that ask for it by `host-gateway`. Once,
    /// before the first container.
    pub fn set_gateway(&self, gateway: Ipv4Addr) {
        let _ = self.gateway.set(gateway);
    }

    /// Follows containerd's events for ever. One task runs it for the life of the agent; without
    /// it everything still works, later and without [`Containers::relist_due`].
    pub async fn follow_events(&self) {
        self.events.follow(&self.connection).await;
    }

    pub(super) fn tasks(&self) -> TasksClient<Calls> {
        TasksClient::new(self.connection.channel()).max_decoding_message_size(LARGEST_ANSWER)
    }

    pub(super) fn containers(&self) -> ContainersClient<Calls> {
        ContainersClient::new(self.connection.channel()).max_decoding_message_size(LARGEST_ANSWER)
    }

    pub(super) fn snapshots(&self) -> SnapshotsClient<Calls> {
        SnapshotsClient::new(self.connection.channel())
    }

    async fn remove_all(&self, id: &ContainerId) -> Result<(), StopReason> {
        let request = DeleteContainerRequest { id: id.as_str().to_owned() };
        let record = self.containers().delete(self.connection.request(request)).await;
        let request = RemoveSnapshotRequest {
            snapshotter: self.options.snapshotter.clone(),
            key: id.as_str().to_owned(),
        };
        let snapshot = self.snapshots().remove(self.connection.request(request)).await;
        self.events.forget(id);
        self.marks.forget(id);
        for (what, answer) in [("delete container", record.err()), ("remove snapshot", snapshot.err())] {
            if let Some(status) = answer.filter(|status| status.code() != Code::NotFound) {
                return Err(failure("CannotRemoveContainerError", &format!("{what} {id}"), &status));
            }
        }
        Ok(())
    }

    /// The records of this agent's containers.
    async fn records(&self) -> Result<Vec<Container>, StopReason> {
        let filters = vec![format!("labels.\"{LABEL_TASK_ARN}\"")];
        let answer = self.containers().list(self.connection.request(ListContainersRequest { filters })).await;
        let failed = |status| failure("CannotListContainersError", "list containers", &status);
        Ok(answer.map_err(failed)?.into_inner().containers)
    }

    async fn held_records(&self) -> Result<BTreeMap<ContainerKey, HeldContainer>, StopReason> {
        let held = |record: Container| {
            let (arn, key) = named(&record)?;
            let held = HeldContainer {
                arn,
                id: ContainerId::from_recorded(&record.id),
                created_at: record.created_at.as_ref().map(wall),
                cluster: record.labels.get(LABEL_CLUSTER).cloned().unwrap_or_default(),
                keepsake: record.extensions.get(keepsake::EXTENSION).and_then(keepsake::read),
            };
            Some((key, held))
        };
        Ok(self.records().await?.into_iter().filter_map(held).collect())
    }

    async fn list_all(&self) -> Result<BTreeMap<ContainerKey, Observed>, StopReason> {
        let failed = |status| failure("CannotListContainersError", "list tasks", &status);
        // Processes first: one that is created in between is then seen as a record, not missed.
        let tasks = self.tasks().list(self.connection.request(ListTasksRequest::default())).await;
        let tasks = match tasks {
            Ok(answer) => answer.into_inner().tasks,
            // containerd asks one shim after the other: those that hang hold up the list, not us.
            Err(status) if status.code() == Code::DeadlineExceeded => {
                tracing::warn!("{}; each container is asked for by name", status.message());
                Vec::new()
            }
            Err(status) => return Err(failed(status)),
        };
        let mut processes: HashMap<String, Process> = tasks.into_iter().map(|p| (p.id.clone(), p)).collect();
        let mut ours = Vec::new();
        for record in self.records().await? {
            let Some((_, key)) = named(&record) else { continue };
            let id = ContainerId::from_recorded(&record.id);
            self.marks.keep(&id, &record.labels);
            ours.push((key, id, processes.remove(&record.id)));
        }
        let looked_at = ours.into_iter().map(|(key, id, process)| async move {
            let seen = self.look_at(&key, &id, process).await;
            (key, seen)
        });
        Ok(stream::iter(looked_at).buffer_unordered(ASKED_AT_ONCE).collect().await)
    }

    /// What is seen of a container. One that the list left out is asked for by name: its shim did not
    /// answer in time, or there is none (any more).
    async fn look_at(&self, key: &ContainerKey, id: &ContainerId, listed: Option<Process>) -> Observed {
        let asked = match listed {
            Some(process) => Ok(Some(process)),
            None => self.process(id).await,
        };
        let told = || self.events.exit(id);
        let seen = match asked {
            Ok(Some(process)) => {
                self.groups.settle(&key.task, id);
                observed(&process)
            }
            // The shim may be gone, but not what an event told of its end.
            Ok(None) => told().map_or(Seen::Made, Seen::Ended),
            Err(status) => {
                tracing::warn!(container = %key, error = status.message(), "nothing is known of its process");
                told().map_or(Seen::Nothing, Seen::Ended)
            }
        };
        match seen {
            Seen::Made => Observed::Created,
            Seen::Runs => Observed::Running,
            Seen::Ended(exit) => Observed::Exited(self.judge(id, exit).await),
            Seen::Nothing => Observed::Unknown,
        }
    }
}

/// The task and the container that a record is of, by its labels.
fn named(record: &Container) -> Option<(TaskArn, ContainerKey)> {
    let arn = TaskArn::parse(record.labels.get(LABEL_TASK_ARN)?).ok()?;
    let key = ContainerKey { task: arn.id(), name: record.labels.get(LABEL_CONTAINER_NAME)?.clone() };
    Some((arn, key))
}

/// What is seen of a container, before it is asked why it ended.
enum Seen {
    Made,
    Runs,
    Ended(ExitRecord),
    /// Its shim does not answer.
    Nothing,
}

/// What a process of containerd's list is to the engine.
fn observed(process: &Process) -> Seen {
    match Status::try_from(process.status) {
        Ok(Status::Created) => Seen::Made,
        Ok(Status::Stopped) => {
            Seen::Ended(super::events::exit_record(process.exit_status, process.exited_at.as_ref()))
        }
        Ok(Status::Unknown) => Seen::Nothing,
        _ => Seen::Runs,
    }
}

impl Containers for ContainerService {
    fn create<'a>(&'a self, plan: &'a CreatePlan) -> BoxFuture<'a, Result<Wall, StopReason>> {
        Box::pin(self.create_container(plan))
    }

    fn start<'a>(&'a self, id: &'a ContainerId) -> BoxFuture<'a, Result<Wall, StopReason>> {
        Box::pin(self.start_process(id))
    }

    fn restart<'a>(&'a self, id: &'a ContainerId) -> BoxFuture<'a, Result<Wall, StopReason>> {
        Box::pin(self.restart_process(id))
    }

    fn wait<'a>(&'a self, id: &'a ContainerId) -> BoxFuture<'a, Option<ContainerExit>> {
        Box::pin(self.wait_for_exit(id))
    }

    fn signal<'a>(&'a self, id: &'a ContainerId) -> BoxFuture<'a, Result<(), StopReason>> {
        Box::pin(self.send_stop_signal(id))
    }

    fn kill<'a>(&'a self, id: &'a ContainerId) -> BoxFuture<'a, Result<(), StopReason>> {
        Box::pin(self.kill_all(id))
    }

    fn release<'a>(&'a self, id: &'a ContainerId) -> BoxFuture<'a, Result<(), StopReason>> {
        Box::pin(async move {
            self.delete_process(id).await?;
            self.give_back_memory(id).await
        })
    }

    fn remove<'a>(&'a self, id: &'a ContainerId) -> BoxFuture<'a, Result<(), StopReason>> {
        Box::pin(self.remove_all(id))
    }

    fn list(&self) -> BoxFuture<'_, Result<BTreeMap<ContainerKey, Observed>, StopReason>> {
        Box::pin(self.list_all())
    }

    fn held(&self) -> BoxFuture<'_, Result<BTreeMap<ContainerKey, HeldContainer>, StopReason>> {
        Box::pin(self.held_records())
    }

    fn relist_due(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.events.relist_due())
    }
}
