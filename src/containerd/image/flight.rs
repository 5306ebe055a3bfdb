//! Doing a thing once for all who want it at the same time.
//!
//! [`Flights`] shares one future: whoever waits drives it, a waiter that leaves does not stop it for
//! the others, and when the last one left it is dropped, which cancels it. [`Locks`] orders those
//! who would make the same thing by different means: each looks again once it is its turn.

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared, WeakShared};
use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// Futures under way, by what they are about.
#[derive(Debug)]
pub struct Flights<K, V: Clone> {
    flying: Mutex<HashMap<K, WeakShared<BoxFuture<'static, V>>>>,
}

impl<K, V: Clone> Default for Flights<K, V> {
    fn default() -> Self {
        Self { flying: Mutex::new(HashMap::new()) }
    }
}

impl<K: Hash + Eq, V: Clone> Flights<K, V> {
    /// Joins what is under way for `key`, or begins it.
    pub fn join(
        &self,
        key: K,
        begin: impl FnOnce() -> BoxFuture<'static, V>,
    ) -> Shared<BoxFuture<'static, V>> {
        let mut flying = self.flying.lock().unwrap_or_else(PoisonError::into_inner);
        // What has landed is not joined: its answer may be old.
        flying.retain(|_, weak| weak.upgrade().is_some_and(|shared| shared.peek().is_none()));
        if let Some(shared) = flying.get(&key).and_then(WeakShared::upgrade) {
            return shared;
        }
        let shared = begin().shared();
        if let Some(weak) = shared.downgrade() {
            flying.insert(key, weak);
        }
        shared
    }
}

/// Locks by name; a name that nobody holds takes no memory.
#[derive(Debug)]
pub struct Locks<K> {
    held: Mutex<HashMap<K, Weak<tokio::sync::Mutex<()>>>>,
}

impl<K> Default for Locks<K> {
    fn default() -> Self {
        Self { held: Mutex::new(HashMap::new()) }
    }
}

impl<K: Hash + Eq> Locks<K> {
    /// Waits for the lock of that name. Cancel-safe.
    pub async fn lock(&self, key: K) -> tokio::sync::OwnedMutexGuard<()> {
        self.named(key).lock_owned().await
    }

    /// The lock of that name, where nobody has it.
    pub fn try_lock(&self, key: K) -> Option<tokio::sync::OwnedMutexGuard<()>> {
        self.named(key).try_lock_owned().ok()
    }

    fn named(&self, key: K) -> Arc<tokio::sync::Mutex<()>> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.retain(|_, weak| weak.strong_count() > 0);
        if let Some(lock) = held.get(&key).and_then(Weak::upgrade) {
            return lock;
        }
        let lock = Arc::new(tokio::sync::Mutex::new(()));
        held.insert(key, Arc::downgrade(&lock));
        lock
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};
    use tokio::sync::oneshot;

    #[tokio::test]
    async fn one_flight_serves_all_and_outlives_a_waiter_that_left() {
        let flights: Flights<&str, u32> = Flights::default();
        let begun = Arc::new(AtomicU32::new(0));
        let (land, landed) = oneshot::channel::<u32>();
        let mut landed = Some(landed);
        let mut join = || {
            let begun = begun.clone();
            let landed = landed.take();
            flights.join("x", move || {
                async move {
                    begun.fetch_add(1, Ordering::SeqCst);
                    match landed {
                        Some(landed) => landed.await.unwrap_or(0),
                        None => 0,
                    }
                }
                .boxed()
            })
        };
        let (first, second) = (join(), join());
        let mut first = Box::pin(first);
        assert!(futures_util::poll!(&mut first).is_pending());
        drop(first);
        land.send(7).unwrap();
        assert_eq!(second.await, 7);
        assert_eq!(begun.load(Ordering::SeqCst), 1);
        assert_eq!(flights.join("x", || async { 8 }.boxed()).await, 8);
    }

    #[tokio::test]
    async fn a_name_is_held_by_one() {
        let locks: Locks<u8> = Locks::default();
        let one = locks.lock(1).await;
        let _other = locks.lock(2).await;
        assert!(locks.try_lock(1).is_none() && locks.try_lock(3).is_some());
        let mut again = Box::pin(locks.lock(1));
        assert!(futures_util::poll!(&mut again).is_pending());
        drop(one);
        let _one = again.await;
    }
}
