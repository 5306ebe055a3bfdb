//! The commands.
pub mod flags;
