//! How long it takes to launch, and what the agent needs while it does: ecsd beside `ctr run -d` (the
//! floor: the same containerd, no network, no log) and `docker run -d` (a stand-in for the original
//! agent, which adds to it), interleaved in one run on one machine.
//!
//! `cargo bench --bench launch [-- --rounds N]` as root. Prints the tables of docs/performance.md.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, missing_docs)]

#[path = "../tests/support/mod.rs"]
mod support;

use ecsd::local::Change;
use serde_json::json;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use support::containerd::TempDir;
use support::host::{BUSYBOX, Host, PATIENCE, busybox_config, busybox_files, on_own_network, run};

/// How many tasks are launched at once, one table row each.
const AT_ONCE: [usize; 3] = [1, 20, 50];

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let rounds = arguments
        .iter()
        .position(|argument| argument == "--rounds")
        .and_then(|at| arguments.get(at + 1)?.parse().ok())
        .unwrap_or(10);
    on_own_network(move || bench(rounds));
}

async fn bench(rounds: usize) {
    let docker = Docker::start();
    let mut host = Host::new().await;
    host.set("ECS_LOGLEVEL", "info");
    // As `docker run` does: a local image is not asked about at the registry.
    host.set("ECS_IMAGE_PULL_BEHAVIOR", "prefer-cached");
    host.load_busybox().await;
    host.start().await;
    let definition = host
        .control
        .register_task_definition(json!({
            "family": "bench",
            "containerDefinitions": [{ "name": "main", "image": BUSYBOX, "memory": 64, "cpu": 10,
                "command": ["sleep", "3600"], "portMappings": [{ "containerPort": 80, "hostPort": 0 }] }],
        }))
        .unwrap();
    let idle = memory(host.agent_pid());
    let mut measured: Vec<Measured> = Vec::new();
    for count in AT_ONCE {
        let (mut times, mut loaded) = (Times::default(), Vec::new());
        // The first of each kind warms caches that all later ones find warm.
        for round in 0..=rounds {
            times.add(
                round > 0,
                ecsd(&host, &definition, count, &mut loaded).await,
                ctr(&host, count),
                docker.as_ref().map(|d| d.launch(count)),
            );
        }
        measured.push((count, times, loaded));
    }
    println!(
        "| what (median of {rounds}; min to max) | ecsd | ctr run -d | docker run -d | ecsd/docker | ecsd/ctr |"
    );
    println!("|---|---|---|---|---|---|");
    for (count, times, _) in &mut measured {
        times.print(&format!("{count} at once, image cached, bridge, one port: payload -> the last RUNNING"));
    }
    println!();
    println!("| agent memory, MiB resident (anonymous) | |");
    println!("|---|---|");
    println!("| idle | {} |", show(idle));
    for (count, _, loaded) in &measured {
        let most = loaded.iter().max().copied().unwrap_or_default();
        println!("| with {count} tasks, the most of all rounds | {} |", show(most));
    }
    let launched = (rounds + 1) * AT_ONCE.iter().sum::<usize>();
    println!("| after {launched} tasks | {} |", show(memory(host.agent_pid())));
    println!();
    let log = host.agent_log();
    println!("Where one launch goes (the agent's own phases, median of the single ones, ms):");
    phases(&log, rounds + 1);
}

/// One number of tasks at once: how long it took, and the agent's memory in each round.
type Measured = (usize, Times, Vec<(u64, u64)>);

/// One table row in the making: seconds of ecsd, ctr and docker.
#[derive(Default)]
struct Times {
    ecsd: Vec<f64>,
    ctr: Vec<f64>,
    docker: Vec<f64>,
}

impl Times {
    fn add(&mut self, count: bool, ecsd: Duration, ctr: Duration, docker: Option<Duration>) {
        eprintln!("  ecsd {ecsd:.0?}, ctr {ctr:.0?}, docker {docker:.0?}");
        if count {
            self.ecsd.push(ecsd.as_secs_f64());
            self.ctr.push(ctr.as_secs_f64());
            self.docker.extend(docker.map(|d| d.as_secs_f64()));
        }
    }

