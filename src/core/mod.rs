//! THE PURE STATE MACHINE: what is known of every task, and what follows from it.
//!
//! [`State::step`] takes one [`Event`] and the time, and answers the [`Effect`]s to carry out. It is
//! synchronous and deterministic: no clock, no randomness, no I/O, no runtime. The shell (`engine`)
//! owns the one `State`, executes effects and feeds back what came of them.
//!
//! ```text
//!   container:  NONE ─resolve─> MANIFEST_PULLED ─pull─> PULLED ─create─> CREATED ─start─> RUNNING ─exit─┐
//!                 └──────────┴───── stop, or a failure ───────┴─────────────┴───────────────────────> STOPPED
//!   task:       the least advanced of its containers
//! ```
//!
//! It is level-triggered. An event changes what is known; [`plan`] then looks at each container, at
//! what is known, wanted and under way, and asks for what is missing. So an event that is lost,
//! repeated or late changes nothing in the end: a [`Event::Reconciled`] from what the runtime really
//! holds leads to the same place. Every effect under way has a deadline of its own here too: a
//! completion that never comes is an error like another.
//!
//! What a step costs does not grow with the number of tasks, but for looks at the whole (a reconcile, a
//! task that leaves room while others wait): deadlines are kept sorted, and the queue is gone through
//! only when there may be something new to find (benches/step.rs).
//!
//! Invariants (docs/architecture.md says which test holds each):
//! a known status never goes back; resources in use are the sum over admitted tasks; after a step
//! nothing that could run is waiting; STOPPED is reported only after every container that ran has an
//! observed exit (or was given up after every escalation); a stop always escalates; a crash anywhere
//! leads to the same last report; nothing is left after clean-up; losing or repeating events, then
//! reconciling, converges; a stop that arrives before the start wins.

pub mod attach;
pub mod effect;
pub mod event;

mod admission;
mod container;
mod depends;
mod health;
mod images;
mod outcome;
mod plan;
mod reconcile;
mod report;
mod restart;
mod stop;
mod task;

#[cfg(test)]
mod lifecycle_tests;
#[cfg(test)]
mod testing;

pub use admission::OVERTAKEN_MOST;
pub use depends::{DependencyError, check_graph};
pub use effect::{Action, ActionKind, Effect, EffectClass};
pub use event::{
    ContainerExit, CreatedContainer, EffectId, Event, Observed, Outcome, PullFailure, ReportOutcome,
};
pub use health::HealthMonitor;
pub use task::Task;

use crate::model::{DesiredStatus, HostResources, Mono, Now, TaskArn, TaskId, TaskProgress, TaskSpec};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

/// What the operator decided.
#[derive(Debug, Clone, PartialEq)]
pub struct Rules {
    /// What tasks may use of the host.
    pub host: HostResources,
    /// From stop signal to SIGKILL where the container names no timeout.
    pub stop_timeout: Duration,
    /// From the end of a task to its clean-up.
    pub cleanup_wait: Duration,
    /// Added to it, spread over tasks, so that they are not all cleaned up at once.
    pub cleanup_jitter: Duration,
    /// How long what is asked of the world may take.
    pub timeouts: Timeouts,
    /// A pull that fails stops the task even where the container is not essential (pull behaviours
    /// `always` and `once`).
    pub pull_failure_stops_task: bool,
    /// Images of containers that wait for others are pulled at once
    /// (`ECS_PULL_DEPENDENT_CONTAINERS_UPFRONT`).
    pub pull_upfront: bool,
}

/// How long an effect may take before it counts as failed (spec/task-engine.md 1.11).
#[derive(Debug, Clone, PartialEq)]
pub struct Timeouts {
    /// Looking up a digest (`ECS_MANIFEST_PULL_TIMEOUT`).
    pub resolve: Duration,
    /// A whole pull (`ECS_IMAGE_PULL_TIMEOUT`).
    pub pull: Duration,
    /// Making a container (`ECS_CONTAINER_CREATE_TIMEOUT`).
    pub create: Duration,
    /// Starting its process (`ECS_CONTAINER_START_TIMEOUT`).
    pub start: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self { resolve: seconds(60), pull: seconds(2 * 3600), create: seconds(240), start: seconds(180) }
    }
}

/// All that is known. One owner, the engine.
#[derive(Debug, Clone)]
pub struct State {
    rules: Rules,
    tasks: BTreeMap<TaskId, Task>,
    /// Tasks that wait for resources, in order of arrival.
    queue: VecDeque<TaskId>,
    /// Since the queue was gone through, something came or left room.
    queue_due: bool,
    /// How often it was gone through: what tasks wait for may be another thing since.
    queue_rounds: u64,
    /// When each task is due, where it waits for time.
    deadlines: BTreeSet<(Mono, TaskId)>,
    /// Effects under way that concern one task.
    pending: BTreeMap<EffectId, Pending>,
    last_effect: EffectId,
    /// Nothing is begun until the runtime was asked what it holds.
    reconciled: bool,
}

