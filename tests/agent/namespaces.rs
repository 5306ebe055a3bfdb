//! Namespaces that the containers of a task share, with one another or with the host.

use crate::support::host::{Host, container, family, with_agent};
use ecsd::model::NAMESPACE_HOLDER;
use serde_json::{Value, json};
use std::os::unix::fs::MetadataExt;

/// Ends by itself at the stop signal; killed otherwise.
const STAYS: &str = "trap 'sleep 0.3; exit 7' TERM; while :; do sleep 0.1; done";

fn two(name: &str, modes: Value) -> Value {
    let mut definition =
        family(name, [container("one", STAYS, json!({})), container("two", STAYS, json!({}))]);
    for (mode, value) in modes.as_object().unwrap() {
        definition[mode] = value.clone();
    }
    definition
}

/// The namespace of a container's process.
fn namespace(host: &Host, arn: &str, name: &str, kind: &str) -> String {
    let pid = host.container_pid(arn, name).unwrap_or_else(|| panic!("{name} does not run"));
    std::fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap().display().to_string()
}

fn of_host(kind: &str) -> String {
    std::fs::read_link(format!("/proc/self/ns/{kind}")).unwrap().display().to_string()
}

fn sigkill(pid: i32) {
    let pid = nix::unistd::Pid::from_raw(pid);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
}

/// Stops the task: had its namespaces ended before its containers, these would have been killed.
async fn stops_in_order(host: &Host, arn: &str) {
    host.control.stop_task(arn, "test").unwrap();
    let task = host.until_status(arn, "STOPPED").await;
    let told: Vec<_> = task.containers.iter().map(|c| (c.name.as_str(), c.exit_code)).collect();
    assert_eq!(told, [("one", Some(7)), ("two", Some(7))], "nothing is told of the holder");
    host.until_nothing_is_left().await;
}

#[test]
fn containers_of_a_task_see_each_others_processes_and_memory() {
    with_agent(|host| async move {
        let arn = host.run_task(two("shared", json!({"pidMode": "task", "ipcMode": "task"})));
        host.until_status(&arn, "RUNNING").await;
        let inside = |name: &str, script: &str| host.exec(&arn, name, &["sh", "-c", script]);
        for kind in ["pid", "ipc"] {
            let one = namespace(&host, &arn, "one", kind);
            assert_eq!(one, namespace(&host, &arn, "two", kind));
            assert_eq!(one, namespace(&host, &arn, NAMESPACE_HOLDER, kind));
            assert_ne!(one, of_host(kind));
        }
        for kind in ["net", "mnt", "uts"] {
            let holders = namespace(&host, &arn, NAMESPACE_HOLDER, kind);
            assert!(![namespace(&host, &arn, "one", kind), of_host(kind)].contains(&holders), "{kind}");
        }
        assert_eq!(inside("two", "cat /proc/1/comm").trim(), "pause");
        // A process of one is seen by the other, and may be signalled.
        let pid = inside("one", "sleep 4321 >/dev/null 2>&1 </dev/null & echo $!");
        let seen = || inside("two", &format!("cat /proc/{}/comm || true", pid.trim()));
        host.until("two sees it", |_| seen() == "sleep\n").await;
        inside("two", &format!("kill -9 {}", pid.trim()));
        host.until("it is gone, and reaped", |_| seen().is_empty()).await;
        // Memory and queues.
        inside("one", "echo hello > /dev/shm/greeting; touch /dev/mqueue/queue");
        assert_eq!(inside("two", "cat /dev/shm/greeting; ls /dev/mqueue"), "hello\nqueue\n");
        let mount = inside("two", "grep ' /dev/shm ' /proc/mounts");
        assert!(mount.contains("size=65536k") && mount.contains("noexec"), "{mount}");
        // The holder can do nothing.
        let holder = host.container_pid(&arn, NAMESPACE_HOLDER).unwrap();
        let status = std::fs::read_to_string(format!("/proc/{holder}/status")).unwrap();
        let line = |key: &str| status.lines().find_map(|l| l.strip_prefix(key)).unwrap().trim().to_owned();
        assert_eq!(
            (line("CapEff:"), line("NoNewPrivs:"), line("Seccomp:")),
            ("0".repeat(16), "1".into(), "2".into())
        );
        // The metadata endpoint shows it, as the original's does.
        let script = "wget -qO- $ECS_CONTAINER_METADATA_URI_V4/task";
        let task: Value = serde_json::from_str(&inside("one", script)).unwrap();
        let kinds: Vec<_> = task["Containers"].as_array().unwrap().iter().map(|c| &c["Type"]).collect();
        assert_eq!(kinds, ["NORMAL", "NORMAL", "NAMESPACE_PAUSE"]);
        stops_in_order(&host, &arn).await;
    });
}

