//! See the table in the crate's front page.

pub mod local;
