//! Carrying out effects: each in a tokio task of its own, at most so many of a class at once, each
//! with its deadline, each answered exactly once.

use crate::core::{Action, CreatedContainer, EffectClass, EffectId, Event, Outcome, State};
use crate::crashpoint::{self, Moment};
use crate::engine::launch_times::{LaunchTimes, Phase, task_of};
use crate::engine::persist::Journal;
use crate::engine::{Input, Ports};
use crate::model::{
    ContainerAddress, ContainerId, ContainerKey, Keepsake, StopReason, TaskId, TaskSpec, VolumeSource,
};
use crate::ports::{CreatePlan, CreateResult};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{Semaphore, mpsc};

/// Before the runtime is asked about a process of whose end nobody told.
const LOST_PAUSE: Duration = Duration::from_secs(1);

/// How many effects of a class run at once; the rest wait in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Look-ups and pulls.
    pub pull: usize,
    /// Creating and starting.
    pub launch: usize,
    /// Signals, kills, releases.
    pub stop: usize,
    /// Clean-ups.
    pub cleanup: usize,
    /// Reports: they mostly wait, for their turn or to be tried again. How many are sent at once is the
    /// reporter's business.
    pub report: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { pull: 32, launch: 16, stop: 64, cleanup: 4, report: 4096 }
    }
}

/// Carries out effects and sends what came of them to the inbox.
pub(super) struct Executor {
    ports: Ports,
    data_dir: PathBuf,
    classes: Classes,
    inbox: mpsc::Sender<Input>,
    /// Containers of starts and restarts under way.
    starting: BTreeMap<EffectId, ContainerKey>,
}

#[derive(Clone)]
struct Classes {
    pull: Arc<Semaphore>,
    launch: Arc<Semaphore>,
    stop: Arc<Semaphore>,
    cleanup: Arc<Semaphore>,
    report: Arc<Semaphore>,
}

impl Classes {
    fn of(&self, class: EffectClass) -> Arc<Semaphore> {
        match class {
            EffectClass::Pull => self.pull.clone(),
            EffectClass::Launch => self.launch.clone(),
            EffectClass::Stop => self.stop.clone(),
            EffectClass::Cleanup => self.cleanup.clone(),
            EffectClass::Report => self.report.clone(),
        }
    }
}

impl Executor {
    pub fn new(ports: Ports, data_dir: PathBuf, limits: Limits, inbox: mpsc::Sender<Input>) -> Self {
        let limit = |n: usize| Arc::new(Semaphore::new(n.max(1)));
        let classes = Classes {
            pull: limit(limits.pull),
            launch: limit(limits.launch),
            stop: limit(limits.stop),
            cleanup: limit(limits.cleanup),
            report: limit(limits.report),
        };
        Self { ports, data_dir, classes, inbox, starting: BTreeMap::new() }
    }

    pub fn ports(&self) -> &Ports {
        &self.ports
    }

    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// What is recorded of the container that an action makes.
    pub fn recorded_of(&self, state: &State, journal: &Journal, action: &Action) -> Recorded {
        let Action::Create { container, .. } = action else { return Recorded::default() };
        let task = state.task(&container.task);
        let progress = task.and_then(|task| task.progress.containers.get(&container.name));
        Recorded {
            address: progress.map(|container| container.address.clone()).unwrap_or_default(),
            source: journal.source(&container.task),
        }
    }

    /// Begins an effect.
    pub fn begin(
        &mut self,
        id: EffectId,
        deadline: Duration,
        action: Action,
        known: Recorded,
        times: LaunchTimes,
    ) {
        if let Action::Start { container, .. } | Action::Restart { container, .. } = &action {
            self.starting.insert(id, container.clone());
        }
        let work = Work { ports: self.ports.clone(), data_dir: self.data_dir.clone(), times };
        let class = self.classes.of(action.class());
        let inbox = self.inbox.clone();
        work.times.begun(&task_of(&action));
        tokio::spawn(async move {
            // A semaphore that is never closed always answers.
            let Ok(_slot) = class.acquire_owned().await else { return };
            let late = action.timed_out(deadline);
            let kind = action.kind().name();
            crashpoint::pass(Moment::Before, kind);
            let outcome = match late {
                Some(late) => {
                    tokio::time::timeout(deadline, work.carry_out(action, known)).await.unwrap_or(late)
                }
                None => work.carry_out(action, known).await,
            };
            crashpoint::pass(Moment::After, kind);
            // The loop has ended: nobody waits for the answer.
            let _ = inbox.send(Input::Event(Event::Done { id, outcome })).await;
        });
    }

