//! `.../stats` and `.../task/stats`: what a container uses, in the shape of Docker's engine
//! (spec/local-endpoints-config.md 1.8), from the newest two samples.

use super::gojson;
use super::route::Version;
use super::snapshot::ContainerView;
use crate::model::{BlockEntry, BlockUsage, ContainerKey, CpuUsage, InterfaceCounters, MemoryUsage, Usage};
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The newest sample of a container, and the one before where there is one.
pub type Latest = (Arc<Usage>, Option<Arc<Usage>>);

/// Where samples are looked up. Called for each request; must not block.
pub trait StatsLookup: Send + Sync {
    /// `None` before the first sample, and where nothing is measured.
    fn latest(&self, container: &ContainerKey) -> Option<Latest>;
}

/// What Go makes of a time that was never set.
const NEVER: &str = "0001-01-01T00:00:00Z";

/// What is told of a container. Without a sample `null`, and in v4 `{}`.
#[derive(Serialize)]
#[serde(untagged)]
pub(super) enum Stats {
    Sample(Box<StatsBody>),
    None(Option<BTreeMap<(), ()>>),
}

impl Stats {
    pub(super) fn of(view: ContainerView<'_>, lookup: Option<&dyn StatsLookup>, version: Version) -> Self {
        let latest = lookup.and_then(|lookup| lookup.latest(&view.task.spec.key(&view.spec.name)));
        match latest {
            Some(latest) => Self::Sample(Box::new(StatsBody::new(view, &latest, version))),
            None => Self::None((version == Version::V4).then(BTreeMap::new)),
        }
    }
}

#[derive(Serialize)]
pub(super) struct StatsBody {
    read: String,
    preread: String,
    pids_stats: Pids,
    blkio_stats: Blkio,
    num_procs: u32,
    storage_stats: Empty,
    cpu_stats: Cpu,
    precpu_stats: Cpu,
    memory_stats: Memory,
    name: String,
    id: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    networks: BTreeMap<&'static str, Interface>,
    #[serde(skip_serializing_if = "Option::is_none")]
    network_rate_stats: Option<Rates>,
}

#[derive(Serialize)]
struct Empty {}

#[derive(Serialize, Default)]
struct Pids {
    #[serde(skip_serializing_if = "is_zero")]
    current: u64,
    #[serde(skip_serializing_if = "is_zero")]
    limit: u64,
}

/// The kernel has no figures any more for what is always empty here.
#[derive(Serialize)]
struct Blkio {
    io_service_bytes_recursive: Vec<Entry>,
    io_serviced_recursive: Vec<Entry>,
    io_queue_recursive: [Entry; 0],
    io_service_time_recursive: [Entry; 0],
    io_wait_time_recursive: [Entry; 0],
    io_merged_recursive: [Entry; 0],
    io_time_recursive: [Entry; 0],
    sectors_recursive: [Entry; 0],
}

#[derive(Serialize)]
struct Entry {
    major: u64,
    minor: u64,
    op: &'static str,
    value: u64,
}

#[derive(Serialize, Default)]
struct Cpu {
    cpu_usage: CpuTime,
    #[serde(skip_serializing_if = "is_zero")]
    system_cpu_usage: u64,
    #[serde(skip_serializing_if = "is_zero")]
    online_cpus: u64,
    throttling_data: Throttling,
}

#[derive(Serialize, Default)]
struct CpuTime {
    total_usage: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    percpu_usage: Vec<u64>,
    usage_in_kernelmode: u64,
    usage_in_usermode: u64,
}

#[derive(Serialize, Default)]
struct Throttling {
    periods: u64,
    throttled_periods: u64,
    throttled_time: u64,
}

#[derive(Serialize)]
struct Memory {
    #[serde(skip_serializing_if = "is_zero")]
    usage: u64,
    #[serde(skip_serializing_if = "is_zero")]
    max_usage: u64,
    stats: BTreeMap<String, u64>,
    #[serde(skip_serializing_if = "is_zero")]
    failcnt: u64,
    #[serde(skip_serializing_if = "is_zero")]
    limit: u64,
}

#[derive(Serialize)]
struct Interface {
    rx_bytes: u64,
    rx_packets: u64,
    rx_errors: u64,
    rx_dropped: u64,
    tx_bytes: u64,
    tx_packets: u64,
    tx_errors: u64,
    tx_dropped: u64,
}

#[derive(Serialize)]
struct Rates {
    rx_bytes_per_sec: f64,
    tx_bytes_per_sec: f64,
}

