//! Making a container: the launch path. Three calls, of which the first two run side by side
//! whenever the image's account files are known from an earlier container.
//!
//! ```text
//! merge documents ─> find image ─> volumes ─┬─> Snapshots.Prepare ──────────────────┬─> Tasks.Create
//!                                           └─> files ─> spec ─> Containers.Create ─┘
//!                 (named ones are mounted by ports::Volumes, new ones filled from the image)
//! ```

use crate::containerd::connection::failure;
use crate::containerd::containers::{
    ContainerService, LABEL_ADDRESS, LABEL_CGROUP, LABEL_CONTAINER_NAME, LABEL_OUTPUT, LABEL_STOP_SIGNAL,
    LABEL_TASK_ARN,
};
use crate::containerd::copyup::CopyUp;
use crate::containerd::docker_config::{self, ContainerSettings};
use crate::containerd::events::now;
use crate::containerd::groundwork::{self, Groundwork, GroundworkError, Programs};
use crate::containerd::health::stored;
use crate::containerd::init_layer;
use crate::containerd::keepsake;
use crate::containerd::logger::{self, LoggedContainer};
use crate::containerd::relabel;
use crate::containerd::rootfs::{self, ImageLook};
use crate::containerd::runc_options::Options;
use crate::containerd::runtimes::RuntimeChoice;
use crate::containerd::signals;
use crate::containerd::spec::confinement;
use crate::containerd::spec::facts::CgroupVersion;
use crate::containerd::spec::links::LinkedContainer;
use crate::containerd::spec::mounts::{BindMount, GENERATED};
use crate::containerd::spec::process::INIT_TARGET;
use crate::containerd::spec::shortfalls::shortfalls;
use crate::containerd::spec::{self, SpecInput};
use crate::containerd::user;
use crate::containerd::volumes::{self, Volume};
use crate::model::{ContainerId, ContainerKind, ContainerSpec, HealthCheck, StopReason, TaskId, Wall};
use crate::ports::CreatePlan;
use containerd_client::services::v1::container::Runtime;
use containerd_client::services::v1::snapshots::{MountsRequest, PrepareSnapshotRequest};
use containerd_client::services::v1::{
    Container, CreateContainerRequest, CreateTaskRequest, UpdateContainerRequest,
};
use containerd_client::to_any;
use containerd_client::types::Mount;
use oci_spec::image::ImageConfiguration;
use prost_types::{Any, FieldMask};
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tonic::Code;

const SPEC_TYPE: &str = "types.containerd.io/opencontainers/runtime-spec/1/Spec";
/// containerd's limit on key and value of a label together.
const LONGEST_LABEL: usize = 4096;
/// Pauses between tries to make a process, where it is not the runtime that refuses.
const BETWEEN_TRIES: [Duration; 3] =
    [Duration::from_millis(50), Duration::from_millis(200), Duration::from_millis(800)];
/// Signal where neither task definition nor image names one.
pub(super) const SIGTERM: u32 = 15;

pub(super) fn cannot_create(words: impl std::fmt::Display) -> StopReason {
    StopReason::new("CannotCreateContainerError", words.to_string())
}

/// An error with the chain of what caused it.
fn with_causes(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// What was seen in images (by chain id): looked at once, then off the launch path.
#[derive(Debug, Default)]
pub(super) struct LookCache(Mutex<HashMap<String, Arc<ImageLook>>>);

impl LookCache {
    /// More images than a host has in use; a few kilobytes each.
    const MOST: usize = 256;

    fn get(&self, chain_id: &str) -> Option<Arc<ImageLook>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(chain_id).cloned()
    }

    fn put(&self, chain_id: &str, look: Arc<ImageLook>) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= Self::MOST {
            all.clear();
        }
        all.insert(chain_id.to_owned(), look);
    }
}

/// One creation, as far as it is known before anything is made.
pub(super) struct Creation<'a> {
    pub plan: &'a CreatePlan,
    pub settings: ContainerSettings,
    pub image: Arc<ImageConfiguration>,
    /// Key of the image's topmost layer; `None` where there is no image.
    pub chain_id: Option<String>,
    pub image_name: &'a str,
    /// Docker's id of the image; empty where there is none.
    pub image_id: String,
    pub runtime: RuntimeChoice,
    pub stop_signal: u32,
    pub volumes: Vec<Volume>,
    pub links: Vec<LinkedContainer>,
    pub health: Option<HealthCheck>,
}

