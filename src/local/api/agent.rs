//! What agents call: registration, endpoints, reports.

use super::clusters::shown_instance;
use super::{string, strings};
use crate::local::error::{ApiError, shortened};
use crate::local::instance::Instance;
use crate::local::names::{fresh_id, means};
use crate::local::report;
use crate::local::shared::{Shared, now};
use crate::local::state::{MAX_INSTANCES, State};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::Notify;

const MAX_ATTRIBUTES: usize = 500;
const MAX_RESOURCES: usize = 50;

/// RegisterContainerInstance (spec/control-plane.md 2). With an ARN it is a registration again: an ARN
/// that an earlier life of this control plane gave is taken as it is.
pub fn register(shared: &Shared, input: Value, _: &str) -> Result<Value, ApiError> {
    let mut state = shared.lock();
    let cluster = state.cluster(&string(&input, "cluster")?)?;
    let given = string(&input, "containerInstanceArn")?;
    let resources = objects(&input, "totalResources", MAX_RESOURCES)?;
    let mut attributes = objects(&input, "attributes", MAX_ATTRIBUTES)?;
    let tags = objects(&input, "tags", 50)?;
    let known = state.instances.get(&given);
    let prefix = state.names.instance(&cluster, "");
    if known.is_none() && !given.is_empty() && !given.starts_with(&prefix) {
        return Err(ApiError::client(format!(
            "containerInstanceArn '{}' is not of this cluster ({prefix}...). Remove the agent's saved state, or \
             start the control plane with the same region.",
            shortened(&given, 160)
        )));
    }
    let registered_at = known.map(|i| i.registered_at);
    let arn = if given.is_empty() { state.names.instance(&cluster, &fresh_id()) } else { given };
    make_room(&mut state, &arn)?;
    attributes.retain(|a| a["name"] != "ecs.availability-zone");
    attributes.push(json!({"name": "ecs.availability-zone", "value": state.names.zone()}));
    let entry = state.instances.entry(arn.clone()).or_insert_with(|| Instance {
        arn: arn.clone(),
        cluster,
        status: "ACTIVE".to_owned(),
        resources: json!([]),
        attributes: json!([]),
        tags: json!([]),
        version_info: json!({}),
        registered_at: registered_at.unwrap_or_else(now),
        version: 0,
        connection: None,
        outbox: BTreeMap::new(),
        wake: Arc::new(Notify::new()),
    });
    entry.version += 1;
    entry.resources = Value::Array(resources);
    entry.attributes = Value::Array(attributes);
    entry.tags = Value::Array(tags);
    tracing::info!(instance = arn, "container instance registered");
    match state.instances.get(&arn) {
        Some(instance) => Ok(json!({"containerInstance": shown_instance(&state, instance, true)})),
        None => Ok(json!({})),
    }
}

/// Forgets an instance that nobody is connected to where there are too many.
fn make_room(state: &mut State, arn: &str) -> Result<(), ApiError> {
    if state.instances.len() < MAX_INSTANCES || state.instances.contains_key(arn) {
        return Ok(());
    }
    let idle = |i: &&Instance| {
        i.connection.is_none() && !state.tasks.iter().any(|t| t.instance_arn == i.arn && !t.is_stopped())
    };
    let oldest =
        state.instances.values().filter(idle).min_by(|a, b| a.registered_at.total_cmp(&b.registered_at));
    match oldest.map(|i| i.arn.clone()) {
        Some(oldest) => {
            state.instances.remove(&oldest);
            Ok(())
        }
        None => {
            Err(ApiError::client(format!("There are {MAX_INSTANCES} container instances in use already.")))
        }
    }
}

/// A list of objects, copied.
fn objects(input: &Value, key: &str, at_most: usize) -> Result<Vec<Value>, ApiError> {
    match input.get(key) {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::Array(items)) if items.len() > at_most => {
            Err(ApiError::invalid(format!("{key}: {} entries, at most {at_most} are allowed.", items.len())))
        }
        Some(Value::Array(items)) if items.iter().all(Value::is_object) => Ok(items.clone()),
        Some(_) => Err(ApiError::serialization(format!("{key}: expected a list of objects"))),
    }
}

/// DiscoverPollEndpoint: both websockets are on the port that the caller came by.
pub fn discover_poll_endpoint(_: &Shared, _: Value, host: &str) -> Result<Value, ApiError> {
    let endpoint = |path: &str| format!("http://{host}/{path}");
    Ok(json!({
        "endpoint": endpoint("acs"), "telemetryEndpoint": endpoint("tcs"),
        "serviceConnectEndpoint": endpoint("sc"),
    }))
}

/// SubmitTaskStateChange (spec/control-plane.md 5)
pub fn submit_task(shared: &Shared, input: Value, _: &str) -> Result<Value, ApiError> {
    change_task(shared, &input, |task| report::apply(task, &input))
}

/// SubmitContainerStateChange
pub fn submit_container(shared: &Shared, input: Value, _: &str) -> Result<Value, ApiError> {
    let name = string(&input, "containerName")?;
    change_task(shared, &input, |task| {
        let known = task.containers.iter_mut().find(|c| c.name == name);
        let changed = known.is_some_and(|known| report::apply_container(known, &input));
        task.version += u64::from(changed);
        changed
    })
}

fn change_task(
    shared: &Shared,
    input: &Value,
    change: impl FnOnce(&mut crate::local::task::Task) -> bool,
) -> Result<Value, ApiError> {
    let (cluster, given) = (string(input, "cluster")?, string(input, "task")?);
    let mut state = shared.lock();
    let cluster = state.cluster(&cluster)?;
    let missing =
        || ApiError::invalid(format!("The referenced task was not found: '{}'.", shortened(&given, 160)));
    let at = state.find_task(&cluster, &given).ok_or_else(missing)?;
    let task = state.tasks.get_mut(at).ok_or_else(missing)?;
    if change(task) {
        shared.announce_task(task);
    }
    Ok(acknowledged())
}

/// SubmitAttachmentStateChanges: there are no attachments here, so there is nothing to note.
pub fn submit_attachments(_: &Shared, input: Value, _: &str) -> Result<Value, ApiError> {
    objects(&input, "attachments", 100)?;
    Ok(acknowledged())
}

fn acknowledged() -> Value {
    json!({"acknowledgment": "ACK"})
}

/// UpdateContainerInstancesState
pub fn update_state(shared: &Shared, input: Value, _: &str) -> Result<Value, ApiError> {
    let status = string(&input, "status")?;
    if !matches!(status.as_str(), "ACTIVE" | "DRAINING") {
        return Err(ApiError::invalid(format!(
            "status is '{}': allowed are ACTIVE and DRAINING.",
            shortened(&status, 40)
        )));
    }
    let mut state = shared.lock();
    let cluster = state.cluster(&string(&input, "cluster")?)?;
    let (mut instances, mut failures) = (Vec::new(), Vec::new());
    for one in strings(&input, "containerInstances", 10)? {
        match state.instances.values_mut().find(|i| i.cluster == cluster && means(&one, &i.arn)) {
            Some(instance) => {
                instance.status.clone_from(&status);
                instance.version += 1;
                let arn = instance.arn.clone();
                instances.extend(state.instances.get(&arn).map(|i| shown_instance(&state, i, false)));
            }
            None => failures.push(json!({"arn": one, "reason": "MISSING"})),
        }
    }
    Ok(json!({"containerInstances": instances, "failures": failures}))
}
