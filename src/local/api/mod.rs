//! The operations of the ECS API, each from its JSON to its JSON. Nothing here waits.

mod agent;
mod clusters;
mod definitions;
pub mod message;
mod page;
mod tasks;

use crate::local::error::{ApiError, shortened};
use crate::local::shared::Shared;
use serde_json::Value;

type Operation = fn(&Shared, Value, &str) -> Result<Value, ApiError>;

const OPERATIONS: [(&str, Operation); 20] = [
    ("CreateCluster", clusters::create),
    ("DeregisterTaskDefinition", definitions::deregister),
    ("DescribeClusters", clusters::describe),
    ("DescribeContainerInstances", clusters::describe_instances),
    ("DescribeTaskDefinition", definitions::describe),
    ("DescribeTasks", tasks::describe),
    ("DiscoverPollEndpoint", agent::discover_poll_endpoint),
    ("ListClusters", clusters::list),
    ("ListContainerInstances", clusters::list_instances),
    ("ListTagsForResource", clusters::list_tags),
    ("ListTaskDefinitions", definitions::list),
    ("ListTasks", tasks::list),
    ("RegisterContainerInstance", agent::register),
    ("RegisterTaskDefinition", definitions::register),
    ("RunTask", tasks::run),
    ("StopTask", tasks::stop),
    ("SubmitAttachmentStateChanges", agent::submit_attachments),
    ("SubmitContainerStateChange", agent::submit_container),
    ("SubmitTaskStateChange", agent::submit_task),
    ("UpdateContainerInstancesState", agent::update_state),
];

/// Runs one operation. `host` is `host:port` by which the caller reached us.
///
/// # Errors
/// As the operation has; `UnknownOperationException` for one that is not offered.
pub fn call(shared: &Shared, operation: &str, input: Value, host: &str) -> Result<Value, ApiError> {
    if !input.is_object() {
        return Err(ApiError::serialization("The request body must be a JSON object."));
    }
    match OPERATIONS.iter().find(|(name, _)| *name == operation) {
        Some((_, run)) => run(shared, input, host),
        None => {
            let known: Vec<_> = OPERATIONS.iter().map(|(name, _)| *name).collect();
            Err(ApiError::unknown_operation(format!(
                "The local control plane has no operation '{}'. It has: {}.",
                shortened(operation, 80),
                known.join(", ")
            )))
        }
    }
}

/// The strings of a list parameter; each must be a string.
fn strings(input: &Value, key: &str, at_most: usize) -> Result<Vec<String>, ApiError> {
    let items = match input.get(key) {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(Value::Array(items)) => items,
        Some(_) => return Err(ApiError::serialization(format!("{key}: expected a list of strings"))),
    };
    if items.len() > at_most {
        return Err(ApiError::invalid(format!(
            "{key}: {} entries, at most {at_most} are allowed.",
            items.len()
        )));
    }
    let text = |item: &Value| item.as_str().map(str::to_owned);
    let texts: Option<Vec<_>> = items.iter().map(text).collect();
    texts.ok_or_else(|| ApiError::serialization(format!("{key}: expected a list of strings")))
}

/// A string parameter; empty where absent.
fn string(input: &Value, key: &str) -> Result<String, ApiError> {
    match input.get(key) {
        None | Some(Value::Null) => Ok(String::new()),
        Some(Value::String(text)) => Ok(text.clone()),
        Some(_) => Err(ApiError::serialization(format!("{key}: expected a string"))),
    }
}
