//! ACS: handshake, heartbeats, payloads, credentials, manifests.

use crate::support::backend::{Backend, CLUSTER_ARN, Channel, Connection, INSTANCE};
use crate::{acs_context, fixture};
use ecsd::control::acs::{AcsContext, AcsEvent, RoleKind, run};
use ecsd::control::payload::PayloadDecoder;
use ecsd::model::{CredentialsId, DesiredStatus, TaskArn};
use ecsd::ports::TaskDecoder;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

pub struct Agent {
    pub events: mpsc::Receiver<AcsEvent>,
    pub session: JoinHandle<()>,
}

impl Agent {
    pub fn start(context: AcsContext) -> Self {
        let (sender, events) = mpsc::channel(8);
        Self { events, session: tokio::spawn(run(context, sender)) }
    }

    pub async fn event(&mut self) -> AcsEvent {
        let patience = Duration::from_secs(20);
        tokio::time::timeout(patience, self.events.recv()).await.expect("no event came").unwrap()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.session.abort();
    }
}

async fn connected() -> (Backend, Connection, Agent, AcsContext) {
    let mut backend = Backend::start().await;
    let context = acs_context(&backend);
    let agent = Agent::start(context.clone());
    let connection = backend.accept(Channel::Acs).await;
    (backend, connection, agent, context)
}

fn task(id: &str, desired: &str) -> Value {
    json!({
        "arn": format!("arn:aws:ecs:us-west-2:123456789012:task/peer/{id}"), "desiredStatus": desired,
        "family": "f", "version": "1",
        "containers": [{"name": "main", "image": "bb:1", "essential": true}],
    })
}

fn payload(id: &str, tasks: Value) -> Value {
    json!({"messageId": id, "clusterArn": CLUSTER_ARN, "containerInstanceArn": INSTANCE, "seqNum": 1, "tasks": tasks})
}

fn ack(id: &str) -> (String, Value) {
    let body = json!({"messageId": id, "cluster": CLUSTER_ARN, "containerInstance": INSTANCE});
    ("AckRequest".to_owned(), body)
}

#[tokio::test]
async fn the_handshake_is_the_recorded_one_but_for_the_runtime() {
    let (_backend, connection, _agent, _) = connected().await;
    let mut expected: std::collections::BTreeMap<String, String> =
        serde_json::from_value(fixture("connect")["acs"].clone()).unwrap();
    // The only difference: what the agent runs on.
    assert_eq!(
        expected.insert("dockerVersion".into(), "containerd".into()).unwrap(),
        "DockerVersion: 20.10.24+dfsg1"
    );
    expected.insert("agentHash".into(), "*a8b3e7d3".into());
    expected.insert("containerInstanceArn".into(), INSTANCE.into());
    assert_eq!(connection.query, expected);
    assert_eq!(connection.path, "/acs/ws");
    assert!(connection.headers["authorization"].contains("SignedHeaders=host;x-amz-date,"));
    assert!(!connection.headers.contains_key("x-amz-content-sha256"));
    assert!(!connection.headers.contains_key("sec-websocket-protocol"));
    assert!(!connection.headers.contains_key("sec-websocket-extensions"));
}

#[tokio::test]
async fn heartbeats_are_answered_while_the_engine_is_busy() {
    let (_backend, mut connection, mut agent, _) = connected().await;
    // More than the channel holds: nobody takes events here.
    for _ in 0..20 {
        connection.is_quiet().await;
    }
    for _ in 0..20 {
        assert!(matches!(agent.event().await, AcsEvent::Heartbeat));
    }
}

#[tokio::test]
async fn a_payload_is_acknowledged_when_it_is_durable_and_not_before() {
    let (_backend, mut connection, mut agent, context) = connected().await;
    let mut start = task("start", "RUNNING");
    start["roleCredentials"] = json!({"credentialsId": "r1", "roleArn": "arn:r", "accessKeyId": "A",
        "secretAccessKey": "CANARY", "sessionToken": "CANARY", "expiration": "2036-01-01T00:00:00Z"});
    start["executionRoleCredentials"] = json!({"credentialsId": "e1", "expiration": "x"});
    connection.send("PayloadMessage", payload("m1", json!([start, task("stop", "STOPPED")]))).await;
    let AcsEvent::Payload { message_id, tasks, rejected, respond } = agent.event().await else { panic!() };
    assert_eq!((message_id.as_str(), rejected.len()), ("m1", 0));
    assert_eq!(tasks[0].0, DesiredStatus::Stopped, "stops come first");
    assert_eq!(tasks[1].1.id().as_str(), "start");
    assert_eq!(PayloadDecoder.decode(&tasks[1].2).unwrap(), *tasks[1].1);
    assert!(!tasks[1].2.contains("CANARY"));
    let stored = context.roles.get(&CredentialsId("r1".into())).unwrap();
    assert_eq!(stored.secret_access_key, "CANARY");
    connection.is_quiet().await;
    respond.send(Ok(())).unwrap();
    let mut acks = vec![connection.receive().await, connection.receive().await, connection.receive().await];
    acks.sort_by_key(|(kind, body)| (kind.clone(), body["credentialsId"].to_string()));
    let credentials = |id: &str, expiration: &str| {
        let body = json!({"messageId": "m1", "credentialsId": id, "expiration": expiration});
        ("IAMRoleCredentialsAckRequest".to_owned(), body)
    };
    assert_eq!(acks, [ack("m1"), credentials("e1", "x"), credentials("r1", "2036-01-01T00:00:00Z")]);
}

