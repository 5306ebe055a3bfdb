//! The `linux` part of the spec: namespaces, cgroup limits, devices, masks, sysctls. Pure.

use super::facts::{CgroupVersion, HostFacts};
use super::{SpecError, SpecInput, mounts, seccomp};
use crate::containerd::docker_config::ResourceSettings;
use crate::ports::NetworkAttachment;
use oci_spec::OciSpecError;
use oci_spec::runtime::{
    Linux, LinuxBuilder, LinuxCpuBuilder, LinuxDevice, LinuxDeviceBuilder, LinuxDeviceCgroup,
    LinuxDeviceCgroupBuilder, LinuxDeviceType, LinuxMemoryBuilder, LinuxNamespace, LinuxNamespaceBuilder,
    LinuxNamespaceType, LinuxPidsBuilder, LinuxResources, LinuxResourcesBuilder,
};
use std::collections::HashMap;

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

/// zero, null, urandom, random, tty, console: what Docker allows in every container.
const DEFAULT_DEVICES: [(i64, i64); 6] = [(1, 5), (1, 3), (1, 9), (1, 8), (5, 0), (5, 1)];

/// Puts it together for a process with these capabilities.
///
/// # Errors
/// A sysctl that belongs to the host.
pub fn linux(input: &SpecInput<'_>, capabilities: &[&'static str]) -> Result<Linux, SpecError> {
    let settings = input.settings;
    let mut builder = LinuxBuilder::default()
        .sysctl(sysctls(input)?)
        .resources(resources(input)?)
        .cgroups_path(&input.plan.cgroup)
        .namespaces(namespaces(input)?)
        .devices(input.devices.iter().map(device).collect::<Result<Vec<_>, _>>()?);
    if let Some(propagation) = mounts::rootfs_propagation(input.binds) {
        builder = builder.rootfs_propagation(propagation);
    }
    let filtered = !settings.privileged && !settings.seccomp_unconfined;
    if filtered {
        builder = builder.seccomp(seccomp::profile(capabilities, input.host)?);
    }
    let hidden = if settings.privileged { Vec::new() } else { masked(input.host) };
    let fixed: &[&str] = if settings.privileged { &[] } else { &READ_ONLY };
    Ok(builder
        .masked_paths(hidden)
        .readonly_paths(fixed.iter().map(|p| (*p).to_owned()).collect::<Vec<_>>())
        .build()?)
}

fn masked(host: &HostFacts) -> Vec<String> {
    let throttle = |cpu: &u32| format!("/sys/devices/system/cpu/cpu{cpu}/thermal_throttle");
    MASKED.iter().map(|p| (*p).to_owned()).chain(host.throttle_cpus.iter().map(throttle)).collect()
}

fn namespaces(input: &SpecInput<'_>) -> Result<Vec<LinuxNamespace>, OciSpecError> {
    let own = |kind| LinuxNamespaceBuilder::default().typ(kind).build();
    let mut all = vec![
        own(LinuxNamespaceType::Mount)?,
        own(LinuxNamespaceType::Uts)?,
        own(LinuxNamespaceType::Pid)?,
        own(LinuxNamespaceType::Ipc)?,
    ];
    if let NetworkAttachment::Namespace { path, .. } = &input.plan.network {
        all.push(
            LinuxNamespaceBuilder::default().typ(LinuxNamespaceType::Network).path(path.clone()).build()?,
        );
    }
    if input.host.cgroups == CgroupVersion::V2 {
        all.push(own(LinuxNamespaceType::Cgroup)?);
    }
    Ok(all)
}

