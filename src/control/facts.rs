//! What the instance offers to tasks: CPU, memory, ports (spec/control-plane.md 2.2).

use crate::model::HostResources;
use std::collections::BTreeSet;

/// The instance's resources.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct InstanceFacts {
    /// 1024 to a CPU that the agent may run on.
    pub cpu_units: u64,
    /// MemTotal less `ECS_RESERVED_MEMORY`.
    pub memory_mib: u64,
    /// `ECS_RESERVED_PORTS`.
    pub reserved_tcp: BTreeSet<u16>,
    /// `ECS_RESERVED_PORTS_UDP`.
    pub reserved_udp: BTreeSet<u16>,
}

/// The instance can't be measured.
#[derive(Debug, thiserror::Error)]
pub enum FactsError {
    /// The file can't be read.
    #[error("/proc/meminfo can't be read")]
    Meminfo {
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It says nothing of MemTotal.
    #[error("/proc/meminfo has no usable MemTotal")]
    NoTotal,
    /// More is reserved than there is.
    #[error("ECS_RESERVED_MEMORY is {reserved_mib} MiB, but the machine has {total_mib}: reserve less")]
    AllReserved {
        /// Configured.
        reserved_mib: u64,
        /// There.
        total_mib: u64,
    },
}

impl InstanceFacts {
    /// Measures this machine. `cpus` are those of the agent's affinity mask, as the original counts them:
    /// what its own cgroup may use of them says nothing of what tasks may.
    ///
    /// # Errors
    /// [`FactsError`]
    pub fn measure(
        cpus: u32,
        reserved_memory_mib: u64,
        reserved_tcp: BTreeSet<u16>,
        reserved_udp: BTreeSet<u16>,
    ) -> Result<Self, FactsError> {
        let meminfo =
            std::fs::read_to_string("/proc/meminfo").map_err(|source| FactsError::Meminfo { source })?;
        let total_mib = mem_total_mib(&meminfo).ok_or(FactsError::NoTotal)?;
        let memory_mib = total_mib
            .checked_sub(reserved_memory_mib)
            .ok_or(FactsError::AllReserved { reserved_mib: reserved_memory_mib, total_mib })?;
        Ok(Self { cpu_units: u64::from(cpus) * 1024, memory_mib, reserved_tcp, reserved_udp })
    }

    /// The same for the core's admission.
    pub fn host_resources(&self) -> HostResources {
        HostResources {
            cpu: self.cpu_units,
            memory_mib: self.memory_mib,
            reserved_tcp: self.reserved_tcp.clone(),
            reserved_udp: self.reserved_udp.clone(),
            ..HostResources::default()
        }
    }
}

fn mem_total_mib(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|l| l.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib / 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_whole_mebibytes() {
        assert_eq!(mem_total_mib("MemFree: 1 kB\nMemTotal:   24684543 kB\n"), Some(24105));
        assert_eq!(mem_total_mib("MemTotal: lots"), None);
    }

    #[test]
    fn this_machine_can_be_measured() {
        let facts = InstanceFacts::measure(3, 0, BTreeSet::from([22]), BTreeSet::new()).unwrap();
        assert!(facts.cpu_units == 3072 && facts.memory_mib > 0);
        assert!(matches!(
            InstanceFacts::measure(3, 1 << 40, BTreeSet::new(), BTreeSet::new()),
            Err(FactsError::AllReserved { .. })
        ));
    }
}
