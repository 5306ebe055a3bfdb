//! The real aws CLI (version 1, from PyPI) against the embedded control plane. It validates answers
//! by the public service model and paginates by itself: what it prints is what users see.
//!
//! The CLI is installed once, into target/awscli-venv. Where PyPI can't be reached the test says so
//! and passes; any other failure to install fails it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr)]

mod local_support;

use local_support::*;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Command;

fn aws() -> Option<PathBuf> {
    let target = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    let venv =
        target.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("target")).join("awscli-venv");
    let program = venv.join("bin/aws");
    if program.exists() {
        return Some(program);
    }
    let made =
        Command::new("python3").args(["-m", "venv"]).arg(&venv).output().expect("python3 is installed");
    assert!(made.status.success(), "python3 -m venv: {}", String::from_utf8_lossy(&made.stderr));
    let pip = Command::new(venv.join("bin/pip")).args(["install", "-q", "awscli"]).output().unwrap();
    if !pip.status.success() {
        let why = String::from_utf8_lossy(&pip.stderr).into_owned();
        let offline = [
            "Temporary failure in name resolution",
            "Connection refused",
            "No matching distribution",
            "Network is unreachable",
            "timed out",
            "ProxyError",
        ];
        assert!(offline.iter().any(|text| why.contains(text)), "pip install awscli: {why}");
        eprintln!("\n*** SKIPPED: the aws CLI could not be installed, PyPI can't be reached ***\n{why}");
        return None;
    }
    Some(program)
}

#[derive(Clone)]
struct Cli {
    program: PathBuf,
    endpoint: String,
}

impl Cli {
    async fn run(&self, arguments: &[&str]) -> (bool, String, String) {
        let mut command = tokio::process::Command::new(&self.program);
        command
            .args(["ecs", "--endpoint-url", &self.endpoint, "--output", "json"])
            .args(arguments)
            .env("AWS_ACCESS_KEY_ID", "AKIDLOCAL")
            .env("AWS_SECRET_ACCESS_KEY", "not-a-secret")
            .env("AWS_DEFAULT_REGION", "us-east-1")
            .env("AWS_EC2_METADATA_DISABLED", "true")
            .env("AWS_CONFIG_FILE", "/nonexistent")
            .env("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
            .env_remove("AWS_PROFILE");
        let output = command.output().await.unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.success(), text(&output.stdout), text(&output.stderr))
    }

    async fn json(&self, arguments: &[&str]) -> Value {
        let (ok, out, err) = self.run(arguments).await;
        assert!(ok, "aws ecs {arguments:?}: {err}");
        serde_json::from_str(&out).unwrap_or(Value::Null)
    }

