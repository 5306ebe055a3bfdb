//! containerd over gRPC: images, snapshots, containers, processes.
pub mod connection;
pub mod image;
pub mod images;
pub use connection::{ConnectError, Connection};
