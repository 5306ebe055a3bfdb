//! Which containers share a shim, and who may use it at the same time.
//!
//! The containers of a task share one shim (design, "One shim a task"). Two moments are delicate:
//! the first creation starts the shim, and the last deletion ends it. Whatever else uses the same
//! shim at such a moment would find it half up or half gone, so both are exclusive within the
//! task; everything between is concurrent.

use crate::model::{ContainerId, TaskId};
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock};

/// The shims in use, by task. Cheap to ask; nothing is held across an await but the guards.
#[derive(Debug, Default)]
pub struct ShimGroups {
    tasks: Mutex<HashMap<TaskId, Group>>,
}

#[derive(Debug, Default)]
struct Group {
    /// Containers that the shim holds for certain, and that nobody is deleting.
    settled: HashSet<ContainerId>,
    gate: Arc<RwLock<()>>,
}

/// Held while a shim is used: beside others, or alone. Neither for a container whose task is not
/// known here.
#[derive(Debug, Default)]
pub struct ShimGuard {
    _shared: Option<OwnedRwLockReadGuard<()>>,
    _alone: Option<OwnedRwLockWriteGuard<()>>,
}

impl ShimGroups {
    /// To be held while a process is created.
    pub async fn creating(&self, task: &TaskId) -> ShimGuard {
        let (first, gate) = {
            let mut tasks = self.lock();
            let group = tasks.entry(task.clone()).or_default();
            (group.settled.is_empty(), Arc::clone(&group.gate))
        };
        enter(first, gate).await
    }

    /// The shim holds this container now; said while the guard of its creation is held.
    pub fn settle(&self, task: &TaskId, id: &ContainerId) {
        self.lock().entry(task.clone()).or_default().settled.insert(id.clone());
    }

    /// To be held while a process is deleted. The last one of its shim is deleted alone.
    pub async fn deleting(&self, id: &ContainerId) -> ShimGuard {
        let found = {
            let mut tasks = self.lock();
            let holds = |group: &&mut Group| group.settled.contains(id);
            tasks.values_mut().find(holds).map(|group| {
                group.settled.remove(id);
                (group.settled.is_empty(), Arc::clone(&group.gate))
            })
        };
        match found {
            Some((last, gate)) => enter(last, gate).await,
            None => ShimGuard::default(),
        }
    }

    /// Forgets tasks that nobody uses; said after a deletion, its guard dropped.
    pub fn sweep(&self) {
        self.lock().retain(|_, group| !group.settled.is_empty() || Arc::strong_count(&group.gate) > 1);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<TaskId, Group>> {
        // Nothing below can panic while it is held; were it so, the sets are still whole.
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn enter(alone: bool, gate: Arc<RwLock<()>>) -> ShimGuard {
    match alone {
        true => ShimGuard { _alone: Some(gate.write_owned().await), _shared: None },
        false => ShimGuard { _shared: Some(gate.read_owned().await), _alone: None },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::TaskArn;

    fn ids() -> (TaskId, ContainerId, ContainerId) {
        let arn = TaskArn::parse("arn:aws:ecs:r:1:task/c/t").unwrap();
        (arn.id(), ContainerId::derive(&arn, "a"), ContainerId::derive(&arn, "b"))
    }

    #[tokio::test]
    async fn the_first_and_the_last_are_alone_the_rest_are_not() {
        let groups = ShimGroups::default();
        let (task, a, b) = ids();
        let first = groups.creating(&task).await;
        assert!(first._alone.is_some());
        groups.settle(&task, &a);
        drop(first);
        let second = groups.creating(&task).await;
        assert!(second._shared.is_some());
        // The last one that is settled is deleted only after the creation that uses its shim.
        let mut last = Box::pin(groups.deleting(&a));
        assert!(futures_util::poll!(&mut last).is_pending());
        groups.settle(&task, &b);
        drop(second);
        assert!(last.await._alone.is_some());
    }

    #[tokio::test]
    async fn nothing_is_kept_for_tasks_that_are_gone() {
        let groups = ShimGroups::default();
        let (task, a, _) = ids();
        drop(groups.creating(&task).await);
        groups.settle(&task, &a);
        assert!(groups.deleting(&a).await._alone.is_some());
        groups.sweep();
        assert!(groups.lock().is_empty());
        assert!(groups.deleting(&a).await._alone.is_none());
    }
}
