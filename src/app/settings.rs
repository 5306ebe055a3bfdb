//! The configuration as the agent finds it on its host: environment, JSON file, user data; and the log
//! that it asks for.

use super::Overrides;
use crate::config::{Config, ConfigError, ConfigWarning, LoadedConfig, Sources};
use crate::control::http::SchemeClient;
use crate::control::imds::Imds;
use crate::telemetry::{LogLevel, LogOptions, Rolling};
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

/// Names the JSON file.
const FILE_VARIABLE: &str = "ECS_AGENT_CONFIG_FILE_PATH";
/// Where that is by default, as in the original.
const FILE: &str = "/etc/ecs_container_agent/config.json";
/// More than anybody configures.
const FILE_MAX_BYTES: u64 = 1024 * 1024;

/// What is on this host: the environment, and the file that it names.
struct Local {
    file: Option<(PathBuf, String)>,
    unreadable: Option<ConfigWarning>,
}

impl Local {
    fn read() -> Result<Self, ConfigError> {
        let named = env(FILE_VARIABLE).map(|path| path.trim().to_owned()).filter(|path| !path.is_empty());
        let path = PathBuf::from(named.unwrap_or_else(|| FILE.to_owned()));
        Ok(match read(&path)? {
            Ok(text) => Self { file: text.map(|text| (path, text)), unreadable: None },
            Err(message) => {
                let unreadable = ConfigWarning { variable: path.display().to_string(), message };
                Self { file: None, unreadable: Some(unreadable) }
            }
        })
    }

    fn load(&self, user_data: Option<String>) -> Result<LoadedConfig, ConfigError> {
        let file = self.file.clone();
        let mut loaded = Config::load(Sources { env: Some(&env), file, user_data })?;
        loaded.warnings.extend(self.unreadable.clone());
        Ok(loaded)
    }
}

fn env(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// Reads environment and file alone.
///
/// # Errors
/// [`ConfigError`] naming everything that the agent can't start with.
pub fn load_local() -> Result<LoadedConfig, ConfigError> {
    Local::read()?.load(None)
}

/// Reads everything there is. The metadata service is only asked for user data where it is to be asked
/// at all, and not for long.
///
/// # Errors
/// As [`load_local`].
pub async fn load(overrides: &Overrides) -> Result<LoadedConfig, ConfigError> {
    let local = Local::read()?;
    // User data comes last: whether it is asked for, and what is fatal, is certain without it.
    let without = local.load(None)?;
    if overrides.imds_disabled || without.config.imds_disabled || without.config.external {
        return Ok(without);
    }
    match Imds::new(&SchemeClient::default(), false).user_data().await {
        Ok(user_data) => local.load(Some(user_data)),
        // Mostly there is none, or this is no EC2 instance.
        Err(_) => Ok(without),
    }
}

/// The file's text; `None` where there is no file, a warning where it can't be read.
fn read(path: &Path) -> Result<Result<Option<String>, String>, ConfigError> {
    let fatal = |what: String| ConfigError(vec![format!("{}: {what}", path.display())]);
    let unreadable = |error: std::io::Error| Ok(Err(format!("can't be read, going on without: {error}")));
    let mut bytes = Vec::new();
    let file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Ok(None)),
        Err(error) => return unreadable(error),
    };
    if let Err(error) = file.take(FILE_MAX_BYTES + 1).read_to_end(&mut bytes) {
        return unreadable(error);
    }
    if bytes.len() as u64 > FILE_MAX_BYTES {
        return Err(fatal(format!("more than {FILE_MAX_BYTES} bytes; this is no configuration file")));
    }
    String::from_utf8(bytes).map(|text| Ok(Some(text))).map_err(|e| fatal(format!("malformed JSON: {e}")))
}

/// The log as configuration and flags want it. A level of a flag that is no level is as good as none.
pub fn log_options(config: &Config, overrides: &Overrides) -> LogOptions {
    let flag = |level: &Option<String>| level.as_deref().and_then(LogLevel::from_word);
    let file_level = flag(&overrides.log_level_on_instance).unwrap_or_else(|| config.log_file_level());
    LogOptions {
        format: config.log_format,
        stdout: flag(&overrides.log_level_driver).unwrap_or(config.log_level),
        file: config.log_file.clone().map(|path| (path, file_level)),
        rolling: Rolling {
            when: config.log_rollover,
            max_bytes: config.log_max_file_bytes,
            keep: config.log_max_rolls,
        },
        audit: config.audit_log_file.clone(),
    }
}

/// Warnings about levels that are none, in flags.
pub fn unknown_levels(overrides: &Overrides) -> Vec<ConfigWarning> {
    [
        ("-loglevel-driver", &overrides.log_level_driver),
        ("-loglevel-on-instance", &overrides.log_level_on_instance),
    ]
    .into_iter()
    .filter_map(|(flag, level)| Some((flag, level.as_deref()?)))
    .filter(|(_, level)| LogLevel::from_word(level).is_none())
    .map(|(flag, level)| {
        let message = format!("{level:?} is no level; use debug, info, warn, error, crit or none");
        ConfigWarning { variable: flag.to_owned(), message }
    })
    .collect()
}
