//! The differences that are known, and that there are no others.

use super::recording::{Recording, difference};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};

/// One row of docs/differences.md, and the lines by which it shows.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Known {
    /// First column of the row.
    row: String,
    section: String,
    /// Lines that only dockerd's container prints; a `*` at an end stands for anything.
    #[serde(default)]
    docker: Vec<String>,
    /// Lines that only ecsd's prints.
    #[serde(default)]
    ecsd: Vec<String>,
    /// The task definitions where it shows; none named is any.
    #[serde(default)]
    only: Vec<String>,
    /// Kind of cgroup file systems of the host that dockerd ran on; none named is any.
    #[serde(default)]
    cgroups: Option<String>,
}

fn known() -> Vec<Known> {
    serde_json::from_str(include_str!("../fixtures/parity/differences.json")).unwrap()
}

fn fits(pattern: &str, line: &str) -> bool {
    match (pattern.strip_prefix('*'), pattern.strip_suffix('*')) {
        (_, Some(start)) if !pattern.starts_with('*') => line.starts_with(start),
        (Some(end), None) => line.ends_with(end),
        (Some(_), Some(_)) => line.contains(pattern.trim_matches('*')),
        _ => line == pattern,
    }
}

/// Sections and lines that depend on the kind of host, not on its daemon.
fn is_hosts(section: &str, line: &str) -> bool {
    matches!(section, "cgroup" | "system calls")
        || (section == "mounts" && line.starts_with("/sys/fs/cgroup"))
        || line.starts_with("cgroup ")
}

/// Compares row by row.
pub fn check(docker: &Recording, ecsd: &Recording) {
    let known = known();
    let mut used = BTreeSet::new();
    let mut unknown: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let other_host = docker.host != ecsd.host;
    if other_host {
        eprintln!(
            "SKIPPED: cgroups and system calls, as dockerd was recorded on another kind of host: {}",
            docker.host
        );
    }
    for (name, seen) in &ecsd.rows {
        for (section, change) in difference(&docker.rows[name], seen) {
            for (sign, lines) in change {
                for line in &lines {
                    if other_host && is_hosts(&section, line) {
                        continue;
                    }
                    let found = known.iter().enumerate().find_map(|(index, known)| {
                        let of = if sign == "-" { &known.docker } else { &known.ecsd };
                        let here = known.section == section
                            && (known.only.is_empty() || known.only.contains(name))
                            && known
                                .cgroups
                                .as_ref()
                                .is_none_or(|kind| docker.host["cgroups"] == kind.as_str());
                        let pattern = of.iter().position(|pattern| here && fits(pattern, line))?;
                        Some((index, sign.clone(), pattern))
                    });
                    match found {
                        Some(found) => drop(used.insert(found)),
                        None => {
                            unknown.entry(format!("{section}: {sign} {line}")).or_default().push(name.clone())
                        }
                    }
                }
            }
        }
    }
    let mut words = String::new();
    for (what, rows) in &unknown {
        let rows =
            if rows.len() > 4 { format!("{} task definitions", rows.len()) } else { format!("{rows:?}") };
        words.push_str(&format!("{what}    [{rows}]\n"));
    }
    let mut unseen = String::new();
    for (index, known) in known.iter().enumerate() {
        let elsewhere = known.cgroups.as_ref().is_some_and(|kind| docker.host["cgroups"] != kind.as_str());
        if elsewhere || (other_host && is_hosts(&known.section, "")) {
            continue;
        }
        for (sign, lines) in [("-", &known.docker), ("+", &known.ecsd)] {
            for (pattern, line) in lines.iter().enumerate() {
                let skipped = other_host && is_hosts(&known.section, line);
                if !skipped && !used.contains(&(index, sign.to_owned(), pattern)) {
                    unseen.push_str(&format!("{}: {}: {sign} {line}\n", known.row, known.section));
                }
            }
        }
    }
    assert!(
        words.is_empty() && unseen.is_empty(),
        "differences that are not known (- only dockerd's, + only ecsd's):\n{words}\nknown ones that are no more:\n{unseen}"
    );
}

/// The rows of the section of docs/differences.md are those of the fixture.
pub fn documented() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/differences.md");
    let text = std::fs::read_to_string(path).unwrap();
    let section = text.split("\n## ").find(|section| section.starts_with("Inside a container\n"));
    let section = section.expect("docs/differences.md has a section \"Inside a container\"");
    let rows: BTreeSet<&str> = section
        .lines()
        .filter_map(|line| line.strip_prefix("| ")?.split(" | ").next())
        .filter(|title| *title != "what")
        .collect();
    let known = known();
    let fixture: BTreeSet<&str> = known.iter().map(|known| known.row.as_str()).collect();
    assert_eq!(rows, fixture, "left: docs/differences.md; right: tests/fixtures/parity/differences.json");
}
