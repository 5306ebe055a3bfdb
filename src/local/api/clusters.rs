//! Clusters, container instances, tags.

use super::page::page;
use super::{string, strings};
use crate::local::error::{ApiError, shortened};
use crate::local::instance::Instance;
use crate::local::names::means;
use crate::local::placement::used;
use crate::local::shared::Shared;
use crate::local::state::State;
use serde_json::{Value, json};

const MAX_CLUSTERS: usize = 16;

/// CreateCluster
pub fn create(shared: &Shared, input: Value, _: &str) -> Result<Value, ApiError> {
    let name = match string(&input, "clusterName")? {
        name if name.is_empty() => "default".to_owned(),
        name => name,
    };
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if name.len() > 255 || !name.chars().all(fits) {
        return Err(ApiError::invalid(format!(
            "clusterName is '{}': it takes 1 to 255 letters, numbers, hyphens and underscores.",
            shortened(&name, 80)
        )));
    }
    let mut state = shared.lock();
    if !state.clusters.contains(&name) {
        if state.clusters.len() >= MAX_CLUSTERS {
            return Err(ApiError::client(format!("There are {MAX_CLUSTERS} clusters already.")));
        }
        state.clusters.push(name.clone());
    }
    Ok(json!({"cluster": shown(&state, &name)}))
}

/// ListClusters
pub fn list(shared: &Shared, input: Value, _: &str) -> Result<Value, ApiError> {
    let state = shared.lock();
    page(state.clusters.iter().map(|name| state.names.cluster(name)).collect(), &input, "clusterArns")
}

/// DescribeClusters
pub fn describe(shared: &Shared, input: Value, _: &str) -> Result<Value, ApiError> {
    let state = shared.lock();
    let mut given = strings(&input, "clusters", 100)?;
    if given.is_empty() {
        given.push("default".to_owned());
    }
    let (mut clusters, mut failures) = (Vec::new(), Vec::new());
    for one in given {
        match state.cluster(&one) {
            Ok(name) => clusters.push(shown(&state, &name)),
            Err(_) => {
                let arn = if one.starts_with("arn:") { one } else { state.names.cluster(&one) };
                failures.push(json!({"arn": arn, "reason": "MISSING"}));
            }
        }
    }
    Ok(json!({"clusters": clusters, "failures": failures}))
}

fn shown(state: &State, name: &str) -> Value {
    let live = state.tasks.iter().filter(|t| t.cluster == name && !t.is_stopped());
    let (running, pending): (Vec<_>, Vec<_>) = live.partition(|t| t.last_status == "RUNNING");
    json!({
        "clusterArn": state.names.cluster(name), "clusterName": name, "status": "ACTIVE",
        "registeredContainerInstancesCount": state.instances.values().filter(|i| i.cluster == name).count(),
        "runningTasksCount": running.len(), "pendingTasksCount": pending.len(), "activeServicesCount": 0,
        "statistics": [], "tags": [], "settings": [], "capacityProviders": [],
        "defaultCapacityProviderStrategy": [],
    })
}

/// ListContainerInstances
pub fn list_instances(shared: &Shared, input: Value, _: &str) -> Result<Value, ApiError> {
    let state = shared.lock();
    let cluster = state.cluster(&string(&input, "cluster")?)?;
    let status = string(&input, "status")?;
    let wanted = |i: &&Instance| i.cluster == cluster && (status.is_empty() || i.status == status);
    let arns = state.instances.values().filter(wanted).map(|i| i.arn.clone()).collect();
    page(arns, &input, "containerInstanceArns")
}

/// DescribeContainerInstances
pub fn describe_instances(shared: &Shared, input: Value, _: &str) -> Result<Value, ApiError> {
    let state = shared.lock();
    let cluster = state.cluster(&string(&input, "cluster")?)?;
    let given = strings(&input, "containerInstances", 100)?;
    if given.is_empty() {
        return Err(ApiError::client("Container instances cannot be empty."));
    }
    let with_tags = strings(&input, "include", 10)?.iter().any(|word| word == "TAGS");
    let (mut instances, mut failures) = (Vec::new(), Vec::new());
    for one in given {
        match state.instances.values().find(|i| i.cluster == cluster && means(&one, &i.arn)) {
            Some(instance) => instances.push(shown_instance(&state, instance, with_tags)),
            None => {
                let arn = if one.starts_with("arn:") { one } else { state.names.instance(&cluster, &one) };
                failures.push(json!({"arn": arn, "reason": "MISSING"}));
            }
        }
    }
    Ok(json!({"containerInstances": instances, "failures": failures}))
}

/// One instance, as the answers show it.
pub fn shown_instance(state: &State, instance: &Instance, with_tags: bool) -> Value {
    let (taken, running, pending) = used(state, instance);
    instance.describe(&taken, running, pending, with_tags)
}

/// ListTagsForResource
pub fn list_tags(shared: &Shared, input: Value, _: &str) -> Result<Value, ApiError> {
    let arn = string(&input, "resourceArn")?;
    let state = shared.lock();
    let task = state.tasks.iter().find(|t| t.arn == arn).map(|t| &t.tags);
    let instance = || state.instances.get(&arn).map(|i| &i.tags);
    let definition = || state.definitions.values().flatten().find(|d| d.arn == arn).map(|d| &d.tags);
    let none = json!([]);
    let cluster = || state.clusters.iter().any(|name| state.names.cluster(name) == arn).then_some(&none);
    let tags = task.or_else(instance).or_else(definition).or_else(cluster);
    match tags {
        Some(tags) => Ok(json!({ "tags": tags })),
        None => Err(ApiError::invalid(format!(
            "The specified resource was not found: resourceArn '{}'.",
            shortened(&arn, 120)
        ))),
    }
}
