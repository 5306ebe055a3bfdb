//! A world for the core: containers that really are made, started and ended, a store that keeps what
//! was committed and nothing else, and a control plane that remembers what it was told. It carries
//! out effects when the test says so, and checks the invariants after every step.

use ecsd::core::{
    Action, CreatedContainer, Effect, EffectId, Event, Observed, Outcome, PullFailure, ReportOutcome, Rules,
    State, Timeouts,
};
use ecsd::model::*;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
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
    /// A process ends and nobody says so.
    ExitUnseen(u8),
    /// Milliseconds.
    Pass(u32),
    PassHours,
    Reconcile,
    /// The agent dies; effects under way happen or not, by the bits.
    Crash(u8),
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Process {
    Made,
    Running,
    Ended(i32),
}

pub struct World {
    state: State,
    now: Now,
    under_way: Vec<(EffectId, Action)>,
    processes: BTreeMap<ContainerKey, Process>,
    networks: BTreeSet<ContainerKey>,
    started: BTreeMap<ContainerKey, u32>,
    store: BTreeMap<TaskId, (Arc<TaskSpec>, TaskProgress)>,
    dirty: BTreeSet<TaskId>,
    gone: BTreeSet<TaskId>,
    /// What the control plane was told, in order.
    told: BTreeMap<TaskArn, Vec<TaskStatus>>,
    wanted: BTreeSet<u8>,
    known: BTreeMap<ContainerKey, ContainerStatus>,
    starts_forbidden: bool,
    settling: bool,
    /// Two minutes have passed at some time, so stops may have been given up.
    long_silence: bool,
}

fn arn(task: u8) -> TaskArn {
    TaskArn::parse(&format!("arn:aws:ecs:us-east-1:1:task/c/t{task}")).unwrap()
}

fn container(
    name: &str,
    essential: bool,
    depends: &[(&str, DependencyCondition)],
    port: u16,
) -> ContainerSpec {
    let ports = (port != 0).then_some(PortMapping {
        container: PortRange { first: 80, count: 1, is_range: false },
        host_port: port,
        protocol: Protocol::Tcp,
    });
    ContainerSpec {
        image: "img".into(),
        essential,
        cpu_shares: 100,
        memory_mib: 100,
        ports: ports.into_iter().collect(),
        depends_on: depends
            .iter()
            .map(|(on, condition)| Dependency { container: (*on).into(), condition: *condition })
            .collect(),
        start_timeout: (name == "init").then(|| Duration::from_secs(20)),
        ..ContainerSpec::empty(name)
    }
}

/// A task of one of eight shapes.
fn spec(task: u8, shape: u8) -> Arc<TaskSpec> {
    use DependencyCondition::{Complete, Create, Start, Success};
    let containers = match shape {
        0 => vec![container("main", true, &[], 0)],
        1 => vec![container("main", true, &[], 8080)],
        2 => vec![container("main", true, &[("init", Success)], 0), container("init", false, &[], 0)],
        3 => vec![container("main", true, &[("side", Create)], 0), container("side", false, &[], 0)],
        4 => vec![container("main", true, &[("init", Complete)], 8081), container("init", false, &[], 0)],
        5 => vec![container("a", true, &[("b", Start)], 0), container("b", true, &[("a", Start)], 0)],
        6 => vec![container("stubborn", true, &[], 0), container("immortal", false, &[], 0)],
        _ => vec![
            container("a", true, &[], 0),
            container("b", true, &[("a", Start)], 8080),
            container("c", false, &[], 0),
        ],
    };
    Arc::new(TaskSpec {
        family: "f".into(),
        version: "1".into(),
        containers,
        volumes: vec![],
        launch_type: "EC2".into(),
        ..TaskSpec::empty(arn(task))
    })
}

