//! What several test programs share: private instances of what the agent talks to. Each program uses
//! some of it.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

pub mod backend;
pub mod bench;
pub mod cloudlogs;
pub mod containerd;
pub mod faulty;
pub mod front;
pub mod host;
pub mod http;
pub mod inspect;
pub mod load;
pub mod proxy;
pub mod registry;
pub mod sigv4;
pub mod tls;
