//! ecsd: the Amazon ECS container agent for hosts that run containerd and no dockerd.

pub mod app;
pub mod cgroup;
pub mod cli;
pub mod config;
pub mod containerd;
pub mod control;
pub mod core;
pub mod engine;
pub mod local;
pub mod logs;
pub mod model;
pub mod net;
pub mod ports;
pub mod store;
pub mod telemetry;
pub mod tmds;