fn rules() -> Rules {
    Rules {
        host: HostResources { cpu: 400, memory_mib: 10_000, ..HostResources::default() },
        stop_timeout: Duration::from_secs(5),
        cleanup_wait: Duration::from_secs(60),
        cleanup_jitter: Duration::from_secs(30),
        timeouts: Timeouts::default(),
        pull_failure_stops_task: false,
    }
}

impl World {
    pub fn new() -> Self {
        let mut world = Self {
            state: State::new(rules()),
            now: Now { wall: Wall(1_000_000_000_000), mono: Mono(Duration::from_secs(1)) },
            under_way: vec![],
            processes: BTreeMap::new(),
            networks: BTreeSet::new(),
            started: BTreeMap::new(),
            store: BTreeMap::new(),
            dirty: BTreeSet::new(),
            gone: BTreeSet::new(),
            told: BTreeMap::new(),
            wanted: BTreeSet::new(),
            known: BTreeMap::new(),
            starts_forbidden: false,
            settling: false,
            long_silence: false,
        };
        world.reconcile();
        world
    }

    pub fn forbid_starts(&mut self) {
        self.starts_forbidden = true;
    }

    pub fn apply(&mut self, op: Op) {
        match op {
            Op::Run { task, shape } => {
                self.wanted.insert(task);
                // The same ARN is always the same task.
                let spec =
                    self.state.task(&arn(task).id()).map_or_else(|| spec(task, shape), |t| t.spec.clone());
                if !self.told.contains_key(&arn(task)) {
                    self.want(spec, DesiredStatus::Running);
                }
            }
            Op::Stop(task) => {
                if let Some(known) = self.state.task(&arn(task).id()) {
                    self.want(known.spec.clone(), DesiredStatus::Stopped);
                }
            }
            Op::Answer(n) => self.answer(n, false, 1),
            Op::AnswerLost(n) => self.answer(n, false, 0),
            Op::AnswerTwice(n) => self.answer(n, false, 2),
            Op::Fail(n) => self.answer(n, true, 1),
            Op::Exit { container, code } => self.exit(container, code, true),
            Op::ExitUnseen(container) => self.exit(container, 0, false),
            Op::Pass(ms) => self.pass(Duration::from_millis(u64::from(ms))),
            Op::PassHours => self.pass(Duration::from_secs(3 * 3600)),
            Op::Reconcile => self.reconcile(),
            Op::Crash(bits) => self.crash(bits),
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
        self.long_silence |= mono.0 > Duration::from_secs(121);
        self.now = Now { wall: Wall(self.now.wall.0 + gone.as_nanos() as u64), mono };
    }

    fn step(&mut self, event: Event) {
        let waiting_before: Vec<TaskId> = self.state.queue().cloned().collect();
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
                        Action::Start { .. } | Action::Release { .. } => true,
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
                self.begun(&action);
                self.under_way.push((id, action));
            }
        }
        self.check(&waiting_before);
    }

    fn begun(&mut self, action: &Action) {
        match action {
            Action::Start { container, .. } => {
                assert!(!self.starts_forbidden, "{container} is started after its task was told to stop");
                let task = self.state.task(&container.task).unwrap();
                assert_eq!(task.progress.desired, DesiredStatus::Running, "invariant 12");
            }
            Action::Report(change) if change.status == TaskStatus::Stopped => {
                // Invariant 4: nothing that is reported stopped still runs, unless it was given up.
                let task = self.state.task(&change.task.id()).unwrap();
                for (name, progress) in &task.progress.containers {
                    let key = ContainerKey { task: change.task.id(), name: name.clone() };
                    // Only after two minutes in which nothing could be done about it.
                    let error = progress.error.as_ref().map(|e| e.name.as_str());
                    let given_up = matches!(error, Some("CannotStopContainerError"))
                        || matches!(error, Some("FailedStart" | "DockerTimeoutError")) && self.long_silence;
                    let runs = self.processes.get(&key) == Some(&Process::Running);
                    assert!(!runs || given_up, "{key} runs, but its task is reported stopped: {error:?}");
                }
            }
            _ => {}
        }
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
            Action::Resolve { .. } => Outcome::Resolved(Err(PullFailure { local: digest(), ..pull })),
            Action::Pull { .. } => Outcome::Pulled(Err(pull)),
            Action::PrepareTask { .. } => Outcome::TaskPrepared(Err(reason)),
            Action::Create { .. } => Outcome::Created(Err(reason)),
            Action::Start { .. } => {
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
        match action {
            Action::Resolve { .. } => Outcome::Resolved(Ok(ResolvedImage { digest: digest(), local: false })),
            Action::Pull { .. } => Outcome::Pulled(Ok(digest().unwrap())),
            Action::PrepareTask { .. } => Outcome::TaskPrepared(Ok(())),
            Action::Create { container, .. } => {
                // What is there is adopted, never made again.
                self.processes.entry(container.clone()).or_insert(Process::Made);
                self.networks.insert(container.clone());
                Outcome::Created(Ok(CreatedContainer {
                    at: self.now.wall,
                    address: ContainerAddress::default(),
                }))
            }
            Action::Start { container, .. } => match self.processes.get(container) {
                Some(Process::Made) => {
                    self.processes.insert(container.clone(), Process::Running);
                    let starts = self.started.entry(container.clone()).or_default();
                    *starts += 1;
                    assert_eq!(*starts, 1, "{container} was started twice");
                    Outcome::Started(Ok(self.now.wall))
                }
                Some(_) => Outcome::Started(Ok(self.now.wall)),
                None => Outcome::Started(Err(StopReason::new("Failed", "no such container"))),
            },
            Action::Signal { container, .. } => self.signal(container, &["stubborn", "immortal"]),
            Action::Kill { container, .. } => self.signal(container, &["immortal"]),
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
                let told = self.told.entry(change.task.clone()).or_default();
                if let Some(last) = told.last() {
                    // All that is before RUNNING is PENDING to the control plane.
                    let rank = |status: TaskStatus| status.max(TaskStatus::Created);
                    assert!(rank(change.status) >= rank(*last), "told {last:?}, then {:?}", change.status);
                }
                told.push(change.status);
                Outcome::Reported(ReportOutcome::Accepted)
            }
        }
    }

    fn signal(&mut self, container: &ContainerKey, deaf: &[&str]) -> Outcome {
        if self.processes.get(container) == Some(&Process::Running)
            && !deaf.contains(&container.name.as_str())
        {
            self.processes.insert(container.clone(), Process::Ended(143));
            if self.settling {
                self.seen_exit(container.clone(), 143);
            }
        }
        Outcome::Signalled(Ok(()))
    }

    /// Deleting the runtime's task ends whatever runs in it.
    fn released(&mut self, container: &ContainerKey) {
        if self.processes.get(container) == Some(&Process::Running) {
            self.processes.insert(container.clone(), Process::Ended(137));
        }
        self.networks.remove(container);
    }

    fn exit(&mut self, n: u8, code: i32, seen: bool) {
        let running: Vec<ContainerKey> =
            self.processes.iter().filter(|(_, p)| **p == Process::Running).map(|(k, _)| k.clone()).collect();
        if running.is_empty() {
            return;
        }
        let key = running[usize::from(n) % running.len()].clone();
        self.processes.insert(key.clone(), Process::Ended(code));
        if seen {
            self.seen_exit(key, code);
        }
    }

    fn seen_exit(&mut self, container: ContainerKey, code: i32) {
        let exit = ExitRecord { code: Some(code), at: self.now.wall };
        self.step(Event::Exited { container, exit, oom_killed: false });
    }

    fn observed(&self) -> BTreeMap<ContainerKey, Observed> {
        let see = |process: &Process| match process {
            Process::Made => Observed::Created,
            Process::Running => Observed::Running,
            Process::Ended(code) => Observed::Exited(ExitRecord { code: Some(*code), at: self.now.wall }),
        };
        self.processes.iter().map(|(key, process)| (key.clone(), see(process))).collect()
    }

    fn reconcile(&mut self) {
        let containers = self.observed();
        let as_of = self.state.last_effect();
        self.step(Event::Reconciled { containers, as_of });
    }

    fn crash(&mut self, bits: u8) {
        for (n, (_, action)) in std::mem::take(&mut self.under_way).into_iter().enumerate() {
            if bits & (1 << (n % 8)) != 0 {
                let _ = self.carry_out(&action);
            }
        }
        self.dirty.clear();
        self.gone.clear();
        self.state = State::new(rules());
        self.known.clear();
        for (spec, progress) in self.store.values().cloned().collect::<Vec<_>>() {
            let effects = self.state.step(Event::TaskRestored { spec, progress }, self.now);
            assert!(effects.is_empty(), "nothing happens before the runtime was asked");
        }
        // As the engine does: what was being made is made again from nothing.
        let known =
            |key: &ContainerKey| Some(self.state.task(&key.task)?.progress.containers.get(&key.name)?.known);
        let half_made: Vec<ContainerKey> = self
            .processes
            .iter()
            .filter(|(key, p)| {
                **p == Process::Made && known(key).is_some_and(|k| k < ContainerStatus::Created)
            })
            .map(|(key, _)| key.clone())
            .collect();
        for key in half_made {
            self.processes.remove(&key);
            self.networks.remove(&key);
        }
        self.reconcile();
    }

    fn check(&mut self, waiting_before: &[TaskId]) {
        // 1. A known status never goes back.
        for (id, task) in self.state.tasks() {
            for (name, progress) in &task.progress.containers {
                let key = ContainerKey { task: id.clone(), name: name.clone() };
                let before = self.known.insert(key.clone(), progress.known).unwrap_or_default();
                assert!(progress.known >= before, "{key}: {before:?} -> {:?}", progress.known);
            }
            assert!(task.progress.sent <= task.progress.known);
        }
        // 2. No more is in use than there is, and it is the sum over admitted tasks.
        let in_use = self.state.in_use();
        let live = self
            .state
            .tasks()
            .values()
            .filter(|t| t.progress.admitted && t.progress.known < TaskStatus::Stopped);
        assert_eq!(in_use.cpu, live.map(|t| t.spec.claim().cpu).sum::<u64>());
        assert!(in_use.cpu <= rules().host.cpu);
        // 3. Nothing that fits is waiting.
        for id in self.state.queue() {
            assert!(
                self.state.waiting_for(id).is_some(),
                "{id} waits for nothing (before: {waiting_before:?})"
            );
        }
        // A deadline in the past would keep the shell spinning: a tick must move it.
        let busy = self.state.next_deadline().is_some_and(|at| at <= self.now.mono);
        if busy && !self.settling {
            let mut again = self.state.clone();
            let effects = again.step(Event::Tick, self.now);
            let later = again.next_deadline().is_none_or(|at| at > self.now.mono);
            assert!(later || !effects.is_empty(), "a tick at {:?} changes nothing", self.now.mono);
        }
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
        assert!(self.state.tasks().is_empty(), "left: {:#?}", self.state.tasks());
        // 5 and 6: every task that was taken ended in one last report.
        for task in &self.wanted {
            let told = self.told.get(&arn(*task)).and_then(|told| told.last());
            assert_eq!(told, Some(&TaskStatus::Stopped), "task {task}");
        }
        // 7. Nothing is left.
        self.commit();
        let left: Vec<_> = self.processes.iter().collect();
        assert!(left.is_empty(), "containers left: {left:?}");
        assert!(self.networks.is_empty(), "networks left: {:?}", self.networks);
        assert!(self.store.is_empty(), "records left");
        assert_eq!(self.state.next_deadline(), None);
    }
}

fn digest() -> Option<ImageDigest> {
    ImageDigest::parse(&format!("sha256:{}", "ab".repeat(32)))
}