    /// The container that the effect started, where it was a start or a restart.
    pub fn finished(&mut self, id: EffectId) -> Option<ContainerKey> {
        self.starting.remove(&id)
    }

    /// Sends the end of a container's process to the inbox.
    pub fn watch(&self, container: ContainerKey, id: ContainerId) {
        let containers = self.ports.containers.clone();
        let inbox = self.inbox.clone();
        tokio::spawn(async move {
            let input = match containers.wait(&id).await {
                Some(end) => {
                    Input::Event(Event::Exited { container, exit: end.exit, oom_killed: end.oom_killed })
                }
                // Without a process there is no end to tell: what the runtime holds decides. Not at
                // once, lest a runtime that contradicts itself keeps us busy.
                None => {
                    tokio::time::sleep(LOST_PAUSE).await;
                    Input::Lost(container)
                }
            };
            let _ = inbox.send(input).await;
        });
    }
}

/// What is recorded of a container that is to be made, and of its task.
#[derive(Debug, Default)]
pub(super) struct Recorded {
    address: ContainerAddress,
    source: Option<Arc<str>>,
}

/// What one effect needs.
struct Work {
    ports: Ports,
    data_dir: PathBuf,
    times: LaunchTimes,
}

impl Work {
    async fn carry_out(&self, action: Action, known: Recorded) -> Outcome {
        match action {
            Action::Resolve { spec, container } => {
                let image = image_of(&spec, &container);
                Outcome::Resolved(self.timed(&container, Phase::Pull, self.ports.images.resolve(image)).await)
            }
            Action::Pull { spec, container, digest } => {
                let pull = self.ports.images.pull(image_of(&spec, &container), digest.as_ref());
                Outcome::Pulled(self.timed(&container, Phase::Pull, pull).await)
            }
            Action::PrepareTask { spec } => Outcome::TaskPrepared(self.prepare(spec).await),
            Action::Create { spec, container } => Outcome::Created(self.create(spec, container, known).await),
            Action::Start { container, arn } => {
                let id = ContainerId::derive(&arn, &container.name);
                Outcome::Started(self.timed(&container, Phase::Start, self.ports.containers.start(&id)).await)
            }
            Action::Restart { container, arn } => {
                let id = ContainerId::derive(&arn, &container.name);
                Outcome::Started(self.ports.containers.restart(&id).await)
            }
            Action::Signal { container, arn } => {
                let id = ContainerId::derive(&arn, &container.name);
                Outcome::Signalled(self.ports.containers.signal(&id).await)
            }
            Action::Kill { container, arn } => {
                let id = ContainerId::derive(&arn, &container.name);
                Outcome::Signalled(self.ports.containers.kill(&id).await)
            }
            Action::Release { container, spec } => {
                Outcome::Released(self.release(&spec, &container.name).await)
            }
            Action::RemoveTask { spec } => Outcome::TaskRemoved(self.remove(spec).await),
            Action::Report(change) => {
                let begun = Instant::now();
                let outcome = self.ports.reporter.submit(&change).await;
                self.times.reported(&change.task.id(), change.status, begun.elapsed());
                Outcome::Reported(outcome)
            }
        }
    }

    async fn timed<T>(&self, container: &ContainerKey, phase: Phase, work: impl Future<Output = T>) -> T {
        let begun = Instant::now();
        let result = work.await;
        self.times.took(container, phase, begun.elapsed());
        result
    }

    async fn prepare(&self, spec: Arc<TaskSpec>) -> Result<(), StopReason> {
        let cgroups = self.ports.cgroups.clone();
        let directory = self.task_directory(&spec);
        blocking(move || {
            make_directories(&spec, &directory).map_err(|error| {
                let message = format!("{}: {error}", directory.display());
                StopReason::new("ResourceInitializationError", message)
            })?;
            cgroups.prepare(&spec)
        })
        .await
    }

