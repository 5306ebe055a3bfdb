//! Health of containers: the rules by which single runs of a check become a status, and what the
//! status means for a task (spec/task-engine.md 1.5, 2.6).
//!
//! ```text
//!   UNKNOWN ──a run succeeds──> HEALTHY ──`retries` failures in a row──> UNHEALTHY
//!      └──── `retries` failures in a row, past the start period ────────────^  │
//!                                  ^──────────── a run succeeds ───────────────┘
//! ```
//! UNKNOWN is Docker's "starting", and what every start of a container begins with. Health never
//! changes the status of a container or a task, and is not stored: only those who wait for a container
//! to be HEALTHY look at it here.

use crate::core::task::Task;
use crate::model::{ContainerStatus, Health, HealthCheck, HealthResult, HealthStatus, Wall};
use std::time::Duration;

/// The health of one container, from one start to its end. `age` is how long that start is past.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthMonitor {
    interval: Duration,
    start_interval: Duration,
    start_period: Duration,
    retries: u32,
    status: HealthStatus,
    /// Failures in a row that count.
    streak: u32,
}

impl HealthMonitor {
    /// Of a container of which nothing is known yet.
    pub fn new(check: &HealthCheck) -> Self {
        Self {
            interval: check.interval,
            start_interval: check.start_interval,
            start_period: check.start_period,
            retries: check.retries,
            status: HealthStatus::Unknown,
            streak: 0,
        }
    }

    /// How long to wait before the next run, where the last one (or the start) has just ended.
    pub fn pause(&self, age: Duration) -> Duration {
        match self.is_starting(age) {
            true => self.start_interval,
            false => self.interval,
        }
    }

    /// Takes the result of a run that began at that age. The container's health where it changed.
    pub fn take(&mut self, result: HealthResult, age: Duration, now: Wall) -> Option<Health> {
        let before = self.status;
        if result.exit_code == 0 {
            self.streak = 0;
            self.status = HealthStatus::Healthy;
        } else if !self.is_starting(age) {
            self.streak = self.streak.saturating_add(1);
            if self.streak >= self.retries {
                self.status = HealthStatus::Unhealthy;
            }
        }
        (self.status != before).then(|| Health {
            status: self.status,
            since: Some(now),
            exit_code: (self.status == HealthStatus::Unhealthy).then_some(result.exit_code),
            output: cut(result.output),
        })
    }

    fn is_starting(&self, age: Duration) -> bool {
        self.status == HealthStatus::Unknown && age < self.start_period
    }
}

/// As much of an output as is told.
fn cut(mut output: String) -> String {
    output.truncate(output.floor_char_boundary(Health::MOST_OUTPUT));
    output
}

impl Task {
    /// What is known of a container's health.
    pub fn health(&self, name: &str) -> Option<&Health> {
        self.runs.get(name).map(|run| &run.health)
    }

    /// The checks of a container say something new. Of one that does not run they say nothing.
    pub(super) fn health_changed(&mut self, name: &str, health: Health) {
        let known = self.progress.containers.get(name);
        let runs = known.is_some_and(|c| c.known == ContainerStatus::Running && !c.restarts.under_way);
        if let Some(run) = self.runs.get_mut(name).filter(|_| runs) {
            run.health = health;
        }
    }

    /// The container was started: whatever its checks said of the process before is over.
    pub(super) fn health_begins(&mut self, name: &str, now: Wall) {
        if let Some(run) = self.runs.get_mut(name)
            && run.health.status != HealthStatus::Unknown
        {
            run.health = Health { since: Some(now), ..Health::default() };
        }
    }
}

#[cfg(test)]
#[path = "health_tests.rs"]
mod tests;
