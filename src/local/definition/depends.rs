//! What containers say about one another: `dependsOn`, `links`, `volumesFrom`.

use crate::local::error::{ApiError, shortened};
use crate::local::shape::{list, text};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// Checks that every other container named exists, conditions can come true, and no chain of waiting
/// comes back to its start.
///
/// # Errors
/// The first thing that is wrong.
pub fn check(containers: &[Value]) -> Result<(), ApiError> {
    let by_name: BTreeMap<&str, &Value> = containers.iter().map(|c| (text(c, "name"), c)).collect();
    let mut waits: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for container in containers {
        let name = text(container, "name");
        let edges = waits.entry(name).or_default();
        for (i, dependency) in list(container, "dependsOn").iter().enumerate() {
            let other = text(dependency, "containerName");
            let place = format!("dependsOn[{i}]");
            let target = known(&by_name, name, other, &place)?;
            match text(dependency, "condition") {
                "" => {
                    return Err(setting(
                        name,
                        &format!(
                            "'{place}.condition' is missing: allowed are START, COMPLETE, SUCCESS, HEALTHY."
                        ),
                    ));
                }
                "HEALTHY" if target.get("healthCheck").is_none() => {
                    return Err(setting(
                        name,
                        &format!(
                            "'{place}' waits for '{other}' to be HEALTHY, but '{other}' has no 'healthCheck'."
                        ),
                    ));
                }
                "COMPLETE" | "SUCCESS"
                    if target.get("essential").and_then(Value::as_bool).unwrap_or(true) =>
                {
                    return Err(setting(
                        name,
                        &format!(
                            "'{place}' waits for the end of '{other}', which is essential: the task would end with \
                             it. Set 'essential' to false for '{other}'."
                        ),
                    ));
                }
                _ => edges.push(other),
            }
        }
        for (i, link) in list(container, "links").iter().filter_map(Value::as_str).enumerate() {
            let other = link.split(':').next().unwrap_or_default();
            known(&by_name, name, other, &format!("links[{i}]"))?;
            edges.push(other);
        }
        for (i, from) in list(container, "volumesFrom").iter().enumerate() {
            let other = text(from, "sourceContainer");
            known(&by_name, name, other, &format!("volumesFrom[{i}]"))?;
            edges.push(other);
        }
    }
    match cycle(&waits) {
        Some(path) => Err(ApiError::client(format!(
            "Container dependencies form a cycle: {}. Remove one of 'dependsOn', 'links' or 'volumesFrom' in it.",
            path.join(" -> ")
        ))),
        None => Ok(()),
    }
}

fn setting(name: &str, what: &str) -> ApiError {
    ApiError::client(format!("Invalid setting for container '{name}'. {what}"))
}

fn known<'a>(
    by_name: &BTreeMap<&str, &'a Value>,
    name: &str,
    other: &str,
    place: &str,
) -> Result<&'a Value, ApiError> {
    let names = || by_name.keys().copied().collect::<Vec<_>>().join(", ");
    by_name.get(other).copied().ok_or_else(|| {
        setting(
            name,
            &format!(
                "'{place}' names the container '{}'; containers are: {}.",
                shortened(other, 80),
                names()
            ),
        )
    })
}

/// A chain that comes back to its first member, if there is one. At most ten containers: the simple
/// search is fast enough.
fn cycle<'a>(edges: &BTreeMap<&'a str, Vec<&'a str>>) -> Option<Vec<&'a str>> {
    fn walk<'a>(
        edges: &BTreeMap<&'a str, Vec<&'a str>>,
        path: &mut Vec<&'a str>,
        done: &mut BTreeSet<&'a str>,
    ) -> Option<Vec<&'a str>> {
        let last = *path.last()?;
        for next in edges.get(last).into_iter().flatten() {
            if let Some(at) = path.iter().position(|name| name == next) {
                let mut found = path.get(at..).unwrap_or_default().to_vec();
                found.push(next);
                return Some(found);
            }
            if done.contains(next) {
                continue;
            }
            path.push(next);
            if let Some(found) = walk(edges, path, done) {
                return Some(found);
            }
            path.pop();
        }
        done.insert(last);
        None
    }
    let mut done = BTreeSet::new();
    edges.keys().find_map(|start| walk(edges, &mut vec![start], &mut done))
}
