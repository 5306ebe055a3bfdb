//! What goes with each message besides its text: the labels and variables that the options choose.

use super::{LogError, LogOptions};
use regex_lite::Regex;
use std::collections::BTreeMap;

/// Chooses of a container's labels and environment by `labels`, `labels-regex`, `env` and `env-regex`,
/// as dockerd does: names exactly, or by a regular expression that fits anywhere; variables win.
///
/// # Errors
/// [`LogError::Value`] for an expression that is none.
pub fn attributes(
    driver: &'static str,
    options: &LogOptions,
    labels: &BTreeMap<String, String>,
    environment: &BTreeMap<String, String>,
) -> Result<BTreeMap<String, String>, LogError> {
    let mut chosen = BTreeMap::new();
    for (names, pattern, from) in [("labels", "labels-regex", labels), ("env", "env-regex", environment)] {
        for name in options.given(names).unwrap_or_default().split(',') {
            if let Some(value) = from.get(name) {
                chosen.insert(name.to_owned(), value.clone());
            }
        }
        let Some(pattern_text) = options.given(pattern) else { continue };
        let wrong = |_| LogError::Value { driver, option: pattern, expected: "a regular expression" };
        let pattern = Regex::new(pattern_text).map_err(wrong)?;
        let fits = from.iter().filter(|(name, _)| pattern.is_match(name));
        chosen.extend(fits.map(|(name, value)| (name.clone(), value.clone())));
    }
    Ok(chosen)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_expressions_choose() {
        let map = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
            pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
        };
        let labels = map(&[("team", "a"), ("tier", "web"), ("other", "x")]);
        let environment = map(&[("STAGE", "prod"), ("SECRET", "s"), ("team", "of env")]);
        let of = |options: &[(&str, &str)]| {
            attributes("x", &options.iter().copied().collect(), &labels, &environment)
        };
        assert_eq!(of(&[]).unwrap(), map(&[]));
        let chosen = of(&[("labels", "team,absent"), ("labels-regex", "^ti"), ("env", "STAGE,team")]);
        assert_eq!(chosen.unwrap(), map(&[("team", "of env"), ("tier", "web"), ("STAGE", "prod")]));
        assert_eq!(of(&[("env-regex", "STA")]).unwrap(), map(&[("STAGE", "prod")]));
        assert!(of(&[("env-regex", "(")]).unwrap_err().to_string().contains("env-regex"));
    }
}
