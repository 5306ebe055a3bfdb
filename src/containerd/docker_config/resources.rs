//! Limits and weights of `hostConfig`, and the checks that dockerd makes across them. Pure.

use super::LEAST_MEMORY_BYTES;
use super::settings::ResourceSettings;
use crate::containerd::json::{Document, ValueError};

/// A weight within the kernel's range of `cpu.shares`.
pub(super) fn cpu_shares(asked: u64) -> u64 {
    asked.clamp(2, 262_144)
}

/// One of the keys of limits over what is there.
///
/// # Errors
/// Values out of range.
pub(super) fn merge(into: &mut ResourceSettings, host: &Document<'_>, key: &str) -> Result<(), ValueError> {
    let some = |value: Option<u64>| value.filter(|v| *v > 0);
    match key {
        // `null` leaves these two as the task definition's own fields say.
        "memory" => {
            if let Some(bytes) = host.unsigned(key)? {
                into.memory_bytes = some(Some(bytes));
            }
        }
        "cpushares" => {
            if let Some(shares) = host.unsigned(key)? {
                into.cpu_shares = some(Some(shares)).map(cpu_shares);
            }
        }
        "memoryreservation" => into.memory_reservation_bytes = some(host.unsigned(key)?),
        "memoryswap" => {
            let value = host.signed(key)?.filter(|v| *v != 0);
            if value.is_some_and(|v| v < -1) {
                return Err(host.wrong(key, "a number of bytes, or -1"));
            }
            into.memory_swap_bytes = value;
        }
        "memoryswappiness" => {
            // Docker's -1 is "as the host".
            let value = host.signed(key)?.filter(|v| *v != -1);
            let fit = value.map(|v| u64::try_from(v).ok().filter(|v| *v <= 100));
            into.memory_swappiness = match fit {
                Some(None) => return Err(host.wrong(key, "a number from 0 to 100")),
                other => other.flatten(),
            };
        }
        "cpuperiod" => {
            let value = some(host.unsigned(key)?);
            if value.is_some_and(|v| !(1000..=1_000_000).contains(&v)) {
                return Err(host.wrong(key, "microseconds from 1000 to 1000000"));
            }
            into.cpu_period_us = value;
        }
        "cpuquota" => {
            let value = host.signed(key)?.filter(|v| *v != 0);
            if value.is_some_and(|v| v > 0 && v < 1000) {
                return Err(host.wrong(key, "at least 1000 microseconds"));
            }
            into.cpu_quota_us = value;
        }
        "nanocpus" => {
            if let Some(nano) = some(host.unsigned(key)?) {
                into.cpu_period_us = Some(100_000);
                into.cpu_quota_us = Some(i64::try_from(nano / 10_000).unwrap_or(i64::MAX));
            }
        }
        "cpusetcpus" => into.cpuset_cpus = cpu_set(host, key)?,
        "cpusetmems" => into.cpuset_mems = cpu_set(host, key)?,
        "pidslimit" => into.pids = host.signed(key)?.filter(|v| *v > 0),
        "blkioweight" => {
            let value = some(host.unsigned(key)?);
            let fit = value.map(|v| u16::try_from(v).ok().filter(|v| (10..=1000).contains(v)));
            into.blkio_weight = match fit {
                Some(None) => return Err(host.wrong(key, "a weight from 10 to 1000")),
                other => other.flatten(),
            };
        }
        "oomkilldisable" => into.oom_kill_disable = host.flag(key)?,
        _ => {}
    }
    Ok(())
}

fn cpu_set(host: &Document<'_>, key: &str) -> Result<Option<String>, ValueError> {
    let number = |text: &str| !text.is_empty() && text.parse::<u16>().is_ok();
    let range = |text: &str| match text.split_once('-') {
        Some((first, last)) => number(first) && number(last),
        None => number(text),
    };
    let text = host.text(key)?;
    match text.as_ref().is_none_or(|text| text.split(',').all(range)) {
        true => Ok(text),
        false => Err(host.wrong(key, "numbers and ranges, such as 0-2,4")),
    }
}

/// What dockerd checks across keys.
///
/// # Errors
/// Limits that contradict one another or are too low to start with.
pub(super) fn check(resources: &ResourceSettings, host: &Document<'_>) -> Result<(), ValueError> {
    let least = |bytes: u64| bytes >= LEAST_MEMORY_BYTES && i64::try_from(bytes).is_ok();
    if resources.memory_reservation_bytes.is_some_and(|soft| !least(soft)) {
        return Err(host.wrong("memoryreservation", "at least 6291456 bytes (6 MiB)"));
    }
    let swap = resources.memory_swap_bytes.and_then(|swap| u64::try_from(swap).ok());
    let Some(memory) = resources.memory_bytes else {
        return match swap {
            Some(_) => Err(host.wrong("memoryswap", "a memory limit beside it (it counts memory and swap)")),
            None => Ok(()),
        };
    };
    if !least(memory) {
        return Err(host.wrong("memory", "at least 6291456 bytes (6 MiB)"));
    }
    if resources.memory_reservation_bytes.is_some_and(|soft| soft > memory) {
        return Err(host.wrong("memoryreservation", "not more than the hard limit"));
    }
    if swap.is_some_and(|swap| swap < memory) {
        return Err(host.wrong("memoryswap", "at least the memory limit (it counts memory and swap)"));
    }
    Ok(())
}
