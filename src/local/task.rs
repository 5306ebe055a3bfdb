//! A task of the local cluster: what was asked, and what the agent reported of it so far.

use crate::control::acs::wire;
use crate::local::definition::TaskDefinition;
use crate::local::instance::Claim;
use crate::local::roles::Held;
use crate::local::shape::{list, text};
use crate::local::translate::{self, TaskNames, override_of};
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// One container of a task.
#[derive(Debug, Clone, Default)]
pub struct Container {
    /// Name.
    pub name: String,
    /// ARN.
    pub arn: String,
    /// Image, as written.
    pub image: String,
    /// The task ends with it.
    pub is_essential: bool,
    /// `PENDING`, `RUNNING` or `STOPPED`.
    pub last_status: String,
    /// Exit code.
    pub exit_code: Option<i64>,
    /// Why it stopped or never started.
    pub reason: Option<String>,
    /// Digest of the image.
    pub image_digest: Option<String>,
    /// Id in the runtime.
    pub runtime_id: Option<String>,
    /// What its agent said last of its health check; `None` where it said nothing yet.
    pub health: Option<String>,
    /// As reported: `bindIP`, `containerPort`, `hostPort`, `protocol`, ranges.
    pub network_bindings: Value,
}

/// Of whose health nothing is known.
const UNKNOWN: &str = "UNKNOWN";

impl Container {
    fn health(&self) -> &str {
        self.health.as_deref().unwrap_or(UNKNOWN)
    }
}

/// One task.
#[derive(Debug, Clone)]
pub struct Task {
    /// ARN.
    pub arn: String,
    /// Name of its cluster.
    pub cluster: String,
    /// What is to run.
    pub definition: Arc<TaskDefinition>,
    /// Where it was placed.
    pub instance_arn: String,
    /// `PENDING`, `RUNNING` or `STOPPED`.
    pub last_status: String,
    /// `RUNNING` or `STOPPED`.
    pub desired_status: String,
    /// Containers, in the definition's order.
    pub containers: Vec<Container>,
    /// RunTask's overrides.
    pub overrides: Value,
    /// Who started it, as RunTask said.
    pub started_by: String,
    /// Group.
    pub group: String,
    /// Tags.
    pub tags: Value,
    /// Times and texts that appear as they become known: `createdAt`, `stopCode`...
    pub details: Map<String, Value>,
    /// RunTask's client token: a repeated call must not start a second task.
    pub client_token: String,
    /// Whose credentials it gets.
    pub roles: Roles,
    /// Grows with each change.
    pub version: u64,
}

/// A role of a task, and the id by which its credentials are asked for; the same for as long as the
/// task lives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Role {
    /// ARN of the role.
    pub arn: String,
    /// Id at the credentials endpoint.
    pub credentials_id: String,
}

/// The roles of a task, where it names them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Roles {
    /// Of the containers.
    pub task: Option<Role>,
    /// Of the agent on the task's behalf.
    pub execution: Option<Role>,
}

impl Roles {
    /// By the definition and RunTask's overrides.
    pub fn of(definition: &TaskDefinition, overrides: &Value) -> Self {
        let role = |key: &str| {
            let arn = match text(overrides, key) {
                "" => text(&definition.document, key),
                over => over,
            };
            let credentials_id = uuid::Uuid::new_v4().to_string();
            (!arn.is_empty()).then(|| Role { arn: arn.to_owned(), credentials_id })
        };
        Self { task: role("taskRoleArn"), execution: role("executionRoleArn") }
    }
}

/// Statuses only go forward.
pub fn rank(status: &str) -> u8 {
    match status {
        "STOPPED" => 2,
        "RUNNING" => 1,
        _ => 0,
    }
}

impl Task {
    /// The last part of the ARN.
    pub fn id(&self) -> &str {
        self.arn.rsplit('/').next().unwrap_or_default()
    }

    /// Reported STOPPED.
    pub fn is_stopped(&self) -> bool {
        self.last_status == "STOPPED"
    }

    /// As ACS carries it now.
    pub fn wire(
        &self,
        cluster_arn: &str,
        account: &str,
        region: &str,
        credentials: Option<&Held>,
    ) -> wire::Task {
        let names = TaskNames {
            arn: self.arn.clone(),
            cluster_arn: cluster_arn.to_owned(),
            account: account.to_owned(),
            region: region.to_owned(),
            containers: self.containers.iter().map(|c| (c.name.clone(), c.arn.clone())).collect(),
            group: self.group.clone(),
        };
        let mut task = translate::task(&self.definition, &self.overrides, &names, &self.desired_status);
        if let Some(held) = credentials.filter(|_| self.desired_status == "RUNNING") {
            let given = |role: &Option<Role>| role.as_ref().map(|r| held.wire(&r.credentials_id, &r.arn));
            task.role_credentials = given(&self.roles.task);
            task.execution_role_credentials = given(&self.roles.execution);
        }
        task
    }

    /// What it takes of its instance.
    pub fn claim(&self) -> Claim {
        claim(&self.definition, &self.overrides)
    }

    /// Takes what an agent told of its health: an entry of `tasks` in PublishHealthRequest.
    pub fn take_health(&mut self, entry: &Value) {
        for told in list(entry, "containers") {
            let name = text(told, "containerName");
            if let Some(container) = self.containers.iter_mut().find(|c| c.name == name) {
                container.health = Some(text(told, "healthStatus").to_owned());
            }
        }
    }

