//! What is sent over TCS (spec/control-plane.md 4.4), in the shapes of the original: fields that it
//! never sets are not here.

use crate::model::{
    ContainerHealth, ContainerMetrics, CounterSet, InstanceCheck, NetworkSets, StatsSet, StorageSets,
    TaskHealth, TaskMetrics, Wall,
};
use serde::Serialize;
use serde::ser::{SerializeStruct, Serializer};

/// A message in its envelope.
#[derive(Debug, Serialize)]
pub(super) struct Envelope<'a, M> {
    /// Name of the message's type.
    pub(super) r#type: &'a str,
    pub(super) message: M,
}

/// Of metrics and health.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Metadata<'a> {
    pub(super) cluster: &'a str,
    pub(super) container_instance: &'a str,
    /// The last message of this publication.
    pub(super) fin: bool,
    /// Only of metrics.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) idle: Option<bool>,
    pub(super) message_id: &'a str,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PublishMetricsRequest<'a> {
    pub(super) metadata: Metadata<'a>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) task_metrics: Vec<TaskMetric<'a>>,
    pub(super) timestamp: Number,
}

#[derive(Debug, Serialize)]
pub(super) struct PublishHealthRequest<'a> {
    pub(super) metadata: Metadata<'a>,
    pub(super) tasks: Vec<TaskHealthEntry<'a>>,
    pub(super) timestamp: Number,
}

#[derive(Debug, Serialize)]
pub(super) struct PublishInstanceStatusRequest<'a> {
    pub(super) metadata: StatusMetadata<'a>,
    pub(super) statuses: Vec<Status<'a>>,
    pub(super) timestamp: Number,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct StatusMetadata<'a> {
    pub(super) cluster: &'a str,
    pub(super) container_instance: &'a str,
    pub(super) request_id: &'a str,
}

#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct TaskMetric<'a> {
    container_metrics: Vec<ContainerMetric<'a>>,
    task_arn: &'a str,
    task_definition_family: &'a str,
    task_definition_version: &'a str,
}

#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
struct ContainerMetric<'a> {
    container_name: &'a str,
    cpu_stats_set: CwStatsSet,
    memory_stats_set: CwStatsSet,
    #[serde(skip_serializing_if = "Option::is_none")]
    network_stats_set: Option<NetworkStatsSet>,
    #[serde(skip_serializing_if = "Option::is_none")]
    storage_stats_set: Option<StorageStatsSet>,
    #[serde(skip_serializing_if = "Option::is_none")]
    restart_stats_set: Option<RestartStatsSet>,
}

#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
struct CwStatsSet {
    max: Number,
    min: Number,
    sample_count: u64,
    sum: Number,
}

/// What does not fit a signed number is told beside it.
#[derive(Debug, Clone)]
struct ULongStatsSet(CounterSet);

#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
struct NetworkStatsSet {
    rx_bytes: ULongStatsSet,
    rx_bytes_per_second: CwStatsSet,
    rx_dropped: ULongStatsSet,
    rx_errors: ULongStatsSet,
    rx_packets: ULongStatsSet,
    tx_bytes: ULongStatsSet,
    tx_bytes_per_second: CwStatsSet,
    tx_dropped: ULongStatsSet,
    tx_errors: ULongStatsSet,
    tx_packets: ULongStatsSet,
}

#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
struct RestartStatsSet {
    restart_count: u32,
}

#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
struct StorageStatsSet {
    read_size_bytes: ULongStatsSet,
    write_size_bytes: ULongStatsSet,
}

#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct TaskHealthEntry<'a> {
    containers: Vec<ContainerHealthEntry<'a>>,
    task_arn: &'a str,
    task_definition_family: &'a str,
    task_definition_version: &'a str,
}

#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
struct ContainerHealthEntry<'a> {
    container_name: &'a str,
    health_status: &'static str,
    status_since: Number,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Status<'a> {
    last_status_change: Number,
    last_updated: Number,
    status: &'static str,
    r#type: &'a str,
}

/// A number as Go writes it: one without a fraction has no point.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Number(f64);

impl Number {
    /// Seconds since 1970, with milliseconds.
    pub(super) fn seconds(at: Wall) -> Self {
        Self(at.as_epoch_seconds())
    }
}

// === conversions from the model ===

impl<'a> From<&'a TaskMetrics> for TaskMetric<'a> {
    fn from(task: &'a TaskMetrics) -> Self {
        Self {
            container_metrics: task.containers.iter().map(ContainerMetric::from).collect(),
            task_arn: task.arn.as_str(),
            task_definition_family: &task.family,
            task_definition_version: &task.version,
        }
    }
}

impl<'a> From<&'a ContainerMetrics> for ContainerMetric<'a> {
    fn from(container: &'a ContainerMetrics) -> Self {
        Self {
            container_name: &container.name,
            cpu_stats_set: container.cpu.into(),
            memory_stats_set: container.memory.into(),
            network_stats_set: container.network.map(NetworkStatsSet::from),
            storage_stats_set: container.storage.map(StorageStatsSet::from),
            restart_stats_set: container.restarts.map(|restart_count| RestartStatsSet { restart_count }),
        }
    }
}

