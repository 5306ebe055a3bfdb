//! What is told of containers, against what the kernel itself counted for them: the whole agent on a
//! real containerd, its telemetry as the control plane received it.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod support;

use ecsd::app::telemetry::HostMeter;
use ecsd::cgroup::{CgroupOptions, CgroupService};
use ecsd::local::Received;
use ecsd::model::{ContainerId, ContainerMetrics, TaskArn, TaskSpec};
use ecsd::stats::{Meter, Statistics, Target};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use support::host::{Host, container, family, with_agent};

const MIB: u64 = 1024 * 1024;

/// Within one percent.
fn assert_close(what: &str, told: f64, counted: f64) {
    assert!((told - counted).abs() <= counted.abs() / 100.0, "{what}: told {told}, counted {counted}");
}

fn target(arn: &str, name: &str) -> Target {
    let arn = TaskArn::parse(arn).unwrap();
    let spec = TaskSpec { ..TaskSpec::empty(arn.clone()) };
    Target { key: spec.key(name), id: ContainerId::derive(&arn, name), spec: Arc::new(spec), restarts: None }
}

/// Processor time of a container in nanoseconds, as its kernel tells it.
fn cpu_ns(host: &Host, arn: &str, name: &str) -> u64 {
    if Path::new("/sys/fs/cgroup/cpuacct").is_dir() {
        return host.cgroup_file(arn, Some(name), "cpuacct.usage").parse().unwrap();
    }
    let text = host.cgroup_file(arn, Some(name), "cpu.stat");
    let line = text.lines().find_map(|line| line.strip_prefix("usage_usec ")).unwrap();
    line.parse::<u64>().unwrap() * 1000
}

/// Memory in earnest: without what is reclaimed for the asking.
fn memory(host: &Host, arn: &str, name: &str) -> u64 {
    let (usage, reclaimable) = if Path::new("/sys/fs/cgroup/memory").is_dir() {
        ("memory.usage_in_bytes", "cache ")
    } else {
        ("memory.current", "inactive_file ")
    };
    let usage: u64 = host.cgroup_file(arn, Some(name), usage).parse().unwrap();
    let text = host.cgroup_file(arn, Some(name), "memory.stat");
    let reclaimable: u64 =
        text.lines().find_map(|line| line.strip_prefix(reclaimable)).unwrap().parse().unwrap();
    usage - reclaimable
}

/// Bytes that a container received and sent, as it sees them itself.
fn traffic(pid: i32) -> (u64, u64) {
    let text = std::fs::read_to_string(format!("/proc/{pid}/net/dev")).unwrap();
    let line = text.lines().find_map(|line| line.trim().strip_prefix("eth0:")).unwrap();
    let numbers: Vec<u64> = line.split_whitespace().map(|n| n.parse().unwrap()).collect();
    (numbers[0], numbers[8])
}

/// Stops a process and waits until it is no more on a processor; so its counters stand still.
async fn freeze(host: &Host, pid: i32) {
    kill(Pid::from_raw(pid), Signal::SIGSTOP).unwrap();
    host.until("it is stopped", |_| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        stat.rsplit(')').next().unwrap().trim().starts_with('T')
    })
    .await;
}

fn thaw(pid: i32) {
    kill(Pid::from_raw(pid), Signal::SIGCONT).unwrap();
}

/// How many processors this process may use.
fn processors() -> usize {
    let set = nix::sched::sched_getaffinity(Pid::from_raw(0)).unwrap();
    (0..nix::sched::CpuSet::count()).filter(|cpu| set.is_set(*cpu).unwrap()).count()
}

