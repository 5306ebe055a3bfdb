//! What this host lets the agent do: found by trying, not assumed. The attributes of the registration
//! follow from it and from the configuration.

use super::{DONE, FAILED, Failure};
use crate::cgroup::CgroupService;
use crate::config::Config;
use crate::containerd::runtimes::{find_program, nvidia_program};
use crate::containerd::{apparmor, selinux};
use crate::control::attributes::{Capabilities, attributes};
use crate::control::gpu::GpuInfo;
use crate::control::{chain, routes};
use crate::logs::JOURNAL_SOCKET;
use crate::model::{NetworkMode, TaskArn, TaskSpec};
use crate::ports::Cgroups;
use std::path::Path;
use std::sync::Arc;

/// Bit of CAP_SYS_ADMIN, without which no container can be given all privileges.
const CAP_SYS_ADMIN: u32 = 21;

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Abilities {
    /// The agent may do all that a privileged container may.
    privileged: bool,
    /// Task cgroups can be made and limited, and are wanted.
    task_limits: bool,
    /// The log writer is there.
    logger: bool,
    /// The host has a journal.
    journal: bool,
    /// Containers get SELinux labels.
    selinux: bool,
    /// Containers are confined by AppArmor.
    apparmor: bool,
    /// UUIDs of the GPUs that containers can be given.
    pub gpus: Vec<String>,
    /// Version of their driver; empty where it is not known, or there are none to give.
    gpu_driver: String,
    /// There is no way out by IPv4.
    pub ipv6_only: bool,
}

impl Abilities {
    /// Tries. Blocks.
    ///
    /// # Errors
    /// Exit code 5 where task limits are asked for by name and can't be had; exit code 1 for a GPU list
    /// that can't be read.
    pub fn probe(config: &Config, cgroups: &Arc<CgroupService>) -> Result<Self, Failure> {
        let task_limits = match config.task_cpu_mem_limit {
            Some(false) => Ok(false),
            _ => task_limits(cgroups.as_ref()).map(|()| true),
        };
        let task_limits = match (task_limits, config.task_cpu_mem_limit) {
            (Ok(can), _) => can,
            (Err(why), Some(true)) => {
                return Err(Failure::terminal(format!(
                    "ECS_ENABLE_TASK_CPU_MEM_LIMIT is true, but this host can't limit tasks: {why}"
                )));
            }
            (Err(why), _) => {
                tracing::warn!(why, "tasks can't be limited on this host; their capability is not told");
                false
            }
        };
        let gpus = gpus(config)?;
        Ok(Self {
            privileged: may_be_privileged(&std::fs::read_to_string("/proc/self/status").unwrap_or_default()),
            task_limits,
            logger: super::options::logger_program(config).is_ok(),
            journal: Path::new(JOURNAL_SOCKET).exists(),
            selinux: config.selinux_capable && selinux::contexts().is_some(),
            apparmor: config.apparmor_capable && apparmor::available(),
            gpus: gpus.ids,
            gpu_driver: gpus.driver_version,
            ipv6_only: ipv6_only(config, Path::new("/proc")),
        })
    }

    /// What decides over the attributes, but for what IMDS knows.
    pub fn capabilities(&self, config: &Config) -> Capabilities {
        let mut logging_drivers = config.logging_drivers.clone();
        logging_drivers.retain(|driver| match driver.as_str() {
            "none" => true,
            "journald" => self.logger && self.journal,
            _ => self.logger,
        });
        Capabilities {
            custom: config.instance_attributes.clone(),
            logging_drivers,
            privileged: self.privileged && !config.privileged_disabled,
            selinux: self.selinux,
            apparmor: self.apparmor,
            task_limits: self.task_limits,
            health_checks: !config.health_checks_disabled,
            task_iam_role: config.task_iam_role,
            task_iam_role_network_host: config.task_iam_role_network_host,
            awslogs_execution_role: config.awslogs_execution_role && self.logger,
            external: config.external,
            gpu_driver: Some(self.gpu_driver.clone()).filter(|version| !version.is_empty()),
            os_family: config.os_family.clone(),
            vpc: None,
            outpost_arn: None,
        }
    }
}

/// Prints the attributes that would be registered, `name<TAB>value`; asks neither AWS nor IMDS.
pub fn print_attributes() -> u8 {
    let config = match super::settings::load_local() {
        Ok(loaded) => loaded.config,
        Err(error) => {
            eprintln!("ecsd: {error}");
            return FAILED;
        }
    };
    let cgroups = CgroupService::new(super::options::cgroups(&config))
        .map_err(|error| Failure::terminal(chain(&error)));
    match cgroups.and_then(|cgroups| Abilities::probe(&config, &Arc::new(cgroups))) {
        Ok(abilities) => {
            for attribute in attributes(&abilities.capabilities(&config)) {
                println!("{}\t{}", attribute.name, attribute.value.unwrap_or_default());
            }
            DONE
        }
        Err(failure) => {
            eprintln!("ecsd: {}", failure.message);
            failure.code
        }
    }
}

