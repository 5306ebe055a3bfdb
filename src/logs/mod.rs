//! The logs of containers: what the small logger program does that the shim starts for each
//! container (`src/bin/ecsd-logger.rs`), and reading its files back.
//!
//! ```text
//!   container stdout ─ pipe ─> fd 3 ┐       ecsd-logger        ┌> <path>, <path>.1 ... (json-file)
//!   container stderr ─ pipe ─> fd 4 ┴─ Pieces ─ Queue ─ Driver ─┴> a log server (one module a driver)
//! ```
//!
//! Owns the drivers, the record format, the rotation and the reading of the logger's configuration
//! file. The logger outlives the agent and containerd, and never ends before its container; nothing
//! here knows tokio, so that the program stays small. By another name the same program gives a
//! container an open input. [`driver`] says how a driver is written, `model::logging` what it is asked.

mod awslogs;
pub mod config;
mod conn;
pub mod counters;
mod datagram;
pub mod driver;
mod fluentd;
mod gelf;
mod gzip;
mod http;
pub mod input;
mod journald;
pub mod logger;
mod msgpack;
mod none;
mod pieces;
mod queue;
pub mod reader;
pub mod record;
mod sink;
mod splitter;
mod splunk;
mod syslog;
mod times;
mod tls;

pub use config::LoggerConfig;
pub use journald::SOCKET as JOURNAL_SOCKET;
pub use record::{LogLine, LogStream};