#[tokio::test]
async fn every_recorded_payload_is_taken_and_acknowledged() {
    let (_backend, mut connection, mut agent, _) = connected().await;
    for message in fixture("payloads").as_array().unwrap() {
        connection.send_text(&message.to_string()).await;
        let AcsEvent::Payload { tasks, rejected, respond, .. } = agent.event().await else { panic!() };
        assert!(rejected.is_empty(), "{rejected:?}");
        assert_eq!(tasks.len(), message["message"]["tasks"].as_array().unwrap().len());
        respond.send(Ok(())).unwrap();
        assert_eq!(connection.receive().await, ack(message["message"]["messageId"].as_str().unwrap()));
    }
}

#[tokio::test]
async fn a_payload_that_was_not_stored_is_not_acknowledged() {
    let (_backend, mut connection, mut agent, _) = connected().await;
    connection.send("PayloadMessage", payload("m1", json!([task("a", "RUNNING")]))).await;
    let AcsEvent::Payload { respond, .. } = agent.event().await else { panic!() };
    respond.send(Err(())).unwrap();
    connection.send("PayloadMessage", payload("m2", json!([task("a", "RUNNING")]))).await;
    let AcsEvent::Payload { respond, .. } = agent.event().await else { panic!() };
    drop(respond);
    connection.is_quiet().await;
}

#[tokio::test]
async fn a_task_that_can_not_run_is_told_and_costs_the_ack_but_not_the_other_tasks() {
    let (_backend, mut connection, mut agent, _) = connected().await;
    let mut empty = task("empty", "RUNNING");
    empty["containers"] = json!([]);
    let mut strange = task("strange", "RUNNING");
    strange["memory"] = json!("much");
    let nameless = json!({"desiredStatus": "RUNNING"});
    connection
        .send(
            "PayloadMessage",
            payload("m1", json!([empty, task("good", "RUNNING"), strange, nameless, null])),
        )
        .await;
    let AcsEvent::Payload { tasks, mut rejected, respond, .. } = agent.event().await else { panic!() };
    assert_eq!(tasks.len(), 1);
    rejected.sort();
    let reasons: Vec<_> =
        rejected.iter().map(|(arn, reason)| (arn.id().to_string(), reason.as_str())).collect();
    let prefix = "UnrecogniedTaskError: Error loading task - ";
    assert_eq!(reasons[0], ("empty".into(), &*format!("{prefix}the task has no containers")));
    assert_eq!(reasons[1], ("strange".into(), &*format!("{prefix}invalid type: string, expected i64")));
    respond.send(Ok(())).unwrap();
    connection.is_quiet().await;
}

#[tokio::test]
async fn a_cycle_is_told_and_acknowledged() {
    let (_backend, mut connection, mut agent, _) = connected().await;
    let mut cycle = task("cycle", "RUNNING");
    cycle["containers"][0]["dependsOn"] = json!([{"containerName": "main", "condition": "START"}]);
    connection.send("PayloadMessage", payload("m1", json!([cycle]))).await;
    let AcsEvent::Payload { rejected, respond, .. } = agent.event().await else { panic!() };
    assert_eq!(rejected[0].1, format!("Task dependencies cannot be resolved, taskArn: {}", rejected[0].0));
    respond.send(Ok(())).unwrap();
    assert_eq!(connection.receive().await, ack("m1"));
}

