//! The configuration: every variable with its type, default, limits and meaning, in one table that
//! drives both the parsing and `docs/configuration.md` (spec/local-endpoints-config.md 3).
//!
//! Sources, the first that sets a variable wins: environment, JSON file, EC2 user data, default.
//!
//! Parsed once, before any socket is bound; pure: the caller reads the file and asks for the user data.
//! Only `app` and `cli` import it.

mod docs;
mod go;
mod json;
mod load;
mod parse;
mod registry_auth;
mod show;
mod table;

pub use docs::markdown;
pub use load::{ConfigError, ConfigWarning, Effective, LoadedConfig, Lookup, Origin, Sources};
pub use show::without_password;
pub use table::{GROUPS, NO_EFFECT, Variable, variables};

use crate::model::PullBehavior;
pub use crate::telemetry::Rollover;
use crate::telemetry::{LogFormat, LogLevel};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

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
    /// `ECS_UPDATES_ENABLED`
    pub updates_enabled: bool,
    /// `ECS_UPDATE_DOWNLOAD_DIR`
    pub update_download_dir: Option<PathBuf>,
    /// `ECS_DISABLE_METRICS`
    pub metrics_disabled: bool,
    /// `ECS_POLLING_METRICS_WAIT_DURATION`, where `ECS_POLL_METRICS` asks for it; `None` samples every second.
    pub metrics_interval: Option<Duration>,
    /// `ECS_DISABLE_DOCKER_HEALTH_CHECK`
    pub health_checks_disabled: bool,
    /// `ECS_SELINUX_CAPABLE`
    pub selinux_capable: bool,
    /// `ECS_APPARMOR_CAPABLE`
    pub apparmor_capable: bool,
    /// `ECS_ENABLE_TASK_ENI`
    pub task_eni: bool,
    /// `ECS_ENABLE_HIGH_DENSITY_ENI`; counts only with `task_eni`.
    pub eni_trunking: bool,
    /// `ECS_ENABLE_TASK_IAM_ROLE`
    pub task_iam_role: bool,
    /// `ECS_ENABLE_TASK_IAM_ROLE_NETWORK_HOST`
    pub task_iam_role_network_host: bool,
    /// `ECS_CGROUP_CPU_PERIOD`
    pub cgroup_cpu_period: Duration,
    /// `ECS_TASK_PIDS_LIMIT`; 0 is no limit.
    pub task_pids_limit: u32,
    /// `ECS_PROPAGATE_TASK_MEMORY_LIMIT_CGROUPV2`
    pub propagate_task_memory_limit: bool,
    /// `ECS_PULL_DEPENDENT_CONTAINERS_UPFRONT`
    pub pull_dependents_upfront: bool,
    /// `ECS_DISABLE_IMAGE_CLEANUP`
    pub image_cleanup_disabled: bool,
    /// `ECS_IMAGE_CLEANUP_INTERVAL`
    pub image_cleanup_interval: Duration,
    /// `ECS_IMAGE_MINIMUM_CLEANUP_AGE`
    pub image_minimum_cleanup_age: Duration,
    /// `NON_ECS_IMAGE_MINIMUM_CLEANUP_AGE`
    pub non_ecs_image_minimum_cleanup_age: Duration,
    /// `ECS_NUM_IMAGES_DELETE_PER_CYCLE`
    pub images_deleted_per_cycle: u32,
    /// `NONECS_NUM_CONTAINERS_DELETE_PER_CYCLE`
    pub non_ecs_containers_deleted_per_cycle: u32,
    /// `ECS_ENABLE_UNTRACKED_IMAGE_CLEANUP`
    pub untracked_image_cleanup: bool,
    /// `ECS_EXCLUDE_UNTRACKED_IMAGE`
    pub excluded_untracked_images: Vec<String>,
    /// `ECS_IMAGE_CLEANUP_HIGH_WATERMARK`, in percent; 100 is off.
    pub image_cleanup_high_watermark: u32,
    /// `ECS_IMAGE_CLEANUP_LOW_WATERMARK`, in percent.
    pub image_cleanup_low_watermark: u32,
    /// `ECS_CONTAINER_INSTANCE_PROPAGATE_TAGS_FROM` is `ec2_instance`.
    pub propagate_ec2_tags: bool,
    /// `ECS_AWSVPC_BLOCK_IMDS`
    pub awsvpc_block_imds: bool,
    /// `ECS_AWSVPC_ADDITIONAL_LOCAL_ROUTES`
    pub awsvpc_local_routes: Vec<String>,
    /// `ECS_ENABLE_CONTAINER_METADATA`
    pub container_metadata: bool,
    /// `ECS_ENABLE_AWSLOGS_EXECUTIONROLE_OVERRIDE`
    pub awslogs_execution_role: bool,
    /// `ECS_AUDIT_LOGFILE`; `None` where `ECS_AUDIT_LOGFILE_DISABLED`.
    pub audit_log_file: Option<PathBuf>,
    /// `ECS_DISABLE_TASK_METADATA_AZ`
    pub task_metadata_az_disabled: bool,
    /// `ECS_SHARED_VOLUME_MATCH_FULL_CONFIG`
    pub shared_volume_match_full_config: bool,
    /// `ECS_VOLUME_PLUGIN_CAPABILITIES`
    pub volume_plugin_capabilities: Vec<String>,
    /// `ECS_ENABLE_GPU_SUPPORT`
    pub gpu_support: bool,
    /// `ECSD_GPU_INFO`
    pub gpu_info: PathBuf,
    /// `ECS_NVIDIA_RUNTIME`
    pub nvidia_runtime: String,
    /// `ECS_ENABLE_INF_SUPPORT`
    pub inferentia: bool,
    /// `ECS_EBSTA_SUPPORTED`
    pub ebs_task_attach: bool,
    /// `ECS_ENABLE_SPOT_INSTANCE_DRAINING`
    pub spot_draining: bool,
    /// `ECS_WARM_POOLS_CHECK`
    pub warm_pools_check: bool,
    /// `ECS_EXTERNAL`
    pub external: bool,
    /// `ECS_EXCLUDE_IPV6_PORTBINDING`; `None` where not said.
    pub exclude_ipv6_port_bindings: Option<bool>,
    /// `ECS_INSTANCE_IP_COMPATIBILITY`: true is IPv6 only, false is not; `None` looks at the default routes.
    pub ipv6_only: Option<bool>,
    /// `ECS_ENABLE_FIRELENS_ASYNC`
    pub firelens_async: bool,
    /// `ECS_ALTERNATE_CREDENTIAL_PROFILE`
    pub alternate_credential_profile: Option<String>,
    /// Only in the configuration file, `NoIID`: the identity document is not asked for.
    pub no_identity_document: bool,
    /// `ECS_LOGLEVEL_ON_INSTANCE`, of the log file; see [`Config::log_file_level`].
    pub log_level_on_instance: Option<LogLevel>,
    /// `ECS_LOG_DRIVER`: the log goes elsewhere, so that there is no need of a file.
    pub log_driver: String,
    /// `ECS_LOG_ROLLOVER_TYPE`
    pub log_rollover: Rollover,
    /// `ECS_LOG_MAX_FILE_SIZE_MB`, in bytes.
    pub log_max_file_bytes: u64,
    /// `ECS_LOG_MAX_ROLL_COUNT`; 0 keeps all.
    pub log_max_rolls: u32,
    /// `ECS_AGENT_HEALTHCHECK_HOST`
    pub healthcheck_host: String,
    /// `ECS_ENABLE_PROMETHEUS_METRICS`
    pub prometheus_metrics: bool,
    /// `ECS_CONTAINERD_ADDRESS`
    pub containerd_address: PathBuf,
    /// `ECS_CONTAINERD_NAMESPACE`
    pub containerd_namespace: String,
    /// `ECS_CONTAINERD_SNAPSHOTTER`
    pub containerd_snapshotter: String,
    /// `ECS_CONTAINERD_CERTS_DIR`
    pub containerd_certs_dir: PathBuf,
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
            updates_enabled: false,
            update_download_dir: None,
            metrics_disabled: false,
            metrics_interval: None,
            health_checks_disabled: false,
            selinux_capable: false,
            apparmor_capable: false,
            task_eni: false,
            eni_trunking: true,
            task_iam_role: false,
            task_iam_role_network_host: false,
            cgroup_cpu_period: Duration::from_millis(100),
            task_pids_limit: 0,
            propagate_task_memory_limit: false,
            pull_dependents_upfront: false,
            image_cleanup_disabled: false,
            image_cleanup_interval: minute * 30,
            image_minimum_cleanup_age: minute * 60,
            non_ecs_image_minimum_cleanup_age: minute * 60,
            images_deleted_per_cycle: 5,
            non_ecs_containers_deleted_per_cycle: 5,
            untracked_image_cleanup: false,
            excluded_untracked_images: Vec::new(),
            image_cleanup_high_watermark: 90,
            image_cleanup_low_watermark: 80,
            propagate_ec2_tags: false,
            awsvpc_block_imds: false,
            awsvpc_local_routes: Vec::new(),
            container_metadata: false,
            awslogs_execution_role: false,
            audit_log_file: Some("/var/log/ecs/audit.log".into()),
            task_metadata_az_disabled: false,
            shared_volume_match_full_config: false,
            volume_plugin_capabilities: Vec::new(),
            gpu_support: false,
            gpu_info: "/var/lib/ecs/gpu/nvidia-gpu-info.json".into(),
            nvidia_runtime: "nvidia".into(),
            inferentia: false,
            ebs_task_attach: true,
            spot_draining: false,
            warm_pools_check: false,
            external: false,
            exclude_ipv6_port_bindings: None,
            ipv6_only: None,
            firelens_async: true,
            alternate_credential_profile: None,
            no_identity_document: false,
            log_level_on_instance: None,
            log_driver: String::new(),
            log_rollover: Rollover::Size,
            log_max_file_bytes: 5_000_000,
            log_max_rolls: 24,
            healthcheck_host: "localhost".into(),
            prometheus_metrics: false,
            containerd_address: "/run/containerd/containerd.sock".into(),
            containerd_namespace: "ecs".into(),
            containerd_snapshotter: "overlayfs".into(),
            containerd_certs_dir: "/etc/containerd/certs.d".into(),
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

impl Config {
    /// Level of the log file: what was said of it; nothing where the log has a driver; else the level
    /// of standard output (spec/local-endpoints-config.md 4).
    pub fn log_file_level(&self) -> LogLevel {
        let without = if self.log_driver.is_empty() { self.log_level } else { LogLevel::None };
        self.log_level_on_instance.unwrap_or(without)
    }
}

#[cfg(test)]
mod tests;
