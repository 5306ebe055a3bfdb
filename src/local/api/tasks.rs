//! RunTask, StopTask, ListTasks, DescribeTasks.

use super::page::page;
use super::{string, strings};
use crate::local::definition::schema::RUN_TASK_REQUEST;
use crate::local::definition::{TaskDefinition, size};
use crate::local::error::{ApiError, shortened};
use crate::local::names::{fresh_id, means};
use crate::local::placement::place;
use crate::local::shape::{self, text};
use crate::local::shared::{Shared, now};
use crate::local::state::{MAX_LIVE_TASKS, State};
use crate::local::task::{Container, Roles, Task, claim};
use serde_json::{Map, Value, json};
use std::sync::Arc;

const MAX_COUNT: i64 = 10;

/// RunTask
pub fn run(shared: &Shared, mut input: Value, _: &str) -> Result<Value, ApiError> {
    shape::check(&input, &RUN_TASK_REQUEST, "")?;
    shape::drop_nulls(&mut input);
    let mut state = shared.lock();
    let cluster = state.cluster(text(&input, "cluster"))?;
    let given = text(&input, "taskDefinition");
    let definition = match state.definition(given) {
        Ok(definition) if !definition.inactive => Arc::clone(definition),
        Ok(_) => return Err(ApiError::client("TaskDefinition is inactive")),
        Err(_) if given.is_empty() => return Err(ApiError::invalid("taskDefinition is missing.")),
        Err(_) => {
            return Err(ApiError::client(format!("TaskDefinition not found: '{}'.", shortened(given, 120))));
        }
    };
    check_run(&input, &definition)?;
    let token = text(&input, "clientToken");
    let repeated = |t: &&Task| !token.is_empty() && t.client_token == token && t.cluster == cluster;
    let mut started: Vec<String> = state.tasks.iter().filter(repeated).map(|t| t.arn.clone()).collect();
    let mut failures = Vec::new();
    if started.is_empty() {
        for _ in 0..input.get("count").and_then(Value::as_i64).unwrap_or(1) {
            match start(shared, &mut state, &cluster, &definition, &input)? {
                Ok(arn) => started.push(arn),
                Err(why) => failures.extend(why),
            }
        }
    }
    let tasks: Vec<_> = started.iter().filter_map(|arn| state.find_task(&cluster, arn)).collect();
    let tasks: Vec<_> =
        tasks.into_iter().filter_map(|at| Some(shown(&state, state.tasks.get(at)?, true))).collect();
    Ok(json!({"tasks": tasks, "failures": failures}))
}

fn check_run(input: &Value, definition: &TaskDefinition) -> Result<(), ApiError> {
    let count = input.get("count").and_then(Value::as_i64).unwrap_or(1);
    if !(1..=MAX_COUNT).contains(&count) {
        return Err(ApiError::invalid(format!("count is {count}: allowed are 1 to {MAX_COUNT}.")));
    }
    if matches!(text(input, "launchType"), "FARGATE" | "MANAGED_INSTANCES") {
        return Err(ApiError::invalid(format!(
            "launchType is {}: the local cluster has one container instance. Use EC2, or leave it out.",
            text(input, "launchType")
        )));
    }
    if input.get("enableExecuteCommand") == Some(&Value::Bool(true)) {
        return Err(ApiError::invalid(
            "enableExecuteCommand needs AWS Systems Manager, which the local cluster does not have.",
        ));
    }
    let overrides = input.get("overrides").unwrap_or(&Value::Null);
    for (i, over) in shape::list(overrides, "containerOverrides").iter().enumerate() {
        let name = text(over, "name");
        if !definition.containers().iter().any(|c| text(c, "name") == name) {
            return Err(ApiError::invalid(format!(
                "Override for container named {} is not a container in the TaskDefinition \
                 (overrides.containerOverrides[{i}].name).",
                shortened(name, 80)
            )));
        }
    }
    for (key, parse) in
        [("cpu", size::cpu_units as fn(&str) -> Result<u64, String>), ("memory", size::memory_mib)]
    {
        if overrides.get(key).is_some() {
            parse(text(overrides, key)).map_err(ApiError::invalid)?;
        }
    }
    Ok(())
}

