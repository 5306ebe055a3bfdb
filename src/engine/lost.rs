//! Tasks of which the store has lost something, found out again from what the runtime holds. Decides only;
//! [`super::recover`] carries it out, once, at the start.
//!
//! | lost | what the runtime holds | what becomes of it |
//! |---|---|---|
//! | the progress | a container that runs | it goes on; RUNNING is told again |
//! | the progress | no process | never started again, since nobody knows whether it has run: STOPPED is told |
//! | the task | a container that runs and carries its task | taken up as if its progress alone was lost |
//! | the task | a container that runs and carries nothing that reads | stopped, told STOPPED with `TaskStateLostError`, cleaned up |
//! | the task | no process; made for this container instance | told STOPPED, cleaned up |
//! | the task | no process; made for another one, or nobody knows | cleaned up, nothing is told: an image of a machine may have been made that still runs it |
//! | the task | a container of another cluster, or one that runs for another container instance | left alone, with a warning |

use crate::core::{Observed, State};
use crate::model::{
    ContainerAddress, ContainerId, ContainerKey, ContainerProgress, ContainerSpec, ContainerStatus,
    DesiredStatus, ExitRecord, HeldContainer, StopReason, TaskArn, TaskId, TaskProgress, TaskSpec, Wall,
};
use crate::ports::{AgentFacts, TaskDecoder};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Docker's code for a process of whose end nothing is known.
const CODE_LOST: i32 = 255;
const TASK_LOST: &str = "TaskStateLostError: the agent's record of this task was lost";

/// What the runtime holds, by container.
pub(super) type Seen = BTreeMap<ContainerKey, Observed>;
/// What it knows of each.
pub(super) type Held = BTreeMap<ContainerKey, HeldContainer>;

/// A task that was found out.
pub(super) struct Found {
    pub spec: Arc<TaskSpec>,
    pub progress: TaskProgress,
    /// As the store is to keep it; without one it is stopped, and never stored.
    pub source: Option<Arc<str>>,
}

/// What becomes of the containers whose task the store does not have.
#[derive(Default)]
pub(super) struct Verdict {
    pub found: Vec<Found>,
    /// To be removed, nobody being told.
    pub removed: Vec<(ContainerKey, ContainerId)>,
    /// Not ours to touch; they keep their networks.
    pub left: Vec<(ContainerKey, ContainerAddress)>,
}

/// Decides over containers whose tasks are not in the store.
pub(super) fn judge(
    held: Held,
    seen: &Seen,
    facts: &dyn AgentFacts,
    decoder: &dyn TaskDecoder,
    now: Wall,
) -> Verdict {
    let mut tasks: BTreeMap<TaskArn, Held> = BTreeMap::new();
    for (key, container) in held {
        tasks.entry(container.arn.clone()).or_default().insert(key, container);
    }
    let mut verdict = Verdict::default();
    for (arn, containers) in tasks {
        let runs =
            containers.keys().any(|key| matches!(seen.get(key), Some(Observed::Running | Observed::Unknown)));
        let keepsakes = || containers.values().filter_map(|container| container.keepsake.as_ref());
        let made_for = keepsakes().map(|keepsake| keepsake.instance.as_str()).find(|arn| !arn.is_empty());
        let (own, cluster) = (facts.instance(), facts.cluster());
        let other_cluster = containers.values().any(|c| !c.cluster.is_empty() && c.cluster != cluster);
        let other_instance = made_for.is_some_and(|made_for| !own.is_empty() && made_for != own);
        if other_cluster || (runs && other_instance) {
            tracing::warn!(task = %arn, "containers of a task that is not this agent's are left alone");
            let address = |c: HeldContainer| c.keepsake.map(|keepsake| keepsake.address).unwrap_or_default();
            verdict.left.extend(containers.into_iter().map(|(key, c)| (key, address(c))));
        } else if !runs && made_for != Some(own.as_str()) {
            tracing::warn!(task = %arn, "what is left of a task that this container instance never had is removed");
            verdict.removed.extend(containers.into_iter().map(|(key, c)| (key, c.id)));
        } else {
            let known = keepsakes().find_map(|keepsake| {
                let spec = decoder.decode(&keepsake.source).ok().filter(|spec| spec.arn == arn)?;
                Some((spec, keepsake.source.clone()))
            });
            verdict.found.push(match known {
                Some((spec, source)) => {
                    tracing::error!(task = %arn, "the store has lost a task: it is taken up from its containers");
                    let progress = find_out(&spec, &containers, seen, now);
                    Found { spec: Arc::new(spec), progress, source: Some(source) }
                }
                None => {
                    tracing::error!(task = %arn, "the store has lost a task, and its containers do not say what it \
                        was: it is stopped");
                    let spec = nameless(arn, &containers);
                    let mut progress = find_out(&spec, &containers, seen, now);
                    progress.desired = DesiredStatus::Stopped;
                    progress.reason = TASK_LOST.to_owned();
                    Found { spec: Arc::new(spec), progress, source: None }
                }
            });
        }
    }
    verdict
}

