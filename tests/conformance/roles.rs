//! Credentials of tasks' roles, as containers get them.

use crate::scripted::{Scripted, arn, fresh_id, task};
use crate::support::host::on_own_network;
use crate::support::sigv4;
use serde_json::{Value, json};
use std::io::{Read, Write};

const STAYS: &str = "trap 'exit 0' TERM; while :; do sleep 0.1; done";

fn credentials(id: &str, key: &str) -> Value {
    json!({"credentialsId": id, "roleArn": "arn:aws:iam::1:role/r", "accessKeyId": key, "secretAccessKey": "s",
        "sessionToken": "t", "expiration": "2031-01-01T00:00:00Z"})
}

/// What the agent answers to whoever asks on the host.
fn ask(path: &str) -> String {
    request("GET", path, "")
}

fn request(method: &str, path: &str, body: &str) -> String {
    let mut stream = std::net::TcpStream::connect("127.0.0.1:51679").unwrap();
    let length = body.len();
    let head =
        format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {length}");
    write!(stream, "{head}\r\n\r\n{body}").unwrap();
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

#[test]
fn a_task_is_protected_by_its_own_role() {
    on_own_network(|| async {
        let mut scripted = Scripted::start().await;
        let id = fresh_id();
        let mut wanted = task(&id, STAYS);
        // The back end verifies by these keys whatever is signed; the token tells that it is the role's.
        wanted["roleCredentials"] = credentials("role-1", sigv4::ACCESS_KEY);
        wanted["roleCredentials"]["secretAccessKey"] = json!(sigv4::SECRET);
        wanted["roleCredentials"]["sessionToken"] = json!("role-token");
        scripted.send(json!([wanted])).await;
        scripted.reported(&id, "RUNNING").await;
        let told = |enabled: bool| {
            let task = json!({"taskArn": arn(&id), "protectionEnabled": enabled});
            [(200, json!({"protectedTasks": [task], "failures": []}))]
        };
        scripted.backend.answer("GetTaskProtection", told(false));
        let uri = scripted.host.exec(&arn(&id), "main", &["sh", "-c", "echo $ECS_AGENT_URI"]);
        let own = uri.trim().strip_prefix("http://169.254.170.2").unwrap();
        let path = format!("{own}/task-protection/v1/state");
        // On another thread: the back end, which is asked in between, is on this one.
        let asked = |method: &'static str, body: &'static str| {
            let path = path.clone();
            tokio::task::spawn_blocking(move || request(method, &path, body))
        };
        let protection = |enabled: bool| json!({"protection": {"ExpirationDate": null, "ProtectionEnabled": enabled, "TaskArn": arn(&id)}});
        let answer = asked("GET", "").await.unwrap();
        assert!(answer.ends_with(&protection(false).to_string()), "{answer}");
        let call = scripted.backend.call_of("GetTaskProtection").await;
        assert_eq!(call.body, json!({"cluster": "peer", "tasks": [arn(&id)]}));
        assert_eq!(call.headers["x-amz-security-token"], "role-token");

        scripted.backend.answer("UpdateTaskProtection", told(true));
        let body = r#"{"ProtectionEnabled": true, "ExpiresInMinutes": 60}"#;
        let answer = asked("PUT", body).await.unwrap();
        assert!(answer.ends_with(&protection(true).to_string()), "{answer}");
        let call = scripted.backend.call_of("UpdateTaskProtection").await;
        let expected = json!({"cluster": "peer", "tasks": [arn(&id)], "protectionEnabled": true, "expiresInMinutes": 60});
        assert_eq!(call.body, expected);
        assert_eq!(call.headers["x-amz-security-token"], "role-token");
    });
}

#[test]
fn tags_are_asked_for_on_behalf_of_the_container() {
    on_own_network(|| async {
        let mut scripted = Scripted::start().await;
        let id = fresh_id();
        scripted.send(json!([task(&id, STAYS)])).await;
        scripted.reported(&id, "RUNNING").await;
        let tag = |key: &str| (200, json!({"tags": [{"key": key, "value": "v"}]}));
        scripted.backend.answer("ListTagsForResource", [tag("instance"), tag("task")]);
        let containers =
            scripted.host.exec(&arn(&id), "main", &["sh", "-c", "echo $ECS_CONTAINER_METADATA_URI_V4"]);
        let path =
            containers.trim().strip_prefix("http://169.254.170.2").unwrap().to_owned() + "/taskWithTags";
        let answer = tokio::task::spawn_blocking(move || ask(&path)).await.unwrap();
        let body: Value = serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap();
        assert_eq!(body["ContainerInstanceTags"], json!({"instance": "v"}), "{body}");
        assert_eq!(body["TaskTags"], json!({"task": "v"}));
        for resource in [crate::support::backend::INSTANCE.to_owned(), arn(&id)] {
            let call = scripted.backend.call_of("ListTagsForResource").await;
            assert_eq!(call.body, json!({"resourceArn": resource}));
            assert!(
                call.headers["user-agent"].ends_with(" container/main"),
                "{}",
                call.headers["user-agent"]
            );
        }
    });
}
