//! Counters of a container that is restarted go on from where those of the process before had ended: to
//! whoever is told, it is one container (spec/control-plane.md 4.6). Traffic needs no such thing: the
//! network outlives the process.

use crate::model::{BlockEntry, BlockUsage, CpuUsage, Usage};

/// What the processes before the present one had used.
#[derive(Debug, Default)]
pub(super) struct Continued {
    ended: Counters,
    /// As the kernel counted them last.
    last: Counters,
}

#[derive(Debug, Default, Clone)]
struct Counters {
    cpu: CpuUsage,
    block_io: Option<BlockUsage>,
}

impl Continued {
    /// Adds it to the present one's counters. One that went back is another process's: so was all that
    /// was counted before.
    pub(super) fn add_to(&mut self, usage: &mut Usage) {
        let now = Counters { cpu: usage.cpu.clone(), block_io: usage.block_io.clone() };
        if now.cpu.total_ns < self.last.cpu.total_ns {
            let last = std::mem::take(&mut self.last);
            self.ended.add(&last);
        }
        self.last = now;
        let host = (usage.cpu.host_ns, usage.cpu.host_cpus);
        let mut sum = self.ended.clone();
        sum.add(&self.last);
        usage.cpu = CpuUsage { host_ns: host.0, host_cpus: host.1, ..sum.cpu };
        usage.block_io = sum.block_io;
    }
}

impl Counters {
    fn add(&mut self, more: &Self) {
        let (sum, cpu) = (&mut self.cpu, &more.cpu);
        for (sum, more) in [
            (&mut sum.total_ns, cpu.total_ns),
            (&mut sum.user_ns, cpu.user_ns),
            (&mut sum.system_ns, cpu.system_ns),
            (&mut sum.periods, cpu.periods),
            (&mut sum.throttled_periods, cpu.throttled_periods),
            (&mut sum.throttled_ns, cpu.throttled_ns),
        ] {
            *sum = sum.saturating_add(more);
        }
        sum.per_cpu_ns.resize(sum.per_cpu_ns.len().max(cpu.per_cpu_ns.len()), 0);
        for (sum, more) in sum.per_cpu_ns.iter_mut().zip(&cpu.per_cpu_ns) {
            *sum = sum.saturating_add(*more);
        }
        if let Some(more) = &more.block_io {
            let sum = self.block_io.get_or_insert_default();
            add_entries(&mut sum.bytes, &more.bytes);
            add_entries(&mut sum.operations, &more.operations);
        }
    }
}

fn add_entries(sum: &mut Vec<BlockEntry>, more: &[BlockEntry]) {
    for entry in more {
        let same = |e: &&mut BlockEntry| {
            (e.major, e.minor, e.operation) == (entry.major, entry.minor, entry.operation)
        };
        match sum.iter_mut().find(same) {
            Some(known) => known.value = known.value.saturating_add(entry.value),
            None => sum.push(entry.clone()),
        }
    }
}
