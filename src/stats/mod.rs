//! Statistics of running containers: samples of what they use, once a second, and the figures that the
//! control plane and the containers themselves are told of them (spec/control-plane.md 4.6).
//!
//! ```text
//!  engine's view ──which run──> sampler ──one blocking round──> Meter (cgroup files, link counters)
//!                                  │
//!                                  v
//!                             Statistics ── a queue for each container ──> metrics() .. confirm()   TCS
//!                                                                    └──> latest()                  tmds
//! ```
//!
//! Owns the samples, in memory and bounded. Started by `app`, which also brings the [`Meter`] along.
//! While nothing runs there is no timer and nothing is read. It never enters a container and never
//! keeps a file of one open.

mod continued;
mod queue;
mod sampler;
mod sets;
mod table;

pub use sampler::{Meter, Target, run};
pub use table::{Statistics, processors};
