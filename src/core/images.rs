//! Which images are needed: what image clean-up never touches.

use crate::core::State;
use std::collections::BTreeSet;

impl State {
    /// Names of the images of every task that is not cleaned up yet, as written in its definition: of
    /// those that wait, run, and those whose containers are still there to be looked at.
    pub fn images_in_use(&self) -> BTreeSet<&str> {
        self.tasks.values().flat_map(|task| task.spec.images()).collect()
    }
}
