//! What a container sees and is held to.

use crate::support::host::{Host, container, family, with_agent};
use serde_json::{Value, json};
use std::collections::BTreeMap;

fn metadata(host: &Host, arn: &str, path: &str) -> Value {
    let script = format!("wget -qO- $ECS_CONTAINER_METADATA_URI_V4{path}");
    serde_json::from_str(&host.exec(arn, "main", &["sh", "-c", &script])).unwrap()
}

#[test]
fn metadata_is_served_to_containers_in_bridge_and_host_mode() {
    with_agent(|host| async move {
        let definition = |mode: &str, port: u16| {
            let ports = json!({"portMappings": [{"containerPort": port, "hostPort": port}]});
            let mut definition = family(mode, [container("main", "sleep 3600", ports)]);
            definition["networkMode"] = mode.into();
            definition
        };
        for (mode, port) in [("bridge", 8080), ("host", 8081)] {
            let arn = host.run_task(definition(mode, port));
            host.until_status(&arn, "RUNNING").await;
            let seen = metadata(&host, &arn, "");
            let id = host.container_id(&arn, "main");
            assert_eq!(seen["DockerId"], id.as_str());
            assert_eq!(seen["Name"], "main");
            assert_eq!(
                (&seen["KnownStatus"], &seen["DesiredStatus"]),
                (&json!("RUNNING"), &json!("RUNNING"))
            );
            assert_eq!(seen["Labels"]["com.amazonaws.ecs.task-arn"], arn.as_str());
            let network = &seen["Networks"][0];
            assert_eq!(network["NetworkMode"], mode, "{seen:#}");
            if mode == "bridge" {
                let own = host.exec(&arn, "main", &["ip", "-o", "-4", "addr", "show", "dev", "eth0"]);
                let address = network["IPv4Addresses"][0].as_str().unwrap();
                assert!(own.contains(&format!("inet {address}/")), "{own} {address}");
            }
            let task = metadata(&host, &arn, "/task");
            assert_eq!(task["TaskARN"], arn.as_str());
            assert_eq!((&task["Family"], &task["Revision"]), (&json!(mode), &json!("1")));
            assert_eq!(task["KnownStatus"], "RUNNING");
            assert_eq!(task["Containers"][0]["DockerId"], id.as_str());
        }
    });
}

#[test]
fn labels_environment_and_files_are_as_under_docker() {
    with_agent(|host| async move {
        let more = json!({
            "environment": [{"name": "GREETING", "value": "hello there"}],
            "dockerLabels": {"own": "label"},
            "hostname": "myhost",
            "extraHosts": [{"hostname": "db", "ipAddress": "10.1.2.3"}],
            "dnsServers": ["10.9.9.9"], "dnsSearchDomains": ["example.test"],
            "workingDirectory": "/www", "user": "1000:1000",
        });
        let arn = host.run_task(family("labels", [container("main", "sleep 3600", more)]));
        host.until_status(&arn, "RUNNING").await;
        let labels = host.record(&arn, "main")["Labels"].clone();
        for (key, value) in [
            ("com.amazonaws.ecs.task-arn", arn.as_str()),
            ("com.amazonaws.ecs.container-name", "main"),
            ("com.amazonaws.ecs.task-definition-family", "labels"),
            ("com.amazonaws.ecs.task-definition-version", "1"),
            ("com.amazonaws.ecs.cluster", "local"),
            ("own", "label"),
        ] {
            assert_eq!(labels[key], value, "{key}");
        }
        let inside = |command: &[&str]| host.exec(&arn, "main", command);
        let environment = inside(&["env"]);
        let environment: BTreeMap<&str, &str> =
            environment.lines().filter_map(|line| line.split_once('=')).collect();
        assert_eq!(environment["GREETING"], "hello there");
        assert_eq!(environment["PATH"], "/bin");
        assert_eq!(environment["AWS_REGION"], "us-east-1");
        assert!(environment["ECS_CONTAINER_METADATA_URI"].starts_with("http://169.254.170.2/v3/"));
        assert!(environment["ECS_CONTAINER_METADATA_URI_V4"].starts_with("http://169.254.170.2/v4/"));
        assert!(environment["ECS_AGENT_URI"].starts_with("http://169.254.170.2/api/"));
        assert_eq!(environment["HOSTNAME"], "myhost");
        assert_eq!(inside(&["hostname"]).trim(), "myhost");
        let hosts = inside(&["cat", "/etc/hosts"]);
        assert!(
            hosts.contains("10.1.2.3\tdb") && hosts.contains("myhost") && hosts.contains("localhost"),
            "{hosts}"
        );
        let resolvers = inside(&["cat", "/etc/resolv.conf"]);
        assert!(
            resolvers.contains("nameserver 10.9.9.9") && resolvers.contains("search example.test"),
            "{resolvers}"
        );
        assert_eq!(inside(&["id"]).trim(), "uid=1000 gid=1000 groups=1000");
        assert_eq!(inside(&["sh", "-c", "echo $PWD"]).trim(), "/www");
    });
}

