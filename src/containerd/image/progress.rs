//! How far pulls are: told at most five times a second as `tracing` events of target [`TARGET`], level
//! info, with the fields of [`PullProgress`], and at any time to whoever asks [`Pulls`].

use crate::model::{PullUnderWay, Wall};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant, SystemTime};

/// Target of the events.
pub const TARGET: &str = "ecsd::pull";
/// Milliseconds between two events of one pull.
const INTERVAL_MS: u64 = 200;
/// The rate is that of the last so many events' time.
const WINDOW: usize = 16;
/// A registry that sends nothing for so long is waited for.
const SILENCE: Duration = Duration::from_secs(2);

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

/// Pulls under way. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Pulls(Arc<Mutex<Vec<Weak<Counters>>>>);

impl Pulls {
    /// One more, which is under way for as long as its meter lives.
    pub fn begin(&self, image: &str) -> ProgressMeter {
        let meter = ProgressMeter(Arc::new(Counters::new(image)));
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|one| one.strong_count() > 0);
        all.push(Arc::downgrade(&meter.0));
        meter
    }

    /// All of them as they are now, the oldest first.
    pub fn now(&self) -> Vec<PullUnderWay> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.iter().filter_map(|one| Some(one.upgrade()?.under_way(Instant::now()))).collect()
    }
}

/// Counts and tells.
#[derive(Debug)]
pub struct ProgressMeter(Arc<Counters>);

#[derive(Debug)]
struct Counters {
    image: String,
    begun: Instant,
    started_at: Wall,
    last_ms: AtomicU64,
    bytes_done: AtomicU64,
    bytes_total: AtomicU64,
    layers_done: AtomicUsize,
    /// `usize::MAX` until the manifest is there.
    layers_total: AtomicUsize,
    /// When how many bytes had come, the newest last.
    samples: Mutex<VecDeque<(Instant, u64)>>,
}

impl ProgressMeter {
    /// Of what is not worth telling.
    pub fn silent() -> Self {
        Self(Arc::new(Counters::new("")))
    }

    /// The manifest is there: so many layers.
    pub fn layers(&self, total: usize) {
        self.0.layers_total.store(total, Ordering::Relaxed);
    }

    /// That many bytes more are to be fetched.
    pub fn expect(&self, bytes: u64) {
        self.0.bytes_total.fetch_add(bytes, Ordering::Relaxed);
    }

    /// That many bytes more are there.
    pub fn add(&self, bytes: u64) {
        self.0.bytes_done.fetch_add(bytes, Ordering::Relaxed);
        self.0.tell();
    }

    /// That many bytes must be fetched again.
    pub fn take_back(&self, bytes: u64) {
        self.0.bytes_done.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// One layer more is unpacked.
    pub fn layer_done(&self) {
        self.0.layers_done.fetch_add(1, Ordering::Relaxed);
        self.0.tell();
    }

    /// As it is now.
    pub fn now(&self) -> PullProgress {
        self.0.now()
    }

    /// Since it was begun.
    pub fn elapsed(&self) -> Duration {
        self.0.begun.elapsed()
    }
}

impl Counters {
    fn new(image: &str) -> Self {
        let begun = Instant::now();
        Self {
            image: image.to_owned(),
            begun,
            started_at: SystemTime::now().into(),
            last_ms: AtomicU64::new(0),
            bytes_done: AtomicU64::new(0),
            bytes_total: AtomicU64::new(0),
            layers_done: AtomicUsize::new(0),
            layers_total: AtomicUsize::new(usize::MAX),
            samples: Mutex::new(VecDeque::from([(begun, 0)])),
        }
    }

    fn now(&self) -> PullProgress {
        let layers_total = self.layers_total.load(Ordering::Relaxed);
        PullProgress {
            image: self.image.clone(),
            bytes_done: self.bytes_done.load(Ordering::Relaxed),
            bytes_total: self.bytes_total.load(Ordering::Relaxed),
            layers_done: self.layers_done.load(Ordering::Relaxed),
            layers_total: if layers_total == usize::MAX { 0 } else { layers_total },
        }
    }

