//! UpdateContainerInstancesState (spec/control-plane.md 1.8): the instance drains itself.

use super::{ApiError, EcsApi};
use aws_sdk_ecs::types::ContainerInstanceStatus;

const OPERATION: &str = "UpdateContainerInstancesState";

impl EcsApi {
    /// Asks the service to set this instance to `DRAINING`.
    ///
    /// # Errors
    /// [`ApiError`], also where the service answers that it could not.
    pub async fn drain_container_instance(&self, cluster: &str, instance: &str) -> Result<(), ApiError> {
        let answer = self
            .client
            .update_container_instances_state()
            .cluster(cluster)
            .container_instances(instance)
            .status(ContainerInstanceStatus::Draining)
            .customize()
            .mutate_request(self.finish(serde_json::Map::new()))
            .send()
            .await
            .map_err(|error| ApiError::new(OPERATION, error))?;
        match answer.failures().first() {
            None => Ok(()),
            Some(failure) => Err(ApiError::Service {
                operation: OPERATION,
                code: failure.reason().unwrap_or_default().to_owned(),
                message: failure.detail().unwrap_or_default().chars().take(1024).collect(),
                status: 200,
                request_id: None,
            }),
        }
    }
}
