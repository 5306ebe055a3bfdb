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
    /// Rotated files are compressed.
    pub compress: bool,
}

impl Default for JsonFileOptions {
    fn default() -> Self {
        Self { max_size: None, max_files: 1, compress: false }
    }
}

impl JsonFileOptions {
    pub(super) fn parse(options: &LogOptions) -> Result<Self, LogError> {
        let own: &[&str] = &["max-size", "max-file", "compress"];
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
        let compress = options.flag("compress")?;
        if compress && (max_files == 1 || max_size.is_none()) {
            return Err(LogError::Together(
                "compress cannot be true when max-file is less than 2 or max-size is not set",
            ));
        }
        Ok(Self { max_size, max_files, compress })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_rotated_can_be_compressed() {
        let parse = |options: &[(&str, &str)]| JsonFileOptions::parse(&options.iter().copied().collect());
        assert_eq!(parse(&[("max-size", "-1")]), Ok(JsonFileOptions::default()));
        let sized = [("max-size", "1k"), ("max-file", "2"), ("compress", "true")];
        let want = JsonFileOptions { max_size: Some(1000), max_files: 2, compress: true };
        assert_eq!(parse(&sized), Ok(want));
        for wrong in [&sized[1..], &[sized[0], sized[2]], &[("max-size", "0")], &[("max-file", "0")]] {
            assert!(parse(wrong).is_err(), "{wrong:?}");
        }
    }
}
