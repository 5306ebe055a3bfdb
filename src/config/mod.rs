//! The configuration: every variable with its type, default, limits and meaning, in one table that
//! drives both the parsing and `docs/configuration.md` (spec/local-endpoints-config.md 3).
//!
//! Parsed once, before any socket is bound; pure. Only `app`
//! and `cli` import it.

mod docs;
mod go;
mod parse;
mod registry_auth;
mod table;

pub use docs::markdown;
pub use table::{NO_EFFECT, VARIABLES, Variable};

use crate::telemetry::{LogFormat, LogLevel};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

/// `ECS_IMAGE_PULL_BEHAVIOR`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PullBehavior {
    /// Pull; where that fails a local image serves.
    #[default]
    Default,
    /// Pull; where that fails the task fails.
    Always,
    /// Pull only what no task has pulled before.
    Once,
    /// Pull only what is not there.
    PreferCached,
}

/// A text that is never shown.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Secret(pub String);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[redacted]")
    }
}

/// All settings, defaults filled in.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// `ECS_CLUSTER`; empty is `default`.
    pub cluster: String,
    /// `ECS_BACKEND_HOST` with its scheme.
    pub backend_host: Option<String>,
    /// `AWS_DEFAULT_REGION`; `None` asks the metadata service.
    pub region: Option<String>,
    /// `ECS_DATADIR`
    pub data_dir: PathBuf,
    /// `ECS_LOGLEVEL`
    pub log_level: LogLevel,
    /// `ECS_LOGFILE`
    pub log_file: Option<PathBuf>,
    /// `ECS_LOG_OUTPUT_FORMAT`
    pub log_format: LogFormat,
    /// `ECS_RESERVED_PORTS`
    pub reserved_ports: BTreeSet<u16>,
    /// `ECS_RESERVED_PORTS_UDP`
    pub reserved_ports_udp: BTreeSet<u16>,
    /// `ECS_RESERVED_MEMORY`
    pub reserved_memory_mib: u64,
    /// `ECS_CONTAINER_STOP_TIMEOUT`
    pub container_stop_timeout: Duration,
    /// `ECS_CONTAINER_START_TIMEOUT`
    pub container_start_timeout: Duration,
    /// `ECS_CONTAINER_CREATE_TIMEOUT`
    pub container_create_timeout: Duration,
    /// `ECS_IMAGE_PULL_TIMEOUT`
    pub image_pull_timeout: Duration,
    /// `ECS_MANIFEST_PULL_TIMEOUT`
    pub manifest_pull_timeout: Duration,
    /// `ECS_IMAGE_PULL_INACTIVITY_TIMEOUT`
    pub image_pull_inactivity_timeout: Duration,
    /// `ECS_ENGINE_TASK_CLEANUP_WAIT_DURATION`
    pub task_cleanup_wait: Duration,
    /// `ECS_ENGINE_TASK_CLEANUP_WAIT_DURATION_JITTER`
    pub task_cleanup_jitter: Duration,
    /// `ECS_IMAGE_PULL_BEHAVIOR`
    pub image_pull_behavior: PullBehavior,
    /// `ECS_ENGINE_AUTH_TYPE`: `dockercfg`, `docker` or empty.
    pub engine_auth_type: String,
    /// `ECS_ENGINE_AUTH_DATA`
    pub engine_auth_data: Secret,
    /// `ECS_DYNAMIC_HOST_PORT_RANGE`, first and last; `None` takes the kernel's.
    pub dynamic_host_port_range: Option<(u16, u16)>,
    /// `ECS_INSTANCE_ATTRIBUTES`
    pub instance_attributes: BTreeMap<String, String>,
    /// `ECS_CONTAINER_INSTANCE_TAGS`
    pub instance_tags: BTreeMap<String, String>,
    /// `ECS_AVAILABLE_LOGGING_DRIVERS`
    pub logging_drivers: Vec<String>,
    /// `ECS_DISABLE_PRIVILEGED`
    pub privileged_disabled: bool,
    /// `ECS_ENABLE_TASK_CPU_MEM_LIMIT`; `None` where not said.
    pub task_cpu_mem_limit: Option<bool>,
    /// `ECS_TASK_METADATA_RPS_LIMIT`: steady and burst.
    pub task_metadata_rps: (u32, u32),
    /// `ECS_DETAILED_OS_FAMILY`
    pub os_family: String,
    /// `AWS_EC2_METADATA_DISABLED`
    pub imds_disabled: bool,
    /// `ECS_CONTAINERD_ADDRESS`
    pub containerd_address: PathBuf,
    /// `ECS_CONTAINERD_NAMESPACE`
    pub containerd_namespace: String,
    /// `ECS_CONTAINERD_SNAPSHOTTER`
    pub containerd_snapshotter: String,
    /// `ECS_CONTAINERD_RUNTIME`
    pub containerd_runtime: String,
    /// `ECS_CONTAINERD_RUNTIME_BINARY`
    pub containerd_runtime_binary: Option<PathBuf>,
    /// `ECSD_RUNTIME_DIR`
    pub runtime_dir: PathBuf,
    /// `ECSD_TASK_METADATA_ADDRESS`
    pub task_metadata_address: SocketAddr,
    /// `ECSD_INTROSPECTION_ADDRESS`
    pub introspection_address: SocketAddr,
    /// `ECSD_CGROUP_ROOT`
    pub cgroup_root: String,
    /// `ECSD_BRIDGE`
    pub bridge: String,
    /// `ECSD_LOGGER`; `None` is `ecsd-logger` beside the agent's own executable.
    pub logger: Option<PathBuf>,
}

