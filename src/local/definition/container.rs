//! The sense of one container definition.

use crate::local::error::{ApiError, shortened};
use crate::local::shape::{list, text};
use serde_json::Value;
use std::collections::BTreeSet;

/// The smallest container memory, in MiB: below it the runtime can't start a process.
const MIN_MEMORY_MIB: i64 = 6;
const MAX_PORT_MAPPINGS: usize = 100;

/// Checks one container of `document`. `task_memory` in MiB; `volumes` are the names that
/// `mountPoints` may use.
///
/// # Errors
/// The first thing that is wrong.
pub fn check(
    container: &Value,
    document: &Value,
    task_memory: Option<u64>,
    volumes: &BTreeSet<&str>,
) -> Result<(), ApiError> {
    let name = text(container, "name");
    check_name(name)?;
    let image = text(container, "image");
    if image.is_empty() {
        return Err(ApiError::client(format!(
            "Container.image should not be null or empty. Give 'image' for container '{name}'."
        )));
    }
    if image.len() > 255 || image.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err(setting(
            name,
            &format!(
                "'image' is '{}': give repository[:tag] or repository@digest, at most 255 characters without \
                 blanks.",
                shortened(image, 80)
            ),
        ));
    }
    check_sizes(container, name, task_memory)?;
    check_ports(container, name, document)?;
    check_pairs(container, name)?;
    check_mounts(container, name, volumes)?;
    for (key, allowed) in [("startTimeout", 1..=i64::MAX), ("stopTimeout", 0..=i64::MAX)] {
        if let Some(seconds) = number(container, key).filter(|n| !allowed.contains(n)) {
            return Err(setting(
                name,
                &format!("'{key}' is {seconds}: give seconds, {} or more.", allowed.start()),
            ));
        }
    }
    check_health(container, name)
}

fn setting(name: &str, what: &str) -> ApiError {
    ApiError::client(format!("Invalid setting for container '{name}'. {what}"))
}

fn number(value: &Value, key: &str) -> Option<i64> {
    value.get(key).and_then(Value::as_i64)
}

fn check_name(name: &str) -> Result<(), ApiError> {
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if name.is_empty() {
        return Err(ApiError::client(
            "Container.name should not be null or empty. Give 'name' for each entry of 'containerDefinitions'.",
        ));
    }
    if name.len() > 255 || !name.chars().all(fits) {
        return Err(ApiError::client(format!(
            "Container.name contains invalid characters or is too long: '{}'. 'name' takes 1 to 255 letters \
             (uppercase and lowercase), numbers, hyphens and underscores.",
            shortened(name, 80)
        )));
    }
    Ok(())
}

fn check_sizes(container: &Value, name: &str, task_memory: Option<u64>) -> Result<(), ApiError> {
    if let Some(cpu) = number(container, "cpu").filter(|cpu| *cpu < 0) {
        return Err(setting(name, &format!("'cpu' is {cpu}: give CPU units, 0 or more (1024 to a vCPU).")));
    }
    let (memory, reserved) = (number(container, "memory"), number(container, "memoryReservation"));
    for (key, mib) in [("memory", memory), ("memoryReservation", reserved)] {
        if let Some(mib) = mib.filter(|mib| *mib < MIN_MEMORY_MIB) {
            return Err(setting(name, &format!("'{key}' is {mib}: give MiB, {MIN_MEMORY_MIB} or more.")));
        }
    }
    if memory.is_none() && reserved.is_none() && task_memory.is_none() {
        return Err(setting(name, "At least one of 'memory' or 'memoryReservation' must be specified."));
    }
    if let (Some(memory), Some(reserved)) = (memory, reserved)
        && reserved > memory
    {
        return Err(setting(
            name,
            &format!(
                "'memoryReservation' ({reserved} MiB) must not be greater than 'memory' ({memory} MiB)."
            ),
        ));
    }
    let most = memory.max(reserved).and_then(|mib| u64::try_from(mib).ok());
    if let (Some(most), Some(limit)) = (most, task_memory)
        && most > limit
    {
        return Err(setting(
            name,
            &format!("Its memory ({most} MiB) must not be greater than the task's 'memory' ({limit} MiB)."),
        ));
    }
    Ok(())
}

