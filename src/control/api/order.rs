//! One sender at a time for each task: its state changes and the confirmation of its network interface
//! go out in the order in which they were handed over; and ten calls at once for the instance
//! (spec/control-plane.md 5.3, 5.6). Whoever waits to try again holds up its own task, and nobody else.

use crate::model::TaskArn;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{OwnedMutexGuard, Semaphore};

/// Calls under way at once.
const CALLS: usize = 10;

/// The queues of all tasks; clones share them.
#[derive(Debug, Clone)]
pub(super) struct TaskOrder {
    by_task: Arc<Mutex<BTreeMap<TaskArn, Arc<tokio::sync::Mutex<()>>>>>,
    calls: Arc<Semaphore>,
}

impl Default for TaskOrder {
    fn default() -> Self {
        Self { by_task: Arc::default(), calls: Arc::new(Semaphore::new(CALLS)) }
    }
}

impl TaskOrder {
    /// Waits for the task's turn, first come first served. The turn ends when the answer is dropped.
    pub(super) async fn turn(&self, task: &TaskArn) -> OwnedMutexGuard<()> {
        let queue = {
            let mut by_task = self.by_task.lock().unwrap_or_else(PoisonError::into_inner);
            // Queues in which nobody stands; there are never more than tasks with something to tell.
            by_task.retain(|_, queue| Arc::strong_count(queue) > 1);
            Arc::clone(by_task.entry(task.clone()).or_default())
        };
        queue.lock_owned().await
    }

    /// Makes one call when there is room for it, first come first served.
    pub(super) async fn call<T>(&self, call: impl Future<Output = T>) -> T {
        // Never closed, so there is always an answer.
        let _room = self.calls.acquire().await;
        call.await
    }
}
