//! Waiting longer after each failure (spec/control-plane.md 0.1).

use std::time::Duration;

/// The n-th delay is the current one plus up to `jitter` of it; then it grows by `factor`, to `most`.
#[derive(Debug, Clone)]
pub struct Backoff {
    least: Duration,
    most: Duration,
    jitter: f64,
    factor: f64,
    current: Duration,
}

impl Backoff {
    /// A back-off at its beginning.
    pub fn new(least: Duration, most: Duration, jitter: f64, factor: f64) -> Self {
        Self { least, most, jitter, factor, current: least }
    }

    /// The next delay.
    pub fn next_delay(&mut self) -> Duration {
        let delay = self.current + self.current.mul_f64(self.jitter * random_fraction());
        self.current = self.current.mul_f64(self.factor).min(self.most);
        delay
    }

    /// Back to the beginning.
    pub fn reset(&mut self) {
        self.current = self.least;
    }
}

/// Uniform in `[0, 1)`. Version 4 UUIDs are the randomness that is at hand.
pub fn random_fraction() -> f64 {
    let bits = (uuid::Uuid::new_v4().as_u128() >> 72) as u64 & ((1 << 53) - 1);
    bits as f64 / (1u64 << 53) as f64
}

/// `base` plus up to `jitter`.
pub fn jittered(base: Duration, jitter: Duration) -> Duration {
    base + jitter.mul_f64(random_fraction())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_to_their_limit_and_start_over() {
        let second = Duration::from_secs(1);
        let mut backoff = Backoff::new(second, second * 4, 0.2, 2.0);
        for least in [1, 2, 4, 4] {
            let delay = backoff.next_delay();
            assert!(delay >= second * least && delay < (second * least).mul_f64(1.2), "{delay:?}");
        }
        backoff.reset();
        assert!(backoff.next_delay() < second * 2);
    }

    #[test]
    fn fractions_are_fractions() {
        let all: Vec<f64> = (0..1000).map(|_| random_fraction()).collect();
        assert!(all.iter().all(|f| (0.0..1.0).contains(f)));
        let mean = all.iter().sum::<f64>() / 1000.0;
        assert!((0.4..0.6).contains(&mean), "{mean}");
    }
}
