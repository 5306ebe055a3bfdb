//! The shape of the source tree, checked: who may import whom, what the pure core may name, how long
//! a file may be, and what must not be in a tracked file at all.
//!
//! The rules are those of docs/architecture.md. A module that breaks one either moves what it needs
//! into `model` or `ports`, or the rule changes there and here in the same commit.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test panics on what it did not expect")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

/// No file is longer.
const LINES_MAX: usize = 800;

/// What a top-level module may import of the crate. `core` stands for all of it, `core::event` for
/// the types of events and effects alone. Every directory under src must be named here.
const MAY_IMPORT: &[(&str, &[&str])] = &[
    ("model", &[]),
    ("core", &["model"]),
    ("ports", &["core::event", "model"]),
    ("crashpoint", &[]),
    ("reach", &[]),
    ("engine", &["core", "ports", "model", "crashpoint"]),
    ("containerd", ADAPTER),
    ("net", ADAPTER),
    ("cgroup", ADAPTER),
    ("control", ADAPTER),
    ("resources", ADAPTER),
    ("tmds", ADAPTER),
    ("logs", ADAPTER),
    ("stats", ADAPTER),
    ("store", &["ports", "model", "core::event", "crashpoint"]),
    ("telemetry", &["model"]),
    ("config", &["model", "telemetry"]),
    ("local", &["model", "control"]),
    ("app", EVERYTHING_BUT_CLI),
    (
        "cli",
        &[
            "app",
            "config",
            "control",
            "local",
            "logs",
            "model",
            "telemetry",
            "tmds",
            "engine",
            "ports",
            "store",
        ],
    ),
    ("main", &["cli"]),
    ("bin", &["logs"]),
    ("init", &[]),
    ("lib", &[]),
];

const ADAPTER: &[&str] = &["ports", "model", "core::event", "reach"];
const EVERYTHING_BUT_CLI: &[&str] = &[
    "engine",
    "core",
    "ports",
    "model",
    "containerd",
    "net",
    "cgroup",
    "control",
    "resources",
    "tmds",
    "logs",
    "stats",
    "store",
    "telemetry",
    "config",
];

/// The names by which `core` gives its event and effect types to those who may not see the rest.
const CORE_TYPES: &[&str] = &[
    "event",
    "effect",
    "Action",
    "ActionKind",
    "CreatedContainer",
    "Effect",
    "EffectClass",
    "EffectId",
    "Event",
    "Observed",
    "Outcome",
    "PullFailure",
    "ReportOutcome",
];

