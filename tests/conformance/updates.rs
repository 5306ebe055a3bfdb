//! Updates of the agent itself. How servers fail, hang and lie is held by `tests/control/update.rs`.

use crate::scripted::{Scripted, arn, fresh_id, task};
use crate::support::backend::{CLUSTER_ARN, Channel, INSTANCE};
use crate::support::host::on_own_network;
use crate::support::sigv4::sha256;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

const AGENT: &[u8] = b"a newer agent";

/// Serves [`AGENT`]; its address.
async fn server() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.read(&mut [0; 4096]).await;
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", AGENT.len());
            let _ = stream.write_all(&[head.as_bytes(), AGENT].concat()).await;
        }
    });
    format!("http://{address}/agent.tar")
}

fn message(id: &str) -> Value {
    json!({"messageId": id, "clusterArn": CLUSTER_ARN, "containerInstanceArn": INSTANCE})
}

fn stage(id: &str, location: &str) -> Value {
    let mut message = message(id);
    message["updateInfo"] = json!({"location": location, "signature": sha256(AGENT)});
    message
}

fn ack(id: &str) -> (String, Value) {
    let body = json!({"messageId": id, "cluster": CLUSTER_ARN, "containerInstance": INSTANCE});
    ("AckRequest".to_owned(), body)
}

#[test]
fn a_staged_agent_is_named_and_code_42_gives_way_to_it() {
    on_own_network(|| async {
        let updates = crate::support::containerd::TempDir::new("updates");
        let directory = updates.path().to_str().unwrap();
        let variables = [("ECS_UPDATES_ENABLED", "true"), ("ECS_UPDATE_DOWNLOAD_DIR", directory)];
        let mut scripted = Scripted::start_with(&variables).await;
        let id = fresh_id();
        scripted.send(json!([task(&id, "trap 'exit 9' TERM; while :; do sleep 0.1; done")])).await;
        scripted.reported(&id, "RUNNING").await;
        let pid = scripted.host.container_pid(&arn(&id), "main");
        scripted.acs.send("StageUpdateMessage", stage("s-1", &server().await)).await;
        assert_eq!(scripted.acs.receive().await, ack("s-1"));
        let desired = std::fs::read_to_string(updates.path().join("desired-image")).unwrap();
        let name = desired.strip_suffix('\n').unwrap();
        assert!(name.ends_with(".ecs-update.tar"), "{name}");
        assert_eq!(std::fs::read(updates.path().join(name)).unwrap(), AGENT);
        scripted.acs.is_quiet().await;
        scripted.acs.send("PerformUpdateMessage", message("p-1")).await;
        assert_eq!(scripted.acs.receive().await, ack("p-1"));
        assert_eq!(scripted.host.agent_exit().await, Some(42));
        assert!(pid.is_some());
        assert_eq!(scripted.host.container_pid(&arn(&id), "main"), pid, "it goes on");
        // The next agent takes it over.
        let endpoint = scripted.backend.endpoint().to_owned();
        scripted.host.start_agent_at(&endpoint);
        scripted.acs = scripted.backend.accept(Channel::Acs).await;
        let mut wanted = task(&id, "");
        wanted["desiredStatus"] = json!("STOPPED");
        scripted.send(json!([wanted])).await;
        assert_eq!(scripted.reported(&id, "STOPPED").await["containers"][0]["exitCode"], 9);
    });
}

#[test]
fn without_leave_there_are_no_updates() {
    on_own_network(|| async {
        let mut scripted = Scripted::start().await;
        let disabled = |id: &str| {
            let mut body = ack(id).1;
            body["reason"] = json!("Updates are disabled");
            ("NackRequest".to_owned(), body)
        };
        scripted.acs.send("StageUpdateMessage", stage("s-1", &server().await)).await;
        assert_eq!(scripted.acs.receive().await, disabled("s-1"));
        scripted.acs.send("PerformUpdateMessage", message("p-1")).await;
        assert_eq!(scripted.acs.receive().await, disabled("p-1"));
        scripted.acs.is_quiet().await;
    });
}
