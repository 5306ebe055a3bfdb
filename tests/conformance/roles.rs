//! Credentials of tasks' roles, as containers get them.

use crate::scripted::{Scripted, arn, fresh_id, task};
use crate::support::host::on_own_network;
use serde_json::{Value, json};
use std::io::{Read, Write};

const STAYS: &str = "trap 'exit 0' TERM; while :; do sleep 0.1; done";

fn credentials(id: &str, key: &str) -> Value {
    json!({"credentialsId": id, "roleArn": "arn:aws:iam::1:role/r", "accessKeyId": key, "secretAccessKey": "s",
        "sessionToken": "t", "expiration": "2031-01-01T00:00:00Z"})
}

/// What the agent answers to whoever asks on the host.
fn ask(path: &str) -> String {
    let mut stream = std::net::TcpStream::connect("127.0.0.1:51679").unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn a_container_gets_its_roles_credentials_and_newer_ones_until_its_task_is_gone() {
    on_own_network(|| async {
        let mut scripted = Scripted::start().await;
        let (id, role) = (fresh_id(), uuid::Uuid::new_v4().to_string());
        let mut wanted = task(&id, STAYS);
        wanted["roleCredentials"] = credentials(&role, "FIRST");
        scripted.send(json!([wanted])).await;
        scripted.reported(&id, "RUNNING").await;
        let fetched = |scripted: &Scripted| -> Value {
            let script = "wget -qO- http://169.254.170.2$AWS_CONTAINER_CREDENTIALS_RELATIVE_URI";
            let answer = scripted.host.exec(&arn(&id), "main", &["sh", "-c", script]);
            serde_json::from_str(&answer).unwrap_or_else(|e| panic!("{e}: {answer}"))
        };
        let uri = scripted.host.exec(
            &arn(&id),
            "main",
            &["sh", "-c", "echo $AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"],
        );
        assert_eq!(uri.trim(), format!("/v2/credentials/{role}"));
        let expected = |key: &str| {
            json!({"RoleArn": "arn:aws:iam::1:role/r", "AccessKeyId": key, "SecretAccessKey": "s", "Token": "t",
                "Expiration": "2031-01-01T00:00:00Z"})
        };
        assert_eq!(fetched(&scripted), expected("FIRST"));
        let refresh = json!({"messageId": "refresh", "taskArn": arn(&id), "roleType": "TaskApplication",
            "roleCredentials": credentials(&role, "SECOND")});
        scripted.acs.send("IAMRoleCredentialsMessage", refresh).await;
        loop {
            let (kind, body) = scripted.acs.receive().await;
            if kind == "IAMRoleCredentialsAckRequest" && body["messageId"] == "refresh" {
                break;
            }
        }
        assert_eq!(fetched(&scripted), expected("SECOND"));
        let path = format!("/v2/credentials/{role}");
        assert!(ask(&path).starts_with("HTTP/1.1 200 OK"), "known on the host, too");

        let mut stop = task(&id, STAYS);
        stop["desiredStatus"] = json!("STOPPED");
        scripted.send(json!([stop])).await;
        scripted.reported(&id, "STOPPED").await;
        scripted.host.until("it is forgotten", |_| ask(&path).contains("InvalidIdInRequest")).await;
        let answer = ask(&path);
        assert!(answer.starts_with("HTTP/1.1 400 Bad Request"), "{answer}");
        assert!(answer.contains("CredentialsV2Request: Credentials not found"), "{answer}");
    });
}
