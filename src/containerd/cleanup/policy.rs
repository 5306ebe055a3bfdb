//! Which images go, in which order, and how many: pure. The doing is in the parent module.
//!
//! An image here is what one digest stands for, under all its names: as long as one of them is in use
//! or excluded, all of them stay.

use crate::containerd::image::record::Origin;
use crate::model::{ImageDigest, Wall};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// One image record, as far as the choice depends on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageRecord {
    /// Its name.
    pub name: String,
    /// What it stands for.
    pub target: ImageDigest,
    /// Where it came from.
    pub origin: Origin,
    /// A task has used it under this name, or this agent pulled it.
    pub tracked: bool,
    /// Since when it is known under this name: the first use, or the pull.
    pub since: Wall,
    /// When a task that needed it was last there.
    pub used: Wall,
}

/// What the operator allows (spec/task-engine.md 3.5).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// `ECS_NUM_IMAGES_DELETE_PER_CYCLE`.
    pub per_cycle: usize,
    /// `ECS_IMAGE_MINIMUM_CLEANUP_AGE`.
    pub minimum_age: Duration,
    /// `NON_ECS_IMAGE_MINIMUM_CLEANUP_AGE` where `ECS_ENABLE_UNTRACKED_IMAGE_CLEANUP`, else `None`.
    pub untracked_minimum_age: Option<Duration>,
    /// `ECS_EXCLUDE_UNTRACKED_IMAGE`, as records are named.
    pub excluded: BTreeSet<String>,
}

/// Why images are removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// It is time: so many images of a certain age.
    Cycle,
    /// The disk is full: as many as it takes, whatever their age, but of those that tasks used only what
    /// a registry has.
    Room,
}

/// An image to remove, under these names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Removal {
    /// What it is.
    pub target: ImageDigest,
    /// Its names that go; others may stay, with the image.
    pub names: Vec<String>,
    /// When it was last used, or came, where no task used it.
    pub used: Wall,
}

/// What goes, in this order. For [`Purpose::Room`] that is all that may go: whoever removes stops when
/// there is room.
pub fn plan(
    records: &[ImageRecord],
    in_use: &BTreeSet<String>,
    rules: &Rules,
    purpose: Purpose,
    now: Wall,
) -> Vec<Removal> {
    let mut images: BTreeMap<&ImageDigest, Vec<&ImageRecord>> = BTreeMap::new();
    for record in records {
        images.entry(&record.target).or_default().push(record);
    }
    let stays =
        |record: &&ImageRecord| in_use.contains(&record.name) || rules.excluded.contains(&record.name);
    images.retain(|_, names| !names.iter().any(stays));
    let old = |since: Wall, age: Duration| purpose == Purpose::Room || now.since(since) >= age;
    let (mut tracked, mut untracked) = (Vec::new(), Vec::new());
    for (target, names) in images {
        let (ours, others): (Vec<&ImageRecord>, Vec<_>) = names.into_iter().partition(|name| name.tracked);
        // Nothing becomes free as long as a name stays that nobody may remove.
        let may_all = others.is_empty() || rules.untracked_minimum_age.is_some();
        let since = ours.iter().map(|name| name.since).max();
        let known = |names: Vec<&ImageRecord>| Removal {
            target: target.clone(),
            used: names.iter().map(|name| name.used).max().unwrap_or_default(),
            names: names.into_iter().map(|name| name.name.clone()).collect(),
        };
        match (since, rules.untracked_minimum_age) {
            (Some(since), _) => {
                let again = ours.iter().all(|name| name.origin == Origin::Registry);
                if old(since, rules.minimum_age) && (purpose == Purpose::Cycle || (again && may_all)) {
                    let more = if rules.untracked_minimum_age.is_some() { others } else { Vec::new() };
                    tracked.push(known(ours.into_iter().chain(more).collect()));
                }
            }
            (None, Some(age)) => {
                let came = others.iter().map(|name| name.since).max().unwrap_or_default();
                if old(came, age) {
                    untracked.push(known(others));
                }
            }
            (None, None) => {}
        }
    }
    let by_use = |a: &Removal, b: &Removal| (a.used, &a.names).cmp(&(b.used, &b.names));
    tracked.sort_by(by_use);
    untracked.sort_by(by_use);
    match purpose {
        Purpose::Cycle => {
            tracked.into_iter().take(rules.per_cycle).chain(untracked).take(rules.per_cycle).collect()
        }
        // What no task ever used is missed the least.
        Purpose::Room => untracked.into_iter().chain(tracked).collect(),
    }
}

#[cfg(test)]
#[path = "policy_tests.rs"]
mod tests;
