//! The programs as a user meets them: flags and exit codes, and `ecsd local` from start to nothing left.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

#[path = "command_line/attributes.rs"]
mod attributes;
#[path = "command_line/logs.rs"]
mod logs;
mod support;

use serde_json::{Value, json};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};
use support::containerd::TempDir;
use support::host::{PATIENCE, on_own_network};

fn ecsd(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ecsd"));
    command.args(arguments).env_remove("AWS_ACCESS_KEY_ID").stdin(Stdio::null());
    command
}

fn output(arguments: &[&str]) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } = ecsd(arguments).output().unwrap();
    (status.code(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

#[test]
fn an_unknown_flag_exits_5_with_usage() {
    for flag in ["-nope", "--nope=1", "run"] {
        let (code, _, errors) = output(&[flag]);
        assert_eq!(code, Some(5), "{flag}");
        assert!(
            errors.contains(flag.trim_start_matches('-').trim_end_matches("=1")) && errors.contains("Usage:")
        );
    }
    assert_eq!(output(&["-loglevel"]).0, Some(5));
}

#[test]
fn what_is_asked_for_is_printed() {
    let (code, text, _) = output(&["-version"]);
    assert_eq!(code, Some(0));
    assert!(text.starts_with("Amazon ECS Agent:\n\tVersion: ") && text.lines().count() == 4, "{text}");
    assert!(output(&["--license"]).1.contains("Apache License"));
    let (code, text, _) = output(&["-ecs-attributes"]);
    assert_eq!(code, Some(0));
    assert!(text.contains("ecs.capability.container-ordering\t\n") && text.contains("ecs.os-type\tlinux\n"));
    assert!(output(&["-help"]).1.contains("-blackhole-ec2-metadata"));
    for (command, expected) in [
        (&["local"][..], "no AWS account"),
        (&["local"], "Exit codes: 0 done"),
        (&["local", "run"], "--for <DURATION>"),
        (&["local", "run"], "- fake:  Well-formed ones"),
        (&["local", "stats"], "--json"),
        (&["config"], "Secrets are left out"),
    ] {
        let (code, text, _) = output(&[command, &["--help"]].concat());
        assert!(code == Some(0) && text.contains(expected), "{command:?}: {text}");
    }
}

#[test]
fn a_variable_that_can_not_be_is_named_with_its_cure() {
    let run = ecsd(&[]).env("ECS_INSTANCE_ATTRIBUTES", "{oops").output().unwrap();
    let errors = String::from_utf8(run.stderr).unwrap();
    assert_eq!(run.status.code(), Some(1));
    assert!(errors.contains("ECS_INSTANCE_ATTRIBUTES") && errors.contains("oops"), "{errors}");
}

#[test]
fn nobody_answers_the_health_check_of_an_agent_that_is_not_there() {
    on_own_network(|| async {
        let (code, _, errors) = output(&["-healthcheck"]);
        assert_eq!((code, errors.is_empty()), (Some(1), false));
    });
}

/// One after the other: local clusters share a cgroup root, and there is one at a time on a host.
#[test]
fn local_clusters_come_and_go() {
    local_run_shows_a_task_and_leaves_nothing();
    a_local_cluster_stays_until_it_is_told_to_go();
    stats_tell_what_the_containers_of_a_running_cluster_use();
    a_task_with_a_role_gets_the_credentials_that_were_asked_for();
}

fn local_run_shows_a_task_and_leaves_nothing() {
    on_own_network(|| async {
        let dir = TempDir::new("local");
        let home = dir.path().display().to_string();
        let task = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/hello/task.json");
        let run = tokio::task::spawn_blocking(move || {
            output(&["local", "run", "--dir", &home, "--for", "3s", task])
        });
        let (code, text, errors) = run.await.unwrap();
        assert_eq!(code, Some(0), "{text}{errors}");
        for expected in [
            "web RUNNING 0.0.0.0:8080->80/tcp",
            "http://127.0.0.1:8080/ answers: 200",
            "my task metadata endpoint says:",
            "\"Family\":\"hello\"",
            "CONTAINER  EXIT CODE",
            "PHASE  payload  pull  create  network  start  report",
            "cluster     taken down",
        ] {
            assert!(text.contains(expected), "{expected:?} is not in\n{text}{errors}");
        }
        nothing_left(dir.path());
    });
}

fn a_local_cluster_stays_until_it_is_told_to_go() {
    on_own_network(|| async {
        let dir = TempDir::new("localup");
        let home = dir.path().display().to_string();
        let mut up = ecsd(&["local", "up", "--dir", &home]).stdout(Stdio::null()).spawn().unwrap();
        let begun = Instant::now();
        while output(&["local", "ps", "--dir", &home]).0 != Some(0) {
            assert!(begun.elapsed() < PATIENCE && up.try_wait().unwrap().is_none(), "the cluster is not up");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        let (code, _, errors) = output(&["local", "stop", "--dir", &home, "no-such-task"]);
        assert_eq!(code, Some(1));
        assert!(errors.contains("no-such-task"), "{errors}");
        assert_eq!(output(&["local", "down", "--dir", &home]).0, Some(0));
        let ended = tokio::task::spawn_blocking(move || up.wait()).await.unwrap().unwrap();
        assert_eq!(ended.code(), Some(0));
        nothing_left(dir.path());
    });
}

/// A task definition of one container, `one`, of the hello image.
fn definition(dir: &Path, script: &str) -> String {
    let file = dir.join("task.json");
    let task = json!({"family": "small", "taskRoleArn": "arn:aws:iam::123456789012:role/small",
        "containerDefinitions": [{"name": "one", "image": "ecsd.local/hello", "memory": 32, "essential": true,
            "entryPoint": ["sh", "-c"], "command": [script]}]});
    std::fs::write(&file, task.to_string()).unwrap();
    file.display().to_string()
}

fn stats_tell_what_the_containers_of_a_running_cluster_use() {
    on_own_network(|| async {
        let dir = TempDir::new("localst");
        let home = dir.path().display().to_string();
        let (code, _, errors) = output(&["local", "stats", "--dir", &home]);
        assert!(code == Some(1) && errors.contains("ecsd local up"), "{errors}");
        let task = definition(dir.path(), "trap 'exit 0' TERM; while :; do sleep 0.1; done");
        let mut run = ecsd(&["local", "run", "--dir", &home, &task]).stdout(Stdio::null()).spawn().unwrap();
        let begun = Instant::now();
        let rows = loop {
            let (code, text, _) = output(&["local", "stats", "--json", "--dir", &home]);
            // Before the cluster is up there is nobody to ask, then nothing to tell.
            let rows: Vec<Value> =
                if code == Some(0) { serde_json::from_str(&text).unwrap() } else { Vec::new() };
            if !rows.is_empty() {
                break rows;
            }
            assert!(begun.elapsed() < PATIENCE && run.try_wait().unwrap().is_none(), "no figures");
            tokio::time::sleep(Duration::from_millis(200)).await;
        };
        assert_eq!(
            (rows.len(), &rows[0]["container"], &rows[0]["family"]),
            (1, &json!("one"), &json!("small"))
        );
        assert!(rows[0]["taskArn"].as_str().unwrap().contains(":task/local/"), "{rows:?}");
        assert!(rows[0]["cpuPercent"].is_f64() && rows[0]["timestamp"].is_number(), "{rows:?}");
        let (code, text, _) = output(&["local", "stats", "--dir", &home]);
        let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(code, Some(0));
        assert_eq!((lines.len(), lines[0][..3].to_vec()), (2, vec!["TASK", "FAMILY", "CONTAINER"]), "{text}");
        assert_eq!(lines[1][1..3], ["small", "one"], "{text}");
        assert_eq!(output(&["local", "down", "--dir", &home]).0, Some(0));
        let ended = tokio::task::spawn_blocking(move || run.wait()).await.unwrap().unwrap();
        assert!(ended.code().is_some());
        nothing_left(dir.path());
    });
}

fn a_task_with_a_role_gets_the_credentials_that_were_asked_for() {
    on_own_network(|| async {
        for (arguments, gets_some) in [(&["--credentials", "fake"][..], true), (&[], false)] {
            let dir = TempDir::new("localcr");
            let home = dir.path().display().to_string();
            let script = "echo asked $AWS_CONTAINER_CREDENTIALS_RELATIVE_URI; \
                wget -qO- http://169.254.170.2$AWS_CONTAINER_CREDENTIALS_RELATIVE_URI; echo";
            let task = definition(dir.path(), script);
            let mut command = ecsd(&["local", "run", "--dir", &home]);
            command.args(arguments).arg(&task);
            let run = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
            let text = String::from_utf8_lossy(&run.stdout);
            assert_eq!(run.status.code(), Some(0), "{text}{}", String::from_utf8_lossy(&run.stderr));
            assert!(text.contains("one | asked"), "{text}");
            let got = text.lines().filter_map(|line| {
                let answer: Value = serde_json::from_str(line.strip_prefix("one | ")?).ok()?;
                Some(answer["AccessKeyId"].as_str()?.to_owned())
            });
            let got: Vec<String> = got.collect();
            assert_eq!(got.len(), usize::from(gets_some), "{text}");
            assert!(got.iter().all(|id| id.starts_with("ASIA") && id.len() == 20), "{got:?}");
            let log = std::fs::read_to_string(dir.path().join("agent.log")).unwrap();
            assert!(log.contains("registered") && got.iter().all(|id| !log.contains(id)), "{log}");
            nothing_left(dir.path());
        }
    });
}

/// No process, namespace, link, rule, cgroup or mount of a local cluster in `dir`.
fn nothing_left(dir: &Path) {
    let run = |program: &str, arguments: &[&str]| support::host::run(program, arguments);
    assert_eq!(run("nft", &["list", "ruleset"]), "");
    assert!(!run("ip", &["-br", "link"]).contains("ecs"));
    let home = dir.display().to_string();
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let mounted: Vec<&str> = mounts.lines().filter(|line| line.contains(&home)).collect();
    assert!(mounted.is_empty(), "{mounted:?}");
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let command = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let command = String::from_utf8_lossy(&command).replace('\0', " ");
        assert!(!command.contains(&home), "still runs: {command}");
    }
    assert_eq!(std::fs::read_dir(dir.join("data/tasks")).into_iter().flatten().count(), 0);
}
