//! What the control plane asked of one container.

use crate::model::ids::EndpointId;
use crate::model::namespaces::ContainerKind;
use crate::model::network::Protocol;
use crate::model::registry::RegistryLogin;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// One container of a task definition, after overrides. Never changes once the task was taken.
#[derive(Debug, Clone, PartialEq)]
pub struct ContainerSpec {
    /// Name; unique within the task.
    pub name: String,
    /// What it is there for.
    pub kind: ContainerKind,
    /// ARN that the control plane gave it; may be empty.
    pub arn: String,
    /// Image reference, as written.
    pub image: String,
    /// Where the password of its registry comes from; `None` takes what the agent is configured with.
    pub registry_login: Option<RegistryLogin>,
    /// Replaces the image's Cmd where not empty.
    pub command: Vec<String>,
    /// Replaces the image's Entrypoint (and drops its Cmd) where not empty.
    pub entry_point: Vec<String>,
    /// Environment, overrides applied.
    pub environment: BTreeMap<String, String>,
    /// The task ends when this container ends.
    pub essential: bool,
    /// CPU shares (1024 to a vCPU); 0 is the least there is.
    pub cpu_shares: u64,
    /// Hard memory limit in MiB; 0 is none of its own.
    pub memory_mib: u64,
    /// Port mappings.
    pub ports: Vec<PortMapping>,
    /// Volumes mounted.
    pub mounts: Vec<MountPoint>,
    /// Containers of this task whose mounts it shares.
    pub volumes_from: Vec<VolumeFrom>,
    /// Legacy links, `name[:alias]`.
    pub links: Vec<String>,
    /// Its health is tracked (`healthCheckType` is `docker`); the check is in `docker`.
    pub health_checked: bool,
    /// Conditions on other containers before it starts.
    pub depends_on: Vec<Dependency>,
    /// How long dependents wait for it; `None` is for ever.
    pub start_timeout: Option<Duration>,
    /// From the stop signal to SIGKILL; `None` takes the agent's default.
    pub stop_timeout: Option<Duration>,
    /// Which of its exits are answered by a restart; `None` is none.
    pub restart: Option<RestartPolicy>,
    /// The two Docker API documents, merged over what the fields above say.
    pub docker: DockerConfig,
    /// Its metadata endpoint id.
    pub endpoint: EndpointId,
}

impl ContainerSpec {
    /// An essential container of which nothing is known but its name; its metadata endpoint is named
    /// as it is.
    pub fn empty(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            kind: ContainerKind::Normal,
            arn: String::new(),
            image: String::new(),
            registry_login: None,
            command: Vec::new(),
            entry_point: Vec::new(),
            environment: BTreeMap::new(),
            essential: true,
            cpu_shares: 0,
            memory_mib: 0,
            ports: Vec::new(),
            mounts: Vec::new(),
            volumes_from: Vec::new(),
            links: Vec::new(),
            health_checked: false,
            depends_on: Vec::new(),
            start_timeout: None,
            stop_timeout: None,
            restart: None,
            docker: DockerConfig::default(),
            endpoint: EndpointId::new(name),
        }
    }
}

/// `restartPolicy`, where it is on (spec/task-engine.md 1.8).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestartPolicy {
    /// Exit codes after which it is not restarted.
    pub ignored_exit_codes: BTreeSet<i32>,
    /// How long it must have run.
    pub attempt_period: Duration,
}

/// `dockerConfig` of the payload, parsed; Docker API objects as JSON with lower-cased top-level
/// keys. `Null` members are kept: they erase.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct DockerConfig {
    /// Container config (`config`).
    pub config: BTreeMap<String, serde_json::Value>,
    /// Host config (`hostConfig`).
    pub host_config: BTreeMap<String, serde_json::Value>,
}

impl DockerConfig {
    /// The container gets a network of its own with nothing in it, whatever its task's mode.
    pub fn network_disabled(&self) -> bool {
        self.config.get("networkdisabled").and_then(serde_json::Value::as_bool).unwrap_or(false)
    }
}

/// A port mapping as asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortMapping {
    /// Port or ports in the container.
    pub container: PortRange,
    /// Host port; 0 lets the agent choose. Ranges are always chosen.
    pub host_port: u16,
    /// Protocol.
    pub protocol: Protocol,
}

/// One port, or a contiguous range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortRange {
    /// First port.
    pub first: u16,
    /// How many.
    pub count: u16,
    /// Was written as `a-b`.
    pub is_range: bool,
}

/// A volume at a path of the container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountPoint {
    /// Name of a volume of the task.
    pub volume: String,
    /// Absolute path in the container.
    pub container_path: String,
    /// Read-only.
    pub read_only: bool,
}

/// `volumesFrom` of one container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeFrom {
    /// The container whose mounts are shared.
    pub container: String,
    /// Read-only.
    pub read_only: bool,
}

/// One `dependsOn` entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dependency {
    /// The other container.
    pub container: String,
    /// What must be true of it.
    pub condition: DependencyCondition,
}

/// The conditions of `dependsOn`, and the one that `volumesFrom` implies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DependencyCondition {
    /// It has been created. Not one that a task definition can name.
    Create,
    /// It runs, or has run.
    Start,
    /// It has ended, with whatever code.
    Complete,
    /// It has ended with code 0.
    Success,
    /// Its health check passed.
    Healthy,
}

impl DependencyCondition {
    /// The word in the task definition.
    pub fn word(self) -> &'static str {
        match self {
            Self::Create => "CREATE",
            Self::Start => "START",
            Self::Complete => "COMPLETE",
            Self::Success => "SUCCESS",
            Self::Healthy => "HEALTHY",
        }
    }
}
