//! What was asked of one container, merged: the typed values that `merge` fills and the pure
//! builders of `spec` read. Only data.

use super::health::HealthSettings;
use super::mounts::{Bind, MountRequest, SharedFrom};
use crate::containerd::spec::seccomp_profile::SeccompProfile;
use crate::model::LogSettings;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::PathBuf;

/// Everything that was asked of one container, merged.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ContainerSettings {
    /// Host name; the short id of the container where not said.
    pub hostname: Option<String>,
    /// NIS domain name.
    pub domainname: Option<String>,
    /// `user[:group]`, in place of the image's.
    pub user: Option<String>,
    /// Environment of the task definition; wins over the image's.
    pub environment: BTreeMap<String, String>,
    /// Variables named without a value: not even the image's are set.
    pub unset_environment: Vec<String>,
    /// The document has an environment, which takes the place of the agent's variables too.
    pub environment_is_whole: bool,
    /// In place of the image's Entrypoint, and of its Cmd.
    pub entry_point: Option<Vec<String>>,
    /// In place of the image's Cmd.
    pub command: Option<Vec<String>>,
    /// In place of the image's working directory.
    pub working_dir: Option<String>,
    /// `dockerLabels`.
    pub labels: BTreeMap<String, String>,
    /// In place of the image's stop signal.
    pub stop_signal: Option<String>,
    /// Its health check.
    pub health: Option<HealthSettings>,
    /// In place of the shell in which a health check's line is run.
    pub shell: Vec<String>,
    /// A pseudo terminal was asked for.
    pub tty: bool,
    /// An open standard input was asked for.
    pub open_stdin: bool,
    /// A network namespace with nothing but the loopback, whatever the task's mode.
    pub network_disabled: bool,
    /// Limits and weights.
    pub resources: ResourceSettings,
    /// Added capabilities, by normalised name.
    pub cap_add: Vec<&'static str>,
    /// Dropped capabilities, by normalised name.
    pub cap_drop: Vec<&'static str>,
    /// All of the host.
    pub privileged: bool,
    /// The root file system is read-only.
    pub read_only_rootfs: bool,
    /// Binds of the document, in place of the mount points, where it has any.
    pub binds: Option<Vec<Bind>>,
    /// Mounts of the document, beside them.
    pub mounts: Vec<MountRequest>,
    /// Whose mounts it shares by the document, in place of the task definition's, where it says so.
    pub volumes_from: Option<Vec<SharedFrom>>,
    /// Driver of the volumes that are named nowhere else.
    pub volume_driver: Option<String>,
    /// Paths of anonymous volumes, beside those that the image declares.
    pub volumes: Vec<String>,
    /// tmpfs mounts: options by path.
    pub tmpfs: BTreeMap<String, String>,
    /// Size of /dev/shm in bytes.
    pub shm_bytes: u64,
    /// Kernel parameters.
    pub sysctls: BTreeMap<String, String>,
    /// Resource limits of the process.
    pub ulimits: Vec<Ulimit>,
    /// Devices of the host.
    pub devices: Vec<DeviceRequest>,
    /// What else may be opened, by device numbers.
    pub device_rules: Vec<DeviceRule>,
    /// Name servers, in place of the host's.
    pub dns: Vec<String>,
    /// Search domains, in place of the host's.
    pub dns_search: Vec<String>,
    /// Resolver options, in place of the host's.
    pub dns_options: Vec<String>,
    /// `name:address` lines for /etc/hosts.
    pub extra_hosts: Vec<(String, String)>,
    /// Supplementary groups.
    pub groups: Vec<String>,
    /// Executed programs gain no privileges.
    pub no_new_privileges: bool,
    /// Which system calls it may make.
    pub seccomp: SeccompChoice,
    /// AppArmor profile, in place of Docker's; `unconfined` is none.
    pub apparmor: Option<String>,
    /// SELinux label.
    pub selinux: SelinuxChoice,
    /// Hidden paths, in place of Docker's.
    pub masked_paths: Option<Vec<String>>,
    /// Read-only paths, in place of Docker's.
    pub readonly_paths: Option<Vec<String>>,
    /// Which of the host's namespaces it shares.
    pub namespaces: NamespaceSettings,
    /// A process of ours is PID 1 and reaps what the container's own leaves behind.
    pub init: bool,
    /// Docker's name of the runtime, in place of the default.
    pub runtime: Option<String>,
    /// Bias of the kernel's OOM killer.
    pub oom_score_adj: i32,
    /// Where its output goes.
    pub log: Option<LogSettings>,
    /// What was asked and is not done, for the log.
    pub warnings: Vec<String>,
}

/// Stands in `extra_hosts` for the host's address on the bridge.
pub const HOST_GATEWAY: &str = "host-gateway";

