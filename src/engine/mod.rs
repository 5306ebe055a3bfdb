//! The shell around the core: the one loop that owns the [`State`].
//!
//! ```text
//!   payloads ──┐                                        ┌─> store       one transaction a batch of steps
//!   exits ─────┼─> inbox ─> State::step ─> effects ─────┼─> effects     each its own task, limited by class
//!   answers ───┤     ^                                  └─> view        what the endpoints answer from
//!   deadlines ─┘     └──────── Event::Done ──────────────────┘
//! ```
//!
//! Order within one turn: take everything that has arrived, step, make durable what an effect or an
//! acknowledgement relies on, publish, begin effects. So nothing is begun or acknowledged that a crash
//! would forget. The loop itself never waits for containerd, a registry or the control plane.
//!
//! Stopping the agent stops the loop; it never touches a container.

mod execute;
mod health;
mod kept_back;
mod launch_times;
mod lost;
mod persist;
mod recover;
mod slots;
mod writer;

pub use slots::Limits;

use crate::core::{Action, Effect, EffectId, Event, Outcome, Rules, State};
use crate::model::{
    ContainerKey, ContainerStatus, DesiredStatus, Health, Mono, Now, TaskArn, TaskId, TaskSpec, Wall,
};
use crate::ports::{
    AgentFacts, Cgroups, Containers, HealthChecks, Images, Networks, Reporter, Store, TaskDecoder, TaskView,
    TasksView, Volumes,
};
use execute::Executor;
use health::{Epoch, HealthRuns, Subject};
use launch_times::LaunchTimes;
use persist::Journal;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::{mpsc, oneshot, watch};

/// How many inputs one turn takes before it commits.
const BATCH: usize = 128;
/// Inputs that may wait before their senders do.
const INBOX: usize = 1024;
/// How often the runtime is asked what it holds, though no event was missed.
const RECONCILE_EVERY: Duration = Duration::from_secs(300);

/// The world, one adapter each.
#[derive(Clone)]
pub struct Ports {
    /// Images.
    pub images: Arc<dyn Images>,
    /// Containers.
    pub containers: Arc<dyn Containers>,
    /// Their health checks.
    pub health: Arc<dyn HealthChecks>,
    /// Networks.
    pub networks: Arc<dyn Networks>,
    /// cgroups.
    pub cgroups: Arc<dyn Cgroups>,
    /// Volumes.
    pub volumes: Arc<dyn Volumes>,
    /// The durable state.
    pub store: Arc<dyn Store>,
    /// The control plane.
    pub reporter: Arc<dyn Reporter>,
    /// What the agent adds to each container.
    pub facts: Arc<dyn AgentFacts>,
    /// Reads stored tasks.
    pub decoder: Arc<dyn TaskDecoder>,
}

/// What the operator decided for the engine.
#[derive(Debug, Clone)]
pub struct Options {
    /// Rules of the core.
    pub rules: Rules,
    /// Tasks' directories are made in `<data_dir>/tasks`.
    pub data_dir: PathBuf,
    /// How many effects of a class run at once.
    pub limits: Limits,
    /// Which boot of the host this is; empty where the kernel does not tell.
    pub boot_id: String,
}

/// A task as the control plane wants it.
#[derive(Debug, Clone)]
pub struct WantedTask {
    /// What is asked.
    pub spec: Arc<TaskSpec>,
    /// RUNNING or STOPPED.
    pub desired: DesiredStatus,
    /// What the store keeps of it; the decoder reads it again.
    pub source: Arc<str>,
}

/// What comes in from outside.
#[derive(Debug)]
enum Input {
    /// Tasks of one message, and who waits for their being durable.
    Tasks { wanted: Vec<WantedTask>, rejected: Vec<(TaskArn, String)>, durable: oneshot::Sender<bool> },
    /// Somebody wants to know whether the loop goes round.
    Ping(oneshot::Sender<()>),
    /// An event for the core.
    Event(Event),
    /// The checks of a container, begun at that start of it, say something new.
    Health { container: ContainerKey, epoch: Epoch, health: Health },
    /// A container's process is not there any more, and nobody told of its end.
    Lost(ContainerKey),
    /// The runtime was asked what it holds.
    Listed(recover::Listing),
}

