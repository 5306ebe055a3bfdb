//! `ecsd config`, and what the agent does with a configuration that it can't use, as processes.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test panics on what it did not expect")]

use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Command, Output};

/// Where the SDK looks for the metadata service.
const IMDS: &str = "AWS_EC2_METADATA_SERVICE_ENDPOINT";

/// A metadata service that answers a question for user data by this, or never; its address.
fn imds(user_data: Option<&'static str>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        let mut unanswered = Vec::new();
        for stream in listener.incoming().map(Result::unwrap) {
            match user_data {
                Some(user_data) => serve_imds(stream, user_data),
                None => unanswered.push(stream),
            }
        }
    });
    endpoint
}

fn serve_imds(stream: TcpStream, user_data: &str) {
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
    let Some(request) = lines.next() else { return };
    let head: Vec<String> = lines.by_ref().take_while(|line| !line.is_empty()).collect();
    let has = |line: &str| head.iter().any(|header| header.eq_ignore_ascii_case(line));
    let (status, body) = match request.split(' ').take(2).collect::<Vec<_>>()[..] {
        ["PUT", "/latest/api/token"] => ("200 OK", "the-token"),
        ["GET", "/latest/user-data"] if has("x-aws-ec2-metadata-token: the-token") => ("200 OK", user_data),
        _ => ("404 Not Found", ""),
    };
    let ttl = "x-aws-ec2-metadata-token-ttl-seconds: 21600";
    let length = body.len();
    let answer =
        format!("HTTP/1.1 {status}\r\n{ttl}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}");
    (&stream).write_all(answer.as_bytes()).unwrap();
}

struct File(PathBuf);

