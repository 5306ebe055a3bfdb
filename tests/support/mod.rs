//! Private instances of what the agent talks to. Each test program uses some of it.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, missing_docs)]

pub mod containerd;
pub mod registry;
