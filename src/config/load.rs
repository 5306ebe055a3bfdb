//! The layers, one over the other. Each variable is asked of each source in turn until one sets it: a
//! value that is unusable gets a warning and the next source is asked.

use super::json::{self, Form, Layer};
use super::parse::{Outcome, shown};
use super::table::{NO_EFFECT, Variable, variables};
use super::{Config, go};
use std::path::PathBuf;

/// Where values come from, best first.
#[derive(Default)]
pub struct Sources<'a> {
    /// The environment.
    pub env: Option<&'a dyn Fn(&str) -> Option<String>>,
    /// The JSON file's path and text, where there is one.
    pub file: Option<(PathBuf, String)>,
    /// The instance's user data, where it could be had.
    pub user_data: Option<String>,
}

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// The environment.
    Environment,
    /// The JSON file.
    File(PathBuf),
    /// The instance's user data.
    UserData,
    /// Another variable implies it.
    Implied(&'static str),
    /// Nobody said anything.
    Default,
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Environment => f.write_str("environment"),
            Self::File(path) => write!(f, "{}", path.display()),
            Self::UserData => f.write_str("user data"),
            Self::Implied(by) => f.write_str(by),
            Self::Default => f.write_str("default"),
        }
    }
}

/// A variable that was not taken as it is; the agent starts all the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigWarning {
    /// The variable, or the source.
    pub variable: String,
    /// What was wrong and what is used instead.
    pub message: String,
}

impl std::fmt::Display for ConfigWarning {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.variable, self.message)
    }
}

/// Values with which the agent can't start: all of them, not just the first. Exit code 1.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the configuration can't be used: {}", .0.join("; "))]
pub struct ConfigError(pub Vec<String>);

/// The configuration and how it came about.
#[derive(Debug, Clone, PartialEq)]
pub struct LoadedConfig {
    /// The settings.
    pub config: Config,
    /// What was not taken as it is.
    pub warnings: Vec<ConfigWarning>,
    origins: Vec<Origin>,
}

/// One setting for whoever wants to see it; secrets are left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Effective {
    /// The variable, or the key of one that only files have.
    pub name: &'static str,
    /// Its value; empty where there is none.
    pub value: String,
    /// Where that came from.
    pub origin: Origin,
}

impl LoadedConfig {
    /// Every setting, in the order of the documentation.
    pub fn effective(&self) -> Vec<Effective> {
        variables()
            .zip(&self.origins)
            .map(|(v, origin)| Effective {
                name: v.name,
                value: (v.show)(&self.config),
                origin: origin.clone(),
            })
            .collect()
    }
}

impl Config {
    /// Puts the sources together.
    ///
    /// # Errors
    /// [`ConfigError`] naming each fatal variable, its value and the cure.
    pub fn load(sources: Sources<'_>) -> Result<LoadedConfig, ConfigError> {
        let mut loading = Loading::default();
        let env = |name: &str| sources.env.and_then(|env| env(name));
        let mut layers: Vec<(Origin, Layer)> = Vec::new();
        if let Some((path, text)) = &sources.file {
            let name = path.display().to_string();
            match json::read(text) {
                Ok((layer, remarks)) => {
                    remarks.into_iter().for_each(|remark| loading.warn(name.clone(), remark));
                    layers.push((Origin::File(path.clone()), layer));
                }
                Err(error) => loading.fatal.push(format!("{name}: {error}")),
            }
        }
        // Whatever is wrong with user data, it is not the agent's: others read it, too.
        match sources.user_data.as_deref().map(json::read_user_data) {
            Some(Ok((layer, remarks))) => {
                remarks.into_iter().for_each(|remark| loading.warn("user data".to_owned(), remark));
                layers.push((Origin::UserData, layer));
            }
            Some(Err(error)) => loading.warn("user data".to_owned(), format!("{error}; ignoring all of it")),
            None => {}
        }
        for (index, variable) in variables().enumerate() {
            loading.variable(index, variable, &env, &layers);
        }
        for (variable, _, why) in NO_EFFECT {
            let value = env(variable).unwrap_or_default();
            if !value.trim().is_empty() && go::boolean(value.trim()) != Some(false) {
                loading.warn((*variable).to_owned(), format!("has no effect: {why}"));
            }
        }
        loading.finish()
    }

