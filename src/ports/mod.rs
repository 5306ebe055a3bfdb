//! The narrow traits by which the engine reaches the world, in model terms. Adapters implement
//! them; `app` puts one of each together; tests put doubles in their place.
//!
//! Every call may be made again after a crash, so every call that makes something takes what it
//! finds already made as its own (ids are derived, never random), and every call that removes
//! something takes "not there" as success.

mod health;

pub use crate::core::event::ContainerExit;
pub use health::{HealthChecks, HealthProbe, OpenedCheck, ProbeError};

use crate::core::event::{CreatedContainer, Observed, PullFailure, ReportOutcome};
use crate::model::{
    Attachment, ContainerAddress, ContainerId, ContainerKey, Health, HeldContainer, ImageDigest,
    ImageRequest, Keepsake, MacAddress, ResolvedImage, StopReason, TaskArn, TaskId, TaskProgress, TaskSpec,
    TaskStateChange, VolumeRequest, Wall,
};
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Images: the registry on one side, the unpacked snapshots on the other.
pub trait Images: Send + Sync {
    /// The digest that an image name stands for, by the configured pull behaviour.
    fn resolve<'a>(&'a self, image: ImageRequest<'a>) -> BoxFuture<'a, Result<ResolvedImage, PullFailure>>;
    /// Fetches and unpacks. Answers the image's id: the digest of its configuration.
    /// With `digest` the content of exactly that digest is fetched, and `image` names it after.
    fn pull<'a>(
        &'a self,
        image: ImageRequest<'a>,
        digest: Option<&'a ImageDigest>,
    ) -> BoxFuture<'a, Result<ImageDigest, PullFailure>>;
}

/// Containers and their processes.
pub trait Containers: Send + Sync {
    /// Makes the container and its process, not started. The image must be unpacked.
    fn create<'a>(&'a self, plan: &'a CreatePlan) -> BoxFuture<'a, Result<Wall, StopReason>>;
    /// Starts the process; answers when that was. A process already started is fine.
    fn start<'a>(&'a self, id: &'a ContainerId) -> BoxFuture<'a, Result<Wall, StopReason>>;
    /// Gives back the ended process and starts another of the same container, on its snapshot; answers
    /// when that was. One that runs is left alone.
    fn restart<'a>(&'a self, id: &'a ContainerId) -> BoxFuture<'a, Result<Wall, StopReason>>;
    /// Resolves when the process ended; survives reconnects. `None` where there is no process.
    fn wait<'a>(&'a self, id: &'a ContainerId) -> BoxFuture<'a, Option<ContainerExit>>;
    /// Sends the stop signal of the image (SIGTERM where it names none).
    fn signal<'a>(&'a self, id: &'a ContainerId) -> BoxFuture<'a, Result<(), StopReason>>;
    /// Sends SIGKILL to every process of the container.
    fn kill<'a>(&'a self, id: &'a ContainerId) -> BoxFuture<'a, Result<(), StopReason>>;
    /// Gives back the ended process: its shim, its mounts. Record and snapshot stay. A process that has
    /// not ended (it was given up, or its start was never answered) is killed first.
    fn release<'a>(&'a self, id: &'a ContainerId) -> BoxFuture<'a, Result<(), StopReason>>;
    /// Removes record and snapshot.
    fn remove<'a>(&'a self, id: &'a ContainerId) -> BoxFuture<'a, Result<(), StopReason>>;
    /// All containers of this agent that the runtime holds.
    fn list(&self) -> BoxFuture<'_, Result<BTreeMap<ContainerKey, Observed>, StopReason>>;
    /// What it knows of each of them, whether or not it has a process: the second source of what the
    /// store holds.
    fn held(&self) -> BoxFuture<'_, Result<BTreeMap<ContainerKey, HeldContainer>, StopReason>>;
    /// Resolves when events may have been lost (the runtime went away and is back): list again.
    fn relist_due(&self) -> BoxFuture<'_, ()>;
}

/// All that making a container needs.
#[derive(Debug, Clone)]
pub struct CreatePlan {
    /// The task.
    pub spec: Arc<TaskSpec>,
    /// Name of the container within it.
    pub name: String,
    /// Its runtime id.
    pub id: ContainerId,
    /// Its network.
    pub network: NetworkAttachment,
    /// cgroup of the container, relative to the cgroup root, such as `/ecs/<task>/<container id>`.
    pub cgroup: String,
    /// A directory of its own for generated files (hosts, resolv.conf, hostname, logs).
    pub directory: PathBuf,
    /// Environment that the agent adds, over what the task definition says.
    pub agent_environment: BTreeMap<String, String>,
    /// Labels `com.amazonaws.ecs.*`; they win over the task definition's.
    pub labels: BTreeMap<String, String>,
    /// What the container is to carry of its task; `None` where that is not at hand.
    pub keepsake: Option<Keepsake>,
}

