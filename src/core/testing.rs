//! A core whose effects all go well unless a test says otherwise, for tests of what it asks for, and in
//! which order. Each effect is a line: `pull main`, `start main`, `STOPPED`.

use super::*;
use crate::model::{
    ContainerAddress, ContainerKey, ContainerProgress, ExitRecord, HostResources, ImageDigest, ResolvedImage,
    StopReason, TaskStatus, Wall,
};

pub(super) struct Driver {
    pub(super) state: State,
    pub(super) now: Now,
    lines: Vec<String>,
    /// Lines that fail.
    pub(super) failing: BTreeSet<&'static str>,
    /// Lines that are never answered.
    pub(super) silent: BTreeSet<&'static str>,
    /// What a failing look-up or pull says of a local image.
    pub(super) local: Option<ImageDigest>,
    /// Those of the next life.
    pub(super) rules: Rules,
    id: TaskId,
}

pub(super) fn digest() -> Option<ImageDigest> {
    ImageDigest::parse(&format!("sha256:{}", "ab".repeat(32)))
}

impl Driver {
    /// Nothing is known yet but that the runtime holds nothing.
    pub(super) fn new(change: impl FnOnce(&mut Rules)) -> Self {
        let mut rules = Rules {
            host: HostResources { cpu: 1024, memory_mib: 1024, ..HostResources::default() },
            stop_timeout: Duration::from_secs(30),
            cleanup_wait: Duration::from_secs(3 * 3600),
            cleanup_jitter: Duration::ZERO,
            timeouts: Timeouts::default(),
            pull_failure_stops_task: false,
            pull_upfront: false,
        };
        change(&mut rules);
        let mut driver = Self {
            state: State::new(rules.clone()),
            now: Now { wall: Wall(1_000_000_000_000), mono: Mono(Duration::from_secs(1)) },
            lines: Vec::new(),
            failing: BTreeSet::new(),
            silent: BTreeSet::new(),
            local: None,
            rules,
            id: TaskArn::parse("arn:aws:ecs:r:1:task/c/none").unwrap().id(),
        };
        let as_of = driver.state.look();
        driver.step(Event::Reconciled { containers: BTreeMap::new(), as_of });
        driver
    }

    pub(super) fn run(&mut self, spec: &Arc<TaskSpec>) -> Vec<String> {
        self.id = spec.id();
        self.step(Event::TaskWanted { spec: spec.clone(), desired: DesiredStatus::Running })
    }

    /// What follows is about the task of that id.
    pub(super) fn id_of(&mut self, id: &str) {
        self.id = TaskArn::parse(&format!("arn:aws:ecs:r:1:task/c/{id}")).unwrap().id();
    }

    pub(super) fn stop(&mut self, spec: &Arc<TaskSpec>) -> Vec<String> {
        self.id = spec.id();
        self.step(Event::TaskWanted { spec: spec.clone(), desired: DesiredStatus::Stopped })
    }

    pub(super) fn exit(&mut self, name: &str, code: impl Into<Option<i32>>) -> Vec<String> {
        let container = ContainerKey { task: self.id.clone(), name: name.to_owned() };
        let exit = ExitRecord { code: code.into(), at: self.now.wall };
        self.step(Event::Exited { container, exit, oom_killed: false })
    }

    /// The agent dies and is there again; the runtime holds what `seen` says.
    pub(super) fn die(&mut self, seen: &[(&str, Observed)]) -> Vec<String> {
        let task = &self.state.tasks()[&self.id];
        let restored = Event::TaskRestored { spec: task.spec.clone(), progress: task.progress.clone() };
        self.state = State::new(self.rules.clone());
        self.step(restored);
        self.reconcile(seen)
    }

    pub(super) fn reconcile(&mut self, seen: &[(&str, Observed)]) -> Vec<String> {
        let key = |name: &str| ContainerKey { task: self.id.clone(), name: name.to_owned() };
        let containers = seen.iter().map(|(name, seen)| (key(name), seen.clone())).collect();
        let as_of = self.state.look();
        self.step(Event::Reconciled { containers, as_of })
    }

    /// Time passes, with a tick whenever one is due.
    pub(super) fn pass(&mut self, seconds: u64) -> Vec<String> {
        let mut lines = Vec::new();
        let until = self.now.mono.plus(Duration::from_secs(seconds));
        while let Some(at) = self.state.next_deadline().filter(|at| *at <= until) {
            self.forward(at);
            lines.extend(self.step(Event::Tick));
        }
        self.forward(until);
        lines
    }

