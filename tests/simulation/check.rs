//! The invariants, as far as a world can see them: looked at after every step, whenever an effect is
//! begun, and when the world does what it is told. Numbers are those of docs/architecture.md.

use super::shapes::arn;
use super::{CPU, MEMORY_MIB, Process, World};
use ecsd::core::{Action, Event};
use ecsd::model::*;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// What was seen before, to compare with.
#[derive(Default)]
pub struct Seen {
    /// By task, its containers in order; in this life of the agent.
    known: BTreeMap<TaskId, Vec<ContainerStatus>>,
    started: BTreeSet<ContainerKey>,
    /// What the agent was told last of processes that run, in this life.
    health: BTreeMap<ContainerKey, HealthStatus>,
    /// The exits that were answered by another process.
    answered: BTreeMap<ContainerKey, Vec<ExitRecord>>,
    pub starts_forbidden: bool,
}

impl Seen {
    pub fn agent_died(&mut self) {
        self.known.clear();
        self.health.clear();
    }
}

impl World {
    pub fn check(&mut self) {
        self.check_statuses();
        self.check_admission();
        // A deadline in the past would keep the shell spinning: a tick must move it.
        let busy = self.state.next_deadline().is_some_and(|at| at <= self.now.mono);
        if busy && !self.settling {
            let mut again = self.state.clone();
            let effects = again.step(Event::Tick, self.now);
            let later = again.next_deadline().is_none_or(|at| at > self.now.mono);
            assert!(later || !effects.is_empty(), "a tick at {:?} changes nothing", self.now.mono);
        }
    }

    /// 1. A known status never goes back.
    fn check_statuses(&mut self) {
        for (id, task) in self.state.tasks() {
            if !self.seen.known.contains_key(id) {
                self.seen.known.insert(id.clone(), Vec::new());
            }
            let known = self.seen.known.get_mut(id).unwrap();
            known.resize(task.progress.containers.len(), ContainerStatus::None);
            for ((name, progress), before) in task.progress.containers.iter().zip(known) {
                assert!(progress.known >= *before, "{id}/{name}: {before:?} -> {:?}", progress.known);
                assert!(progress.sent <= progress.known);
                *before = progress.known;
            }
            assert!(task.progress.sent <= task.progress.known);
        }
    }

    /// 2. What is in use is the sum over admitted tasks, and no more than there is.
    /// 3. Nothing that could run waits.
    fn check_admission(&self) {
        let in_use = self.state.in_use();
        let live = || {
            let tasks = self.state.tasks().values();
            tasks.filter(|t| t.progress.admitted && t.progress.known < TaskStatus::Stopped)
        };
        let containers = || live().flat_map(|task| &task.spec.containers);
        assert_eq!(in_use.cpu, containers().map(|c| c.cpu_shares).sum::<u64>());
        assert_eq!(in_use.memory_mib, containers().map(|c| c.memory_mib).sum::<u64>());
        assert!(in_use.cpu <= CPU && in_use.memory_mib <= MEMORY_MIB);
        let ports = || containers().flat_map(|c| &c.ports).map(|mapping| mapping.host_port);
        assert!(ports().all(|port| ports().filter(|other| *other == port).count() == 1), "given twice");
        for id in self.state.queue() {
            assert!(self.state.waiting_for(id).is_some(), "{id} waits for nothing");
        }
    }

    /// Namespaces are there before anybody joins them, and stay until everybody has ended.
    fn check_namespaces(&self, container: &ContainerKey, begins: bool) {
        let task = self.state.task(&container.task).unwrap();
        let Some(holder) = task.spec.namespace_holder() else { return };
        let known = |name: &str| task.progress.containers[name].known;
        if begins && container.name != holder.name {
            assert_eq!(known(&holder.name), ContainerStatus::Running, "{container} joins nothing");
        }
        if !begins && container.name == holder.name {
            let mut others = task.spec.containers.iter().filter(|c| !c.is_internal());
            assert!(others.all(|c| known(&c.name) == ContainerStatus::Stopped), "{container}");
        }
    }

