//! Counters on cgroup v2: one directory for all.

use super::usage::{Scratch, optional, value_of};
use crate::model::{BlockEntry, BlockUsage, CpuUsage, MemoryUsage, PidsUsage, Usage};
use std::io;
use std::path::PathBuf;

/// Where the files are.
#[derive(Debug)]
pub(super) struct V2Files {
    directory: PathBuf,
}

impl V2Files {
    pub(super) fn new(directory: PathBuf) -> Self {
        Self { directory }
    }

    pub(super) fn read(&self, files: &mut Scratch) -> io::Result<Usage> {
        let directory = &self.directory;
        let cpu = cpu(files.read(directory, "cpu.stat")?).ok_or_else(|| files.unreadable())?;
        let usage = files.number(directory, "memory.current")?.unwrap_or_default();
        let limit = files.number(directory, "memory.max")?;
        let stat = files.read(directory, "memory.stat")?;
        let (reclaimable, stat) = (value_of(stat, "inactive_file"), stat.to_owned());
        let reclaimable = reclaimable.ok_or_else(|| files.unreadable())?;
        let memory = MemoryUsage { usage, reclaimable, limit, max_usage: None, failures: None, stat };
        // Controllers that were not enabled for the task have no files.
        let block_io = optional(files.read(directory, "io.stat"))?.map(block);
        let pids = match optional(files.number(directory, "pids.current"))? {
            Some(current) => Some(PidsUsage {
                current: current.unwrap_or_default(),
                limit: files.number(directory, "pids.max")?,
            }),
            None => None,
        };
        Ok(Usage { cpu, memory, block_io, pids, ..Usage::default() })
    }
}

/// `cpu.stat`. Without the cpu controller it has no periods.
fn cpu(text: &str) -> Option<CpuUsage> {
    let ns = |name| value_of(text, name).map(|us| us.saturating_mul(1000));
    let count = |name| value_of(text, name).unwrap_or_default();
    Some(CpuUsage {
        total_ns: ns("usage_usec")?,
        user_ns: ns("user_usec").unwrap_or_default(),
        system_ns: ns("system_usec").unwrap_or_default(),
        per_cpu_ns: Vec::new(),
        periods: count("nr_periods"),
        throttled_periods: count("nr_throttled"),
        throttled_ns: ns("throttled_usec").unwrap_or_default(),
        host_ns: 0,
        host_cpus: 0,
    })
}

/// `io.stat`: lines `<major>:<minor> rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6`.
fn block(text: &str) -> BlockUsage {
    let mut found = BlockUsage::default();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let device = words.next().and_then(|device| {
            let (major, minor) = device.split_once(':')?;
            Some((major.parse().ok()?, minor.parse().ok()?))
        });
        let Some((major, minor)) = device else { continue };
        for (name, value) in words.filter_map(|word| word.split_once('=')) {
            let (list, operation) = match name {
                "rbytes" => (&mut found.bytes, "read"),
                "wbytes" => (&mut found.bytes, "write"),
                "rios" => (&mut found.operations, "read"),
                "wios" => (&mut found.operations, "write"),
                _ => continue,
            };
            if let Ok(value) = value.parse() {
                list.push(BlockEntry { major, minor, operation, value });
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    const CPU: &str = "usage_usec 2500000\nuser_usec 2000000\nsystem_usec 500000\nnr_periods 10\n\
                       nr_throttled 3\nthrottled_usec 42\nnr_bursts 0\nburst_usec 0\n";
    const IO: &str = "259:0 rbytes=4096 wbytes=8192 rios=1 wios=2 dbytes=0 dios=0\n8:0\nx rbytes=9\n\
                      8:16 rbytes=1 wbytes=no rios=1 wios=0\n";
    const MEMORY: &str = "anon 1000\nfile 500\nkernel 10\ninactive_anon 1\nactive_anon 999\n\
                          inactive_file 300\nactive_file 200\n";

    /// Files of Linux 6.1, as tests/lab/virtual-host.py left them.
    #[test]
    fn a_real_kernels_files_are_read() {
        let directory = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/cgroup2");
        let usage = V2Files::new(directory).read(&mut Scratch::default()).unwrap();
        assert_eq!((usage.cpu.total_ns, usage.cpu.system_ns), (17_817_249_000, 3_987_246_000));
        assert_eq!((usage.cpu.user_ns, usage.cpu.periods), (13_830_003_000, 0));
        // 8 MiB of what was written can be reclaimed; 40 MiB of shared memory can't.
        assert_eq!((usage.memory.usage, usage.memory.working_set()), (50_917_376, 50_917_376 - (8 << 20)));
        assert_eq!(usage.memory.limit, None);
        assert_eq!(usage.memory.details().find(|(name, _)| *name == "shmem"), Some(("shmem", 40 << 20)));
        assert_eq!(usage.block_io.as_ref().map(BlockUsage::totals), Some((0, 8 << 20)));
        let device = usage.block_io.unwrap().operations[1].clone();
        assert_eq!((device.major, device.minor, device.operation, device.value), (259, 0, "write", 16));
        assert_eq!(usage.pids, Some(PidsUsage { current: 1, limit: Some(1157) }));
    }

    #[test]
    fn a_container_is_read_with_what_its_kernel_keeps() {
        let directory = std::env::temp_dir().join(format!("ecsd-cgroup2-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let write = |name: &str, text: &str| fs::write(directory.join(name), text).unwrap();
        write("cpu.stat", CPU);
        write("memory.current", "1500\n");
        write("memory.max", "max\n");
        write("memory.stat", MEMORY);
        let (files, mut scratch) = (V2Files::new(directory.clone()), Scratch::default());
        let usage = files.read(&mut scratch).unwrap();
        assert_eq!((usage.block_io, usage.pids), (None, None));
        assert_eq!((usage.memory.working_set(), usage.memory.limit), (1200, None));
        assert_eq!(
            usage.memory.details().find(|(name, _)| *name == "active_file"),
            Some(("active_file", 200))
        );
        assert_eq!(
            (usage.cpu.total_ns, usage.cpu.user_ns, usage.cpu.system_ns),
            (2_500_000_000, 2_000_000_000, 500_000_000)
        );
        assert_eq!((usage.cpu.periods, usage.cpu.throttled_periods, usage.cpu.throttled_ns), (10, 3, 42_000));
        write("io.stat", IO);
        write("pids.current", "3\n");
        write("pids.max", "100\n");
        write("memory.max", "2048\n");
        let usage = files.read(&mut scratch).unwrap();
        assert_eq!(usage.pids, Some(PidsUsage { current: 3, limit: Some(100) }));
        assert_eq!(usage.block_io.as_ref().map(BlockUsage::totals), Some((4097, 8192)));
        assert_eq!(usage.block_io.unwrap().operations.len(), 4);
        assert_eq!(usage.memory.limit, Some(2048));

        write("memory.current", "much\n");
        let error = files.read(&mut scratch).unwrap_err().to_string();
        assert!(error.contains("memory.current") && error.contains("much"), "{error}");
        write("cpu.stat", "nothing\n");
        assert!(files.read(&mut scratch).is_err());
        fs::remove_dir_all(&directory).unwrap();
        assert_eq!(files.read(&mut scratch).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