#[test]
fn limits_of_container_and_task_are_the_kernels() {
    with_agent(|host| async move {
        let mut definition =
            family("limits", [container("main", "sleep 3600", json!({"memory": 32, "cpu": 128}))]);
        definition["memory"] = "64".into();
        definition["cpu"] = "256".into();
        let arn = host.run_task(definition);
        host.until_status(&arn, "RUNNING").await;
        if !std::path::Path::new("/sys/fs/cgroup/memory").is_dir() {
            assert_eq!(host.cgroup_file(&arn, Some("main"), "memory.max"), (32 << 20).to_string());
            assert_eq!(host.cgroup_file(&arn, None, "memory.max"), (64 << 20).to_string());
            return;
        }
        assert_eq!(host.cgroup_file(&arn, Some("main"), "memory.limit_in_bytes"), (32 << 20).to_string());
        assert_eq!(host.cgroup_file(&arn, Some("main"), "cpu.shares"), "128");
        assert_eq!(host.cgroup_file(&arn, None, "memory.limit_in_bytes"), (64 << 20).to_string());
        assert_eq!(host.cgroup_file(&arn, None, "cpu.cfs_quota_us"), "25000");
        let pid = host.container_pid(&arn, "main").unwrap();
        let groups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
        let own = format!("/{}/{}/", host.cgroup_root(), crate::support::inspect::task_id(&arn));
        assert!(
            groups.lines().filter(|line| line.contains(":memory:")).all(|line| line.contains(&own)),
            "{groups}"
        );
    });
}

/// A line of a process's status.
fn status_of(pid: i32, key: &str) -> String {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(&format!("{key}:")));
    line.unwrap().trim().to_owned()
}

#[test]
fn capabilities_and_seccomp_are_dockers() {
    with_agent(|host| async move {
        let added = json!({"linuxParameters": {"capabilities": {"add": ["SYS_PTRACE"], "drop": ["MKNOD"]}}});
        let arn = host.run_task(family(
            "caps",
            [
                container("plain", "sleep 3600", json!({})),
                container("changed", "sleep 3600", added),
                container("privileged", "sleep 3600", json!({"privileged": true})),
            ],
        ));
        host.until_status(&arn, "RUNNING").await;
        let pid = |name: &str| host.container_pid(&arn, name).unwrap();
        // Docker's fourteen.
        assert_eq!(status_of(pid("plain"), "CapEff"), "00000000a80425fb");
        assert_eq!(
            status_of(pid("changed"), "CapEff"),
            format!("{:016x}", (0xa80425fb_u64 | 1 << 19) & !(1 << 27))
        );
        assert_eq!(status_of(pid("privileged"), "CapEff"), status_of(1, "CapBnd"));
        assert_eq!(
            (status_of(pid("plain"), "Seccomp"), status_of(pid("privileged"), "Seccomp")),
            ("2".into(), "0".into())
        );
        assert_eq!(status_of(pid("plain"), "NoNewPrivs"), "0");
    });
}

#[test]
fn logs_are_written_in_dockers_format_and_rotated() {
    with_agent(|host| async move {
        let options = json!({"logConfiguration": {"logDriver": "json-file", "options": {"max-size": "4k", "max-file": "3"}}});
        let script =
            "echo to-stderr >&2; for n in $(seq 1 400); do echo line-$n; done; echo ready; sleep 3600";
        let arn = host.run_task(family("logs", [container("main", script, options)]));
        host.until("all is written", |host| host.logs(&arn, "main").contains("ready")).await;
        let directory = host.task_dir(&arn).join("main");
        let newest = directory.join(format!("{}-json.log", host.container_id(&arn, "main")));
        let mut files: Vec<_> = std::fs::read_dir(&directory).unwrap().flatten().map(|e| e.path()).collect();
        files.retain(|path| path.display().to_string().contains("-json.log"));
        assert_eq!(files.len(), 3, "{files:?}");
        assert!(files.contains(&newest));
        for file in &files {
            let text = std::fs::read_to_string(file).unwrap();
            // As under Docker, the record that fills a file is still in it.
            assert!(text.len() <= 4096 + 200 && !text.is_empty(), "{}", text.len());
            for line in text.lines() {
                let record: Value = serde_json::from_str(line).unwrap();
                assert_eq!(record["stream"], "stdout");
                humantime::parse_rfc3339(record["time"].as_str().unwrap()).unwrap();
            }
        }
    });
}

#[test]
fn an_open_input_needs_neither_agent_nor_containerd() {
    with_agent(|mut host| async move {
        let script = "busybox readlink /proc/self/fd/0; cat; echo the input ended; sleep 3600";
        let arn = host.run_task(family(
            "input",
            [container("open", script, json!({"interactive": true})), container("closed", script, json!({}))],
        ));
        host.until("the other's input ends", |host| host.logs(&arn, "closed").contains("ended")).await;
        host.until("it reads", |host| host.logs(&arn, "open").contains("pipe:[")).await;
        host.kill_agent();
        host.containerd.kill();
        host.containerd.restart();
        host.start().await;
        let pid = host.container_pid(&arn, "open").unwrap();
        let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
        let reads = children.split_whitespace().any(|child| {
            let command = std::fs::read_to_string(format!("/proc/{child}/cmdline")).unwrap_or_default();
            command.starts_with("cat\0")
        });
        assert!(reads && !host.logs(&arn, "open").contains("ended"), "{}", host.logs(&arn, "open"));
        host.control.stop_task(&arn, "seen").unwrap();
        host.until_status(&arn, "STOPPED").await;
        host.until_nothing_is_left().await;
    });
}
