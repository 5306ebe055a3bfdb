//! An option's value that nobody may see.

use std::fmt;

/// A secret; Debug shows that there is one.
#[derive(Clone, PartialEq, Eq)]
pub struct Hidden(String);

impl Hidden {
    /// Hides a value.
    pub fn new(value: &str) -> Self {
        Self(value.to_owned())
    }

    /// The value, for whoever it is meant for.
    pub fn get(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hidden")
    }
}