    fn forward(&mut self, to: Mono) {
        let gone = to.since(self.now.mono);
        self.now.mono = self.now.mono.max(to);
        self.now.wall.0 += u64::try_from(gone.as_nanos()).unwrap();
    }

    /// A step, and those that follow from its effects; what was asked for, line by line.
    fn step(&mut self, event: Event) -> Vec<String> {
        let mut effects: VecDeque<Effect> = self.state.step(event, self.now).into();
        while let Some(effect) = effects.pop_front() {
            let Effect::Run { id, action, .. } = effect else { continue };
            let line = line(&action);
            let (fails, silent) = (self.failing.contains(line.as_str()), self.silent.contains(line.as_str()));
            self.lines.push(line);
            if !silent {
                let outcome = if fails { self.badly(&action) } else { self.well(&action) };
                effects.extend(self.state.step(Event::Done { id, outcome }, self.now));
            }
        }
        std::mem::take(&mut self.lines)
    }

    fn well(&self, action: &Action) -> Outcome {
        let at = self.now.wall;
        match action {
            Action::Resolve { .. } => Outcome::Resolved(Ok(ResolvedImage { digest: digest(), local: false })),
            Action::Pull { .. } => Outcome::Pulled(Ok(digest().unwrap())),
            Action::PrepareTask { .. } => Outcome::TaskPrepared(Ok(())),
            Action::Create { .. } => {
                Outcome::Created(Ok(CreatedContainer { at, address: ContainerAddress::default() }))
            }
            Action::Start { .. } | Action::Restart { .. } => Outcome::Started(Ok(at)),
            Action::Signal { .. } | Action::Kill { .. } => Outcome::Signalled(Ok(())),
            Action::Release { .. } => Outcome::Released(Ok(())),
            Action::RemoveTask { .. } => Outcome::TaskRemoved(Ok(())),
            Action::Report(_) => Outcome::Reported(ReportOutcome::Accepted),
        }
    }

    fn badly(&self, action: &Action) -> Outcome {
        let reason = StopReason::new("TestError", line(action));
        let pull = PullFailure { reason: reason.clone(), local: self.local.clone() };
        match action {
            Action::Resolve { .. } => Outcome::Resolved(Err(pull)),
            Action::Pull { .. } => Outcome::Pulled(Err(pull)),
            Action::PrepareTask { .. } => Outcome::TaskPrepared(Err(reason)),
            Action::Create { .. } => Outcome::Created(Err(reason)),
            Action::Start { .. } | Action::Restart { .. } => Outcome::Started(Err(reason)),
            Action::Signal { .. } | Action::Kill { .. } => Outcome::Signalled(Err(reason)),
            Action::Release { .. } => Outcome::Released(Err(reason)),
            Action::RemoveTask { .. } => Outcome::TaskRemoved(Err(reason)),
            Action::Report(_) => Outcome::Reported(ReportOutcome::Refused),
        }
    }

    pub(super) fn task(&self) -> &Task {
        &self.state.tasks()[&self.id]
    }

    pub(super) fn container(&self, name: &str) -> &ContainerProgress {
        &self.task().progress.containers[name]
    }

    /// Exit code and reason of a container.
    pub(super) fn end(&self, name: &str) -> (Option<i32>, String) {
        let container = self.container(name);
        let code = container.exit.as_ref().and_then(|exit| exit.code);
        (code, container.error.as_ref().map(ToString::to_string).unwrap_or_default())
    }
}

fn line(action: &Action) -> String {
    let (what, name) = match action {
        Action::Resolve { container, .. } => ("resolve", container.name.as_str()),
        Action::Pull { container, .. } => ("pull", container.name.as_str()),
        Action::PrepareTask { .. } => ("prepare", "task"),
        Action::Create { container, .. } => ("create", container.name.as_str()),
        Action::Start { container, .. } => ("start", container.name.as_str()),
        Action::Restart { container, .. } => ("restart", container.name.as_str()),
        Action::Signal { container, .. } => ("signal", container.name.as_str()),
        Action::Kill { container, .. } => ("kill", container.name.as_str()),
        Action::Release { container, .. } => ("release", container.name.as_str()),
        Action::RemoveTask { .. } => ("remove", "task"),
        Action::Report(change) => {
            return match change.status {
                TaskStatus::Running => "RUNNING",
                TaskStatus::Stopped => "STOPPED",
                _ => "PENDING",
            }
            .to_owned();
        }
    };
    format!("{what} {name}")
}
