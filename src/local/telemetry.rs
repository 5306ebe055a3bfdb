//! The newest telemetry that agents sent, as they wrote it: by task, and by instance. Bounded by what
//! the control plane knows anyway: only live tasks and registered instances have an entry.

use crate::local::state::State;
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// What agents told of themselves last.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Telemetry {
    /// By task ARN: its entry of `taskMetrics` (spec/control-plane.md 4.4).
    pub metrics: BTreeMap<String, Received>,
    /// By task ARN: its entry of `tasks` in PublishHealthRequest.
    pub health: BTreeMap<String, Received>,
    /// By container instance ARN: `statuses` of PublishInstanceStatusRequest.
    pub instance_status: BTreeMap<String, Received>,
}

/// One entry of a message.
#[derive(Debug, Clone, PartialEq)]
pub struct Received {
    /// The agent's own time of the message, in seconds since 1970.
    pub timestamp: f64,
    /// The entry.
    pub body: Value,
}

impl Telemetry {
    /// All of it: `metrics`, `health` and `instanceStatus`, each by ARN: `timestamp` and `body`.
    pub fn json(&self) -> Value {
        let all = |kept: &BTreeMap<String, Received>| -> Map<String, Value> {
            let entry = |r: &Received| json!({"timestamp": r.timestamp, "body": r.body});
            kept.iter().map(|(arn, received)| (arn.clone(), entry(received))).collect()
        };
        json!({
            "metrics": all(&self.metrics), "health": all(&self.health),
            "instanceStatus": all(&self.instance_status),
        })
    }

    /// Keeps what a message of an instance says, instead of what was kept of the same task or instance.
    pub fn keep(&mut self, state: &State, instance: &str, kind: &str, message: &Value) {
        let timestamp = message["timestamp"].as_f64().unwrap_or_default();
        let received = |body: &Value| Received { timestamp, body: body.clone() };
        let (kept, list) = match kind {
            "PublishMetricsRequest" => (&mut self.metrics, &message["taskMetrics"]),
            "PublishHealthRequest" => (&mut self.health, &message["tasks"]),
            "PublishInstanceStatusRequest" => {
                self.instance_status.insert(instance.to_owned(), received(&message["statuses"]));
                return self.instance_status.retain(|arn, _| state.instances.contains_key(arn));
            }
            _ => return,
        };
        let live: BTreeSet<&str> =
            state.tasks.iter().filter(|t| !t.is_stopped()).map(|t| t.arn.as_str()).collect();
        kept.retain(|arn, _| live.contains(arn.as_str()));
        for entry in list.as_array().into_iter().flatten() {
            if let Some(arn) = entry["taskArn"].as_str().filter(|arn| live.contains(arn)) {
                kept.insert(arn.to_owned(), received(entry));
            }
        }
    }
}
