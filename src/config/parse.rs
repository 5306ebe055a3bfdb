//! What each type of variable does with its text. `Ok(Some(..))` is a warning, `Err` is fatal.

use super::go;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::time::Duration;

/// Taken; taken otherwise, with a warning; or fatal.
pub(super) type Applied = Result<Option<String>, String>;

/// The value for messages, cut to a sensible length.
pub(super) fn shown(value: &str) -> String {
    format!("{:?}", value.chars().take(128).collect::<String>())
}

pub(super) fn boolean(value: &str, set: impl FnOnce(bool)) -> Applied {
    match go::boolean(value) {
        Some(value) => {
            set(value);
            Ok(None)
        }
        None => Ok(Some(format!("{} is neither true nor false; using the default", shown(value)))),
    }
}

/// Below `least` something else is used. Zero counts as not set.
pub(super) fn duration(value: &str, least: Duration, instead: Duration, field: &mut Duration) -> Applied {
    let Some(nanoseconds) = go::duration_ns(value) else {
        let text = format!("{} is no duration such as 30s or 1h30m; using the default", shown(value));
        return Ok(Some(text));
    };
    if nanoseconds == 0 {
        return Ok(None);
    }
    let duration = go::positive(nanoseconds);
    if nanoseconds < 0 || duration < least {
        *field = instead;
        return Ok(Some(format!("{} is less than {least:?}; using {instead:?}", shown(value))));
    }
    *field = duration;
    Ok(None)
}

/// The first JSON value of the text; what follows it is not looked at, as in the original.
pub(super) fn first_json<T: DeserializeOwned>(value: &str) -> Option<T> {
    serde_json::Deserializer::from_str(value).into_iter::<T>().next()?.ok()
}

pub(super) fn ports(value: &str, set: impl FnOnce(Vec<u16>)) -> Applied {
    match first_json(value) {
        Some(ports) => {
            set(ports);
            Ok(None)
        }
        None => Ok(Some(format!("{} is no JSON list of ports; using the default", shown(value)))),
    }
}

/// A JSON object of texts; anything else is fatal.
pub(super) fn map(value: &str, set: impl FnOnce(BTreeMap<String, String>)) -> Applied {
    match serde_json::from_str(value) {
        Ok(map) => {
            set(map);
            Ok(None)
        }
        Err(error) => Err(format!(
            "{} is no JSON object of strings ({error}); write {{\"name\":\"value\"}}",
            shown(value)
        )),
    }
}

pub(super) fn address(value: &str, field: &mut std::net::SocketAddr) -> Applied {
    *field = value
        .parse()
        .map_err(|_| format!("{} is no address and port; write such as 127.0.0.1:51679", shown(value)))?;
    Ok(None)
}

/// Absolute: the agent's working directory means nothing.
pub(super) fn path(value: &str, set: impl FnOnce(std::path::PathBuf)) -> Applied {
    if !value.starts_with('/') || value.contains('\0') {
        return Err(format!("{} is no absolute path; begin it with /", shown(value)));
    }
    set(value.into());
    Ok(None)
}

/// Names of cgroups, bridges and the like.
pub(super) fn name(value: &str, most: usize, set: impl FnOnce(String)) -> Applied {
    let fit = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if value.len() > most || value.starts_with('.') || !value.chars().all(fit) {
        let cure = format!("use at most {most} letters, digits, '-', '_' and '.'");
        return Err(format!("{} is not usable as a name; {cure}", shown(value)));
    }
    set(value.to_owned());
    Ok(None)
}
