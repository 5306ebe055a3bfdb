//! Options of `journald`: only those that choose tag and attributes.

use super::options::{ATTRIBUTES, OptionReader};
use super::{LogError, LogOptions};

/// The host's journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JournaldOptions;

impl JournaldOptions {
    pub(super) fn parse(options: &LogOptions) -> Result<Self, LogError> {
        OptionReader::new("journald", options, &[ATTRIBUTES]).map(|_| Self)
    }
}
