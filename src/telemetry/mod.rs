//! The agent's own log: the original's logfmt (or JSON) lines, to standard output and to `ECS_LOGFILE`,
//! and the audit log of the credentials endpoint (spec/local-endpoints-config.md 1.10, 4).
//!
//! ```text
//!   tracing event ─> layer (levels, fields of spans) ─> format ─┐
//!   metadata server ─> AuditLog ────────────────────────────────┴─> queue ─> thread ─> stdout, files
//! ```
//!
//! Only `app` calls [`init`], once, and [`Log::flush`] at the end. Whoever logs never waits for a disk or
//! a pipe: lines are queued, a full queue drops and counts, a panic and the end of the agent wait until
//! the queue is written. Only a kill can cost the last lines.

mod audit;
mod format;
mod layer;
mod localtime;
mod roll;
mod writer;

pub use audit::{AuditLog, AuditRecord, Granted};
pub use format::LogFormat;
pub use roll::Rolling;

use roll::RollingFile;
use std::path::PathBuf;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use writer::{Sinks, Writer};

/// The target of events at level critical: `tracing::error!(target: CRITICAL, ...)`.
pub const CRITICAL: &str = "ecsd::critical";

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
    /// What ends the agent, and what was asked for whatever the level; see [`CRITICAL`].
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
            Self::Error | Self::Critical => LevelFilter::ERROR,
            Self::None => LevelFilter::OFF,
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

/// What is logged, and where to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogOptions {
    /// Form of lines.
    pub format: LogFormat,
    /// Level of standard output.
    pub stdout: LogLevel,
    /// The file and its level.
    pub file: Option<(PathBuf, LogLevel)>,
    /// When the file is turned over.
    pub rolling: Rolling,
    /// The audit log's file.
    pub audit: Option<PathBuf>,
}

/// The log can't be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The thread can't be started.
    #[error("the log's thread can't be started")]
    Thread(#[source] std::io::Error),
    /// [`init`] was called before.
    #[error("the log is set up already")]
    Twice,
}

/// The process's log.
pub struct Log {
    writer: Writer,
    audit: Option<AuditLog>,
}

impl Log {
    /// Waits until everything that was logged is written, for two seconds at the most.
    pub fn flush(&self) {
        // What is not written by then was not going to be.
        let _ = self.writer.flush();
    }

    /// The audit log, where there is one.
    pub fn audit(&self) -> Option<AuditLog> {
        self.audit.clone()
    }
}

/// Sets up the process's log, and has panics logged. A file that can't be opened is only a warning: the
/// log's is tried again with each line, the audit log stays off.
///
/// # Errors
/// [`TelemetryError`]
pub fn init(options: LogOptions) -> Result<Log, TelemetryError> {
    let mut warnings = Vec::new();
    let file_level = options.file.as_ref().map_or(LogLevel::None, |(_, level)| *level);
    let file = options.file.filter(|(_, level)| *level != LogLevel::None).map(|(path, _)| {
        let mut file = RollingFile::new(&path, options.rolling);
        if let Err(error) = file.open() {
            warnings.push((path, error, "the log file can't be opened; trying again with each line"));
        }
        file
    });
    let audit = options.audit.and_then(|path| {
        // Like the original's: turned over by the hour, unless by size.
        let when = if options.rolling.when == Rollover::Size { Rollover::Size } else { Rollover::Hourly };
        let mut file = RollingFile::new(&path, Rolling { when, ..options.rolling });
        match file.open() {
            Ok(()) => Some(file),
            Err(error) => {
                warnings.push((path, error, "ECS_AUDIT_LOGFILE can't be opened; going on without audit log"));
                None
            }
        }
    });
    let audited = audit.is_some();
    let sinks = Sinks { stdout: Some(Box::new(std::io::stdout())), file, audit };
    let writer = Writer::start(sinks, options.format).map_err(TelemetryError::Thread)?;
    let lines = layer::LineLayer::new(writer.clone(), options.format, options.stdout, file_level);
    let subscriber = tracing_subscriber::registry().with(lines);
    tracing::subscriber::set_global_default(subscriber).map_err(|_| TelemetryError::Twice)?;
    log_panics(writer.clone());
    for (path, error, message) in warnings {
        tracing::warn!(path = %path.display(), %error, "{message}");
    }
    Ok(Log { audit: audited.then(|| AuditLog::new(writer.clone())), writer })
}

/// A panic is in the log, too, and whatever came before it.
fn log_panics(writer: Writer) {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let payload = panic.payload();
        let text = payload.downcast_ref::<String>().map(String::as_str);
        let reason = text.or_else(|| payload.downcast_ref::<&str>().copied()).unwrap_or("unknown");
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        tracing::error!(target: CRITICAL, reason, place, "panic");
        let _ = writer.flush();
        before(panic);
    }));
}
