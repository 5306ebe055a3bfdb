//! A world for the core: containers that really are made, started and ended, images that are pulled and
//! cleaned up, a store that keeps what was committed and nothing else, and a control plane that remembers
//! what it was told. It carries out effects when the test says so, and [`check`] holds the invariants
//! after every step.

mod check;
pub mod fate;
pub mod hall;
pub mod shapes;

use ecsd::core::{
    Action, ContainerExit, CreatedContainer, Effect, EffectId, Event, Observed, Outcome, PullFailure,
    ReportOutcome, Rules, State, Timeouts,
};
use ecsd::model::*;
use shapes::{arn, id, spec};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

#[derive(Debug, Clone)]
pub enum Op {
    Run {
        task: u8,
        shape: u8,
    },
    Stop(u8),
    /// The n-th effect under way is carried out and answered.
    Answer(u8),
    /// Carried out, but the answer gets lost.
    AnswerLost(u8),
    AnswerTwice(u8),
    Fail(u8),
    Exit {
        container: u8,
        code: i32,
    },
    /// The checks of a process say so, perhaps too late.
    Health {
        container: u8,
        status: HealthStatus,
    },
    /// A process ends and nobody says so.
    ExitUnseen {
        container: u8,
        code: i32,
    },
    /// An exit of any time is told (again).
    ExitTold(u8),
    /// Milliseconds.
    Pass(u32),
    PassHours,
    Reconcile,
    /// The runtime begins to list what it holds.
    Look,
    /// The answer to the oldest look comes: as it was then, or as it is now.
    Listed {
        stale: bool,
    },
    /// Images that no task is said to need are removed.
    CleanImages,
    /// The agent dies; effects under way happen, happen by half, or not, by the bits. It is back after
    /// so many seconds.
    Crash {
        bits: u8,
        away: u8,
    },
}

#[derive(Debug, Clone, PartialEq)]
enum Process {
    Made,
    Running {
        since: Wall,
    },
    Ended(ExitRecord),
    /// Given back: the runtime has forgotten how it ended.
    Released,
}

pub struct World {
    state: State,
    now: Now,
    under_way: Vec<(EffectId, Action)>,
    /// Tasks that were prepared in this life of the agent.
    prepared: BTreeSet<TaskId>,
    processes: BTreeMap<ContainerKey, Process>,
    networks: BTreeSet<ContainerKey>,
    images: BTreeSet<String>,
    store: BTreeMap<TaskId, (Arc<TaskSpec>, TaskProgress)>,
    dirty: BTreeSet<TaskId>,
    gone: BTreeSet<TaskId>,
    /// What the control plane was told, in order.
    told: BTreeMap<TaskArn, Vec<TaskStateChange>>,
    wanted: BTreeSet<u8>,
    looks: VecDeque<(EffectId, BTreeMap<ContainerKey, Observed>)>,
    /// Every end of a process that there was.
    exits: Vec<(ContainerKey, ExitRecord)>,
    seen: check::Seen,
    settling: bool,
}

/// What the host has.
pub const CPU: u64 = 400;
pub const MEMORY_MIB: u64 = 10_000;

fn rules() -> Rules {
    Rules {
        host: HostResources { cpu: CPU, memory_mib: MEMORY_MIB, ..HostResources::default() },
        stop_timeout: Duration::from_secs(5),
        cleanup_wait: Duration::from_secs(60),
        cleanup_jitter: Duration::from_secs(30),
        timeouts: Timeouts::default(),
        pull_failure_stops_task: false,
        pull_upfront: false,
    }
}

impl World {
    pub fn new() -> Self {
        let mut world = Self {
            state: State::new(rules()),
            now: Now { wall: Wall(1_000_000_000_000), mono: Mono(Duration::from_secs(1)) },
            under_way: vec![],
            prepared: BTreeSet::new(),
            processes: BTreeMap::new(),
            networks: BTreeSet::new(),
            images: BTreeSet::new(),
            store: BTreeMap::new(),
            dirty: BTreeSet::new(),
            gone: BTreeSet::new(),
            told: BTreeMap::new(),
            wanted: BTreeSet::new(),
            looks: VecDeque::new(),
            exits: vec![],
            seen: check::Seen::default(),
            settling: false,
        };
        world.reconcile();
        world
    }

    /// From now on, nothing may be started.
    pub fn forbid_starts(&mut self) {
        self.seen.starts_forbidden = true;
    }

