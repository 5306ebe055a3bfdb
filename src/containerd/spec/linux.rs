//! The `linux` part of the spec: namespaces, device nodes, masks, the filter. Pure.

use super::facts::{CgroupVersion, HostFacts};
use super::{SpecError, SpecInput, confinement, mounts, resources, seccomp, sysctl};
use crate::containerd::docker_config::{IpcChoice, PidChoice, SeccompChoice};
use crate::ports::NetworkAttachment;
use oci_spec::OciSpecError;
use oci_spec::runtime::{
    Linux, LinuxBuilder, LinuxDevice, LinuxDeviceBuilder, LinuxDeviceType, LinuxNamespace,
    LinuxNamespaceBuilder, LinuxNamespaceType, LinuxSeccomp,
};
use std::path::PathBuf;

/// A device node to be made in a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostDevice {
    /// Path in the container.
    pub path: String,
    /// A block device; otherwise a character device.
    pub block: bool,
    /// Device number.
    pub major: u64,
    /// Device number.
    pub minor: u64,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Letters of `rwm`.
    pub permissions: String,
}

const MASKED: [&str; 12] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];
const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// Puts it together for a process with these capabilities.
///
/// # Errors
/// A sysctl that belongs to the host; a filter of one's own on a kernel without seccomp.
pub fn linux(input: &SpecInput<'_>, capabilities: &[&'static str]) -> Result<Linux, SpecError> {
    let settings = input.settings;
    let mut builder = LinuxBuilder::default()
        .sysctl(sysctl::sysctls(input)?)
        .resources(resources::resources(input)?)
        .cgroups_path(&input.plan.cgroup)
        .namespaces(namespaces(input)?)
        .devices(input.devices.iter().map(device).collect::<Result<Vec<_>, _>>()?);
    if let Some(propagation) = mounts::rootfs_propagation(input.binds) {
        builder = builder.rootfs_propagation(propagation);
    }
    if let Some(filter) = filter(input, capabilities)? {
        builder = builder.seccomp(filter);
    }
    if let Some(labels) = confinement::selinux(input) {
        builder = builder.mount_label(labels.mount);
    }
    let (hidden, fixed) = match settings.privileged {
        true => (Vec::new(), Vec::new()),
        false => (
            settings.masked_paths.clone().unwrap_or_else(|| masked(input.host)),
            settings.readonly_paths.clone().unwrap_or_else(|| READ_ONLY.map(str::to_owned).to_vec()),
        ),
    };
    Ok(builder.masked_paths(hidden).readonly_paths(fixed).build()?)
}

/// Docker's filter or one of the task definition's own. The latter holds for a privileged
/// container too.
fn filter(input: &SpecInput<'_>, capabilities: &[&str]) -> Result<Option<LinuxSeccomp>, SpecError> {
    Ok(match &input.settings.seccomp {
        SeccompChoice::Unconfined => None,
        SeccompChoice::Default if input.settings.privileged || !input.host.seccomp => None,
        SeccompChoice::Default => Some(seccomp::profile(capabilities, input.host)?),
        SeccompChoice::Profile(_) if !input.host.seccomp => return Err(SpecError::NoSeccomp),
        SeccompChoice::Profile(profile) => Some(profile.resolve(capabilities, input.host)?),
    })
}

fn masked(host: &HostFacts) -> Vec<String> {
    let throttle = |cpu: &u32| format!("/sys/devices/system/cpu/cpu{cpu}/thermal_throttle");
    MASKED.iter().map(|p| (*p).to_owned()).chain(host.throttle_cpus.iter().map(throttle)).collect()
}

fn namespaces(input: &SpecInput<'_>) -> Result<Vec<LinuxNamespace>, OciSpecError> {
    let own = |kind| LinuxNamespaceBuilder::default().typ(kind).build();
    let joined = |kind, path: PathBuf| LinuxNamespaceBuilder::default().typ(kind).path(path).build();
    let of_process = |pid: u32, name: &str| PathBuf::from(format!("/proc/{pid}/ns/{name}"));
    let shared = &input.settings.namespaces;
    let mut all = vec![own(LinuxNamespaceType::Mount)?];
    if !shared.host_uts {
        all.push(own(LinuxNamespaceType::Uts)?);
    }
    match shared.pid {
        PidChoice::Own => all.push(own(LinuxNamespaceType::Pid)?),
        PidChoice::Host => {}
        PidChoice::Of(pid) => all.push(joined(LinuxNamespaceType::Pid, of_process(pid, "pid"))?),
    }
    match &shared.ipc {
        IpcChoice::Own | IpcChoice::OwnWithoutShm => all.push(own(LinuxNamespaceType::Ipc)?),
        IpcChoice::Host => {}
        IpcChoice::Of { pid, .. } => all.push(joined(LinuxNamespaceType::Ipc, of_process(*pid, "ipc"))?),
    }
    match &input.plan.network {
        NetworkAttachment::Host => {}
        NetworkAttachment::Empty => all.push(own(LinuxNamespaceType::Network)?),
        NetworkAttachment::Namespace { path, .. } => {
            all.push(joined(LinuxNamespaceType::Network, path.clone())?);
        }
    }
    if shared.own_cgroup.unwrap_or(input.host.cgroups == CgroupVersion::V2) {
        all.push(own(LinuxNamespaceType::Cgroup)?);
    }
    Ok(all)
}

/// Major and minor number, as the spec writes them.
pub(super) fn numbers(device: &HostDevice) -> (i64, i64) {
    let signed = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    (signed(device.major), signed(device.minor))
}

fn device(device: &HostDevice) -> Result<LinuxDevice, OciSpecError> {
    let (major, minor) = numbers(device);
    LinuxDeviceBuilder::default()
        .path(&device.path)
        .typ(if device.block { LinuxDeviceType::B } else { LinuxDeviceType::C })
        .major(major)
        .minor(minor)
        .file_mode(device.mode)
        .uid(device.uid)
        .gid(device.gid)
        .build()
}
