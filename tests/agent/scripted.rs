//! A host whose agent speaks to the scripted back end, for what the embedded control plane never does.

use crate::support::backend::{ApiCall, Backend, CLUSTER_ARN, Channel, Connection, INSTANCE};
use crate::support::host::{BUSYBOX, Host, PATIENCE};
use crate::support::sigv4;
use serde_json::{Value, json};
use std::time::Instant;

/// The host, its back end, and the agent's ACS session.
pub struct Scripted {
    pub host: Host,
    pub backend: Backend,
    pub acs: Connection,
}

/// A host with [`BUSYBOX`] whose agent, once started, is known to the back end.
pub async fn prepared_host() -> Host {
    let mut host = Host::new().await;
    host.load_busybox().await;
    host.set("AWS_SECRET_ACCESS_KEY", sigv4::SECRET);
    host.set("AWS_DEFAULT_REGION", sigv4::REGION);
    host.set("ECS_CLUSTER", "peer");
    host
}

/// The same, its agent started against a back end.
pub async fn host_for(backend: &Backend) -> Host {
    let mut host = prepared_host().await;
    host.start_agent_at(backend.endpoint());
    host
}

impl Scripted {
    pub async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// With these variables in the agent's environment.
    pub async fn start_with(variables: &[(&str, &str)]) -> Self {
        let mut backend = Backend::start().await;
        let mut host = prepared_host().await;
        variables.iter().for_each(|(name, value)| host.set(name, value));
        host.start_agent_at(backend.endpoint());
        let acs = backend.accept(Channel::Acs).await;
        Self { host, backend, acs }
    }

    /// Sends tasks in one payload, and waits for its acknowledgement.
    pub async fn send(&mut self, tasks: Value) {
        let id = uuid::Uuid::new_v4().to_string();
        self.send_payload(&id, tasks).await;
        self.acknowledged(&id).await;
    }

    pub async fn send_payload(&mut self, id: &str, tasks: Value) {
        let message = json!({"messageId": id, "clusterArn": CLUSTER_ARN, "containerInstanceArn": INSTANCE,
            "seqNum": 1, "tasks": tasks});
        self.acs.send("PayloadMessage", message).await;
    }

    pub async fn acknowledged(&mut self, id: &str) {
        loop {
            let (kind, body) = self.acs.receive().await;
            if kind == "AckRequest" && body["messageId"] == id {
                return;
            }
        }
    }

    /// The report that brings a task to this status; others are passed over.
    pub async fn reported(&mut self, id: &str, status: &str) -> Value {
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            let ApiCall { body, .. } = self.backend.call_of("SubmitTaskStateChange").await;
            if body["task"] == arn(id).as_str() && body["status"] == status {
                return body;
            }
        }
        panic!("{id} was not reported {status}");
    }
}

pub fn arn(id: &str) -> String {
    format!("arn:aws:ecs:us-west-2:123456789012:task/peer/{id}")
}

/// An id like the service's, unlike every other test's.
pub fn fresh_id() -> String {
    uuid::Uuid::new_v4().simple().to_string()
}

/// A task of one container that runs a script.
pub fn task(id: &str, script: &str) -> Value {
    json!({
        "arn": arn(id), "desiredStatus": "RUNNING", "family": "scripted", "version": "1", "taskDefinitionAccountId": "123456789012",
        "containers": [{"name": "main", "image": BUSYBOX, "essential": true, "cpu": 2, "memory": 32,
            "command": ["sh", "-c", script], "containerArn": format!("{}/main", arn(id)),
            "dockerConfig": {"config": "{}", "hostConfig": "{\"NetworkMode\":\"bridge\"}", "version": "1.18"}}],
    })
}
