//! The logs of containers: what the small logger program does that the shim starts for each
//! container (`src/bin/ecsd-logger.rs`), and reading its files back.
//!
//! ```text
//!   container stdout ─ pipe ─> fd 3 ┐  ecsd-logger   ┌> <path>, <path>.1 ... (json-file)
//!   container stderr ─ pipe ─> fd 4 ┴─ LineSplitter ─┴─ FileSink
//! ```
//!
//! Owns the record format, the rotation and the logger's configuration file. The logger outlives
//! the agent and containerd, and never ends before its container; nothing here knows tokio, so
//! that the program stays small. By another name the same program gives a container an open input.

pub mod config;
pub mod input;
pub mod logger;
pub mod reader;
pub mod record;
pub mod sink;
pub mod splitter;

pub use config::{LoggerConfig, logger_uri};
pub use record::{LogLine, LogStream};
