//! A container instance: one registered agent, what it offers, and what is on its way to it.

use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tokio::sync::Notify;

/// Messages that may wait for an ack. One task makes at most two.
pub const MAX_OUTBOX: usize = 2100;

/// One registered agent.
#[derive(Debug)]
pub struct Instance {
    /// ARN.
    pub arn: String,
    /// Name of its cluster.
    pub cluster: String,
    /// `ACTIVE` or `DRAINING`.
    pub status: String,
    /// What it registered: CPU, MEMORY, PORTS...
    pub resources: Value,
    /// Attributes, as registered and completed.
    pub attributes: Value,
    /// Tags.
    pub tags: Value,
    /// `agentVersion`, `agentHash`, `dockerVersion`, from the ACS connection.
    pub version_info: Value,
    /// Seconds since 1970.
    pub registered_at: f64,
    /// Grows with each change.
    pub version: u64,
    /// The ACS connection that counts, if there is one. A newer connection replaces an older one.
    pub connection: Option<u64>,
    /// Payloads that wait for their ack, by sequence number: message id and frame.
    pub outbox: BTreeMap<i64, (String, Frame)>,
    /// Wakes the connection when the outbox grew or the connection was replaced.
    pub wake: Arc<Notify>,
}

/// The text of a message. Its Debug shows none of it: there may be credentials in it.
#[derive(Clone, PartialEq, Eq)]
pub struct Frame(pub String);

impl std::fmt::Debug for Frame {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Frame({} bytes)", self.0.len())
    }
}

impl Instance {
    /// Takes new tasks.
    pub fn is_ready(&self) -> bool {
        self.status == "ACTIVE" && self.connection.is_some()
    }

    /// Has the attribute.
    pub fn has_attribute(&self, name: &str) -> bool {
        self.attributes.as_array().into_iter().flatten().any(|a| a["name"] == name)
    }

    /// What is left of its resources after `used`.
    pub fn remaining(&self, used: &Claim) -> Claim {
        let int =
            |name: &str| self.resource(name).and_then(|r| r["integerValue"].as_i64()).unwrap_or_default();
        let ports = |name: &str, more: &BTreeSet<u16>| {
            let given = self.resource(name).and_then(|r| r["stringSetValue"].as_array());
            let given = given.into_iter().flatten().filter_map(|p| p.as_str()?.parse().ok());
            given.chain(more.iter().copied()).collect()
        };
        Claim {
            cpu: int("CPU") - used.cpu,
            memory_mib: int("MEMORY") - used.memory_mib,
            tcp: ports("PORTS", &used.tcp),
            udp: ports("PORTS_UDP", &used.udp),
        }
    }

    fn resource(&self, name: &str) -> Option<&Value> {
        self.resources.as_array().into_iter().flatten().find(|r| r["name"] == name)
    }

    /// As DescribeContainerInstances shows it. `used` is what its live tasks take.
    pub fn describe(&self, used: &Claim, running: usize, pending: usize, with_tags: bool) -> Value {
        let left = self.remaining(used);
        let mut remaining = self.resources.clone();
        for resource in remaining.as_array_mut().into_iter().flatten() {
            let texts = |set: &BTreeSet<u16>| json!(set.iter().map(u16::to_string).collect::<Vec<_>>());
            match resource["name"].as_str() {
                Some("CPU") => resource["integerValue"] = json!(left.cpu),
                Some("MEMORY") => resource["integerValue"] = json!(left.memory_mib),
                Some("PORTS") => resource["stringSetValue"] = texts(&left.tcp),
                Some("PORTS_UDP") => resource["stringSetValue"] = texts(&left.udp),
                _ => {}
            }
        }
        json!({
            "containerInstanceArn": self.arn, "version": self.version, "versionInfo": self.version_info,
            "remainingResources": remaining, "registeredResources": self.resources, "status": self.status,
            "agentConnected": self.connection.is_some(), "runningTasksCount": running,
            "pendingTasksCount": pending, "attributes": self.attributes, "registeredAt": self.registered_at,
            "attachments": [], "tags": if with_tags { self.tags.clone() } else { json!([]) },
        })
    }
}

/// Resources that a task takes, or that are left (then the ports are those taken).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Claim {
    /// CPU units.
    pub cpu: i64,
    /// MiB.
    pub memory_mib: i64,
    /// Host ports.
    pub tcp: BTreeSet<u16>,
    /// Host ports.
    pub udp: BTreeSet<u16>,
}

impl Claim {
    /// Adds another.
    pub fn add(&mut self, other: &Claim) {
        self.cpu += other.cpu;
        self.memory_mib += other.memory_mib;
        self.tcp.extend(&other.tcp);
        self.udp.extend(&other.udp);
    }
}
