//! How far a pull is, told at most five times a second as `tracing` events of target
//! [`TARGET`], level info, with the fields of [`PullProgress`].

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

/// Target of the events.
pub const TARGET: &str = "ecsd::pull";
/// Milliseconds between two events of one pull.
const INTERVAL_MS: u64 = 200;

/// How far a pull is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PullProgress {
    /// The image, as its record is named.
    pub image: String,
    /// Bytes in containerd's content store, of layers that have to be fetched.
    pub bytes_done: u64,
    /// All bytes of those layers.
    pub bytes_total: u64,
    /// Layers unpacked.
    pub layers_done: usize,
    /// All layers.
    pub layers_total: usize,
}

/// Counts and tells.
#[derive(Debug)]
pub struct ProgressMeter {
    image: String,
    begun: Instant,
    last_ms: AtomicU64,
    bytes_done: AtomicU64,
    bytes_total: AtomicU64,
    layers_done: AtomicUsize,
    layers_total: usize,
}

impl ProgressMeter {
    /// Begins to count.
    pub fn new(image: &str, layers_total: usize) -> Self {
        Self {
            image: image.to_owned(),
            begun: Instant::now(),
            last_ms: AtomicU64::new(0),
            bytes_done: AtomicU64::new(0),
            bytes_total: AtomicU64::new(0),
            layers_done: AtomicUsize::new(0),
            layers_total,
        }
    }

    /// That many bytes more are to be fetched.
    pub fn expect(&self, bytes: u64) {
        self.bytes_total.fetch_add(bytes, Ordering::Relaxed);
    }

    /// That many bytes more are there.
    pub fn add(&self, bytes: u64) {
        self.bytes_done.fetch_add(bytes, Ordering::Relaxed);
        self.tell();
    }

    /// That many bytes must be fetched again.
    pub fn take_back(&self, bytes: u64) {
        self.bytes_done.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// One layer more is unpacked.
    pub fn layer_done(&self) {
        self.layers_done.fetch_add(1, Ordering::Relaxed);
        self.tell();
    }

    /// As it is now.
    pub fn now(&self) -> PullProgress {
        PullProgress {
            image: self.image.clone(),
            bytes_done: self.bytes_done.load(Ordering::Relaxed),
            bytes_total: self.bytes_total.load(Ordering::Relaxed),
            layers_done: self.layers_done.load(Ordering::Relaxed),
            layers_total: self.layers_total,
        }
    }

    /// Since it was begun.
    pub fn elapsed(&self) -> std::time::Duration {
        self.begun.elapsed()
    }

    fn tell(&self) {
        let now = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        let last = self.last_ms.load(Ordering::Relaxed);
        let due = now >= last.saturating_add(INTERVAL_MS);
        // Whoever wins the exchange tells; the others' counts are in its event already.
        if due && self.last_ms.compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            let PullProgress { image, bytes_done, bytes_total, layers_done, layers_total } = self.now();
            tracing::info!(
                target: TARGET, image = %image, bytes_done, bytes_total, layers_done, layers_total,
                "pulling"
            );
        }
    }
}