    pub fn apply(&mut self, op: Op) {
        match op {
            Op::Run { task, shape } => {
                // The same ARN is always the same task.
                let spec = self.state.task(&id(task)).map_or_else(|| spec(task, shape), |t| t.spec.clone());
                self.wanted.insert(task);
                if !self.told.contains_key(arn(task)) {
                    self.want(spec, DesiredStatus::Running);
                }
            }
            Op::Stop(task) => {
                if let Some(known) = self.state.task(&id(task)) {
                    self.want(known.spec.clone(), DesiredStatus::Stopped);
                }
            }
            Op::Answer(n) => self.answer(n, false, 1),
            Op::AnswerLost(n) => self.answer(n, false, 0),
            Op::AnswerTwice(n) => self.answer(n, false, 2),
            Op::Fail(n) => self.answer(n, true, 1),
            Op::Exit { container, code } => self.exit(container, code, true),
            Op::Health { container, status } => self.health(container, status),
            Op::ExitUnseen { container, code } => self.exit(container, code, false),
            Op::ExitTold(n) => {
                if let Some((key, exit)) = pick(&self.exits, n).cloned() {
                    self.exited(key, exit);
                }
            }
            Op::Pass(ms) => self.pass(Duration::from_millis(u64::from(ms))),
            Op::PassHours => self.pass(Duration::from_secs(3 * 3600)),
            Op::Reconcile => self.reconcile(),
            Op::Look => {
                let as_of = self.state.look();
                self.looks.push_back((as_of, self.observed()));
            }
            Op::Listed { stale } => {
                if let Some((as_of, then)) = self.looks.pop_front() {
                    let containers = if stale { then } else { self.observed() };
                    self.step(Event::Reconciled { containers, as_of });
                }
            }
            Op::CleanImages => {
                let in_use = self.state.images_in_use();
                self.images.retain(|image| in_use.contains(image.as_str()));
            }
            Op::Crash { bits, away } => self.crash(bits, Duration::from_secs(away.into())),
        }
    }

    fn want(&mut self, spec: Arc<TaskSpec>, desired: DesiredStatus) {
        self.step(Event::TaskWanted { spec, desired });
        // Acknowledged: durable.
        self.commit();
    }

    fn pass(&mut self, time: Duration) {
        let target = self.now.mono.plus(time);
        // The shell wakes the core at every deadline on the way.
        for _ in 0..200 {
            let Some(at) = self.state.next_deadline().filter(|at| *at <= target) else { break };
            self.advance_to(at.max(self.now.mono));
            self.step(Event::Tick);
        }
        self.advance_to(target);
        self.step(Event::Tick);
    }

    fn advance_to(&mut self, mono: Mono) {
        let gone = mono.since(self.now.mono);
        self.now = Now { wall: Wall(self.now.wall.0 + gone.as_nanos() as u64), mono };
    }

    fn step(&mut self, event: Event) {
        let effects = self.state.step(event, self.now);
        let mut relies = false;
        for effect in &effects {
            match effect {
                Effect::Persist(id) => {
                    self.dirty.insert(id.clone());
                }
                Effect::Forget(id) => {
                    self.dirty.remove(id);
                    self.gone.insert(id.clone());
                }
                Effect::Run { action, .. } => {
                    // As the engine does: see engine/persist.rs.
                    relies |= match action {
                        Action::Start { .. } | Action::Restart { .. } | Action::Release { .. } => true,
                        Action::Report(change) => change.status >= TaskStatus::Running,
                        _ => false,
                    };
                }
            }
        }
        if relies {
            self.commit();
        }
        for effect in effects {
            if let Effect::Run { id, action, .. } = effect {
                self.check_begun(&action);
                self.under_way.push((id, action));
            }
        }
        self.check();
    }

    fn commit(&mut self) {
        for id in std::mem::take(&mut self.dirty) {
            if let Some(task) = self.state.task(&id) {
                self.store.insert(id, (task.spec.clone(), task.progress.clone()));
            }
        }
        for id in std::mem::take(&mut self.gone) {
            self.store.remove(&id);
        }
    }

    /// Carries out the n-th effect under way, really, and answers it `times` times.
    fn answer(&mut self, n: u8, fail: bool, times: usize) {
        if self.under_way.is_empty() {
            return;
        }
        let (id, action) = self.under_way.remove(usize::from(n) % self.under_way.len());
        // What the control plane took it has; that answer is never lost here (the reporter retries).
        let times = if matches!(action, Action::Report(_)) { times.max(1) } else { times };
        let outcome = if fail { self.failure(&action) } else { self.carry_out(&action) };
        for _ in 0..times {
            self.step(Event::Done { id, outcome: outcome.clone() });
        }
    }