impl ContainerService {
    pub(super) async fn create_container(&self, plan: &CreatePlan) -> Result<Wall, StopReason> {
        let unknown = || cannot_create(format!("the task has no container {:?}", plan.name));
        let container = plan.spec.container(&plan.name).ok_or_else(unknown)?;
        if container.kind == ContainerKind::NamespaceHolder {
            return self.create_holder(plan, container).await;
        }
        let creation = self.consider(plan, container).await?;
        let short = shortfalls(&creation.settings, &self.host);
        for warning in creation.settings.warnings.iter().map(String::as_str).chain(short) {
            tracing::warn!(container = %plan.spec.key(&plan.name), "{warning}");
        }
        let fills = creation.volumes.iter().any(|volume| volume.copy_up);
        let known = creation.chain_id.as_ref().and_then(|id| self.looks.get(id)).filter(|_| !fills);
        let (mounts, output) = match known {
            Some(look) => {
                let snapshot = async {
                    let mounts = self.prepare(&creation).await?;
                    write_init_layer(&mounts, &look).await?;
                    Ok(mounts)
                };
                let record = async {
                    let ground = self.lay(&creation).await?;
                    self.record_container(&creation, &ground, &look).await?;
                    Ok(ground.output)
                };
                tokio::try_join!(snapshot, record)?
            }
            None => {
                let (mounts, ground) = tokio::try_join!(self.prepare(&creation), self.lay(&creation))?;
                let look = self.look_into(&creation, mounts.clone(), &ground).await?;
                write_init_layer(&mounts, &look).await?;
                self.record_container(&creation, &ground, &look).await?;
                (mounts, ground.output)
            }
        };
        self.create_process(&creation, mounts, output.clone()).await?;
        logger::opened(&output)?;
        self.holds_still(&plan.spec.arn, creation.settings.namespaces.joined()).await?;
        Ok(now())
    }