/// Whose effect it is.
#[derive(Debug, Clone, PartialEq)]
struct Pending {
    task: TaskId,
    /// `None` for what concerns the whole task.
    container: Option<String>,
}

/// What becomes of a start that could not be begun when it was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Late {
    /// It is still wanted.
    Begin,
    /// Its task is to stop, and waits for the answer.
    Refuse,
    /// It was given up: nobody waits for the answer.
    Forget,
}

/// One step under construction: what it wants done.
#[derive(Debug, Default)]
struct Step {
    persist: BTreeSet<TaskId>,
    forget: Vec<TaskId>,
    run: Vec<Effect>,
}

impl State {
    /// Nothing known yet.
    pub fn new(rules: Rules) -> Self {
        Self {
            rules,
            tasks: BTreeMap::new(),
            queue: VecDeque::new(),
            queue_due: false,
            queue_rounds: 0,
            deadlines: BTreeSet::new(),
            pending: BTreeMap::new(),
            last_effect: EffectId(0),
            reconciled: false,
        }
    }

    /// Takes one event and answers what is to be done. Everything to persist comes first.
    pub fn step(&mut self, event: Event, now: Now) -> Vec<Effect> {
        let mut step = Step::default();
        match event {
            Event::TaskWanted { spec, desired } => self.wanted(spec, desired, now, &mut step),
            Event::TaskRejected { arn, reason } => self.rejected(arn, reason, now, &mut step),
            Event::TaskRestored { spec, progress } => self.restored(spec, progress, now),
            Event::Reconciled { containers, as_of } => self.reconcile(&containers, as_of, now, &mut step),
            Event::Exited { container, exit, oom_killed } => {
                if let Some(task) = self.tasks.get_mut(&container.task)
                    && !task.is_old_exit(&container.name, &exit)
                {
                    task.container_exited(&container.name, ContainerExit { exit, oom_killed }, now);
                }
                self.advance(&container.task, now, &mut step);
            }
            Event::HealthChanged { container, health } => {
                if let Some(task) = self.tasks.get_mut(&container.task) {
                    task.health_changed(&container.name, health);
                }
                self.advance(&container.task, now, &mut step);
            }
            Event::Done { id, outcome } => self.done(id, outcome, now, &mut step),
            Event::Tick => self.tick(now, &mut step),
        }
        self.admit(now, &mut step);
        step.into_effects()
    }

    /// When [`Event::Tick`] is due, at the latest; `None` where nothing waits for time.
    pub fn next_deadline(&self) -> Option<Mono> {
        // Until the runtime was asked nothing is decided, so nothing is due.
        self.deadlines.first().filter(|_| self.reconciled).map(|(at, _)| *at)
    }

    /// A look at what the runtime holds begins now. What is begun or answered later is not judged by it.
    pub fn look(&mut self) -> EffectId {
        self.last_effect.0 += 1;
        self.last_effect
    }

    /// Every task known, by id.
    pub fn tasks(&self) -> &BTreeMap<TaskId, Task> {
        &self.tasks
    }

    /// The task of that id.
    pub fn task(&self, id: &TaskId) -> Option<&Task> {
        self.tasks.get(id)
    }

    /// Tasks that wait for resources, in order.
    pub fn queue(&self) -> impl Iterator<Item = &TaskId> {
        self.queue.iter()
    }

    /// What is to become of an effect that was asked for a while ago and was not begun.
    pub fn late(&self, effect: EffectId) -> Late {
        let pending = self.pending.get(&effect);
        match pending.and_then(|pending| self.tasks.get(&pending.task)) {
            None => Late::Forget,
            Some(task) if task.wants_stop() => Late::Refuse,
            Some(_) => Late::Begin,
        }
    }

    /// Changes whenever [`State::waiting_for`] may have.
    pub fn queue_rounds(&self) -> u64 {
        self.queue_rounds
    }