#[tokio::test]
async fn garbage_is_dropped_and_the_session_goes_on() {
    let (_backend, mut connection, _agent, _) = connected().await;
    for text in
        ["", "{", "[]", "null", "\u{0}", r#"{"type":"Nope","message":{}}"#, r#"{"type":"PayloadMessage"}"#]
    {
        connection.send_text(text).await;
    }
    let nested = "[".repeat(100_000);
    connection.send_text(&format!(r#"{{"type":"PayloadMessage","message":{nested}}}"#)).await;
    let binary = tokio_tungstenite::tungstenite::Message::binary(vec![0xff, 0xfe]);
    assert!(connection.try_send(binary).await);
    let mut incomplete = payload("m1", json!([task("a", "RUNNING")]));
    incomplete["clusterArn"] = json!("");
    connection.send("PayloadMessage", incomplete).await;
    connection.send("CloseMessage", json!({"message": "soon"})).await;
    connection.is_quiet().await;
}

#[tokio::test]
async fn fresh_credentials_are_stored_and_acknowledged_for_known_tasks_only() {
    let (_backend, mut connection, mut agent, context) = connected().await;
    let message = |role: &str, id: &str| {
        json!({"messageId": format!("m-{id}"), "taskArn": "arn:aws:ecs:us-west-2:1:task/peer/t", "roleType": role,
            "roleCredentials": {"credentialsId": id, "accessKeyId": "A", "expiration": "soon"}})
    };
    connection.send("IAMRoleCredentialsMessage", message("TaskApplication", "c1")).await;
    let AcsEvent::Credentials { task, role, id, respond } = agent.event().await else { panic!() };
    assert_eq!((task.id().as_str(), role, id.0.as_str()), ("t", RoleKind::Application, "c1"));
    assert!(context.roles.get(&id).is_some());
    respond.send(Ok(())).unwrap();
    let expected = json!({"messageId": "m-c1", "credentialsId": "c1", "expiration": "soon"});
    assert_eq!(connection.receive().await, ("IAMRoleCredentialsAckRequest".into(), expected));
    connection.send("IAMRoleCredentialsMessage", message("TaskExecution", "c2")).await;
    let AcsEvent::Credentials { id, respond, .. } = agent.event().await else { panic!() };
    respond.send(Err(())).unwrap();
    connection.send("IAMRoleCredentialsMessage", message("Nope", "c3")).await;
    connection.is_quiet().await;
    assert!(context.roles.get(&id).is_some(), "stored before the task is looked for");
    assert!(context.roles.get(&CredentialsId("c3".into())).is_none());
}

#[tokio::test]
async fn tasks_that_a_manifest_lacks_are_stopped_after_a_second_question() {
    let (_backend, mut connection, mut agent, _) = connected().await;
    let arn = |id: &str| format!("arn:aws:ecs:us-west-2:123456789012:task/peer/{id}");
    let known = |id: &str| TaskArn::parse(&arn(id)).unwrap();
    let manifest = |timeline: i64| {
        json!({"messageId": format!("m{timeline}"), "clusterArn": CLUSTER_ARN, "containerInstanceArn": INSTANCE,
            "timeline": timeline, "tasks": [{"taskArn": arn("a"), "desiredStatus": "RUNNING"},
            {"taskArn": arn("b"), "desiredStatus": "STOPPED"}]})
    };
    connection.send("TaskManifestMessage", manifest(5)).await;
    let AcsEvent::Manifest { timeline: 5, respond } = agent.event().await else { panic!() };
    respond.send(Ok(vec![known("a"), known("b"), known("c")])).unwrap();
    assert_eq!(connection.receive().await, ack("m5"));
    let stop =
        |id: &str| json!({"taskArn": arn(id), "taskClusterArn": CLUSTER_ARN, "desiredStatus": "STOPPED"});
    let question = json!({"messageId": "m5", "stopCandidates": [stop("b"), stop("c")]});
    assert_eq!(connection.receive().await, ("TaskStopVerificationMessage".into(), question));
    // An old manifest is not even acknowledged; an answer to another one is nothing.
    connection.send("TaskManifestMessage", manifest(5)).await;
    connection.send("TaskStopVerificationAck", json!({"messageId": "m4", "stopTasks": [stop("a")]})).await;
    connection.send("TaskStopVerificationAck", json!({"messageId": "m5", "stopTasks": [stop("c")]})).await;
    let AcsEvent::StopTasks(stops) = agent.event().await else { panic!() };
    assert_eq!(stops, [known("c")]);
    connection.send("TaskStopVerificationAck", json!({"messageId": "m5", "stopTasks": [stop("a")]})).await;
    connection.is_quiet().await;
}

#[tokio::test]
async fn updates_are_refused_where_they_are_off() {
    let (_backend, mut connection, _agent, _) = connected().await;
    connection.send("StageUpdateMessage", payload("u1", json!([]))).await;
    let mut refusal = ack("u1").1;
    refusal["reason"] = json!("Updates are disabled");
    assert_eq!(connection.receive().await, ("NackRequest".into(), refusal.clone()));
    connection.send("PerformUpdateMessage", payload("u1", json!([]))).await;
    assert_eq!(connection.receive().await, ("NackRequest".into(), refusal));
    connection.is_quiet().await;
}