/// The way in. Cheap to clone.
#[derive(Debug, Clone)]
pub struct EngineHandle {
    inbox: mpsc::Sender<Input>,
    view: watch::Receiver<TasksView>,
}

impl EngineHandle {
    /// Hands over the tasks of one message: those to stop first, whatever their order here.
    /// Answers true once all of it is durable; false where it could not be stored, or the agent is
    /// about to end: then it must not be acknowledged.
    pub async fn submit(&self, wanted: Vec<WantedTask>, rejected: Vec<(TaskArn, String)>) -> bool {
        let (durable, answer) = oneshot::channel();
        let input = Input::Tasks { wanted, rejected, durable };
        self.inbox.send(input).await.is_ok() && answer.await.unwrap_or(false)
    }

    /// True once the loop has come round; false where it has ended. How long to wait is the caller's
    /// to say.
    pub async fn responds(&self) -> bool {
        let (pong, answer) = oneshot::channel();
        self.inbox.send(Input::Ping(pong)).await.is_ok() && answer.await.is_ok()
    }

    /// What is known of every task, always the newest.
    pub fn view(&self) -> watch::Receiver<TasksView> {
        self.view.clone()
    }
}

/// The loop, to be run by one tokio task.
pub struct Engine {
    state: State,
    executor: Executor,
    journal: Journal,
    times: LaunchTimes,
    inbox: mpsc::Receiver<Input>,
    to_inbox: mpsc::Sender<Input>,
    views: BTreeMap<TaskId, Arc<TaskView>>,
    /// Something in `views` was not published yet.
    view_changed: bool,
    view: watch::Sender<TasksView>,
    /// How often the queue had been gone through when the views of those who wait were made.
    queue_rounds: u64,
    /// Containers whose end somebody waits for.
    watched: BTreeSet<ContainerKey>,
    health: HealthRuns,
    /// Starts that wait until the state can be stored.
    kept_back: Vec<kept_back::Start>,
    listing: bool,
    /// Nothing was reconciled yet in this life: what is to be found out until then.
    recovery: Option<recover::Recovery>,
    started: Instant,
}

impl Engine {
    /// Reads the store and takes up its tasks. Blocks on the store.
    ///
    /// # Errors
    /// Where the store as a whole can't be read.
    pub fn open(ports: Ports, options: Options) -> Result<(Self, EngineHandle), crate::ports::StoreError> {
        let (to_inbox, inbox) = mpsc::channel(INBOX);
        let (view, view_receiver) = watch::channel(TasksView::default());
        let (tasks, recovery) = recover::stored_tasks(&ports, &options.boot_id)?;
        let mut engine = Self {
            state: State::new(options.rules),
            journal: Journal::new(ports.store.clone()),
            health: HealthRuns::new(ports.health.clone(), to_inbox.clone()),
            executor: Executor::new(
                ports.clone(),
                options.data_dir,
                options.limits,
                to_inbox.clone(),
                view_receiver.clone(),
            ),
            times: LaunchTimes::default(),
            inbox,
            to_inbox: to_inbox.clone(),
            views: BTreeMap::new(),
            view_changed: false,
            view,
            queue_rounds: 0,
            watched: BTreeSet::new(),
            kept_back: Vec::new(),
            listing: false,
            recovery: Some(recovery),
            started: Instant::now(),
        };
        for recover::StoredTask { spec, source, progress } in tasks {
            let id = spec.id();
            let now = engine.now();
            engine.journal.stored_task(id.clone(), source);
            let _nothing_before_reconcile = engine.state.step(Event::TaskRestored { spec, progress }, now);
            engine.refresh_view(&id);
        }
        engine.publish();
        Ok((engine, EngineHandle { inbox: to_inbox, view: view_receiver }))
    }

