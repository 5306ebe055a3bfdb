//! The configuration file of one logger process: JSON, written by the agent (`containerd::logger`),
//! read once. Mode 0600: the options may hold secrets.

use crate::model::logging::LogHost;
use crate::model::{LogDriver, LogOptions, LogSettings};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

/// More than any configuration takes: options, and the labels and variables that they choose.
const SIZE_MAX: u64 = 4 * 1024 * 1024;

/// What a logger shall do.
#[derive(Clone, PartialEq, Eq)]
pub struct LoggerConfig {
    /// The driver and its options.
    pub settings: LogSettings,
    /// The newest file of a driver that writes files.
    pub path: PathBuf,
    /// The tag, its template filled; may be empty.
    pub tag: String,
    /// Labels and variables that go with each message.
    pub attributes: BTreeMap<String, String>,
    /// Whose log it is.
    pub container: LoggedContainer,
    /// Socket of the journal, in place of systemd's.
    pub journal: Option<PathBuf>,
    /// Where it runs; only for drivers that need it.
    pub host: LogHost,
}

/// Attributes may be secrets, as options may.
impl std::fmt::Debug for LoggerConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut shown = f.debug_struct("LoggerConfig");
        shown.field("container", &self.container.id).field("settings", &self.settings).finish_non_exhaustive()
    }
}

/// Whose log it is.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub struct LoggedContainer {
    /// The whole id.
    pub id: String,
    /// Docker's name of it, without the slash.
    pub name: String,
    /// Its image, as written.
    pub image_name: String,
    /// Digest of the image's configuration, `sha256:...`.
    pub image_id: String,
    /// Entry point and arguments, joined by spaces.
    pub command: String,
    /// When it was made, in milliseconds since 1970.
    pub created_ms: u64,
}

/// [`LogHost`] in the file.
#[derive(Default, Deserialize)]
#[serde(default)]
struct WrittenHost {
    environment: BTreeMap<String, String>,
    credentials_endpoint: String,
    region: String,
    dual_stack: bool,
}

impl From<WrittenHost> for LogHost {
    fn from(written: WrittenHost) -> Self {
        let WrittenHost { environment, credentials_endpoint, region, dual_stack } = written;
        Self { environment: environment.into(), credentials_endpoint, region, dual_stack }
    }
}

/// The file. Members may be added: an older logger does without.
#[derive(Deserialize)]
struct Written {
    driver: String,
    #[serde(default)]
    options: BTreeMap<String, String>,
    #[serde(default)]
    path: PathBuf,
    #[serde(default)]
    tag: String,
    #[serde(default)]
    attributes: BTreeMap<String, String>,
    #[serde(default)]
    container: LoggedContainer,
    journal: Option<PathBuf>,
    #[serde(default)]
    host: WrittenHost,
    /// What the options of `json-file` were in the first version's files.
    max_size: Option<u64>,
    max_files: Option<u32>,
}

impl LoggerConfig {
    /// What reads everything and keeps nothing.
    pub fn nothing() -> Self {
        Self {
            settings: LogSettings { driver: LogDriver::None, ..LogSettings::default() },
            path: PathBuf::new(),
            tag: String::new(),
            attributes: BTreeMap::new(),
            container: LoggedContainer::default(),
            journal: None,
            host: LogHost::default(),
        }
    }

    /// Reads a file.
    ///
    /// # Errors
    /// In words, for the logger's stderr: not readable, too long, not our JSON, a driver that there
    /// is not. Values are not shown.
    pub fn load(file: &Path) -> Result<Self, String> {
        let failed = |e: &dyn std::fmt::Display| format!("logger configuration {}: {e}", file.display());
        let mut text = String::new();
        let opened = fs::File::open(file).map_err(|e| failed(&e))?;
        opened.take(SIZE_MAX).read_to_string(&mut text).map_err(|e| failed(&e))?;
        // serde's own words may quote what it read.
        let unreadable = |e: serde_json::Error| failed(&format!("line {}, column {}", e.line(), e.column()));
        let written: Written = serde_json::from_str(&text).map_err(unreadable)?;
        Self::new(written).map_err(|e| failed(&e))
    }

    fn new(written: Written) -> Result<Self, crate::model::LogError> {
        let Written { driver, mut options, path, tag, attributes, container, journal, host, .. } = written;
        let (max_size, max_files) = (written.max_size, written.max_files);
        let old =
            [("max-size", max_size.map(|n| n.to_string())), ("max-file", max_files.map(|n| n.to_string()))];
        options.extend(old.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))));
        let settings = LogSettings::parse(&driver, LogOptions::from(options))?;
        Ok(Self { settings, path, tag, attributes, container, journal, host: host.into() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::logging::JsonFileOptions;

    #[test]
    fn a_file_is_read_and_what_is_wrong_is_named() {
        let file = std::env::temp_dir().join(format!("ecsd-logger-config-{}", std::process::id()));
        let load = |text: &str| {
            fs::write(&file, text).unwrap();
            LoggerConfig::load(&file)
        };
        let config = load(
            r#"{"driver":"json-file","options":{"max-size":"10","max-file":"3"},"path":"/a","tag":"t",
                "attributes":{"a":"b"},"container":{"id":"c1","name":"n","later":1},"later":{}}"#,
        );
        let config = config.unwrap();
        let options = JsonFileOptions { max_size: Some(10), max_files: 3, compress: false };
        assert_eq!(config.settings.driver, LogDriver::JsonFile(options));
        assert_eq!((config.path, config.tag, config.container.id), ("/a".into(), "t".into(), "c1".into()));
        assert_eq!(config.attributes["a"], "b");
        let old = load(r#"{"driver":"json-file","path":"/a","max_size":7,"max_files":2}"#).unwrap();
        let options = JsonFileOptions { max_size: Some(7), max_files: 2, compress: false };
        assert_eq!(old.settings.driver, LogDriver::JsonFile(options));
        assert!(load(r#"{"driver":"papyrus"}"#).unwrap_err().contains("papyrus"));
        let secret = load(r#"{"driver":"json-file","options":"hunter2"}"#).unwrap_err();
        assert!(secret.contains("column") && !secret.contains("hunter2"), "{secret}");
        assert!(load(&"[".repeat(1 << 20)).is_err());
        fs::remove_file(&file).unwrap();
        assert!(LoggerConfig::load(&file).unwrap_err().contains("ecsd-logger-config"));
    }
}