    /// What may be begun, when it is begun.
    pub fn check_begun(&self, action: &Action) {
        // Nothing is fetched or made for a task before its cgroup and its volumes are there.
        if let Action::Pull { spec, .. } | Action::Create { spec, .. } = action {
            assert!(self.prepared.contains(&spec.id()), "{action:?} before its task has what it needs");
        }
        match action {
            Action::Create { container, .. } => self.check_namespaces(container, true),
            Action::Signal { container, .. } => self.check_namespaces(container, false),
            Action::Resolve { container, .. } | Action::Pull { container, .. } => {
                assert_ne!(container.name, NAMESPACE_HOLDER, "it has no image");
            }
            _ => {}
        }
        match action {
            // 12. A stop that was known before the start wins.
            Action::Start { container, .. } | Action::Restart { container, .. } => {
                assert!(!self.seen.starts_forbidden, "{container} is started after its task was to stop");
                let task = self.state.task(&container.task).unwrap();
                assert_eq!(task.progress.desired, DesiredStatus::Running, "{container}");
                let waited = task.spec.container(&container.name).unwrap().depends_on.iter();
                for on in waited.filter(|on| on.condition == DependencyCondition::Healthy) {
                    let told = self.seen.health.get(&task.spec.key(&on.container));
                    assert_eq!(told, Some(&HealthStatus::Healthy), "{container} is started before {on:?}");
                }
            }
            Action::Create { spec, container } => {
                // 9. What a live task needs is not cleaned up between its pull and its use.
                let of_spec = spec.container(&container.name).unwrap();
                let has_image = of_spec.is_internal() || self.images.contains(&of_spec.image);
                assert!(has_image, "{container} lacks its image");
            }
            // 4. Nothing that is reported stopped still runs, unless it was given up: only after two
            // minutes in which nothing could be done about it.
            Action::Report(change) if change.status == TaskStatus::Stopped => {
                let task = self.state.task(&change.task.id()).unwrap();
                let long_silence = self.now.mono.0 > Duration::from_secs(121);
                for (name, progress) in &task.progress.containers {
                    let key = ContainerKey { task: change.task.id(), name: name.clone() };
                    let error = progress.error.as_ref().map(|e| e.name.as_str());
                    let given_up = error == Some("CannotStopContainerError")
                        || matches!(error, Some("FailedStart" | "DockerTimeoutError")) && long_silence;
                    let runs = matches!(self.processes.get(&key), Some(Process::Running { .. }));
                    assert!(!runs || given_up, "{key} runs, but its task is reported stopped: {error:?}");
                }
            }
            _ => {}
        }
    }

    /// What is about to be told of a container's health. Of a process that does not run it is nothing.
    pub fn note_health(&mut self, container: &ContainerKey, status: HealthStatus) {
        let task = self.state.task(&container.task);
        let known = task.and_then(|task| task.progress.containers.get(&container.name));
        if known.is_some_and(|c| c.known == ContainerStatus::Running && !c.restarts.under_way) {
            self.seen.health.insert(container.clone(), status);
        }
    }

    /// 6. Nothing is made twice.
    pub fn check_started(&mut self, container: &ContainerKey) {
        assert!(self.seen.started.insert(container.clone()), "{container} was started twice");
    }

    /// A restart is about to give back a process with this end: its policy says so, it is durable, and
    /// nothing answered this end before.
    pub fn check_restart(&mut self, container: &ContainerKey, exit: &ExitRecord) {
        // One that is carried out after it counted as failed, and was released, finds none.
        let awaited = self.state.task(&container.task).is_some_and(|task| task.may_restart(&container.name));
        assert!(!awaited || self.networks.contains(container), "{container} has lost its network");
        let (spec, progress) = &self.store[&container.task];
        let policy = spec.container(&container.name).unwrap().restart.as_ref().expect("it has a policy");
        let progress = &progress.containers[&container.name];
        assert!(!policy.ignored_exit_codes.contains(&exit.code.unwrap()), "{container}: {exit:?}");
        let answered = self.seen.answered.entry(container.clone()).or_default();
        assert!(!answered.contains(exit), "{container}: {exit:?} is answered twice");
        let before = answered.last().map(|exit| exit.at).or(progress.created_at).unwrap();
        assert!(
            exit.at.since(before) >= policy.attempt_period,
            "{container}: {exit:?} too soon after {before:?}"
        );
        answered.push(exit.clone());
        assert!(progress.restarts.count as usize >= answered.len(), "the count is durable first");
    }

    /// Reports of a task go forward.
    pub fn check_report(&self, change: &TaskStateChange) {
        assert!(change.containers.iter().all(|c| c.name != NAMESPACE_HOLDER), "nobody is told of it");
        if let Some(last) = self.told.get(&change.task).and_then(|told| told.last()) {
            // All that is before RUNNING is PENDING to the control plane.
            let rank = |status: TaskStatus| status.max(TaskStatus::Created);
            assert!(
                rank(change.status) >= rank(last.status),
                "told {:?}, then {:?}",
                last.status,
                change.status
            );
        }
    }

    pub fn check_nothing_is_left(&mut self) {
        assert!(self.state.tasks().is_empty(), "left: {:#?}", self.state.tasks());
        // 5, 11. Every task that was taken ended in one last report.
        for task in &self.wanted {
            let told = self.told.get(arn(*task)).and_then(|told| told.last());
            assert_eq!(told.map(|last| last.status), Some(TaskStatus::Stopped), "task {task}");
        }
        // 7. Nothing is left.
        self.commit();
        assert!(self.processes.is_empty(), "containers left: {:?}", self.processes);
        assert!(self.networks.is_empty(), "networks left: {:?}", self.networks);
        assert!(self.store.is_empty(), "records left");
        assert!(self.state.images_in_use().is_empty(), "images left");
        assert_eq!(self.state.next_deadline(), None);
    }
}