    /// Runs until `stop` resolves, then makes durable what is not yet and returns.
    pub async fn run(mut self, stop: impl Future<Output = ()>) {
        tokio::pin!(stop);
        let mut every = tokio::time::interval(RECONCILE_EVERY);
        every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let relist = self.executor.ports().containers.clone();
        loop {
            let deadline = self.state.next_deadline().map(|at| self.started + at.0);
            let write_by = self.journal.due();
            let mut inputs = Vec::new();
            // Each arm either took something out of a channel or nothing at all: all cancel-safe.
            tokio::select! {
                biased;
                () = &mut stop => break,
                input = self.inbox.recv() => inputs.extend(input),
                () = sleep_until(deadline) => inputs.push(Input::Event(Event::Tick)),
                () = sleep_until(write_by) => {}
                _ = every.tick() => self.list(),
                () = relist.relist_due() => self.list(),
            }
            while inputs.len() < BATCH
                && let Ok(more) = self.inbox.try_recv()
            {
                inputs.push(more);
            }
            self.turn(inputs).await;
        }
        self.journal.commit(&self.state).await;
    }

    /// One turn: step over all inputs, make durable, publish, begin effects.
    async fn turn(&mut self, inputs: Vec<Input>) {
        let mut effects = Vec::new();
        let mut waiting = Vec::new();
        for input in inputs {
            match input {
                Input::Tasks { wanted, rejected, durable } => {
                    self.take_tasks(wanted, rejected, &mut effects);
                    waiting.push(durable);
                }
                // Who asked may have given up.
                Input::Ping(pong) => drop(pong.send(())),
                Input::Event(event) => self.step(event, &mut effects),
                Input::Health { container, epoch, health } => {
                    if self.health.is_current(&container, epoch) {
                        let task = container.task.clone();
                        self.step(Event::HealthChanged { container, health }, &mut effects);
                        self.refresh_view(&task);
                    }
                }
                Input::Lost(container) => {
                    self.unwatch(&container);
                    self.list();
                }
                Input::Listed(listing) => self.listed(listing, &mut effects),
            }
        }
        let mut run = Vec::new();
        for effect in effects {
            match effect {
                Effect::Persist(id) => self.changed(id),
                Effect::Forget(id) => self.forgotten(&id),
                Effect::Run { id, deadline, action } => run.push((id, deadline, action)),
            }
        }
        let relied_on =
            !waiting.is_empty() || run.iter().any(|(_, _, action)| persist::relies_on_store(action));
        let due = self.journal.due().is_some_and(|at| at <= Instant::now());
        let durable = if relied_on || due { self.journal.commit(&self.state).await } else { true };
        for answer in waiting {
            // The session may have gone: then the message comes again, and is known.
            let _ = answer.send(durable);
        }
        self.publish();
        run.extend(self.late_starts());
        for (id, deadline, action) in run {
            match &action {
                // After a crash nobody would know that it has run.
                Action::Start { .. } | Action::Restart { .. } if !durable => {
                    self.keep_back((id, deadline, action));
                }
                // The runtime forgets how it ended with this, and nobody else has noted it yet.
                Action::Release { .. } if !durable => self.refuse_release(id),
                _ => self.begin(id, deadline, action),
            }
        }
    }

    fn take_tasks(
        &mut self,
        mut wanted: Vec<WantedTask>,
        rejected: Vec<(TaskArn, String)>,
        effects: &mut Vec<Effect>,
    ) {
        wanted.sort_by_key(|task| task.desired == DesiredStatus::Running);
        for WantedTask { spec, desired, source } in wanted {
            if self.state.task(&spec.id()).is_none() {
                self.journal.new_task(spec.id(), source);
                self.times.received(&spec.id());
            }
            self.step(Event::TaskWanted { spec, desired }, effects);
        }
        for (arn, reason) in rejected {
            self.step(Event::TaskRejected { arn, reason }, effects);
        }
    }

