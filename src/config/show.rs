//! Values as an operator would write them, secrets left out.

use super::{Rollover, Secret};
use crate::model::PullBehavior;
use crate::telemetry::{LogFormat, LogLevel};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// A setting's value as text; empty where there is none.
pub(super) trait Show {
    fn show(&self) -> String;
}

macro_rules! shown_as_displayed {
    ($($kind:ty),+) => {
        $(impl Show for $kind {
            fn show(&self) -> String {
                self.to_string()
            }
        })+
    };
}
shown_as_displayed!(bool, u32, u64, SocketAddr);

macro_rules! shown_as_json {
    ($($kind:ty),+) => {
        $(impl Show for $kind {
            fn show(&self) -> String {
                serde_json::json!(self).to_string()
            }
        })+
    };
}
shown_as_json!(Vec<String>, BTreeSet<u16>, BTreeMap<String, String>);

impl Show for String {
    fn show(&self) -> String {
        without_password(self)
    }
}

impl Show for PathBuf {
    fn show(&self) -> String {
        self.display().to_string()
    }
}

impl Show for Secret {
    fn show(&self) -> String {
        if self.0.is_empty() { String::new() } else { "[redacted]".to_owned() }
    }
}

impl<T: Show> Show for Option<T> {
    fn show(&self) -> String {
        self.as_ref().map(Show::show).unwrap_or_default()
    }
}

impl Show for (u32, u32) {
    fn show(&self) -> String {
        format!("{},{}", self.0, self.1)
    }
}

impl Show for (u16, u16) {
    fn show(&self) -> String {
        format!("{}-{}", self.0, self.1)
    }
}

impl Show for Duration {
    /// As Go reads it, without parts that are zero: `1h30m`, `100ms`.
    fn show(&self) -> String {
        let mut rest = self.as_nanos();
        let mut text = String::new();
        let units = [
            ("h", 3_600_000_000_000),
            ("m", 60_000_000_000),
            ("s", 1_000_000_000),
            ("ms", 1_000_000),
            ("us", 1_000),
            ("ns", 1),
        ];
        for (unit, nanoseconds) in units {
            if rest >= nanoseconds {
                text.push_str(&format!("{}{unit}", rest / nanoseconds));
                rest %= nanoseconds;
            }
        }
        if text.is_empty() { "0s".to_owned() } else { text }
    }
}

impl Show for LogLevel {
    fn show(&self) -> String {
        self.word().to_owned()
    }
}

impl Show for LogFormat {
    fn show(&self) -> String {
        match self {
            Self::Logfmt => "logfmt",
            Self::Json => "json",
        }
        .to_owned()
    }
}

impl Show for Rollover {
    fn show(&self) -> String {
        match self {
            Self::Size => "size",
            Self::Hourly => "hourly",
            Self::None => "none",
        }
        .to_owned()
    }
}

impl Show for PullBehavior {
    fn show(&self) -> String {
        match self {
            Self::Default => "default",
            Self::Always => "always",
            Self::Once => "once",
            Self::PreferCached => "prefer-cached",
        }
        .to_owned()
    }
}

/// A URL without the password that it may hold, with or without a scheme.
pub fn without_password(url: &str) -> String {
    let (scheme, rest) = match url.find("://") {
        Some(end) => url.split_at(end + 3),
        None => ("", url),
    };
    let authority = rest.find('/').unwrap_or(rest.len());
    match rest[..authority].rfind('@') {
        Some(at) => {
            let user = rest[..at].split(':').next().unwrap_or_default();
            let secret = if rest[..at].contains(':') { ":[redacted]" } else { "" };
            format!("{scheme}{user}{secret}{}", &rest[at..])
        }
        None => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_of_urls_are_left_out() {
        for (url, shown) in [
            ("http://me:pw@proxy:3128/x", "http://me:[redacted]@proxy:3128/x"),
            ("me:p@w@proxy", "me:[redacted]@proxy"),
            ("http://me@proxy", "http://me@proxy"),
            ("http://proxy:3128", "http://proxy:3128"),
            ("10.0.0.0/8,x@y", "10.0.0.0/8,x@y"),
            ("", ""),
        ] {
            assert_eq!(without_password(url), shown);
        }
    }

    #[test]
    fn durations_are_shown_as_they_are_written() {
        for (ms, shown) in [(0, "0s"), (100, "100ms"), (5_400_000, "1h30m"), (61_001, "1m1s1ms")] {
            assert_eq!(Duration::from_millis(ms).show(), shown);
        }
    }
}
