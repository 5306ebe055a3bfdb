//! The samples of one container: those that were not told yet, reduced to what is told of them, and
//! the newest two as they are. No clock, no I/O.

use super::continued::Continued;
use super::sets::{counter, stats};
use crate::model::{InterfaceCounters, NetworkSets, StatsSet, StorageSets, Usage};
use std::collections::VecDeque;
use std::sync::Arc;

const MIB: u64 = 1024 * 1024;

/// The samples of one container.
#[derive(Debug)]
pub(super) struct Queue {
    /// Not told yet, oldest first; at most `capacity`.
    points: VecDeque<Point>,
    capacity: usize,
    /// How many samples there have been: the number of the newest.
    taken: u64,
    newest: Option<Arc<Usage>>,
    previous: Option<Arc<Usage>>,
    /// Of the newest sample.
    rates: Rates,
    /// Restarts that were told, or were there before the first sample.
    restarts_told: Option<u32>,
    continued: Continued,
}

/// One sample, as far as it is told.
#[derive(Debug)]
struct Point {
    number: u64,
    rates: Rates,
    memory_mib: u64,
    /// Bytes read and written.
    storage: Option<(u64, u64)>,
    network: Option<InterfaceCounters>,
    restarts: Option<u32>,
}

/// What only two samples tell. In the original's precision.
#[derive(Debug, Clone, Copy, Default)]
struct Rates {
    /// Percent of all processors.
    cpu: Option<f32>,
    /// Bytes a second, received and sent.
    network: Option<(f32, f32)>,
}

/// The figures of a container.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Figures {
    pub(super) newest: u64,
    pub(super) cpu: StatsSet,
    pub(super) memory: StatsSet,
    pub(super) storage: Option<StorageSets>,
    pub(super) network: Option<NetworkSets>,
    pub(super) restarts: Option<u32>,
}

impl Queue {
    /// For so many samples; when there are more that nobody was told of, the oldest are lost.
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            points: VecDeque::new(),
            capacity,
            taken: 0,
            newest: None,
            previous: None,
            rates: Rates::default(),
            restarts_told: None,
            continued: Continued::default(),
        }
    }

    /// Takes a sample. `cores` is how many processors the instance has, `restarts` how often a container
    /// with a restart policy was restarted.
    pub(super) fn push(&mut self, mut usage: Usage, cores: u32, restarts: Option<u32>) {
        self.taken += 1;
        if restarts.is_some() {
            self.continued.add_to(&mut usage);
        }
        self.restarts_told = self.restarts_told.or(restarts);
        if let Some(before) = &self.newest {
            // No time has passed: what was measured last still holds.
            if !usage.at.mono.since(before.at.mono).is_zero() {
                self.rates = Rates::between(before, &usage, cores);
            }
        }
        self.points.push_back(Point {
            number: self.taken,
            rates: self.rates,
            memory_mib: usage.memory.working_set() / MIB,
            storage: usage.block_io.as_ref().map(|block| block.totals()),
            network: total(&usage),
            restarts,
        });
        if self.points.len() > self.capacity {
            self.points.pop_front();
        }
        self.previous = self.newest.replace(Arc::new(usage));
    }

    /// The figures over all samples that were not told yet; `None` where they say too little: one
    /// sample alone, or none since the last time.
    pub(super) fn figures(&self) -> Option<Figures> {
        if self.taken < 2 {
            return None;
        }
        Some(Figures {
            newest: self.points.back()?.number,
            cpu: stats(self.points.iter().filter_map(|p| p.rates.cpu).map(f64::from))?,
            memory: stats(self.points.iter().map(|p| p.memory_mib as f64))?,
            storage: self.storage(),
            network: self.network(),
            restarts: self.restarts(),
        })
    }

    fn storage(&self) -> Option<StorageSets> {
        let known = || self.points.iter().filter_map(|p| p.storage);
        Some(StorageSets {
            read_bytes: counter(known().map(|(read, _)| read))?,
            write_bytes: counter(known().map(|(_, written)| written))?,
        })
    }

    fn network(&self) -> Option<NetworkSets> {
        let known = |field: fn(InterfaceCounters) -> u64| {
            counter(self.points.iter().filter_map(|p| p.network).map(field))
        };
        let rates = || self.points.iter().filter_map(|p| p.rates.network);
        Some(NetworkSets {
            rx_bytes: known(|c| c.rx_bytes)?,
            rx_dropped: known(|c| c.rx_dropped)?,
            rx_errors: known(|c| c.rx_errors)?,
            rx_packets: known(|c| c.rx_packets)?,
            tx_bytes: known(|c| c.tx_bytes)?,
            tx_dropped: known(|c| c.tx_dropped)?,
            tx_errors: known(|c| c.tx_errors)?,
            tx_packets: known(|c| c.tx_packets)?,
            rx_bytes_per_second: stats(rates().map(|(rx, _)| f64::from(rx)))?,
            tx_bytes_per_second: stats(rates().map(|(_, tx)| f64::from(tx)))?,
        })
    }

    /// Those since the last that were told.
    fn restarts(&self) -> Option<u32> {
        let known = self.points.back()?.restarts?;
        Some(known.saturating_sub(self.restarts_told.unwrap_or_default()))
    }

    /// All samples up to this number were told.
    pub(super) fn confirm(&mut self, newest: u64) {
        while let Some(told) = self.points.pop_front_if(|point| point.number <= newest) {
            self.restarts_told = told.restarts;
        }
    }

    /// The newest sample, and the one before.
    pub(super) fn latest(&self) -> Option<(Arc<Usage>, Option<Arc<Usage>>)> {
        Some((self.newest.clone()?, self.previous.clone()))
    }
}

impl Rates {
    /// A counter that went back belongs to another process: nothing is known then.
    fn between(before: &Usage, now: &Usage, cores: u32) -> Self {
        let elapsed = now.at.mono.since(before.at.mono);
        let used = now.cpu.total_ns.checked_sub(before.cpu.total_ns);
        let percent = |ns: u64| 100.0 * (ns / u64::from(cores.max(1))) as f32 / elapsed.as_nanos() as f32;
        let a_second =
            |now: u64, before: u64| Some((now.checked_sub(before)? as f64 / elapsed.as_secs_f64()) as f32);
        let network = total(before).zip(total(now)).and_then(|(before, now)| {
            Some((a_second(now.rx_bytes, before.rx_bytes)?, a_second(now.tx_bytes, before.tx_bytes)?))
        });
        Self { cpu: used.map(percent), network }
    }
}

/// All interfaces together; `None` where there are none.
fn total(usage: &Usage) -> Option<InterfaceCounters> {
    let all = usage.networks.as_ref().filter(|all| !all.is_empty())?;
    Some(all.iter().fold(InterfaceCounters::default(), |sum, one| sum.plus(&one.counters)))
}

#[cfg(test)]
#[path = "queue_tests.rs"]
mod queue_tests;
