//! What the host has and what tasks claim of it (spec/task-engine.md 1.7).

use std::collections::BTreeSet;

/// What the host offers to tasks, after reservations.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HostResources {
    /// CPU units: 1024 to a vCPU.
    pub cpu: u64,
    /// Memory in MiB, less ECS_RESERVED_MEMORY.
    pub memory_mib: u64,
    /// TCP ports that no task gets (ECS_RESERVED_PORTS).
    pub reserved_tcp: BTreeSet<u16>,
    /// UDP ports that no task gets (ECS_RESERVED_PORTS_UDP).
    pub reserved_udp: BTreeSet<u16>,
    /// Ids of the GPUs.
    pub gpus: BTreeSet<String>,
}

/// What one task takes of the host while it is admitted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ResourceClaim {
    /// CPU units.
    pub cpu: u64,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// Fixed host ports, TCP.
    pub tcp: BTreeSet<u16>,
    /// Fixed host ports, UDP.
    pub udp: BTreeSet<u16>,
    /// Ids of GPUs, each for itself.
    pub gpus: BTreeSet<String>,
}
