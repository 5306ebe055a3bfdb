//! What stopping a container and judging its exit need of its record, kept in memory: so neither waits
//! for containerd to look up what was known when the container was made, or when it was listed.

use crate::containerd::containers::{ContainerService, LABEL_CGROUP, LABEL_STOP_SIGNAL};
use crate::model::ContainerId;
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Of one container. A record of somebody else's making may lack either.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Marks {
    /// Number of its stop signal.
    pub stop_signal: Option<u32>,
    /// Its cgroup, as the OCI spec names it.
    pub cgroup: Option<String>,
}

impl Marks {
    fn of(labels: &HashMap<String, String>) -> Self {
        Self {
            stop_signal: labels.get(LABEL_STOP_SIGNAL).and_then(|number| number.parse().ok()),
            cgroup: labels.get(LABEL_CGROUP).cloned(),
        }
    }
}

/// Of all containers that were made, listed or looked up.
#[derive(Debug, Default)]
pub(super) struct KnownMarks(Mutex<HashMap<ContainerId, Marks>>);

impl KnownMarks {
    /// Keeps those of a record.
    pub fn keep(&self, id: &ContainerId, labels: &HashMap<String, String>) -> Marks {
        let marks = Marks::of(labels);
        self.lock().insert(id.clone(), marks.clone());
        marks
    }

    /// The container is gone.
    pub fn forget(&self, id: &ContainerId) {
        self.lock().remove(id);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ContainerId, Marks>> {
        // One insertion or removal can't be half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ContainerService {
    /// A container's marks; `None` where there is no such container.
    pub(super) async fn marks(&self, id: &ContainerId) -> Result<Option<Marks>, tonic::Status> {
        if let Some(marks) = self.marks.lock().get(id) {
            return Ok(Some(marks.clone()));
        }
        Ok(self.record(id).await?.map(|record| self.marks.keep(id, &record.labels)))
    }
}
