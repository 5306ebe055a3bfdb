//! Go's ways of writing durations and booleans, as the original reads them.

use std::time::Duration;

/// A Go duration in nanoseconds: `300ms`, `1.5h`, `1h30m`, `-2s`; `0` alone needs no unit. `None` for
/// anything else, and beyond 64 bits.
pub(super) fn duration_ns(text: &str) -> Option<i64> {
    let (negative, mut rest) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    if rest == "0" {
        return Some(0);
    }
    if rest.is_empty() {
        return None;
    }
    let mut total: i128 = 0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let (whole, after) = rest.split_at(digits);
        let (fraction, after) = match after.strip_prefix('.') {
            Some(after) => after.split_at(after.find(|c: char| !c.is_ascii_digit()).unwrap_or(after.len())),
            None => ("", after),
        };
        if (whole.is_empty() && fraction.is_empty()) || whole.len() > 19 || fraction.len() > 64 {
            return None;
        }
        let unit_end = after.find(|c: char| c == '.' || c.is_ascii_digit()).unwrap_or(after.len());
        let (unit, next) = after.split_at(unit_end);
        let unit_ns: i128 = match unit {
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return None,
        };
        let whole: i128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
        total += whole * unit_ns;
        // No unit has more than 13 digits of nanoseconds.
        let mut place = unit_ns;
        for digit in fraction.bytes().take(13) {
            place /= 10;
            total += i128::from(digit - b'0') * place;
        }
        rest = next;
    }
    i64::try_from(if negative { -total } else { total }).ok()
}

/// A duration that is not negative.
pub(super) fn positive(nanoseconds: i64) -> Duration {
    Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(0))
}

/// Go's `strconv.ParseBool`.
pub(super) fn boolean(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Some(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_gos() {
        let second = 1_000_000_000;
        for (text, ns) in [
            ("0", 0),
            ("-0", 0),
            ("300ms", 300_000_000),
            ("1h30m", 5400 * second),
            ("1.5h", 5400 * second),
            (".5s", second / 2),
            ("-2s", -2 * second),
            ("+1m", 60 * second),
            ("10us", 10_000),
            ("2µs", 2_000),
            ("7ns", 7),
        ] {
            assert_eq!(duration_ns(text), Some(ns), "{text}");
        }
        for text in ["", "-", "5", "s", ".s", "1 s", "1d", "1h30", "99999999999999999999h", "9999999h", "１s"]
        {
            assert_eq!(duration_ns(text), None, "{text}");
        }
    }

    #[test]
    fn booleans_are_gos() {
        assert_eq!(boolean("T"), Some(true));
        assert_eq!(boolean("False"), Some(false));
        for text in ["tRUE", "yes", "on", "2", ""] {
            assert_eq!(boolean(text), None, "{text}");
        }
    }
}