impl File {
    fn new(text: &str) -> Self {
        let path = std::env::temp_dir().join(format!("ecsd-config-{}.json", uuid::Uuid::new_v4()));
        std::fs::write(&path, text).unwrap();
        Self(path)
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Runs ecsd with this file and these variables; without IMDS, unless they name one.
fn ecsd(arguments: &[&str], file: &File, variables: &[(&str, &str)]) -> (Option<i32>, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ecsd"));
    command.args(arguments).env_clear().env("ECS_AGENT_CONFIG_FILE_PATH", &file.0);
    if !variables.iter().any(|(name, _)| *name == IMDS) {
        command.env("AWS_EC2_METADATA_DISABLED", "true");
    }
    command.envs(variables.iter().copied());
    let Output { status, stdout, stderr } = command.output().unwrap();
    (status.code(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

/// The words of a variable's line.
fn line<'a>(table: &'a str, name: &str) -> Vec<&'a str> {
    let line = table.lines().find(|line| line.split_whitespace().next() == Some(name));
    line.unwrap_or_else(|| panic!("{name} is not in\n{table}")).split_whitespace().collect()
}

#[test]
fn config_shows_each_value_and_its_source_without_secrets() {
    let file = File::new(r#"{"Cluster": "of-the-file", "ReservedMemory": 64, "Unheard": true}"#);
    let variables = [
        ("ECS_CLUSTER", "mine"),
        ("ECS_ENGINE_AUTH_TYPE", "docker"),
        ("ECS_ENGINE_AUTH_DATA", r#"{"r":{"password":"CANARY"}}"#),
        ("HTTPS_PROXY", "http://me:CANARY@proxy:3128"),
        ("ECS_LOGLEVEL", "loud"),
    ];
    let (code, table, warnings) = ecsd(&["config"], &file, &variables);
    assert_eq!(code, Some(0), "{warnings}");
    let path = file.0.to_str().unwrap();
    assert_eq!(line(&table, "ECS_CLUSTER"), ["ECS_CLUSTER", "mine", "environment"]);
    assert_eq!(line(&table, "ECS_RESERVED_MEMORY"), ["ECS_RESERVED_MEMORY", "64", path]);
    assert_eq!(line(&table, "ECS_LOGLEVEL"), ["ECS_LOGLEVEL", "info", "default"]);
    assert_eq!(line(&table, "ECS_ENGINE_AUTH_DATA"), ["ECS_ENGINE_AUTH_DATA", "[redacted]", "environment"]);
    assert_eq!(line(&table, "HTTPS_PROXY")[1], "http://me:[redacted]@proxy:3128");
    assert!(warnings.contains("\"Unheard\" is no known key") && warnings.contains("\"loud\" is no level"));
    let (code, text, _) = ecsd(&["config", "--json"], &file, &variables);
    assert_eq!(code, Some(0));
    let whole: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(whole["settings"]["ECS_RESERVED_MEMORY"], json!({"value": "64", "from": path}));
    assert_eq!(whole["settings"]["ECS_LOGFILE"], json!({"value": null, "from": "default"}));
    assert_eq!(whole["warnings"].as_array().unwrap().len(), 2);
    for shown in [table, text, warnings] {
        assert!(!shown.contains("CANARY"), "{shown}");
    }
}

#[test]
fn user_data_counts_where_nothing_else_says_anything() {
    let file = File::new(r#"{"Cluster": "of-the-file"}"#);
    let user_data = r#"{"ECSAgentConfiguration": {"Cluster": "lost", "ReservedMemory": 32}}"#;
    let endpoint = imds(Some(user_data));
    let (code, table, errors) = ecsd(&["config"], &file, &[(IMDS, &endpoint)]);
    assert_eq!(code, Some(0), "{errors}");
    assert_eq!(line(&table, "ECS_CLUSTER")[1], "of-the-file");
    assert_eq!(line(&table, "ECS_RESERVED_MEMORY"), ["ECS_RESERVED_MEMORY", "32", "user", "data"]);
    // Not asked, never answered, no JSON: all the same to whoever starts.
    let script = imds(Some("#!/bin/sh\n"));
    let silent = imds(None);
    for (arguments, endpoint) in
        [(&["config", "--no-imds"][..], &endpoint), (&["config"], &script), (&["config"], &silent)]
    {
        let (code, table, errors) = ecsd(arguments, &file, &[(IMDS, endpoint)]);
        assert_eq!((code, errors.as_str()), (Some(0), ""));
        assert_eq!(line(&table, "ECS_RESERVED_MEMORY")[2], "default");
    }
}

#[test]
fn what_can_not_be_used_is_named_by_config_and_by_the_agent() {
    let file = File::new("{\"Cluster\": }");
    for arguments in [&["config"][..], &[]] {
        let (code, _, errors) = ecsd(arguments, &file, &[("ECS_DATADIR", "here")]);
        assert_eq!(code, Some(1), "{errors}");
        for words in [file.0.to_str().unwrap(), "line 1 column 13", "ECS_DATADIR: \"here\""] {
            assert!(errors.contains(words), "{words} is not in {errors}");
        }
    }
    let (code, _, errors) = ecsd(&[], &File::new(""), &[("ECS_EXTERNAL", "true")]);
    assert_eq!(code, Some(1));
    assert!(errors.contains("AWS_DEFAULT_REGION"), "{errors}");
}

#[test]
fn the_command_line_of_config_is_explained_and_checked() {
    let file = File::new("");
    let (code, help, _) = ecsd(&["config", "--help"], &file, &[]);
    assert!(code == Some(0) && help.contains("--json") && help.contains("Secrets are left out"), "{help}");
    assert_eq!(ecsd(&["config", "--nope"], &file, &[]).0, Some(5));
    assert!(ecsd(&["-help"], &file, &[]).1.contains("ecsd config"));
}

#[test]
fn a_log_that_can_not_be_written_does_not_keep_the_agent_from_its_work() {
    let file = File::new("");
    let variables = [
        ("AWS_DEFAULT_REGION", "us-east-1"),
        ("ECS_LOGFILE", "/proc/no/such/agent.log"),
        ("ECS_AUDIT_LOGFILE", "/proc/no/such/audit.log"),
        ("ECS_DATADIR", "/proc/no/such/data"),
        ("ECS_LOG_OUTPUT_FORMAT", "json"),
    ];
    let (code, log, _) = ecsd(&["-loglevel=loud", "-loglevel-driver", "debug"], &file, &variables);
    // It comes as far as its data directory.
    assert_eq!(code, Some(1));
    let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let told = |level: &str, words: &str| {
        assert!(
            lines.iter().any(|line| line["level"] == level && line.to_string().contains(words)),
            "{level} {words} is not in {log}"
        );
    };
    told("warn", "the log file can't be opened");
    told("warn", "going on without audit log");
    told("warn", "\\\"loud\\\" is no level");
    told("critical", "ECS_DATADIR /proc/no/such/data");
}

/// A directory for logs, with what is in it.
struct Logs(PathBuf);

impl Logs {
    fn new() -> Self {
        let path = std::env::temp_dir().join(format!("ecsd-logs-{}", uuid::Uuid::new_v4()));
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn file(&self) -> PathBuf {
        self.0.join("agent.log")
    }

    /// Runs an agent that comes as far as its data directory, and says so at three levels.
    fn run(&self, variables: &[(&str, &str)]) -> String {
        let file = self.file();
        let own = [
            ("AWS_DEFAULT_REGION", "us-east-1"),
            ("ECS_LOGFILE", file.to_str().unwrap()),
            ("ECS_AUDIT_LOGFILE_DISABLED", "true"),
            ("ECS_DATADIR", "/proc/no/such/data"),
            ("ECS_LOGLEVEL", "info"),
            ("ECS_CHECKPOINT", "false"),
        ];
        let (code, output, _) = ecsd(&[], &File::new(""), &[&own, variables].concat());
        assert_eq!(code, Some(1), "{output}");
        output
    }

    /// Names, in order.
    fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(&self.0).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    fn text(&self) -> String {
        std::fs::read_to_string(self.file()).unwrap_or_default()
    }
}

impl Drop for Logs {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn the_log_file_has_a_level_of_its_own_and_none_where_the_log_has_a_driver() {
    for (variables, levels) in [
        (&[][..], &["warn", "critical"][..]),
        (&[("ECS_LOGLEVEL_ON_INSTANCE", "CRIT")], &["critical"]),
        (&[("ECS_LOG_DRIVER", "awslogs")], &[]),
        (&[("ECS_LOG_DRIVER", "awslogs"), ("ECS_LOGLEVEL_ON_INSTANCE", "crit")], &["critical"]),
        (&[("ECS_LOGLEVEL", "none"), ("ECS_LOGLEVEL_ON_INSTANCE", "warn")], &["warn", "critical"]),
    ] {
        let logs = Logs::new();
        let output = logs.run(variables);
        let text = logs.text();
        for level in ["warn", "critical"] {
            let line = format!("level={level} time=");
            assert_eq!(text.contains(&line), levels.contains(&level), "{level} {variables:?}: {text}");
            let is_silent = variables.contains(&("ECS_LOGLEVEL", "none"));
            assert_eq!(output.contains(&line), !is_silent, "{level} {variables:?}: {output}");
        }
    }
}

#[test]
fn the_log_file_is_turned_over_by_size_by_the_hour_or_never() {
    let small = ("ECS_LOG_MAX_FILE_SIZE_MB", "0.00001");
    let names = |variables: &[(&str, &str)]| {
        let logs = Logs::new();
        std::fs::write(logs.file(), "of an earlier life, and of another hour\n").unwrap();
        let before = std::time::SystemTime::now() - std::time::Duration::from_secs(7200);
        std::fs::File::options().append(true).open(logs.file()).unwrap().set_modified(before).unwrap();
        logs.run(variables);
        logs.names()
    };
    assert_eq!(names(&[]), ["agent.log"], "it is small");
    let by_size = names(&[small]);
    assert!(by_size.len() > 2 && by_size[..2] == ["agent.log", "agent.log.1"], "{by_size:?}");
    assert_eq!(names(&[small, ("ECS_LOG_MAX_ROLL_COUNT", "1")]).len(), 2, "one is kept");
    assert_eq!(names(&[small, ("ECS_LOG_ROLLOVER_TYPE", "none")]), ["agent.log"]);
    let hourly = names(&[small, ("ECS_LOG_ROLLOVER_TYPE", "hourly")]);
    let hour = hourly.last().unwrap().strip_prefix("agent.log.").unwrap();
    let digits: Vec<usize> = hour.split('-').map(str::len).collect();
    assert_eq!((hourly.len(), digits), (2, vec![4, 2, 2, 2]), "{hourly:?}");
}
