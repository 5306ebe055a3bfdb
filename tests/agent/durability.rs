//! What survives the end of the agent, and of containerd, at any moment.

use crate::support::containerd::chosen_bin_dir;
use crate::support::host::{Host, container, family, with_agent};
use serde_json::{Value, json};
use std::time::Duration;

pub const STAYS: &str = "trap 'exit 7' TERM; echo ready; while :; do sleep 0.1; done";

/// A task that notes each start of its container in a directory of the host.
pub fn counted(host: &Host, name: &str, script: &str) -> Value {
    let script = format!("echo {name} >> /v/starts; {script}");
    let mount = json!({"mountPoints": [{"sourceVolume": "v", "containerPath": "/v"}],
        "portMappings": [{"containerPort": 80}]});
    let mut definition = family(name, [container("main", &script, mount)]);
    let shared = host.dir.path().join("shared");
    std::fs::create_dir_all(&shared).unwrap();
    definition["volumes"] = json!([{"name": "v", "host": {"sourcePath": shared}}]);
    definition
}

/// How often a task's container was started.
pub fn starts(host: &Host, name: &str) -> usize {
    let file = host.dir.path().join("shared/starts");
    std::fs::read_to_string(file).unwrap_or_default().lines().filter(|line| *line == name).count()
}

pub async fn run_ready(host: &Host, name: &str) -> String {
    let arn = host.run_task(counted(host, name, STAYS));
    host.until_status(&arn, "RUNNING").await;
    host.until("it is ready", |host| host.logs(&arn, "main").contains("ready")).await;
    arn
}

/// Stops the tasks, each of which ends by itself at the stop signal, and waits for the last trace of them.
pub async fn all_stop_cleanly(host: &Host, tasks: &[String]) {
    for arn in tasks {
        host.control.stop_task(arn, "test").unwrap();
    }
    for arn in tasks {
        assert_eq!(host.until_status(arn, "STOPPED").await.containers[0].exit_code, Some(7));
    }
    host.until_nothing_is_left().await;
}

pub fn sigkill(pid: i32) {
    let pid = nix::unistd::Pid::from_raw(pid);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
}

/// ARNs of the registered container instances.
pub fn instances(host: &Host) -> Vec<Value> {
    let listed = host.control.call("ListContainerInstances", json!({})).unwrap();
    listed["containerInstanceArns"].as_array().unwrap().clone()
}

/// Starts the agent again and waits until it has come back to the control plane.
pub async fn start_again(host: &mut Host) {
    host.until("the control plane has seen it go", |host| !host.control.has_ready_instance()).await;
    host.start().await;
}

#[test]
fn sigterm_ends_the_agent_within_two_seconds_and_no_container() {
    with_agent(|mut host| async move {
        let arn = run_ready(&host, "stays").await;
        let pid = host.container_pid(&arn, "main").unwrap();
        let (code, took) = host.stop_agent().await;
        assert_eq!(code, Some(0));
        assert!(took < Duration::from_secs(2), "{took:?}");
        assert_eq!(host.container_pid(&arn, "main"), Some(pid));
        start_again(&mut host).await;
        all_stop_cleanly(&host, &[arn]).await;
    });
}

#[test]
fn an_agent_that_was_killed_takes_up_what_is_there() {
    with_agent(|mut host| async move {
        let (stays, ends) = (run_ready(&host, "stays").await, run_ready(&host, "ends").await);
        let before = (instances(&host), host.container_pid(&stays, "main"), host.record(&stays, "main"));
        let known = host.control.task(&stays).unwrap();
        host.kill_agent();
        sigkill(host.container_pid(&ends, "main").unwrap());
        start_again(&mut host).await;
        // What happened in the meantime is told.
        let task = host.until_status(&ends, "STOPPED").await;
        assert_eq!(task.containers[0].exit_code, Some(137));
        assert_eq!(
            before,
            (instances(&host), host.container_pid(&stays, "main"), host.record(&stays, "main"))
        );
        assert_eq!((starts(&host, "stays"), starts(&host, "ends")), (1, 1));
        let now = host.control.task(&stays).unwrap();
        assert_eq!(now.last_status, "RUNNING");
        assert_eq!(now.containers[0].runtime_id, known.containers[0].runtime_id);
        assert_eq!(now.containers[0].network_bindings, known.containers[0].network_bindings);
        // Its port is mapped and held as before.
        let port =
            u16::try_from(now.containers[0].network_bindings[0]["hostPort"].as_u64().unwrap()).unwrap();
        host.until("the port is held", |_| std::net::TcpListener::bind(("0.0.0.0", port)).is_err()).await;
        assert_eq!(host.port_map().len(), 1);
        let another = run_ready(&host, "another").await;
        all_stop_cleanly(&host, &[stays, another]).await;
    });
}

