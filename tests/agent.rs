//! The whole agent on real parts: containerd, runc, the kernel's network, against the embedded control
//! plane (or a scripted one) over real sockets. Each test has a host of its own; see `support::host`.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod support;

#[path = "agent/admission.rs"]
mod admission;
#[path = "agent/bad_input.rs"]
mod bad_input;
#[path = "agent/clean_up.rs"]
mod clean_up;
#[path = "agent/cloud_logs.rs"]
mod cloud_logs;
#[path = "agent/containerd_killed.rs"]
mod containerd_killed;
#[path = "agent/crash_matrix.rs"]
mod crash_matrix;
#[path = "agent/depends.rs"]
mod depends;
#[path = "agent/disk_full.rs"]
mod disk_full;
#[path = "agent/dump.rs"]
mod dump;
#[path = "agent/durability.rs"]
mod durability;
#[path = "agent/exits.rs"]
mod exits;
#[path = "agent/health.rs"]
mod health;
#[path = "agent/host_restart.rs"]
mod host_restart;
#[path = "agent/image_cleanup.rs"]
mod image_cleanup;
#[path = "agent/images.rs"]
mod images;
#[path = "agent/init.rs"]
mod init;
#[path = "agent/inside.rs"]
mod inside;
#[path = "agent/logs.rs"]
mod logs;
#[path = "agent/lost_state.rs"]
mod lost_state;
#[path = "agent/namespaces.rs"]
mod namespaces;
#[path = "agent/network.rs"]
mod network;
#[path = "agent/old_state.rs"]
mod old_state;
#[path = "agent/pulls.rs"]
mod pulls;
#[path = "agent/registration.rs"]
mod registration;
#[path = "agent/restart.rs"]
mod restart;
#[path = "agent/runtimes.rs"]
mod runtimes;
#[path = "agent/scripted.rs"]
mod scripted;
#[path = "agent/secrets.rs"]
mod secrets;
#[path = "agent/volumes.rs"]
mod volumes;
