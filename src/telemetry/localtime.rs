//! The hour on the host's clock, for names of log files.

use std::time::{SystemTime, UNIX_EPOCH};
use tz::{DateTime, TimeZone};

/// The host's time zone, as it was at the start.
pub(super) struct LocalTime(TimeZone);

impl LocalTime {
    /// `TZ`, or `/etc/localtime`; UTC where neither can be read.
    pub(super) fn of_host() -> Self {
        Self(TimeZone::local().unwrap_or_else(|_| TimeZone::utc()))
    }

    /// The zone of a `TZ` text.
    #[cfg(test)]
    pub(super) fn posix(zone: &str) -> Self {
        Self(TimeZone::from_posix_tz(zone).unwrap())
    }

    /// `YYYY-MM-DD-HH`
    pub(super) fn hour(&self, at: SystemTime) -> String {
        let seconds = at.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
        let local = DateTime::from_timespec(seconds, 0, self.0.as_ref())
            .or_else(|_| DateTime::from_timespec(0, 0, TimeZone::utc().as_ref()));
        match local {
            Ok(t) => format!("{:04}-{:02}-{:02}-{:02}", t.year(), t.month(), t.month_day(), t.hour()),
            Err(_) => "1970-01-01-00".to_owned(),
        }
    }
}
