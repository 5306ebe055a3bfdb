//! What a container uses, as the kernel counts it: one look at its counters.

use crate::model::time::Now;

/// One look at a container's counters. Everything but memory and pids only grows while it runs.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Usage {
    /// When it was taken.
    pub at: Now,
    /// Processors.
    pub cpu: CpuUsage,
    /// Memory.
    pub memory: MemoryUsage,
    /// Block devices; `None` where the kernel counts none.
    pub block_io: Option<BlockUsage>,
    /// Processes and threads; `None` where the kernel counts none.
    pub pids: Option<PidsUsage>,
    /// Its own network interfaces; `None` where it has no network, or the host's.
    pub networks: Option<Vec<InterfaceUsage>>,
}

/// Processor time, in nanoseconds.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CpuUsage {
    /// All of it.
    pub total_ns: u64,
    /// In user mode.
    pub user_ns: u64,
    /// In kernel mode.
    pub system_ns: u64,
    /// By processor; empty on cgroup v2, which does not say.
    pub per_cpu_ns: Vec<u64>,
    /// Periods with a quota that have passed.
    pub periods: u64,
    /// Periods in which the quota was used up.
    pub throttled_periods: u64,
    /// Time spent waiting for the next period.
    pub throttled_ns: u64,
    /// Time that the host's processors have spent, idle or not, since it started; 0 where unknown.
    pub host_ns: u64,
    /// How many processors the host has; 0 where unknown.
    pub host_cpus: u32,
}

/// Memory, in bytes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MemoryUsage {
    /// All that is charged to it, the page cache included.
    pub usage: u64,
    /// What of it is taken back for the asking: the page cache on v1, inactive file pages on v2.
    pub reclaimable: u64,
    /// Its own limit; `None` where it has none.
    pub limit: Option<u64>,
    /// The most there was; v1 only.
    pub max_usage: Option<u64>,
    /// How often the limit was hit; v1 only.
    pub failures: Option<u64>,
    /// The kernel's `memory.stat`, as it wrote it: read by few, so taken apart by [`Self::details`].
    pub stat: String,
}

impl MemoryUsage {
    /// What is used in earnest. Where the kernel claims that more could be reclaimed than is used,
    /// nothing is subtracted (spec/control-plane.md 4.6).
    pub fn working_set(&self) -> u64 {
        if self.reclaimable < self.usage { self.usage - self.reclaimable } else { self.usage }
    }

    /// Names and values of `memory.stat`.
    pub fn details(&self) -> impl Iterator<Item = (&str, u64)> {
        self.stat.lines().filter_map(|line| {
            let (name, value) = line.split_once(' ')?;
            Some((name, value.trim().parse().ok()?))
        })
    }
}

/// Traffic with block devices.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct BlockUsage {
    /// Bytes, by device and direction.
    pub bytes: Vec<BlockEntry>,
    /// Operations, the same.
    pub operations: Vec<BlockEntry>,
}

impl BlockUsage {
    /// Bytes read and written, of all devices.
    pub fn totals(&self) -> (u64, u64) {
        let sum = |wanted: &str| {
            let entries = self.bytes.iter().filter(|e| e.operation.eq_ignore_ascii_case(wanted));
            entries.fold(0u64, |sum, e| sum.saturating_add(e.value))
        };
        (sum("read"), sum("write"))
    }
}

/// One counter of a block device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockEntry {
    /// Major device number.
    pub major: u64,
    /// Minor device number.
    pub minor: u64,
    /// `Read`, `Write`, `Sync`... on v1; `read`, `write` on v2.
    pub operation: &'static str,
    /// The counter.
    pub value: u64,
}

/// Processes and threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PidsUsage {
    /// How many there are.
    pub current: u64,
    /// How many there may be; `None` is no limit of its own.
    pub limit: Option<u64>,
}

/// Counters of a network interface, from the container's side.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct InterfaceUsage {
    /// Its name within the container.
    pub name: &'static str,
    /// Counters.
    pub counters: InterfaceCounters,
}

/// Counters of one network interface, or of several together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct InterfaceCounters {
    /// Bytes received.
    pub rx_bytes: u64,
    /// Packets received.
    pub rx_packets: u64,
    /// Errors in receiving.
    pub rx_errors: u64,
    /// Packets for the container that were dropped.
    pub rx_dropped: u64,
    /// Bytes sent.
    pub tx_bytes: u64,
    /// Packets sent.
    pub tx_packets: u64,
    /// Errors in sending.
    pub tx_errors: u64,
    /// Packets of the container that were dropped.
    pub tx_dropped: u64,
}

impl InterfaceCounters {
    /// Both together.
    pub fn plus(&self, other: &Self) -> Self {
        Self {
            rx_bytes: self.rx_bytes.saturating_add(other.rx_bytes),
            rx_packets: self.rx_packets.saturating_add(other.rx_packets),
            rx_errors: self.rx_errors.saturating_add(other.rx_errors),
            rx_dropped: self.rx_dropped.saturating_add(other.rx_dropped),
            tx_bytes: self.tx_bytes.saturating_add(other.tx_bytes),
            tx_packets: self.tx_packets.saturating_add(other.tx_packets),
            tx_errors: self.tx_errors.saturating_add(other.tx_errors),
            tx_dropped: self.tx_dropped.saturating_add(other.tx_dropped),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_cache_is_no_working_set_unless_that_makes_no_sense() {
        let memory = |usage, reclaimable| MemoryUsage { usage, reclaimable, ..MemoryUsage::default() };
        assert_eq!(memory(10, 4).working_set(), 6);
        assert_eq!(memory(10, 10).working_set(), 10);
        assert_eq!(memory(10, 11).working_set(), 10);
    }

    #[test]
    fn reads_and_writes_are_summed_over_devices_and_in_either_spelling() {
        let entry = |operation, value| BlockEntry { major: 8, minor: 0, operation, value };
        let bytes = vec![entry("Read", 1), entry("read", 2), entry("Write", 4), entry("Sync", 8)];
        assert_eq!(BlockUsage { bytes, operations: Vec::new() }.totals(), (3, 4));
    }
}
