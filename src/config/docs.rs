//! `docs/configuration.md`, from the table.

use super::{NO_EFFECT, VARIABLES};
use std::fmt::Write;

/// The whole page.
pub fn markdown() -> String {
    let mut page = String::from(
        "# Configuration\n\n\
         ecsd is configured by environment variables, the original agent's and a few of its own (`ECSD_*`).\n\
         The systemd unit reads them from `/etc/ecs/ecs.config`. Values are trimmed; a blank one counts as not set.\n\n\
         - boolean: `1 t T TRUE true True 0 f F FALSE false False`\n\
         - duration: as in Go, such as `300ms`, `1h30m`; the unit is needed; `0` counts as not set\n\
         - \"exit 1\": the agent does not start, names every such variable, and the supervisor tries again\n\n\
         This page is generated from `src/config/table.rs`: `ECSD_BLESS=1 cargo test --lib config`.\n\n\
         | variable | type | default | limits, invalid values | what it does |\n|---|---|---|---|---|\n",
    );
    // Writing to a String can't fail.
    for v in VARIABLES {
        let _ = writeln!(page, "| `{}` | {} | {} | {} | {} |", v.name, v.kind, v.default, v.invalid, v.doc);
    }
    page.push_str("\n## Accepted without effect\n\nSet, each gets a warning in the log.\n\n| variable | why |\n|---|---|\n");
    for (name, why) in NO_EFFECT {
        let _ = writeln!(page, "| `{name}` | {why} |");
    }
    page
}