    /// Everything that can be wrong with the request, before anything is made but the volumes that it
    /// names.
    async fn consider<'a>(
        &self,
        plan: &'a CreatePlan,
        container: &'a ContainerSpec,
    ) -> Result<Creation<'a>, StopReason> {
        let mut settings = docker_config::merge(container)?;
        self.join_namespaces(&plan.spec, &mut settings.namespaces).await?;
        let asked = settings.runtime.as_deref();
        let runtime = RuntimeChoice::of(&self.options, &plan.spec, container, asked)?;
        let of_task = plan.spec.memory_mib.filter(|_| self.options.propagate_task_memory);
        settings.resources.within_task(of_task, self.host.cgroups == CgroupVersion::V2);
        if !settings.resolve_gateway(self.gateway.get().copied()) {
            return Err(cannot_create("unable to derive the IP value for host-gateway"));
        }
        let image = self.images.unpacked(&container.image).await?;
        let of_image = image.config.config().as_ref().and_then(|c| c.stop_signal().clone());
        let stop_signal = match settings.stop_signal.as_ref().or(of_image.as_ref()).filter(|s| !s.is_empty())
        {
            None => SIGTERM,
            Some(name) => {
                signals::number(name).ok_or_else(|| cannot_create(format!("invalid signal: {name}")))?
            }
        };
        let mut shared = Vec::new();
        for from in volumes::sources(&plan.spec, container, &settings)? {
            shared.extend(self.mounts_of(plan, &from.container, from.read_only).await?);
        }
        let wanted = volumes::resolve(plan, container, &settings, &image.config, shared)?;
        let links = self.links_of(plan, container).await?;
        // Docker runs other checks, too, but nobody is told of them.
        let health = settings.health.clone().filter(|_| container.health_checked);
        let health = health.and_then(|own| own.over(image.health.as_ref()).check(&settings.shell));
        let paths = self.volumes.attach(&plan.id, &volumes::uses(&wanted)).await?;
        let volumes = volumes::ready(wanted, paths);
        let image_id = image.id.as_str().to_owned();
        let (chain_id, image, image_name) = (Some(image.chain_id), image.config, &container.image);
        Ok(Creation {
            plan,
            settings,
            image,
            chain_id,
            image_name,
            image_id,
            runtime,
            stop_signal,
            volumes,
            links,
            health,
        })
    }

    /// What another container of the task has mounted, from its record.
    async fn mounts_of(
        &self,
        plan: &CreatePlan,
        name: &str,
        read_only: bool,
    ) -> Result<Vec<BindMount>, StopReason> {
        let unusable = |why: String| cannot_create(format!("volumesFrom {name:?}: {why}"));
        let id = plan.spec.container_id(name);
        let record = self.record(&id).await.map_err(|status| unusable(status.message().to_owned()))?;
        let missing = || StopReason::new("HostConfigError", format!("Volume target not available: {name}"));
        let record = record.ok_or_else(missing)?;
        let document = record.spec.unwrap_or_default().value;
        let spec: oci_spec::runtime::Spec =
            serde_json::from_slice(&document).map_err(|error| unusable(format!("its record: {error}")))?;
        let has = |mount: &oci_spec::runtime::Mount, word: &str| {
            mount.options().iter().flatten().any(|option| option == word)
        };
        let mut shared = Vec::new();
        for mount in spec.mounts().iter().flatten().filter(|m| m.typ().as_deref() == Some("bind")) {
            let (target, source) = (mount.destination().to_str(), mount.source().clone());
            let (Some(target), Some(source)) = (target, source) else { continue };
            if GENERATED.contains(&target) || matches!(target, INIT_TARGET | "/dev/shm") {
                continue;
            }
            let words = ["shared", "rshared", "slave", "rslave", "private"];
            shared.push(BindMount {
                source,
                target: target.to_owned(),
                read_only: read_only || has(mount, "ro"),
                propagation: words.iter().find(|word| has(mount, word)).map(|word| (*word).to_owned()),
                without_submounts: !has(mount, "rbind"),
            });
        }
        Ok(shared)
    }

    /// The container's own writable layer, on the image. Marked as a root of garbage collection:
    /// the record that will hold it may not be there yet.
    async fn prepare(&self, creation: &Creation<'_>) -> Result<Vec<Mount>, StopReason> {
        let key = creation.plan.id.as_str().to_owned();
        let snapshotter = self.options.snapshotter.clone();
        let labels = HashMap::from([("containerd.io/gc.root".to_owned(), "ecsd".to_owned())]);
        let parent = creation.chain_id.clone().unwrap_or_default();
        let request =
            PrepareSnapshotRequest { snapshotter: snapshotter.clone(), key: key.clone(), parent, labels };
        let failed =
            |status: &tonic::Status| failure("CannotCreateContainerError", "prepare the snapshot", status);
        match self.snapshots().prepare(self.connection.request(request)).await {
            Ok(answer) => Ok(answer.into_inner().mounts),
            Err(status) if status.code() == Code::AlreadyExists => {
                let request = self.connection.request(MountsRequest { snapshotter, key });
                let answer = self.snapshots().mounts(request).await.map_err(|status| failed(&status))?;
                Ok(answer.into_inner().mounts)
            }
            Err(status) => Err(failed(&status)),
        }
    }

    /// Files and directories, on a thread that may block.
    pub(super) async fn lay(&self, creation: &Creation<'_>) -> Result<Groundwork, StopReason> {
        let (plan, settings) = (creation.plan.clone(), creation.settings.clone());
        let (volumes, links) = (creation.volumes.clone(), creation.links.clone());
        let program = creation.runtime.program.clone();
        let programs = Programs {
            logger: self.options.logger_program.clone(),
            runtime: (!program.is_empty()).then_some(program),
        };
        let own = confinement::labels(&self.host, &creation.settings, &creation.plan.id);
        let logged = LoggedContainer::of(creation, &self.options.log_host);
        let of_files = relabel::label(&self.host, &creation.settings, &creation.plan.id);
        let work = tokio::task::spawn_blocking(move || {
            let label = own.as_ref().map(|own| own.mount.as_str());
            let ground = groundwork::lay(&plan, &settings, &volumes, &links, &programs, label, &logged)?;
            volumes.iter().try_for_each(|volume| relabel::volume(volume, of_files.as_ref()))?;
            Ok(ground)
        });
        match work.await {
            Ok(done) => done.map_err(|error: GroundworkError| cannot_create(with_causes(&error))),
            Err(_) => Err(cannot_create("the thread that writes its files did not come back")),
        }
    }

    /// Reads the account files, and fills new volumes, from the image itself.
    async fn look_into(
        &self,
        creation: &Creation<'_>,
        mounts: Vec<Mount>,
        ground: &Groundwork,
    ) -> Result<Arc<ImageLook>, StopReason> {
        let fill = |volume: &Volume| CopyUp {
            target: volume.bind.target.clone(),
            directory: PathBuf::from(&volume.bind.source),
        };
        let copies = creation.volumes.iter().filter(|volume| volume.copy_up).map(fill).collect();
        let look = rootfs::look(mounts, ground.scratch.clone(), copies).await;
        let look = Arc::new(look.map_err(|error| cannot_create(with_causes(&error)))?);
        if let Some(id) = &creation.chain_id {
            self.looks.put(id, Arc::clone(&look));
        }
        Ok(look)
    }

    /// The container's record with its spec. One that is there is brought up to date.
    pub(super) async fn record_container(
        &self,
        creation: &Creation<'_>,
        ground: &Groundwork,
        look: &ImageLook,
    ) -> Result<(), StopReason> {
        let container = self.container(creation, ground, look)?;
        let failed =
            |status: &tonic::Status| failure("CannotCreateContainerError", "record the container", status);
        self.marks.keep(&creation.plan.id, &container.labels);
        let request = CreateContainerRequest { container: Some(container.clone()) };
        match self.containers().create(self.connection.request(request)).await {
            Ok(_) => Ok(()),
            Err(status) if status.code() == Code::AlreadyExists => {
                let paths =
                    ["spec", "labels", "extensions", "snapshotkey", "image"].map(str::to_owned).to_vec();
                let request = UpdateContainerRequest {
                    container: Some(container),
                    update_mask: Some(FieldMask { paths }),
                };
                let answer = self.containers().update(self.connection.request(request)).await;
                answer.map(|_| ()).map_err(|status| failed(&status))
            }
            Err(status) => Err(failed(&status)),
        }
    }

    fn container(
        &self,
        creation: &Creation<'_>,
        ground: &Groundwork,
        look: &ImageLook,
    ) -> Result<Container, StopReason> {
        let (plan, settings, image) = (creation.plan, &creation.settings, &creation.image);
        let of_image = image.config().as_ref().and_then(|c| c.user().clone());
        let asked = settings.user.clone().or(of_image).unwrap_or_default();
        let user = user::resolve(&asked, &settings.groups, &look.accounts).map_err(cannot_create)?;
        let binds: Vec<BindMount> = creation.volumes.iter().map(|volume| volume.bind.clone()).collect();
        let input = SpecInput {
            plan,
            settings,
            image,
            user: &user,
            binds: &binds,
            devices: &ground.devices,
            links: &creation.links,
            host: &self.host,
            hostname: &ground.hostname,
        };
        let spec = spec::build(&input).map_err(|error| cannot_create(with_causes(&error)))?;
        let value = serde_json::to_vec(&spec).map_err(cannot_create)?;
        let shim = creation.runtime.shim.clone();
        let binary_name = ground.runtime.clone().unwrap_or_default();
        let options = Options { binary_name, systemd_cgroup: self.options.systemd_cgroup };
        let options = creation.runtime.is_runc().then(|| to_any(&options));
        // Without an image there is no snapshot.
        let of_snapshot =
            |text: &str| creation.chain_id.as_ref().map(|_| text.to_owned()).unwrap_or_default();
        Ok(Container {
            id: plan.id.as_str().to_owned(),
            labels: labels(creation, &ground.output),
            image: creation.image_name.to_owned(),
            runtime: Some(Runtime { name: shim, options }),
            spec: Some(Any { type_url: SPEC_TYPE.to_owned(), value }),
            snapshotter: of_snapshot(&self.options.snapshotter),
            snapshot_key: of_snapshot(plan.id.as_str()),
            extensions: extensions(creation),
            ..Container::default()
        })
    }

    /// The process, made but not started.
    pub(super) async fn create_process(
        &self,
        creation: &Creation<'_>,
        rootfs: Vec<Mount>,
        output: String,
    ) -> Result<(), StopReason> {
        let (plan, task) = (creation.plan, creation.plan.spec.id());
        let labels = confinement::labels(&self.host, &creation.settings, &plan.id);
        let label = labels.as_ref().map(|labels| labels.mount.as_str());
        let request = CreateTaskRequest {
            container_id: plan.id.as_str().to_owned(),
            rootfs: with_label(rootfs, label),
            terminal: creation.settings.tty,
            stdout: output.clone(),
            stderr: output,
            ..CreateTaskRequest::default()
        };
        self.make_process(&task, &plan.id, request).await
    }

    /// The process of a container that is recorded, made but not started.
    pub(super) async fn make_process(
        &self,
        task: &TaskId,
        id: &ContainerId,
        request: CreateTaskRequest,
    ) -> Result<(), StopReason> {
        let _guard = self.groups.creating(task).await;
        self.events.begin(id);
        // What an earlier life of the agent had asked for is still being taken down by containerd,
        // under the same id: for a moment its directory comes and goes below the new process.
        let mut pauses = BETWEEN_TRIES.iter();
        let pid = loop {
            let status = match self.tasks().create(self.connection.request(request.clone())).await {
                Ok(answer) => break answer.into_inner().pid,
                Err(status) => status,
            };
            let exists = status.code() == Code::AlreadyExists;
            if exists && let Ok(Some(process)) = self.process(id).await {
                break process.pid;
            }
            match pauses.next().filter(|_| !refused_by_runtime(&status)) {
                Some(pause) => tokio::time::sleep(*pause).await,
                None => return Err(not_created(&status)),
            }
        };
        self.events.made(id, pid);
        self.groups.settle(task, id);
        Ok(())
    }
}