impl From<StatsSet> for CwStatsSet {
    fn from(set: StatsSet) -> Self {
        Self {
            max: Number(set.max),
            min: Number(set.min),
            sample_count: set.sample_count,
            sum: Number(set.sum),
        }
    }
}

impl From<NetworkSets> for NetworkStatsSet {
    fn from(sets: NetworkSets) -> Self {
        Self {
            rx_bytes: ULongStatsSet(sets.rx_bytes),
            rx_bytes_per_second: sets.rx_bytes_per_second.into(),
            rx_dropped: ULongStatsSet(sets.rx_dropped),
            rx_errors: ULongStatsSet(sets.rx_errors),
            rx_packets: ULongStatsSet(sets.rx_packets),
            tx_bytes: ULongStatsSet(sets.tx_bytes),
            tx_bytes_per_second: sets.tx_bytes_per_second.into(),
            tx_dropped: ULongStatsSet(sets.tx_dropped),
            tx_errors: ULongStatsSet(sets.tx_errors),
            tx_packets: ULongStatsSet(sets.tx_packets),
        }
    }
}

impl From<StorageSets> for StorageStatsSet {
    fn from(sets: StorageSets) -> Self {
        Self {
            read_size_bytes: ULongStatsSet(sets.read_bytes),
            write_size_bytes: ULongStatsSet(sets.write_bytes),
        }
    }
}

impl<'a> From<&'a TaskHealth> for TaskHealthEntry<'a> {
    fn from(task: &'a TaskHealth) -> Self {
        Self {
            containers: task.containers.iter().map(ContainerHealthEntry::from).collect(),
            task_arn: task.arn.as_str(),
            task_definition_family: &task.family,
            task_definition_version: &task.version,
        }
    }
}

impl<'a> From<&'a ContainerHealth> for ContainerHealthEntry<'a> {
    fn from(container: &'a ContainerHealth) -> Self {
        Self {
            container_name: &container.name,
            health_status: container.status.word(),
            status_since: Number::seconds(container.since),
        }
    }
}

impl From<&InstanceCheck> for Status<'_> {
    fn from(check: &InstanceCheck) -> Self {
        Self {
            last_status_change: Number::seconds(check.last_change),
            last_updated: Number::seconds(check.last_updated),
            status: check.status.word(),
            r#type: check.kind,
        }
    }
}

impl Serialize for Number {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // Whole numbers are exact up to here.
        const EXACT: f64 = 9_007_199_254_740_992.0;
        if self.0.fract() == 0.0 && self.0.abs() < EXACT {
            serializer.serialize_i64(self.0 as i64)
        } else {
            serializer.serialize_f64(self.0)
        }
    }
}

impl Serialize for ULongStatsSet {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        const MOST: u64 = i64::MAX.cast_unsigned();
        let (set, over) = (self.0, |value: u64| value.saturating_sub(MOST));
        let mut fields = serializer.serialize_struct("ULongStatsSet", 7)?;
        fields.serialize_field("max", &set.max.min(MOST))?;
        fields.serialize_field("min", &set.min.min(MOST))?;
        fields.serialize_field("overflowMax", &over(set.max))?;
        fields.serialize_field("overflowMin", &over(set.min))?;
        fields.serialize_field("overflowSum", &over(set.sum))?;
        fields.serialize_field("sampleCount", &set.sample_count)?;
        fields.serialize_field("sum", &set.sum.min(MOST))?;
        fields.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn numbers_are_written_as_the_original_writes_them() {
        let text = |number| serde_json::to_string(&Number(number)).unwrap();
        assert_eq!(text(1.0), "1");
        assert_eq!(text(0.0), "0");
        assert_eq!(text(0.9246602058410645), "0.9246602058410645");
        assert_eq!(text(1795467824.788), "1795467824.788");
        assert_eq!(
            serde_json::to_string(&Number::seconds(Wall(1_795_467_824_788_999_999))).unwrap(),
            "1795467824.788"
        );
        assert_eq!(
            serde_json::to_string(&Number::seconds(Wall(1_795_467_824_000_000_000))).unwrap(),
            "1795467824"
        );
    }

    #[test]
    fn what_does_not_fit_a_signed_number_is_told_beside_it() {
        let set = CounterSet { min: 5, max: u64::MAX, sample_count: 2, sum: 1 << 63 };
        let most = i64::MAX;
        assert_eq!(
            serde_json::to_value(ULongStatsSet(set)).unwrap(),
            json!({"max": most, "min": 5, "overflowMax": 1u64 << 63, "overflowMin": 0, "overflowSum": 1,
                   "sampleCount": 2, "sum": most})
        );
    }
}
