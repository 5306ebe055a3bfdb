//! The embedded ECS control plane: one TCP port that speaks the ECS API, the ACS websocket and the
//! telemetry websocket, so that the agent, the `aws ecs` CLI and the SDKs work with no AWS account.
//!
//! ```text
//!  aws ecs / SDKs ──http──┐                        ┌── ws::acs ──> agent (payloads, acks)
//!  agent ──────────http───┴─> server ─> api ─> State ── ws::tcs <── agent (telemetry)
//!  ecsd local ──> Handle ──────────────────────┘  └── changes (broadcast) ──> ecsd local
//! ```
//!
//! Owns what the service would know: task definitions, tasks, container instances; all in memory,
//! bounded, gone with the process. Started by `ecsd local` and by tests. Knows the wire types of
//! `control` and nothing else of the agent: they meet over real sockets only. It checks no
//! signatures: bind it to a loopback address.

mod api;
mod definition;
mod error;
mod handle;
mod instance;
mod names;
mod placement;
mod report;
mod roles;
mod server;
mod shape;
mod shared;
mod state;
mod task;
mod telemetry;
mod translate;
mod ws;

pub use error::ApiError;
pub use handle::{ControlPlane, Handle, LocalError, Options};
pub use roles::TaskCredentials;
pub use server::TELEMETRY_PATH;
pub use shared::Change;
pub use task::{Container, Task, rank};
pub use telemetry::{Received, Telemetry};
