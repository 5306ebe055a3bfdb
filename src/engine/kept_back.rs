//! What is not done while the state can't be stored: no process is started of which a crash would leave no
//! trace, and none is given back whose end only the runtime knows.

use super::{Engine, Input};
use crate::core::{Action, EffectId, Event, Late, Outcome};
use crate::model::StopReason;
use std::time::Duration;

/// A start, or a restart, as it was asked for.
pub(super) type Start = (EffectId, Duration, Action);

impl Engine {
    /// Goes through the starts that wait for the store, and answers those that may begin now. Meanwhile
    /// the core may have given one up, or wants its task to stop, which waits for no disk.
    pub(super) fn late_starts(&mut self) -> Vec<Start> {
        let failing = self.journal.is_failing();
        let mut begin = Vec::new();
        for start in std::mem::take(&mut self.kept_back) {
            match self.state.late(start.0) {
                Late::Forget => {}
                Late::Refuse => self.answer(start.0, Outcome::NotBegun),
                Late::Begin if failing => self.kept_back.push(start),
                Late::Begin => begin.push(start),
            }
        }
        begin
    }

    /// Has a start wait until the state can be stored.
    pub(super) fn keep_back(&mut self, start: Start) {
        tracing::warn!(effect = start.0.0, "a start is kept back until the state can be stored");
        self.kept_back.push(start);
    }

    /// A release that would have the runtime forget what is stored nowhere is not begun either; the core
    /// asks again after a while.
    pub(super) fn refuse_release(&self, id: EffectId) {
        let why = "the end of the container could not be stored";
        let reason = StopReason::new("CannotStoreStateError", why);
        self.answer(id, Outcome::Released(Err(reason)));
    }

    /// Answers an effect in the runtime's stead.
    fn answer(&self, id: EffectId, outcome: Outcome) {
        let inbox = self.to_inbox.clone();
        // Not from within the loop: it would wait for itself where the inbox is full.
        tokio::spawn(async move { inbox.send(Input::Event(Event::Done { id, outcome })).await });
    }
}
