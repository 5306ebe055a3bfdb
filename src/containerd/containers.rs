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
use crate::containerd::connection::failure;
use crate::containerd::create::AccountsCache;
use crate::containerd::events::{EventHub, wall};
use crate::containerd::groups::ShimGroups;
use crate::containerd::keepsake;
use crate::containerd::lookup::ImageLookup;
use crate::containerd::oom::OomCounters;
use crate::containerd::spec::facts::HostFacts;
use crate::core::Observed;
use crate::model::{ContainerId, ContainerKey, ExitRecord, HeldContainer, StopReason, TaskArn, Wall};
use crate::ports::{ContainerExit, Containers, CreatePlan};
use containerd_client::services::v1::containers_client::ContainersClient;
use containerd_client::services::v1::snapshots::RemoveSnapshotRequest;
use containerd_client::services::v1::snapshots::snapshots_client::SnapshotsClient;
use containerd_client::services::v1::tasks_client::TasksClient;
use containerd_client::services::v1::{
    Container, DeleteContainerRequest, ListContainersRequest, ListTasksRequest,
};
use containerd_client::types::v1::{Process, Status};
use futures_util::future::BoxFuture;
use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use tonic::Code;
use tonic::transport::Channel;

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
const LARGEST_ANSWER: usize = 64 << 20;

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
    /// The program that writes a container's log; absolute.
    pub logger_program: PathBuf,
    /// Where [`super::init::install`] wrote the program that is PID 1; `None` where it could not.
    pub init_program: Option<PathBuf>,
}

/// The containers of one containerd namespace. Shared by reference; every call is concurrent.
pub struct ContainerService {
    pub(super) connection: Connection,
    pub(super) options: ContainerOptions,
    pub(super) images: Arc<dyn ImageLookup>,
    pub(super) host: HostFacts,
    pub(super) events: EventHub,
    pub(super) groups: ShimGroups,
    pub(super) accounts: AccountsCache,
    pub(super) kills: OomCounters,
}

impl ContainerService {
    /// Puts it together; reads the host's facts, calls nothing.
    pub fn new(connection: Connection, options: ContainerOptions, images: Arc<dyn ImageLookup>) -> Self {
        Self {
            connection,
            images,
            host: HostFacts { init: options.init_program.clone(), ..HostFacts::read() },
            options,
            events: EventHub::default(),
            groups: ShimGroups::default(),
            accounts: AccountsCache::default(),
            kills: OomCounters::default(),
        }
    }

    /// Follows containerd's events for ever. One task runs it for the life of the agent; without
    /// it everything still works, later and without [`Containers::relist_due`].
    pub async fn follow_events(&self) {
        self.events.follow(&self.connection).await;
    }

    pub(super) fn tasks(&self) -> TasksClient<Channel> {
        TasksClient::new(self.connection.channel()).max_decoding_message_size(LARGEST_ANSWER)
    }

    pub(super) fn containers(&self) -> ContainersClient<Channel> {
        ContainersClient::new(self.connection.channel()).max_decoding_message_size(LARGEST_ANSWER)
    }

    pub(super) fn snapshots(&self) -> SnapshotsClient<Channel> {
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
        let tasks = tasks.map_err(failed)?.into_inner().tasks;
        let processes: HashMap<&str, &Process> = tasks.iter().map(|p| (p.id.as_str(), p)).collect();
        let mut found = BTreeMap::new();
        for record in self.records().await? {
            let Some((arn, key)) = named(&record) else { continue };
            let process = processes.get(record.id.as_str());
            if process.is_some() {
                self.groups.settle(&arn.id(), &ContainerId::from_recorded(&record.id));
            }
            let id = ContainerId::from_recorded(&record.id);
            let seen = match process {
                Some(process) => observed(process),
                // A list leaves out whose shim did not answer in time, so it is asked for by name. And
                // its shim may be gone, but not what an event told of its end.
                None => match self.process(&id).await {
                    Ok(Some(process)) => observed(&process),
                    _ => self.events.exit(&id).map_or(Seen::Made, Seen::Ended),
                },
            };
            let seen = match seen {
                Seen::Made => Observed::Created,
                Seen::Runs => Observed::Running,
                Seen::Ended(exit) => Observed::Exited(self.judge(&id, exit).await),
            };
            found.insert(key, seen);
        }
        Ok(found)
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
}

/// What a process of containerd's list is to the engine.
fn observed(process: &Process) -> Seen {
    match Status::try_from(process.status) {
        Ok(Status::Created) => Seen::Made,
        Ok(Status::Stopped) => {
            Seen::Ended(super::events::exit_record(process.exit_status, process.exited_at.as_ref()))
        }
        // Unknown is a shim that didn't answer: no evidence of an end.
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
        Box::pin(self.delete_process(id))
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
