//! The sense of a task definition as a whole. Texts follow the service's where those are known.

use super::{container, depends, schema, size};
use crate::local::error::{ApiError, shortened};
use crate::local::shape::{self, list, text};
use serde_json::Value;
use std::collections::BTreeSet;

const MAX_CONTAINERS: usize = 10;

/// Checks a RegisterTaskDefinition request and drops its `null` members.
///
/// # Errors
/// The first thing that is wrong, in the order of the document.
pub fn validate(document: &mut Value) -> Result<(), ApiError> {
    shape::check(document, &schema::REGISTER_TASK_DEFINITION_REQUEST, "")?;
    shape::drop_nulls(document);
    let bytes = document.to_string().len();
    if bytes > super::MAX_BYTES {
        return Err(ApiError::client(format!(
            "Task definition is too large. Actual length: '{bytes}'. Max allowed length is '{}' bytes.",
            super::MAX_BYTES
        )));
    }
    family(text(document, "family"))?;
    let task_memory = sizes(document)?;
    network_mode(document)?;
    let volumes = volumes(document)?;
    let containers = list(document, "containerDefinitions");
    if containers.is_empty() {
        return Err(ApiError::client(
            "Container list cannot be empty. Give at least one entry in 'containerDefinitions'.",
        ));
    }
    if containers.len() > MAX_CONTAINERS {
        return Err(ApiError::client(format!(
            "Too many containers: {} in 'containerDefinitions', at most {MAX_CONTAINERS} are allowed.",
            containers.len()
        )));
    }
    let mut names = BTreeSet::new();
    for one in containers {
        container::check(one, document, task_memory, &volumes)?;
        if !names.insert(text(one, "name")) {
            return Err(ApiError::client(format!(
                "Duplicate container name '{}' in 'containerDefinitions': names must be unique within a task \
                 definition.",
                text(one, "name")
            )));
        }
    }
    container::check_host_ports(containers)?;
    if !containers.iter().any(|c| c.get("essential").and_then(Value::as_bool).unwrap_or(true)) {
        return Err(ApiError::client(
            "Invalid 'essential' setting: at least one container must be essential. Set 'essential' to true \
             (its default) for one entry of 'containerDefinitions'.",
        ));
    }
    depends::check(containers)
}

fn family(family: &str) -> Result<(), ApiError> {
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if family.is_empty() {
        return Err(ApiError::client("Family should not be null or empty. Give a name in 'family'."));
    }
    if family.len() > 255 || !family.chars().all(fits) {
        return Err(ApiError::client(format!(
            "Family contains invalid characters or is too long: '{}'. 'family' takes 1 to 255 letters \
             (uppercase and lowercase), numbers, hyphens and underscores.",
            shortened(family, 80)
        )));
    }
    Ok(())
}

/// Checks task-level sizes and platform; answers the memory in MiB.
fn sizes(document: &Value) -> Result<Option<u64>, ApiError> {
    if document.get("cpu").is_some() {
        size::cpu_units(text(document, "cpu")).map_err(ApiError::client)?;
    }
    let kinds = shape::texts(document, "requiresCompatibilities");
    if kinds.iter().any(|kind| kind == "FARGATE" || kind == "MANAGED_INSTANCES")
        && !kinds.iter().any(|kind| kind == "EC2" || kind == "EXTERNAL")
    {
        return Err(ApiError::client(format!(
            "'requiresCompatibilities' is [{}]: the local cluster has one container instance of launch type \
             EC2. Add EC2 to the list, or leave it out.",
            kinds.join(", ")
        )));
    }
    let platform = document.get("runtimePlatform").map(|p| text(p, "operatingSystemFamily"));
    if let Some(family) = platform.filter(|family| !matches!(*family, "" | "LINUX")) {
        return Err(ApiError::client(format!(
            "'runtimePlatform.operatingSystemFamily' is {family}: the local cluster runs LINUX only."
        )));
    }
    match document.get("memory") {
        Some(_) => size::memory_mib(text(document, "memory")).map(Some).map_err(ApiError::client),
        None => Ok(None),
    }
}

fn network_mode(document: &Value) -> Result<(), ApiError> {
    match text(document, "networkMode") {
        "awsvpc" => Err(ApiError::client(
            "Network mode 'awsvpc' needs an Elastic Network Interface from EC2, which the local cluster does \
             not have. Allowed values for 'networkMode' here: bridge, host, none.",
        )),
        _ => Ok(()),
    }
}

/// Checks volumes; answers their names.
fn volumes(document: &Value) -> Result<BTreeSet<&str>, ApiError> {
    let mut names = BTreeSet::new();
    for (i, volume) in list(document, "volumes").iter().enumerate() {
        let name = text(volume, "name");
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if name.is_empty() || name.len() > 255 || !name.chars().all(fits) {
            return Err(ApiError::client(format!(
                "Invalid 'volumes[{i}].name': '{}'. A volume takes 1 to 255 letters, numbers, hyphens, \
                 underscores and periods.",
                shortened(name, 80)
            )));
        }
        if !names.insert(name) {
            return Err(ApiError::client(format!("Duplicate volume name '{name}' in 'volumes'.")));
        }
        let path = volume.get("host").map(|host| text(host, "sourcePath")).unwrap_or_default();
        if !path.is_empty() && (!path.starts_with('/') || path.split('/').any(|part| part == "..")) {
            return Err(ApiError::client(format!(
                "Invalid 'volumes[{i}].host.sourcePath': '{}'. Give an absolute path without '..', or leave it \
                 out for a directory of the task's own.",
                shortened(path, 120)
            )));
        }
        for cloud in [
            "efsVolumeConfiguration",
            "s3filesVolumeConfiguration",
            "fsxWindowsFileServerVolumeConfiguration",
        ] {
            if volume.get(cloud).is_some() {
                return Err(ApiError::client(format!(
                    "'volumes[{i}].{cloud}' needs a file system in AWS, which the local cluster does not have. Use \
                     'host' instead."
                )));
            }
        }
    }
    Ok(names)
}
