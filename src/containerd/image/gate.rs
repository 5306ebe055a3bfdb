//! How many transfers run at once, whatever number of pulls there is; and no registry has all of them,
//! so that one that hangs leaves some to the others.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Places for transfers.
#[derive(Debug)]
pub struct Gate {
    all: Arc<Semaphore>,
    /// What one registry may have of them.
    share: usize,
    registries: Mutex<HashMap<String, Weak<Semaphore>>>,
}

/// A place; dropped, the next one has it.
#[derive(Debug)]
pub struct Pass {
    _of_registry: Option<OwnedSemaphorePermit>,
    _of_all: Option<OwnedSemaphorePermit>,
}

impl Gate {
    /// So many places, three quarters of them for one registry.
    pub fn new(places: usize) -> Self {
        let places = places.max(1);
        let share = (places * 3).div_ceil(4);
        Self { all: Arc::new(Semaphore::new(places)), share, registries: Mutex::default() }
    }

    /// Waits for a place. First for one of the registry's own, so that who waits for these waits in
    /// nobody's way. Cancel-safe.
    pub async fn enter(&self, registry: &str) -> Pass {
        // A semaphore that is never closed always answers.
        let of_registry = self.of(registry).acquire_owned().await.ok();
        Pass { _of_registry: of_registry, _of_all: self.all.clone().acquire_owned().await.ok() }
    }

    /// A place where there is one now.
    pub fn try_enter(&self, registry: &str) -> Option<Pass> {
        let of_registry = Some(self.of(registry).try_acquire_owned().ok()?);
        Some(Pass { _of_registry: of_registry, _of_all: Some(self.all.clone().try_acquire_owned().ok()?) })
    }

    fn of(&self, registry: &str) -> Arc<Semaphore> {
        let mut registries = self.registries.lock().unwrap_or_else(PoisonError::into_inner);
        registries.retain(|_, own| own.strong_count() > 0);
        if let Some(own) = registries.get(registry).and_then(Weak::upgrade) {
            return own;
        }
        let own = Arc::new(Semaphore::new(self.share));
        registries.insert(registry.to_owned(), Arc::downgrade(&own));
        own
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_registry_never_has_all_places() {
        let gate = Gate::new(4);
        let mut held: Vec<Pass> = Vec::new();
        while let Some(pass) = gate.try_enter("dead") {
            held.push(pass);
        }
        assert_eq!(held.len(), 3);
        let mut waits = Box::pin(gate.enter("dead"));
        assert!(futures_util::poll!(&mut waits).is_pending());
        let other = gate.enter("other").await;
        assert!(gate.try_enter("third").is_none());
        held.pop();
        assert!(futures_util::poll!(&mut waits).is_ready());
        drop((other, held));
        assert_eq!(gate.all.available_permits(), 4);
    }
}
