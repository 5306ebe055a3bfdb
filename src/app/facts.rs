//! What the agent adds to every container: the environment that leads to its metadata and
//! credentials (spec/task-engine.md 1.15), and the labels by which it is found again.

use super::glue::Instance;
use crate::model::{TaskArn, TaskSpec};
use crate::ports::AgentFacts;
use std::collections::BTreeMap;
use tokio::sync::watch;

/// Facts of this agent.
#[derive(Debug, Clone)]
pub struct Facts {
    /// Cluster, as configured.
    pub cluster: String,
    /// Region; empty where none is known.
    pub region: String,
    /// ARN of the container instance in an earlier life, where there was one.
    pub known_instance: Option<String>,
    /// The container instance, once it is registered.
    pub instance: watch::Receiver<Instance>,
}

/// Where containers reach the metadata endpoint, whatever their network mode.
const METADATA: &str = "http://169.254.170.2";

impl AgentFacts for Facts {
    fn environment(&self, spec: &TaskSpec, container: &str) -> BTreeMap<String, String> {
        let mut environment = BTreeMap::new();
        let mut set = |name: &str, value: String| environment.insert(name.to_owned(), value);
        let Some(container) = spec.container(container) else { return environment };
        let endpoint = &container.endpoint;
        set("ECS_CONTAINER_METADATA_URI", format!("{METADATA}/v3/{endpoint}"));
        set("ECS_CONTAINER_METADATA_URI_V4", format!("{METADATA}/v4/{endpoint}"));
        set("ECS_AGENT_URI", format!("{METADATA}/api/{endpoint}"));
        if let Some(role) = &spec.task_role {
            set("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", format!("/v2/credentials/{}", role.0));
        }
        // Both or none, so that the SDKs inside never see two regions.
        let regions = ["AWS_REGION", "AWS_DEFAULT_REGION"];
        if !self.region.is_empty() && regions.iter().all(|name| !container.environment.contains_key(*name)) {
            for name in regions {
                set(name, self.region.clone());
            }
        }
        environment
    }

    fn labels(&self, arn: &TaskArn, spec: &TaskSpec, container: &str) -> BTreeMap<String, String> {
        [
            ("task-arn", arn.as_str()),
            ("container-name", container),
            ("task-definition-family", spec.family.as_str()),
            ("task-definition-version", spec.version.as_str()),
            ("cluster", self.cluster.as_str()),
        ]
        .into_iter()
        .map(|(key, value)| (format!("com.amazonaws.ecs.{key}"), value.to_owned()))
        .collect()
    }

    fn instance(&self) -> String {
        let registered = self.instance.borrow().arn.clone();
        registered.or_else(|| self.known_instance.clone()).unwrap_or_default()
    }

    fn cluster(&self) -> &str {
        &self.cluster
    }
}