#[test]
fn shares_of_processors_are_what_the_kernel_counted() {
    with_agent(|host| async move {
        let arn = host.run_task(family("burn", [container("main", "while :; do :; done", json!({}))]));
        host.until_status(&arn, "RUNNING").await;
        let pid = host.container_pid(&arn, "main").unwrap();
        let target = target(&arn, "main");
        let options = CgroupOptions { root: host.cgroup_root(), ..CgroupOptions::default() };
        let mut meter = HostMeter::new(Arc::new(CgroupService::new(options).unwrap()));
        let statistics = Statistics::new(Duration::from_secs(1));
        statistics.track(std::slice::from_ref(&target));
        let mut sample = || {
            meter.begin(std::slice::from_ref(&target));
            let usage = meter.read(&target).unwrap();
            statistics.record(&target.key, usage.clone());
            usage
        };
        let told = || -> ContainerMetrics { statistics.metrics().tasks[0].containers[0].clone() };
        freeze(&host, pid).await;
        let counted = cpu_ns(&host, &arn, "main");
        let first = sample();
        assert_eq!(first.cpu.total_ns, counted);
        for round in 1..=3u64 {
            let before = cpu_ns(&host, &arn, "main");
            let at = statistics.latest(&target.key).unwrap().0.at;
            thaw(pid);
            host.until("it has burned", |host| cpu_ns(host, &arn, "main") > before + 200_000_000).await;
            freeze(&host, pid).await;
            let burned = cpu_ns(&host, &arn, "main") - before;
            let elapsed = sample().at.mono.since(at.mono);
            let metrics = told();
            assert_eq!(metrics.cpu.sample_count, 1, "round {round}");
            let told_ns = metrics.cpu.sum / 100.0 * processors() as f64 * elapsed.as_nanos() as f64;
            assert_close("processor time", told_ns, burned as f64);
            let counted = memory(&host, &arn, "main");
            assert_eq!(metrics.memory.max, (counted / MIB) as f64);
            let network = metrics.network.unwrap();
            assert_eq!((network.rx_bytes.max, network.tx_bytes.max), traffic(pid));
            statistics.confirm(&statistics.metrics().tasks);
            assert!(statistics.metrics().tasks.is_empty());
        }
        // What user and kernel mode share is the whole, up to the kernel's ticks.
        let usage = sample();
        let modes = usage.cpu.user_ns + usage.cpu.system_ns;
        assert!(modes.abs_diff(usage.cpu.total_ns) < 100_000_000, "{:?}", usage.cpu);
        assert!(usage.pids.is_some_and(|pids| pids.current == 1));
        thaw(pid);
    });
}

/// Status and JSON of an answer of the metadata endpoint.
fn ask(path: &str) -> Option<Value> {
    let mut stream = TcpStream::connect("127.0.0.1:51679").ok()?;
    stream
        .write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes())
        .ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    head.starts_with("HTTP/1.1 200").then(|| serde_json::from_str(body).unwrap())
}

#[test]
fn a_container_is_told_what_the_kernel_counted_in_the_shape_of_docker() {
    with_agent(|host| async move {
        let script = "echo $ECS_CONTAINER_METADATA_URI_V4; while :; do :; done";
        let arn = host.run_task(family("stats", [container("main", script, json!({}))]));
        host.until_status(&arn, "RUNNING").await;
        let pid = host.container_pid(&arn, "main").unwrap();
        host.until("it has its address", |host| host.logs(&arn, "main").contains("/v4/")).await;
        let id = host.logs(&arn, "main").trim().rsplit('/').next().unwrap().to_owned();
        freeze(&host, pid).await;
        let counted = cpu_ns(&host, &arn, "main");
        let mut stats = Value::Null;
        host.until("two samples are of the stopped process", |_| {
            stats = ask(&format!("/v4/{id}/stats")).unwrap_or_default();
            let total = |key: &str| stats[key]["cpu_usage"]["total_usage"].as_u64();
            total("cpu_stats") == Some(counted) && total("precpu_stats") == Some(counted)
        })
        .await;
        let (received, sent) = traffic(pid);
        assert_eq!(stats["networks"]["eth0"]["rx_bytes"], received);
        assert_eq!(stats["networks"]["eth0"]["tx_bytes"], sent);
        assert_eq!(stats["network_rate_stats"]["tx_bytes_per_sec"], 0);
        assert_eq!(stats["memory_stats"]["limit"], 32 * MIB);
        assert_eq!(stats["pids_stats"]["current"], 1);
        assert_eq!(stats["id"], host.container_id(&arn, "main"));
        assert!(
            stats["cpu_stats"]["system_cpu_usage"].as_u64()
                > stats["precpu_stats"]["system_cpu_usage"].as_u64()
        );
        assert_eq!(stats["cpu_stats"]["online_cpus"], processors());
        let recorded: Value = serde_json::from_str(include_str!("fixtures/tmds/v4_stats.json")).unwrap();
        for (key, value) in recorded.as_object().unwrap() {
            let keys =
                |value: &Value| value.as_object().map(|fields| fields.keys().cloned().collect::<Vec<_>>());
            let told = keys(&stats[key]);
            for field in keys(value).into_iter().flatten() {
                assert!(told.as_ref().is_some_and(|told| told.contains(&field)), "{key}.{field}: {stats:#}");
            }
        }
        let all = ask(&format!("/v3/{id}/task/stats")).unwrap();
        assert_eq!(all[host.container_id(&arn, "main")]["cpu_stats"]["cpu_usage"]["total_usage"], counted);
        thaw(pid);
    });
}

