//! Making a container: the launch path. Three calls, of which the first two run side by side
//! whenever the image's account files are known from an earlier container.
//!
//! ```text
//! merge documents ─> find image ─> volumes ─┬─> Snapshots.Prepare ──────────────────┬─> Tasks.Create
//!                                           └─> files ─> spec ─> Containers.Create ─┘
//! ```

use crate::containerd::connection::failure;
use crate::containerd::containers::{
    ContainerService, LABEL_ADDRESS, LABEL_CGROUP, LABEL_CONTAINER_NAME, LABEL_OUTPUT, LABEL_STOP_SIGNAL,
    LABEL_TASK_ARN,
};
use crate::containerd::docker_config::{self, ContainerSettings};
use crate::containerd::events::now;
use crate::containerd::groundwork::{self, Groundwork};
use crate::containerd::keepsake;
use crate::containerd::lookup::UnpackedImageInfo;
use crate::containerd::rootfs::{self, CopyUp};
use crate::containerd::runc_options::Options;
use crate::containerd::signals;
use crate::containerd::spec::links::LinkedContainer;
use crate::containerd::spec::mounts::{BindMount, GENERATED};
use crate::containerd::spec::process::INIT_TARGET;
use crate::containerd::spec::shortfalls::shortfalls;
use crate::containerd::spec::{self, SpecInput};
use crate::containerd::user::{self, Accounts};
use crate::containerd::volumes::{self, Volume};
use crate::model::{ContainerId, ContainerSpec, StopReason, TaskId, Wall};
use crate::ports::{CreatePlan, NetworkAttachment};
use containerd_client::services::v1::container::Runtime;
use containerd_client::services::v1::snapshots::{MountsRequest, PrepareSnapshotRequest};
use containerd_client::services::v1::{
    Container, CreateContainerRequest, CreateTaskRequest, UpdateContainerRequest,
};
use containerd_client::to_any;
use containerd_client::types::Mount;
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
const SIGTERM: u32 = 15;

pub(super) fn cannot_create(words: impl std::fmt::Display) -> StopReason {
    StopReason::new("CannotCreateContainerError", words.to_string())
}

/// An error with the chain of what caused it.
fn with_causes(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// Account files by image (chain id): read once, then off the launch path.
#[derive(Debug, Default)]
pub(super) struct AccountsCache(Mutex<HashMap<String, Arc<Accounts>>>);

impl AccountsCache {
    /// More images than a host has in use; a few kilobytes each.
    const MOST: usize = 256;

    fn get(&self, chain_id: &str) -> Option<Arc<Accounts>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(chain_id).cloned()
    }

    fn put(&self, chain_id: &str, accounts: Arc<Accounts>) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= Self::MOST {
            all.clear();
        }
        all.insert(chain_id.to_owned(), accounts);
    }
}

/// One creation, as far as it is known before anything is made.
struct Creation<'a> {
    plan: &'a CreatePlan,
    settings: ContainerSettings,
    image: UnpackedImageInfo,
    image_name: &'a str,
    stop_signal: u32,
    volumes: Vec<Volume>,
    links: Vec<LinkedContainer>,
}

impl ContainerService {
    pub(super) async fn create_container(&self, plan: &CreatePlan) -> Result<Wall, StopReason> {
        let unknown = || cannot_create(format!("the task has no container {:?}", plan.name));
        let container = plan.spec.container(&plan.name).ok_or_else(unknown)?;
        let creation = self.consider(plan, container).await?;
        let short = shortfalls(&creation.settings, &self.host);
        for warning in creation.settings.warnings.iter().map(String::as_str).chain(short) {
            tracing::warn!(container = %plan.spec.key(&plan.name), "{warning}");
        }
        let fills = creation.volumes.iter().any(|volume| volume.copy_up);
        let known = self.accounts.get(&creation.image.chain_id).filter(|_| !fills);
        let (mounts, output) = match known {
            Some(accounts) => {
                let record = async {
                    let ground = self.lay(&creation).await?;
                    self.record_container(&creation, &ground, &accounts).await?;
                    Ok(ground.output)
                };
                tokio::try_join!(self.prepare(&creation), record)?
            }
            None => {
                let (mounts, ground) = tokio::try_join!(self.prepare(&creation), self.lay(&creation))?;
                let accounts = self.look_into(&creation, mounts.clone(), &ground).await?;
                self.record_container(&creation, &ground, &accounts).await?;
                (mounts, ground.output)
            }
        };
        self.create_process(&creation, mounts, output).await?;
        Ok(now())
    }