/// A task's own directory: generated files, logs and volumes of its containers.
pub fn task_directory(data_dir: &Path, task: &TaskId) -> PathBuf {
    data_dir.join("tasks").join(task.as_str())
}

/// How a container is attached to the network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NetworkAttachment {
    /// The host's own namespace.
    Host,
    /// A namespace of its own with nothing in it, which ends with the process.
    Empty,
    /// A pinned namespace.
    Namespace {
        /// File that pins it.
        path: PathBuf,
        /// Address in it; `None` for loopback only.
        ipv4: Option<Ipv4Addr>,
    },
}

impl NetworkAttachment {
    /// Its address in a namespace of its own, where it has one.
    pub fn ipv4(&self) -> Option<Ipv4Addr> {
        match self {
            Self::Host | Self::Empty => None,
            Self::Namespace { ipv4, .. } => *ipv4,
        }
    }
}

/// Networks of containers.
pub trait Networks: Send + Sync {
    /// Attaches a container by its task's mode: makes and pins its namespace, takes an address,
    /// reserves and maps its host ports. What was recorded before (`known`) is kept as it is.
    fn attach<'a>(
        &'a self,
        spec: &'a TaskSpec,
        container: &'a str,
        known: &'a ContainerAddress,
    ) -> BoxFuture<'a, Result<(NetworkAttachment, ContainerAddress), StopReason>>;
    /// Gives back namespace, address, mappings and reserved ports. Collects errors and goes on.
    fn detach<'a>(&'a self, spec: &'a TaskSpec, container: &'a str) -> BoxFuture<'a, Result<(), StopReason>>;
    /// After a restart: takes the recorded addresses and ports of live containers as its own and
    /// removes whatever of ours belongs to none of them.
    fn restore<'a>(
        &'a self,
        live: Vec<(ContainerKey, ContainerAddress)>,
    ) -> BoxFuture<'a, Result<(), StopReason>>;
}

/// cgroups of tasks.
pub trait Cgroups: Send + Sync {
    /// Makes the task's cgroup and (re)applies its limits.
    fn prepare(&self, spec: &TaskSpec) -> Result<(), StopReason>;
    /// Path of a container's cgroup for the OCI spec.
    fn container_path(&self, task: &TaskId, container: &ContainerId) -> String;
    /// Removes the task's cgroup.
    fn remove(&self, task: &TaskId) -> Result<(), StopReason>;
}

/// Named volumes of the host, and what tasks leave on its disks.
pub trait Volumes: Send + Sync {
    /// Makes a task's volumes, or finds those that are to be there already.
    fn provide<'a>(&'a self, spec: &'a TaskSpec) -> BoxFuture<'a, Result<(), StopReason>>;
    /// Makes volumes ready for a container that is about to be made, and mounts what their drivers are to
    /// mount. Answers their directories, in the order of `uses`.
    fn attach<'a>(
        &'a self,
        user: &'a ContainerId,
        uses: &'a [VolumeUse],
    ) -> BoxFuture<'a, Result<Vec<PathBuf>, StopReason>>;
    /// The container uses none any more: unmounts what nobody else does.
    fn detach<'a>(&'a self, user: &'a ContainerId) -> BoxFuture<'a, Result<(), StopReason>>;
    /// Removes the task's own volumes, and its directory, with all that containers have left in them.
    fn remove<'a>(&'a self, spec: &'a TaskSpec, directory: &'a Path)
    -> BoxFuture<'a, Result<(), StopReason>>;
}

/// A volume that a container uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VolumeUse {
    /// That one, which is made where it is missing.
    Named(VolumeRequest),
    /// Whatever is at a path that another container has mounted.
    At(PathBuf),
}

/// The durable state. Calls block: the engine gives them a thread.
pub trait Store: Send + Sync {
    /// Everything, at start. Records that can't be read are set aside, counted and left out.
    ///
    /// # Errors
    /// Only where the store as a whole can't be read.
    fn load(&self) -> Result<Loaded, StoreError>;
    /// One transaction: durable when it returns.
    ///
    /// # Errors
    /// Where it could not be made durable; nothing of it was written.
    fn commit(&self, changes: &[StoreChange]) -> Result<(), StoreError>;
}

