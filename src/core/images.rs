//! Which images are needed: what image clean-up never touches.

use crate::core::State;
use std::collections::BTreeSet;

impl State {
    /// Names of the images of every task that is not cleaned up yet, as written in its definition: of
    /// those that wait, run, and those whose containers are still there to be looked at.
    pub fn images_in_use(&self) -> BTreeSet<&str> {
        let specs = self.tasks.values().map(|task| &task.spec);
        let containers = specs.flat_map(|spec| spec.containers.iter().filter(|c| !c.is_internal()));
        containers.map(|container| container.image.as_str()).collect()
    }
}
