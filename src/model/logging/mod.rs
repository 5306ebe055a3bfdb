//! Where a container's output goes: `LogConfig` of the task definition, checked and typed. The rules
//! and error texts are dockerd's (spec/task-engine.md 7.2), since that is what the original passes on.
//!
//! ```text
//!   LogConfig ─ containerd: LogSettings::parse ─> error of the create, or the logger's file (0600)
//!                                                 │ options as they were written
//!   logger program: LogSettings::parse again <────┘
//! ```
//!
//! A driver is one module here (what it is asked) and one in `logs` (what it does). To add one: its
//! options in a module, a variant of [`LogDriver`], a line in [`LogDriver::parse`] and in [`DRIVERS`].

mod address;
mod attributes;
mod awslogs;
mod fluentd;
mod gelf;
mod hidden;
pub mod host;
mod journald;
mod json_file;
mod options;
mod splunk;
mod syslog;
mod tag;

pub use address::ServerAddress;
pub use attributes::attributes;
pub use awslogs::AwsLogsOptions;
pub use fluentd::FluentdOptions;
pub use gelf::{GelfCompression, GelfOptions, GelfTransport};
pub use hidden::Hidden;
pub use host::{Environment, LogHost};
pub use journald::JournaldOptions;
pub use json_file::JsonFileOptions;
pub use options::{LogOptions, OptionReader, parse_bytes, parse_duration};
pub use splunk::{SplunkFormat, SplunkOptions};
pub use syslog::{SyslogAddress, SyslogFormat, SyslogOptions};
pub use tag::{TagSource, render_tag};

/// A `LogConfig` that can't be used. The words are dockerd's, where it has some.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LogError {
    /// There is no such driver.
    #[error("logger: no log driver named '{0}' is registered")]
    UnknownDriver(String),
    /// The driver has no such option.
    #[error("unknown log opt '{option}' for {driver} log driver")]
    UnknownOption {
        /// The driver.
        driver: &'static str,
        /// The option.
        option: String,
    },
    /// `mode` is neither of two.
    #[error("logger: logging mode not supported: {0}")]
    Mode(String),
    /// `max-buffer-size` where nothing is buffered.
    #[error("logger: max-buffer-size option is only supported with 'mode=non-blocking'")]
    BufferSize,
    /// A value that is not understood. It is not shown: it may be a secret.
    #[error("invalid value for log opt '{option}' of {driver} log driver: expected {expected}")]
    Value {
        /// The driver.
        driver: &'static str,
        /// The option.
        option: &'static str,
        /// What it should be.
        expected: &'static str,
    },
    /// An option that has to be there.
    #[error("must specify a value for log opt '{option}' of {driver} log driver")]
    Missing {
        /// The driver.
        driver: &'static str,
        /// The option.
        option: &'static str,
    },
    /// Options that do not go together, in dockerd's words.
    #[error("{0}")]
    Together(&'static str),
    /// The tag's template.
    #[error("failed to parse the log tag template: {0}")]
    Tag(String),
}

/// The names of all drivers that there are, as `ECS_AVAILABLE_LOGGING_DRIVERS` has them.
pub const DRIVERS: &[&str] =
    &["json-file", "syslog", "awslogs", "journald", "gelf", "fluentd", "splunk", "none"];

/// A driver with its own options.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogDriver {
    /// CloudWatch Logs.
    AwsLogs(Box<AwsLogsOptions>),
    /// Rotated files of JSON lines.
    JsonFile(JsonFileOptions),
    /// Nowhere.
    None,
    /// The forward protocol.
    Fluentd(FluentdOptions),
    /// syslog messages.
    Syslog(SyslogOptions),
    /// Graylog's format.
    Gelf(GelfOptions),
    /// The host's journal.
    Journald(JournaldOptions),
    /// An HTTP event collector of Splunk.
    Splunk(Box<SplunkOptions>),
}

impl LogDriver {
    /// # Errors
    /// [`LogError`], of the driver's own options.
    fn parse(name: &str, options: &LogOptions) -> Result<Self, LogError> {
        match name {
            "" | "json-file" => JsonFileOptions::parse(options).map(Self::JsonFile),
            "none" => Ok(Self::None),
            "fluentd" => FluentdOptions::parse(options).map(Self::Fluentd),
            "syslog" => SyslogOptions::parse(options).map(Self::Syslog),
            "gelf" => GelfOptions::parse(options).map(Self::Gelf),
            "journald" => JournaldOptions::parse(options).map(Self::Journald),
            "awslogs" => AwsLogsOptions::parse(options).map(|options| Self::AwsLogs(Box::new(options))),
            "splunk" => SplunkOptions::parse(options).map(|options| Self::Splunk(Box::new(options))),
            _ => Err(LogError::UnknownDriver(name.to_owned())),
        }
    }

    /// Its name.
    pub fn name(&self) -> &'static str {
        match self {
            Self::JsonFile(_) => "json-file",
            Self::None => "none",
            Self::Fluentd(_) => "fluentd",
            Self::Syslog(_) => "syslog",
            Self::Gelf(_) => "gelf",
            Self::Journald(_) => "journald",
            Self::AwsLogs(_) => "awslogs",
            Self::Splunk(_) => "splunk",
        }
    }

    /// The template of the tag, where the options have none; empty is no tag.
    pub fn default_tag(&self) -> &'static str {
        match self {
            Self::JsonFile(_) | Self::None => "",
            Self::AwsLogs(_) => "{{.FullID}}",
            _ => "{{.ID}}",
        }
    }

    /// The longest piece of a line in one message, in bytes.
    pub fn message_max(&self) -> usize {
        match self {
            Self::AwsLogs(_) => 262_144 - 26,
            Self::Splunk(_) => 80 * 1024,
            _ => 16 * 1024,
        }
    }

    /// What it needs of the host; `None` is nothing.
    pub fn needs_of_host(&self) -> Option<host::HostNeeds> {
        match self {
            Self::AwsLogs(options) if options.credentials_path.is_none() => {
                Some(host::HostNeeds::Credentials)
            }
            Self::AwsLogs(_) | Self::Splunk(_) => Some(host::HostNeeds::Reach),
            _ => None,
        }
    }
}

