//! The check that a container was made with, as an extension of its record in containerd: it outlives
//! the agent, and the image that it may partly come from.

use crate::model::HealthCheck;
use prost_types::Any;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::time::Duration;

/// Name of the extension.
const EXTENSION: &str = "com.ecsd.health-check";
const TYPE: &str = "ecsd.HealthCheck";

/// Times in nanoseconds.
#[derive(Serialize, Deserialize)]
struct Stored {
    command: Vec<String>,
    interval: u64,
    timeout: u64,
    start_period: u64,
    start_interval: u64,
    retries: u32,
}

/// The extensions of a container's record that has this check.
pub(in crate::containerd) fn extensions(check: Option<&HealthCheck>) -> HashMap<String, Any> {
    let nanoseconds = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
    let stored = check.map(|check| Stored {
        command: check.command.clone(),
        interval: nanoseconds(check.interval),
        timeout: nanoseconds(check.timeout),
        start_period: nanoseconds(check.start_period),
        start_interval: nanoseconds(check.start_interval),
        retries: check.retries,
    });
    // Strings and numbers always have a JSON.
    let value = stored.and_then(|stored| serde_json::to_vec(&stored).ok());
    let any = value.map(|value| (EXTENSION.to_owned(), Any { type_url: TYPE.to_owned(), value }));
    any.into_iter().collect()
}

/// The check of a record with these extensions; `None` where it has none.
///
/// # Errors
/// One that can't be read.
pub(super) fn check(extensions: &HashMap<String, Any>) -> Result<Option<HealthCheck>, serde_json::Error> {
    let Some(any) = extensions.get(EXTENSION) else { return Ok(None) };
    let stored: Stored = serde_json::from_slice(&any.value)?;
    Ok(Some(HealthCheck {
        command: stored.command,
        interval: Duration::from_nanos(stored.interval),
        timeout: Duration::from_nanos(stored.timeout),
        start_period: Duration::from_nanos(stored.start_period),
        start_interval: Duration::from_nanos(stored.start_interval),
        retries: stored.retries.max(1),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_stored_is_read_again() {
        let second = Duration::from_secs(1);
        let health = HealthCheck {
            command: vec!["/bin/sh".into(), "-c".into(), "true || \"false\"".into()],
            interval: second,
            timeout: second * 2,
            start_period: Duration::ZERO,
            start_interval: second * 5,
            retries: 4,
        };
        assert_eq!(check(&extensions(Some(&health))).unwrap(), Some(health));
        assert!(extensions(None).is_empty());
        assert_eq!(check(&HashMap::new()).unwrap(), None);
        let junk = Any { type_url: TYPE.into(), value: b"{".to_vec() };
        assert!(check(&HashMap::from([(EXTENSION.to_owned(), junk)])).is_err());
    }
}
