//! Whether and when a failed attempt is made again.

use crate::containerd::image::options::Backoff;
use std::time::Duration;

/// The longest that a registry's `Retry-After` is honoured.
const LONGEST_WISH: Duration = Duration::from_secs(30);

impl Backoff {
    /// How long to wait after failed attempt number `attempt` (from 1); `None` where it was the
    /// last. A registry's own wish counts where it is longer.
    pub fn after(&self, attempt: u32, wish: Option<Duration>) -> Option<Duration> {
        if attempt >= self.attempts {
            return None;
        }
        let exponent = i32::try_from(attempt.saturating_sub(1)).unwrap_or(i32::MAX).min(32);
        let plain = self.first.as_secs_f64() * self.factor.powi(exponent);
        let delay = plain.min(self.cap.as_secs_f64());
        // Up to a fifth longer, so that a fleet that failed together does not come back together.
        let delay = Duration::from_secs_f64(delay * (1.0 + 0.2 * fraction()));
        Some(delay.max(wish.unwrap_or_default().min(LONGEST_WISH)))
    }
}

/// A random number in 0..1.
fn fraction() -> f64 {
    let random = uuid::Uuid::new_v4().as_u128() as u32;
    f64::from(random) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_to_the_cap_and_end() {
        let backoff = Backoff {
            attempts: 5,
            first: Duration::from_millis(1100),
            factor: 2.0,
            cap: Duration::from_secs(5),
        };
        let within = |attempt, low: f64, high: f64| {
            let delay = backoff.after(attempt, None).unwrap().as_secs_f64();
            assert!(delay >= low && delay <= high, "attempt {attempt}: {delay}");
        };
        within(1, 1.1, 1.33);
        within(2, 2.2, 2.65);
        within(3, 4.4, 5.29);
        within(4, 5.0, 6.01);
        assert_eq!(backoff.after(5, None), None);
        assert_eq!(backoff.after(1, Some(Duration::from_secs(7))), Some(Duration::from_secs(7)));
        assert_eq!(backoff.after(1, Some(Duration::from_secs(9999))), Some(LONGEST_WISH));
    }
}