    fn failure(&mut self, action: &Action) -> Outcome {
        let reason = StopReason::new("Failed", "as the test wished");
        let pull = PullFailure { reason: reason.clone(), local: None };
        match action {
            Action::Resolve { spec, container } => {
                let image = &spec.container(&container.name).unwrap().image;
                let local = DIGEST.clone().filter(|_| self.images.contains(image));
                Outcome::Resolved(Err(PullFailure { local, ..pull }))
            }
            Action::Pull { .. } => Outcome::Pulled(Err(pull)),
            Action::PrepareTask { .. } => Outcome::TaskPrepared(Err(reason)),
            Action::Create { .. } => Outcome::Created(Err(reason)),
            Action::Start { .. } | Action::Restart { .. } => {
                // The worst case: it runs, and the answer says that it failed.
                let _ = self.carry_out(action);
                Outcome::Started(Err(StopReason::new("FailedStart", "unknown")))
            }
            Action::Signal { .. } | Action::Kill { .. } => Outcome::Signalled(Err(reason)),
            Action::Release { .. } => Outcome::Released(Err(reason)),
            Action::RemoveTask { .. } => Outcome::TaskRemoved(Err(reason)),
            Action::Report(_) => self.carry_out(action),
        }
    }

    fn carry_out(&mut self, action: &Action) -> Outcome {
        let since = self.now.wall;
        match action {
            Action::Resolve { .. } => {
                Outcome::Resolved(Ok(ResolvedImage { digest: DIGEST.clone(), local: false }))
            }
            Action::Pull { spec, container, .. } => {
                self.images.insert(spec.container(&container.name).unwrap().image.clone());
                Outcome::Pulled(Ok(DIGEST.clone().unwrap()))
            }
            Action::PrepareTask { spec } => {
                self.prepared.insert(spec.id());
                Outcome::TaskPrepared(Ok(()))
            }
            Action::Create { container, .. } => {
                // What is there is adopted, never made again.
                self.processes.entry(container.clone()).or_insert(Process::Made);
                self.networks.insert(container.clone());
                Outcome::Created(Ok(CreatedContainer { at: since, address: ContainerAddress::default() }))
            }
            Action::Start { container, .. } => match self.processes.get_mut(container) {
                Some(Process::Released) | None => {
                    Outcome::Started(Err(StopReason::new("Failed", "no such process")))
                }
                Some(process) => {
                    if *process == Process::Made {
                        *process = Process::Running { since };
                        self.check_started(container);
                    }
                    Outcome::Started(Ok(since))
                }
            },
            Action::Restart { container, .. } => {
                self.end_is_given_back(container);
                match self.processes.get_mut(container) {
                    Some(process @ Process::Made) => {
                        *process = Process::Running { since };
                        Outcome::Started(Ok(since))
                    }
                    Some(Process::Released) | None => {
                        Outcome::Started(Err(StopReason::new("Failed", "no such process")))
                    }
                    Some(_) => Outcome::Started(Ok(since)),
                }
            }
            Action::Signal { container, .. } => self.signal(container, &["stubborn", "immortal"], 143),
            Action::Kill { container, .. } => self.signal(container, &["immortal"], 137),
            Action::Release { container, .. } => {
                self.released(container);
                Outcome::Released(Ok(()))
            }
            Action::RemoveTask { spec } => {
                for c in &spec.containers {
                    let key = spec.key(&c.name);
                    self.released(&key);
                    self.processes.remove(&key);
                }
                Outcome::TaskRemoved(Ok(()))
            }
            Action::Report(change) => {
                self.check_report(change);
                self.told.entry(change.task.clone()).or_default().push(change.clone());
                Outcome::Reported(ReportOutcome::Accepted)
            }
        }
    }

    /// The first half of a restart: the process that ended is given back, another is made.
    fn end_is_given_back(&mut self, container: &ContainerKey) {
        if let Some(Process::Ended(exit)) = self.processes.get(container).cloned() {
            self.check_restart(container, &exit);
            self.processes.insert(container.clone(), Process::Made);
        }
    }

    fn signal(&mut self, container: &ContainerKey, deaf: &[&str], code: i32) -> Outcome {
        if !deaf.contains(&container.name.as_str())
            && let Some(exit) = self.end(container, code)
            && self.settling
        {
            self.exited(container.clone(), exit);
        }
        Outcome::Signalled(Ok(()))
    }

    /// Ends a process, where there is one.
    fn end(&mut self, container: &ContainerKey, code: i32) -> Option<ExitRecord> {
        let process = self.processes.get_mut(container)?;
        let Process::Running { .. } = process else { return None };
        // No two at the same moment: a shim tells nanoseconds.
        self.now.wall.0 += 1;
        let exit = ExitRecord { code: Some(code), at: self.now.wall };
        *process = Process::Ended(exit.clone());
        self.exits.push((container.clone(), exit.clone()));
        Some(exit)
    }

