//! What the configuration means for each adapter, and for the engine. Called by assembling, and where
//! the host is probed for what decides over an attribute.

use super::Failure;
use crate::cgroup::CgroupOptions;
use crate::config::Config;
use crate::containerd::ContainerOptions;
use crate::containerd::cleanup::policy::Rules;
use crate::containerd::cleanup::room::Watermarks;
use crate::containerd::cleanup::{CleanupOptions, StrangerRules, record_name};
use crate::containerd::images::{ImageOptions, RegistryLogins};
use crate::core::{self, Timeouts};
use crate::engine::{Limits, Options};
use crate::model::logging::{Environment, LogHost};
use crate::model::{HostResources, PullBehavior};
use crate::net::NetworkOptions;
use crate::resources::volumes::VolumeOptions;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Arc;

/// Different after every boot.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// Of the engine, on a host that has so much to give.
pub(super) fn engine(config: &Config, host: HostResources) -> Options {
    Options {
        rules: core::Rules {
            host,
            stop_timeout: config.container_stop_timeout,
            cleanup_wait: config.task_cleanup_wait,
            cleanup_jitter: config.task_cleanup_jitter,
            timeouts: Timeouts {
                resolve: config.manifest_pull_timeout,
                pull: config.image_pull_timeout,
                create: config.container_create_timeout,
                start: config.container_start_timeout,
            },
            pull_failure_stops_task: matches!(
                config.image_pull_behavior,
                PullBehavior::Always | PullBehavior::Once
            ),
            pull_upfront: config.pull_dependents_upfront,
        },
        data_dir: config.data_dir.clone(),
        limits: Limits::default(),
        boot_id: std::fs::read_to_string(BOOT_ID).unwrap_or_default().trim().to_owned(),
    }
}

/// Of cgroups.
pub(super) fn cgroups(config: &Config) -> CgroupOptions {
    CgroupOptions {
        root: config.cgroup_root.clone(),
        task_pids: (config.task_pids_limit > 0).then_some(config.task_pids_limit),
        cpu_period: config.cgroup_cpu_period,
    }
}

/// Of pulling.
pub(super) fn images(config: &Config, logins: Arc<dyn RegistryLogins>) -> Result<ImageOptions, Failure> {
    let mut options = ImageOptions {
        snapshotter: config.containerd_snapshotter.clone(),
        pull_behavior: config.image_pull_behavior,
        auth: config.registry_auth().map_err(Failure::retry)?,
        hosts_dir: config.containerd_certs_dir.clone(),
        logins: Some(logins),
        ..ImageOptions::default()
    };
    options.tuning.inactivity_timeout = config.image_pull_inactivity_timeout;
    Ok(options)
}

/// Of cleaning up images.
pub(super) fn cleanup(config: &Config) -> CleanupOptions {
    // Whoever prefers what is here wants it to stay (spec/task-engine.md 3.1).
    let off = config.image_cleanup_disabled || config.image_pull_behavior == PullBehavior::PreferCached;
    let high = config.image_cleanup_high_watermark;
    let low = config.image_cleanup_low_watermark.min(high);
    let untracked = config.untracked_image_cleanup;
    let named = |image: &String| {
        let image = image.trim();
        record_name(image).unwrap_or_else(|| image.to_owned())
    };
    CleanupOptions {
        snapshotter: config.containerd_snapshotter.clone(),
        interval: (!off).then_some(config.image_cleanup_interval),
        rules: Rules {
            per_cycle: config.images_deleted_per_cycle as usize,
            minimum_age: config.image_minimum_cleanup_age,
            untracked_minimum_age: untracked.then_some(config.non_ecs_image_minimum_cleanup_age),
            excluded: config.excluded_untracked_images.iter().map(named).collect(),
        },
        watermarks: (!off && high < 100).then_some(Watermarks { high, low }),
        strangers: untracked.then_some(StrangerRules {
            per_cycle: config.non_ecs_containers_deleted_per_cycle as usize,
            minimum_age: config.task_cleanup_wait,
        }),
    }
}

/// Of containers; `systemd_cgroup` where systemd owns the cgroup tree. Blocks.
pub(super) fn containers(
    config: &Config,
    systemd_cgroup: bool,
    log_host: LogHost,
) -> Result<ContainerOptions, Failure> {
    Ok(ContainerOptions {
        snapshotter: config.containerd_snapshotter.clone(),
        runtime: config.containerd_runtime.clone(),
        runtime_binary: config.containerd_runtime_binary.as_ref().map(|path| path.display().to_string()),
        systemd_cgroup,
        propagate_task_memory: config.propagate_task_memory_limit,
        selinux: config.selinux_capable,
        logger_program: logger_program(config)?,
        log_host,
        init_program: init_program(config),
        nvidia_runtime: config.nvidia_runtime.clone(),
        inferentia: config.inferentia,
        shm_dir: config.runtime_dir.join("shm"),
    })
}

/// The program that is PID 1 where one of ours has to be, written into ECS_DATADIR. Blocks.
fn init_program(config: &Config) -> Option<PathBuf> {
    let written = crate::containerd::init::install(&config.data_dir);
    if let Err(error) = &written {
        let directory = config.data_dir.display();
        tracing::error!(%error, "the init program can't be run from ECS_DATADIR ({directory})");
    }
    written.ok()
}

/// Of loggers that speak HTTP, on an instance of this region.
pub(super) fn log_host(config: &Config, region: &str, ipv6_only: bool) -> LogHost {
    let mut endpoint = config.task_metadata_address;
    if endpoint.ip().is_unspecified() {
        endpoint.set_ip(Ipv4Addr::LOCALHOST.into());
    }
    LogHost {
        environment: Environment::choose(|name| std::env::var(name).ok()),
        credentials_endpoint: format!("http://{endpoint}"),
        region: region.to_owned(),
        dual_stack: ipv6_only,
    }
}

/// `ecsd-logger`: where ECSD_LOGGER says, or beside the agent.
pub(super) fn logger_program(config: &Config) -> Result<PathBuf, Failure> {
    let beside = || Some(std::env::current_exe().ok()?.parent()?.join("ecsd-logger"));
    let program =
        config.logger.clone().or_else(beside).unwrap_or_else(|| PathBuf::from("/usr/bin/ecsd-logger"));
    if program.is_file() {
        return Ok(program);
    }
    Err(Failure::terminal(format!(
        "the log writer {} is not there: install ecsd-logger beside ecsd, or name it by ECSD_LOGGER",
        program.display()
    )))
}

/// Of volumes.
pub(super) fn volumes(config: &Config) -> VolumeOptions {
    VolumeOptions {
        root: config.data_dir.join("volumes"),
        match_full_config: config.shared_volume_match_full_config,
    }
}

/// Of the networks.
pub(super) fn networks(config: &Config) -> NetworkOptions {
    NetworkOptions {
        bridge_name: config.bridge.clone(),
        netns_dir: config.runtime_dir.join("netns"),
        metadata_port: config.task_metadata_address.port(),
        dynamic_port_range: config.dynamic_host_port_range,
        reserved_tcp: config.reserved_ports.clone(),
        reserved_udp: config.reserved_ports_udp.clone(),
        ..NetworkOptions::default()
    }
}
