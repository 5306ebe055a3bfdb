//! Credentials of tasks' roles, as ACS delivered them. In memory only: after a restart ACS sends
//! them again (spec/control-plane.md 3.1, 5.7).

use crate::model::{CredentialsId, RoleCredentials};
use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

/// More credentials than any instance has tasks for; beyond it new ones are refused.
const MAX_ENTRIES: usize = 16_384;

/// The shared store; cheap to clone. Debug shows how many it holds.
#[derive(Clone, Default)]
pub struct CredentialsStore {
    by_id: Arc<RwLock<HashMap<CredentialsId, Arc<RoleCredentials>>>>,
}

impl CredentialsStore {
    /// The credentials of an id.
    pub fn get(&self, id: &CredentialsId) -> Option<Arc<RoleCredentials>> {
        self.by_id.read().unwrap_or_else(PoisonError::into_inner).get(id).cloned()
    }

    /// Adds or replaces. Answers whether there was room.
    pub fn put(&self, credentials: RoleCredentials) -> bool {
        let mut by_id = self.by_id.write().unwrap_or_else(PoisonError::into_inner);
        if by_id.len() >= MAX_ENTRIES && !by_id.contains_key(&credentials.id) {
            return false;
        }
        by_id.insert(credentials.id.clone(), Arc::new(credentials));
        true
    }

    /// Forgets those of a task that was cleaned up.
    pub fn remove(&self, id: &CredentialsId) {
        self.by_id.write().unwrap_or_else(PoisonError::into_inner).remove(id);
    }

    /// How many it holds.
    pub fn len(&self) -> usize {
        self.by_id.read().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl std::fmt::Debug for CredentialsStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CredentialsStore").field("len", &self.len()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn credentials(id: &str, key: &str) -> RoleCredentials {
        RoleCredentials {
            id: CredentialsId(id.into()),
            role_arn: String::new(),
            access_key_id: key.into(),
            secret_access_key: "CANARY".into(),
            session_token: "CANARY".into(),
            expiration: String::new(),
        }
    }

    #[test]
    fn the_newest_credentials_of_an_id_win() {
        let store = CredentialsStore::default();
        assert!(store.put(credentials("a", "1")) && store.put(credentials("a", "2")));
        assert_eq!(store.get(&CredentialsId("a".into())).unwrap().access_key_id, "2");
        assert!(!format!("{store:?}").contains("CANARY"));
        store.remove(&CredentialsId("a".into()));
        assert!(store.is_empty());
    }
}