    fn print(&mut self, what: &str) {
        let (ecsd, ctr) = (median(&mut self.ecsd), median(&mut self.ctr));
        let docker = median(&mut self.docker);
        println!(
            "| {what} | {} | {} | {} | {:.2} | {:.2} |",
            span(&self.ecsd),
            span(&self.ctr),
            span(&self.docker),
            ecsd / docker,
            ecsd / ctr
        );
    }
}

fn median(times: &mut [f64]) -> f64 {
    times.sort_by(f64::total_cmp);
    times.get(times.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Sorted times as `median (min to max)`.
fn span(times: &[f64]) -> String {
    match (times.first(), times.get(times.len() / 2), times.last()) {
        (Some(least), Some(median), Some(most)) => format!("{median:.3} s ({least:.3} to {most:.3})"),
        _ => "not here".to_owned(),
    }
}

/// Launches `count` tasks at once and answers when the last RUNNING was received.
async fn ecsd(host: &Host, definition: &str, count: usize, resident: &mut Vec<(u64, u64)>) -> Duration {
    let mut changes = host.control.subscribe();
    let begun = Instant::now();
    let mut waiting: Vec<String> =
        (0..count).map(|_| host.control.run_task(definition, json!({})).unwrap()).collect();
    let all = waiting.clone();
    while !waiting.is_empty() {
        match tokio::time::timeout(PATIENCE, changes.recv()).await.expect("tasks run") {
            Ok(Change::Task(task)) if task.last_status == "RUNNING" => waiting.retain(|arn| *arn != task.arn),
            Ok(_) => {}
            Err(_) => {
                waiting.retain(|arn| host.control.task(arn).is_some_and(|t| t.last_status != "RUNNING"))
            }
        }
    }
    let took = begun.elapsed();
    resident.push(memory(host.agent_pid()));
    for arn in &all {
        host.control.stop_task(arn, "measured").unwrap();
    }
    for arn in &all {
        host.until_status(arn, "STOPPED").await;
    }
    let tasks = host.dir.path().join("data/tasks");
    host.until("tasks are cleaned up", |_| std::fs::read_dir(&tasks).unwrap().next().is_none()).await;
    took
}

/// `ctr run -d` of the same image in the same containerd.
fn ctr(host: &Host, count: usize) -> Duration {
    let socket = host.containerd.socket().to_owned();
    let names: Vec<String> = (0..count).map(|n| format!("floor-{n}")).collect();
    let ctr = |arguments: &[&str]| {
        let mut command = Command::new("ctr");
        command.arg("-a").arg(&socket).args(["-n", "ecs"]).args(arguments);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command
    };
    let took = at_once(&names, |name| ctr(&["run", "-d", BUSYBOX, name, "sleep", "3600"]));
    for name in &names {
        ctr(&["task", "kill", "-s", "KILL", name]).status().unwrap();
        while !ctr(&["task", "rm", name]).status().unwrap().success() {
            std::thread::sleep(Duration::from_millis(10));
        }
        ctr(&["container", "rm", name]).status().unwrap();
    }
    took
}

/// Runs one program for each name, all at once; answers when the last has ended.
fn at_once(names: &[String], program: impl Fn(&str) -> Command) -> Duration {
    let begun = Instant::now();
    let children: Vec<Child> = names.iter().map(|name| program(name).spawn().unwrap()).collect();
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    begun.elapsed()
}

/// A private dockerd in this network namespace.
struct Docker {
    daemon: Child,
    socket: String,
    _dir: TempDir,
}

impl Docker {
    fn start() -> Option<Self> {
        let dir = TempDir::new("dockerd");
        let path = |name: &str| dir.path().join(name).display().to_string();
        let socket = format!("unix://{}", path("docker.sock"));
        let log = std::fs::File::create(dir.path().join("log")).unwrap();
        let daemon = Command::new("dockerd")
            .args(["--host", &socket, "--data-root", &path("data"), "--exec-root", &path("exec")])
            .args(["--pidfile", &path("pid"), "--bip", "172.30.0.1/16"])
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn();
        let Ok(daemon) = daemon else {
            eprintln!("SKIPPED: dockerd is not installed; there is nothing to compare with");
            return None;
        };
        let mut docker = Self { daemon, socket, _dir: dir };
        let begun = Instant::now();
        while !docker.docker(&["version"]).status().is_ok_and(|status| status.success()) {
            if begun.elapsed() > PATIENCE || docker.daemon.try_wait().unwrap().is_some() {
                let log = std::fs::read_to_string(docker._dir.path().join("log")).unwrap_or_default();
                eprintln!("SKIPPED: dockerd does not start here:\n{log}");
                return None;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        docker.load();
        Some(docker)
    }

    fn docker(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("docker");
        command.args(["-H", &self.socket]).args(arguments);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command
    }

    /// The same files as the image of the others, by `docker import`.
    fn load(&self) {
        let root = self._dir.path().join("rootfs");
        for file in busybox_files() {
            let path = root.join(file.path.trim_start_matches('/'));
            write_file(&path, &file.content, file.mode);
        }
        let tar: PathBuf = self._dir.path().join("rootfs.tar");
        run("tar", &["-C", &root.display().to_string(), "-cf", &tar.display().to_string(), "."]);
        let path = busybox_config().env.first().cloned().unwrap_or_default();
        let change = format!("ENV {}", path.replacen('=', " ", 1));
        let import =
            ["import", "--change", &change, &tar.display().to_string(), "bench:1"].map(str::to_owned);
        let import: Vec<&str> = import.iter().map(String::as_str).collect();
        assert!(self.docker(&import).status().unwrap().success());
    }

    fn launch(&self, count: usize) -> Duration {
        let names: Vec<String> = (0..count).map(|n| format!("bench-{n}")).collect();
        let took = at_once(&names, |name| {
            self.docker(&[
                "run",
                "-d",
                "-p",
                "80",
                "--name",
                name,
                "-m",
                "64m",
                "--cpu-shares",
                "10",
                "bench:1",
                "sleep",
                "3600",
            ])
        });
        for name in &names {
            self.docker(&["rm", "-f", name]).status().unwrap();
        }
        took
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.daemon.id()).unwrap());
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        let _ = self.daemon.wait();
    }
}

fn write_file(path: &Path, content: &ecsd::containerd::image::archive::RootfsContent, mode: u32) {
    use ecsd::containerd::image::archive::RootfsContent;
    use std::os::unix::fs::PermissionsExt;
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).unwrap();
    }
    match content {
        RootfsContent::Bytes(bytes) => {
            std::fs::write(path, bytes).unwrap();
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
        }
        RootfsContent::Symlink(target) => std::os::unix::fs::symlink(target, path).unwrap(),
        RootfsContent::Directory => std::fs::create_dir_all(path).unwrap(),
    }
}

/// Resident and anonymous memory of a process, in KiB.
fn memory(pid: i32) -> (u64, u64) {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let field = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap_or_default();
        line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).unwrap_or(0)
    };
    (field("VmRSS:"), field("RssAnon:"))
}

fn show((resident, anonymous): (u64, u64)) -> String {
    format!("{:.1} ({:.1})", resident as f64 / 1024.0, anonymous as f64 / 1024.0)
}

/// Medians of the phases that the agent logged for its first launches.
fn phases(log: &str, launches: usize) {
    let lines: Vec<&str> =
        log.lines().filter(|line| line.contains("msg=\"task launched\"")).take(launches).collect();
    for phase in ["payload", "wait", "pull", "network", "create", "start", "report", "total"] {
        let key = format!("{phase}_ms=");
        let of = |line: &str| line.split_once(&key)?.1.split_whitespace().next()?.parse::<f64>().ok();
        let mut times: Vec<f64> = lines.iter().filter_map(|line| of(line)).collect();
        println!("- {phase}: {:.1}", median(&mut times));
    }
}
