//! Times as log protocols write them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tz::{DateTime, TimeZone, UtcDateTime};

const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// The time zone of the host's clock, as it was at the start.
#[derive(Debug)]
pub struct LocalTime(TimeZone);

impl LocalTime {
    /// `TZ`, or `/etc/localtime`; UTC where neither can be read.
    pub fn of_host() -> Self {
        Self(TimeZone::local().unwrap_or_else(|_| TimeZone::utc()))
    }

    /// Go's `time.Stamp`: `Jan _2 15:04:05`.
    pub fn stamp(&self, time: SystemTime) -> String {
        let Ok(at) = DateTime::from_timespec(seconds(time), 0, self.0.as_ref()) else {
            return "Jan  1 00:00:00".to_owned();
        };
        let month = MONTHS.get(usize::from(at.month()).wrapping_sub(1)).copied().unwrap_or("Jan");
        format!("{month} {:>2} {:02}:{:02}:{:02}", at.month_day(), at.hour(), at.minute(), at.second())
    }
}

fn since_epoch(time: SystemTime) -> Duration {
    time.duration_since(UNIX_EPOCH).unwrap_or_default()
}

fn seconds(time: SystemTime) -> i64 {
    i64::try_from(since_epoch(time).as_secs()).unwrap_or(i64::MAX)
}

/// RFC 3339 in UTC, with so many digits (at most nine) behind the second.
pub fn rfc3339(time: SystemTime, digits: usize) -> String {
    let Ok(at) = UtcDateTime::from_timespec(seconds(time), 0) else {
        return "1970-01-01T00:00:00Z".to_owned();
    };
    let nanos = format!("{:09}", since_epoch(time).subsec_nanos());
    let fraction = nanos.get(..digits).filter(|digits| !digits.is_empty());
    let fraction = fraction.map(|digits| format!(".{digits}")).unwrap_or_default();
    let (year, month, day) = (at.year(), at.month(), at.month_day());
    let (hour, minute, second) = (at.hour(), at.minute(), at.second());
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}{fraction}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_the_protocols_want_them() {
        let time = UNIX_EPOCH + Duration::new(1_700_000_000, 123_456_789);
        assert_eq!(rfc3339(time, 0), "2023-11-14T22:13:20Z");
        assert_eq!(rfc3339(time, 6), "2023-11-14T22:13:20.123456Z");
        assert_eq!(rfc3339(time, 9), "2023-11-14T22:13:20.123456789Z");
        let utc = LocalTime(TimeZone::utc());
        assert_eq!(utc.stamp(time), "Nov 14 22:13:20");
        assert_eq!(utc.stamp(UNIX_EPOCH), "Jan  1 00:00:00");
    }
}