#[test]
fn one_namespace_may_be_shared_without_the_other() {
    with_agent(|host| async move {
        for (mode, shared, own) in [("pidMode", "pid", "ipc"), ("ipcMode", "ipc", "pid")] {
            let arn = host.run_task(two("one", json!({mode: "task"})));
            host.until_status(&arn, "RUNNING").await;
            assert_eq!(namespace(&host, &arn, "one", shared), namespace(&host, &arn, "two", shared));
            assert_ne!(namespace(&host, &arn, "one", own), namespace(&host, &arn, "two", own));
            stops_in_order(&host, &arn).await;
        }
    });
}

#[test]
fn the_hosts_namespaces_and_none_at_all() {
    with_agent(|host| async move {
        let device = |pid: i32| std::fs::metadata(format!("/proc/{pid}/root/dev/shm")).unwrap().dev();
        let arn = host.run_task(two("host", json!({"pidMode": "host", "ipcMode": "host"})));
        host.until_status(&arn, "RUNNING").await;
        let pid = host.container_pid(&arn, "one").unwrap();
        for kind in ["pid", "ipc"] {
            assert_eq!(namespace(&host, &arn, "one", kind), of_host(kind));
        }
        assert_eq!(device(pid), std::fs::metadata("/dev/shm").unwrap().dev());
        assert_eq!(host.container_pid(&arn, NAMESPACE_HOLDER), None, "nothing has to be held");
        stops_in_order(&host, &arn).await;
        let arn = host.run_task(two("none", json!({"ipcMode": "none"})));
        host.until_status(&arn, "RUNNING").await;
        assert_ne!(namespace(&host, &arn, "one", "ipc"), namespace(&host, &arn, "two", "ipc"));
        assert_eq!(
            host.exec(&arn, "one", &["sh", "-c", "grep -c ' /dev/shm ' /proc/mounts || true"]).trim(),
            "0"
        );
        stops_in_order(&host, &arn).await;
    });
}

#[test]
fn an_agent_that_was_killed_takes_the_namespaces_up_again() {
    with_agent(|mut host| async move {
        let arn = host.run_task(two("taken", json!({"pidMode": "task", "ipcMode": "task"})));
        host.until_status(&arn, "RUNNING").await;
        let pids = |host: &Host| ["one", "two", NAMESPACE_HOLDER].map(|name| host.container_pid(&arn, name));
        let before = pids(&host);
        assert!(before.iter().all(Option::is_some), "{before:?}");
        host.kill_agent();
        host.until("the control plane has seen it go", |host| !host.control.has_ready_instance()).await;
        host.start().await;
        assert_eq!(pids(&host), before);
        stops_in_order(&host, &arn).await;
    });
}

#[test]
fn a_task_whose_namespaces_end_ends_and_tells_so() {
    with_agent(|mut host| async move {
        for while_away in [false, true] {
            let arn = host.run_task(two("lost", json!({"pidMode": "task"})));
            host.until_status(&arn, "RUNNING").await;
            let holder = host.container_pid(&arn, NAMESPACE_HOLDER).unwrap();
            if while_away {
                host.kill_agent();
                host.until("the control plane has seen it go", |host| !host.control.has_ready_instance())
                    .await;
            }
            sigkill(holder);
            if while_away {
                host.start().await;
            }
            let task = host.until_status(&arn, "STOPPED").await;
            assert!(
                task.details["stoppedReason"].as_str().unwrap_or_default().contains("TaskNamespaceError"),
                "{task:#?}"
            );
            assert!(task.containers.iter().all(|c| c.exit_code == Some(137)), "{task:#?}");
            host.until_nothing_is_left().await;
        }
    });
}
