//! Credentials of tasks' roles, as ACS delivered them. In memory only: after a restart ACS sends
//! them again (spec/control-plane.md 3.1, 5.7).

use crate::model::{CredentialsId, RoleCredentials, TaskArn};
use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

/// More credentials than any instance has tasks for; beyond it new ones are refused.
const MAX_ENTRIES: usize = 16_384;

/// The shared store; cheap to clone. Debug shows how many it holds.
#[derive(Clone, Default)]
pub struct CredentialsStore {
    by_id: Arc<RwLock<HashMap<CredentialsId, Delivered>>>,
}

/// Credentials and the task for which they were delivered.
struct Delivered {
    task: TaskArn,
    credentials: Arc<RoleCredentials>,
}

impl CredentialsStore {
    /// The credentials of an id.
    pub fn get(&self, id: &CredentialsId) -> Option<Arc<RoleCredentials>> {
        self.by_id.read().unwrap_or_else(PoisonError::into_inner).get(id).map(|d| Arc::clone(&d.credentials))
    }

    /// Adds or replaces. Answers whether there was room.
    pub fn put(&self, task: &TaskArn, credentials: RoleCredentials) -> bool {
        let mut by_id = self.by_id.write().unwrap_or_else(PoisonError::into_inner);
        if by_id.len() >= MAX_ENTRIES && !by_id.contains_key(&credentials.id) {
            return false;
        }
        let id = credentials.id.clone();
        by_id.insert(id, Delivered { task: task.clone(), credentials: Arc::new(credentials) });
        true
    }

    /// Forgets all that was delivered for a task: it was cleaned up.
    pub fn forget(&self, task: &TaskArn) {
        self.by_id.write().unwrap_or_else(PoisonError::into_inner).retain(|_, d| d.task != *task);
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
        let task = |id: &str| TaskArn::parse(&format!("arn:aws:ecs:r:1:task/c/{id}")).unwrap();
        assert!(store.put(&task("t"), credentials("a", "1")) && store.put(&task("t"), credentials("a", "2")));
        assert!(store.put(&task("t"), credentials("b", "3")) && store.put(&task("u"), credentials("c", "4")));
        assert_eq!(store.get(&CredentialsId("a".into())).unwrap().access_key_id, "2");
        assert!(!format!("{store:?}").contains("CANARY"));
        store.forget(&task("t"));
        assert_eq!(store.len(), 1);
        store.forget(&task("u"));
        assert!(store.is_empty());
    }
}
