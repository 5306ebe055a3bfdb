//! The table of variables. A row is all that there is to know about one: the environment, the JSON
//! file, `ecsd config`, `docs/configuration.md` and the tests all go by it.
//!
//! Order matters where a variable builds on another: rows come after those that they build on.

mod containerd;
mod endpoints;
mod engine;
mod identity;
mod images;
mod logs;
mod network;
mod without_effect;

pub(super) use without_effect::KEYS_WITHOUT_EFFECT;
pub use without_effect::NO_EFFECT;

use super::Config;
use super::json::Form;
use super::parse::{self, Outcome, shown};
use super::show::Show;
use std::time::Duration;

/// One variable.
pub struct Variable {
    /// Name; of one that only files have, its key.
    pub name: &'static str,
    /// Type, for the reader.
    pub kind: &'static str,
    /// Default, for the reader.
    pub default: &'static str,
    /// Limits, and what an invalid value does.
    pub invalid: &'static str,
    /// What it is for.
    pub doc: &'static str,
    /// Whether the environment is asked.
    pub(super) env: bool,
    /// Its key in JSON, and how the value is written there.
    pub(super) key: Option<(&'static str, Form)>,
    /// A blank value is a value.
    pub(super) blank_counts: bool,
    /// The warning for a value other than the default, of what the agent does not have yet.
    pub(super) later: Option<&'static str>,
    pub(super) apply: fn(&mut Config, &str) -> Outcome,
    pub(super) show: fn(&Config) -> String,
}

/// The variables by theme, in the order of the page.
pub static GROUPS: &[(&str, &[Variable])] = &[
    ("Who and where", identity::ROWS),
    ("Tasks and containers", engine::ROWS),
    ("Images", images::ROWS),
    ("Network", network::ROWS),
    ("Endpoints and telemetry", endpoints::ROWS),
    ("The agent's log", logs::ROWS),
    ("containerd and the host", containerd::ROWS),
];

/// All variables that do something.
pub fn variables() -> impl Iterator<Item = &'static Variable> {
    GROUPS.iter().flat_map(|(_, rows)| rows.iter())
}

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
/// The warning about what is taken and has no consequence so far.
const LATER: &str = "this agent does not do that yet";

const fn row(
    name: &'static str,
    [kind, default, invalid, doc]: [&'static str; 4],
    apply: fn(&mut Config, &str) -> Outcome,
    show: fn(&Config) -> String,
) -> Variable {
    let (env, key, blank_counts, later) = (true, None, false, None);
    Variable { name, kind, default, invalid, doc, env, key, blank_counts, later, apply, show }
}

/// A boolean; `default` is `true` or `false`.
const fn flag(
    name: &'static str,
    default: &'static str,
    doc: &'static str,
    apply: fn(&mut Config, &str) -> Outcome,
    show: fn(&Config) -> String,
) -> Variable {
    row(name, ["boolean", default, "ignored with a warning", doc], apply, show)
}

impl Variable {
    /// Has this key in JSON.
    const fn key(self, key: &'static str, form: Form) -> Self {
        Self { key: Some((key, form)), ..self }
    }

    /// Has this key in JSON, whose value is true, false or null.
    const fn tri(self, key: &'static str) -> Self {
        self.key(key, Form::Tri)
    }

    /// Has this key in JSON, whose value is a duration without a lower limit of its own.
    const fn nanoseconds(self, key: &'static str) -> Self {
        self.key(key, Form::Nanoseconds(Duration::ZERO))
    }

    /// Only files have it.
    const fn file_only(self, form: Form) -> Self {
        Self { env: false, key: Some((self.name, form)), ..self }
    }

    const fn later(self) -> Self {
        Self { later: Some(LATER), ..self }
    }
}
