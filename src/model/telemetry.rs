//! What is told of tasks and the instance over TCS, in model terms (spec/control-plane.md 4.4, 4.6).

use crate::model::health::HealthStatus;
use crate::model::ids::TaskArn;
use crate::model::time::Wall;

/// Metrics of one publication.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Metrics {
    /// No container is measured.
    pub is_idle: bool,
    /// Tasks of which there is something new to tell.
    pub tasks: Vec<TaskMetrics>,
}

/// Metrics of a task.
#[derive(Debug, Clone, PartialEq)]
pub struct TaskMetrics {
    /// The task.
    pub arn: TaskArn,
    /// Family of its definition.
    pub family: String,
    /// Revision of its definition.
    pub version: String,
    /// At least one.
    pub containers: Vec<ContainerMetrics>,
}

/// Metrics of a container over all samples that were not told yet.
#[derive(Debug, Clone, PartialEq)]
pub struct ContainerMetrics {
    /// Name in the task definition.
    pub name: String,
    /// Number of the newest sample that is in it: told, once it is written.
    pub newest: u64,
    /// Percent of the whole instance.
    pub cpu: StatsSet,
    /// MiB.
    pub memory: StatsSet,
    /// Bytes read and written since it started; `None` where not counted.
    pub storage: Option<StorageSets>,
    /// `None` in host and none mode, and where not counted.
    pub network: Option<NetworkSets>,
    /// Restarts since those that were told; `None` without a restart policy.
    pub restarts: Option<u32>,
}

/// Least, greatest, sum and number of some measured values.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct StatsSet {
    /// The least.
    pub min: f64,
    /// The greatest.
    pub max: f64,
    /// How many.
    pub sample_count: u64,
    /// Their sum.
    pub sum: f64,
}

/// The same of a counter's values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CounterSet {
    /// The least.
    pub min: u64,
    /// The greatest.
    pub max: u64,
    /// How many.
    pub sample_count: u64,
    /// Their sum; stays at the greatest number where it would be greater.
    pub sum: u64,
}

/// Block devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StorageSets {
    /// Bytes read.
    pub read_bytes: CounterSet,
    /// Bytes written.
    pub write_bytes: CounterSet,
}

/// Network interfaces, all of a container together.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct NetworkSets {
    /// Bytes received.
    pub rx_bytes: CounterSet,
    /// Packets received and dropped.
    pub rx_dropped: CounterSet,
    /// Errors in receiving.
    pub rx_errors: CounterSet,
    /// Packets received.
    pub rx_packets: CounterSet,
    /// Bytes sent.
    pub tx_bytes: CounterSet,
    /// Packets to be sent and dropped.
    pub tx_dropped: CounterSet,
    /// Errors in sending.
    pub tx_errors: CounterSet,
    /// Packets sent.
    pub tx_packets: CounterSet,
    /// Bytes received in a second.
    pub rx_bytes_per_second: StatsSet,
    /// Bytes sent in a second.
    pub tx_bytes_per_second: StatsSet,
}

/// Health of a task's containers that have a health check.
#[derive(Debug, Clone, PartialEq)]
pub struct TaskHealth {
    /// The task.
    pub arn: TaskArn,
    /// Family of its definition.
    pub family: String,
    /// Revision of its definition.
    pub version: String,
    /// At least one.
    pub containers: Vec<ContainerHealth>,
}

/// Health of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerHealth {
    /// Name in the task definition.
    pub name: String,
    /// What its check says.
    pub status: HealthStatus,
    /// Since when.
    pub since: Wall,
}

/// One check of the instance, as of its last run (spec/control-plane.md 6.5).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstanceCheck {
    /// Its type, such as `ContainerRuntime`.
    pub kind: &'static str,
    /// Its outcome.
    pub status: CheckStatus,
    /// When it ran the time before: what the original tells, too.
    pub last_updated: Wall,
    /// When its outcome changed.
    pub last_change: Wall,
    /// How often it has run.
    pub runs: u64,
    /// What is wrong, where something is. Told on this host only.
    pub reason: Option<String>,
}

/// Outcome of a check of the instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CheckStatus {
    /// It has not run yet.
    #[default]
    Initializing,
    /// All is well.
    Ok,
    /// It failed.
    Impaired,
}

impl CheckStatus {
    /// The word on the wire.
    pub fn word(self) -> &'static str {
        match self {
            Self::Initializing => "INITIALIZING",
            Self::Ok => "OK",
            Self::Impaired => "IMPAIRED",
        }
    }
}
