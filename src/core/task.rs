//! One task: its spec, what became of it, and what is under way.

use crate::core::container::{Run, Under};
use crate::core::event::{EffectId, Outcome};
use crate::core::report::Reports;
use crate::core::stop::Stopping;
use crate::model::{
    ContainerProgress, ContainerSpec, ContainerStatus, DesiredStatus, Mono, NetworkMode, Now, ResourceClaim,
    StopReason, TaskArn, TaskProgress, TaskSpec, TaskStatus,
};
use std::collections::BTreeMap;
use std::sync::Arc;

/// A task as the core knows it.
#[derive(Debug, Clone)]
pub struct Task {
    /// What was asked.
    pub spec: Arc<TaskSpec>,
    /// What has become of it: all that is stored.
    pub progress: TaskProgress,
    /// Not stored and nothing to clean up: a task that could not be taken.
    pub(super) nameless: bool,
    /// What all its containers share.
    pub(super) prepared: Prepared,
    /// What is under way for each container.
    pub(super) runs: BTreeMap<String, Run>,
    /// What is still to be told.
    pub(super) reports: Reports,
    /// Its clean-up.
    pub(super) removal: Removal,
    /// What it takes of the host while it is admitted.
    pub(super) claim: ResourceClaim,
    /// Its mark when it was last looked at.
    pub(super) marked: usize,
    /// What it held of its claim then.
    pub(super) held: Holds,
    /// When it was due then.
    pub(super) deadline: Option<Mono>,
    /// How many later tasks were admitted while this one was the first that waits.
    pub(super) overtaken: u32,
}

/// What a task holds of its claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Holds {
    Nothing,
    /// Every container has ended, but its host ports were not given back.
    Ports,
    All,
}

/// Whether what all containers share is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Prepared {
    No,
    Under(Under),
    Yes,
}

/// Where the clean-up is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Removal {
    /// Not due: the task runs, or its end was not told yet.
    NotDue,
    /// At that time.
    At(Mono),
    Under(Under),
}

impl Task {
    pub(super) fn new(spec: Arc<TaskSpec>) -> Self {
        let progress = TaskProgress {
            containers: spec
                .containers
                .iter()
                .map(|c| (c.name.clone(), ContainerProgress::default()))
                .collect(),
            ..TaskProgress::default()
        };
        Self::restored(spec, progress)
    }

    pub(super) fn restored(spec: Arc<TaskSpec>, mut progress: TaskProgress) -> Self {
        // The spec decides which containers there are, whatever a record says.
        progress.containers.retain(|name, _| spec.container(name).is_some());
        for container in &spec.containers {
            progress.containers.entry(container.name.clone()).or_default();
        }
        let run = |container: &ContainerProgress| Run {
            // Only a start that failed tells an error before the end.
            doubt: container.error.clone().filter(|_| container.known != ContainerStatus::Stopped),
            ..Run::default()
        };
        let runs = progress.containers.iter().map(|(name, c)| (name.clone(), run(c))).collect();
        let reports = Reports::restored(&progress);
        let mut task = Self {
            claim: spec.claim(),
            marked: 0,
            held: Holds::Nothing,
            deadline: None,
            overtaken: 0,
            spec,
            progress,
            nameless: false,
            prepared: Prepared::No,
            runs,
            reports,
            removal: Removal::NotDue,
        };
        task.marked = task.mark();
        task
    }

    /// A task of which nothing but the ARN is known.
    pub(super) fn nameless(arn: TaskArn) -> Self {
        let spec = TaskSpec { network_mode: NetworkMode::None, ..TaskSpec::empty(arn) };
        Self { nameless: true, ..Self::new(Arc::new(spec)) }
    }

    /// The task ends here: nothing of it was begun and nothing will be.
    pub(super) fn give_up(&mut self, reason: &str, now: Now) {
        self.progress.desired = DesiredStatus::Stopped;
        self.progress.reason = reason.to_owned();
        self.progress.known = TaskStatus::Stopped;
        self.progress.stopped_at = Some(now.wall);
        for container in self.progress.containers.values_mut() {
            container.known = ContainerStatus::Stopped;
            container.sent = ContainerStatus::Stopped;
        }
        // Only the task is reported: nothing ever happened to its containers.
        self.reports = Reports::restored(&self.progress);
    }

    /// What the containers' states say of the task; never less than what was known.
    pub(super) fn refresh_known(&mut self, now: Now) {
        let Some(least) = self.progress.containers.values().map(|c| c.known).min() else { return };
        let known = least.as_task();
        // While an essential container has ended and the others still run, the task is on its way to
        // STOPPED: it does not become RUNNING any more.
        let ending = least == ContainerStatus::Running && self.essential_ended();
        if known > self.progress.known && !ending {
            self.progress.known = known;
            if known == TaskStatus::Stopped {
                self.progress.stopped_at = Some(now.wall);
            }
        }
    }

    /// An essential container has ended, or will as soon as what is left of it is given back.
    pub(super) fn must_end(&self) -> bool {
        let doubted = |name: &str| self.runs.get(name).is_some_and(|run| run.doubt.is_some());
        self.essential_ended() || self.spec.containers.iter().any(|c| c.essential && doubted(&c.name))
    }