fn is_zero(value: &u64) -> bool {
    *value == 0
}

// === conversions from the model ===

impl StatsBody {
    fn new(view: ContainerView<'_>, (newest, before): &Latest, version: Version) -> Self {
        let interfaces = newest.networks.iter().flatten();
        Self {
            read: gojson::rfc3339(newest.at.wall),
            preread: before.as_ref().map_or(NEVER.to_owned(), |before| gojson::rfc3339(before.at.wall)),
            pids_stats: newest.pids.map_or(Pids::default(), |pids| Pids {
                current: pids.current,
                limit: pids.limit.unwrap_or_default(),
            }),
            blkio_stats: Blkio::of(newest.block_io.as_ref()),
            num_procs: 0,
            storage_stats: Empty {},
            cpu_stats: Cpu::from(&newest.cpu),
            precpu_stats: before.as_ref().map_or(Cpu::default(), |before| Cpu::from(&before.cpu)),
            memory_stats: Memory::from(&newest.memory),
            name: format!("/{}", view.task.spec.docker_name(&view.spec.name)),
            id: view.id(),
            networks: interfaces.map(|one| (one.name, Interface::from(one.counters))).collect(),
            network_rate_stats: match (version, before) {
                (Version::V4, Some(before)) => Rates::between(before, newest),
                _ => None,
            },
        }
    }
}

impl Blkio {
    fn of(usage: Option<&BlockUsage>) -> Self {
        let entries = |list: &[BlockEntry]| {
            let entry =
                |e: &BlockEntry| Entry { major: e.major, minor: e.minor, op: e.operation, value: e.value };
            list.iter().map(entry).collect()
        };
        Self {
            io_service_bytes_recursive: usage.map(|u| entries(&u.bytes)).unwrap_or_default(),
            io_serviced_recursive: usage.map(|u| entries(&u.operations)).unwrap_or_default(),
            io_queue_recursive: [],
            io_service_time_recursive: [],
            io_wait_time_recursive: [],
            io_merged_recursive: [],
            io_time_recursive: [],
            sectors_recursive: [],
        }
    }
}

impl From<&CpuUsage> for Cpu {
    fn from(usage: &CpuUsage) -> Self {
        Self {
            cpu_usage: CpuTime {
                total_usage: usage.total_ns,
                percpu_usage: usage.per_cpu_ns.clone(),
                usage_in_kernelmode: usage.system_ns,
                usage_in_usermode: usage.user_ns,
            },
            system_cpu_usage: usage.host_ns,
            online_cpus: u64::from(usage.host_cpus),
            throttling_data: Throttling {
                periods: usage.periods,
                throttled_periods: usage.throttled_periods,
                throttled_time: usage.throttled_ns,
            },
        }
    }
}

impl From<&MemoryUsage> for Memory {
    fn from(memory: &MemoryUsage) -> Self {
        Self {
            usage: memory.usage,
            max_usage: memory.max_usage.unwrap_or_default(),
            stats: memory.details().map(|(name, value)| (name.to_owned(), value)).collect(),
            failcnt: memory.failures.unwrap_or_default(),
            limit: memory.limit.unwrap_or_default(),
        }
    }
}

impl From<InterfaceCounters> for Interface {
    fn from(c: InterfaceCounters) -> Self {
        Self {
            rx_bytes: c.rx_bytes,
            rx_packets: c.rx_packets,
            rx_errors: c.rx_errors,
            rx_dropped: c.rx_dropped,
            tx_bytes: c.tx_bytes,
            tx_packets: c.tx_packets,
            tx_errors: c.tx_errors,
            tx_dropped: c.tx_dropped,
        }
    }
}

impl Rates {
    /// `None` where there is no network, no time has passed, or a counter went back.
    fn between(before: &Usage, newest: &Usage) -> Option<Self> {
        let elapsed = newest.at.mono.since(before.at.mono).as_secs_f64();
        let (before, newest) = (before.networks.as_ref()?.first()?, newest.networks.as_ref()?.first()?);
        // In the original's precision.
        let rate = |newest: u64, before: u64| {
            (elapsed > 0.0).then_some(f64::from((newest.checked_sub(before)? as f64 / elapsed) as f32))
        };
        Some(Self {
            rx_bytes_per_sec: rate(newest.counters.rx_bytes, before.counters.rx_bytes)?,
            tx_bytes_per_sec: rate(newest.counters.tx_bytes, before.counters.tx_bytes)?,
        })
    }
}
