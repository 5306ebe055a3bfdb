//! containerd over gRPC: images, snapshots, containers, processes.
pub mod connection;
pub use connection::{ConnectError, Connection};