#[test]
fn an_agent_that_is_killed_at_any_point_of_a_launch_makes_nothing_twice() {
    with_agent(|mut host| async move {
        let mut tasks = Vec::new();
        // Not waits: the moments at which it is killed.
        for (n, moment) in [0, 20, 40, 80, 120, 160, 240, 320].into_iter().enumerate() {
            let name = format!("task-{n}");
            let arn = host.run_task(counted(&host, &name, STAYS));
            tokio::time::sleep(Duration::from_millis(moment)).await;
            host.kill_agent();
            start_again(&mut host).await;
            tasks.push((name, arn));
        }
        for (name, arn) in &tasks {
            host.until_status(arn, "RUNNING").await;
            host.until("it is ready", |host| host.logs(arn, "main").contains("ready")).await;
            assert_eq!(starts(&host, name), 1, "{name}");
        }
        host.until("each has one shim", |host| host.containerd.shims().len() == tasks.len()).await;
        assert_eq!((host.links().len(), host.pins().len(), host.port_map().len()), (8, 8, 8));
        let tasks: Vec<String> = tasks.into_iter().map(|(_, arn)| arn).collect();
        all_stop_cleanly(&host, &tasks).await;
    });
}

#[test]
fn an_agent_that_is_killed_at_any_point_of_a_stop_finishes_it() {
    with_agent(|mut host| async move {
        for (n, moment) in [0, 30, 60, 120, 240].into_iter().enumerate() {
            let arn = run_ready(&host, &format!("task-{n}")).await;
            host.control.stop_task(&arn, "test").unwrap();
            tokio::time::sleep(Duration::from_millis(moment)).await;
            host.kill_agent();
            start_again(&mut host).await;
            assert_eq!(host.until_status(&arn, "STOPPED").await.containers[0].exit_code, Some(7));
        }
        host.until_nothing_is_left().await;
    });
}

/// The end of a container that was killed while containerd was away. From 1.7 on, containerd itself
/// removes such a container when it comes back, and tells nobody how it ended.
async fn told_of_the_end(host: &Host, arn: &str) {
    let task = host.until_status(arn, "STOPPED").await;
    let container = &task.containers[0];
    match container.exit_code {
        None => {
            assert!(chosen_bin_dir().is_some(), "{task:#?}");
            assert!(container.reason.as_ref().unwrap().contains("exit code is lost"), "{task:#?}");
        }
        code => assert_eq!(code, Some(137)),
    }
}

#[test]
fn containers_outlive_containerd_and_exits_meanwhile_are_told() {
    with_agent(|mut host| async move {
        let (stays, ends) = (run_ready(&host, "stays").await, run_ready(&host, "ends").await);
        let (pid, doomed) = (host.container_pid(&stays, "main"), host.container_pid(&ends, "main").unwrap());
        host.containerd.kill();
        sigkill(doomed);
        host.containerd.restart();
        told_of_the_end(&host, &ends).await;
        assert_eq!(host.container_pid(&stays, "main"), pid);
        assert_eq!(starts(&host, "stays"), 1);
        let another = run_ready(&host, "another").await;
        all_stop_cleanly(&host, &[stays, another]).await;
    });
}

#[test]
fn agent_and_containerd_end_together_and_come_back() {
    with_agent(|mut host| async move {
        let (stays, ends) = (run_ready(&host, "stays").await, run_ready(&host, "ends").await);
        let (pid, doomed) = (host.container_pid(&stays, "main"), host.container_pid(&ends, "main").unwrap());
        host.kill_agent();
        host.containerd.kill();
        sigkill(doomed);
        // The agent may come first: it waits.
        host.until("the control plane has seen it go", |host| !host.control.has_ready_instance()).await;
        host.start_agent();
        host.containerd.restart();
        told_of_the_end(&host, &ends).await;
        assert_eq!(host.container_pid(&stays, "main"), pid);
        all_stop_cleanly(&host, &[stays]).await;
    });
}

#[test]
fn a_port_that_went_from_a_task_to_another_stays_there() {
    with_agent(|mut host| async move {
        host.set("ECS_ENGINE_TASK_CLEANUP_WAIT_DURATION", "1h");
        host.stop_agent().await;
        start_again(&mut host).await;
        let fixed = |name: &str, script: &str| {
            let port = json!({"portMappings": [{"containerPort": 80, "hostPort": 8080}]});
            family(name, [container("main", script, port)])
        };
        let before = host.run_task(fixed("before", "exit 0"));
        host.until_status(&before, "STOPPED").await;
        let after = host.run_task(fixed("after", STAYS));
        host.until_status(&after, "RUNNING").await;
        let mapped = host.port_map();
        assert_eq!(mapped.len(), 1);
        // The first one is still known, and its record names the port.
        host.kill_agent();
        host.set("ECS_ENGINE_TASK_CLEANUP_WAIT_DURATION", "1s");
        start_again(&mut host).await;
        host.until("the first one is cleaned up", |host| !host.task_dir(&before).exists()).await;
        assert_eq!(host.port_map(), mapped);
        assert!(std::net::TcpListener::bind(("0.0.0.0", 8080)).is_err(), "the port is held");
        all_stop_cleanly(&host, &[after]).await;
    });
}