    /// What it takes of the host now.
    pub(super) fn holds(&self) -> Holds {
        match self.progress.admitted {
            true if self.progress.known != TaskStatus::Stopped => Holds::All,
            true if !self.all_released() => Holds::Ports,
            _ => Holds::Nothing,
        }
    }

    /// Grows with every status that moves, and with nothing else.
    pub(super) fn mark(&self) -> usize {
        let containers = self.progress.containers.values().map(|c| c.known as usize).sum::<usize>();
        // The preparation takes the first container's turn, so that container needs another.
        let preparing = usize::from(self.prepared != Prepared::No);
        containers + self.progress.known as usize + self.progress.desired as usize + preparing
    }

    /// An essential container has ended, or nothing but containers of ours is left: so the task must end.
    pub(super) fn essential_ended(&self) -> bool {
        let ended = |name: &str| {
            self.progress.containers.get(name).is_some_and(|p| p.known == ContainerStatus::Stopped)
        };
        let containers = &self.spec.containers;
        let for_nobody = containers.iter().any(ContainerSpec::is_internal)
            && containers.iter().all(|c| c.is_internal() || ended(&c.name));
        for_nobody || containers.iter().any(|c| c.essential && ended(&c.name))
    }

    /// Marks a container stopped, with what went wrong where something did. The first reason stays.
    pub(super) fn container_stopped(&mut self, name: &str, error: Option<StopReason>, now: Now) {
        let spec = self.spec.clone();
        let Some(of_spec) = spec.container(name) else { return };
        let killed = self.runs.get(name).is_some_and(|run| matches!(run.stopping, Stopping::Killing { .. }));
        let Some(container) = self.progress.containers.get_mut(name) else { return };
        if container.known == ContainerStatus::Stopped {
            return;
        }
        container.known = ContainerStatus::Stopped;
        // A restart that did not come about: its end is the one before.
        if std::mem::take(&mut container.restarts.under_way) && container.exit.is_none() {
            container.exit = container.restarts.answers.clone();
        }
        if container.error.is_none() {
            container.error = error;
        }
        if let Some(run) = self.runs.get_mut(name) {
            run.stopping = Stopping::NotYet;
        }
        // Nobody is told of this container, so the task tells why it could not go on.
        if of_spec.is_internal() && self.progress.reason.is_empty() {
            let wanted = self.progress.desired == DesiredStatus::Running;
            self.progress.reason = holder_lost(container, killed, wanted).unwrap_or_default();
        }
        let ended = container.exit.as_ref().map_or(now.wall, |exit| exit.at);
        if of_spec.essential {
            self.progress.execution_stopped_at.get_or_insert(ended);
        }
    }

    /// When something here waits for time.
    pub(super) fn next_deadline(&self) -> Option<Mono> {
        let removal = match &self.removal {
            Removal::NotDue => None,
            Removal::At(at) => Some(*at),
            Removal::Under(under) => Some(under.overdue_at),
        };
        let prepared = match &self.prepared {
            Prepared::Under(under) => Some(under.overdue_at),
            Prepared::No | Prepared::Yes => None,
        };
        let runs = self.runs.values().filter_map(Run::next_deadline);
        let reports = self.reports.next_deadline(self.progress.known);
        let waits = self.dependency_deadlines();
        runs.chain(waits).chain(removal).chain(prepared).chain(reports).min()
    }

    /// Effects whose answer is overdue, with the answer that stands for it.
    pub(super) fn overdue(&self, now: Now) -> Vec<(EffectId, Outcome)> {
        let mut all: Vec<(EffectId, Outcome)> = Vec::new();
        let is_overdue = |under: &Under| under.overdue_at <= now.mono;
        all.extend(
            self.runs
                .values()
                .filter_map(|run| run.under.as_ref())
                .filter(|u| is_overdue(u))
                .map(Under::fail),
        );
        if let Prepared::Under(under) = &self.prepared
            && is_overdue(under)
        {
            all.push(under.fail());
        }
        if let Removal::Under(under) = &self.removal
            && is_overdue(under)
        {
            all.push(under.fail());
        }
        all
    }
}

/// Why the holder of a task's namespaces ended, though nobody had asked it to; `None` where somebody had,
/// and where it never ran because its task was to stop. Its containers end with it, and their ends may be
/// seen before its own, so the task may be stopping already: but a holder that is asked answers with 0.
fn holder_lost(holder: &ContainerProgress, killed: bool, task_wanted: bool) -> Option<String> {
    let code = holder.exit.as_ref().and_then(|exit| exit.code);
    let by_itself = task_wanted || !(killed || matches!(code, None | Some(0)));
    match (&holder.exit, &holder.error) {
        (_, Some(error)) if task_wanted => Some(error.to_string()),
        (Some(_), _) if by_itself => {
            let code = code.map_or_else(|| "unknown".to_owned(), |code| code.to_string());
            let words = "what held the namespaces that the task's containers share has ended";
            Some(StopReason::new("TaskNamespaceError", format!("{words} (exit code {code})")).to_string())
        }
        _ => None,
    }
}
