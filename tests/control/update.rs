//! Updates of the agent: staged from a server that helps, fails, hangs or lies.

use crate::acs::Agent;
use crate::support::backend::{Backend, CLUSTER_ARN, Channel, Connection, INSTANCE};
use crate::support::tls::Authority;
use crate::{account, acs_context};
use ecsd::control::EcsApi;
use ecsd::control::acs::{AcsContext, AcsEvent};
use ecsd::control::http::SchemeClient;
use ecsd::control::proxy::Proxies;
use ecsd::control::tls::Tls;
use ecsd::control::update::UpdateOptions;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::path::PathBuf;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

/// Answers by path: `/good` the image, `/moved` a redirect to it, `/hang` nothing, `/endless` without
/// end, `/cut` less than it promised, anything else 404.
async fn server() -> (String, tokio::task::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let task = tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut head = vec![0; 4096];
                let n = stream.read(&mut head).await.unwrap_or(0);
                let head = String::from_utf8_lossy(&head[..n]).into_owned();
                let path = head.split(' ').nth(1).unwrap_or_default();
                let plain = |length: usize| format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n");
                let answer = match path {
                    "/good" => plain(5) + "agent",
                    "/moved" => "HTTP/1.1 302 Found\r\nLocation: /good\r\nContent-Length: 0\r\n\r\n".into(),
                    "/cut" => plain(50) + "agent",
                    "/endless" => plain(1 << 40) + &"x".repeat(100_000),
                    "/hang" => return std::future::pending().await,
                    _ => "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n".into(),
                };
                let _ = stream.write_all(answer.as_bytes()).await;
                let _ = stream.shutdown().await;
            });
        }
    });
    (base, task)
}

struct Setup {
    _backend: Backend,
    connection: Connection,
    agent: Agent,
    directory: PathBuf,
    base: String,
    _server: tokio::task::JoinHandle<()>,
}

