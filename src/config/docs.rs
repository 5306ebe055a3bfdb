//! `docs/configuration.md`, from the table.

use super::json::Form;
use super::table::KEYS_WITHOUT_EFFECT;
use super::{GROUPS, NO_EFFECT};
use std::fmt::Write;

const HEAD: &str = "# Configuration\n\n\
Each setting is taken from the first of these that has it:\n\n\
1. the environment: the original agent's variables and a few of ecsd's own (`ECSD_*`). The systemd unit reads them from `/etc/ecs/ecs.config`.\n\
2. the JSON file that `ECS_AGENT_CONFIG_FILE_PATH` names, by default `/etc/ecs_container_agent/config.json`. Malformed, it stops the agent (exit 1).\n\
3. the EC2 instance's user data, where that is JSON: `{\"ECSAgentConfiguration\": {...}}` with the keys of the file.\n\
4. the default; of the region, what the instance metadata service says.\n\n\
`ecsd config` prints each value and where it came from.\n\n\
Values of variables are trimmed; a blank one counts as not set, and so do 0, \"\", [], {} and null in JSON.\n\n\
- boolean: `1 t T TRUE true True 0 f F FALSE false False`; in JSON `true` and `false`\n\
- duration: as in Go, such as `300ms`, `1h30m`; the unit is needed; `0` counts as not set. In JSON whole nanoseconds\n\
- \"ignored with a warning\": as if it were not set here; the next source is asked\n\
- \"exit 1\": the agent does not start, names every such value, and the supervisor tries again\n\
- \"not yet\": taken, but what it is about is not done by this agent yet; another value than the default gets a warning\n\n\
This page is generated from `src/config/table`: `ECSD_BLESS=1 cargo test --lib config`.\n";

const PROXY: &str = "\n## Proxies and AWS\n\n\
`HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY` (or lower case) hold for HTTPS to ECS; what is plain HTTP is on this \
machine or link-local and goes direct. The AWS SDK's own variables (`AWS_ACCESS_KEY_ID`, `AWS_PROFILE`, \
`AWS_EC2_METADATA_SERVICE_ENDPOINT`, `SSL_CERT_FILE`...) work as they do for other programs.\n";

/// The whole page.
pub fn markdown() -> String {
    let mut page = String::from(HEAD);
    // Writing to a String can't fail.
    for (title, rows) in GROUPS {
        let _ = write!(
            page,
            "\n## {title}\n\n| variable | JSON key | type | default | limits, invalid values | what it does |\n|---|---|---|---|---|---|\n"
        );
        for v in *rows {
            let name = if v.env { format!("`{}`", v.name) } else { "(only in JSON)".to_owned() };
            let key = v.key.map_or(String::new(), |(key, form)| format!("`{key}`{}", written(form)));
            let later = if v.later.is_some() { " *Not yet.*" } else { "" };
            let _ = writeln!(
                page,
                "| {name} | {key} | {} | {} | {} | {}{later} |",
                v.kind, v.default, v.invalid, v.doc
            );
        }
    }
    page.push_str(PROXY);
    page.push_str(
        "\n## Accepted without effect\n\nSet, each gets a warning in the log.\n\n| variable | JSON key | why |\n|---|---|---|\n",
    );
    let ticked = |name: &str| if name.is_empty() { String::new() } else { format!("`{name}`") };
    for (name, key, why) in NO_EFFECT {
        let _ = writeln!(page, "| {} | {} | {why} |", ticked(name), ticked(key));
    }
    for (key, why) in KEYS_WITHOUT_EFFECT {
        let _ = writeln!(page, "| | {} | {why} |", ticked(key));
    }
    page
}

/// What is particular about a key's value.
fn written(form: Form) -> String {
    match form {
        Form::Words(words) => {
            let numbered: Vec<String> =
                words.iter().enumerate().map(|(n, word)| format!("{n} {word}")).collect();
            format!(": {}", numbered.join(", "))
        }
        Form::Commas => ": a list".to_owned(),
        Form::Text | Form::Tri | Form::Bool | Form::Nanoseconds(_) | Form::Number | Form::Json => {
            String::new()
        }
    }
}
