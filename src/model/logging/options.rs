//! Options of log drivers: strings by name, and reading them as dockerd does.

use super::LogError;
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// `LogConfig.Config` as it was written. Values may be secrets (`splunk-token`), so Debug shows names.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct LogOptions(BTreeMap<String, String>);

impl fmt::Debug for LogOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl From<BTreeMap<String, String>> for LogOptions {
    fn from(options: BTreeMap<String, String>) -> Self {
        Self(options)
    }
}

impl<'a> FromIterator<(&'a str, &'a str)> for LogOptions {
    fn from_iter<I: IntoIterator<Item = (&'a str, &'a str)>>(options: I) -> Self {
        Self(options.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
    }
}

impl LogOptions {
    /// An option, also where it is empty.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// An option that says something.
    pub fn given(&self, name: &str) -> Option<&str> {
        self.get(name).filter(|value| !value.is_empty())
    }

    /// Names and values: for the logger's file alone.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

/// What every driver may be told; dockerd takes these off before the driver sees its own.
const EVERYWHERE: &[&str] =
    &["mode", "max-buffer-size", "cache-disabled", "cache-max-size", "cache-max-file", "cache-compress"];
/// What chooses the attributes that go with each message, and the tag.
pub(super) const ATTRIBUTES: &[&str] = &["labels", "labels-regex", "env", "env-regex", "tag"];

/// Reads the options of one driver.
#[derive(Debug, Clone, Copy)]
pub struct OptionReader<'a> {
    driver: &'static str,
    options: &'a LogOptions,
}

impl<'a> OptionReader<'a> {
    /// # Errors
    /// [`LogError::UnknownOption`], for what is neither in one of `known` nor every driver's.
    pub fn new(driver: &'static str, options: &'a LogOptions, known: &[&[&str]]) -> Result<Self, LogError> {
        let fits = |name: &str| known.iter().chain([&EVERYWHERE]).any(|names| names.contains(&name));
        match options.0.keys().find(|name| !fits(name)) {
            Some(option) => Err(LogError::UnknownOption { driver, option: option.clone() }),
            None => Ok(Self { driver, options }),
        }
    }

    /// The error that an option is not `expected`.
    pub fn wrong(&self, option: &'static str, expected: &'static str) -> LogError {
        LogError::Value { driver: self.driver, option, expected }
    }

    /// A text; one that is empty says nothing.
    pub fn text(&self, option: &'static str) -> Option<&'a str> {
        self.options.given(option)
    }

    /// A text that has to be there.
    ///
    /// # Errors
    /// [`LogError::Missing`]
    pub fn required(&self, option: &'static str) -> Result<&'a str, LogError> {
        self.text(option).ok_or(LogError::Missing { driver: self.driver, option })
    }

    /// Anything that `parse` understands.
    ///
    /// # Errors
    /// [`LogError::Value`]
    pub fn parsed<T>(
        &self,
        option: &'static str,
        expected: &'static str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>, LogError> {
        let value = self.text(option).map(|text| parse(text).ok_or_else(|| self.wrong(option, expected)));
        value.transpose()
    }

    /// A boolean in Go's words (`strconv.ParseBool`); false where it is not said.
    ///
    /// # Errors
    /// [`LogError::Value`]
    pub fn flag(&self, option: &'static str) -> Result<bool, LogError> {
        Ok(self.parsed(option, "true or false", parse_bool)?.unwrap_or(false))
    }

    /// A duration in Go's words, such as `1s` or `500ms`.
    ///
    /// # Errors
    /// [`LogError::Value`]
    pub fn duration(&self, option: &'static str) -> Result<Option<Duration>, LogError> {
        self.parsed(option, "a duration such as 500ms or 3s", parse_duration)
    }
}

/// Go's `strconv.ParseBool`.
fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// Go's `time.ParseDuration`, for durations that are not negative.
pub fn parse_duration(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let (mut rest, mut total) = (text.strip_prefix('+').unwrap_or(text), 0.0);
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at(digits);
        let end = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, next) = tail.split_at(end);
        let seconds = match unit {
            "ns" => 1e-9,
            "us" | "µs" | "μs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return None,
        };
        total += number.parse::<f64>().ok()? * seconds;
        rest = next;
    }
    (!text.is_empty()).then(|| Duration::try_from_secs_f64(total).ok()).flatten()
}

/// A size such as `10m`, `1.5g`, `512k`, `100`, each unit `base` of the one before; a `b` or `ib` may
/// follow. Docker counts some by 1000 (`FromHumanSize`) and some by 1024 (`RAMInBytes`).
pub fn parse_bytes(text: &str, base: u64) -> Option<u64> {
    let text = text.trim().to_ascii_lowercase();
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let power = match unit.trim() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 1,
        "m" | "mb" | "mib" => 2,
        "g" | "gb" | "gib" => 3,
        "t" | "tb" | "tib" => 4,
        _ => return None,
    };
    let bytes = number.parse::<f64>().ok()? * (base as f64).powi(power);
    (bytes.is_finite() && (0.0..=i64::MAX as f64).contains(&bytes)).then_some(bytes as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_as_go_reads_them() {
        for (text, want) in [
            ("1s", Some(1000)),
            ("1m1.5s", Some(61_500)),
            ("500ms", Some(500)),
            ("0", Some(0)),
            ("1", None),
            ("", None),
            ("-1s", None),
            ("s", None),
            ("1e9h", None),
        ] {
            assert_eq!(parse_duration(text), want.map(Duration::from_millis), "{text}");
        }
        assert_eq!((parse_bool("T"), parse_bool("0"), parse_bool("yes")), (Some(true), Some(false), None));
        for (text, base, want) in
            [("10m", 1000, Some(10_000_000)), ("1.5G", 1024, Some(3 << 29)), ("100", 1000, Some(100))]
        {
            assert_eq!(parse_bytes(text, base), want, "{text}");
        }
        for text in ["", "m", "-1", "10x", "1e400", "9999999t"] {
            assert_eq!(parse_bytes(text, 1024), None, "{text}");
        }
    }

    #[test]
    fn no_value_is_shown() {
        let options: LogOptions = [("splunk-token", "hunter2")].into_iter().collect();
        let shown = format!("{options:?}");
        assert!(shown.contains("splunk-token") && !shown.contains("hunter2"), "{shown}");
    }
}