/// One change in a transaction.
#[derive(Debug, Clone, PartialEq)]
pub enum StoreChange {
    /// What was asked: the task as the control plane wrote it, without credentials.
    PutTask {
        /// Task id.
        id: TaskId,
        /// The control plane's JSON, as `control` re-reads it.
        source: Arc<str>,
    },
    /// What became of it.
    PutProgress {
        /// Task id.
        id: TaskId,
        /// Whole progress.
        progress: TaskProgress,
    },
    /// Remove the task and its progress.
    RemoveTask(TaskId),
    /// Set a value of the agent itself (container instance ARN, cluster, ...).
    PutMeta(&'static str, String),
    /// An announced network interface, and whether it was told of.
    PutAttachment(Attachment),
    /// Remove it.
    RemoveAttachment(MacAddress),
}

/// What the store held.
#[derive(Debug, Clone, Default)]
pub struct Loaded {
    /// Task source and progress by id; a task whose progress was unreadable has none.
    pub tasks: Vec<(TaskId, Arc<str>, Option<TaskProgress>)>,
    /// Values of the agent itself.
    pub meta: BTreeMap<String, String>,
    /// Announced network interfaces.
    pub attachments: Vec<Attachment>,
    /// Records that could not be read and were set aside.
    pub quarantined: usize,
}

/// The store failed.
#[derive(Debug, thiserror::Error)]
#[error("state store {path}: {message}")]
pub struct StoreError {
    /// The file.
    pub path: PathBuf,
    /// What happened.
    pub message: String,
}

impl StoreError {
    /// Puts an error together.
    pub fn new(path: &Path, message: impl std::fmt::Display) -> Self {
        Self { path: path.to_owned(), message: message.to_string() }
    }
}

/// The control plane, for state changes.
pub trait Reporter: Send + Sync {
    /// Sends one change, retrying for as long as it takes.
    fn submit<'a>(&'a self, change: &'a TaskStateChange) -> BoxFuture<'a, ReportOutcome>;
}

/// The control plane, for network interfaces.
pub trait AttachmentReporter: Send + Sync {
    /// Tells that this one is here, in order with the reports of its task, trying again until it
    /// expires. [`ReportOutcome::Refused`] where it will never be taken or has expired.
    fn attached<'a>(&'a self, attachment: &'a Attachment) -> BoxFuture<'a, ReportOutcome>;
}

/// Network links of the host.
pub trait Links: Send + Sync {
    /// The hardware addresses of all links but the loopback.
    ///
    /// # Errors
    /// Where the kernel does not answer.
    fn list(&self) -> BoxFuture<'_, std::io::Result<BTreeSet<MacAddress>>>;
    /// Begins to watch: the stream tells, from now on, that links may have changed, and ends where
    /// watching failed. Costs nothing once it is dropped.
    ///
    /// # Errors
    /// Where the kernel gives no socket.
    fn watch(&self) -> std::io::Result<BoxStream<'static, ()>>;
}

/// Turns the stored form of a task back into its spec.
pub trait TaskDecoder: Send + Sync {
    /// Decodes what [`StoreChange::PutTask`] stored.
    ///
    /// # Errors
    /// What is wrong with it, for the log.
    fn decode(&self, source: &str) -> Result<TaskSpec, String>;
}

/// Environment and labels that the agent adds to each container of a task.
pub trait AgentFacts: Send + Sync {
    /// Environment for one container.
    fn environment(&self, spec: &TaskSpec, container: &str) -> BTreeMap<String, String>;
    /// Labels for one container.
    fn labels(&self, arn: &TaskArn, spec: &TaskSpec, container: &str) -> BTreeMap<String, String>;
    /// ARN of the container instance, of this life or the one before; empty where there is none.
    fn instance(&self) -> String;
    /// The cluster, by its name.
    fn cluster(&self) -> &str;
}

/// What became of an effect's created container, for the engine.
pub type CreateResult = Result<CreatedContainer, StopReason>;

/// One task as the rest of the agent may see it: what was asked, what has become of it.
#[derive(Debug, Clone, PartialEq)]
pub struct TaskView {
    /// What was asked.
    pub spec: Arc<TaskSpec>,
    /// What has become of it.
    pub progress: TaskProgress,
    /// What it waits for before it may use the host.
    pub waiting_for: Option<String>,
    /// Health of its containers whose health is tracked, by name.
    pub health: BTreeMap<String, Health>,
}

/// All tasks, by id; published by the engine after every step that changed one.
pub type TasksView = Arc<BTreeMap<TaskId, Arc<TaskView>>>;
