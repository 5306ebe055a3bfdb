//! Limits of a container's cgroup: CPU, memory, processes, devices (spec task-engine 2.3, 2.4).
//! Pure.

use super::SpecInput;
use super::facts::{CgroupVersion, HostFacts};
use super::linux::numbers;
use crate::containerd::docker_config::{DeviceRule, ResourceSettings};
use oci_spec::OciSpecError;
use oci_spec::runtime::{
    LinuxBlockIoBuilder, LinuxCpuBuilder, LinuxDeviceCgroup, LinuxDeviceCgroupBuilder, LinuxDeviceType,
    LinuxMemory, LinuxMemoryBuilder, LinuxPidsBuilder, LinuxResources, LinuxResourcesBuilder,
};

/// zero, null, urandom, random, tty, console: what Docker allows in every container.
const DEFAULT_DEVICES: [(i64, i64); 6] = [(1, 5), (1, 3), (1, 9), (1, 8), (5, 0), (5, 1)];

/// Puts them together.
///
/// # Errors
/// None in practice: every field that the builders ask for is set.
pub fn resources(input: &SpecInput<'_>) -> Result<LinuxResources, OciSpecError> {
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
    if let Some(weight) = asked.blkio_weight.filter(|_| input.host.blkio_weight) {
        builder = builder.block_io(LinuxBlockIoBuilder::default().weight(weight).build()?);
    }
    if let Some(pids) = asked.pids {
        builder = builder.pids(LinuxPidsBuilder::default().limit(pids).build()?);
    }
    builder.build()
}

/// Memory limits; memory and swap together are twice the memory where nothing was said and the
/// kernel can limit swap at all.
fn memory(asked: &ResourceSettings, host: &HostFacts) -> Result<Option<LinuxMemory>, OciSpecError> {
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
    if asked.oom_kill_disable && host.cgroups == CgroupVersion::V1 {
        builder = builder.disable_oom_killer(true);
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
    for rule in &input.settings.device_rules {
        rules.push(asked_rule(rule)?);
    }
    Ok(rules)
}

fn asked_rule(rule: &DeviceRule) -> Result<LinuxDeviceCgroup, OciSpecError> {
    let kind = match rule.kind {
        'b' => LinuxDeviceType::B,
        'c' => LinuxDeviceType::C,
        _ => LinuxDeviceType::A,
    };
    // A number that is missing is any.
    let mut builder = LinuxDeviceCgroupBuilder::default().allow(true).typ(kind).access(&rule.permissions);
    if let Some(major) = rule.major {
        builder = builder.major(major);
    }
    if let Some(minor) = rule.minor {
        builder = builder.minor(minor);
    }
    builder.build()
}