    /// Everything that can be wrong with the request, before anything is made.
    async fn consider<'a>(
        &self,
        plan: &'a CreatePlan,
        container: &'a ContainerSpec,
    ) -> Result<Creation<'a>, StopReason> {
        let settings = docker_config::merge(container)?;
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
        for from in &container.volumes_from {
            shared.extend(self.mounts_of(plan, &from.container, from.read_only).await?);
        }
        let volumes = volumes::resolve(plan, container, &settings, &image.config, shared)?;
        let links = self.links_of(plan, container).await?;
        Ok(Creation { plan, settings, image, image_name: &container.image, stop_signal, volumes, links })
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
        let record = record.ok_or_else(|| unusable("that container has not been created".to_owned()))?;
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
        let parent = creation.image.chain_id.clone();
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
    async fn lay(&self, creation: &Creation<'_>) -> Result<Groundwork, StopReason> {
        let (plan, settings) = (creation.plan.clone(), creation.settings.clone());
        let (volumes, links) = (creation.volumes.clone(), creation.links.clone());
        let logger = self.options.logger_program.clone();
        let work =
            tokio::task::spawn_blocking(move || groundwork::lay(&plan, &settings, &volumes, &links, &logger));
        match work.await {
            Ok(done) => done.map_err(|error| cannot_create(with_causes(&error))),
            Err(_) => Err(cannot_create("the thread that writes its files did not come back")),
        }
    }

    /// Reads the account files, and fills new volumes, from the image itself.
    async fn look_into(
        &self,
        creation: &Creation<'_>,
        mounts: Vec<Mount>,
        ground: &Groundwork,
    ) -> Result<Arc<Accounts>, StopReason> {
        let fill = |volume: &Volume| CopyUp {
            target: volume.bind.target.clone(),
            directory: PathBuf::from(&volume.bind.source),
        };
        let copies = creation.volumes.iter().filter(|volume| volume.copy_up).map(fill).collect();
        let accounts = rootfs::look(mounts, ground.scratch.clone(), copies).await;
        let accounts = Arc::new(accounts.map_err(|error| cannot_create(with_causes(&error)))?);
        self.accounts.put(&creation.image.chain_id, Arc::clone(&accounts));
        Ok(accounts)
    }

    /// The container's record with its spec. One that is there is brought up to date.
    async fn record_container(
        &self,
        creation: &Creation<'_>,
        ground: &Groundwork,
        accounts: &Accounts,
    ) -> Result<(), StopReason> {
        let container = self.container(creation, ground, accounts)?;
        let failed =
            |status: &tonic::Status| failure("CannotCreateContainerError", "record the container", status);
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
        accounts: &Accounts,
    ) -> Result<Container, StopReason> {
        let (plan, settings, image) = (creation.plan, &creation.settings, &creation.image.config);
        let of_image = image.config().as_ref().and_then(|c| c.user().clone());
        let asked = settings.user.clone().or(of_image).unwrap_or_default();
        let user = user::resolve(&asked, &settings.groups, accounts).map_err(cannot_create)?;
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
        let options = Options {
            binary_name: self.options.runtime_binary.clone().unwrap_or_default(),
            systemd_cgroup: self.options.systemd_cgroup,
        };
        Ok(Container {
            id: plan.id.as_str().to_owned(),
            labels: labels(creation, &ground.output),
            image: creation.image_name.to_owned(),
            runtime: Some(Runtime { name: self.options.runtime.clone(), options: Some(to_any(&options)) }),
            spec: Some(Any { type_url: SPEC_TYPE.to_owned(), value }),
            snapshotter: self.options.snapshotter.clone(),
            snapshot_key: plan.id.as_str().to_owned(),
            extensions: plan
                .keepsake
                .iter()
                .map(|keepsake| (keepsake::EXTENSION.to_owned(), keepsake::write(keepsake)))
                .collect(),
            ..Container::default()
        })
    }

    /// The process, made but not started.
    async fn create_process(
        &self,
        creation: &Creation<'_>,
        rootfs: Vec<Mount>,
        output: String,
    ) -> Result<(), StopReason> {
        let (plan, task) = (creation.plan, creation.plan.spec.id());
        let request = CreateTaskRequest {
            container_id: plan.id.as_str().to_owned(),
            rootfs,
            terminal: creation.settings.terminal(),
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
        self.events.forget(id);
        // What an earlier life of the agent had asked for is still being taken down by containerd,
        // under the same id: for a moment its directory comes and goes below the new process.
        let mut pauses = BETWEEN_TRIES.iter();
        loop {
            let status = match self.tasks().create(self.connection.request(request.clone())).await {
                Ok(_) => break,
                Err(status) => status,
            };
            let exists = status.code() == Code::AlreadyExists;
            if exists && matches!(self.process(id).await, Ok(Some(_))) {
                break;
            }
            match pauses.next().filter(|_| !refused_by_runtime(&status)) {
                Some(pause) => tokio::time::sleep(*pause).await,
                None => return Err(not_created(&status)),
            }
        }
        self.groups.settle(task, id);
        Ok(())
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

/// Labels of image, task definition, agent, and our own, the later winning.
fn labels(creation: &Creation<'_>, output: &str) -> HashMap<String, String> {
    let plan = creation.plan;
    let config = creation.image.config.config();
    let mut labels: HashMap<String, String> =
        config.as_ref().and_then(|c| c.labels().clone()).unwrap_or_default();
    let pairs = creation.settings.labels.iter().chain(&plan.labels);
    labels.extend(pairs.map(|(key, value)| (key.clone(), value.clone())));
    labels.insert(LABEL_TASK_ARN.to_owned(), plan.spec.arn.as_str().to_owned());
    labels.insert(LABEL_CONTAINER_NAME.to_owned(), plan.name.clone());
    labels.insert(LABEL_STOP_SIGNAL.to_owned(), creation.stop_signal.to_string());
    labels.insert(LABEL_CGROUP.to_owned(), plan.cgroup.clone());
    labels.insert(LABEL_OUTPUT.to_owned(), output.to_owned());
    if let NetworkAttachment::Namespace { ipv4: Some(address), .. } = &plan.network {
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
