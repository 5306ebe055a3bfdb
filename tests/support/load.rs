//! Many tasks at once, of every kind that needs different things of the host, and what a host looks
//! like before and after. Shared by `tests/load.rs`, which looks at what is left, and `benches/load.rs`,
//! which looks at what it costs.

use super::host::{Host, PATIENCE, container, family, run};
use serde_json::json;
use std::time::Instant;

/// Runs until it gets SIGTERM, then exits with 7.
const STAYS: &str = "trap 'exit 7' TERM; while :; do sleep 5 & wait $!; done";

/// Tasks that were started together.
pub struct Load {
    /// Those that run until they are stopped.
    pub long: Vec<String>,
    /// Those that end by themselves, and their exit codes.
    pub short: Vec<(String, i64)>,
}

impl Load {
    /// Starts so many: of each ten five on the bridge with a port, two on it without, two in the host's
    /// network, and one without any; every fourth ends by itself.
    pub fn start(host: &Host, count: usize) -> Self {
        let mut load = Self { long: Vec::new(), short: Vec::new() };
        for n in 0..count {
            let code = i64::try_from(n % 100).unwrap();
            let short = n % 4 == 3;
            let script = if short { format!("exit {code}") } else { STAYS.to_owned() };
            let ports = if n % 10 < 5 { json!([{"containerPort": 80}]) } else { json!([]) };
            let main = container("main", &script, json!({"memory": 6, "portMappings": ports}));
            let mut definition = family(&format!("load-{n}"), [main]);
            definition["networkMode"] = match n % 10 {
                0..=6 => "bridge",
                7 | 8 => "host",
                _ => "none",
            }
            .into();
            let arn = host.run_task(definition);
            if short { load.short.push((arn, code)) } else { load.long.push(arn) }
        }
        load
    }

    /// Waits until the long ones run and the short ones have ended, as they should.
    pub async fn is_up(&self, host: &Host) {
        let short: Vec<String> = self.short.iter().map(|(arn, _)| arn.clone()).collect();
        reach(host, &short, "STOPPED").await;
        reach(host, &self.long, "RUNNING").await;
        for (arn, code) in &self.short {
            let task = host.control.task(arn).unwrap();
            assert_eq!(task.containers[0].exit_code, Some(*code), "{task:#?}");
        }
    }

    /// Stops the long ones, and waits for their end.
    pub async fn stop(&self, host: &Host) {
        for arn in &self.long {
            host.control.stop_task(arn, "test").unwrap();
        }
        reach(host, &self.long, "STOPPED").await;
        for arn in &self.long {
            let task = host.control.task(arn).unwrap();
            let code = task.containers[0].exit_code;
            // A shell that has not set its trap yet is deaf, and killed.
            assert!(code == Some(7) || code == Some(137), "{task:#?}");
        }
    }
}

/// Waits until all tasks are in that status: for as long as one after the other gets there.
async fn reach(host: &Host, tasks: &[String], status: &str) {
    let there = |arn: &&String| host.control.task(arn).is_some_and(|task| task.last_status == status);
    let (mut before, mut since) = (0, Instant::now());
    loop {
        let now = tasks.iter().filter(there).count();
        if now == tasks.len() {
            return;
        }
        if now != before {
            (before, since) = (now, Instant::now());
        }
        if since.elapsed() > PATIENCE {
            let odd: Vec<_> =
                tasks.iter().filter(|arn| !there(arn)).map(|arn| host.control.task(arn)).collect();
            panic!("{now} of {} are {status}: {odd:#?}", tasks.len());
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

/// What a host holds besides tasks: it must be the same before and after.
#[derive(Debug, PartialEq, Eq)]
pub struct Baseline {
    images: Vec<String>,
    snapshots: Vec<String>,
    blobs: Vec<String>,
    rules: String,
    addresses: String,
    routes: String,
    listeners: Vec<String>,
    mounts: Vec<String>,
    runtime_directories: usize,
}

impl Baseline {
    pub fn of(host: &Host) -> Self {
        let sorted = |text: String, column: usize| {
            let mut words: Vec<String> = text
                .lines()
                .skip(1)
                .filter_map(|line| line.split_whitespace().nth(column).map(str::to_owned))
                .collect();
            words.sort();
            words
        };
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let ours = [host.dir.path(), host.containerd.directory()].map(|path| path.display().to_string());
        let points = mounts.lines().filter_map(|line| line.split(' ').nth(4)).map(str::to_owned);
        let tasks = ["state", "root"].map(|kind| {
            let path = host.containerd.directory().join(kind).join("io.containerd.runtime.v2.task/ecs");
            std::fs::read_dir(path).into_iter().flatten().count()
        });
        Self {
            images: sorted(host.ctr(&["images", "ls"]), 0),
            snapshots: sorted(host.ctr(&["snapshots", "ls"]), 0),
            blobs: sorted(host.ctr(&["content", "ls"]), 0),
            rules: run("nft", &["list", "ruleset"]),
            addresses: run("ip", &["-o", "addr"]),
            // Whether a port of the bridge was up a moment ago is no matter.
            routes: run("ip", &["route", "show", "table", "all"]).replace(" linkdown", ""),
            listeners: sorted(run("ss", &["-ltun"]), 4),
            mounts: points.filter(|point| ours.iter().any(|own| point.starts_with(own))).collect(),
            runtime_directories: tasks.into_iter().sum(),
        }
    }
}

/// Open descriptors of the agent.
pub fn descriptors(host: &Host) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", host.agent_pid())).into_iter().flatten().count()
}

/// Resident and anonymous memory of the agent, in KiB.
pub fn memory(host: &Host) -> (u64, u64) {
    let status = std::fs::read_to_string(format!("/proc/{}/status", host.agent_pid())).unwrap();
    let field = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap_or_default();
        line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).unwrap_or(0)
    };
    (field("VmRSS:"), field("RssAnon:"))
}
