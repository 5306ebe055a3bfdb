//! Figures of known samples, and what holds of any.

use super::*;
use crate::model::{
    BlockEntry, BlockUsage, CounterSet, CpuUsage, InterfaceUsage, MemoryUsage, Mono, Now, Wall,
};
use proptest::prelude::*;
use std::time::Duration;

#[derive(Debug, Clone, Default)]
struct Sample {
    ms: u64,
    cpu_ms: u64,
    memory: u64,
    read: Option<u64>,
    received: Option<u64>,
}

fn usage(sample: &Sample) -> Usage {
    let block = |value| BlockUsage {
        bytes: vec![
            BlockEntry { major: 8, minor: 0, operation: "Read", value },
            BlockEntry { major: 8, minor: 0, operation: "Write", value: value / 2 },
        ],
        operations: Vec::new(),
    };
    let interface = |rx_bytes| InterfaceUsage {
        name: "eth0",
        counters: InterfaceCounters { rx_bytes, tx_bytes: rx_bytes / 2, ..Default::default() },
    };
    Usage {
        at: Now { wall: Wall(0), mono: Mono(Duration::from_millis(sample.ms)) },
        cpu: CpuUsage { total_ns: sample.cpu_ms * 1_000_000, ..CpuUsage::default() },
        memory: MemoryUsage { usage: sample.memory, ..MemoryUsage::default() },
        block_io: sample.read.map(block),
        networks: sample.received.map(|bytes| vec![interface(bytes)]),
        pids: None,
    }
}

fn queue(samples: &[Sample]) -> Queue {
    let mut queue = Queue::new(80);
    samples.iter().for_each(|sample| queue.push(usage(sample), 2, None));
    queue
}

#[test]
fn a_share_of_the_whole_instance_and_whole_mib_are_told() {
    let sample = |ms, cpu_ms, memory| Sample { ms, cpu_ms, memory, read: Some(ms), received: Some(ms * 10) };
    let samples = [sample(0, 100, MIB * 3 - 1), sample(1000, 600, MIB * 3), sample(3000, 600, 0)];
    let figures = queue(&samples).figures().unwrap();
    // Half a processor of two, then nothing; the first sample tells no share.
    assert_eq!(figures.cpu, StatsSet { min: 0.0, max: 25.0, sample_count: 2, sum: 25.0 });
    assert_eq!(figures.memory, StatsSet { min: 0.0, max: 3.0, sample_count: 3, sum: 5.0 });
    let storage = figures.storage.unwrap();
    assert_eq!((storage.read_bytes.min, storage.read_bytes.max, storage.read_bytes.sum), (0, 3000, 4000));
    assert_eq!(storage.write_bytes.sum, 2000);
    let network = figures.network.unwrap();
    assert_eq!((network.rx_bytes.sample_count, network.rx_bytes.sum), (3, 40_000));
    let rate = StatsSet { min: 10_000.0, max: 10_000.0, sample_count: 2, sum: 20_000.0 };
    assert_eq!(network.rx_bytes_per_second, rate);
    assert_eq!(network.tx_bytes_per_second.sum, 10_000.0);
}

#[test]
fn one_sample_is_too_few_and_a_confirmed_one_counts_for_the_next() {
    let sample = |ms| Sample { ms, cpu_ms: ms, ..Sample::default() };
    let mut queue = queue(&[sample(0)]);
    assert_eq!(queue.figures(), None);
    queue.push(usage(&sample(1000)), 2, None);
    let figures = queue.figures().unwrap();
    assert_eq!((figures.newest, figures.cpu.sample_count, figures.memory.sample_count), (2, 1, 2));
    assert_eq!((figures.storage, figures.network), (None, None));
    queue.confirm(figures.newest);
    assert_eq!(queue.figures(), None);
    queue.push(usage(&sample(2000)), 2, None);
    let figures = queue.figures().unwrap();
    assert_eq!((figures.newest, figures.cpu.sample_count, figures.memory.sample_count), (3, 1, 1));
    assert_eq!(figures.cpu.sum, 50.0);
}

#[test]
fn no_time_repeats_what_was_measured_and_a_counter_that_went_back_tells_nothing() {
    let sample = |ms, cpu_ms| Sample { ms, cpu_ms, received: Some(cpu_ms), ..Sample::default() };
    let figures = queue(&[sample(0, 0), sample(1000, 200), sample(1000, 999)]).figures().unwrap();
    assert_eq!(figures.cpu, StatsSet { min: 10.0, max: 10.0, sample_count: 2, sum: 20.0 });
    assert_eq!(figures.network.unwrap().rx_bytes_per_second.sum, 400.0);
    let figures = queue(&[sample(0, 500), sample(1000, 100), sample(2000, 300)]).figures().unwrap();
    assert_eq!(figures.cpu, StatsSet { min: 10.0, max: 10.0, sample_count: 1, sum: 10.0 });
}

#[test]
fn the_newest_two_are_kept_whole_whatever_was_confirmed() {
    let sample = |ms| Sample { ms, ..Sample::default() };
    let mut queue = queue(&[]);
    assert!(queue.latest().is_none());
    queue.push(usage(&sample(1)), 2, None);
    assert!(queue.latest().unwrap().1.is_none());
    queue.push(usage(&sample(2)), 2, None);
    queue.push(usage(&sample(3)), 2, None);
    queue.confirm(3);
    let (newest, before) = queue.latest().unwrap();
    assert_eq!(
        (newest.at.mono, before.unwrap().at.mono),
        (Mono(Duration::from_millis(3)), Mono(Duration::from_millis(2)))
    );
}