    async fn refused(&self, arguments: &[&str]) -> String {
        let (ok, out, err) = self.run(arguments).await;
        assert!(!ok, "aws ecs {arguments:?} succeeded: {out}");
        err
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_real_cli_works_against_it() {
    let Some(program) = tokio::task::spawn_blocking(aws).await.unwrap() else { return };
    let handle = start().await;
    let cli = Cli { program, endpoint: handle.endpoint() };
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/hello/task.json");
    let hello = format!("file://{}", file.display());

    let registered = cli.json(&["register-task-definition", "--cli-input-json", &hello]).await;
    assert_eq!(registered["taskDefinition"]["family"], "hello");
    assert_eq!(registered["taskDefinition"]["revision"], 1);
    let web = definition("web").to_string();
    cli.json(&["register-task-definition", "--cli-input-json", &web]).await;
    let listed = cli.json(&["list-task-definitions"]).await;
    assert_eq!(listed["taskDefinitionArns"].as_array().unwrap().len(), 2);
    let paged = cli.json(&["list-task-definitions", "--page-size", "1"]).await;
    assert_eq!(paged, listed);
    let shown = cli.json(&["describe-task-definition", "--task-definition", "hello"]).await;
    assert_eq!(
        shown["taskDefinition"]["containerDefinitions"],
        registered["taskDefinition"]["containerDefinitions"]
    );
    let error =
        cli.refused(&["register-task-definition", "--family", "a b", "--container-definitions", "[]"]).await;
    assert!(error.contains("(ClientException)") && error.contains("RegisterTaskDefinition"), "{error}");
    let error = cli.refused(&["run-task", "--cluster", "local", "--task-definition", "web"]).await;
    assert!(error.contains("No Container Instances were found in your cluster."), "{error}");
    let error = cli.refused(&["list-services", "--cluster", "local"]).await;
    assert!(error.contains("(UnknownOperationException)"), "{error}");

    let agent = FakeAgent::start(&handle).await;
    tokio::spawn(agent.obey());
    let run = cli
        .json(&[
            "run-task",
            "--cluster",
            "local",
            "--task-definition",
            "web",
            "--started-by",
            "me",
            "--overrides",
            r#"{"containerOverrides":[{"name":"web","command":["x"]}]}"#,
        ])
        .await;
    assert_eq!(run["failures"], json!([]));
    let arn = run["tasks"][0]["taskArn"].as_str().unwrap();
    cli.json(&["wait", "tasks-running", "--cluster", "local", "--tasks", arn]).await;
    assert_eq!(cli.json(&["list-tasks", "--cluster", "local"]).await["taskArns"], json!([arn]));
    let shown = cli.json(&["describe-tasks", "--cluster", "local", "--tasks", arn]).await;
    let task = &shown["tasks"][0];
    assert_eq!((task["lastStatus"].as_str(), task["startedBy"].as_str()), (Some("RUNNING"), Some("me")));
    assert_eq!(task["containers"][0]["networkBindings"][0]["hostPort"], 32768);
    let clusters = cli.json(&["describe-clusters", "--clusters", "local"]).await;
    assert_eq!(clusters["clusters"][0]["runningTasksCount"], 1);
    assert_eq!(cli.json(&["list-clusters"]).await["clusterArns"].as_array().unwrap().len(), 1);
    let instances = cli.json(&["list-container-instances", "--cluster", "local"]).await;
    let instance = instances["containerInstanceArns"][0].as_str().unwrap();
    let shown = cli
        .json(&["describe-container-instances", "--cluster", "local", "--container-instances", instance])
        .await;
    assert_eq!(shown["containerInstances"][0]["agentConnected"], true);
    let tags = cli.json(&["list-tags-for-resource", "--resource-arn", instance]).await;
    assert_eq!(tags["tags"], json!([]));

    let stop = cli.json(&["stop-task", "--cluster", "local", "--task", arn, "--reason", "enough"]).await;
    assert_eq!(stop["task"]["desiredStatus"], "STOPPED");
    cli.json(&["wait", "tasks-stopped", "--cluster", "local", "--tasks", arn]).await;
    let stopped = cli.json(&["list-tasks", "--cluster", "local", "--desired-status", "STOPPED"]).await;
    assert_eq!(stopped["taskArns"], json!([arn]));
    let gone = cli.json(&["deregister-task-definition", "--task-definition", "web:1"]).await;
    assert_eq!(gone["taskDefinition"]["status"], "INACTIVE");
    let error = cli.refused(&["run-task", "--cluster", "local", "--task-definition", "web:1"]).await;
    assert!(error.contains("inactive"), "{error}");

    // What agents call, by the same model.
    let endpoints =
        cli.json(&["discover-poll-endpoint", "--cluster", "local", "--container-instance", instance]).await;
    assert_eq!(endpoints["endpoint"], format!("{}/acs", handle.endpoint()));
    let registered = cli.json(&["register-container-instance", "--cluster", "local"]).await;
    assert_eq!(registered["containerInstance"]["status"], "ACTIVE");
    let ack = cli
        .json(&["submit-task-state-change", "--cluster", "local", "--task", arn, "--status", "STOPPED"])
        .await;
    assert_eq!(ack["acknowledgment"], "ACK");
    let ack = cli
        .json(&[
            "submit-container-state-change",
            "--cluster",
            "local",
            "--task",
            arn,
            "--container-name",
            "web",
        ])
        .await;
    assert_eq!(ack["acknowledgment"], "ACK");
    let ack = cli
        .json(&[
            "submit-attachment-state-changes",
            "--cluster",
            "local",
            "--attachments",
            "attachmentArn=arn:x,status=ATTACHED",
        ])
        .await;
    assert_eq!(ack["acknowledgment"], "ACK");
    let drained = cli
        .json(&[
            "update-container-instances-state",
            "--cluster",
            "local",
            "--container-instances",
            instance,
            "--status",
            "DRAINING",
        ])
        .await;
    assert_eq!(drained["containerInstances"][0]["status"], "DRAINING");
    let made = cli.json(&["create-cluster", "--cluster-name", "second"]).await;
    assert_eq!(made["cluster"]["clusterName"], "second");
}