impl Setup {
    async fn new(name: &str, limit: Duration) -> Self {
        let mut backend = Backend::start().await;
        let directory = std::env::temp_dir().join(format!("ecsd-update-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&directory);
        let mut context = acs_context(&backend);
        let mut options = UpdateOptions::new(directory.clone(), "test".into());
        (options.limit, options.most_bytes) = (limit, 50_000);
        context.updates = Some(options);
        let agent = Agent::start(context);
        let connection = backend.accept(Channel::Acs).await;
        let (base, server) = server().await;
        Self { _backend: backend, connection, agent, directory, base, _server: server }
    }

    async fn stage(&mut self, id: &str, path: &str, signature: &str) {
        let info = json!({"location": format!("{}{path}", self.base), "signature": signature});
        self.connection.send("StageUpdateMessage", update(id, info)).await;
    }

    fn files(&self) -> Vec<String> {
        let entries = std::fs::read_dir(&self.directory).into_iter().flatten();
        let mut names: Vec<_> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

impl Drop for Setup {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

fn update(id: &str, info: Value) -> Value {
    json!({"messageId": id, "clusterArn": CLUSTER_ARN, "containerInstanceArn": INSTANCE, "updateInfo": info})
}

fn ack(id: &str) -> (String, Value) {
    let body = json!({"messageId": id, "cluster": CLUSTER_ARN, "containerInstance": INSTANCE});
    ("AckRequest".to_owned(), body)
}

fn nack(id: &str, reason: &str) -> (String, Value) {
    let mut body = ack(id).1;
    body["reason"] = json!(reason);
    ("NackRequest".to_owned(), body)
}

fn signature() -> String {
    hex::encode(Sha256::digest(b"agent"))
}

#[tokio::test]
async fn a_staged_agent_is_named_to_the_supervisor_and_started() {
    let mut all = Setup::new("good", Duration::from_secs(60)).await;
    all.connection.send("PerformUpdateMessage", update("p0", json!({}))).await;
    let early = nack("p0", "Cannot perform update; update not downloaded");
    assert_eq!(all.connection.receive().await, early);
    all.stage("s1", "/moved", &format!(" {}\n", signature())).await;
    assert_eq!(all.connection.receive().await, ack("s1"));
    let desired = std::fs::read_to_string(all.directory.join("desired-image")).unwrap();
    let name = desired.strip_suffix("\n").unwrap();
    assert!(name.ends_with(".ecs-update.tar"), "{name}");
    assert_eq!(std::fs::read(all.directory.join(name)).unwrap(), b"agent");
    assert_eq!(all.files().len(), 2, "{:?}", all.files());
    // The same again costs nothing; another one takes its place, and its file with it.
    all.stage("s2", "/404", &format!(" {}\n", signature())).await;
    assert_eq!(all.connection.receive().await, ack("s2"));
    all.stage("s3", "/good", &signature()).await;
    assert_eq!(all.connection.receive().await, nack("s1", "New update arrived: s3"));
    assert_eq!(all.connection.receive().await, ack("s3"));
    assert_eq!(all.files().len(), 2, "{:?}", all.files());
    all.connection.send("PerformUpdateMessage", update("p1", json!({}))).await;
    assert_eq!(all.connection.receive().await, ack("p1"));
    assert!(matches!(all.agent.event().await, AcsEvent::Update));
}

#[tokio::test]
async fn servers_that_fail_or_lie_are_told_and_leave_nothing() {
    let mut all = Setup::new("bad", Duration::from_secs(60)).await;
    all.connection.send("StageUpdateMessage", update("s0", json!({"signature": "x"}))).await;
    assert_eq!(all.connection.receive().await, nack("s0", "Invalid update: No location given"));
    all.connection.send("StageUpdateMessage", update("s1", json!({"location": "x"}))).await;
    assert_eq!(all.connection.receive().await, nack("s1", "Invalid update: No signature given"));
    all.stage("s2", "/good", "00").await;
    assert_eq!(all.connection.receive().await, nack("s2", "Unable to download: Hashsum validation failed"));
    for (id, path, words) in
        [("s3", "/none", "HTTP 404"), ("s4", "/cut", "broke"), ("s5", "/endless", "50000 bytes")]
    {
        all.stage(id, path, &signature()).await;
        let (kind, body) = all.connection.receive().await;
        let reason = body["reason"].as_str().unwrap();
        assert_eq!((kind.as_str(), &body["messageId"]), ("NackRequest", &json!(id)));
        assert!(reason.starts_with("Unable to download: ") && reason.contains(words), "{reason}");
    }
    assert_eq!(all.files(), [""; 0]);
}

#[tokio::test]
async fn a_hanging_server_holds_nothing_up_and_is_given_up() {
    let mut all = Setup::new("hang", Duration::from_secs(3600)).await;
    all.stage("s1", "/hang", &signature()).await;
    all.connection.is_quiet().await;
    all.connection.send("PerformUpdateMessage", update("p1", json!({}))).await;
    let early = nack("p1", "Cannot perform update; update not downloaded");
    assert_eq!(all.connection.receive().await, early);
    assert!(matches!(all.agent.event().await, AcsEvent::Heartbeat));
    // The same again waits with it; a newer one makes both void.
    all.stage("s2", "/hang", &signature()).await;
    all.stage("s3", "/good", &format!("{} ", signature())).await;
    assert_eq!(all.connection.receive().await, nack("s1", "New update arrived: s3"));
    assert_eq!(all.connection.receive().await, nack("s2", "New update arrived: s3"));
    assert_eq!(all.connection.receive().await, ack("s3"));

    let mut late = Setup::new("late", Duration::from_millis(100)).await;
    late.stage("s1", "/hang", &signature()).await;
    assert_eq!(late.connection.receive().await, nack("s1", "Unable to download: not done within 100ms"));
    assert_eq!(late.files(), [""; 0]);
}

#[tokio::test]
async fn the_server_of_an_update_is_verified_even_where_any_certificate_will_do() {
    let mut backend = Backend::start_tls(Authority::new().server(&["localhost"])).await;
    let any = SchemeClient::new(Proxies::from_vars(|_| None), Tls::any_certificate());
    let account = account(&backend, None).with_http(any);
    let directory = std::env::temp_dir().join(format!("ecsd-update-tls-{}", std::process::id()));
    let updates = Some(UpdateOptions::new(directory.clone(), "test".into()));
    let context = AcsContext { api: EcsApi::new(&account), account, updates, ..acs_context(&backend) };
    let _agent = Agent::start(context);
    // Its certificate is good enough for ACS itself.
    let mut connection = backend.accept(Channel::Acs).await;
    let info = json!({"location": format!("{}/agent", backend.endpoint()), "signature": signature()});
    connection.send("StageUpdateMessage", update("s1", info)).await;
    let (kind, body) = connection.receive().await;
    let reason = body["reason"].as_str().unwrap();
    assert_eq!(kind, "NackRequest");
    assert!(
        reason.starts_with("Unable to download: localhost") && reason.contains("SSL_CERT_FILE"),
        "{reason}"
    );
    let _ = std::fs::remove_dir_all(&directory);
}