    /// Deleting the runtime's task ends whatever runs in it.
    fn released(&mut self, container: &ContainerKey) {
        self.end(container, 137);
        if let Some(process) = self.processes.get_mut(container) {
            *process = Process::Released;
        }
        self.networks.remove(container);
    }

    fn exit(&mut self, n: u8, code: i32, seen: bool) {
        let runs = |process: &Process| matches!(process, Process::Running { .. });
        let running: Vec<ContainerKey> =
            self.processes.iter().filter(|(_, process)| runs(process)).map(|(key, _)| key.clone()).collect();
        let Some(key) = pick(&running, n) else { return };
        if let Some(exit) = self.end(key, code).filter(|_| seen) {
            self.exited(key.clone(), exit);
        }
    }

    fn health(&mut self, n: u8, status: HealthStatus) {
        let checked: Vec<ContainerKey> =
            self.processes.keys().filter(|key| key.name == "checked").cloned().collect();
        let Some(container) = pick(&checked, n).cloned() else { return };
        self.note_health(&container, status);
        let health = Health { status, since: Some(self.now.wall), ..Health::default() };
        self.step(Event::HealthChanged { container, health });
    }

    fn exited(&mut self, container: ContainerKey, exit: ExitRecord) {
        self.step(Event::Exited { container, exit, oom_killed: false });
    }

    fn observed(&self) -> BTreeMap<ContainerKey, Observed> {
        let see = |process: &Process| match process {
            Process::Made | Process::Released => Observed::Created,
            Process::Running { .. } => Observed::Running,
            Process::Ended(exit) => Observed::Exited(ContainerExit { exit: exit.clone(), oom_killed: false }),
        };
        self.processes.iter().map(|(key, process)| (key.clone(), see(process))).collect()
    }

    fn reconcile(&mut self) {
        let as_of = self.state.look();
        let containers = self.observed();
        self.step(Event::Reconciled { containers, as_of });
    }

    fn crash(&mut self, bits: u8, away: Duration) {
        for (n, (_, action)) in std::mem::take(&mut self.under_way).into_iter().enumerate() {
            match (action, bits >> (n % 4 * 2) & 3) {
                (Action::Restart { container, .. }, 1) => self.end_is_given_back(&container),
                (action, 2 | 3) => drop(self.carry_out(&action)),
                _ => {}
            }
        }
        self.prepared.clear();
        self.dirty.clear();
        self.gone.clear();
        self.looks.clear();
        self.state = State::new(rules());
        self.seen.agent_died();
        self.now.wall.0 += away.as_nanos() as u64;
        for (spec, progress) in self.store.values().cloned().collect::<Vec<_>>() {
            let effects = self.state.step(Event::TaskRestored { spec, progress }, self.now);
            assert!(effects.is_empty(), "nothing happens before the runtime was asked");
        }
        // As the engine does: what was being made is made again from nothing, and what lives no more
        // gives back its network.
        let progress = |key: &ContainerKey| self.state.task(&key.task)?.progress.containers.get(&key.name);
        let half_made =
            |key: &ContainerKey| progress(key).is_some_and(|c| c.known < ContainerStatus::Created);
        self.processes
            .retain(|key, process| !matches!(process, Process::Made | Process::Released) || !half_made(key));
        let lives = |key: &ContainerKey| match self.processes.get(key) {
            Some(Process::Made | Process::Released | Process::Running { .. }) => true,
            Some(Process::Ended(_)) => self.state.task(&key.task).is_some_and(|t| t.may_restart(&key.name)),
            None => false,
        };
        self.networks.retain(lives);
        self.reconcile();
    }

    /// Events get through again: everything asked for is carried out, processes end when told to.
    pub fn settle(&mut self) {
        self.settling = true;
        for task in self.wanted.clone() {
            self.apply(Op::Stop(task));
        }
        for _ in 0..400 {
            while !self.under_way.is_empty() {
                self.answer(0, false, 1);
            }
            self.reconcile();
            if self.state.tasks().is_empty() && self.under_way.is_empty() {
                break;
            }
            if let Some(at) = self.state.next_deadline() {
                self.advance_to(at.max(self.now.mono));
                self.step(Event::Tick);
            }
        }
        self.check_nothing_is_left();
    }
}

/// The n-th of some, counted round.
fn pick<T>(all: &[T], n: u8) -> Option<&T> {
    all.get(usize::from(n).checked_rem(all.len())?)
}

static DIGEST: LazyLock<Option<ImageDigest>> =
    LazyLock::new(|| ImageDigest::parse(&format!("sha256:{}", "ab".repeat(32))));