/// The layers, with the SELinux label that their files have for the container.
pub(super) fn with_label(mut rootfs: Vec<Mount>, label: Option<&str>) -> Vec<Mount> {
    if let Some(label) = label {
        let of_layers = rootfs.iter_mut().filter(|mount| mount.r#type == "overlay");
        of_layers.for_each(|mount| mount.options.push(format!("context=\"{label}\"")));
    }
    rootfs
}

/// What Docker's init layer has, in the container's own layer.
async fn write_init_layer(mounts: &[Mount], look: &ImageLook) -> Result<(), StopReason> {
    let Some(layer) = init_layer::writable_layer(mounts) else { return Ok(()) };
    let etc = look.etc;
    let work = tokio::task::spawn_blocking(move || init_layer::write(&layer, etc));
    match work.await {
        Ok(done) => done.map_err(|errno| cannot_create(format!("write the init layer: {errno}"))),
        Err(_) => Err(cannot_create("the thread that writes the init layer did not come back")),
    }
}

/// The OCI runtime itself said no: it would again. Not so where one of that id is still being taken down.
fn refused_by_runtime(status: &tonic::Status) -> bool {
    let words = ["OCI runtime create failed", "unable to start container process"];
    let says = |words: &str| status.message().contains(words);
    words.iter().any(|known| says(known)) && !says("already exists")
}

/// The OCI runtime's refusal to make the process (no such program, no permission) is what Docker
/// reports of the start; everything else failed to be created.
fn not_created(status: &tonic::Status) -> StopReason {
    match refused_by_runtime(status) {
        true => StopReason::new("CannotStartContainerError", status.message()),
        false => failure("CannotCreateContainerError", "create the process", status),
    }
}

/// What its record carries besides: its health check, and what is known of its task.
fn extensions(creation: &Creation<'_>) -> HashMap<String, Any> {
    let mut extensions = stored::extensions(creation.health.as_ref());
    let keepsake = creation.plan.keepsake.as_ref();
    extensions.extend(keepsake.map(|keepsake| (keepsake::EXTENSION.to_owned(), keepsake::write(keepsake))));
    extensions
}

/// Labels of image, task definition, agent, and our own, the later winning.
fn labels(creation: &Creation<'_>, output: &str) -> HashMap<String, String> {
    let plan = creation.plan;
    let config = creation.image.config();
    let mut labels: HashMap<String, String> =
        config.as_ref().and_then(|c| c.labels().clone()).unwrap_or_default();
    let pairs = creation.settings.labels.iter().chain(&plan.labels);
    labels.extend(pairs.map(|(key, value)| (key.clone(), value.clone())));
    labels.insert(LABEL_TASK_ARN.to_owned(), plan.spec.arn.as_str().to_owned());
    labels.insert(LABEL_CONTAINER_NAME.to_owned(), plan.name.clone());
    labels.insert(LABEL_STOP_SIGNAL.to_owned(), creation.stop_signal.to_string());
    labels.insert(LABEL_CGROUP.to_owned(), plan.cgroup.clone());
    labels.insert(LABEL_OUTPUT.to_owned(), output.to_owned());
    if let Some(address) = plan.network.ipv4() {
        labels.insert(LABEL_ADDRESS.to_owned(), address.to_string());
    }
    labels.retain(|key, value| {
        let fits = key.len() + value.len() <= LONGEST_LABEL;
        if !fits {
            let container = plan.spec.key(&plan.name);
            tracing::warn!(%container, label = key, "the label is longer than {LONGEST_LABEL} bytes and is left out");
        }
        fits
    });
    labels
}