    async fn create(&self, spec: Arc<TaskSpec>, key: ContainerKey, known: Recorded) -> CreateResult {
        let attach = self.ports.networks.attach(&spec, &key.name, &known.address);
        let (network, address) = self.timed(&key, Phase::Network, attach).await?;
        crashpoint::pass(Moment::After, "create-network");
        let id = spec.container_id(&key.name);
        let directory = self.task_directory(&spec);
        let volumes = spec.volumes.iter().map(|volume| {
            let path = match &volume.source {
                VolumeSource::HostPath(path) => PathBuf::from(path),
                VolumeSource::Task => volume_directory(&directory, &volume.name),
            };
            (volume.name.clone(), path)
        });
        let plan = CreatePlan {
            cgroup: self.ports.cgroups.container_path(&key.task, &id),
            volumes: volumes.collect(),
            directory: directory.join(&key.name),
            agent_environment: self.ports.facts.environment(&spec, &key.name),
            labels: self.ports.facts.labels(&spec.arn, &spec, &key.name),
            keepsake: known.source.map(|source| Keepsake {
                source,
                address: address.clone(),
                instance: self.ports.facts.instance(),
            }),
            network,
            name: key.name.clone(),
            id,
            spec,
        };
        let at = self.timed(&key, Phase::Create, self.ports.containers.create(&plan)).await?;
        Ok(CreatedContainer { at, address })
    }

    /// Process first, then network: both are tried, the first failure is told.
    async fn release(&self, spec: &TaskSpec, name: &str) -> Result<(), StopReason> {
        let process = self.ports.containers.release(&spec.container_id(name)).await;
        crashpoint::pass(Moment::After, "release-process");
        let network = self.ports.networks.detach(spec, name).await;
        process.and(network)
    }

    async fn remove(&self, spec: Arc<TaskSpec>) -> Result<(), StopReason> {
        let mut result = Ok(());
        for container in &spec.containers {
            let released = self.release(&spec, &container.name).await;
            let removed = self.ports.containers.remove(&spec.container_id(&container.name)).await;
            crashpoint::pass(Moment::After, "remove-container");
            result = result.and(released).and(removed);
        }
        let cgroups = self.ports.cgroups.clone();
        let directory = self.task_directory(&spec);
        let rest = blocking(move || {
            cgroups.remove(&spec.id())?;
            remove_directory(&directory).map_err(|error| {
                StopReason::new("CannotRemoveVolumeError", format!("{}: {error}", directory.display()))
            })
        });
        result.and(rest.await)
    }

    fn task_directory(&self, spec: &TaskSpec) -> PathBuf {
        task_directory(&self.data_dir, &spec.id())
    }
}

/// A task's own directory: generated files, logs and volumes of its containers.
pub(super) fn task_directory(data_dir: &Path, task: &TaskId) -> PathBuf {
    data_dir.join("tasks").join(task.as_str())
}

fn image_of<'a>(spec: &'a TaskSpec, container: &ContainerKey) -> &'a str {
    spec.container(&container.name).map_or("", |c| c.image.as_str())
}

fn volume_directory(task: &Path, name: &str) -> PathBuf {
    task.join(".volumes").join(name)
}

fn make_directories(spec: &TaskSpec, task: &Path) -> io::Result<()> {
    for container in &spec.containers {
        std::fs::create_dir_all(task.join(&container.name))?;
    }
    for volume in spec.volumes.iter().filter(|v| v.source == VolumeSource::Task) {
        std::fs::create_dir_all(volume_directory(task, &volume.name))?;
    }
    Ok(())
}

pub(super) fn remove_directory(path: &Path) -> io::Result<()> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Runs blocking work on a thread of its own; a panic in it is an error like another.
async fn blocking(work: impl FnOnce() -> Result<(), StopReason> + Send + 'static) -> Result<(), StopReason> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|panic| Err(StopReason::new("UnknownError", panic.to_string())))
}
