//! Counters on cgroup v1: one directory for each controller.

use super::usage::{Scratch, optional, value_of};
use crate::model::{BlockEntry, BlockUsage, CpuUsage, MemoryUsage, PidsUsage, Usage};
use std::io;
use std::path::PathBuf;

/// `cpuacct.stat` counts in hundredths of a second on every architecture.
const TICK_NS: u64 = 10_000_000;
/// Nothing is there: directory of a controller that is not mounted.
const NOWHERE: &str = "/sys/fs/cgroup/.none";
/// A memory limit of so much is none: the kernel writes the greatest number of whole pages.
const NO_LIMIT: u64 = 1 << 62;

/// Where the files are.
#[derive(Debug)]
pub(super) struct V1Files {
    cpuacct: PathBuf,
    cpu: PathBuf,
    memory: PathBuf,
    blkio: PathBuf,
    pids: PathBuf,
}

impl V1Files {
    /// `directory` answers the container's for a controller; `None` where that is not mounted.
    pub(super) fn new(directory: impl Fn(&str) -> Option<PathBuf>) -> Self {
        let of = |controller: &str| directory(controller).unwrap_or_else(|| PathBuf::from(NOWHERE));
        Self {
            cpuacct: of("cpuacct"),
            cpu: of("cpu"),
            memory: of("memory"),
            blkio: of("blkio"),
            pids: of("pids"),
        }
    }

    pub(super) fn read(&self, files: &mut Scratch) -> io::Result<Usage> {
        let cpu = self.cpu(files)?;
        let memory = self.memory(files)?;
        let bytes = self.block(files, "blkio.throttle.io_service_bytes_recursive")?;
        let block_io = match bytes {
            Some(bytes) => {
                let operations = self.block(files, "blkio.throttle.io_serviced_recursive")?;
                Some(BlockUsage { bytes, operations: operations.unwrap_or_default() })
            }
            None => None,
        };
        let pids = match optional(files.number(&self.pids, "pids.current"))? {
            Some(current) => Some(PidsUsage {
                current: current.unwrap_or_default(),
                limit: files.number(&self.pids, "pids.max")?,
            }),
            None => None,
        };
        Ok(Usage { cpu, memory, block_io, pids, ..Usage::default() })
    }

    fn cpu(&self, files: &mut Scratch) -> io::Result<CpuUsage> {
        let per_cpu_ns = per_cpu(files.read(&self.cpuacct, "cpuacct.usage_percpu")?);
        let per_cpu_ns = per_cpu_ns.ok_or_else(|| files.unreadable())?;
        let ticks = files.read(&self.cpuacct, "cpuacct.stat")?;
        let mode = |name| value_of(ticks, name).unwrap_or_default().saturating_mul(TICK_NS);
        let (user_ns, system_ns) = (mode("user"), mode("system"));
        let throttling = optional(files.read(&self.cpu, "cpu.stat"))?.unwrap_or_default();
        let of = |name| value_of(throttling, name).unwrap_or_default();
        Ok(CpuUsage {
            // What `cpuacct.usage` would say, too.
            total_ns: per_cpu_ns.iter().fold(0, |sum, ns| sum.saturating_add(*ns)),
            user_ns,
            system_ns,
            per_cpu_ns,
            periods: of("nr_periods"),
            throttled_periods: of("nr_throttled"),
            throttled_ns: of("throttled_time"),
            host_ns: 0,
            host_cpus: 0,
        })
    }

    fn memory(&self, files: &mut Scratch) -> io::Result<MemoryUsage> {
        let mut number = |name| files.number(&self.memory, name);
        let usage = number("memory.usage_in_bytes")?.unwrap_or_default();
        let limit = number("memory.limit_in_bytes")?.filter(|limit| *limit < NO_LIMIT);
        let max_usage = number("memory.max_usage_in_bytes")?;
        let failures = number("memory.failcnt")?;
        let stat = files.read(&self.memory, "memory.stat")?;
        // The cache of cgroups within the container counts as the usage does: with it.
        let reclaimable = value_of(stat, "total_cache").or_else(|| value_of(stat, "cache"));
        let stat = stat.to_owned();
        let reclaimable = reclaimable.ok_or_else(|| files.unreadable())?;
        Ok(MemoryUsage { usage, reclaimable, limit, max_usage, failures, stat })
    }

    fn block(&self, files: &mut Scratch, name: &str) -> io::Result<Option<Vec<BlockEntry>>> {
        Ok(optional(files.read(&self.blkio, name))?.map(block_entries))
    }
}

/// `cpuacct.usage_percpu`: one number a processor.
fn per_cpu(text: &str) -> Option<Vec<u64>> {
    let all: Vec<u64> = text.split_whitespace().map(|n| n.parse().ok()).collect::<Option<_>>()?;
    (!all.is_empty()).then_some(all)
}

/// Lines `<major>:<minor> <operation> <value>`; the sum at the end is no entry.
fn block_entries(text: &str) -> Vec<BlockEntry> {
    text.lines().filter_map(block_entry).collect()
}

fn block_entry(line: &str) -> Option<BlockEntry> {
    let mut words = line.split_whitespace();
    let (major, minor) = words.next()?.split_once(':')?;
    let operation = match words.next()? {
        "Read" => "Read",
        "Write" => "Write",
        "Sync" => "Sync",
        "Async" => "Async",
        "Discard" => "Discard",
        "Total" => "Total",
        _ => return None,
    };
    let value = words.next()?.parse().ok()?;
    Some(BlockEntry { major: major.parse().ok()?, minor: minor.parse().ok()?, operation, value })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processors_are_numbers_and_at_least_one() {
        assert_eq!(per_cpu("7420308782316 7864633390837 \n"), Some(vec![7420308782316, 7864633390837]));
        assert_eq!(per_cpu("12 x"), None);
        assert_eq!(per_cpu("\n"), None);
    }

    #[test]
    fn devices_are_told_apart_and_the_sum_is_left_out() {
        let text = "259:0 Read 4096\n259:0 Write 8192\n259:0 Sync 1\n259:0 Async 2\n259:0 Discard 0\n\
                    259:0 Total 12288\n8:16 Read 1\n8:16 Erase 3\nrubbish\nTotal 12289\n";
        let found = block_entries(text);
        assert_eq!(found.len(), 7);
        assert_eq!(found[1], BlockEntry { major: 259, minor: 0, operation: "Write", value: 8192 });
        assert_eq!(BlockUsage { bytes: found, operations: Vec::new() }.totals(), (4097, 8192));
        assert!(block_entries("Total 0\n").is_empty());
    }
}
