//! `Healthcheck` of the container document and of an image, merged by Docker's rules (spec
//! task-engine 2.6). Pure.

use crate::model::HealthCheck;
use serde_json::Value;
use std::time::Duration;

/// In nanoseconds, Docker's least.
const MILLISECOND: i64 = 1_000_000;
const DEFAULT_INTERVAL: Duration = Duration::from_secs(30);
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);
const DEFAULT_START_INTERVAL: Duration = Duration::from_secs(5);
const DEFAULT_RETRIES: u32 = 3;
/// Docker's shell of `CMD-SHELL`, where the document names no other. An image's is for its build alone.
const SHELL: [&str; 2] = ["/bin/sh", "-c"];

/// A `Healthcheck` as it is written: times in nanoseconds, 0 and empty where nothing is said.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HealthSettings {
    /// `CMD` or `CMD-SHELL` and what is to be run, or `NONE`.
    pub test: Vec<String>,
    /// From one run to the next.
    pub interval: i64,
    /// How long a run may take.
    pub timeout: i64,
    /// How long failures don't count.
    pub start_period: i64,
    /// From one run to the next within it.
    pub start_interval: i64,
    /// Failures in a row until unhealthy.
    pub retries: i64,
}

impl HealthSettings {
    /// Reads one; `null` is none.
    ///
    /// # Errors
    /// What is expected in place of what is there.
    pub fn parse(value: &Value) -> Result<Option<Self>, &'static str> {
        const TEST: &str = "a Test that is an array of strings without NUL bytes";
        if value.is_null() {
            return Ok(None);
        }
        let fields = value.as_object().ok_or("an object such as {\"Test\": [\"CMD-SHELL\", \"...\"]}")?;
        let member = |name: &str| {
            let found = fields.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
            found.map(|(_, value)| value).filter(|value| !value.is_null())
        };
        let number = |name| match member(name) {
            None => Ok(0),
            Some(value) => value.as_i64().ok_or("whole numbers (times in nanoseconds)"),
        };
        let time = |name| match number(name)? {
            0 => Ok(0),
            ns if ns >= MILLISECOND => Ok(ns),
            _ => Err("times of 0 or at least 1 ms (1000000)"),
        };
        let word =
            |value: &Value| value.as_str().filter(|text| !text.contains('\0')).map(str::to_owned).ok_or(TEST);
        let test = match member("test") {
            None => Vec::new(),
            Some(value) => value.as_array().ok_or(TEST)?.iter().map(word).collect::<Result<_, _>>()?,
        };
        let retries = number("retries")?;
        if retries < 0 {
            return Err("Retries that are not negative");
        }
        Ok(Some(Self {
            test,
            interval: time("interval")?,
            timeout: time("timeout")?,
            start_period: time("startperiod")?,
            start_interval: time("startinterval")?,
            retries,
        }))
    }

    /// What is not said here is taken from the image's.
    #[must_use]
    pub fn over(self, image: Option<&Self>) -> Self {
        let Some(image) = image else { return self };
        let or = |own: i64, other: i64| if own == 0 { other } else { own };
        Self {
            interval: or(self.interval, image.interval),
            timeout: or(self.timeout, image.timeout),
            start_period: or(self.start_period, image.start_period),
            start_interval: or(self.start_interval, image.start_interval),
            retries: or(self.retries, image.retries),
            test: if self.test.is_empty() { image.test.clone() } else { self.test },
        }
    }

    /// The check that this asks for, Docker's defaults filled in; `None` where it asks for none.
    /// `shell` is `Shell` of the document.
    pub fn check(&self, shell: &[String]) -> Option<HealthCheck> {
        let (kind, words) = self.test.split_first()?;
        let mut command: Vec<String> = match kind.as_str() {
            "CMD" => Vec::new(),
            "CMD-SHELL" if shell.is_empty() => SHELL.map(str::to_owned).to_vec(),
            "CMD-SHELL" => shell.to_vec(),
            _ => return None,
        };
        command.extend_from_slice(words);
        if command.is_empty() {
            return None;
        }
        let time = |ns: i64, default| match u64::try_from(ns) {
            Ok(ns) if ns > 0 => Duration::from_nanos(ns),
            _ => default,
        };
        Some(HealthCheck {
            command,
            interval: time(self.interval, DEFAULT_INTERVAL),
            timeout: time(self.timeout, DEFAULT_TIMEOUT),
            start_period: time(self.start_period, Duration::ZERO),
            start_interval: time(self.start_interval, DEFAULT_START_INTERVAL),
            retries: u32::try_from(self.retries).ok().filter(|n| *n > 0).unwrap_or(DEFAULT_RETRIES),
        })
    }
}

