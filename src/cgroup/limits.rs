//! What a task's cgroup is limited to (spec/task-engine.md 1.13). Pure.

use crate::model::TaskSpec;

/// Length of a CFS period.
const PERIOD_US: u64 = 100_000;
/// What the kernel takes for shares.
const SHARES: std::ops::RangeInclusive<u64> = 2..=262_144;

/// Limits of one task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TaskLimits {
    /// Microseconds of CPU time in each period of that many, where the task has a CPU limit.
    pub cpu_quota_us: Option<(i64, u64)>,
    /// Weight, where it has none.
    pub cpu_shares: u64,
    /// Bytes, where the task has a memory limit.
    pub memory_bytes: Option<i64>,
}

impl TaskLimits {
    /// A task with a CPU limit gets a quota; one without shares CPU by the sum of its containers'
    /// shares, each of which counts at least the kernel's minimum.
    pub fn of(spec: &TaskSpec) -> Self {
        let quota = |units: u64| i64::try_from(units.saturating_mul(PERIOD_US) / 1024).unwrap_or(i64::MAX);
        let sum =
            spec.containers.iter().fold(0u64, |sum, c| sum.saturating_add(c.cpu_shares.max(*SHARES.start())));
        let bytes = |mib: u64| i64::try_from(mib.saturating_mul(1024 * 1024)).unwrap_or(i64::MAX);
        Self {
            cpu_quota_us: spec.cpu.filter(|units| *units > 0).map(|units| (quota(units), PERIOD_US)),
            cpu_shares: sum.clamp(*SHARES.start(), *SHARES.end()),
            memory_bytes: spec.memory_mib.filter(|mib| *mib > 0).map(bytes),
        }
    }
}