/// Makes, limits and removes the cgroup of a task that does not exist.
fn task_limits(cgroups: &dyn Cgroups) -> Result<(), String> {
    let arn = format!("arn:aws:ecs:probe:000000000000:task/probe-{}", std::process::id());
    let spec = TaskSpec {
        network_mode: NetworkMode::None,
        cpu: Some(1024),
        memory_mib: Some(64),
        ..TaskSpec::empty(TaskArn::parse(&arn).map_err(|error| error.to_string())?)
    };
    let made = cgroups.prepare(&spec).map_err(|reason| reason.to_string());
    let removed = cgroups.remove(&spec.id()).map_err(|reason| reason.to_string());
    made.and(removed)
}

/// `CapEff` of /proc/self/status.
fn may_be_privileged(status: &str) -> bool {
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let effective = effective.and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok());
    effective.is_some_and(|bits| bits & (1 << CAP_SYS_ADMIN) != 0)
}

/// The GPUs to offer: tasks are placed on them, so there must be a program that gives them to containers.
fn gpus(config: &Config) -> Result<GpuInfo, Failure> {
    let none = GpuInfo { driver_version: String::new(), ids: Vec::new() };
    if !config.gpu_support {
        return Ok(none);
    }
    let found = GpuInfo::read(&config.gpu_info).map_err(|error| Failure::retry(chain(&error)))?;
    let Some(found) = found else {
        tracing::info!("ECS_ENABLE_GPU_SUPPORT: {} is not there, so no GPUs", config.gpu_info.display());
        return Ok(none);
    };
    let program = nvidia_program(&config.nvidia_runtime);
    if find_program(program).is_none() {
        tracing::warn!(
            gpus = found.ids.len(),
            "GPUs are not offered to tasks: there is no {program} to give them to containers; install NVIDIA's \
             container toolkit, or name the program by ECS_NVIDIA_RUNTIME"
        );
        return Ok(none);
    }
    Ok(found)
}

fn ipv6_only(config: &Config, proc: &Path) -> bool {
    config.ipv6_only.unwrap_or_else(|| {
        routes::ipv6_only(proc).unwrap_or_else(|error| {
            tracing::warn!(%error, "the default routes can't be read: taken for an instance with IPv4");
            false
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn privileges_are_read_from_the_kernel() {
        assert!(may_be_privileged("Name:\tx\nCapEff:\t000001ffffffffff\n"));
        assert!(!may_be_privileged("CapEff:\t00000000a80425fb\n"), "Docker's default set");
        assert!(!may_be_privileged(""));
    }

    #[test]
    fn without_a_log_writer_there_is_only_no_log() {
        let has = Abilities { privileged: true, ..Abilities::default() };
        assert_eq!(has.capabilities(&Config::default()).logging_drivers, ["none"]);
        let with = Abilities { logger: true, ..has.clone() }.capabilities(&Config::default());
        assert_eq!(with.logging_drivers, Config::default().logging_drivers);
        let asked = Config {
            logging_drivers: ["syslog", "journald"].map(str::to_owned).to_vec(),
            ..Config::default()
        };
        let of = |journal| Abilities { logger: true, journal, ..has.clone() }.capabilities(&asked);
        assert_eq!(of(false).logging_drivers, ["syslog"]);
        assert_eq!(of(true).logging_drivers, ["syslog", "journald"]);
        let forbidden = Config { privileged_disabled: true, ..Config::default() };
        assert!(has.capabilities(&Config::default()).privileged);
        assert!(!has.capabilities(&forbidden).privileged);
    }

    #[test]
    fn gpus_need_a_list_that_can_be_read_and_a_program_that_gives_them() {
        let file = std::env::temp_dir().join(format!("ecsd-gpus-{}.json", std::process::id()));
        let config = Config {
            gpu_support: true,
            gpu_info: file.clone(),
            nvidia_runtime: "true".into(),
            ..Config::default()
        };
        let ids = |config: &Config| gpus(config).map(|found| found.ids);
        assert_eq!(ids(&config).unwrap(), Vec::<String>::new());
        std::fs::write(&file, "no json").unwrap();
        assert_eq!(ids(&config).unwrap_err().code, FAILED);
        assert!(ids(&Config { gpu_support: false, ..config.clone() }).is_ok(), "not asked for");
        std::fs::write(&file, r#"{"DriverVersion":"535.1","GPUIDs":["GPU-a"]}"#).unwrap();
        assert_eq!(ids(&config).unwrap(), ["GPU-a"]);
        let without = Config { nvidia_runtime: "no-such-program".into(), ..config };
        assert_eq!(ids(&without).unwrap(), Vec::<String>::new());
        std::fs::remove_file(&file).unwrap();
    }

    #[test]
    fn what_is_said_wins_over_the_routes() {
        let nowhere = Path::new("/nonexistent");
        assert!(!ipv6_only(&Config::default(), nowhere));
        assert!(ipv6_only(&Config { ipv6_only: Some(true), ..Config::default() }, nowhere));
    }
}
