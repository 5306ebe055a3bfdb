//! The pure state machine.
pub mod effect;
pub mod event;
pub use effect::{Action, Effect, EffectClass};
pub use event::{CreatedContainer, EffectId, Event, Observed, Outcome, PullFailure, ReportOutcome};
