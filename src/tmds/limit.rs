//! The request limit: a token bucket per client address and path (spec/local-endpoints-config.md
//! 1.2), in a table that can't grow without bound.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How many buckets are kept, at some 40 bytes each.
const BUCKETS_MAX: usize = 4096;

/// `ECS_TASK_METADATA_RPS_LIMIT`: `<steady>,<burst>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateLimit {
    /// Requests a second that are always let through; at least 1.
    pub per_second: u32,
    /// Requests at once, after a pause; at least 1.
    pub burst: u32,
}

impl Default for RateLimit {
    fn default() -> Self {
        Self { per_second: 40, burst: 60 }
    }
}

/// The buckets.
#[derive(Debug)]
pub(crate) struct Limiter {
    pub(crate) limit: RateLimit,
    hasher: RandomState,
    /// By the hash of address and path: a key costs 8 bytes, however long a path was asked for.
    buckets: Mutex<HashMap<u64, Bucket>>,
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    tokens: f64,
    at: Instant,
}

impl Limiter {
    pub(crate) fn new(limit: RateLimit) -> Self {
        let limit = RateLimit { per_second: limit.per_second.max(1), burst: limit.burst.max(1) };
        Self { limit, hasher: RandomState::new(), buckets: Mutex::default() }
    }

    /// Takes one token; false where there is none.
    pub(crate) fn allow(&self, client: IpAddr, path: &str, now: Instant) -> bool {
        let key = self.hasher.hash_one((client, path));
        let (rate, burst) = (f64::from(self.limit.per_second), f64::from(self.limit.burst));
        let level = |b: &Bucket| {
            let passed = now.saturating_duration_since(b.at).as_secs_f64();
            (b.tokens + passed * rate).min(burst)
        };
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if buckets.len() >= BUCKETS_MAX && !buckets.contains_key(&key) {
            // A full bucket is as good as none. Where none is full, the oldest half goes: a flood of
            // different paths must not reset the bucket that a steady client keeps in use.
            buckets.retain(|_, b| level(b) < burst);
            if buckets.len() >= BUCKETS_MAX {
                let mut ages: Vec<Duration> =
                    buckets.values().map(|b| now.saturating_duration_since(b.at)).collect();
                let (_, &mut median, _) = ages.select_nth_unstable(BUCKETS_MAX / 2);
                let mut over = BUCKETS_MAX / 2;
                buckets.retain(|_, b| {
                    let old = now.saturating_duration_since(b.at) >= median && over > 0;
                    over -= usize::from(old);
                    !old
                });
            }
        }
        let bucket = buckets.entry(key).or_insert(Bucket { tokens: burst, at: now });
        let tokens = level(bucket);
        let allowed = tokens >= 1.0;
        *bucket = Bucket { tokens: if allowed { tokens - 1.0 } else { tokens }, at: now };
        allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLIENT: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    #[test]
    fn a_burst_then_a_steady_rate_for_each_path() {
        let limiter = Limiter::new(RateLimit::default());
        let start = Instant::now();
        let granted = |path, at| (0..100).filter(|_| limiter.allow(CLIENT, path, at)).count();
        assert_eq!(granted("/a", start), 60);
        assert_eq!(granted("/b", start), 60, "paths do not share");
        assert_eq!(granted("/a", start + Duration::from_millis(500)), 20);
        assert_eq!(granted("/a", start + Duration::from_secs(60)), 60);
        assert_eq!(granted("/a", start), 0, "a clock that goes back grants nothing");
    }

    #[test]
    fn a_flood_of_paths_stays_within_the_table() {
        let limiter = Limiter::new(RateLimit { per_second: 1, burst: 1 });
        let now = Instant::now();
        for n in 0..3 * BUCKETS_MAX {
            assert!(limiter.allow(CLIENT, &n.to_string(), now));
        }
        assert!(limiter.buckets.lock().unwrap().len() <= BUCKETS_MAX);
    }

    #[test]
    fn a_limit_of_nothing_still_lets_one_through() {
        assert!(Limiter::new(RateLimit { per_second: 0, burst: 0 }).allow(CLIENT, "/", Instant::now()));
    }
}
