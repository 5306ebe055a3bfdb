//! The driver `none`: reads everything, keeps nothing.

use super::driver::{Driver, Message, NotTaken};

/// Takes every message.
#[derive(Debug)]
pub struct Nothing;

impl Driver for Nothing {
    fn write(&mut self, _: &Message<'_>) -> Result<(), NotTaken> {
        Ok(())
    }

    fn is_local(&self) -> bool {
        true
    }
}
