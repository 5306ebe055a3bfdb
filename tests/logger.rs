//! The logger program as the containerd shim runs it: pipes on fds 3, 4 and 5, against servers that speak
//! the log protocols over real sockets.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

#[path = "logger/awslogs.rs"]
mod awslogs;
#[path = "support/cloudlogs.rs"]
#[allow(dead_code)]
mod cloudlogs;
#[path = "logger/delivery.rs"]
mod delivery;
#[path = "logger/fluentd.rs"]
mod fluentd;
#[path = "logger/gelf.rs"]
mod gelf;
#[path = "support/http.rs"]
mod http;
#[path = "logger/journald.rs"]
mod journald;
#[path = "logger/json_file.rs"]
mod json_file;
#[path = "logger/program.rs"]
mod program;
#[path = "support/sigv4.rs"]
#[allow(dead_code)]
mod sigv4;
#[path = "logger/splunk.rs"]
mod splunk;
#[path = "logger/syslog.rs"]
mod syslog;
#[path = "support/tls.rs"]
mod tls;
