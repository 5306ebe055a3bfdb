//! Time as the pure core sees it: always handed in, never read.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A moment of the wall clock, in nanoseconds since 1970 UTC. What is reported and stored.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Wall(pub u64);

/// A moment of a clock that never goes back, from an arbitrary start. What deadlines are made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Mono(pub Duration);

/// Both clocks, read together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Now {
    /// Wall clock.
    pub wall: Wall,
    /// Monotonic clock.
    pub mono: Mono,
}

impl Wall {
    /// Seconds with a millisecond fraction: the control plane's timestamps.
    pub fn as_epoch_seconds(self) -> f64 {
        (self.0 / 1_000_000) as f64 / 1000.0
    }

    /// Time since `earlier`; zero where the clock went back.
    pub fn since(self, earlier: Wall) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// The same moment for the standard library.
    pub fn to_system_time(self) -> SystemTime {
        UNIX_EPOCH + Duration::from_nanos(self.0)
    }
}

impl From<SystemTime> for Wall {
    /// A moment before 1970 is 1970.
    fn from(at: SystemTime) -> Self {
        let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
        Self(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
    }
}

impl Mono {
    /// The moment `after` later.
    pub fn plus(self, after: Duration) -> Mono {
        Mono(self.0.saturating_add(after))
    }

    /// Time since `earlier`; zero where that lies ahead.
    pub fn since(self, earlier: Mono) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

impl fmt::Debug for Wall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", humantime::format_rfc3339_millis(self.to_system_time()))
    }
}
