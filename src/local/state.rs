//! What the control plane knows: clusters, task definitions, container instances, tasks. In memory,
//! behind one lock that is never held across an await; every change of a task or an instance is
//! broadcast. All tables are bounded.

use crate::local::definition::TaskDefinition;
use crate::local::error::ApiError;
use crate::local::instance::Instance;
use crate::local::names::{Names, means};
use crate::local::shape::{list, text};
use crate::local::task::Task;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Stopped tasks that are remembered; older ones are forgotten.
const MAX_STOPPED_TASKS: usize = 1000;
/// Tasks that may exist and not be stopped.
pub const MAX_LIVE_TASKS: usize = 1000;
/// Revisions that may exist.
pub const MAX_DEFINITIONS: usize = 5000;
/// Container instances that may exist.
pub const MAX_INSTANCES: usize = 64;

/// Everything.
#[derive(Debug)]
pub struct State {
    /// How things are called.
    pub names: Names,
    /// Clusters by name.
    pub clusters: Vec<String>,
    /// Revisions by family, in order.
    pub definitions: BTreeMap<String, Vec<Arc<TaskDefinition>>>,
    /// Container instances by ARN.
    pub instances: BTreeMap<String, Instance>,
    /// Tasks, oldest first.
    pub tasks: Vec<Task>,
    /// The last sequence number given to a payload or manifest.
    pub sequence: i64,
}

impl State {
    /// With one cluster. `sequence` is where sequence numbers begin: later starts of the control plane
    /// must begin higher, for agents remember what they saw.
    pub fn new(names: Names, cluster: &str, sequence: i64) -> Self {
        Self {
            names,
            clusters: vec![cluster.to_owned()],
            definitions: BTreeMap::new(),
            instances: BTreeMap::new(),
            tasks: Vec::new(),
            sequence,
        }
    }

    /// The cluster's name that a request means: by ARN, by name; nothing means the first.
    ///
    /// # Errors
    /// `ClusterNotFoundException`
    pub fn cluster(&self, given: &str) -> Result<String, ApiError> {
        let first = self.clusters.first().filter(|_| given.is_empty() || given == "default");
        let found = self.clusters.iter().find(|name| means(given, &self.names.cluster(name)));
        found.or(first).cloned().ok_or_else(ApiError::cluster_not_found)
    }

    /// The revision that `family`, `family:revision` or an ARN means.
    ///
    /// # Errors
    /// `ClientException`, with the service's own text.
    pub fn definition(&self, given: &str) -> Result<&Arc<TaskDefinition>, ApiError> {
        let not_found = || ApiError::client("Unable to describe task definition.");
        let name = match given.strip_prefix("arn:") {
            Some(_) => given.rsplit("task-definition/").next().unwrap_or_default(),
            None => given,
        };
        let (family, revision) = match name.split_once(':') {
            Some((family, revision)) => (family, Some(revision.parse::<u32>().map_err(|_| not_found())?)),
            None => (name, None),
        };
        let revisions = self.definitions.get(family).ok_or_else(not_found)?;
        let found = match revision {
            Some(revision) => revisions.iter().find(|d| d.revision == revision),
            None => revisions.iter().rev().find(|d| !d.inactive),
        };
        found.filter(|d| !given.starts_with("arn:") || d.arn == given).ok_or_else(not_found)
    }

    /// How many revisions there are.
    pub fn definition_count(&self) -> usize {
        self.definitions.values().map(Vec::len).sum()
    }

    /// The position of the task that an id or ARN means within a cluster.
    pub fn find_task(&self, cluster: &str, given: &str) -> Option<usize> {
        self.tasks.iter().position(|t| t.cluster == cluster && means(given, &t.arn))
    }

    /// Takes what an agent told of its tasks' health: a PublishHealthRequest.
    pub fn take_health(&mut self, message: &Value) {
        for entry in list(message, "tasks") {
            let arn = text(entry, "taskArn");
            if let Some(task) = self.tasks.iter_mut().find(|task| task.arn == arn) {
                task.take_health(entry);
            }
        }
    }

    /// The next sequence number.
    pub fn next_sequence(&mut self) -> i64 {
        self.sequence += 1;
        self.sequence
    }

    /// Forgets the oldest stopped tasks beyond what is remembered.
    pub fn forget_old_tasks(&mut self) {
        let stopped = self.tasks.iter().filter(|t| t.is_stopped()).count();
        let mut excess = stopped.saturating_sub(MAX_STOPPED_TASKS);
        self.tasks.retain(|t| {
            let drop = excess > 0 && t.is_stopped();
            excess -= usize::from(drop);
            !drop
        });
    }
}
