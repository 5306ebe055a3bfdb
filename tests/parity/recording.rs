//! The answers of one daemon on one host, and the file that keeps dockerd's: the first row whole, the
//! others by what they have more (`+`) and less (`-`).

use super::seen::Seen;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// The row that the others are told by.
const PLAIN: &str = "config: nothing, null and the usual";

#[derive(Debug, Clone)]
pub struct Recording {
    /// Of dockerd.
    pub version: String,
    /// What of the host the answers depend on.
    pub host: Value,
    pub rows: BTreeMap<String, Seen>,
}

fn file() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/parity/docker.json")
}

impl Recording {
    pub fn of_this_host(version: String) -> Self {
        let unified = std::path::Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
        let host =
            json!({"cgroups": if unified { "v2" } else { "v1" }, "architecture": std::env::consts::ARCH});
        Self { version, host, rows: BTreeMap::new() }
    }

    pub fn load() -> Self {
        let Ok(text) = std::fs::read_to_string(file()) else { return Self::of_this_host("none".to_owned()) };
        let all: Value = serde_json::from_str(&text).unwrap();
        let plain: Seen = serde_json::from_value(all["plain"].clone()).unwrap();
        let rows = all["rows"].as_object().unwrap().iter();
        let rows = rows.map(|(name, change)| (name.clone(), changed(&plain, change))).collect();
        Self { version: all["version"].as_str().unwrap().to_owned(), host: all["host"].clone(), rows }
    }

    pub fn save(&self) {
        let plain = &self.rows[PLAIN];
        let mut rows = Map::new();
        for (name, seen) in &self.rows {
            let change = if seen.is_refused() { json!("refused") } else { json!(difference(plain, seen)) };
            rows.insert(name.clone(), change);
        }
        // A line for each row.
        let lines: Vec<String> =
            rows.iter().map(|(name, change)| format!("  {}: {change}", json!(name))).collect();
        let (version, host) = (json!(self.version), &self.host);
        let text = format!(
            "{{\n \"version\": {version},\n \"host\": {host},\n \"plain\": {},\n \"rows\": {{\n{}\n }}\n}}\n",
            json!(plain),
            lines.join(",\n")
        );
        std::fs::write(file(), text).unwrap();
    }

    /// The same daemon on the same kind of host.
    pub fn is_like(&self, other: &Self) -> bool {
        (&self.version, &self.host) == (&other.version, &other.host)
    }

    /// What is otherwise than recorded.
    pub fn changes(&self, recorded: &Self) -> String {
        let mut text = String::new();
        for (name, seen) in &self.rows {
            let Some(was) = recorded.rows.get(name) else { continue };
            for (section, change) in difference(was, seen) {
                text.push_str(&format!("{name}: {section}: {}\n", json!(change)));
            }
        }
        text
    }
}

/// What a daemon passes on from whoever started it, such as a shell that ignores signals for its jobs.
fn is_inherited(section: &str, line: &str) -> bool {
    section == "status" && line.starts_with("SigIgn ")
}

/// By section: lines that came (`+`) and went (`-`). Where their order means something, a section is one
/// line.
pub type Difference = BTreeMap<String, BTreeMap<String, Vec<String>>>;

pub fn difference(was: &Seen, is: &Seen) -> Difference {
    let mut all = Difference::new();
    let none = Vec::new();
    if was.is_refused() != is.is_refused() {
        let outcome = |sign: &str, seen: &Seen| (sign.to_owned(), seen.0["outcome"].clone());
        all.insert("outcome".to_owned(), BTreeMap::from([outcome("-", was), outcome("+", is)]));
        return all;
    }
    let sections: std::collections::BTreeSet<&String> = was.0.keys().chain(is.0.keys()).collect();
    for section in sections {
        let (old, new) = (was.0.get(section).unwrap_or(&none), is.0.get(section).unwrap_or(&none));
        let mut change = BTreeMap::new();
        for (sign, from, without) in [("+", new, old), ("-", old, new)] {
            let mut lines = less(from, without);
            lines.retain(|line| !is_inherited(section, line));
            if !lines.is_empty() {
                change.insert(sign.to_owned(), lines);
            }
        }
        if !change.is_empty() {
            all.insert(section.clone(), change);
        }
    }
    all
}

/// Lines that are left when each of the others is taken out once.
fn less(lines: &[String], others: &[String]) -> Vec<String> {
    let mut others: Vec<&String> = others.iter().collect();
    let mut left = Vec::new();
    for line in lines {
        match others.iter().position(|other| *other == line) {
            Some(at) => drop(others.swap_remove(at)),
            None => left.push(line.clone()),
        }
    }
    left
}

/// The inverse of [`difference`].
fn changed(plain: &Seen, change: &Value) -> Seen {
    if change == "refused" {
        return Seen(BTreeMap::from([("outcome".to_owned(), vec!["refused".to_owned()])]));
    }
    let mut seen = plain.clone();
    for (section, change) in change.as_object().unwrap() {
        let lines = |sign: &str| -> Vec<String> {
            change.get(sign).map(|lines| serde_json::from_value(lines.clone()).unwrap()).unwrap_or_default()
        };
        let old = seen.0.remove(section).unwrap_or_default();
        let new: Vec<String> = less(&old, &lines("-")).into_iter().chain(lines("+")).collect();
        if !new.is_empty() {
            seen.0.insert(section.clone(), new);
        }
    }
    seen
}