    /// Reads the environment alone.
    ///
    /// # Errors
    /// [`ConfigError`]
    pub fn from_env(vars: impl Fn(&str) -> Option<String>) -> Result<LoadedConfig, ConfigError> {
        Self::load(Sources { env: Some(&vars), ..Sources::default() })
    }
}

/// What has been found so far.
struct Loading {
    config: Config,
    origins: Vec<Origin>,
    warnings: Vec<ConfigWarning>,
    fatal: Vec<String>,
}

impl Default for Loading {
    fn default() -> Self {
        Self {
            config: Config::default(),
            origins: vec![Origin::Default; variables().count()],
            warnings: Vec::new(),
            fatal: Vec::new(),
        }
    }
}

impl Loading {
    fn warn(&mut self, variable: String, message: String) {
        self.warnings.push(ConfigWarning { variable, message });
    }

    /// Asks one source after the other, until one sets the variable.
    fn variable(
        &mut self,
        index: usize,
        variable: &'static Variable,
        env: &dyn Fn(&str) -> Option<String>,
        layers: &[(Origin, Layer)],
    ) {
        let said = |value: &String| !value.trim().is_empty() || variable.blank_counts;
        let from_env = variable.env.then(|| env(variable.name)).flatten().filter(said);
        let from_layers = layers.iter().filter_map(|(origin, layer)| {
            let (key, form) = variable.key?;
            Some((origin.clone(), format!("{origin}: {key}"), layer.get(key)?.clone(), form))
        });
        let candidates: Vec<_> = from_env
            .map(|value| (Origin::Environment, variable.name.to_owned(), value, Form::Text))
            .into_iter()
            .chain(from_layers)
            .collect();
        if candidates.is_empty() {
            return;
        }
        let before = self.config.clone();
        for (origin, place, value, form) in candidates {
            let value = value.trim();
            if let Form::Nanoseconds(least) = form
                && go::duration_ns(value).is_some_and(|ns| i128::from(ns) < least.as_nanos() as i128)
            {
                self.fatal.push(format!("{place}: {} is less than {least:?}; write more", shown(value)));
                return;
            }
            match (variable.apply)(&mut self.config, value) {
                Outcome::Taken => {}
                Outcome::Changed(message) => self.warn(place.clone(), message),
                Outcome::Unset => continue,
                Outcome::Ignored(message) => {
                    self.warn(place, message);
                    continue;
                }
                Outcome::Fatal(message) => {
                    self.fatal.push(format!("{place}: {message}"));
                    return;
                }
            }
            if let Some(later) = variable.later
                && (variable.show)(&self.config) != (variable.show)(&Config::default())
            {
                self.warn(place, later.to_owned());
            }
            self.origins[index] = origin;
            self.note_implied(index, variable.name, &before);
            return;
        }
    }

    /// What else changed with a variable came from that.
    fn note_implied(&mut self, index: usize, by: &'static str, before: &Config) {
        for (i, (other, origin)) in variables().zip(&mut self.origins).enumerate() {
            let changed = || (other.show)(before) != (other.show)(&self.config);
            if i != index && *origin == Origin::Default && changed() {
                *origin = Origin::Implied(by);
            }
        }
    }

    fn finish(mut self) -> Result<LoadedConfig, ConfigError> {
        if self.config.external && self.config.region.is_none() {
            let text = "ECS_EXTERNAL: an instance outside of EC2 can't be asked for its region; set AWS_DEFAULT_REGION";
            self.fatal.push(text.to_owned());
        }
        if !self.fatal.is_empty() {
            return Err(ConfigError(self.fatal));
        }
        let Self { config, origins, warnings, .. } = self;
        Ok(LoadedConfig { config, warnings, origins })
    }
}
