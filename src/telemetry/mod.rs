//! The agent's own log: the original's logfmt (or JSON) lines, to standard output and appended to
//! `ECS_LOGFILE` (spec/local-endpoints-config.md 4).
//!
//! `tracing` events go in, their fields and those of the spans around them become `key=value`. Only
//! `app` calls [`init`], once. Nothing is buffered: a line that was logged before a crash is there.

mod format;
mod layer;

pub use format::LogFormat;

use std::path::{Path, PathBuf};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;

/// `ECS_LOGLEVEL`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogLevel {
    /// Everything.
    Debug,
    /// What an operator wants to know.
    #[default]
    Info,
    /// What should not happen.
    Warn,
    /// What must not happen.
    Error,
    /// What ends the agent. Nothing is logged at this level so far.
    Critical,
    /// Nothing.
    None,
}

impl LogLevel {
    /// The level of a word, in any case; `None` for any other word.
    pub fn from_word(word: &str) -> Option<Self> {
        Some(match word.trim().to_ascii_lowercase().as_str() {
            "debug" => Self::Debug,
            "info" => Self::Info,
            "warn" => Self::Warn,
            "error" => Self::Error,
            "crit" => Self::Critical,
            "none" | "off" => Self::None,
            _ => return None,
        })
    }

    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
            Self::Critical => "crit",
            Self::None => "none",
        }
    }

    fn filter(self) -> LevelFilter {
        match self {
            Self::Debug => LevelFilter::DEBUG,
            Self::Info => LevelFilter::INFO,
            Self::Warn => LevelFilter::WARN,
            Self::Error => LevelFilter::ERROR,
            Self::Critical | Self::None => LevelFilter::OFF,
        }
    }
}

/// `ECS_LOG_ROLLOVER_TYPE`: when a log file is turned over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Rollover {
    /// When it is large.
    #[default]
    Size,
    /// When the hour is over.
    Hourly,
    /// Never.
    None,
}

/// The log can't be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The file can't be opened.
    #[error("ECS_LOGFILE {path}: can't be opened for appending; its directory must exist and be writable")]
    File {
        /// Path.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// [`init`] was called before.
    #[error("the log is set up already")]
    Twice,
}

/// Sets up the process's log.
///
/// # Errors
/// [`TelemetryError`]
pub fn init(level: LogLevel, logfile: Option<&Path>, format: LogFormat) -> Result<(), TelemetryError> {
    let file = match logfile {
        None => None,
        Some(path) => {
            let opened = std::fs::OpenOptions::new().create(true).append(true).open(path);
            Some(opened.map_err(|source| TelemetryError::File { path: path.to_owned(), source })?)
        }
    };
    let sinks = layer::Sinks { file, stdout: true };
    let lines = layer::LineLayer::new(sinks, format, level.filter());
    let subscriber = tracing_subscriber::registry().with(lines);
    tracing::subscriber::set_global_default(subscriber).map_err(|_| TelemetryError::Twice)
}
