//! The stored form of a task: its wire JSON without the secret parts of its credentials, and the
//! endpoint ids that its containers were given.

use super::convert_with;
use crate::control::acs::wire;
use crate::model::{EndpointId, TaskSpec};
use crate::ports::TaskDecoder;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

#[derive(Serialize)]
struct Out<'a> {
    version: u32,
    task: &'a wire::Task,
    endpoints: BTreeMap<&'a str, &'a str>,
}

#[derive(Deserialize)]
struct In {
    version: u32,
    task: wire::Task,
    endpoints: BTreeMap<String, String>,
}

/// The version of the form; a change that old agents can't read raises it.
const VERSION: u32 = 1;

/// Writes the stored form of a task.
pub fn to_stored(task: &wire::Task, endpoints: &[(String, EndpointId)]) -> String {
    let mut task = task.clone();
    for credentials in [&mut task.role_credentials, &mut task.execution_role_credentials] {
        *credentials = credentials.take().map(|c| wire::RoleCredentials {
            credentials_id: c.credentials_id,
            role_arn: c.role_arn,
            ..wire::RoleCredentials::default()
        });
    }
    let endpoints = endpoints.iter().map(|(name, id)| (name.as_str(), id.as_str())).collect();
    // Strings, numbers, lists and maps with string keys always have a JSON form.
    serde_json::to_string(&Out { version: VERSION, task: &task, endpoints }).unwrap_or_default()
}

/// Reads stored tasks back.
#[derive(Debug, Clone, Copy, Default)]
pub struct PayloadDecoder;

impl TaskDecoder for PayloadDecoder {
    fn decode(&self, source: &str) -> Result<TaskSpec, String> {
        let stored: In = serde_json::from_str(source).map_err(|e| wire::explain(&e))?;
        if stored.version != VERSION {
            return Err(format!("stored task of version {}: this agent reads {VERSION}", stored.version));
        }
        // A container without an id gets a new one: its metadata address changes, nothing else.
        let fresh = || uuid::Uuid::new_v4().to_string();
        let endpoint =
            |name: &str| EndpointId::new(stored.endpoints.get(name).cloned().unwrap_or_else(fresh));
        convert_with(&stored.task, &endpoint).map(|c| c.spec).map_err(|e| e.to_string())
    }
}
