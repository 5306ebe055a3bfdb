//! What agents report of tasks (SubmitTaskStateChange, SubmitContainerStateChange) and what the
//! service concludes from it. Statuses only go forward: a late or repeated report changes nothing.

use crate::local::shape::{list, text};
use crate::local::shared::now;
use crate::local::task::{Container, Task, rank};
use serde_json::{Value, json};

/// Applies a task's state change; answers whether anything changed.
pub fn apply(task: &mut Task, report: &Value) -> bool {
    if task.is_stopped() {
        return false;
    }
    let before = task.version;
    for container in list(report, "containers") {
        let name = text(container, "containerName");
        if let Some(known) = task.containers.iter_mut().find(|c| c.name == name)
            && apply_container(known, container)
        {
            task.version += 1;
        }
    }
    for key in ["pullStartedAt", "pullStoppedAt", "executionStoppedAt"] {
        if let Some(time) = report.get(key).filter(|t| t.is_number())
            && task.details.insert(key.to_owned(), time.clone()).is_none()
        {
            task.version += 1;
        }
    }
    let status = text(report, "status");
    if rank(status) > rank(&task.last_status) {
        task.version += 1;
        task.last_status = status.to_owned();
        match status {
            "RUNNING" => {
                task.details.insert("startedAt".to_owned(), json!(now()));
            }
            _ => conclude(task, text(report, "reason")),
        }
    }
    task.version != before
}

/// Applies one container's part of a report; answers whether anything changed.
pub fn apply_container(container: &mut Container, report: &Value) -> bool {
    let before = (container.last_status.clone(), container.exit_code, container.runtime_id.clone());
    let status = text(report, "status");
    if rank(status) > rank(&container.last_status) {
        container.last_status = status.to_owned();
    }
    if let Some(code) = report.get("exitCode").and_then(Value::as_i64) {
        container.exit_code = Some(code);
    }
    let keep = |slot: &mut Option<String>, key: &str| {
        if !text(report, key).is_empty() {
            *slot = Some(text(report, key).to_owned());
        }
    };
    keep(&mut container.reason, "reason");
    keep(&mut container.image_digest, "imageDigest");
    keep(&mut container.runtime_id, "runtimeId");
    let bindings = list(report, "networkBindings");
    let has_new_bindings = !bindings.is_empty() && container.network_bindings != json!(bindings);
    if has_new_bindings {
        container.network_bindings = json!(bindings);
    }
    has_new_bindings
        || before != (container.last_status.clone(), container.exit_code, container.runtime_id.clone())
}

/// The task stopped: when, why, and by whom.
fn conclude(task: &mut Task, reason: &str) {
    let at = json!(now());
    task.desired_status = "STOPPED".to_owned();
    task.details.entry("stoppingAt").or_insert_with(|| at.clone());
    task.details.insert("stoppedAt".to_owned(), at);
    let never_ran = !task.details.contains_key("startedAt");
    let failed = task.containers.iter().filter(|c| c.exit_code.is_none()).find_map(|c| c.reason.clone());
    let (code, text) = match failed {
        _ if !reason.is_empty() => ("TaskFailedToStart", reason.to_owned()),
        Some(failed) if failed.starts_with("CannotPull") => ("TaskFailedToStart", failed),
        Some(_) if never_ran => ("TaskFailedToStart", "Task failed to start".to_owned()),
        _ => ("EssentialContainerExited", "Essential container in task exited".to_owned()),
    };
    task.details.entry("stopCode").or_insert_with(|| json!(code));
    task.details.entry("stoppedReason").or_insert_with(|| json!(text));
}
