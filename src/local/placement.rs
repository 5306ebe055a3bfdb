//! Which container instance takes a task, or why none does.

use crate::local::definition::TaskDefinition;
use crate::local::error::ApiError;
use crate::local::instance::{Claim, Instance};
use crate::local::state::State;
use serde_json::{Value, json};

/// What the live tasks of an instance take, and how many run and wait.
pub fn used(state: &State, instance: &Instance) -> (Claim, usize, usize) {
    let mut sum = Claim::default();
    let (mut running, mut pending) = (0, 0);
    for task in state.tasks.iter().filter(|t| t.instance_arn == instance.arn && !t.is_stopped()) {
        sum.add(&task.claim());
        if task.last_status == "RUNNING" { running += 1 } else { pending += 1 }
    }
    (sum, running, pending)
}

/// The instance with the fewest tasks that takes one more; otherwise one failure an instance, with
/// the service's reason words and a detail in plain words.
///
/// # Errors
/// `InvalidParameterException` where the cluster has no active instance at all.
pub fn place(
    state: &State,
    cluster: &str,
    definition: &TaskDefinition,
    claim: &Claim,
) -> Result<Result<String, Vec<Value>>, ApiError> {
    let active: Vec<_> =
        state.instances.values().filter(|i| i.cluster == cluster && i.status == "ACTIVE").collect();
    if active.is_empty() {
        return Err(ApiError::invalid("No Container Instances were found in your cluster."));
    }
    let mut failures = Vec::new();
    let mut best: Option<(usize, &str)> = None;
    for instance in active {
        let (taken, running, pending) = used(state, instance);
        match obstacle(instance, definition, claim, &taken) {
            None if best.is_none_or(|(count, _)| running + pending < count) => {
                best = Some((running + pending, &instance.arn));
            }
            None => {}
            Some((reason, detail)) => {
                failures.push(json!({"arn": instance.arn, "reason": reason, "detail": detail}));
            }
        }
    }
    Ok(best.map(|(_, arn)| arn.to_owned()).ok_or(failures))
}

fn obstacle(
    instance: &Instance,
    definition: &TaskDefinition,
    claim: &Claim,
    taken: &Claim,
) -> Option<(&'static str, String)> {
    if !instance.is_ready() {
        return Some(("AGENT", "The agent of this container instance is not connected.".to_owned()));
    }
    let missing: Vec<_> = definition.requires.iter().filter(|name| !instance.has_attribute(name)).collect();
    if !missing.is_empty() {
        let names = missing.into_iter().map(String::as_str).collect::<Vec<_>>().join(", ");
        return Some(("ATTRIBUTE", format!("The agent does not have: {names}.")));
    }
    let left = instance.remaining(taken);
    if claim.cpu > left.cpu {
        let detail = format!("The task needs {} CPU units, {} are left.", claim.cpu, left.cpu);
        return Some(("RESOURCE:CPU", detail));
    }
    if claim.memory_mib > left.memory_mib {
        let detail = format!("The task needs {} MiB, {} are left.", claim.memory_mib, left.memory_mib);
        return Some(("RESOURCE:MEMORY", detail));
    }
    let clash = claim.tcp.intersection(&left.tcp).chain(claim.udp.intersection(&left.udp)).next();
    clash.map(|port| ("RESOURCE:PORTS", format!("Host port {port} is reserved or taken by another task.")))
}