fn check_ports(container: &Value, name: &str, document: &Value) -> Result<(), ApiError> {
    let mappings = list(container, "portMappings");
    if mappings.len() > MAX_PORT_MAPPINGS {
        return Err(setting(
            name,
            &format!(
                "{} entries in 'portMappings', at most {MAX_PORT_MAPPINGS} are allowed.",
                mappings.len()
            ),
        ));
    }
    let same = text(document, "networkMode") == "host";
    for (i, mapping) in mappings.iter().enumerate() {
        let place = format!("portMappings[{i}]");
        let (port, host) = (number(mapping, "containerPort"), number(mapping, "hostPort"));
        let range = text(mapping, "containerPortRange");
        match (port, range) {
            (Some(_), "") => {}
            (None, "") => return Err(setting(name, &format!("'{place}.containerPort' is missing."))),
            (Some(_), _) => {
                return Err(setting(
                    name,
                    &format!(
                        "'{place}' has both 'containerPort' and 'containerPortRange': give one of them."
                    ),
                ));
            }
            (None, range) => {
                check_range(range).ok_or_else(|| {
                    setting(
                        name,
                        &format!(
                            "'{place}.containerPortRange' is '{}': give first-last with 1 <= first <= last <= 65535.",
                            shortened(range, 40)
                        ),
                    )
                })?;
                if host.is_some_and(|h| h != 0) {
                    return Err(setting(
                        name,
                        &format!(
                            "'{place}.hostPort' can't be used with 'containerPortRange': host ports are chosen."
                        ),
                    ));
                }
            }
        }
        for (key, value, least) in [("containerPort", port, 1), ("hostPort", host, 0)] {
            if let Some(value) = value.filter(|value| !(least..=65_535).contains(value)) {
                return Err(setting(
                    name,
                    &format!("'{place}.{key}' is {value}: allowed are {least} to 65535."),
                ));
            }
        }
        if let (true, Some(port), Some(host)) = (same, port, host)
            && host != 0
            && host != port
        {
            return Err(setting(
                name,
                &format!(
                    "'{place}.hostPort' is {host} and 'containerPort' is {port}: with networkMode host both must \
                     be the same, or 'hostPort' left out."
                ),
            ));
        }
    }
    Ok(())
}

fn check_range(range: &str) -> Option<()> {
    let (first, last) = range.split_once('-')?;
    let (first, last): (u16, u16) = (first.parse().ok()?, last.parse().ok()?);
    (first >= 1 && first <= last).then_some(())
}

/// No two mappings of a task may want the same host port.
///
/// # Errors
/// The port and both containers.
pub fn check_host_ports(containers: &[Value]) -> Result<(), ApiError> {
    let mut taken = std::collections::BTreeMap::new();
    for container in containers {
        let name = text(container, "name");
        for mapping in list(container, "portMappings") {
            let Some(host) = number(mapping, "hostPort").filter(|host| *host != 0) else { continue };
            let protocol = if text(mapping, "protocol") == "udp" { "udp" } else { "tcp" };
            if let Some(other) = taken.insert((host, protocol), name) {
                return Err(ApiError::client(format!(
                    "Host port {host}/{protocol} is mapped twice, by container '{other}' and by container \
                     '{name}': change one 'hostPort', or use 0 for a free one."
                )));
            }
        }
    }
    Ok(())
}

fn check_pairs(container: &Value, name: &str) -> Result<(), ApiError> {
    for (i, pair) in list(container, "environment").iter().enumerate() {
        let key = text(pair, "name");
        if key.is_empty() || key.contains(['=', '\0']) {
            return Err(setting(
                name,
                &format!(
                    "'environment[{i}].name' is '{}': each entry is {{\"name\": ..., \"value\": ...}} with a name \
                     that is not empty and holds no '='.",
                    shortened(key, 80)
                ),
            ));
        }
    }
    for (i, limit) in list(container, "ulimits").iter().enumerate() {
        let (soft, hard) = (number(limit, "softLimit"), number(limit, "hardLimit"));
        match (text(limit, "name"), soft, hard) {
            (kind, Some(soft), Some(hard)) if !kind.is_empty() && (hard == -1 || soft <= hard) => {}
            _ => {
                return Err(setting(
                    name,
                    &format!(
                        "'ulimits[{i}]' needs 'name', 'softLimit' and 'hardLimit', with softLimit <= hardLimit."
                    ),
                ));
            }
        }
    }
    Ok(())
}

fn check_mounts(container: &Value, name: &str, volumes: &BTreeSet<&str>) -> Result<(), ApiError> {
    for (i, mount) in list(container, "mountPoints").iter().enumerate() {
        let volume = text(mount, "sourceVolume");
        if !volumes.contains(volume) {
            return Err(setting(
                name,
                &format!(
                    "Unknown volume '{}' in 'mountPoints[{i}].sourceVolume': declare it in 'volumes'.",
                    shortened(volume, 80)
                ),
            ));
        }
        let path = text(mount, "containerPath");
        if !path.starts_with('/') {
            return Err(setting(
                name,
                &format!(
                    "'mountPoints[{i}].containerPath' is '{}': give an absolute path.",
                    shortened(path, 80)
                ),
            ));
        }
    }
    Ok(())
}

fn check_health(container: &Value, name: &str) -> Result<(), ApiError> {
    let Some(check) = container.get("healthCheck") else { return Ok(()) };
    let command = list(check, "command");
    let word = command.first().and_then(Value::as_str).unwrap_or_default();
    if !matches!((word, command.len()), ("CMD" | "CMD-SHELL", 2..) | ("NONE", 1)) {
        return Err(setting(
            name,
            "'healthCheck.command' must begin with CMD or CMD-SHELL and hold a command after it.",
        ));
    }
    for (key, allowed) in
        [("interval", 5..=300), ("timeout", 2..=60), ("retries", 1..=10), ("startPeriod", 0..=300)]
    {
        if let Some(value) = number(check, key).filter(|n| !allowed.contains(n)) {
            return Err(setting(
                name,
                &format!(
                    "'healthCheck.{key}' is {value}: allowed are {} to {}.",
                    allowed.start(),
                    allowed.end()
                ),
            ));
        }
    }
    Ok(())
}