    fn under_way(&self, now: Instant) -> PullUnderWay {
        let PullProgress { image, bytes_done, bytes_total, layers_done, layers_total } = self.now();
        let samples = self.samples.lock().unwrap_or_else(PoisonError::into_inner);
        let (oldest, newest) = (samples.front().copied(), samples.back().copied());
        drop(samples);
        let (begun, bytes_then) = oldest.unwrap_or((self.begun, 0));
        let silent = now.saturating_duration_since(newest.map_or(self.begun, |(at, _)| at));
        let fetching = bytes_done < bytes_total;
        let waiting_for = if self.layers_total.load(Ordering::Relaxed) == usize::MAX {
            Some("the image's manifest".to_owned())
        } else if fetching && silent >= SILENCE {
            Some(format!("the registry: nothing has come for {} s", silent.as_secs()))
        } else if !fetching && layers_done < layers_total {
            Some(format!("layer {} of {layers_total} to be unpacked", layers_done + 1))
        } else {
            None
        };
        PullUnderWay {
            image,
            started_at: self.started_at,
            bytes_done,
            bytes_total,
            bytes_per_second: rate(
                bytes_done.saturating_sub(bytes_then),
                now.saturating_duration_since(begun),
            ),
            layers_done,
            layers_total,
            waiting_for,
        }
    }

    fn tell(&self) {
        let now = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        let last = self.last_ms.load(Ordering::Relaxed);
        let due = now >= last.saturating_add(INTERVAL_MS);
        // Whoever wins the exchange tells; the others' counts are in its event already.
        if !due || self.last_ms.compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed).is_err() {
            return;
        }
        let PullProgress { image, bytes_done, bytes_total, layers_done, layers_total } = self.now();
        let mut samples = self.samples.lock().unwrap_or_else(PoisonError::into_inner);
        // What is only unpacked is no sign of the registry.
        if samples.back().is_none_or(|(_, bytes)| *bytes != bytes_done) {
            samples.push_back((Instant::now(), bytes_done));
        }
        if samples.len() > WINDOW {
            samples.pop_front();
        }
        drop(samples);
        if !image.is_empty() {
            tracing::info!(
                target: TARGET, image = %image, bytes_done, bytes_total, layers_done, layers_total,
                "pulling"
            );
        }
    }
}

/// Bytes a second.
fn rate(bytes: u64, time: Duration) -> u64 {
    let ms = time.as_millis().max(1);
    u64::try_from(u128::from(bytes) * 1000 / ms).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pulls_are_told_of_while_they_are_under_way_and_of_what_they_wait() {
        let pulls = Pulls::default();
        let (first, second) = (pulls.begin("a:1"), pulls.begin("b:1"));
        let waits = |n: usize| pulls.now()[n].waiting_for.clone().unwrap_or_default();
        assert_eq!(waits(0), "the image's manifest");
        first.layers(2);
        first.expect(100);
        first.add(40);
        let seen = &pulls.now()[0];
        assert_eq!(
            (seen.bytes_done, seen.bytes_total, seen.layers_total, &seen.waiting_for),
            (40, 100, 2, &None)
        );
        let later = first.0.under_way(Instant::now() + Duration::from_secs(9));
        assert!(later.waiting_for.unwrap().starts_with("the registry: nothing has come for"));
        assert!(later.bytes_per_second <= 4);
        first.add(60);
        assert_eq!(waits(0), "layer 1 of 2 to be unpacked");
        first.layer_done();
        assert_eq!(waits(0), "layer 2 of 2 to be unpacked");
        drop(first);
        let left: Vec<String> = pulls.now().into_iter().map(|pull| pull.image).collect();
        assert_eq!(left, ["b:1"]);
        drop(second);
        assert!(pulls.now().is_empty());
    }

    #[test]
    fn rates_need_no_time_and_never_overflow() {
        assert_eq!(rate(5000, Duration::from_millis(2500)), 2000);
        assert_eq!(rate(1, Duration::ZERO), 1000);
        assert_eq!(rate(u64::MAX, Duration::from_millis(1)), u64::MAX);
    }
}