/// The task definition's, and Docker's two for a network of one's own.
fn sysctls(input: &SpecInput<'_>) -> Result<HashMap<String, String>, SpecError> {
    let asked = &input.settings.sysctls;
    let mut all = HashMap::new();
    if let Some(domain) = &input.settings.domainname {
        // runc before 1.2 doesn't know the spec's own field; the sysctl serves every version.
        all.insert("kernel.domainname".to_owned(), domain.clone());
    }
    match input.plan.network {
        NetworkAttachment::Host => {
            if let Some(name) = asked.keys().find(|name| name.starts_with("net.")) {
                return Err(SpecError::HostSysctl(name.clone()));
            }
        }
        NetworkAttachment::Namespace { .. } => {
            all.insert("net.ipv4.ping_group_range".to_owned(), "0 2147483647".to_owned());
            all.insert("net.ipv4.ip_unprivileged_port_start".to_owned(), "0".to_owned());
        }
    }
    all.extend(asked.iter().map(|(name, value)| (name.clone(), value.clone())));
    Ok(all)
}

fn resources(input: &SpecInput<'_>) -> Result<LinuxResources, OciSpecError> {
    let asked = &input.settings.resources;
    let mut builder = LinuxResourcesBuilder::default().devices(device_rules(input)?);
    if let Some(memory) = memory(asked, input.host)? {
        builder = builder.memory(memory);
    }
    let mut cpu = LinuxCpuBuilder::default();
    if let Some(shares) = asked.cpu_shares {
        cpu = cpu.shares(shares);
    }
    if let Some(period) = asked.cpu_period_us {
        cpu = cpu.period(period);
    }
    if let Some(quota) = asked.cpu_quota_us {
        cpu = cpu.quota(quota);
    }
    if let Some(cpus) = &asked.cpuset_cpus {
        cpu = cpu.cpus(cpus.clone());
    }
    if let Some(mems) = &asked.cpuset_mems {
        cpu = cpu.mems(mems.clone());
    }
    builder = builder.cpu(cpu.build()?);
    if let Some(pids) = asked.pids {
        builder = builder.pids(LinuxPidsBuilder::default().limit(pids).build()?);
    }
    builder.build()
}

/// Memory limits; memory and swap together are twice the memory where nothing was said and the
/// kernel can limit swap at all.
fn memory(
    asked: &ResourceSettings,
    host: &HostFacts,
) -> Result<Option<oci_spec::runtime::LinuxMemory>, OciSpecError> {
    let signed = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
    let mut builder = LinuxMemoryBuilder::default();
    let mut any = false;
    if let Some(limit) = asked.memory_bytes.map(signed) {
        builder = builder.limit(limit);
        if host.swap_limit {
            builder = builder.swap(asked.memory_swap_bytes.unwrap_or(limit.saturating_mul(2)));
        }
        any = true;
    }
    if let Some(soft) = asked.memory_reservation_bytes.map(signed) {
        builder = builder.reservation(soft);
        any = true;
    }
    if let Some(swappiness) = asked.memory_swappiness.filter(|_| host.cgroups == CgroupVersion::V1) {
        builder = builder.swappiness(swappiness);
        any = true;
    }
    any.then(|| builder.build()).transpose()
}

fn device_rules(input: &SpecInput<'_>) -> Result<Vec<LinuxDeviceCgroup>, OciSpecError> {
    let all = |allow| LinuxDeviceCgroupBuilder::default().allow(allow).access("rwm").build();
    if input.settings.privileged {
        return Ok(vec![all(true)?]);
    }
    let one = |block: bool, numbers: (i64, i64), allow: bool, access: &str| {
        let kind = if block { LinuxDeviceType::B } else { LinuxDeviceType::C };
        LinuxDeviceCgroupBuilder::default()
            .allow(allow)
            .typ(kind)
            .major(numbers.0)
            .minor(numbers.1)
            .access(access)
            .build()
    };
    let mut rules = vec![all(false)?];
    for numbers in DEFAULT_DEVICES {
        rules.push(one(false, numbers, true, "rwm")?);
    }
    rules.push(one(false, (10, 229), false, "rwm")?);
    for device in input.devices {
        rules.push(one(device.block, numbers(device), true, &device.permissions)?);
    }
    Ok(rules)
}

fn numbers(device: &HostDevice) -> (i64, i64) {
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
