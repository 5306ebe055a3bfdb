//! `dependsOn`: who waits for whom, until when, and when waiting is over for good
//! (spec/task-engine.md 1.5).

use crate::core::task::Task;
use crate::model::{
    ContainerSpec, ContainerStatus, Dependency, DependencyCondition, HealthStatus, Mono, Now, TaskSpec,
};
use std::collections::BTreeSet;

/// Why a task's dependencies can never be met.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DependencyError {
    /// A cycle, or a container that is not there.
    #[error("Task dependencies cannot be resolved, taskArn: {0}")]
    Unresolvable(String),
}

/// Whether all dependencies can be met in some order.
///
/// # Errors
/// [`DependencyError::Unresolvable`] for a cycle or an unknown container.
pub fn check_graph(spec: &TaskSpec) -> Result<(), DependencyError> {
    let mut done: BTreeSet<&str> = BTreeSet::new();
    loop {
        let before = done.len();
        for container in &spec.containers {
            if container.depends_on.iter().all(|d| done.contains(d.container.as_str())) {
                done.insert(&container.name);
            }
        }
        if done.len() == spec.containers.len() {
            return Ok(());
        }
        if done.len() == before {
            return Err(DependencyError::Unresolvable(spec.arn.to_string()));
        }
    }
}

/// What a container's dependencies say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It may go on.
    Met,
    /// Not yet.
    Wait,
    /// Never: the text tells why.
    Never(String),
}

impl Task {
    /// Whether a container may be pulled, created and started.
    pub(super) fn dependencies(&self, container: &ContainerSpec, now: Now) -> Verdict {
        let mut verdict = Verdict::Met;
        for dependency in &container.depends_on {
            match self.dependency(container, dependency, now) {
                Verdict::Met => {}
                Verdict::Wait => verdict = Verdict::Wait,
                never @ Verdict::Never(_) => return never,
            }
        }
        verdict
    }

    fn dependency(&self, container: &ContainerSpec, on: &Dependency, now: Now) -> Verdict {
        let Some(other) = self.progress.containers.get(&on.container) else {
            return Verdict::Never(format!("there is no container {:?} in the task", on.container));
        };
        let stopped = other.known == ContainerStatus::Stopped;
        let code = other.exit.as_ref().and_then(|exit| exit.code);
        let health = self.health(&on.container).map(|health| health.status).unwrap_or_default();
        let met = match on.condition {
            DependencyCondition::Create => other.known >= ContainerStatus::Created,
            DependencyCondition::Start => other.known >= ContainerStatus::Running,
            DependencyCondition::Complete => stopped && code.is_some(),
            DependencyCondition::Success => stopped && code == Some(0),
            DependencyCondition::Healthy => health == HealthStatus::Healthy,
        };
        if met {
            return Verdict::Met;
        }
        let (dependency, target) = (self.describe(&on.container), self.describe(&container.name));
        if stopped {
            let exit = code.map_or_else(|| "none".to_owned(), |code| code.to_string());
            return Verdict::Never(format!(
                "failed to resolve container ordering dependency [{dependency} - Exit: {exit}] for target \
                 [{target}] as dependency did not exit successfully."
            ));
        }
        if on.condition == DependencyCondition::Healthy
            && let Some(why) = self.never_healthy(&on.container, health)
        {
            return Verdict::Never(format!(
                "failed to resolve container ordering dependency [{dependency}] for target [{target}] as \
                 dependency {why}."
            ));
        }
        if self.wait_limit(on).is_some_and(|at| at <= now.mono) {
            return Verdict::Never(format!(
                "container ordering dependency [{dependency}] for target [{target}] has timed out."
            ));
        }
        Verdict::Wait
    }

    /// Why nobody should wait for a container to become healthy, where that is so.
    fn never_healthy(&self, name: &str, health: HealthStatus) -> Option<&'static str> {
        let checked = self.spec.container(name).is_some_and(|container| container.health_checked);
        match (checked, health) {
            (false, _) => Some("has no health check"),
            (true, HealthStatus::Unhealthy) => Some("is unhealthy"),
            (true, _) => None,
        }
    }

    /// Until when dependents wait for a container that has started: its own start timeout, which
    /// does not count for START and CREATE.
    fn wait_limit(&self, on: &Dependency) -> Option<Mono> {
        if matches!(on.condition, DependencyCondition::Start | DependencyCondition::Create) {
            return None;
        }
        let limit = self.spec.container(&on.container)?.start_timeout.filter(|t| !t.is_zero())?;
        let run = self.runs.get(&on.container)?;
        let running = self.progress.containers.get(&on.container)?.known == ContainerStatus::Running;
        let (since, before) = run.running_since.filter(|_| running)?;
        Some(since.plus(limit.saturating_sub(before)))
    }

    /// Deadlines of containers that still wait for another.
    pub(super) fn dependency_deadlines(&self) -> impl Iterator<Item = Mono> {
        self.spec
            .containers
            .iter()
            .filter(|c| self.waits(c))
            .flat_map(|c| c.depends_on.iter().filter_map(|dependency| self.wait_limit(dependency)))
    }

    fn waits(&self, container: &ContainerSpec) -> bool {
        let open = ContainerStatus::ManifestPulled..ContainerStatus::Created;
        !self.wants_stop()
            && self.progress.containers.get(&container.name).is_some_and(|p| open.contains(&p.known))
            && self.runs.get(&container.name).is_some_and(|run| run.under.is_none())
    }

    /// Everything that depends on this container has stopped, so it may be stopped too: shutdown goes
    /// in the reverse order of the start.
    pub(super) fn dependents_stopped(&self, name: &str) -> bool {
        let dependents =
            self.spec.containers.iter().filter(|c| c.depends_on.iter().any(|d| d.container == name));
        dependents
            .filter_map(|c| self.progress.containers.get(&c.name))
            .all(|progress| progress.known == ContainerStatus::Stopped)
    }

    /// `name(image) (KNOWN->DESIRED)`, the original's way to name a container.
    fn describe(&self, name: &str) -> String {
        let known = self.progress.containers.get(name).map_or("NONE", |c| c.known.word());
        let image = self.spec.container(name).map_or("", |c| c.image.as_str());
        format!("{name}({image}) ({known}->{})", self.progress.desired.word())
    }
}
