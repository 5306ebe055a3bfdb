//! `ecsd config`, and what the agent does with a configuration that it can't use, as processes.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test panics on what it did not expect")]

use serde_json::{Value, json};
use std::path::PathBuf;
use std::process::{Command, Output};

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

/// Runs ecsd with this file and these variables, and without IMDS.
fn ecsd(arguments: &[&str], file: &File, variables: &[(&str, &str)]) -> (Option<i32>, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ecsd"));
    command.args(arguments).env_clear().env("ECS_AGENT_CONFIG_FILE_PATH", &file.0);
    command.env("AWS_EC2_METADATA_DISABLED", "true").envs(variables.iter().copied());
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