/// What happens while the sink is slower than the container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// The container's writes wait.
    Blocking,
    /// Lines wait in memory; what finds it full is dropped and counted.
    NonBlocking {
        /// Bytes of lines.
        max_bytes: u64,
        /// How many lines.
        max_messages: u64,
    },
}

/// The original's `max-buffer-size`, where the mode is non-blocking and none is given.
const DEFAULT_BUFFER_BYTES: u64 = 10 * 1024 * 1024;

/// A `LogConfig` that is understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogSettings {
    /// The driver.
    pub driver: LogDriver,
    /// `mode` and `max-buffer-size`.
    pub delivery: Delivery,
    /// All options, as they were written.
    pub options: LogOptions,
}

impl Default for LogSettings {
    /// dockerd's: files that grow for ever.
    fn default() -> Self {
        let driver = LogDriver::JsonFile(JsonFileOptions::default());
        Self { driver, delivery: Delivery::Blocking, options: LogOptions::default() }
    }
}

impl LogSettings {
    /// `Type` and `Config` of a `LogConfig`; an empty type is `json-file`.
    ///
    /// # Errors
    /// [`LogError`]
    pub fn parse(name: &str, options: LogOptions) -> Result<Self, LogError> {
        // Docker, too, looks for the driver first.
        let known = name.is_empty() || DRIVERS.contains(&name);
        if !known {
            return Err(LogError::UnknownDriver(name.to_owned()));
        }
        let mut delivery = delivery(&options)?;
        let driver = LogDriver::parse(name, &options)?;
        // Its own buffer stands before it, whatever the mode: what finds that full is lost.
        if let LogDriver::Fluentd(FluentdOptions { asynchronous: true, buffer_limit, .. }) = driver {
            let max_bytes = match delivery {
                Delivery::NonBlocking { max_bytes, .. } => max_bytes,
                Delivery::Blocking => DEFAULT_BUFFER_BYTES,
            };
            delivery = Delivery::NonBlocking { max_bytes, max_messages: buffer_limit };
        }
        Ok(Self { driver, delivery, options })
    }

    /// The template of the tag; empty is no tag.
    pub fn tag(&self) -> &str {
        self.options.given("tag").unwrap_or_else(|| self.driver.default_tag())
    }
}

fn delivery(options: &LogOptions) -> Result<Delivery, LogError> {
    let size = options.get("max-buffer-size");
    match options.get("mode").unwrap_or_default() {
        "" | "blocking" if size.is_some() => Err(LogError::BufferSize),
        "" | "blocking" => Ok(Delivery::Blocking),
        "non-blocking" => {
            let max_bytes = size.map_or(Some(DEFAULT_BUFFER_BYTES), |text| parse_bytes(text, 1024));
            let max_bytes = max_bytes.ok_or(LogError::Value {
                driver: "any",
                option: "max-buffer-size",
                expected: "a size such as 10m",
            })?;
            Ok(Delivery::NonBlocking { max_bytes, max_messages: u64::MAX })
        }
        other => Err(LogError::Mode(other.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(name: &str, options: &[(&str, &str)]) -> Result<LogSettings, LogError> {
        LogSettings::parse(name, options.iter().copied().collect())
    }

    #[test]
    fn unknown_drivers_and_options_are_refused_in_dockerds_words() {
        let words = |name, options| parse(name, options).unwrap_err().to_string();
        assert_eq!(words("papyrus", &[]), "logger: no log driver named 'papyrus' is registered");
        assert_eq!(
            words("json-file", &[("max-sise", "1m")]),
            "unknown log opt 'max-sise' for json-file log driver"
        );
        assert_eq!(words("", &[("mode", "x")]), "logger: logging mode not supported: x");
        assert_eq!(
            words("json-file", &[("max-buffer-size", "1m")]),
            "logger: max-buffer-size option is only supported with 'mode=non-blocking'"
        );
        let size = words("json-file", &[("mode", "non-blocking"), ("max-buffer-size", "secret")]);
        assert!(size.contains("max-buffer-size") && !size.contains("secret"), "{size}");
    }

    #[test]
    fn non_blocking_without_a_size_has_the_originals() {
        let of = |options: &[(&str, &str)]| parse("json-file", options).unwrap().delivery;
        let drops = |max_bytes, max_messages| Delivery::NonBlocking { max_bytes, max_messages };
        assert_eq!(of(&[]), Delivery::Blocking);
        assert_eq!(of(&[("mode", "non-blocking")]), drops(10 << 20, u64::MAX));
        let sized = [("mode", "non-blocking"), ("max-buffer-size", "4k")];
        assert_eq!(of(&sized), drops(4096, u64::MAX));
        let own = parse("fluentd", &[("fluentd-async", "true"), ("fluentd-buffer-limit", "5")]);
        assert_eq!(own.unwrap().delivery, drops(10 << 20, 5));
    }

    #[test]
    fn every_driver_is_known_by_its_name() {
        for name in DRIVERS {
            match LogDriver::parse(name, &LogOptions::default()) {
                Ok(driver) => assert_eq!(driver.name(), *name),
                Err(error) => assert!(!matches!(error, LogError::UnknownDriver(_)), "{name}: {error}"),
            }
        }
    }
}