/// A task of which only its containers' names are known.
fn nameless(arn: TaskArn, containers: &Held) -> TaskSpec {
    let containers = containers.keys().map(|key| ContainerSpec::empty(&key.name)).collect();
    TaskSpec { containers, ..TaskSpec::empty(arn) }
}

/// The progress of a task, by what the runtime holds of it. What has no process is over: it is never
/// started again.
pub(super) fn find_out(spec: &TaskSpec, held: &Held, seen: &Seen, now: Wall) -> TaskProgress {
    let mut containers = BTreeMap::new();
    let mut end_unknown = false;
    for container in &spec.containers {
        let key = spec.key(&container.name);
        let record = held.get(&key);
        let created_at = record.map(|record| record.created_at.unwrap_or(now));
        let keepsake = record.and_then(|record| record.keepsake.as_ref());
        let mut progress = ContainerProgress {
            known: ContainerStatus::Stopped,
            created_at,
            started_at: created_at,
            address: keepsake.map(|keepsake| keepsake.address.clone()).unwrap_or_default(),
            ..ContainerProgress::default()
        };
        match seen.get(&key) {
            // The core sees its end with the first look at the runtime.
            Some(Observed::Running | Observed::Unknown | Observed::Exited(_)) => {
                progress.known = ContainerStatus::Running
            }
            Some(Observed::Created | Observed::Gone { .. }) | None => {
                end_unknown |= container.essential;
                let message = "the agent's record of this container was lost; how it ended is not known";
                progress.error = Some(StopReason::new("ContainerVanishedError", message));
                // Its true end may have been told, and what goes on is told without it.
                if !container.essential {
                    progress.sent = ContainerStatus::Stopped;
                }
            }
        }
        containers.insert(container.name.clone(), progress);
    }
    let reason = if end_unknown { TASK_LOST.to_owned() } else { String::new() };
    TaskProgress { admitted: true, reason, containers, ..TaskProgress::default() }
}

/// Tasks with a container that runs although its making was never stored (the disk was full, and the agent
/// died): where it is on the network is known by what it carries.
pub(super) fn with_addresses(
    state: &State,
    except: impl Fn(&TaskId) -> bool,
    held: &Held,
    seen: &Seen,
) -> Vec<(Arc<TaskSpec>, TaskProgress)> {
    let mut found = Vec::new();
    for (id, task) in state.tasks().iter().filter(|(id, _)| !except(id)) {
        let mut progress = task.progress.clone();
        for (name, known) in
            progress.containers.iter_mut().filter(|(_, c)| c.known < ContainerStatus::Created)
        {
            let key = ContainerKey { task: id.clone(), name: name.clone() };
            let keepsake = held.get(&key).and_then(|record| record.keepsake.as_ref());
            if let (Some(Observed::Running | Observed::Unknown), Some(keepsake)) = (seen.get(&key), keepsake)
            {
                known.address = keepsake.address.clone();
            }
        }
        if progress != task.progress {
            found.push((task.spec.clone(), progress));
        }
    }
    found
}

/// The host was restarted: what was known to be there has ended with it.
pub(super) fn after_restart(state: &State, except: impl Fn(&TaskId) -> bool, seen: &mut Seen, now: Wall) {
    for (id, task) in state.tasks().iter().filter(|(id, _)| !except(id)) {
        for (name, known) in &task.progress.containers {
            let (code, what) = match known.known {
                ContainerStatus::Running => (Some(CODE_LOST), "while the container ran"),
                ContainerStatus::Created => (None, "before the container was started"),
                _ => continue,
            };
            let key = ContainerKey { task: id.clone(), name: name.clone() };
            if matches!(seen.get(&key), None | Some(Observed::Created)) {
                let why = StopReason::new("ContainerVanishedError", format!("the host was restarted {what}"));
                seen.insert(key, Observed::Gone { exit: ExitRecord { code, at: now }, why });
            }
        }
    }
}

#[cfg(test)]
#[path = "lost_tests.rs"]
mod tests;
