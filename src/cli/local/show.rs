//! What is printed: one fact a line, no colours, no cursor movements, so that a pipe reads it as well.

use crate::local::Task;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt::Display;
use std::io::Write;

/// One line on stdout. A reader that went away is no reason to leave containers behind.
pub fn say(line: impl Display) {
    let _ = writeln!(std::io::stdout().lock(), "{line}");
}

/// An error and its causes on stderr.
pub fn complain(error: &anyhow::Error) {
    let _ = writeln!(std::io::stderr().lock(), "ecsd local: {error:#}");
}

/// The first digits of a task id: enough to tell tasks apart.
pub fn short(id: &str) -> &str {
    id.get(..8).unwrap_or(id)
}

/// Prints what is new in a task since it was printed last.
#[derive(Debug, Default)]
pub struct StatePrinter {
    seen: BTreeMap<String, String>,
}

impl StatePrinter {
    /// Prints changes.
    pub fn show(&mut self, task: &Task) {
        let id = short(task.id()).to_owned();
        for container in &task.containers {
            let mut line = container.last_status.clone();
            for binding in bindings(&container.network_bindings) {
                line.push(' ');
                line.push_str(&binding);
            }
            if let Some(code) = container.exit_code {
                line.push_str(&format!(" exit code {code}"));
            }
            if let Some(reason) = &container.reason {
                line.push_str(&format!(" ({reason})"));
            }
            self.line(format!("{id}/{}", container.name), "container", &container.name, line);
        }
        let mut line = task.last_status.clone();
        if task.is_stopped() {
            let text = |key: &str| task.details.get(key).and_then(Value::as_str).unwrap_or_default();
            line.push_str(&format!(" ({}: {})", text("stopCode"), text("stoppedReason")));
        } else if task.desired_status == "STOPPED" {
            line.push_str(", stopping");
        }
        self.line(id.clone(), "task     ", &id, line);
    }

    fn line(&mut self, key: String, kind: &str, name: &str, line: String) {
        if self.seen.get(&key) != Some(&line) {
            say(format_args!("{kind}   {name} {line}"));
            self.seen.insert(key, line);
        }
    }
}

/// `0.0.0.0:8080->80/tcp` for each binding.
pub fn bindings(reported: &Value) -> Vec<String> {
    let part = |binding: &Value, one: &str, range: &str| match &binding[one] {
        Value::Number(port) => port.to_string(),
        _ => binding[range].as_str().unwrap_or("?").to_owned(),
    };
    let show = |binding: &Value| {
        format!(
            "{}:{}->{}/{}",
            binding["bindIP"].as_str().unwrap_or("0.0.0.0"),
            part(binding, "hostPort", "hostPortRange"),
            part(binding, "containerPort", "containerPortRange"),
            binding["protocol"].as_str().unwrap_or("tcp")
        )
    };
    reported.as_array().into_iter().flatten().map(show).collect()
}

/// Columns as wide as their widest cell, two blanks between them.
pub fn table(rows: &[Vec<String>]) {
    let columns = rows.iter().map(Vec::len).max().unwrap_or_default();
    let width = |i: usize| rows.iter().filter_map(|row| row.get(i)).map(|cell| cell.chars().count()).max();
    let widths: Vec<_> = (0..columns).map(|i| width(i).unwrap_or_default()).collect();
    for row in rows {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        say(cells.collect::<Vec<_>>().join("  ").trim_end());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn bindings_in_docker_notation() {
        let reported = json!([
            {"bindIP": "0.0.0.0", "hostPort": 8080, "containerPort": 80, "protocol": "tcp"},
            {"bindIP": "0.0.0.0", "hostPortRange": "5-6", "containerPortRange": "1-2", "protocol": "udp"}
        ]);
        assert_eq!(bindings(&reported), ["0.0.0.0:8080->80/tcp", "0.0.0.0:5-6->1-2/udp"]);
        assert!(bindings(&Value::Null).is_empty());
    }
}
