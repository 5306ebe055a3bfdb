//! Least, greatest, sum and number of values that come one by one.

use crate::model::{CounterSet, StatsSet};

/// Of measured values; `None` without any.
pub(super) fn stats(values: impl Iterator<Item = f64>) -> Option<StatsSet> {
    let mut set: Option<StatsSet> = None;
    for value in values {
        let so_far = set.unwrap_or(StatsSet { min: value, max: value, sample_count: 0, sum: 0.0 });
        set = Some(StatsSet {
            min: so_far.min.min(value),
            max: so_far.max.max(value),
            sample_count: so_far.sample_count + 1,
            sum: so_far.sum + value,
        });
    }
    set
}

/// Of a counter's values; `None` without any.
pub(super) fn counter(values: impl Iterator<Item = u64>) -> Option<CounterSet> {
    let mut set: Option<CounterSet> = None;
    for value in values {
        let so_far = set.unwrap_or(CounterSet { min: value, max: value, sample_count: 0, sum: 0 });
        set = Some(CounterSet {
            min: so_far.min.min(value),
            max: so_far.max.max(value),
            sample_count: so_far.sample_count + 1,
            sum: so_far.sum.saturating_add(value),
        });
    }
    set
}
