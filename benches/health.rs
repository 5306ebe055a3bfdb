//! What health checks cost the agent: its processor time while checks run in real containers, against
//! the same containers whose checks rest.
//!
//! `cargo bench --bench health -- --containers 10 --interval-ms 100 --seconds 60` as root. A run of a
//! check takes the shim and runc tens of milliseconds of a processor, so how many there are in a second is
//! theirs to say; the table has how many there were, what each cost the agent, and what 100 a second would.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, missing_docs)]

#[path = "../tests/support/mod.rs"]
mod support;

#[allow(dead_code, reason = "the bench needs no reports of its own")]
#[path = "../tests/agent/scripted.rs"]
mod scripted;

use scripted::{Scripted, arn, fresh_id, task};
use serde_json::{Value, json};
use std::path::Path;
use std::time::{Duration, Instant};
use support::backend::Channel;
use support::host::{Host, on_own_network};

/// Of the kernel's clock for processes.
const TICK: Duration = Duration::from_millis(10);
/// What is asked for: 100 checks a second in less of a processor than this.
const MOST_PERCENT: f64 = 5.0;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let number = |name: &str, default: u32| {
        let at = arguments.iter().position(|argument| argument == name);
        at.and_then(|at| arguments.get(at + 1)?.parse().ok()).unwrap_or(default).max(1)
    };
    let (containers, interval) = (number("--containers", 10), number("--interval-ms", 100));
    let seconds = Duration::from_secs(number("--seconds", 60).into());
    on_own_network(move || async move {
        let mut scripted = Scripted::start_with(&[("ECS_LOGLEVEL", "info")]).await;
        let _telemetry = scripted.backend.accept(Channel::Tcs).await;
        let rests = measure(&mut scripted, containers, Duration::from_secs(3600), seconds).await;
        let checks =
            measure(&mut scripted, containers, Duration::from_millis(interval.into()), seconds).await;
        let each = (checks.cpu.saturating_sub(rests.cpu)).as_secs_f64() / f64::from(checks.runs.max(1));
        println!("{containers} containers, a task each; {interval} ms from the end of a check to the next");
        println!("| | checks a second | agent, % of a processor | agent, resident |");
        println!("|---|---|---|---|");
        for (what, run) in [("checks rest", &rests), ("checks run", &checks)] {
            let (rate, percent) = (f64::from(run.runs) / run.wall, 100.0 * run.cpu.as_secs_f64() / run.wall);
            println!("| {what} | {rate:.1} | {percent:.2} | {:.1} MiB |", run.resident_mib);
        }
        // Nothing is left running, whatever the figures say.
        drop(scripted);
        let percent = each * 100.0 * 100.0;
        println!(
            "a check costs the agent {:.0} µs; 100 a second are {percent:.2} % of a processor",
            each * 1e6
        );
        if percent > MOST_PERCENT {
            println!("VIOLATION: more than {MOST_PERCENT} %");
            std::process::exit(1);
        }
    });
}

struct Measured {
    wall: f64,
    cpu: Duration,
    runs: u32,
    resident_mib: f64,
}

/// Starts so many containers, measures, and stops them again.
async fn measure(scripted: &mut Scripted, containers: u32, interval: Duration, wall: Duration) -> Measured {
    let shared = scripted.host.dir.path().join("shared");
    std::fs::create_dir_all(&shared).unwrap();
    let tasks: Vec<(String, Value)> = (0..containers)
        .map(|_| {
            let id = fresh_id();
            let task = checked(&id, &shared, interval);
            (id, task)
        })
        .collect();
    for (id, task) in &tasks {
        scripted.send(json!([task])).await;
        scripted.reported(id, "RUNNING").await;
    }
    // What starting them has cost is over.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let (begun, cpu, runs) = (Instant::now(), cpu(&scripted.host), runs_in(&shared));
    tokio::time::sleep(wall).await;
    let measured = Measured {
        wall: begun.elapsed().as_secs_f64(),
        cpu: self::cpu(&scripted.host).saturating_sub(cpu),
        runs: runs_in(&shared) - runs,
        resident_mib: resident_mib(&scripted.host),
    };
    for (id, mut task) in tasks {
        task["desiredStatus"] = "STOPPED".into();
        scripted.send(json!([task])).await;
        scripted.reported(&id, "STOPPED").await;
    }
    measured
}

/// A task whose check writes a line for each of its runs.
fn checked(id: &str, shared: &Path, interval: Duration) -> Value {
    let check = json!({"Test": ["CMD-SHELL", format!("echo >> /v/{id}")],
        "Interval": u64::try_from(interval.as_nanos()).unwrap()});
    let mut task = task(id, "trap 'exit 0' TERM; while :; do sleep 3600 & wait; done");
    assert_eq!(task["arn"], arn(id));
    task["volumes"] = json!([{"name": "v", "host": {"sourcePath": shared.display().to_string()}}]);
    let container = &mut task["containers"][0];
    container["mountPoints"] = json!([{"sourceVolume": "v", "containerPath": "/v"}]);
    container["healthCheckType"] = "docker".into();
    container["dockerConfig"]["config"] = json!({"Healthcheck": check}).to_string().into();
    task
}

fn runs_in(shared: &Path) -> u32 {
    let files =
        std::fs::read_dir(shared).unwrap().map(|entry| std::fs::read_to_string(entry.unwrap().path()));
    files.map(|text| u32::try_from(text.unwrap().lines().count()).unwrap()).sum()
}

/// User and system time of the agent's process so far.
fn cpu(host: &Host) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", host.agent_pid())).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    let ticks: u32 = fields[11..13].iter().map(|field| field.parse::<u32>().unwrap()).sum();
    TICK * ticks
}

fn resident_mib(host: &Host) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", host.agent_pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.split_whitespace().next().unwrap().parse::<f64>().unwrap() / 1024.0
}
