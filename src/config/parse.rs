//! What each type of variable does with its text.

use super::go;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::time::Duration;

/// What became of a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Taken.
    Taken,
    /// Something else was taken in its stead; why.
    Changed(String),
    /// Counts as not set: the next source is asked.
    Unset,
    /// Unusable, and why: the next source is asked.
    Ignored(String),
    /// The agent can't start with it; why and the cure.
    Fatal(String),
}

/// The value for messages, cut to a sensible length.
pub(super) fn shown(value: &str) -> String {
    format!("{:?}", value.chars().take(128).collect::<String>())
}

pub(super) fn boolean(value: &str, set: impl FnOnce(bool)) -> Outcome {
    match go::boolean(value) {
        Some(value) => {
            set(value);
            Outcome::Taken
        }
        None => Outcome::Ignored(format!("{} is neither true nor false; ignoring it", shown(value))),
    }
}

/// Below `least` something else is used. Zero counts as not set.
pub(super) fn duration(value: &str, least: Duration, instead: Duration, field: &mut Duration) -> Outcome {
    between(value, (least, Duration::MAX), (instead, instead), field)
}

/// Below and above the range something else is used. Zero counts as not set.
pub(super) fn between(
    value: &str,
    (least, most): (Duration, Duration),
    (below, above): (Duration, Duration),
    field: &mut Duration,
) -> Outcome {
    let Some(nanoseconds) = go::duration_ns(value) else {
        return Outcome::Ignored(format!(
            "{} is no duration such as 30s or 1h30m; ignoring it",
            shown(value)
        ));
    };
    if nanoseconds == 0 {
        return Outcome::Unset;
    }
    let duration = go::positive(nanoseconds);
    if nanoseconds < 0 || duration < least {
        *field = below;
        return Outcome::Changed(format!("{} is less than {least:?}; using {below:?}", shown(value)));
    }
    if duration > most {
        *field = above;
        return Outcome::Changed(format!("{} is more than {most:?}; using {above:?}", shown(value)));
    }
    *field = duration;
    Outcome::Taken
}

/// A whole number within limits.
pub(super) fn number(value: &str, limits: std::ops::RangeInclusive<u32>, field: &mut u32) -> Outcome {
    match value.parse::<u32>().ok().filter(|number| limits.contains(number)) {
        Some(number) => {
            *field = number;
            Outcome::Taken
        }
        None => Outcome::Ignored(format!(
            "{} is not a whole number from {} to {}; ignoring it",
            shown(value),
            limits.start(),
            limits.end()
        )),
    }
}

/// Two numbers with something between them.
pub(super) fn pair<T: std::str::FromStr>(value: &str, separator: char) -> Option<(T, T)> {
    let (first, second) = value.split_once(separator)?;
    Some((first.trim().parse().ok()?, second.trim().parse().ok()?))
}

/// The first JSON value of the text; what follows it is not looked at, as in the original.
pub(super) fn first_json<T: DeserializeOwned>(value: &str) -> Option<T> {
    serde_json::Deserializer::from_str(value).into_iter::<T>().next()?.ok()
}

/// A JSON list; `what` its members are, for the warning.
pub(super) fn list<T: DeserializeOwned>(value: &str, what: &str, set: impl FnOnce(Vec<T>)) -> Outcome {
    match first_json(value) {
        Some(list) => {
            set(list);
            Outcome::Taken
        }
        None => Outcome::Ignored(format!("{} is no JSON list of {what}; ignoring it", shown(value))),
    }
}

/// A JSON object of texts; anything else is fatal.
pub(super) fn map(value: &str, set: impl FnOnce(BTreeMap<String, String>)) -> Outcome {
    match serde_json::from_str(value) {
        Ok(map) => {
            set(map);
            Outcome::Taken
        }
        Err(error) => Outcome::Fatal(format!(
            "{} is no JSON object of strings ({error}); write {{\"name\":\"value\"}}",
            shown(value)
        )),
    }
}

pub(super) fn address(value: &str, field: &mut std::net::SocketAddr) -> Outcome {
    match value.parse() {
        Ok(address) => {
            *field = address;
            Outcome::Taken
        }
        Err(_) => {
            Outcome::Fatal(format!("{} is no address and port; write such as 127.0.0.1:51679", shown(value)))
        }
    }
}

/// Absolute: the agent's working directory means nothing.
pub(super) fn path(value: &str, set: impl FnOnce(std::path::PathBuf)) -> Outcome {
    if !value.starts_with('/') || value.contains('\0') {
        return Outcome::Fatal(format!("{} is no absolute path; begin it with /", shown(value)));
    }
    set(value.into());
    Outcome::Taken
}

/// Names of cgroups, bridges and the like.
pub(super) fn name(value: &str, most: usize, set: impl FnOnce(String)) -> Outcome {
    let fit = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if value.len() > most || value.starts_with('.') || !value.chars().all(fit) {
        let cure = format!("use at most {most} letters, digits, '-', '_' and '.'");
        return Outcome::Fatal(format!("{} is not usable as a name; {cure}", shown(value)));
    }
    set(value.to_owned());
    Outcome::Taken
}
