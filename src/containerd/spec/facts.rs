//! What of the host the OCI spec depends on. Read once at start; the builder only looks at it.

use std::path::{Path, PathBuf};

/// The layout of the cgroup file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CgroupVersion {
    /// One hierarchy for each controller (also the hybrid form).
    V1,
    /// The unified hierarchy.
    V2,
}

/// What there is of AppArmor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AppArmor {
    /// The kernel has none, or it is off.
    Absent,
    /// It is on; Docker's profile is not loaded.
    WithoutDefault,
    /// It is on, and has Docker's profile.
    WithDefault,
}

/// The policy's labels for containers; the level of each container takes the place of theirs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SelinuxContexts {
    /// Of processes, such as `system_u:system_r:container_t:s0`.
    pub process: String,
    /// Of files, such as `system_u:object_r:container_file_t:s0`.
    pub file: String,
}

/// Facts of the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostFacts {
    /// Kernel version, major and minor.
    pub kernel: (u32, u32),
    /// Which cgroup layout it has.
    pub cgroups: CgroupVersion,
    /// Architecture by Go's name: `amd64`, `arm64`.
    pub arch: &'static str,
    /// Capabilities that this host can give at all, one bit each (`CapBnd` of /proc/self/status).
    pub bounding: u64,
    /// The hard limit of open files here: more can't be given without CAP_SYS_RESOURCE.
    pub nofile_hard: u64,
    /// The kernel can limit swap.
    pub swap_limit: bool,
    /// Block I/O can be weighed.
    pub blkio_weight: bool,
    /// CPUs, as numbered in /sys/devices/system/cpu, that show a thermal_throttle directory.
    pub throttle_cpus: Vec<u32>,
    /// The kernel can filter system calls.
    pub seccomp: bool,
    /// AppArmor.
    pub apparmor: AppArmor,
    /// SELinux, where containers get labels.
    pub selinux: Option<SelinuxContexts>,
    /// The program of ours that runs another and reaps what it leaves behind, where it could be written.
    pub init: Option<PathBuf>,
}

const CAP_SYS_RESOURCE: u32 = 24;

impl HostFacts {
    /// Reads them. What can't be read is taken as absent: the least is then given to containers. The
    /// init program is not the host's to have.
    pub fn read() -> Self {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let release = nix::sys::utsname::uname()
            .map(|u| u.release().to_string_lossy().into_owned())
            .unwrap_or_default();
        let cgroups = match Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
            true => CgroupVersion::V2,
            false => CgroupVersion::V1,
        };
        let nofile_hard = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE)
            .map_or(1024, |(_, hard)| hard);
        Self {
            kernel: parse_release(&release),
            cgroups,
            arch: go_arch(std::env::consts::ARCH),
            bounding: parse_bounding(&status),
            nofile_hard,
            swap_limit: swap_limit(cgroups),
            blkio_weight: blkio_weight(cgroups),
            throttle_cpus: throttle_cpus(),
            seccomp: status.lines().any(|line| line.starts_with("Seccomp:")),
            apparmor: apparmor(),
            // Asked for by configuration alone: labels shut a container out of directories of the
            // host that were not relabelled.
            selinux: None,
            init: None,
        }
    }

    /// The host may raise limits past the agent's own.
    pub fn can_raise_limits(&self) -> bool {
        self.bounding & (1 << CAP_SYS_RESOURCE) != 0
    }

    /// An ordinary host: Linux 6.1 on amd64, cgroup v2, every capability.
    #[cfg(test)]
    pub fn for_tests() -> Self {
        Self {
            kernel: (6, 1),
            cgroups: CgroupVersion::V2,
            arch: "amd64",
            bounding: (1 << 41) - 1,
            nofile_hard: 1 << 20,
            swap_limit: true,
            blkio_weight: true,
            throttle_cpus: Vec::new(),
            seccomp: true,
            apparmor: AppArmor::Absent,
            selinux: None,
            init: None,
        }
    }
}

/// Swap can be limited where the file for it is there. On v2 the root has none: any child shows.
fn swap_limit(cgroups: CgroupVersion) -> bool {
    match cgroups {
        CgroupVersion::V1 => Path::new("/sys/fs/cgroup/memory/memory.memsw.limit_in_bytes").exists(),
        CgroupVersion::V2 => own_cgroup().join("memory.swap.max").exists(),
    }
}

/// Weights of block I/O: of the kernel's own, or of the BFQ scheduler, which the OCI runtime falls back
/// to.
fn blkio_weight(cgroups: CgroupVersion) -> bool {
    let names = match cgroups {
        // The root has no weight of BFQ's, but its counters.
        CgroupVersion::V1 => ["blkio.weight", "blkio.bfq.io_serviced"],
        CgroupVersion::V2 => ["io.weight", "io.bfq.weight"],
    };
    let directory = match cgroups {
        CgroupVersion::V1 => PathBuf::from("/sys/fs/cgroup/blkio"),
        CgroupVersion::V2 => own_cgroup(),
    };
    names.into_iter().any(|name| directory.join(name).exists())
}

/// The agent's own cgroup on v2.
fn own_cgroup() -> PathBuf {
    let own = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let path = own.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or("/");
    Path::new("/sys/fs/cgroup").join(path.trim_start_matches('/'))
}

/// Reads it now.
pub(in crate::containerd) fn apparmor() -> AppArmor {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let name = |line: &str| line.split(" (").next() == Some(super::confinement::DEFAULT_PROFILE);
    match read("/sys/module/apparmor/parameters/enabled").starts_with('Y') {
        false => AppArmor::Absent,
        true if read("/sys/kernel/security/apparmor/profiles").lines().any(name) => AppArmor::WithDefault,
        true => AppArmor::WithoutDefault,
    }
}

fn throttle_cpus() -> Vec<u32> {
    let Ok(entries) = std::fs::read_dir("/sys/devices/system/cpu") else { return Vec::new() };
    let number = |name: &std::ffi::OsStr| name.to_str()?.strip_prefix("cpu")?.parse::<u32>().ok();
    let mut cpus: Vec<u32> = entries
        .flatten()
        .filter(|entry| entry.path().join("thermal_throttle").is_dir())
        .filter_map(|entry| number(&entry.file_name()))
        .collect();
    cpus.sort_unstable();
    cpus
}

/// Major and minor number of a kernel version; what is missing is 0.
pub(super) fn parse_release(release: &str) -> (u32, u32) {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|n| n.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

fn parse_bounding(status: &str) -> u64 {
    let value = status.lines().find_map(|line| line.strip_prefix("CapBnd:"));
    value.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).unwrap_or(0)
}

fn go_arch(arch: &'static str) -> &'static str {
    match arch {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_the_kernel_are_read() {
        assert_eq!(parse_release("6.18.44-fc-v657"), (6, 18));
        assert_eq!(parse_release(""), (0, 0));
        assert_eq!(parse_bounding("Name:\tx\nCapBnd:\t000001fffeffffff\n"), 0x1ff_feff_ffff);
        assert_eq!(parse_bounding("junk"), 0);
    }

    #[test]
    fn this_host_has_facts() {
        let facts = HostFacts::read();
        assert!(facts.kernel > (3, 0) && facts.bounding != 0 && facts.nofile_hard > 0);
    }
}
