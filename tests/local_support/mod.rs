//! A control plane in this process, raw HTTP to it, and a fake agent on its websockets.
#![allow(dead_code, reason = "each test program uses a part of it")]

use ecsd::local::{ControlPlane, Handle, Options};
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{WebSocketStream, client_async};

pub const WAIT: Duration = Duration::from_secs(20);

pub async fn start() -> Handle {
    start_with(Duration::from_secs(30)).await
}

pub async fn start_with(heartbeat: Duration) -> Handle {
    start_options(Options { heartbeat, ..options() }).await
}

pub fn options() -> Options {
    Options { region: "us-east-1".into(), ..Options::default() }
}

/// A frame of telemetry, with a signature of the right form.
pub fn signed(envelope: &Value) -> String {
    format!(
        "Authorization: AWS4-HMAC-SHA256 Credential=k/d/us-east-1/ecs/aws4_request, SignedHeaders=host;x-amz-date, \
         Signature={}\r\nHost: h\r\nX-Amz-Date: d\r\n\r\n{envelope}",
        "0a".repeat(32)
    )
}

pub async fn start_options(options: Options) -> Handle {
    let (handle, serving) = ControlPlane::bind("127.0.0.1:0".parse().unwrap(), options).await.unwrap();
    tokio::spawn(serving);
    handle
}

pub fn address(handle: &Handle) -> String {
    handle.endpoint().strip_prefix("http://").unwrap().to_owned()
}

/// Sends raw bytes, answers status and body.
pub async fn raw(addr: &str, request: &[u8]) -> (u16, Value) {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    stream.write_all(request).await.unwrap();
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(WAIT, stream.read_to_end(&mut answer)).await.unwrap();
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).unwrap_or(0);
    (status, serde_json::from_str(body).unwrap_or(Value::Null))
}