/// The newest metrics of a container, where any came.
fn metrics_of(host: &Host, arn: &str, name: &str) -> Option<Value> {
    let Received { body, .. } = host.control.telemetry().metrics.remove(arn)?;
    let all = body["containerMetrics"].as_array().unwrap().clone();
    all.into_iter().find(|container| container["containerName"] == name)
}

#[test]
fn the_control_plane_is_told_what_the_kernel_counted() {
    with_agent(|host| async move {
        const SENT: usize = 4 * 1024 * 1024;
        // Reads all of it before it writes any, and nobody ever reads that.
        let script = "nc -l -p 9000 >/dev/null & dd if=/dev/zero bs=100M count=1 | sleep 3600";
        let ports = json!([{"containerPort": 9000, "hostPort": 8099}]);
        let main = container("main", script, json!({"portMappings": ports, "memory": 200}));
        let arn = host.run_task(family("hold", [main, container("idle", "sleep 3600", json!({}))]));
        let mut alone = family("host-mode", [container("main", "sleep 3600", json!({}))]);
        alone["networkMode"] = "host".into();
        let in_host = host.run_task(alone);
        host.until_status(&arn, "RUNNING").await;
        host.until_status(&in_host, "RUNNING").await;
        let pid = host.container_pid(&arn, "main").unwrap();
        let mut stream = None;
        host.until("it listens", |_| {
            stream = TcpStream::connect("127.0.0.1:8099").ok();
            stream.is_some()
        })
        .await;
        // A connection that nobody took in the container ends here; the first that is taken holds.
        stream.unwrap().write_all(&vec![7; SENT]).unwrap();
        host.until("all has arrived", |_| traffic(pid).0 > SENT as u64).await;
        host.until("it holds its memory", |host| memory(host, &arn, "main") > 100 * MIB).await;

        // A publication whose every sample is of after that.
        let mut metrics = Value::Null;
        host.until("the agent told", |host| {
            let Some(newest) = metrics_of(host, &arn, "main") else { return false };
            let (memory, received) = (&newest["memoryStatsSet"], &newest["networkStatsSet"]["rxBytes"]);
            let quiet = received["min"] == received["max"] && received["min"].as_u64().unwrap() > SENT as u64;
            let holds = memory["min"].as_f64().unwrap() >= 100.0;
            metrics = newest;
            quiet && holds
        })
        .await;
        let (received, sent) = traffic(pid);
        let number = |path: &str| {
            metrics.pointer(path).and_then(Value::as_f64).unwrap_or_else(|| panic!("{path}: {metrics:#}"))
        };
        assert_close("bytes received", number("/networkStatsSet/rxBytes/max"), received as f64);
        assert_close("bytes sent", number("/networkStatsSet/txBytes/max"), sent as f64);
        let held = memory(&host, &arn, "main") as f64 / MIB as f64;
        for path in ["/memoryStatsSet/min", "/memoryStatsSet/max"] {
            assert_close(path, number(path), held);
        }
        let samples = number("/memoryStatsSet/sampleCount");
        assert!(samples >= 1.0 && number("/cpuStatsSet/sampleCount") <= samples);
        assert_close("a sum", number("/memoryStatsSet/sum"), samples * held);
        assert!(number("/cpuStatsSet/min") >= 0.0 && number("/storageStatsSet/readSizeBytes/min") >= 0.0);
        assert!(metrics_of(&host, &arn, "idle").unwrap()["networkStatsSet"].is_object());
        let in_host = metrics_of(&host, &in_host, "main").unwrap();
        assert!(in_host.get("networkStatsSet").is_none() && in_host["cpuStatsSet"].is_object());

        assert!(host.control.telemetry().health.is_empty());
        host.until("the instance is well", |host| {
            let told = host.control.telemetry().instance_status;
            told.values().any(|status| {
                status.body[0]["type"] == "ContainerRuntime" && status.body[0]["status"] == "OK"
            })
        })
        .await;
        host.control.stop_task(&arn, "test").unwrap();
        host.until_status(&arn, "STOPPED").await;
    });
}
