//! The metadata endpoint's answers, as lines of the audit log.

use super::glue::Instance;
use crate::model::CredentialsId;
use crate::ports::TasksView;
use crate::telemetry::{AuditLog, AuditRecord, Granted};
use crate::tmds::{Access, AccessLog};
use std::time::SystemTime;
use tokio::sync::watch;

/// Adds to an answer whose credentials they were.
pub struct Audit {
    /// Where lines go.
    pub log: AuditLog,
    /// The tasks, for the ids they name.
    pub tasks: watch::Receiver<TasksView>,
    /// Cluster and container instance.
    pub instance: watch::Receiver<Instance>,
}

impl AccessLog for Audit {
    fn note(&self, access: &Access<'_>) {
        let tasks = self.tasks.borrow().clone();
        let instance = self.instance.borrow().clone();
        let granted = access.credentials_id.map(|id| {
            let id = CredentialsId(id.to_owned());
            let owner = tasks.values().find_map(|task| {
                let execution_role = task.spec.execution_role.as_ref() == Some(&id);
                let named = execution_role || task.spec.task_role.as_ref() == Some(&id);
                named.then(|| (task.spec.arn.as_str(), execution_role))
            });
            // The task of credentials that are still there may be gone.
            let (task_arn, execution_role) = owner.unwrap_or_default();
            Granted {
                task_arn,
                execution_role,
                cluster: &instance.cluster,
                container_instance: instance.arn.as_deref().unwrap_or_default(),
            }
        });
        self.log.write(&AuditRecord {
            at: SystemTime::now(),
            status: access.status,
            peer: access.peer,
            path: access.path,
            user_agent: access.user_agent,
            granted,
        });
    }
}
