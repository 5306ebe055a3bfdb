//! The configuration file of one logger process: JSON, written by the agent, read once.

use crate::model::LogDriver;
use serde::{Deserialize, Serialize};
use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// More than any configuration takes.
const SIZE_MAX: u64 = 64 * 1024;

/// What a logger shall do. `{"driver":"json-file","path":"/...","max_size":null,"max_files":1}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "driver", rename_all = "kebab-case", deny_unknown_fields)]
pub enum LoggerConfig {
    /// Rotated files of JSON lines.
    JsonFile {
        /// The newest file; older ones are `<path>.1`, `<path>.2`...
        path: PathBuf,
        /// Bytes at which a file is rotated; none is never.
        max_size: Option<u64>,
        /// How many files there are at the most; 0 counts as 1.
        max_files: u32,
    },
    /// Reads everything, keeps nothing.
    None,
}

impl LoggerConfig {
    /// The configuration for a log driver whose newest file is `path`.
    pub fn new(driver: &LogDriver, path: PathBuf) -> Self {
        match driver {
            LogDriver::JsonFile { max_size, max_files } => {
                Self::JsonFile { path, max_size: *max_size, max_files: *max_files }
            }
            LogDriver::None => Self::None,
        }
    }

    /// Reads a file.
    ///
    /// # Errors
    /// In words, for the logger's stderr: not readable, too long, not our JSON.
    pub fn load(file: &Path) -> Result<Self, String> {
        let failed = |e: &dyn std::fmt::Display| format!("logger configuration {}: {e}", file.display());
        let mut text = String::new();
        let opened = fs::File::open(file).map_err(|e| failed(&e))?;
        opened.take(SIZE_MAX).read_to_string(&mut text).map_err(|e| failed(&e))?;
        serde_json::from_str(&text).map_err(|e| failed(&e))
    }

    /// Writes a file that only root reads: it may hold what must not be seen.
    ///
    /// # Errors
    /// The kernel's.
    pub fn store(&self, file: &Path) -> io::Result<()> {
        let opened = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(file)?;
        serde_json::to_writer(opened, self).map_err(io::Error::from)
    }
}

/// The URI that makes containerd's shim start the logger `program` with this configuration, for
/// the stdout and stderr of a container (spec/containerd-and-crates.md, the stdio table). One
/// parameter only: the shim shuffles several.
pub fn logger_uri(program: &Path, config: &Path) -> String {
    use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
    const PATH: &percent_encoding::AsciiSet =
        &NON_ALPHANUMERIC.remove(b'/').remove(b'-').remove(b'_').remove(b'.').remove(b'~');
    let escape = |p: &Path| utf8_percent_encode(&p.to_string_lossy(), PATH).to_string();
    format!("binary://{}?--config={}", escape(program), escape(config))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_stored_is_loaded_and_what_is_wrong_is_named() {
        let file = std::env::temp_dir().join(format!("ecsd-logger-config-{}", std::process::id()));
        let driver = LogDriver::JsonFile { max_size: Some(10), max_files: 3 };
        let config = LoggerConfig::new(&driver, PathBuf::from("/var/log/x"));
        config.store(&file).unwrap();
        assert_eq!(LoggerConfig::load(&file).unwrap(), config);
        let text = r#"{"driver":"json-file","path":"/a","max_size":null,"max_files":1}"#;
        fs::write(&file, text).unwrap();
        let expected = LoggerConfig::JsonFile { path: "/a".into(), max_size: None, max_files: 1 };
        assert_eq!(LoggerConfig::load(&file).unwrap(), expected);
        fs::write(&file, r#"{"driver":"awslogs"}"#).unwrap();
        assert!(LoggerConfig::load(&file).unwrap_err().contains("awslogs"));
        fs::write(&file, vec![b'['; 1 << 20]).unwrap();
        assert!(LoggerConfig::load(&file).is_err());
        fs::remove_file(&file).unwrap();
        assert!(LoggerConfig::load(&file).unwrap_err().contains("ecsd-logger-config"));
    }

    #[test]
    fn the_uri_has_one_parameter_and_no_character_that_would_end_it() {
        let uri = logger_uri(Path::new("/usr/libexec/ecsd-logger"), Path::new("/var/lib/a b&c.json"));
        assert_eq!(uri, "binary:///usr/libexec/ecsd-logger?--config=/var/lib/a%20b%26c.json");
    }
}
