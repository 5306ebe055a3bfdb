//! The control-plane protocol as a back end sees it, held against the agent's own program: registration,
//! the websockets, payloads, credentials, reports, and what survives the agent's end.
//!
//! The back end (`support::backend`) is scripted and in this process, over real sockets. It verifies the
//! signature of every API call, of both handshakes and of each frame of telemetry by an implementation of
//! its own, and a question that it has no answer for fails the test. Each test has a host of its own, with
//! a private containerd in a network namespace. Rules whose timers take minutes are held by
//! `tests/control`, with shorter ones; the bodies of reports by `tests/golden.rs`.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod support;

#[path = "conformance/instance.rs"]
mod instance;
#[path = "conformance/payloads.rs"]
mod payloads;
#[path = "conformance/reaching.rs"]
mod reaching;
#[path = "conformance/registration.rs"]
mod registration;
#[path = "conformance/reports.rs"]
mod reports;
#[path = "conformance/roles.rs"]
mod roles;
#[path = "agent/scripted.rs"]
mod scripted;
#[path = "conformance/sessions.rs"]
mod sessions;
#[path = "conformance/settings.rs"]
mod settings;
#[path = "conformance/telemetry.rs"]
mod telemetry;
#[path = "conformance/updates.rs"]
mod updates;
