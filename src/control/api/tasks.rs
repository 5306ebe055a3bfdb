//! What containers ask ECS through the agent: the tags of their task and instance, and whether their task
//! is protected from scale-in (spec/control-plane.md 1.9, 1.10). Protection is asked for with the task
//! role's credentials: by an [`EcsApi`] made with those.

use super::{ApiError, EcsApi};
use crate::model::{ProtectionAnswer, ProtectionChange, ProtectionFailure, TaskArn, TaskProtection, Wall};
use aws_sdk_ecs::types;
use serde_json::Map;
use std::collections::BTreeMap;

impl EcsApi {
    /// Tags of a task or of the instance, on behalf of a container: its name goes along.
    ///
    /// # Errors
    /// [`ApiError`]
    pub async fn tags(&self, resource: &str, container: &str) -> Result<BTreeMap<String, String>, ApiError> {
        let named =
            Self { user_agent: format!("{} container/{container}", self.user_agent).into(), ..self.clone() };
        let answer = named
            .client
            .list_tags_for_resource()
            .resource_arn(resource)
            .customize()
            .mutate_request(named.finish(Map::new()))
            .send()
            .await
            .map_err(|error| ApiError::new("ListTagsForResource", error))?;
        let tags = answer.tags.unwrap_or_default().into_iter();
        Ok(tags.filter_map(|tag| Some((tag.key?, tag.value.unwrap_or_default()))).collect())
    }

    /// Protection of a task: what it is, or with a change what it is then.
    ///
    /// # Errors
    /// [`ApiError`]
    pub async fn task_protection(
        &self,
        cluster: &str,
        task: &TaskArn,
        change: Option<ProtectionChange>,
    ) -> Result<ProtectionAnswer, ApiError> {
        let (tasks, failures) = match change {
            None => {
                let call = self.client.get_task_protection().cluster(cluster).tasks(task.as_str());
                let answer = call.customize().mutate_request(self.finish(Map::new())).send().await;
                let answer = answer.map_err(|error| ApiError::new("GetTaskProtection", error))?;
                (answer.protected_tasks, answer.failures)
            }
            Some(ProtectionChange { enabled, expires_in_minutes }) => {
                let call = self.client.update_task_protection().cluster(cluster).tasks(task.as_str());
                let call = call.protection_enabled(enabled).set_expires_in_minutes(expires_in_minutes);
                let answer = call.customize().mutate_request(self.finish(Map::new())).send().await;
                let answer = answer.map_err(|error| ApiError::new("UpdateTaskProtection", error))?;
                (answer.protected_tasks, answer.failures)
            }
        };
        Ok(ProtectionAnswer {
            tasks: tasks.unwrap_or_default().into_iter().map(protection).collect(),
            failures: failures.unwrap_or_default().into_iter().map(failure).collect(),
        })
    }
}

fn protection(told: types::ProtectedTask) -> TaskProtection {
    // Milliseconds are what the original keeps.
    let expires_at = told.expiration_date.and_then(|at| u64::try_from(at.to_millis().ok()?).ok());
    TaskProtection {
        task: told.task_arn.unwrap_or_default(),
        enabled: told.protection_enabled,
        expires_at: expires_at.map(|ms| Wall(ms.saturating_mul(1_000_000))),
    }
}

fn failure(told: types::Failure) -> ProtectionFailure {
    ProtectionFailure { arn: told.arn, reason: told.reason, detail: told.detail }
}