/// The `Healthcheck` of an image, from its configuration's bytes: Docker's own addition to what the OCI
/// describes. One that can't be read is none.
pub fn of_image(config: &[u8]) -> Option<HealthSettings> {
    let config: Value = serde_json::from_slice(config).ok()?;
    HealthSettings::parse(config.get("config")?.get("Healthcheck")?).ok().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn parsed(value: Value) -> HealthSettings {
        HealthSettings::parse(&value).unwrap().unwrap()
    }

    #[test]
    fn keys_are_free_in_case_and_null_is_nothing() {
        let settings =
            parsed(json!({"TEST": ["CMD", "a", "b"], "interval": 1_000_000_000i64, "Retries": null}));
        let check = settings.check(&[]).unwrap();
        assert_eq!(check.command, ["a", "b"]);
        let times = [check.interval, check.timeout, check.start_period, check.start_interval];
        assert_eq!(times.map(|time| time.as_secs()), [1, 30, 0, 5]);
        assert_eq!(check.retries, 3);
        assert_eq!(HealthSettings::parse(&Value::Null), Ok(None));
    }

    #[test]
    fn what_docker_refuses_is_refused() {
        for wrong in [
            json!("x"),
            json!({"Test": "true"}),
            json!({"Test": ["CMD", 1]}),
            json!({"Test": ["CMD", "a\u{0}"]}),
            json!({"Interval": "1s"}),
            json!({"Interval": 999_999}),
            json!({"Timeout": -1}),
            json!({"StartPeriod": 1.5}),
            json!({"StartInterval": 1}),
            json!({"Retries": -1}),
        ] {
            assert!(HealthSettings::parse(&wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn shells_and_kinds() {
        let run = |test: Value, shell: &[&str]| {
            let shell: Vec<String> = shell.iter().map(|word| (*word).to_owned()).collect();
            parsed(json!({"Test": test})).check(&shell).map(|check| check.command.join(" "))
        };
        assert_eq!(run(json!(["CMD-SHELL", "a || b"]), &[]).unwrap(), "/bin/sh -c a || b");
        assert_eq!(run(json!(["CMD-SHELL", "a"]), &["/bin/ash", "-ec"]).unwrap(), "/bin/ash -ec a");
        for none in [json!([]), json!(["NONE"]), json!(["CMD"]), json!(["cmd", "a"]), json!(["curl"])] {
            assert_eq!(run(none.clone(), &[]), None, "{none}");
        }
    }

    #[test]
    fn what_the_document_leaves_open_the_image_says() {
        let config = json!({"architecture": "amd64", "config": {"Healthcheck": {
            "Test": ["CMD", "of-image"], "Interval": 7_000_000_000i64, "StartPeriod": 9_000_000_000i64, "Retries": 5}}});
        let image = of_image(config.to_string().as_bytes());
        let check = parsed(json!({"Retries": 2, "StartPeriod": 1_000_000_000i64})).over(image.as_ref());
        let check = check.check(&[]).unwrap();
        assert_eq!((check.command.as_slice(), check.retries), (&["of-image".to_owned()][..], 2));
        assert_eq!((check.interval.as_secs(), check.start_period.as_secs()), (7, 1));
        let own = parsed(json!({"Test": ["NONE"]})).over(image.as_ref());
        assert_eq!(own.check(&[]), None);
        for without in ["{}", "x", r#"{"config":{"Healthcheck":{"Retries":-1}}}"#, r#"{"config":null}"#] {
            assert_eq!(of_image(without.as_bytes()), None, "{without}");
        }
    }
}