pub async fn post(addr: &str, operation: &str, body: &str) -> (u16, Value) {
    let request = format!(
        "POST / HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\nContent-Type: application/x-amz-json-1.1\r\n\
         X-Amz-Target: AmazonEC2ContainerServiceV20141113.{operation}\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    raw(addr, request.as_bytes()).await
}

/// An operation that must succeed.
pub async fn call(addr: &str, operation: &str, input: Value) -> Value {
    let (status, body) = post(addr, operation, &input.to_string()).await;
    assert_eq!(status, 200, "{operation}: {body}");
    body
}

/// An operation that must fail: exception name and message.
pub async fn refused(addr: &str, operation: &str, input: Value) -> (String, String) {
    let (status, body) = post(addr, operation, &input.to_string()).await;
    assert_ne!(status, 200, "{operation}: {body}");
    (body["__type"].as_str().unwrap().to_owned(), body["message"].as_str().unwrap().to_owned())
}

pub async fn register_instance(addr: &str) -> String {
    let answer = call(addr, "RegisterContainerInstance", instance()).await;
    answer["containerInstance"]["containerInstanceArn"].as_str().unwrap().to_owned()
}

pub fn instance() -> Value {
    json!({"cluster": "local", "clientToken": "t", "totalResources": [
        {"name": "CPU", "type": "INTEGER", "integerValue": 2048},
        {"name": "MEMORY", "type": "INTEGER", "integerValue": 1000},
        {"name": "PORTS", "type": "STRINGSET", "stringSetValue": ["22", "51678"]},
        {"name": "PORTS_UDP", "type": "STRINGSET", "stringSetValue": []}],
        "attributes": [{"name": "ecs.os-type", "value": "linux"}, {"name": "ecs.capability.container-ordering"},
            {"name": "ecs.capability.task-cpu-mem-limit"},
            {"name": "com.amazonaws.ecs.capability.task-iam-role"}]})
}

pub fn definition(family: &str) -> Value {
    json!({"family": family, "networkMode": "bridge", "containerDefinitions": [
        {"name": "web", "image": "ecsd.local/hello:latest", "memory": 64,
         "portMappings": [{"containerPort": 80, "hostPort": 0}]}]})
}

/// An agent that does as it is told: acknowledges, and reports what the test asks it to.
pub struct FakeAgent {
    pub addr: String,
    pub instance: String,
    pub socket: WebSocketStream<TcpStream>,
}

impl FakeAgent {
    pub async fn start(handle: &Handle) -> Self {
        let addr = address(handle);
        let instance = register_instance(&addr).await;
        let socket = connect(&addr, &acs_path(&instance)).await.unwrap();
        Self { addr, instance, socket }
    }

    /// The next message of a type; others are skipped, heartbeats answered.
    pub async fn expect(&mut self, kind: &str) -> Value {
        let found = tokio::time::timeout(WAIT, async {
            loop {
                let frame = self.socket.next().await.expect("connection open").unwrap();
                let Message::Text(text) = frame else { continue };
                let value: Value = serde_json::from_str(&text).unwrap();
                if value["type"] == kind {
                    return value["message"].clone();
                }
            }
        });
        found.await.unwrap_or_else(|_| panic!("no {kind} came"))
    }

    pub async fn send(&mut self, kind: &str, message: Value) {
        let text = json!({"type": kind, "message": message}).to_string();
        self.socket.send(Message::text(text)).await.unwrap();
    }

    pub async fn ack(&mut self, payload: &Value) {
        let ack = json!({"cluster": payload["clusterArn"], "messageId": payload["messageId"],
            "containerInstance": payload["containerInstanceArn"]});
        self.send("AckRequest", ack).await;
    }

    pub async fn report(&self, task: &str, status: &str, containers: Value) {
        let input = json!({"cluster": "local", "task": task, "status": status, "reason": "",
            "containers": containers, "pullStartedAt": 1795467392.147, "pullStoppedAt": 1795467392.209});
        let answer = call(&self.addr, "SubmitTaskStateChange", input).await;
        assert_eq!(answer["acknowledgment"], "ACK");
    }

    /// Runs every task of the payloads that come, and stops them when told to, until dropped.
    pub async fn obey(mut self) {
        while let Some(Ok(frame)) = self.socket.next().await {
            let Message::Text(text) = frame else { continue };
            let value: Value = serde_json::from_str(&text).unwrap();
            if value["type"] != "PayloadMessage" {
                continue;
            }
            self.ack(&value["message"]).await;
            for task in value["message"]["tasks"].as_array().unwrap() {
                let arn = task["arn"].as_str().unwrap();
                let name = task["containers"][0]["name"].clone();
                if task["desiredStatus"] == "RUNNING" {
                    let bindings = json!([{"bindIP": "0.0.0.0", "containerPort": 80, "hostPort": 32768,
                        "protocol": "tcp"}]);
                    let container = json!({"containerName": name, "status": "RUNNING", "runtimeId": "abc",
                        "imageDigest": "sha256:1", "networkBindings": bindings});
                    self.report(arn, "RUNNING", json!([container])).await;
                } else {
                    let container = json!({"containerName": name, "status": "STOPPED", "exitCode": 0});
                    self.report(arn, "STOPPED", json!([container])).await;
                }
            }
        }
    }
}

pub fn acs_path(instance: &str) -> String {
    format!(
        "/acs/ws?agentHash=x&agentVersion=1&clusterArn=local&containerInstanceArn={instance}\
         &dockerVersion=containerd&protocolVersion=2&sendCredentials=true&seqNum=1"
    )
}

pub async fn connect(addr: &str, path: &str) -> Result<WebSocketStream<TcpStream>, String> {
    let stream = TcpStream::connect(addr).await.unwrap();
    let connected = client_async(format!("ws://{addr}{path}"), stream).await;
    connected.map(|(socket, _)| socket).map_err(|error| match error {
        tokio_tungstenite::tungstenite::Error::Http(response) => {
            String::from_utf8_lossy(response.body().as_deref().unwrap_or_default()).into_owned()
        }
        other => other.to_string(),
    })
}