    fn wanted(&mut self, spec: Arc<TaskSpec>, desired: DesiredStatus, now: Now, step: &mut Step) {
        let id = spec.id();
        if let Some(task) = self.tasks.get_mut(&id) {
            if desired > task.progress.desired {
                task.progress.desired = desired;
                self.queue_due = true;
                step.persist.insert(id.clone());
            }
        } else {
            let mut task = Task::new(spec);
            task.progress.desired = desired;
            if desired == DesiredStatus::Running {
                // Whatever can't be run at all is known before anything is begun.
                if let Err(error) = check_graph(&task.spec) {
                    task.give_up(&error.to_string(), now);
                } else if !self.lacks_gpu(&mut task, now) {
                    self.queue.push_back(id.clone());
                    self.queue_due = true;
                }
            }
            step.persist.insert(id.clone());
            self.tasks.insert(id.clone(), task);
        }
        self.advance(&id, now, step);
    }

    fn rejected(&mut self, arn: TaskArn, reason: String, now: Now, step: &mut Step) {
        let id = arn.id();
        if self.tasks.contains_key(&id) {
            return;
        }
        let mut task = Task::nameless(arn);
        task.give_up(&reason, now);
        self.tasks.insert(id.clone(), task);
        self.advance(&id, now, step);
    }

    fn restored(&mut self, spec: Arc<TaskSpec>, progress: TaskProgress, now: Now) {
        let id = spec.id();
        let mut task = Task::restored(spec, progress);
        // Of a task whose record was lost the control plane may have spoken first.
        if let Some(known) = self.tasks.get(&id) {
            task.progress.desired = task.progress.desired.max(known.progress.desired);
            self.queue.retain(|waiting| *waiting != id);
            self.deadlines.retain(|(_, due)| *due != id);
        }
        if !task.progress.admitted && task.progress.desired == DesiredStatus::Running {
            // A host may come back with less than it had.
            if !self.lacks_gpu(&mut task, now) {
                self.queue.push_back(id.clone());
            }
        }
        self.queue_due = true;
        self.tasks.insert(id, task);
    }

    /// Gives a task up that wants a GPU which this host does not have: waiting for it would be in vain.
    fn lacks_gpu(&self, task: &mut Task, now: Now) -> bool {
        let claim = task.spec.claim();
        let unknown = self.rules.unknown_gpu(&claim);
        if let Some(gpu) = unknown {
            task.give_up(&format!("task gpu {gpu} not found in host gpus"), now);
        }
        unknown.is_some()
    }

    fn tick(&mut self, now: Now, step: &mut Step) {
        let due = self.deadlines.iter().take_while(|(at, _)| *at <= now.mono);
        // In the order of tasks, whatever the order of time: the same state gives the same effects.
        let due: BTreeSet<TaskId> = due.map(|(_, id)| id.clone()).collect();
        for id in due {
            self.expire(&id, now, step);
            self.advance(&id, now, step);
        }
    }

    /// Keeps what is known of all tasks together up to date with one of them, and the store with every
    /// status that moved: what is released next, the runtime forgets.
    fn index(&mut self, id: &TaskId, step: &mut Step) {
        let Some(task) = self.tasks.get_mut(id) else { return };
        let mark = task.mark();
        if mark != std::mem::replace(&mut task.marked, mark) && !task.nameless {
            step.persist.insert(id.clone());
        }
        let (deadline, holds) = (task.next_deadline(), task.holds());
        // Whoever holds less than before has left room.
        self.queue_due |= holds < std::mem::replace(&mut task.held, holds);
        let before = std::mem::replace(&mut task.deadline, deadline);
        if before != deadline {
            if let Some(at) = before {
                self.deadlines.remove(&(at, id.clone()));
            }
            self.deadlines.extend(deadline.map(|at| (at, id.clone())));
        }
    }

    /// Effects under way whose answer is overdue have failed.
    fn expire(&mut self, id: &TaskId, now: Now, step: &mut Step) {
        let overdue = self.tasks.get(id).map(|task| task.overdue(now)).unwrap_or_default();
        for (effect, outcome) in overdue {
            self.done(effect, outcome, now, step);
        }
    }

    /// A new effect of that task, or of one of its containers.
    fn run(
        &mut self,
        step: &mut Step,
        task: &TaskId,
        container: Option<&str>,
        deadline: Duration,
        action: Action,
    ) -> EffectId {
        let id = EffectId(self.last_effect.0 + 1);
        self.last_effect = id;
        self.pending.insert(id, Pending { task: task.clone(), container: container.map(str::to_owned) });
        step.run.push(Effect::Run { id, deadline, action });
        id
    }
}

impl Step {
    fn into_effects(self) -> Vec<Effect> {
        let forget = self.forget;
        let persist = self.persist.into_iter().filter(|id| !forget.contains(id)).map(Effect::Persist);
        let mut effects: Vec<Effect> = persist.collect();
        effects.extend(forget.iter().cloned().map(Effect::Forget));
        effects.extend(self.run);
        effects
    }
}