/// One task: its ARN, or the failures.
fn start(
    shared: &Shared,
    state: &mut State,
    cluster: &str,
    definition: &Arc<TaskDefinition>,
    input: &Value,
) -> Result<Result<String, Vec<Value>>, ApiError> {
    if state.tasks.iter().filter(|t| !t.is_stopped()).count() >= MAX_LIVE_TASKS {
        return Err(ApiError::client(format!("{MAX_LIVE_TASKS} tasks run already: stop some.")));
    }
    let overrides = input.get("overrides").cloned().unwrap_or_else(|| json!({}));
    let instance_arn = match place(state, cluster, definition, &claim(definition, &overrides))? {
        Ok(arn) => arn,
        Err(failures) => return Ok(Err(failures)),
    };
    let id = fresh_id();
    let container = |c: &Value| Container {
        name: text(c, "name").to_owned(),
        arn: state.names.container(cluster, &id),
        image: text(c, "image").to_owned(),
        is_essential: c.get("essential").and_then(Value::as_bool).unwrap_or(true),
        last_status: "PENDING".to_owned(),
        network_bindings: json!([]),
        ..Container::default()
    };
    let group = text(input, "group");
    let task = Task {
        arn: state.names.task(cluster, &id),
        cluster: cluster.to_owned(),
        instance_arn,
        last_status: "PENDING".to_owned(),
        desired_status: "RUNNING".to_owned(),
        containers: definition.containers().iter().map(container).collect(),
        roles: Roles::of(definition, &overrides),
        overrides,
        started_by: text(input, "startedBy").to_owned(),
        group: if group.is_empty() { format!("family:{}", definition.family) } else { group.to_owned() },
        tags: input.get("tags").cloned().unwrap_or_else(|| json!([])),
        details: Map::from_iter([("createdAt".to_owned(), json!(now()))]),
        client_token: text(input, "clientToken").to_owned(),
        definition: Arc::clone(definition),
        version: 1,
    };
    let arn = task.arn.clone();
    state.forget_old_tasks();
    state.tasks.push(task);
    let at = state.tasks.len() - 1;
    if let Err(error) = shared.dispatch(state, at) {
        state.tasks.truncate(at);
        return Err(error);
    }
    if let Some(task) = state.tasks.get(at) {
        shared.announce_task(task);
    }
    Ok(Ok(arn))
}

/// StopTask
pub fn stop(shared: &Shared, input: Value, _: &str) -> Result<Value, ApiError> {
    let (given, reason) = (string(&input, "task")?, string(&input, "reason")?);
    if given.is_empty() {
        return Err(ApiError::invalid("task is missing: give a task's id or ARN."));
    }
    if reason.len() > 1024 {
        return Err(ApiError::invalid(format!(
            "reason has {} characters, at most 1024 are allowed.",
            reason.len()
        )));
    }
    let mut state = shared.lock();
    let cluster = state.cluster(&string(&input, "cluster")?)?;
    let missing = || ApiError::invalid("The referenced task was not found.");
    let at = state.find_task(&cluster, &given).ok_or_else(missing)?;
    let task = state.tasks.get_mut(at).ok_or_else(missing)?;
    if task.desired_status != "STOPPED" {
        task.desired_status = "STOPPED".to_owned();
        task.version += 1;
        let reason = if reason.is_empty() { "Task stopped by user".to_owned() } else { reason };
        task.details.insert("stopCode".to_owned(), json!("UserInitiated"));
        task.details.insert("stoppedReason".to_owned(), json!(reason));
        task.details.insert("stoppingAt".to_owned(), json!(now()));
        shared.dispatch(&mut state, at)?;
        if let Some(task) = state.tasks.get(at) {
            shared.announce_task(task);
        }
    }
    let task = state.tasks.get(at).ok_or_else(missing)?;
    Ok(json!({"task": shown(&state, task, true)}))
}

/// ListTasks
pub fn list(shared: &Shared, input: Value, _: &str) -> Result<Value, ApiError> {
    let state = shared.lock();
    let cluster = state.cluster(&string(&input, "cluster")?)?;
    let desired = match string(&input, "desiredStatus")?.as_str() {
        "" => "RUNNING".to_owned(),
        word @ ("RUNNING" | "PENDING" | "STOPPED") => word.to_owned(),
        other => {
            return Err(ApiError::invalid(format!(
                "desiredStatus is '{}': allowed are RUNNING, PENDING, STOPPED.",
                shortened(other, 40)
            )));
        }
    };
    let (family, started_by) = (string(&input, "family")?, string(&input, "startedBy")?);
    let (instance, launch_type) = (string(&input, "containerInstance")?, string(&input, "launchType")?);
    let wanted = |task: &&Task| {
        task.cluster == cluster
            && task.desired_status == desired
            && (family.is_empty() || task.definition.family == family)
            && (started_by.is_empty() || task.started_by == started_by)
            && (instance.is_empty() || means(&instance, &task.instance_arn))
            && matches!(launch_type.as_str(), "" | "EC2")
    };
    let arns = state.tasks.iter().filter(wanted).map(|t| t.arn.clone()).collect();
    page(arns, &input, "taskArns")
}

/// DescribeTasks
pub fn describe(shared: &Shared, input: Value, _: &str) -> Result<Value, ApiError> {
    let state = shared.lock();
    let cluster = state.cluster(&string(&input, "cluster")?)?;
    let given = strings(&input, "tasks", 100)?;
    if given.is_empty() {
        return Err(ApiError::invalid("Tasks cannot be empty."));
    }
    let with_tags = strings(&input, "include", 10)?.iter().any(|word| word == "TAGS");
    let (mut tasks, mut failures) = (Vec::new(), Vec::new());
    for one in given {
        match state.find_task(&cluster, &one).and_then(|at| state.tasks.get(at)) {
            Some(task) => tasks.push(shown(&state, task, with_tags)),
            None => {
                let arn = if one.starts_with("arn:") { one } else { state.names.task(&cluster, &one) };
                failures.push(json!({"arn": arn, "reason": "MISSING"}));
            }
        }
    }
    Ok(json!({"tasks": tasks, "failures": failures}))
}

fn shown(state: &State, task: &Task, with_tags: bool) -> Value {
    let connected = state.instances.get(&task.instance_arn).is_some_and(|i| i.connection.is_some());
    task.describe(&state.names.cluster(&task.cluster), &state.names.zone(), connected, with_tags)
}
