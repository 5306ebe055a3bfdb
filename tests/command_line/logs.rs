//! `ecsd logs`, on files as the log writer leaves them, and on those of a running agent.

use super::{ecsd, output};
use crate::support::containerd::TempDir;
use crate::support::host::{Host, container, family, on_own_network};
use serde_json::json;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::Stdio;

/// A data directory with one container's log.
fn logged(dir: &TempDir, task: &str, container: &str) -> PathBuf {
    let home = dir.path().join("tasks").join(task).join(container);
    std::fs::create_dir_all(&home).unwrap();
    let path = home.join("0123-json.log");
    let config = json!({"driver": "json-file", "path": path, "max_size": null, "max_files": 3});
    std::fs::write(home.join("logger.json"), config.to_string()).unwrap();
    path
}

fn record(text: &str, stream: &str, minute: u32) -> String {
    let record = json!({"log": text, "stream": stream, "time": format!("2026-01-02T03:{minute:02}:00Z")});
    format!("{record}\n")
}

fn logs(dir: &TempDir, arguments: &[&str]) -> (Option<i32>, String, String) {
    let dir = dir.path().display().to_string();
    output(&[&["logs", "--data-dir", dir.as_str()][..], arguments].concat())
}

#[test]
fn a_log_is_printed_from_its_oldest_file_on() {
    let dir = TempDir::new("logs");
    let path = logged(&dir, "0a1b2c", "web");
    let older = PathBuf::from(format!("{}.1", path.display()));
    std::fs::write(older, record("first\n", "stdout", 1)).unwrap();
    std::fs::write(&path, record("second\n", "stderr", 2) + &record("third\n", "stdout", 3)).unwrap();
    for of in ["0a1b2c", "0a", "0a1b2c/web", "arn:aws:ecs:r:1:task/prod/0a1b2c/web"] {
        assert_eq!(logs(&dir, &[of]), (Some(0), "first\nthird\n".into(), "second\n".into()), "{of}");
    }
    let since = logs(&dir, &["--since", "2026-01-02T03:02:30Z", "0a"]);
    assert_eq!(since, (Some(0), "third\n".into(), String::new()));
    assert_eq!(logs(&dir, &["--since", "10m", "0a"]).1, "");
    // The agent's own variable names the directory, too.
    let run = ecsd(&["logs", "0a"]).env("ECS_DATADIR", dir.path()).output().unwrap();
    assert_eq!(String::from_utf8(run.stdout).unwrap(), "first\nthird\n");
    let second = logged(&dir, "0a1b2c", "db");
    std::fs::write(second, record("its own\n", "stdout", 1)).unwrap();
    let (code, text, errors) = logs(&dir, &["0a1b2c"]);
    assert_eq!((code, errors.as_str()), (Some(0), "web | second\n"));
    assert_eq!(text, "db | its own\nweb | first\nweb | third\n");
}

#[test]
fn what_can_not_be_found_is_exit_1_and_what_can_not_be_meant_exit_2() {
    let dir = TempDir::new("logs");
    logged(&dir, "0a1b", "web");
    logged(&dir, "0a2b", "web");
    for (arguments, code, words) in [
        (&["ff"][..], 1, "no task ff in"),
        (&["0a"], 1, "more than one task: 0a1b, 0a2b"),
        (&["0a1b/db"], 1, "task 0a1b has no container db; it has web"),
        (&[], 2, "TASK[/CONTAINER]"),
        (&["../etc"], 2, "a task's ARN or id"),
        (&["--since", "yesterday", "0a1b"], 2, "a duration such as 10m"),
        (&["--nope", "0a1b"], 2, "--nope"),
    ] {
        let (exit, text, errors) = logs(&dir, arguments);
        assert_eq!((exit, text.as_str()), (Some(code), ""), "{arguments:?}: {errors}");
        assert!(errors.contains(words), "{arguments:?}: {errors}");
    }
    let (code, help, _) = output(&["logs", "--help"]);
    assert!(
        code == Some(0) && help.contains("Exit codes: 0 done") && help.contains("-f, --follow"),
        "{help}"
    );
    assert!(output(&["-help"]).1.contains("ecsd logs TASK"));
}

#[test]
fn following_goes_on_over_a_rotation() {
    let dir = TempDir::new("logs");
    let path = logged(&dir, "0a1b", "web");
    std::fs::write(&path, record("one\n", "stdout", 1)).unwrap();
    let home = dir.path().display().to_string();
    let mut follow = ecsd(&["logs", "-f", "--data-dir", &home, "0a"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(follow.stdout.take().unwrap()).lines();
    let mut next = || lines.next().unwrap().unwrap();
    assert_eq!(next(), "one");
    let append = |text: &str| {
        let mut file = std::fs::File::options().append(true).create(true).open(&path).unwrap();
        file.write_all(record(text, "stdout", 2).as_bytes()).unwrap();
    };
    append("two\n");
    assert_eq!(next(), "two");
    std::fs::rename(&path, format!("{}.1", path.display())).unwrap();
    append("three\n");
    assert_eq!(next(), "three");
    follow.kill().unwrap();
    follow.wait().unwrap();
}

#[test]
fn a_running_tasks_log_is_read_while_the_agent_is_away() {
    on_own_network(|| async {
        let mut host = Host::new().await;
        host.load_busybox().await;
        host.start().await;
        let script = "echo to the one; echo to the other >&2; exec sleep 3600";
        let arn = host.run_task(family("logged", [container("web", script, json!({}))]));
        host.until_status(&arn, "RUNNING").await;
        host.until("both lines are there", |host| host.logs(&arn, "web").lines().count() == 2).await;
        host.kill_agent();
        let data = host.dir.path().join("data").display().to_string();
        let (code, text, errors) = output(&["logs", "--data-dir", &data, &arn]);
        assert_eq!((code, text.as_str()), (Some(0), "to the one\n"), "{errors}");
        assert!(errors.contains("to the other\n"), "{errors}");
    });
}