impl ContainerSettings {
    /// Puts the host's address on the bridge where `extra_hosts` asks for it. False where there is
    /// none to put.
    #[must_use]
    pub fn resolve_gateway(&mut self, gateway: Option<Ipv4Addr>) -> bool {
        let asked = self.extra_hosts.iter_mut().filter(|(_, address)| address == HOST_GATEWAY);
        asked.fold(true, |all, (_, address)| match gateway {
            Some(gateway) => {
                *address = gateway.to_string();
                all
            }
            None => false,
        })
    }
}

/// Limits and weights. `None` is no limit of its own.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ResourceSettings {
    /// Hard memory limit in bytes.
    pub memory_bytes: Option<u64>,
    /// Soft memory limit in bytes.
    pub memory_reservation_bytes: Option<u64>,
    /// Memory and swap together in bytes; -1 is no limit.
    pub memory_swap_bytes: Option<i64>,
    /// 0 to 100.
    pub memory_swappiness: Option<u64>,
    /// Relative weight, 2 to 262144.
    pub cpu_shares: Option<u64>,
    /// Relative weight of block I/O, 10 to 1000.
    pub blkio_weight: Option<u16>,
    /// CFS period in microseconds.
    pub cpu_period_us: Option<u64>,
    /// CFS quota in microseconds.
    pub cpu_quota_us: Option<i64>,
    /// CPUs, as `0-2,4`.
    pub cpuset_cpus: Option<String>,
    /// Memory nodes, as `0,1`.
    pub cpuset_mems: Option<String>,
    /// Most processes and threads.
    pub pids: Option<i64>,
    /// At the memory limit the container waits, where it would else be killed.
    pub oom_kill_disable: bool,
}

impl ResourceSettings {
    /// Puts the task's memory limit where the container has none of its own. On cgroup v1 programs see
    /// the task's by themselves.
    pub fn within_task(&mut self, task_mib: Option<u64>, unified: bool) {
        let task = task_mib.filter(|mib| *mib > 0 && unified);
        self.memory_bytes = self.memory_bytes.or(task.map(|mib| mib.saturating_mul(1024 * 1024)));
    }
}

/// A resource limit of the process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ulimit {
    /// Docker's name: `nofile`, `nproc`...
    pub name: String,
    /// Soft limit; -1 is none.
    pub soft: i64,
    /// Hard limit; -1 is none.
    pub hard: i64,
}

/// A device of the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceRequest {
    /// Path on the host; a directory stands for all devices below it.
    pub host_path: String,
    /// Path in the container.
    pub container_path: String,
    /// Letters of `rwm`.
    pub permissions: String,
}

/// A rule of the devices cgroup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceRule {
    /// `a` (all), `b` or `c`.
    pub kind: char,
    /// Major number; `None` is any.
    pub major: Option<i64>,
    /// Minor number; `None` is any.
    pub minor: Option<i64>,
    /// Letters of `rwm`.
    pub permissions: String,
}

/// Which seccomp filter a container gets.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum SeccompChoice {
    /// Docker's; none where privileged.
    #[default]
    Default,
    /// None.
    Unconfined,
    /// One of its own.
    Profile(Box<SeccompProfile>),
}

/// Parts of an SELinux label that were asked for, and whether there is one at all.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SelinuxChoice {
    /// No label.
    pub disabled: bool,
    /// In place of the default's user.
    pub user: Option<String>,
    /// In place of the default's role.
    pub role: Option<String>,
    /// In place of the default's type.
    pub domain: Option<String>,
    /// In place of the default's type of files.
    pub file_type: Option<String>,
    /// In place of a level of its own.
    pub level: Option<String>,
}

/// Namespaces that are not the container's own.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NamespaceSettings {
    /// Whose processes it sees.
    pub pid: PidChoice,
    /// Has the host's name.
    pub host_uts: bool,
    /// Which System V objects and POSIX queues it sees.
    pub ipc: IpcChoice,
    /// Has a cgroup namespace of its own; `None` is Docker's default for the host.
    pub own_cgroup: Option<bool>,
}

impl NamespaceSettings {
    /// The process whose namespaces are joined.
    pub fn joined(&self) -> Option<u32> {
        match (self.pid, &self.ipc) {
            (PidChoice::Of(pid), _) => Some(pid),
            (_, IpcChoice::Of { pid, .. }) => Some(*pid),
            _ => None,
        }
    }
}

/// Which PID namespace a container has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PidChoice {
    /// One of its own.
    #[default]
    Own,
    /// The host's.
    Host,
    /// That of a process, by its number on the host.
    Of(u32),
}

/// Which IPC namespace a container has.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum IpcChoice {
    /// One of its own.
    #[default]
    Own,
    /// One of its own, without /dev/shm.
    OwnWithoutShm,
    /// The host's.
    Host,
    /// That of a process.
    Of {
        /// By its number on the host.
        pid: u32,
        /// What is /dev/shm in it.
        shm: PathBuf,
    },
}
