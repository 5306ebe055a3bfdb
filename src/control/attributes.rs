//! The attributes that the instance registers with (spec/control-plane.md 2.5, 2.6): in the
//! original's order, and only what this agent does. An attribute is a promise: the scheduler places
//! tasks by it.

use std::collections::BTreeMap;

/// A name, and for some a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attribute {
    /// Name.
    pub name: String,
    /// Value; most have none.
    pub value: Option<String>,
}

/// What decides over the list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capabilities {
    /// `ECS_INSTANCE_ATTRIBUTES`; first registration only.
    pub custom: BTreeMap<String, String>,
    /// `ECS_AVAILABLE_LOGGING_DRIVERS`, of which only those that are implemented are told.
    pub logging_drivers: Vec<String>,
    /// Not `ECS_DISABLE_PRIVILEGED`.
    pub privileged: bool,
    /// Task cgroups can be made.
    pub task_limits: bool,
    /// `ECS_DETAILED_OS_FAMILY`
    pub os_family: String,
}

impl Default for Capabilities {
    fn default() -> Self {
        Self {
            custom: BTreeMap::new(),
            logging_drivers: vec!["json-file".into(), "none".into()],
            privileged: true,
            task_limits: true,
            os_family: "LINUX".into(),
        }
    }
}

const LEGACY: &str = "com.amazonaws.ecs.capability.";
const PREFIX: &str = "ecs.capability.";

/// Docker API versions that the original tells for any modern daemon. Placement of task definitions
/// by their oldest features keys on these; the documents of a task are understood in all of them.
const DOCKER_API: [&str; 13] = ["17", "18", "19", "20", "21", "22", "23", "24", "25", "28", "29", "30", "32"];

/// Log drivers that exist.
const LOG_DRIVERS: [&str; 2] = ["json-file", "none"];

/// The list.
pub fn attributes(has: &Capabilities) -> Vec<Attribute> {
    let custom = has.custom.iter().map(|(name, value)| (name.clone(), Some(value.clone())));
    let mut list: Vec<(String, Option<String>)> = custom.collect();
    let mut add = |prefix: &str, name: &str| list.push((format!("{prefix}{name}"), None));
    for name in ["container-ordering", "full-sync", "network.container-port-range"] {
        add(PREFIX, name);
    }
    if has.privileged {
        add(LEGACY, "privileged-container");
    }
    for minor in DOCKER_API {
        add(LEGACY, &format!("docker-remote-api.1.{minor}"));
    }
    for driver in has.logging_drivers.iter().filter(|d| LOG_DRIVERS.contains(&d.as_str())) {
        add(LEGACY, &format!("logging-driver.{driver}"));
    }
    if has.task_limits {
        add(PREFIX, "task-cpu-mem-limit");
        add(PREFIX, "increased-task-cpu-limit");
    }
    for (name, value) in
        [("ecs.os-type", "linux"), ("ecs.os-family", "LINUX"), ("ecs.os-type-detailed", &has.os_family)]
    {
        list.push((name.to_owned(), Some(value.to_owned())));
    }
    list.into_iter().map(|(name, value)| Attribute { name, value }).collect()
}
