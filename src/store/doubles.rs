//! Stores for tests: one in memory, and one that fails when told to.

use crate::model::{Attachment, MacAddress, TaskId, TaskProgress};
use crate::ports::{Loaded, Store, StoreChange, StoreError};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Keeps everything in memory; a clone shares it, so that a "restarted" agent finds it again.
#[derive(Debug, Clone, Default)]
pub struct MemoryStore {
    held: Arc<Mutex<Held>>,
}

#[derive(Debug, Default)]
struct Held {
    tasks: BTreeMap<TaskId, Arc<str>>,
    progress: BTreeMap<TaskId, TaskProgress>,
    meta: BTreeMap<String, String>,
    attachments: BTreeMap<MacAddress, Attachment>,
    commits: usize,
}

impl MemoryStore {
    /// How many transactions were committed.
    pub fn commits(&self) -> usize {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).commits
    }
}

impl Store for MemoryStore {
    fn load(&self) -> Result<Loaded, StoreError> {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let task =
            |(id, source): (&TaskId, &Arc<str>)| (id.clone(), source.clone(), held.progress.get(id).cloned());
        Ok(Loaded {
            tasks: held.tasks.iter().map(task).collect(),
            meta: held.meta.clone(),
            attachments: held.attachments.values().cloned().collect(),
            quarantined: 0,
        })
    }

    fn commit(&self, changes: &[StoreChange]) -> Result<(), StoreError> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        for change in changes {
            match change.clone() {
                StoreChange::PutTask { id, source } => drop(held.tasks.insert(id, source)),
                StoreChange::PutProgress { id, progress } => drop(held.progress.insert(id, progress)),
                StoreChange::RemoveTask(id) => {
                    held.tasks.remove(&id);
                    held.progress.remove(&id);
                }
                StoreChange::PutMeta(key, value) => drop(held.meta.insert(key.to_owned(), value)),
                StoreChange::PutAttachment(a) => drop(held.attachments.insert(a.mac, a)),
                StoreChange::RemoveAttachment(mac) => drop(held.attachments.remove(&mac)),
            }
        }
        held.commits += 1;
        Ok(())
    }
}

/// Fails the n-th commit, and is a [`MemoryStore`] otherwise.
#[derive(Debug)]
pub struct FailingStore {
    inner: MemoryStore,
    fail_at: usize,
    seen: AtomicUsize,
}

impl FailingStore {
    /// Fails commit number `fail_at` (from 1) and no other; nothing of that one is kept.
    pub fn new(inner: MemoryStore, fail_at: usize) -> Self {
        Self { inner, fail_at, seen: AtomicUsize::new(0) }
    }
}

impl Store for FailingStore {
    fn load(&self) -> Result<Loaded, StoreError> {
        self.inner.load()
    }

    fn commit(&self, changes: &[StoreChange]) -> Result<(), StoreError> {
        if self.seen.fetch_add(1, Ordering::Relaxed) + 1 == self.fail_at {
            return Err(StoreError::new(
                Path::new("failing-store"),
                "no space left on device (told to fail)",
            ));
        }
        self.inner.commit(changes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::TaskArn;

    #[test]
    fn fails_once_and_keeps_nothing_of_it() {
        let store = FailingStore::new(MemoryStore::default(), 2);
        let id = TaskArn::parse("arn:aws:ecs:r:1:task/c/a").unwrap().id();
        let put = [StoreChange::PutTask { id: id.clone(), source: "{}".into() }];
        assert!(store.commit(&[StoreChange::PutMeta("cluster", "c".into())]).is_ok());
        assert!(store.commit(&put).is_err());
        assert!(store.load().unwrap().tasks.is_empty());
        assert!(store.commit(&put).is_ok());
        assert!(store.commit(&[StoreChange::RemoveTask(id)]).is_ok());
        assert!(store.load().unwrap().tasks.is_empty());
        assert_eq!(store.load().unwrap().meta["cluster"], "c");
    }
}
