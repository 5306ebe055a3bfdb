//! ARNs and ids of the local cluster, and how callers may abbreviate them.

use uuid::Uuid;

/// Region and account that all ARNs of one control plane share.
#[derive(Debug, Clone)]
pub struct Names {
    /// Region, such as `us-east-1`.
    pub region: String,
    /// Account, twelve digits.
    pub account: String,
}

impl Names {
    fn arn(&self, resource: &str) -> String {
        format!("arn:aws:ecs:{}:{}:{resource}", self.region, self.account)
    }

    /// ARN of a cluster.
    pub fn cluster(&self, name: &str) -> String {
        self.arn(&format!("cluster/{name}"))
    }

    /// ARN of a revision.
    pub fn task_definition(&self, family: &str, revision: u32) -> String {
        self.arn(&format!("task-definition/{family}:{revision}"))
    }

    /// ARN of a task.
    pub fn task(&self, cluster: &str, id: &str) -> String {
        self.arn(&format!("task/{cluster}/{id}"))
    }

    /// A fresh ARN of a container of a task.
    pub fn container(&self, cluster: &str, task_id: &str) -> String {
        self.arn(&format!("container/{cluster}/{task_id}/{}", Uuid::new_v4()))
    }

    /// ARN of a container instance.
    pub fn instance(&self, cluster: &str, id: &str) -> String {
        self.arn(&format!("container-instance/{cluster}/{id}"))
    }

    /// Who registers task definitions.
    pub fn user(&self) -> String {
        format!("arn:aws:iam::{}:root", self.account)
    }

    /// The availability zone that instances are told.
    pub fn zone(&self) -> String {
        format!("{}a", self.region)
    }
}

/// A fresh id of 32 hexadecimal digits, as tasks and instances have.
pub fn fresh_id() -> String {
    Uuid::new_v4().simple().to_string()
}

/// The last part of an ARN, or the text itself: callers may give either.
pub fn last_part(text: &str) -> &str {
    text.rsplit('/').next().unwrap_or(text)
}

/// A resource by ARN or by its last part: where an ARN was given, all of it must fit.
pub fn means(given: &str, arn: &str) -> bool {
    if given.starts_with("arn:") { given == arn } else { !given.is_empty() && given == last_part(arn) }
}