    fn step(&mut self, event: Event, effects: &mut Vec<Effect>) {
        let now = self.now();
        let mut ended = None;
        match &event {
            Event::Exited { container, .. } => {
                self.unwatch(container);
                ended = Some(container.clone());
            }
            Event::Done { id, outcome } => self.answered(*id, outcome),
            _ => {}
        }
        effects.extend(self.state.step(event, now));
        // It was another process that ended, so nobody watches the present one: the list finds it.
        if ended.is_some_and(|container| self.runs(&container)) {
            self.list();
        }
    }

    /// A container whose process runs, as far as is known.
    fn runs(&self, container: &ContainerKey) -> bool {
        let task = self.state.task(&container.task);
        let progress = task.and_then(|task| task.progress.containers.get(&container.name));
        progress.is_some_and(|c| c.known == ContainerStatus::Running && !c.restarts.under_way)
    }

    /// Sees to what an answer means for the shell itself.
    fn answered(&mut self, id: EffectId, outcome: &Outcome) {
        if let Some(container) = self.executor.finished(id)
            && let Outcome::Started(Ok(at)) = outcome
        {
            self.watch(container, *at);
        }
    }

    /// Waits for the end of a container's process that started at that time, and has its health checked
    /// until then; once.
    fn watch(&mut self, container: ContainerKey, started: Wall) {
        let Some(task) = self.state.task(&container.task) else { return };
        if !self.watched.insert(container.clone()) {
            return;
        }
        let id = task.spec.container_id(&container.name);
        if task.spec.container(&container.name).is_some_and(|c| c.health_checked) {
            let directory = self.executor.task_directory(&task.spec).join(&container.name);
            self.health.begin(Subject { key: container.clone(), id: id.clone(), directory, started });
        }
        self.executor.watch(container, id);
    }

    fn unwatch(&mut self, container: &ContainerKey) {
        self.watched.remove(container);
        self.health.end(container);
    }

    fn begin(&mut self, id: EffectId, deadline: Duration, action: Action) {
        let known = self.executor.recorded_of(&self.state, &self.journal, &action);
        self.executor.begin(id, deadline, action, known, self.times.clone());
    }

    fn changed(&mut self, id: TaskId) {
        self.refresh_view(&id);
        self.journal.changed(id);
    }

    fn forgotten(&mut self, id: &TaskId) {
        self.view_changed |= self.views.remove(id).is_some();
        self.times.forget(id);
        self.journal.forget(id.clone());
    }

    fn refresh_view(&mut self, id: &TaskId) {
        if let Some(task) = self.state.task(id) {
            let checked = task.spec.containers.iter().filter(|container| container.health_checked);
            let view = TaskView {
                spec: task.spec.clone(),
                progress: task.progress.clone(),
                waiting_for: self.state.waiting_for(id),
                health: checked
                    .filter_map(|c| Some((c.name.clone(), task.health(&c.name)?.clone())))
                    .collect(),
            };
            self.views.insert(id.clone(), Arc::new(view));
            self.view_changed = true;
        }
    }

    fn publish(&mut self) {
        if self.queue_rounds != self.state.queue_rounds() {
            self.queue_rounds = self.state.queue_rounds();
            // Others came or went: what these wait for may be another thing.
            let waiting: Vec<TaskId> = self.state.queue().cloned().collect();
            waiting.iter().for_each(|id| self.refresh_view(id));
        }
        if std::mem::take(&mut self.view_changed) {
            self.view.send_replace(Arc::new(self.views.clone()));
        }
    }

    fn now(&self) -> Now {
        Now { wall: SystemTime::now().into(), mono: Mono(self.started.elapsed()) }
    }
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}
