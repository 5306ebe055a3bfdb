//! Options of `json-file`.

use super::options::{ATTRIBUTES, OptionReader, parse_bytes};
use super::{LogError, LogOptions};

/// Rotated files of JSON lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JsonFileOptions {
    /// Bytes at which a file is rotated; `None` is never.
    pub max_size: Option<u64>,
    /// How many files are kept, at least 1.
    pub max_files: u32,
}

impl Default for JsonFileOptions {
    fn default() -> Self {
        Self { max_size: None, max_files: 1 }
    }
}

impl JsonFileOptions {
    pub(super) fn parse(options: &LogOptions) -> Result<Self, LogError> {
        let own: &[&str] = &["max-size", "max-file"];
        let options = OptionReader::new("json-file", options, &[own, ATTRIBUTES])?;
        let max_size = match options.text("max-size") {
            // Docker's own way to write its default.
            Some("-1") => None,
            _ => options.parsed("max-size", "a size above 0, such as 10m", |text| {
                parse_bytes(text, 1000).filter(|size| *size > 0)
            })?,
        };
        let count = |text: &str| text.parse::<u32>().ok().filter(|n| (1..=1000).contains(n));
        let max_files = options.parsed("max-file", "a number from 1 to 1000", count)?.unwrap_or(1);
        Ok(Self { max_size, max_files })
    }
}
