//! Whether the containers of a task can be brought into an order (spec/task-engine.md 1.5).

use super::PayloadError;
use crate::model::ContainerSpec;
use std::collections::BTreeMap;

/// Refuses unknown containers and cycles. Links and `volumesFrom` are dependencies too.
pub(super) fn check(containers: &[ContainerSpec]) -> Result<(), PayloadError> {
    let mut waits_for: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for container in containers {
        let links = container.links.iter().map(|l| l.split(':').next().unwrap_or_default());
        let named = container.depends_on.iter().map(|d| d.container.as_str());
        let mounts = container.volumes_from.iter().map(|v| v.container.as_str());
        let all: Vec<&str> = named.chain(mounts).chain(links).collect();
        if let Some(missing) = all.iter().find(|name| !containers.iter().any(|c| c.name == **name)) {
            let missing: String = missing.chars().take(128).collect();
            return Err(PayloadError::Dependencies(format!(
                "container {:?} depends on {missing:?}, which the task does not have",
                container.name
            )));
        }
        waits_for.insert(&container.name, all);
    }
    // Whoever waits for nobody that is left can go; those who remain wait for each other.
    while !waits_for.is_empty() {
        let free: Vec<&str> = waits_for
            .iter()
            .filter(|(_, on)| on.iter().all(|name| !waits_for.contains_key(name)))
            .map(|(name, _)| *name)
            .collect();
        if free.is_empty() {
            let names: Vec<&str> = waits_for.keys().copied().collect();
            return Err(PayloadError::Dependencies(format!(
                "containers wait for each other: {}",
                names.join(", ")
            )));
        }
        for name in free {
            waits_for.remove(name);
        }
    }
    Ok(())
}
