//! The endpoints that containers and operators ask on this host.
//!
//! Owns two listeners on the loopback: task metadata and credentials (51679, reached by tasks as
//! `169.254.170.2:80` through rules that `net` keeps) and introspection (51678). `app` starts them;
//! the engine publishes a [`Snapshot`] after each step, and answers are made from the newest one: no
//! request ever waits for the engine or the runtime, and none for the network but those that ask ECS itself.
//!
//! ```text
//!   engine ──watch<Arc<Snapshot>>──┐
//!   credentials ──CredentialsLookup┴─> metadata / introspection (pure: request -> reply)
//!                                        ^
//!   container ──tcp──> server (limits on connections, header size, time) ──> limit (429)
//!                                        v
//!                                      AskEcs: tags, protection from scale-in
//! ```
//!
//! Never: writes state, logs a credential. Shapes, words and errors are those
//! of the original (spec/local-endpoints-config.md 1 and 2); `tests/metadata.rs` holds them against
//! recordings of it, and lists where we differ.

mod audit;
mod credentials;
mod ecs;
mod gojson;
mod healthcheck;
mod holder;
mod introspection;
mod limit;
mod metadata;
mod metrics;
mod reply;
mod route;
mod server;
mod shapes;
mod snapshot;
mod stall;
mod stats;

pub use audit::{Access, AccessLog};
pub use credentials::{CredentialsAnswer, CredentialsLookup};
pub use ecs::{AskEcs, Tags};
pub use healthcheck::{HealthcheckError, healthcheck};
pub use introspection::{ChecksLookup, IntrospectionHandler, LogsLookup, PullsLookup};
pub use limit::RateLimit;
pub use metadata::MetadataHandler;
pub use reply::{Answer, Handler, RequestHead};
pub use server::{Server, ServerHandle};
pub use snapshot::{Snapshot, TaskView};
pub use stats::{Latest, StatsLookup};

/// Port of the metadata server, on the loopback.
pub const METADATA_PORT: u16 = 51679;
/// Port of the introspection server, on the loopback.
pub const INTROSPECTION_PORT: u16 = 51678;
