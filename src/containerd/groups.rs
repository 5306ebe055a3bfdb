//! Which containers share a shim, and who may use it at the same time.
//!
//! The containers of a task share one shim (design, "One shim a task"). Two moments are delicate:
//! the first creation starts the shim, and the last deletion ends it. Whatever else uses the same
//! shim at such a moment would find it half up or half gone, so both are exclusive within the
//! task; everything between is concurrent. A shim that hangs so holds up its own task, and no other:
//! nothing here is shared between tasks but a map that is never held across an await.

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

/// A deletion under way. Dropped before [`Deletion::done`], the shim still holds the container.
#[derive(Debug)]
pub struct Deletion<'a> {
    groups: &'a ShimGroups,
    of: Option<(TaskId, ContainerId)>,
    guard: ShimGuard,
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
    pub async fn deleting(&self, id: &ContainerId) -> Deletion<'_> {
        let found = {
            let mut tasks = self.lock();
            let holds = |(_, group): &(&TaskId, &mut Group)| group.settled.contains(id);
            tasks.iter_mut().find(holds).map(|(task, group)| {
                group.settled.remove(id);
                (task.clone(), group.settled.is_empty(), Arc::clone(&group.gate))
            })
        };
        let mut deletion = Deletion { groups: self, of: None, guard: ShimGuard::default() };
        if let Some((task, last, gate)) = found {
            // Known before anything is waited for: whoever leaves while waiting has deleted nothing.
            deletion.of = Some((task, id.clone()));
            deletion.guard = enter(last, gate).await;
        }
        deletion
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

impl Deletion<'_> {
    /// The shim does not hold the container any more.
    pub fn done(mut self) {
        self.of = None;
    }
}

impl Drop for Deletion<'_> {
    fn drop(&mut self) {
        if let Some((task, id)) = self.of.take() {
            self.groups.settle(&task, &id);
        }
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
        assert!(last.await.guard._alone.is_some());
    }

    #[tokio::test]
    async fn nothing_is_kept_for_tasks_that_are_gone() {
        let groups = ShimGroups::default();
        let (task, a, _) = ids();
        drop(groups.creating(&task).await);
        groups.settle(&task, &a);
        let last = groups.deleting(&a).await;
        assert!(last.guard._alone.is_some());
        last.done();
        groups.sweep();
        assert!(groups.lock().is_empty());
        assert!(groups.deleting(&a).await.guard._alone.is_none());
    }

    #[tokio::test]
    async fn a_deletion_that_failed_or_was_left_has_deleted_nothing() {
        let groups = ShimGroups::default();
        let (task, a, b) = ids();
        let held = groups.creating(&task).await;
        groups.settle(&task, &a);
        let mut left = Box::pin(groups.deleting(&a));
        assert!(futures_util::poll!(&mut left).is_pending());
        drop(left);
        drop(held);
        drop(groups.deleting(&a).await);
        // So the next creation finds a shim that is up.
        assert!(groups.creating(&task).await._shared.is_some());
        groups.settle(&task, &b);
        let first = groups.deleting(&a).await;
        assert!(first.guard._shared.is_some(), "not the last one");
        first.done();
        assert!(groups.deleting(&b).await.guard._alone.is_some());
    }
}
