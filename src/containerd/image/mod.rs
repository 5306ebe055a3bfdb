//! The parts of [`crate::containerd::images`]: from an image's name to a snapshot that can be
//! mounted.
//!
//! ```text
//! reference -> registry (http, auth, retry) -> blob -> content (containerd) -> unpack -> unpacked
//!              `---------------------------- pull ----------------------------'
//!                                import (archive on disk) --^
//! ```

pub mod access;
pub mod archive;
pub mod auth;
pub mod blob;
pub mod bounds;
pub mod content;
pub mod document;
pub mod error;
pub mod flight;
pub mod gate;
pub mod hosts;
pub mod hosts_file;
pub mod http;
pub mod import;
pub mod lease;
pub mod options;
pub mod progress;
pub mod pull;
pub mod record;
pub mod reference;
pub mod registry;
pub mod remote;
pub mod retry;
pub mod tarball;
pub mod tls;
pub mod turns;
pub mod unpack;
pub mod unpacked;
