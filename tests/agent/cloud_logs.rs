//! A container whose log goes to CloudWatch Logs by its task's execution role, and one whose log can't.

use super::scripted::{Scripted, arn, fresh_id, task};
use crate::support::cloudlogs::CloudLogs;
use crate::support::host::on_own_network;
use crate::support::sigv4;
use serde_json::{Value, json};

const GROUP: &str = "/ecs/web";

/// The task with its log at the server, by its execution role.
fn logged(mut task: Value, server: &CloudLogs) -> Value {
    let host = json!({"NetworkMode": "bridge", "LogConfig": {"Type": "awslogs", "Config": {
        "awslogs-group": GROUP, "awslogs-region": sigv4::REGION, "awslogs-endpoint": server.endpoint(),
        "awslogs-stream-prefix": "web",
    }}});
    task["containers"][0]["dockerConfig"]["hostConfig"] = host.to_string().into();
    task["containers"][0]["logsAuthStrategy"] = "ExecutionRole".into();
    task["executionRoleCredentials"] = json!({
        "credentialsId": "exec-CANARY", "roleArn": "arn:aws:iam::1:role/x", "accessKeyId": sigv4::ACCESS_KEY,
        "secretAccessKey": sigv4::SECRET, "sessionToken": "token", "expiration": "2099-01-01T00:00:00Z",
    });
    task
}

#[test]
fn a_containers_output_reaches_cloudwatch_by_the_execution_role() {
    on_own_network(|| async {
        let server = CloudLogs::with_group(GROUP);
        let mut scripted = Scripted::start().await;
        let id = fresh_id();
        let script = "echo begins; wget -qO- $ECS_CONTAINER_METADATA_URI_V4; echo; echo ends";
        scripted.send(json!([logged(task(&id, script), &server)])).await;
        scripted.reported(&id, "STOPPED").await;
        let stream = format!("web/main/{id}");
        let is_whole = || server.texts(GROUP, &stream).last().is_some_and(|line| line == "ends");
        scripted.host.until("the last line arrives", |_| is_whole()).await;
        let lines = server.texts(GROUP, &stream);
        assert_eq!((lines.len(), lines[0].as_str()), (3, "begins"));
        // What the container is told of its log, and what it is not.
        let told: Value = serde_json::from_str(&lines[1]).unwrap();
        assert_eq!(told["LogDriver"], "awslogs");
        assert_eq!(told["LogOptions"]["awslogs-stream"], stream.as_str());
        assert!(!lines[1].contains("CANARY"), "{}", lines[1]);
        assert!(server.calls().iter().all(|call| call.session_token.as_deref() == Some("token")));
        server.assert_clean();
        assert!(!scripted.host.agent_log().contains("CANARY"));
        scripted.host.until_nothing_is_left().await;
    });
}

#[test]
fn without_its_log_group_a_container_does_not_start() {
    on_own_network(|| async {
        let server = CloudLogs::start();
        let mut scripted = Scripted::start().await;
        let id = fresh_id();
        scripted.send(json!([logged(task(&id, "touch /ran; sleep 60"), &server)])).await;
        let report = scripted.reported(&id, "STOPPED").await;
        let reason = report["containers"][0]["reason"].as_str().unwrap().to_owned();
        assert!(reason.starts_with("CannotStartContainerError: "), "{report}");
        let words = "failed to initialize logging driver: failed to create Cloudwatch log stream: ";
        assert!(reason.contains(words), "{reason}");
        assert!(
            reason.contains("ResourceNotFoundException: The specified log group does not exist."),
            "{reason}"
        );
        assert_eq!(report["task"], arn(&id).as_str());
        assert_eq!(server.calls().len(), 1, "a start is tried once");
        scripted.host.until_nothing_is_left().await;
    });
}
