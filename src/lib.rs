//! ecsd: the Amazon ECS container agent for hosts that run containerd and no dockerd.
//!
//! ```text
//!  ECS API ───┐                                                      ┌─> containerd  images, containers, processes
//!  ACS ───────┼─ control ──tasks──> engine ───────> core::step ──effects──┼─> net         namespaces, bridge, port map
//!  TCS ───────┘     ^              (one loop,       (pure: no clock, ├─> cgroup      task limits
//!                   └───reports─── owns the State)   no I/O)         └─> store       one transaction a turn
//!                                        │                ^              │
//!                                view (watch)             └── every effect answers with an event
//!                                        v
//!                                  tmds: metadata, credentials, introspection
//! ```
//!
//! | module | what lives there | may import |
//! |---|---|---|
//! | [`model`] | plain data in the field's words | nothing |
//! | [`core`] | the pure state machine | `model` |
//! | [`ports`] | the traits by which the engine reaches the world | `model`, events of `core` |
//! | [`engine`] | the shell around the core | `core`, `ports`, `model` |
//! | [`containerd`], [`net`], [`cgroup`], [`resources`], [`control`], [`store`], [`tmds`], [`logs`], [`stats`] | adapters | `ports`, `model`, `reach`; never one another |
//! | [`reach`] | which proxy leads to a host, whose certificates are believed | nothing |
//! | [`config`], [`telemetry`] | variables; the agent's own log | `model` |
//! | [`local`] | the embedded control plane | `model`, wire types of `control` |
//! | [`app`] | puts one of each together | everything but `cli` |
//! | [`cli`] | the commands | `app`, `local`, ... |
//!
//! What always holds:
//! - The core does no I/O and reads no clock; the engine is the only owner of its state.
//! - What is acknowledged, started or given back was made durable before.
//! - Ids in the runtime are derived from task and container: nothing is ever made twice.
//! - Stopping the agent never touches a container.
//! - Credentials and secrets never reach a log, a `Debug`, the store or an error.
//!
//! `tests/architecture.rs` holds the table, `tests/properties.rs` the core's invariants.

pub mod app;
pub mod cgroup;
pub mod cli;
pub mod config;
pub mod containerd;
pub mod control;
pub mod core;
mod crashpoint;
pub mod engine;
pub mod local;
pub mod logs;
pub mod model;
pub mod net;
pub mod ports;
pub mod reach;
pub mod resources;
pub mod stats;
pub mod store;
pub mod telemetry;
pub mod tmds;