/// Nothing in `core` names these: it has no clock, no I/O, no chance, and no order that varies.
const NOT_IN_CORE: &[&str] = &[
    "tokio",
    "async",
    "rand",
    "std::fs",
    "std::net::Tcp",
    "std::net::Udp",
    "UdpSocket",
    "TcpStream",
    "SystemTime",
    "Instant",
    "HashMap",
    "HashSet",
    "std::thread",
    "std::process",
    "std::env",
    "Mutex",
    "RwLock",
    "println!",
    "tracing",
];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Every Rust file under a directory.
fn rust_files(under: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut todo = vec![root().join(under)];
    while let Some(directory) = todo.pop() {
        let Ok(entries) = std::fs::read_dir(&directory) else { continue };
        for path in entries.map(|e| e.unwrap().path()) {
            if path.is_dir() {
                todo.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// Code without comments. String literals are left in: a path in one is as telling.
fn code(path: &Path) -> String {
    let text = std::fs::read_to_string(path).unwrap();
    let line = |l: &str| match l.find("//") {
        Some(at) if !l[..at].ends_with(':') => l[..at].to_owned(),
        _ => l.to_owned(),
    };
    text.lines().map(|l| line(l) + "\n").collect()
}

/// Code up to the file's own unit tests, which may use what they like.
fn production(path: &Path) -> String {
    let code = code(path);
    match code.find("#[cfg(test)]\nmod tests {").or_else(|| code.find("#[cfg(test)]\npub(crate) mod tests {"))
    {
        Some(at) => code[..at].to_owned(),
        None => code,
    }
}

/// A file that is compiled for tests only, by the naming of this crate.
fn is_test_file(path: &Path) -> bool {
    let name = path.file_name().unwrap().to_string_lossy();
    name == "tests.rs" || name.ends_with("_tests.rs") || path.components().any(|c| c.as_os_str() == "tests")
}

/// The top-level module of a file under src.
fn module_of(path: &Path) -> String {
    let inside = path.strip_prefix(root().join("src")).unwrap();
    let first = inside.components().next().unwrap().as_os_str().to_string_lossy().into_owned();
    first.trim_end_matches(".rs").to_owned()
}

/// Whether a character may be part of a name.
fn in_name(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Each `crate::a::b` of the text as (`a`, every `b` that it may stand for); `use crate::{a, b}` and
/// `use crate::a::{b, c}` are taken apart, and so is `ecsd::` of the programs.
fn imports(code: &str, own_name: &str) -> BTreeSet<(String, String)> {
    let mut found = BTreeSet::new();
    let marker = format!("{own_name}::");
    for (at, _) in code.match_indices(&marker) {
        if code[..at].ends_with(|c| in_name(c) || c == ':' || c == '$') {
            continue;
        }
        for path in expand(&code[at + marker.len()..]) {
            let mut parts = path.split("::");
            let first = parts.next().unwrap_or_default().to_owned();
            found.insert((first, parts.next().unwrap_or_default().to_owned()));
        }
    }
    found
}

/// The paths that a use tree stands for: `a::{b, c::d}` gives `a::b`, `a::c::d`.
fn expand(tree: &str) -> Vec<String> {
    let tree = tree.trim_start();
    if let Some(inner) = tree.strip_prefix('{') {
        let mut depth = 1;
        let mut start = 0;
        let mut all = Vec::new();
        for (at, c) in inner.char_indices() {
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                ',' if depth == 1 => {
                    all.extend(expand(&inner[start..at]));
                    start = at + 1;
                }
                _ => {}
            }
            if depth == 0 {
                all.extend(expand(&inner[start..at]));
                break;
            }
        }
        return all;
    }
    let name: String = tree.chars().take_while(|c| in_name(*c)).collect();
    if name.is_empty() {
        return Vec::new();
    }
    match tree[name.len()..].strip_prefix("::") {
        Some(rest) => {
            let below = expand(rest);
            if below.is_empty() { vec![name] } else { below.iter().map(|b| format!("{name}::{b}")).collect() }
        }
        None => vec![name],
    }
}

fn allowed(from: &str, to: &str, item: &str) -> bool {
    let Some((_, list)) = MAY_IMPORT.iter().find(|(module, _)| *module == from) else { return false };
    from == to
        || list.contains(&to)
        || (to == "core" && list.contains(&"core::event") && CORE_TYPES.contains(&item))
}

#[test]
fn modules_import_only_what_they_may() {
    let known: BTreeSet<&str> = MAY_IMPORT.iter().map(|(module, _)| *module).collect();
    let mut wrong = Vec::new();
    for path in rust_files("src") {
        let from = module_of(&path);
        let shown = path.strip_prefix(root()).unwrap().display().to_string();
        if !known.contains(from.as_str()) {
            wrong.push(format!("{shown}: module {from} has no rule"));
        }
        if is_test_file(&path) {
            continue;
        }
        let own_name = if matches!(from.as_str(), "main" | "bin") { "ecsd" } else { "crate" };
        for (to, item) in imports(&production(&path), own_name) {
            // A name that is no module is an item of the crate's root.
            if known.contains(to.as_str()) && !allowed(&from, &to, &item) {
                wrong.push(format!("{shown}: {from} must not import {to}::{item}"));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn the_core_is_pure() {
    let mut wrong = Vec::new();
    for path in rust_files("src/core").into_iter().filter(|p| !is_test_file(p)) {
        let code = production(&path);
        for word in NOT_IN_CORE {
            for (at, _) in code.match_indices(word) {
                let starts = !code[..at].ends_with(in_name);
                let ends = !code[at + word.len()..].starts_with(in_name) || word.contains("::");
                if starts && ends {
                    let line = code[..at].lines().count();
                    wrong.push(format!("{}:{line}: core names {word}", path.display()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn files_are_short() {
    let mut sizes: Vec<(usize, PathBuf)> = ["src", "tests", "benches"]
        .iter()
        .flat_map(|under| rust_files(under))
        .map(|path| (std::fs::read_to_string(&path).unwrap().lines().count(), path))
        .collect();
    sizes.sort();
    let in_src: Vec<usize> =
        sizes.iter().filter(|(_, p)| p.starts_with(root().join("src"))).map(|(lines, _)| *lines).collect();
    println!("median of src: {} lines, aim: at most 150", in_src[in_src.len() / 2]);
    for (lines, path) in sizes.iter().rev().take(5) {
        println!("{lines:5} {}", path.strip_prefix(root()).unwrap().display());
    }
    let long: Vec<_> = sizes.iter().filter(|(lines, _)| *lines > LINES_MAX).collect();
    assert!(long.is_empty(), "longer than {LINES_MAX} lines: {long:?}");
}

/// The crate forbids unsafe code, but `build.rs` compiles this program by itself.
#[test]
fn unsafe_code_is_in_the_init_program_alone() {
    let word = format!("un{}", "safe ");
    let has = |path: &PathBuf| production(path).contains(&word);
    let wrong: Vec<_> =
        rust_files("src").into_iter().filter(|path| has(path) && module_of(path) != "init").collect();
    assert!(wrong.is_empty(), "{wrong:?}");
    for path in rust_files("src/init") {
        let text = std::fs::read_to_string(&path).unwrap();
        let count = |what: &str| text.matches(what).count();
        let (blocks, functions) =
            (count(&format!("{word}{{")), count(&format!("{word}fn")) + count(&format!("{word}extern")));
        assert_eq!(count("// SAFETY:"), blocks, "{}: each block says why it is sound", path.display());
        assert_eq!(
            count("/// # Safety"),
            functions,
            "{}: each function says what it asks for",
            path.display()
        );
    }
}

#[test]
fn nothing_is_left_undone() {
    // Put together here, so that this file does not name what it forbids.
    let forbidden = [format!("{}!(", "todo"), format!("{}!(", "unimplemented"), format!("#[{}", "ignore")];
    let mut wrong = Vec::new();
    for path in ["src", "tests", "benches", "examples"].iter().flat_map(|under| rust_files(under)) {
        let code = code(&path);
        for word in forbidden.iter().filter(|word| code.contains(word.as_str())) {
            wrong.push(format!("{}: {word}", path.display()));
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn no_tracked_file_knows_the_machine_it_was_written_on() {
    let listed = Command::new("git").args(["ls-files", "-z"]).current_dir(root()).output();
    let Ok(listed) = listed.map(|o| o.stdout) else { return };
    // Where the tree lies now, and directories that exist on nobody else's machine.
    let here = root().display().to_string();
    let homes = [format!("/{}/", "work"), format!("/{}/.cargo", "root"), format!("/home{}", "/")];
    let mut wrong: BTreeMap<String, String> = BTreeMap::new();
    for name in String::from_utf8_lossy(&listed).split('\0').filter(|n| !n.is_empty()) {
        let Ok(text) = std::fs::read_to_string(root().join(name)) else { continue };
        let bare = text.match_indices(&homes[0]).any(|(at, _)| !text[..at].ends_with(in_name));
        if bare || homes[1..].iter().any(|h| text.contains(h)) || (here.len() > 4 && text.contains(&here)) {
            wrong.insert(name.to_owned(), "names a directory of one machine".to_owned());
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// What only tests want is no part of the programs that are released.
#[test]
fn released_programs_have_no_crash_points() {
    let manifest = std::fs::read_to_string(root().join("Cargo.toml")).unwrap();
    assert!(!manifest.contains("debug-assertions"), "crash points go by debug assertions");
    let out = std::env::temp_dir().join(format!("ecsd-crashpoint-{}", std::process::id()));
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    // Armed, it needs a crate that this compiler is not given: it must not even look for it.
    let compiled = Command::new(rustc)
        .args(["--edition=2024", "--crate-type=lib", "--emit=obj", "-Copt-level=3", "-Cdebug-assertions=off"])
        .args(["-Adead_code", "-o"])
        .arg(&out)
        .arg(root().join("src/crashpoint.rs"))
        .output()
        .unwrap();
    assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
    let object = std::fs::read(&out).unwrap();
    std::fs::remove_file(&out).unwrap();
    assert!(!String::from_utf8_lossy(&object).contains("ECSD_CRASH_FILE"));
    // Nor is there another place that asks for it.
    let asks = |path: &PathBuf| code(path).contains("ECSD_CRASH_FILE");
    let asking: Vec<PathBuf> = rust_files("src").into_iter().filter(asks).collect();
    assert_eq!(asking, [root().join("src/crashpoint.rs")]);
}

#[test]
fn use_trees_are_taken_apart() {
    let code = "use crate::{model::{A, b::C}, ports};\nlet x = crate::net::apply::now();\nmy_crate::core::x";
    let found: Vec<_> = imports(code, "crate").into_iter().map(|(a, b)| format!("{a}::{b}")).collect();
    assert_eq!(found, ["model::A", "model::b", "net::apply", "ports::"]);
    assert!(allowed("store", "core", "Observed") && !allowed("store", "core", "State"));
    assert!(!allowed("store", "net", "apply") && !allowed("unheard_of", "model", "A"));
}