    /// That of its essential containers that are checked: one that is ill is enough, all must be well.
    fn health(&self) -> &str {
        let is_checked = |name: &str| {
            let mut all = self.definition.containers().iter();
            all.any(|c| text(c, "name") == name && c.get("healthCheck").is_some())
        };
        let checked = self.containers.iter().filter(|c| c.is_essential && is_checked(&c.name));
        let said: Vec<&str> = checked.map(Container::health).collect();
        match said.as_slice() {
            all if all.contains(&"UNHEALTHY") => "UNHEALTHY",
            all if !all.is_empty() && all.iter().all(|one| *one == "HEALTHY") => "HEALTHY",
            _ => UNKNOWN,
        }
    }

    /// As DescribeTasks shows it.
    pub fn describe(&self, cluster_arn: &str, zone: &str, connected: bool, with_tags: bool) -> Value {
        let document = &self.definition.document;
        let pick = |key: &str| match (text(&self.overrides, key), text(document, key)) {
            ("", own) => own.to_owned(),
            (over, _) => over.to_owned(),
        };
        let claim = self.claim();
        let or = |text: String, default: i64| if text.is_empty() { default.to_string() } else { text };
        let mut overrides = self.overrides.clone();
        if overrides.get("containerOverrides").is_none() {
            overrides["containerOverrides"] = json!([]);
        }
        let mut out = json!({
            "attachments": [], "attributes": [], "availabilityZone": zone, "clusterArn": cluster_arn,
            "connectivity": if connected { "CONNECTED" } else { "DISCONNECTED" },
            "containerInstanceArn": self.instance_arn,
            "containers": self.containers.iter().map(|c| self.describe_container(c)).collect::<Vec<_>>(),
            "cpu": or(pick("cpu"), claim.cpu), "memory": or(pick("memory"), claim.memory_mib),
            "desiredStatus": self.desired_status, "enableExecuteCommand": false, "group": self.group,
            "healthStatus": self.health(), "lastStatus": self.last_status, "launchType": "EC2",
            "overrides": overrides, "startedBy": self.started_by,
            "tags": if with_tags { self.tags.clone() } else { json!([]) },
            "taskArn": self.arn, "taskDefinitionArn": self.definition.arn, "version": self.version,
        });
        if self.started_by.is_empty()
            && let Some(members) = out.as_object_mut()
        {
            members.remove("startedBy");
        }
        for (key, value) in &self.details {
            out[key] = value.clone();
        }
        out
    }

    fn describe_container(&self, container: &Container) -> Value {
        let document = self.definition.containers().iter().find(|c| text(c, "name") == container.name);
        let over = override_of(&self.overrides, &container.name);
        let pick = |key: &str| {
            let own = document.and_then(|d| d.get(key));
            over.get(key).or(own).and_then(Value::as_i64).map(|n| n.to_string())
        };
        let mut out = json!({
            "containerArn": container.arn, "taskArn": self.arn, "name": container.name,
            "image": container.image, "lastStatus": container.last_status,
            "networkBindings": container.network_bindings, "networkInterfaces": [],
            "healthStatus": container.health(), "cpu": pick("cpu").unwrap_or_else(|| "0".to_owned()),
        });
        let optional = [
            ("exitCode", container.exit_code.map(|code| json!(code))),
            ("reason", container.reason.clone().map(Value::String)),
            ("imageDigest", container.image_digest.clone().map(Value::String)),
            ("runtimeId", container.runtime_id.clone().map(Value::String)),
            ("memory", pick("memory").map(Value::String)),
            ("memoryReservation", pick("memoryReservation").map(Value::String)),
        ];
        for (key, value) in optional {
            if let Some(value) = value {
                out[key] = value;
            }
        }
        out
    }
}

/// What a task of this definition takes: its own limits or the sum of its containers'
/// (`memoryReservation` before `memory`), and its fixed host ports.
pub fn claim(definition: &TaskDefinition, overrides: &Value) -> Claim {
    let int = |value: &Value, key: &str| value.get(key).and_then(Value::as_i64);
    let mut claim = Claim::default();
    for container in definition.containers() {
        let over = override_of(overrides, text(container, "name"));
        let pick = |key: &str| int(over, key).or(int(container, key));
        claim.cpu += pick("cpu").unwrap_or_default();
        claim.memory_mib += pick("memoryReservation").or(pick("memory")).unwrap_or_default();
        for mapping in list(container, "portMappings") {
            let port = int(mapping, "hostPort").and_then(|p| u16::try_from(p).ok()).filter(|p| *p != 0);
            match (port, text(mapping, "protocol")) {
                (Some(port), "udp") => claim.udp.insert(port),
                (Some(port), _) => claim.tcp.insert(port),
                (None, _) => false,
            };
        }
    }
    let units =
        crate::local::definition::size::cpu_units(text(overrides, "cpu")).ok().or(definition.cpu_units);
    let mib =
        crate::local::definition::size::memory_mib(text(overrides, "memory")).ok().or(definition.memory_mib);
    if let Some(units) = units.and_then(|u| i64::try_from(u).ok()) {
        claim.cpu = units;
    }
    if let Some(mib) = mib.and_then(|m| i64::try_from(m).ok()) {
        claim.memory_mib = mib;
    }
    claim
}
