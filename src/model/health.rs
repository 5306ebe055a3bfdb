//! Health of containers: what is run to find out, and what came of it (spec/task-engine.md 2.6).

use crate::model::time::Wall;
use std::time::Duration;

/// The health check of one container: Docker's, its defaults filled in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthCheck {
    /// Program and arguments; at least the program.
    pub command: Vec<String>,
    /// From the end of one run to the next, and from the start of the container to the first.
    pub interval: Duration,
    /// How long one run may take, counted from when its process has started.
    pub timeout: Duration,
    /// For so long after the start of the container failures don't count, until a run succeeds.
    pub start_period: Duration,
    /// In place of the interval within the start period, until a run succeeds.
    pub start_interval: Duration,
    /// Failures in a row that make a container unhealthy; at least 1.
    pub retries: u32,
}

/// How one run of a health check ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthResult {
    /// Exit code of its process; -1 where there is none.
    pub exit_code: i32,
    /// What it wrote, or why there is no exit code.
    pub output: String,
}

/// What a health check says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum HealthStatus {
    /// Nothing yet.
    #[default]
    Unknown,
    /// All is well.
    Healthy,
    /// It failed often enough.
    Unhealthy,
}

impl HealthStatus {
    /// The word on the wire.
    pub fn word(self) -> &'static str {
        match self {
            Self::Unknown => "UNKNOWN",
            Self::Healthy => "HEALTHY",
            Self::Unhealthy => "UNHEALTHY",
        }
    }
}

/// Health of a container, as of the last time that it changed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Health {
    /// What its check says.
    pub status: HealthStatus,
    /// When that changed; `None` where it never has.
    pub since: Option<Wall>,
    /// What the run wrote that changed it; at most [`Health::MOST_OUTPUT`] bytes.
    pub output: String,
    /// Exit code of that run; only where it is unhealthy.
    pub exit_code: Option<i32>,
}

impl Health {
    /// Bytes of a run's output that are told.
    pub const MOST_OUTPUT: usize = 1024;
}