impl Default for Config {
    fn default() -> Self {
        let (second, minute) = (Duration::from_secs(1), Duration::from_secs(60));
        Self {
            cluster: String::new(),
            backend_host: None,
            region: None,
            data_dir: "/var/lib/ecs/data".into(),
            log_level: LogLevel::Info,
            log_file: None,
            log_format: LogFormat::Logfmt,
            reserved_ports: BTreeSet::from([22, 2375, 2376, 51678, 51679]),
            reserved_ports_udp: BTreeSet::new(),
            reserved_memory_mib: 0,
            container_stop_timeout: second * 30,
            container_start_timeout: minute * 3,
            container_create_timeout: minute * 4,
            image_pull_timeout: minute * 120,
            manifest_pull_timeout: minute,
            image_pull_inactivity_timeout: minute,
            task_cleanup_wait: minute * 180,
            task_cleanup_jitter: Duration::ZERO,
            image_pull_behavior: PullBehavior::Default,
            engine_auth_type: String::new(),
            engine_auth_data: Secret::default(),
            dynamic_host_port_range: None,
            instance_attributes: BTreeMap::new(),
            instance_tags: BTreeMap::new(),
            logging_drivers: vec!["json-file".into(), "none".into()],
            privileged_disabled: false,
            task_cpu_mem_limit: None,
            task_metadata_rps: (40, 60),
            os_family: "LINUX".into(),
            imds_disabled: false,
            containerd_address: "/run/containerd/containerd.sock".into(),
            containerd_namespace: "ecs".into(),
            containerd_snapshotter: "overlayfs".into(),
            containerd_runtime: "io.containerd.runc.v2".into(),
            containerd_runtime_binary: None,
            runtime_dir: "/run/ecsd".into(),
            task_metadata_address: SocketAddr::from((Ipv4Addr::LOCALHOST, 51679)),
            introspection_address: SocketAddr::from((Ipv4Addr::LOCALHOST, 51678)),
            cgroup_root: "ecs".into(),
            bridge: "ecs-br0".into(),
            logger: None,
        }
    }
}

/// A variable that was not taken as it is; the agent starts all the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigWarning {
    /// The variable.
    pub variable: &'static str,
    /// What was wrong and what is used instead.
    pub message: String,
}

impl std::fmt::Display for ConfigWarning {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.variable, self.message)
    }
}

/// Variables with which the agent can't start: all of them, not just the first. Exit code 1.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the configuration can't be used: {}", .0.join("; "))]
pub struct ConfigError(pub Vec<String>);

impl Config {
    /// Reads the environment.
    ///
    /// # Errors
    /// [`ConfigError`] naming each fatal variable, its value and the cure.
    pub fn from_env(
        vars: impl Fn(&str) -> Option<String>,
    ) -> Result<(Self, Vec<ConfigWarning>), ConfigError> {
        let (mut config, mut warnings, mut fatal) = (Self::default(), Vec::new(), Vec::new());
        for variable in VARIABLES {
            let Some(value) = vars(variable.name) else { continue };
            if value.trim().is_empty() && !variable.blank_counts {
                continue;
            }
            match (variable.apply)(&mut config, value.trim()) {
                Ok(None) => {}
                Ok(Some(message)) => warnings.push(ConfigWarning { variable: variable.name, message }),
                Err(message) => fatal.push(format!("{}: {message}", variable.name)),
            }
        }
        for (variable, why) in NO_EFFECT {
            if vars(variable).is_some_and(|value| !value.trim().is_empty()) {
                warnings.push(ConfigWarning { variable, message: format!("has no effect: {why}") });
            }
        }
        if fatal.is_empty() { Ok((config, warnings)) } else { Err(ConfigError(fatal)) }
    }
}

#[cfg(test)]
mod tests;
