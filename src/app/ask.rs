//! ECS, for what containers ask it through the metadata endpoint: tags with the instance's credentials,
//! protection with the task role's own.

use crate::control::api::ApiError;
use crate::control::{Account, CredentialsStore, EcsApi};
use crate::model::{CredentialsId, EcsRefusal, ProtectionAnswer, ProtectionChange, TaskArn};
use crate::tmds::{AskEcs, Tags};
use futures_util::future::BoxFuture;

/// Asks in the name of this instance, or of a task.
pub(super) struct Ecs {
    account: Account,
    api: EcsApi,
    cluster: String,
    roles: CredentialsStore,
}

impl Ecs {
    /// `cluster` as it is configured.
    pub fn new(account: Account, cluster: String, roles: CredentialsStore) -> Self {
        let api = EcsApi::new(&account);
        Self { account, api, cluster, roles }
    }
}

impl AskEcs for Ecs {
    fn tags(&self, arn: String, container: String) -> BoxFuture<'static, Tags> {
        let api = self.api.clone();
        Box::pin(async move { api.tags(&arn, &container).await.map_err(refusal) })
    }

    fn protection(
        &self,
        task: TaskArn,
        role: CredentialsId,
        change: Option<ProtectionChange>,
    ) -> Option<BoxFuture<'static, Result<ProtectionAnswer, EcsRefusal>>> {
        let role = self.roles.get(&role)?;
        let api = EcsApi::new(&self.account.clone().with_role(&role));
        let cluster = self.cluster.clone();
        Some(Box::pin(async move { api.task_protection(&cluster, &task, change).await.map_err(refusal) }))
    }
}

fn refusal(error: ApiError) -> EcsRefusal {
    match error {
        ApiError::Service { code, message, status, request_id, .. } => {
            EcsRefusal { status: Some(status), code, message, request_id }
        }
        other => {
            EcsRefusal { status: None, code: String::new(), message: other.to_string(), request_id: None }
        }
    }
}
