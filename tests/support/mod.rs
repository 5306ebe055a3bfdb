//! What several test programs share.
#![allow(dead_code, missing_docs)]

pub mod backend;
pub mod sigv4;
