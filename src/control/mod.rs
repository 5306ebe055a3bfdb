//! The control plane: the ECS API, the two websockets (ACS and TCS), their wire types, signatures
//! and the instance's identity. `app` builds it; the engine sees only [`crate::ports`].
//!
//! ```text
//!  Account (region, endpoint, credentials, one HTTP client)
//!     ├── EcsApi ── register, discover the poll endpoints, submit state changes
//!     ├── acs::run ── payloads -> AcsEvent, acks back
//!     ├── tcs::run ── telemetry frames
//!     └── imds ── identity document, zone, region
//! ```

pub mod account;
pub mod acs;
mod addresses;
pub mod api;
pub mod attributes;
pub mod backoff;
pub mod clock;
pub mod credentials;
pub mod dial;
pub mod ec2;
pub mod ecr;
mod endpoints;
pub mod facts;
pub mod gpu;
pub mod http;
pub mod identity;
pub mod imds;
pub mod payload;
pub mod roles;
pub mod routes;
pub mod secrets;
pub mod service;
pub mod sigv4;
pub mod tcs;
pub mod tls;
pub mod update;
pub mod ws;

pub use crate::reach::proxy;
pub use account::Account;
pub use acs::{AcsContext, AcsEvent};

pub use api::EcsApi;
pub use facts::InstanceFacts;
pub use identity::AgentIdentity;
pub use roles::CredentialsStore;

/// An error and all its causes in one line, for the log.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}
