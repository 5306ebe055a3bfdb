//! RegisterTaskDefinition and its family.

use super::page::page;
use super::string;
use crate::local::definition::{TaskDefinition, validate};
use crate::local::error::ApiError;
use crate::local::shape::text;
use crate::local::shared::{Shared, now};
use crate::local::state::MAX_DEFINITIONS;
use serde_json::{Value, json};
use std::sync::Arc;

/// RegisterTaskDefinition
pub fn register(shared: &Shared, mut input: Value, _: &str) -> Result<Value, ApiError> {
    validate(&mut input)?;
    let mut state = shared.lock();
    if state.definition_count() >= MAX_DEFINITIONS {
        return Err(ApiError::client(format!(
            "There are {MAX_DEFINITIONS} task definition revisions: restart the local control plane to forget them."
        )));
    }
    let names = state.names.clone();
    let family = text(&input, "family").to_owned();
    let revisions = state.definitions.entry(family).or_default();
    let revision = revisions.last().map_or(1, |last| last.revision + 1);
    let definition = TaskDefinition::new(input, revision, &names, now());
    let answer = shown(&definition);
    revisions.push(Arc::new(definition));
    Ok(answer)
}

/// DescribeTaskDefinition
pub fn describe(shared: &Shared, input: Value, _: &str) -> Result<Value, ApiError> {
    let state = shared.lock();
    let definition = state.definition(&required(&input)?)?;
    let mut answer = shown(definition);
    if !super::strings(&input, "include", 10)?.iter().any(|word| word == "TAGS") {
        answer["tags"] = json!([]);
    }
    Ok(answer)
}

/// DeregisterTaskDefinition
pub fn deregister(shared: &Shared, input: Value, _: &str) -> Result<Value, ApiError> {
    let given = required(&input)?;
    let mut state = shared.lock();
    if !given.rsplit('/').next().is_some_and(|name| name.contains(':')) {
        return Err(ApiError::invalid("Revision is missing: give taskDefinition as family:revision."));
    }
    let found = Arc::clone(state.definition(&given)?);
    let mut definition = TaskDefinition::clone(&found);
    definition.inactive = true;
    definition.document["status"] = json!("INACTIVE");
    definition.document["deregisteredAt"] = json!(now());
    let answer = shown(&definition);
    let revisions = state.definitions.entry(definition.family.clone()).or_default();
    if let Some(slot) = revisions.iter_mut().find(|d| d.revision == definition.revision) {
        *slot = Arc::new(definition);
    }
    Ok(answer)
}

/// ListTaskDefinitions
pub fn list(shared: &Shared, input: Value, _: &str) -> Result<Value, ApiError> {
    let (prefix, status, sort) =
        (string(&input, "familyPrefix")?, string(&input, "status")?, string(&input, "sort")?);
    let inactive = match status.as_str() {
        "" | "ACTIVE" => false,
        "INACTIVE" => true,
        other => {
            return Err(ApiError::invalid(format!("status is '{other}': allowed are ACTIVE and INACTIVE.")));
        }
    };
    let state = shared.lock();
    let families = state.definitions.iter().filter(|(family, _)| prefix.is_empty() || **family == prefix);
    let revisions = families.flat_map(|(_, revisions)| revisions.iter());
    let mut arns: Vec<_> = revisions.filter(|d| d.inactive == inactive).map(|d| d.arn.clone()).collect();
    if sort == "DESC" {
        arns.reverse();
    }
    page(arns, &input, "taskDefinitionArns")
}

fn required(input: &Value) -> Result<String, ApiError> {
    let given = string(input, "taskDefinition")?;
    if given.is_empty() {
        return Err(ApiError::invalid(
            "taskDefinition is missing: give family, family:revision or the task definition's ARN.",
        ));
    }
    Ok(given)
}

fn shown(definition: &TaskDefinition) -> Value {
    json!({"taskDefinition": definition.document, "tags": definition.tags})
}