#[test]
fn a_restarted_container_is_one_to_whoever_is_told_of_it() {
    let sample = |ms, cpu_ms, read| usage(&Sample { ms, cpu_ms, read: Some(read), ..Sample::default() });
    let mut queue = Queue::new(80);
    // Restarted twice before this agent began to measure it.
    for (usage, restarts) in [(sample(0, 500, 80), 2), (sample(1000, 600, 90), 2), (sample(2000, 100, 10), 3)]
    {
        queue.push(usage, 1, Some(restarts));
    }
    let figures = queue.figures().unwrap();
    assert_eq!(figures.restarts, Some(1));
    assert_eq!(figures.cpu, StatsSet { min: 10.0, max: 10.0, sample_count: 2, sum: 20.0 });
    assert_eq!(
        figures.storage.unwrap().read_bytes,
        CounterSet { min: 80, max: 100, sample_count: 3, sum: 270 }
    );
    assert_eq!(queue.latest().unwrap().0.cpu.total_ns, 700_000_000);
    queue.confirm(figures.newest);
    queue.push(sample(3000, 200, 10), 1, Some(3));
    assert_eq!(queue.figures().unwrap().restarts, Some(0));
    queue.push(sample(4000, 50, 0), 1, Some(5));
    queue.push(sample(5000, 60, 0), 1, Some(5));
    let figures = queue.figures().unwrap();
    assert_eq!((figures.restarts, queue.latest().unwrap().0.cpu.total_ns), (Some(2), 860_000_000));
    // Without a policy there is nothing to tell, and a counter that goes back is what it is.
    assert_eq!(
        self::queue(&[Sample::default(), Sample { ms: 1, ..Sample::default() }]).figures().unwrap().restarts,
        None
    );
}

fn any_sample() -> impl Strategy<Value = Sample> {
    let counter = || prop::option::of(prop_oneof![0..10_000u64, Just(u64::MAX)]);
    (0..3000u64, 0..5000u64, 0..1u64 << 40, counter(), counter())
        .prop_map(|(ms, cpu_ms, memory, read, received)| Sample { ms, cpu_ms, memory, read, received })
}

/// A sample that arrives, or a publication that is written or not.
#[derive(Debug, Clone)]
enum Step {
    Sample(Sample),
    Publish { written: bool },
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => any_sample().prop_map(Step::Sample),
        1 => any::<bool>().prop_map(|written| Step::Publish { written }),
    ]
}

fn sane(set: StatsSet) -> bool {
    let most = set.max * set.sample_count as f64;
    set.sample_count > 0 && set.min >= 0.0 && set.min <= set.max && set.sum <= most * 1.0001 + 0.0001
}

proptest! {
    /// Samples come at any times with any counters, these grow or jump back; publications fail or not.
    #[test]
    fn every_sample_is_told_once_or_lost_to_the_limit(
        steps in prop::collection::vec(any_step(), 0..200), capacity in 2usize..40, runs_on: bool,
    ) {
        let mut queue = Queue::new(capacity);
        let (mut clock, mut cpu) = (0, 0);
        // What should be told: memory, a whole number of MiB, tells samples apart by their sum.
        let (mut untold, mut taken) = (Vec::new(), 0);
        for step in steps {
            match step {
                Step::Sample(sample) => {
                    clock += sample.ms;
                    cpu = if runs_on { cpu + sample.cpu_ms } else { sample.cpu_ms };
                    untold.push(sample.memory / MIB);
                    taken += 1;
                    queue.push(usage(&Sample { ms: clock, cpu_ms: cpu, ..sample }), 4, None);
                    if untold.len() > capacity {
                        untold.remove(0);
                    }
                }
                Step::Publish { written } => {
                    let Some(figures) = queue.figures() else {
                        // Too few; or none of the samples followed another in time.
                        prop_assert!(taken < 2 || untold.is_empty() || queue.points.iter().all(|p| p.rates.cpu.is_none()));
                        continue;
                    };
                    prop_assert_eq!(figures.memory.sample_count, untold.len() as u64);
                    prop_assert_eq!(figures.memory.sum, untold.iter().sum::<u64>() as f64);
                    prop_assert!(sane(figures.cpu) && sane(figures.memory), "{:?}", figures);
                    prop_assert!(figures.cpu.sample_count <= figures.memory.sample_count);
                    if let Some(storage) = figures.storage {
                        prop_assert!(storage.read_bytes.min <= storage.read_bytes.max);
                        prop_assert!(storage.read_bytes.max <= storage.read_bytes.sum);
                    }
                    if let Some(network) = figures.network {
                        prop_assert!(sane(network.rx_bytes_per_second) && sane(network.tx_bytes_per_second));
                        prop_assert!(network.rx_bytes.min <= network.rx_bytes.max);
                        prop_assert!(network.rx_bytes.max <= network.rx_bytes.sum);
                    }
                    if written {
                        queue.confirm(figures.newest);
                        untold.clear();
                        prop_assert!(queue.figures().is_none());
                    } else {
                        prop_assert_eq!(queue.figures(), Some(figures));
                    }
                }
            }
        }
    }

    /// What arrives between a publication and its being written is told by the next.
    #[test]
    fn a_sample_that_comes_meanwhile_is_not_lost(before in 2usize..30, meanwhile in 0usize..30) {
        let sample = |n: usize| Sample { ms: n as u64 * 1000, cpu_ms: n as u64, memory: MIB, ..Sample::default() };
        let mut queue = queue(&(0..before).map(sample).collect::<Vec<_>>());
        let told = queue.figures().unwrap();
        (before..before + meanwhile).for_each(|n| queue.push(usage(&sample(n)), 2, None));
        queue.confirm(told.newest);
        let rest = queue.figures().map_or(0, |figures| figures.memory.sample_count);
        prop_assert_eq!(told.memory.sample_count, before as u64);
        prop_assert_eq!(rest, meanwhile as u64);
    }
}
