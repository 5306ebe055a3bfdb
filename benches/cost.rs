//! What one launch does, counted and not timed: calls to containerd by a proxy in between, flushes of
//! the disk and programs begun by strace, of the agent and of containerd with all below it.
//!
//! `cargo bench --bench cost [-- --launches N]` as root. Prints the lists of docs/performance.md; counts
//! are those of a debug build, too.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, missing_docs)]

#[path = "../tests/support/mod.rs"]
mod support;

use serde_json::json;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use support::faulty::FaultyContainerd;
use support::host::{Host, container, family, on_own_network};

/// What is counted: flushes, and programs begun.
const SYSCALLS: &str = "trace=fsync,fdatasync,sync,syncfs,msync,execve,clone,clone3,vfork";

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let at = arguments.iter().position(|argument| argument == "--launches");
    let launches: usize = at.and_then(|at| arguments.get(at + 1)?.parse().ok()).unwrap_or(5);
    if Command::new("strace").arg("-V").stdout(Stdio::null()).status().is_err() {
        return println!("SKIPPED: strace is not installed");
    }
    on_own_network(move || async move {
        let mut host = Host::new().await;
        host.load_busybox().await;
        let faulty = FaultyContainerd::start(host.containerd.socket());
        host.set("ECS_CONTAINERD_ADDRESS", faulty.socket().to_str().unwrap());
        host.start().await;
        let more = json!({"portMappings": [{"containerPort": 80}]});
        let definition = family("cost", [container("main", "sleep 3600", more)]);
        let warm = host.run_task(definition.clone());
        host.until_status(&warm, "RUNNING").await;
        let agent = Traced::begin(&host, "agent", host.agent_pid());
        let containerd = Traced::begin(&host, "containerd", host.containerd.pid());
        let before = faulty.seen().len();
        let mut tasks = Vec::new();
        for _ in 0..launches {
            let arn = host.run_task(definition.clone());
            host.until_status(&arn, "RUNNING").await;
            tasks.push(arn);
        }
        println!("{launches} launches of one container, one after the other; per launch:");
        println!("calls to containerd: {}", per(&counts(faulty.seen().into_iter().skip(before)), launches));
        println!("the agent: {}", per(&agent.end(), launches));
        println!("containerd, its shims and runc: {}", per(&containerd.end(), launches));
    });
}

fn counts(words: impl Iterator<Item = String>) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    words.for_each(|word| *counts.entry(word).or_default() += 1);
    counts
}

/// As text: `a 2.0, b 1.0`.
fn per(counts: &BTreeMap<String, usize>, launches: usize) -> String {
    let each = |(what, count): (&String, &usize)| format!("{what} {:.1}", *count as f64 / launches as f64);
    counts.iter().map(each).collect::<Vec<_>>().join(", ")
}

/// A process that strace follows, with all that it begins.
struct Traced {
    strace: Child,
    log: PathBuf,
}

impl Traced {
    fn begin(host: &Host, name: &str, pid: i32) -> Self {
        let log = host.dir.path().join(format!("strace-{name}"));
        let strace = Command::new("strace")
            .args(["-f", "-e", SYSCALLS, "-o", log.to_str().unwrap(), "-p", &pid.to_string()])
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let tracer = || {
            let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            status.lines().any(|line| line.starts_with("TracerPid:") && !line.ends_with("\t0"))
        };
        while !tracer() {
            std::thread::yield_now();
        }
        Self { strace, log }
    }

    /// System calls by name, and programs by theirs.
    fn end(mut self) -> BTreeMap<String, usize> {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.strace.id()).unwrap());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
        let _ = self.strace.wait();
        let log = std::fs::read_to_string(&self.log).unwrap();
        counts(log.lines().filter_map(named))
    }
}

/// `123 execve("/usr/sbin/runc", ...` is `exec runc`; a thread is told from a process.
fn named(line: &str) -> Option<String> {
    let call = line.trim_start().split_once(' ')?.1.trim_start();
    if call.starts_with("<...") || call.starts_with("+++") || call.starts_with("---") {
        return None;
    }
    let (name, rest) = call.split_once('(')?;
    match name {
        "execve" => {
            let path = rest.trim_start_matches('"').split('"').next()?;
            Some(format!("exec {}", Path::new(path).file_name()?.to_string_lossy()))
        }
        "clone" | "clone3" | "vfork" if rest.contains("CLONE_THREAD") => None,
        "clone" | "clone3" | "vfork" => Some("fork".to_owned()),
        _ => Some(name.to_owned()),
    }
}
