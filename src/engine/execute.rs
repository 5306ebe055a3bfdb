//! Carrying out effects: each in a tokio task of its own, at most so many of a class at once (`slots`:
//! what hangs holds up nobody else), each with its deadline, each answered exactly once.

use crate::core::{Action, CreatedContainer, EffectId, Event, Outcome, State};
use crate::crashpoint::{self, Moment};
use crate::engine::launch_times::{LaunchTimes, Phase, subject_of};
use crate::engine::persist::Journal;
use crate::engine::slots::{Limits, Slots};
use crate::engine::{Input, Ports};
use crate::model::{
    ContainerAddress, ContainerId, ContainerKey, ContainerSpec, DesiredStatus, Keepsake, StopReason, TaskId,
    TaskSpec,
};
use crate::ports::{CreatePlan, CreateResult, NetworkAttachment, TasksView, task_directory};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, watch};

/// Before the runtime is asked about a process of whose end nobody told.
const LOST_PAUSE: Duration = Duration::from_secs(1);
/// How long making a task's volumes may take (spec/task-engine.md 1.11).
const VOLUME_LIMIT: Duration = Duration::from_secs(300);

/// Carries out effects and sends what came of them to the inbox.
pub(super) struct Executor {
    ports: Ports,
    data_dir: PathBuf,
    slots: Slots,
    inbox: mpsc::Sender<Input>,
    view: watch::Receiver<TasksView>,
    /// Containers of starts and restarts under way.
    starting: BTreeMap<EffectId, ContainerKey>,
}

impl Executor {
    pub fn new(
        ports: Ports,
        data_dir: PathBuf,
        limits: Limits,
        inbox: mpsc::Sender<Input>,
        view: watch::Receiver<TasksView>,
    ) -> Self {
        let slots = Slots::new(&limits);
        Self { ports, data_dir, slots, inbox, view, starting: BTreeMap::new() }
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

    /// The task's own directory: generated files, logs and volumes of its containers.
    pub fn task_directory(&self, spec: &TaskSpec) -> PathBuf {
        task_directory(&self.data_dir, &spec.id())
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
        let class = self.slots.of(action.class());
        let inbox = self.inbox.clone();
        let (task, container) = subject_of(&action);
        work.times.begun(&task);
        let stopped = action.given_up().map(|outcome| (outcome, self.view.clone()));
        let queued = Instant::now();
        tokio::spawn(async move {
            let late = action.timed_out(deadline);
            let kind = action.kind().name();
            let work = class.run(&task, async {
                crashpoint::pass(Moment::Before, kind);
                if let Some(container) = container {
                    work.times.took(&container, Phase::Wait, queued.elapsed());
                }
                work.carry_out(action, known).await
            });
            let work = async {
                match late {
                    Some(late) => tokio::time::timeout(deadline, work).await.unwrap_or(late),
                    None => work.await,
                }
            };
            let outcome = match stopped {
                // What is dropped here is a download or the wait for it: the next one goes on from there.
                Some((given_up, view)) => tokio::select! {
                    outcome = work => outcome,
                    () = to_stop(view, &task) => given_up,
                },
                None => work.await,
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

/// Resolves once the task is to stop, or is gone.
async fn to_stop(mut view: watch::Receiver<TasksView>, task: &TaskId) {
    let stops =
        |view: &TasksView| view.get(task).is_none_or(|task| task.progress.desired == DesiredStatus::Stopped);
    if view.wait_for(stops).await.is_err() {
        // The loop has ended: whatever is under way ends with the agent.
        std::future::pending::<()>().await;
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
                let resolve = self.ports.images.resolve(spec.image_request(&container.name));
                Outcome::Resolved(self.timed(&container, Phase::Pull, resolve).await)
            }
            Action::Pull { spec, container, digest } => {
                let pull = self.ports.images.pull(spec.image_request(&container.name), digest.as_ref());
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
        let volumes = tokio::time::timeout(VOLUME_LIMIT, self.ports.volumes.provide(&spec)).await;
        volumes.unwrap_or_else(|_| Err(volume_timed_out()))?;
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
        let internal = spec.container(&key.name).is_some_and(ContainerSpec::is_internal);
        let (network, address) = if internal {
            (NetworkAttachment::Empty, ContainerAddress::default())
        } else {
            let attach = self.ports.networks.attach(&spec, &key.name, &known.address);
            self.timed(&key, Phase::Network, attach).await?
        };
        crashpoint::pass(Moment::After, "create-network");
        let id = spec.container_id(&key.name);
        let directory = self.task_directory(&spec);
        let plan = CreatePlan {
            cgroup: self.ports.cgroups.container_path(&key.task, &id),
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

    /// Process first, then network and volumes: all are tried, the first failure is told.
    async fn release(&self, spec: &TaskSpec, name: &str) -> Result<(), StopReason> {
        let id = spec.container_id(name);
        let process = self.ports.containers.release(&id).await;
        crashpoint::pass(Moment::After, "release-process");
        let network = self.ports.networks.detach(spec, name).await;
        // As long as there may be a process it may write to them.
        let volumes = match &process {
            Ok(()) => self.ports.volumes.detach(&id).await,
            Err(_) => Ok(()),
        };
        let released = process.and(network).and(volumes);
        if let Err(reason) = &released {
            tracing::warn!(container = %spec.key(name), error = %reason, "it could not be given back yet");
        }
        released
    }

    async fn remove(&self, spec: Arc<TaskSpec>) -> Result<(), StopReason> {
        let mut result = Ok(());
        for container in &spec.containers {
            let released = self.release(&spec, &container.name).await;
            let removed = self.ports.containers.remove(&spec.container_id(&container.name)).await;
            crashpoint::pass(Moment::After, "remove-container");
            result = result.and(released).and(removed);
        }
        let (cgroups, id) = (self.ports.cgroups.clone(), spec.id());
        blocking(move || cgroups.remove(&id)).await?;
        let files = self.ports.volumes.remove(&spec, &self.task_directory(&spec)).await;
        result.and(files)
    }

    fn task_directory(&self, spec: &TaskSpec) -> PathBuf {
        task_directory(&self.data_dir, &spec.id())
    }
}

fn make_directories(spec: &TaskSpec, task: &Path) -> io::Result<()> {
    for container in &spec.containers {
        std::fs::create_dir_all(task.join(&container.name))?;
    }
    Ok(())
}

pub(super) fn remove_directory(path: &Path) -> io::Result<()> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// The original's words.
fn volume_timed_out() -> StopReason {
    let message = "Could not transition to creating volume; timed out after waiting 5m0s";
    StopReason::new("DockerTimeoutError", message)
}

/// Runs blocking work on a thread of its own; a panic in it is an error like another.
async fn blocking(work: impl FnOnce() -> Result<(), StopReason> + Send + 'static) -> Result<(), StopReason> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|panic| Err(StopReason::new("UnknownError", panic.to_string())))
}
