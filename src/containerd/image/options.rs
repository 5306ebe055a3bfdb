//! What decides how images are fetched. Filled in by `app` from the configuration.

use crate::containerd::image::access::RegistryLogins;
use crate::containerd::image::hosts::DIRECTORY;
use crate::model::{PullBehavior, RegistryAuth};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// How images are fetched.
#[derive(Debug, Clone)]
pub struct ImageOptions {
    /// `ECS_CONTAINERD_SNAPSHOTTER`.
    pub snapshotter: String,
    /// `ECS_IMAGE_PULL_BEHAVIOR`.
    pub pull_behavior: PullBehavior,
    /// Credentials by registry key: a host, perhaps with a path; the longest that prefixes an
    /// image's name wins. Docker Hub is `index.docker.io/v1/` (spec/task-engine.md 3.4).
    pub auth: Vec<(String, RegistryAuth)>,
    /// `ECS_CONTAINERD_CERTS_DIR`: mirrors and certificates of registries.
    pub hosts_dir: PathBuf,
    /// Where the passwords come from that tasks bring along; `None` where there are none to be had.
    pub logins: Option<Arc<dyn RegistryLogins>>,
    /// Times and sizes.
    pub tuning: PullTuning,
}

impl Default for ImageOptions {
    fn default() -> Self {
        Self {
            snapshotter: "overlayfs".to_owned(),
            pull_behavior: PullBehavior::Default,
            auth: Vec::new(),
            hosts_dir: PathBuf::from(DIRECTORY),
            logins: None,
            tuning: PullTuning::default(),
        }
    }
}

/// Delays between attempts: `first`, then `factor` times longer each, at most `cap`, with jitter.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Backoff {
    /// How often a thing is tried at all.
    pub attempts: u32,
    /// Before the second attempt.
    pub first: Duration,
    /// Growth.
    pub factor: f64,
    /// The longest.
    pub cap: Duration,
}

/// What one layer may take of the disk while it is unpacked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnpackBounds {
    /// That many bytes for each byte as it came. gzip has no more than 1032; what people pack has ten.
    pub times: u64,
    /// Bytes that any layer may take.
    pub at_least: u64,
    /// Bytes that a layer leaves free, on a disk of which that is less than a twentieth.
    pub kept_free: u64,
}

impl UnpackBounds {
    /// Bytes that a layer of this size may take.
    pub fn allowance(&self, size: u64) -> u64 {
        size.saturating_mul(self.times).max(self.at_least)
    }
}

impl Default for UnpackBounds {
    fn default() -> Self {
        Self { times: 200, at_least: 4 << 30, kept_free: 512 << 20 }
    }
}

/// Times and sizes of a pull. Tests shrink them.
#[derive(Debug, Clone)]
pub struct PullTuning {
    /// Fetching (spec/task-engine.md 3.3).
    pub retry: Backoff,
    /// Asking for a tag's digest.
    pub resolve_retry: Backoff,
    /// For a TCP connection.
    pub connect_timeout: Duration,
    /// From a request to the head of its answer.
    pub header_timeout: Duration,
    /// Between two pieces of a body (`ECS_IMAGE_PULL_INACTIVITY_TIMEOUT`).
    pub inactivity_timeout: Duration,
    /// How long a registry may take where a local image serves as well.
    pub local_patience: Duration,
    /// For how long a registry that could not be reached is not asked again where a local image serves.
    pub unreachable_memory: Duration,
    /// Size of one ranged request; layers of more than two parts are fetched in parts.
    pub part_bytes: u64,
    /// Parts of one layer under way at once.
    pub parts_per_layer: usize,
    /// Parts under way at once in all: with `part_bytes`, the bound of the memory used by them.
    pub parts: usize,
    /// Other transfers under way at once in all: blobs in one stream, manifests.
    pub streams: usize,
    /// A transfer that stands still for longer gives its place to the next, until it moves again.
    pub stall: Duration,
    /// Layers of one image under way at once.
    pub layers_per_image: usize,
    /// Layers unpacked at once in all.
    pub unpacks: usize,
    /// What one layer may take of the disk.
    pub unpack_bounds: UnpackBounds,
    /// A layer that takes longer to unpack holds up no other any more: it may hang.
    pub unpack_patience: Duration,
    /// How long containerd keeps the parts of a pull that nobody finished.
    pub lease_life: Duration,
}

impl Default for PullTuning {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
        Self {
            retry: Backoff {
                attempts: 5,
                first: Duration::from_millis(1100),
                factor: 2.0,
                cap: Duration::from_secs(5),
            },
            resolve_retry: Backoff {
                attempts: 6,
                first: Duration::from_millis(50),
                factor: 3.0,
                cap: Duration::from_secs(5),
            },
            connect_timeout: Duration::from_secs(10),
            header_timeout: Duration::from_secs(30),
            inactivity_timeout: Duration::from_secs(60),
            local_patience: Duration::from_secs(2),
            unreachable_memory: Duration::from_secs(10),
            part_bytes: 4 << 20,
            parts_per_layer: 4,
            parts: 8,
            streams: 24,
            stall: Duration::from_secs(10),
            layers_per_image: 3,
            unpacks: cores.min(4),
            unpack_bounds: UnpackBounds::default(),
            unpack_patience: Duration::from_secs(60),
            lease_life: Duration::from_secs(24 * 3600),
        }
    }
}
