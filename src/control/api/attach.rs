//! Telling that a network interface is here (spec/control-plane.md 1.2, 5.6): of a task by
//! SubmitTaskStateChange, in the queue of the task's own reports; of the instance by
//! SubmitAttachmentStateChanges. The [`AttachmentReporter`] of the agent.

use super::submit::InstanceReporter;
use super::{ApiError, EcsApi, retries};
use crate::control::backoff::Backoff;
use crate::core::ReportOutcome;
use crate::model::{Attachment, TaskArn};
use crate::ports::AttachmentReporter;
use aws_sdk_ecs::types::AttachmentStateChange;
use aws_smithy_types::retry::RetryConfig;
use futures_util::future::BoxFuture;
use std::time::SystemTime;

/// The only status that is ever sent.
const ATTACHED: &str = "ATTACHED";

impl AttachmentReporter for InstanceReporter {
    fn attached<'a>(&'a self, attachment: &'a Attachment) -> BoxFuture<'a, ReportOutcome> {
        Box::pin(self.confirm_until_expiry(attachment))
    }
}

impl InstanceReporter {
    async fn confirm_until_expiry(&self, attachment: &Attachment) -> ReportOutcome {
        let _turn = match &attachment.task {
            Some(task) => Some(self.order.turn(task).await),
            None => None,
        };
        let least = self.timings.other_least;
        let mut backoff = Backoff::new(least, least * 30, 0.2, 1.3);
        let expires_at = attachment.expires_at.to_system_time();
        let arn = &attachment.arn;
        // The wait for the turn counts too.
        while SystemTime::now() < expires_at {
            let sent = match &attachment.task {
                Some(task) => {
                    self.order.call(self.api.confirm_task_attachment(&self.cluster, task, arn)).await
                }
                None => self.order.call(self.api.confirm_attachment(&self.cluster, arn)).await,
            };
            let error = match sent {
                Ok(()) => return ReportOutcome::Accepted,
                Err(error) => error,
            };
            if attachment.task.is_some() && error.code() == "InvalidParameterException" {
                tracing::error!(attachment = %arn, %error, "The control plane refused an attachment for good; dropping it");
                return ReportOutcome::Refused;
            }
            let left = expires_at.duration_since(SystemTime::now()).unwrap_or_default();
            let delay = backoff.next_delay().min(left);
            tracing::warn!(attachment = %arn, %error, ?delay, "An attachment could not be confirmed; trying again");
            tokio::time::sleep(delay).await;
        }
        tracing::warn!(attachment = %arn, "An attachment expired before it could be confirmed");
        ReportOutcome::Refused
    }
}

impl EcsApi {
    /// Tells that an interface of a task is here: one attempt. No status and no reason go with it.
    ///
    /// # Errors
    /// [`ApiError`]
    pub async fn confirm_task_attachment(
        &self,
        cluster: &str,
        task: &TaskArn,
        attachment: &str,
    ) -> Result<(), ApiError> {
        let call = self
            .client
            .submit_task_state_change()
            .cluster(cluster)
            .task(task.as_str())
            .set_attachments(Some(vec![change(attachment)?]))
            .customize()
            .mutate_request(self.finish(serde_json::Map::new()))
            .config_override(aws_sdk_ecs::Config::builder().retry_config(retries(RetryConfig::disabled())));
        call.send().await.map(drop).map_err(|e| ApiError::new("SubmitTaskStateChange", e))
    }

    /// Tells that an interface of the instance is here: one attempt.
    ///
    /// # Errors
    /// [`ApiError`]
    pub async fn confirm_attachment(&self, cluster: &str, attachment: &str) -> Result<(), ApiError> {
        let call = self
            .client
            .submit_attachment_state_changes()
            .cluster(cluster)
            .attachments(change(attachment)?)
            .customize()
            .mutate_request(self.finish(serde_json::Map::new()))
            .config_override(aws_sdk_ecs::Config::builder().retry_config(retries(RetryConfig::disabled())));
        call.send().await.map(drop).map_err(|e| ApiError::new("SubmitAttachmentStateChanges", e))
    }
}

fn change(attachment: &str) -> Result<AttachmentStateChange, ApiError> {
    AttachmentStateChange::builder()
        .attachment_arn(attachment)
        .status(ATTACHED)
        .build()
        // Only where one of the two were missing.
        .map_err(|error| ApiError::Transport {
            operation: "AttachmentStateChange",
            message: error.to_string(),
        })
}
