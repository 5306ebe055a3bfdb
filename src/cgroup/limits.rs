//! The limits of a task's cgroup (spec/task-engine.md 1.13). Pure.

use super::CgroupOptions;
use crate::model::TaskSpec;

const SHARES_LEAST: u64 = 2;
const SHARES_MOST: u64 = 262_144;
const MIB: u64 = 1024 * 1024;

/// What a task may use in all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TaskLimits {
    /// CPU.
    pub(super) cpu: CpuLimit,
    /// Hard limit in bytes; `None` is none.
    pub(super) memory_bytes: Option<i64>,
    /// Processes and threads; `None` is no limit.
    pub(super) pids: Option<i64>,
    /// The period over which a CPU quota is counted, in microseconds.
    pub(super) cpu_period_us: u64,
}

/// How CPU is limited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CpuLimit {
    /// So many microseconds in each period.
    Quota {
        /// Microseconds a period.
        us: i64,
    },
    /// A weight among tasks, in v1's shares; idle CPU may be used.
    Shares(u64),
}

impl TaskLimits {
    /// The limits of a task. A task with no CPU of its own weighs what its containers weigh.
    pub(super) fn of(spec: &TaskSpec, options: &CgroupOptions) -> Self {
        // Never 0, by which the quota is scaled back.
        let cpu_period_us = u64::try_from(options.cpu_period.as_micros()).unwrap_or(u64::MAX).max(1);
        let cpu = match spec.cpu.filter(|units| *units > 0) {
            // 1024 units are one CPU. The kernel refuses less than 1 ms.
            Some(units) => {
                let us = u128::from(units) * u128::from(cpu_period_us) / 1024;
                CpuLimit::Quota { us: i64::try_from(us).unwrap_or(i64::MAX).max(1000) }
            }
            None => {
                let each = spec.containers.iter().map(|c| c.cpu_shares.clamp(SHARES_LEAST, SHARES_MOST));
                CpuLimit::Shares(each.fold(0, u64::saturating_add).clamp(SHARES_LEAST, SHARES_MOST))
            }
        };
        let bytes = |mib: u64| i64::try_from(mib.saturating_mul(MIB)).unwrap_or(i64::MAX);
        let memory_bytes = spec.memory_mib.filter(|mib| *mib > 0).map(bytes);
        Self { cpu, memory_bytes, pids: options.task_pids.map(i64::from), cpu_period_us }
    }
}

/// v1's shares as v2's weight, by runc's formula.
pub(super) fn weight(shares: u64) -> u64 {
    let shares = shares.clamp(SHARES_LEAST, SHARES_MOST);
    1 + (shares - 2) * 9999 / 262_142
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::model::*;
    use std::time::Duration;

    pub(crate) fn task(id: &str, cpu: Option<u64>, memory_mib: Option<u64>, shares: &[u64]) -> TaskSpec {
        let container = |(at, cpu_shares): (usize, &u64)| ContainerSpec {
            image: "busybox".to_owned(),
            cpu_shares: *cpu_shares,
            ..ContainerSpec::empty(&format!("c{at}"))
        };
        TaskSpec {
            family: "f".to_owned(),
            version: "1".to_owned(),
            network_mode: NetworkMode::None,
            cpu,
            memory_mib,
            containers: shares.iter().enumerate().map(container).collect(),
            volumes: vec![],
            ..TaskSpec::empty(TaskArn::parse(&format!("arn:aws:ecs:r:1:task/c/{id}")).unwrap())
        }
    }

    fn options(task_pids: Option<u32>) -> CgroupOptions {
        CgroupOptions { task_pids, ..CgroupOptions::default() }
    }

    #[test]
    fn a_task_with_cpu_gets_a_quota_and_one_without_the_weight_of_its_containers() {
        let limits = TaskLimits::of(&task("a", Some(512), Some(64), &[10]), &options(Some(100)));
        assert_eq!((limits.cpu, limits.cpu_period_us), (CpuLimit::Quota { us: 50_000 }, 100_000));
        assert_eq!((limits.memory_bytes, limits.pids), (Some(67_108_864), Some(100)));
        let limits = TaskLimits::of(&task("a", None, None, &[0, 1, 256]), &options(None));
        assert_eq!(limits.cpu, CpuLimit::Shares(260));
        assert_eq!((limits.memory_bytes, limits.pids), (None, None));
    }

    #[test]
    fn the_quota_scales_with_the_period() {
        let options = CgroupOptions { cpu_period: Duration::from_millis(8), ..CgroupOptions::default() };
        let limits = TaskLimits::of(&task("a", Some(512), None, &[]), &options);
        assert_eq!((limits.cpu, limits.cpu_period_us), (CpuLimit::Quota { us: 4_000 }, 8_000));
    }

    #[test]
    fn absurd_sizes_stay_in_what_the_kernel_takes() {
        let of =
            |cpu, memory, shares: &[u64]| TaskLimits::of(&task("a", cpu, memory, shares), &options(None));
        let limits = of(Some(u64::MAX), Some(u64::MAX), &[]);
        assert_eq!((limits.cpu, limits.memory_bytes), (CpuLimit::Quota { us: i64::MAX }, Some(i64::MAX)));
        assert_eq!(of(Some(1), None, &[]).cpu, CpuLimit::Quota { us: 1000 });
        assert_eq!(of(None, None, &[u64::MAX, u64::MAX]).cpu, CpuLimit::Shares(262_144));
        assert_eq!((weight(0), weight(2), weight(1024), weight(u64::MAX)), (1, 1, 39, 10_000));
    }
}
