//! Task definitions: what RegisterTaskDefinition takes, checks, completes and keeps.
//!
//! A document is checked in two passes: its shape ([`schema`]), then its sense ([`validate`] and the
//! modules below it). What passed is completed with the defaults that the service shows in its
//! answers, and never changes again; a new registration is a new revision.

mod container;
mod depends;
pub mod requires;
pub mod schema;
pub mod size;
mod validate;

pub use validate::validate;

use crate::local::names::Names;
use crate::local::shape;
use serde_json::{Value, json};

/// The largest task definition, in bytes of its JSON (a quota of the service).
pub const MAX_BYTES: usize = 65_536;

/// One registered revision.
#[derive(Debug, Clone)]
pub struct TaskDefinition {
    /// Family.
    pub family: String,
    /// Revision, from 1.
    pub revision: u32,
    /// ARN.
    pub arn: String,
    /// Deregistered: still describable, no longer runnable.
    pub inactive: bool,
    /// Task CPU limit, in CPU units.
    pub cpu_units: Option<u64>,
    /// Task memory limit, in MiB.
    pub memory_mib: Option<u64>,
    /// Attributes that an instance must have.
    pub requires: Vec<String>,
    /// The document, checked and completed, as DescribeTaskDefinition shows it.
    pub document: Value,
    /// Tags.
    pub tags: Value,
}

impl TaskDefinition {
    /// Makes a revision of a document that [`validate`] took. `now` in seconds since 1970.
    pub fn new(mut document: Value, revision: u32, names: &Names, now: f64) -> Self {
        let family = shape::text(&document, "family").to_owned();
        let arn = names.task_definition(&family, revision);
        complete(&mut document);
        let requires = requires::attributes(&document);
        let listed: Vec<Value> = requires.iter().map(|name| json!({ "name": name })).collect();
        let tags = document.as_object_mut().and_then(|d| d.remove("tags")).unwrap_or(json!([]));
        document["taskDefinitionArn"] = json!(arn);
        document["revision"] = json!(revision);
        document["status"] = json!("ACTIVE");
        document["requiresAttributes"] = json!(listed);
        document["compatibilities"] = json!(["EXTERNAL", "EC2"]);
        document["registeredAt"] = json!(now);
        document["registeredBy"] = json!(names.user());
        Self {
            cpu_units: size::cpu_units(shape::text(&document, "cpu")).ok(),
            memory_mib: size::memory_mib(shape::text(&document, "memory")).ok(),
            inactive: false,
            family,
            revision,
            arn,
            requires,
            document,
            tags,
        }
    }

    /// Its containers' documents.
    pub fn containers(&self) -> &[Value] {
        shape::list(&self.document, "containerDefinitions")
    }

    /// `bridge` where the definition is silent.
    pub fn network_mode(&self) -> &str {
        match shape::text(&self.document, "networkMode") {
            "" => "bridge",
            mode => mode,
        }
    }

    /// `family:revision`
    pub fn short_name(&self) -> String {
        format!("{}:{}", self.family, self.revision)
    }
}

/// Fills in what the service fills in.
fn complete(document: &mut Value) {
    let same_port = matches!(shape::text(document, "networkMode"), "host" | "awsvpc");
    for key in ["volumes", "placementConstraints"] {
        or_insert(document, key, json!([]));
    }
    let containers = document.get_mut("containerDefinitions").and_then(Value::as_array_mut);
    for container in containers.into_iter().flatten() {
        or_insert(container, "cpu", json!(0));
        or_insert(container, "essential", json!(true));
        for key in ["portMappings", "environment", "mountPoints", "volumesFrom", "systemControls"] {
            or_insert(container, key, json!([]));
        }
        for mapping in container["portMappings"].as_array_mut().into_iter().flatten() {
            or_insert(mapping, "protocol", json!("tcp"));
            if mapping.get("containerPortRange").is_none() {
                let default = if same_port { mapping["containerPort"].clone() } else { json!(0) };
                or_insert(mapping, "hostPort", default);
            }
        }
        if let Some(check) = container.get_mut("healthCheck") {
            or_insert(check, "interval", json!(30));
            or_insert(check, "timeout", json!(5));
            or_insert(check, "retries", json!(3));
        }
    }
}

fn or_insert(value: &mut Value, key: &str, default: Value) {
    if let Some(members) = value.as_object_mut() {
        members.entry(key).or_insert(default);
    }
}
