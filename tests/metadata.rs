//! The metadata, credentials and introspection endpoints against recordings of the original.
//!
//! The task that was recorded is built anew in model terms; every body must then be the recorded one,
//! byte for byte, and every header the recorded one, but for:
//!
//! - `DockerId` and `DockerName`: ours are derived from the task, the original's are random;
//! - `Date`, `Content-Length` against chunks (we always know the length), the client's port;
//! - the order of headers, which nobody may rely on;
//! - `/license`: the original's packaging broke it (500, empty); ours answers with the licence.
//!
//! And at the end, clients that mean ill.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test panics on what it did not expect")]

#[path = "metadata/ecs.rs"]
mod ecs;

use ecsd::model::*;
use ecsd::tmds::*;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;

const MAIN: &str = "f469de7c-ede1-4a97-8c7f-58bd77f6f1d5";
const TASK: &str = "arn:aws:ecs:us-west-2:123456789012:task/peer/f31782df16e442f1a2605ab339674cbd";
const RECORDED: [(&str, &str, &str); 2] = [
    (
        "main",
        "427d8daafa93b8120f216f04c3092dc53f09d36e7c4c9cdcf753f5ae1a518bd4",
        "ecs-tmds-1-main-d88febc2bca789eb4900",
    ),
    (
        "side",
        "5752ebc76a17881cd8b8108e4a7447d637022a04b22b1f000eec59bfa0969a71",
        "ecs-tmds-1-side-d8c4a5e4def886bcba01",
    ),
];

fn container(name: &str, endpoint: &str, arn: &str) -> ContainerSpec {
    ContainerSpec {
        arn: format!("{}/{arn}", TASK.replace(":task/", ":container/")),
        image: "127.0.0.1:5000/bb:1".into(),
        cpu_shares: 10,
        memory_mib: 64,
        endpoint: EndpointId::new(endpoint),
        ..ContainerSpec::empty(name)
    }
}

fn spec() -> TaskSpec {
    TaskSpec {
        family: "tmds".into(),
        version: "1".into(),
        cpu: Some(256),
        memory_mib: Some(256),
        containers: vec![
            container("side", "other-endpoint", "020de0fc-d99d-401e-826c-c4b28c7fa2ce"),
            container("main", MAIN, "68084b9c-f00b-41f6-93b4-2bcb59ce06bc"),
        ],
        volumes: vec![],
        launch_type: "EC2".into(),
        ..TaskSpec::empty(TaskArn::parse(TASK).unwrap())
    }
}

/// Nanoseconds after 2026-11-23T20:58:34Z.
fn at(nanos: u64) -> Option<Wall> {
    Some(Wall(1_795_467_514_000_000_000 + nanos))
}

fn running(created: u64, started: u64, last: u8) -> ContainerProgress {
    ContainerProgress {
        known: ContainerStatus::Running,
        image_id: ImageDigest::parse(
            "sha256:2c362b23181d692a6981541f8774bab606e31199284d78762b27cb7d42b1b834",
        ),
        created_at: at(created),
        started_at: at(started),
        address: ContainerAddress { ipv4: Some([172, 17, 0, last].into()), bindings: vec![] },
        ..ContainerProgress::default()
    }
}

fn snapshot() -> Snapshot {
    let mut main = running(396_457_156, 1_472_350_317, 3);
    main.address.bindings.push(NetworkBinding {
        bind_ip: [0, 0, 0, 0].into(),
        container_port: 80,
        host_port: 32774,
        count: 1,
        is_range: false,
        protocol: Protocol::Tcp,
    });
    let progress = TaskProgress {
        known: TaskStatus::Running,
        pull_started_at: at(295_408_930),
        pull_stopped_at: at(371_521_170),
        containers: [("main".into(), main), ("side".into(), running(374_074_140, 1_575_750_219, 4))].into(),
        ..TaskProgress::default()
    };
    Snapshot {
        cluster: "peer".into(),
        container_instance_arn: Some(
            "arn:aws:ecs:us-west-2:123456789012:container-instance/peer/832a97cd549343aa8d080a50db6dde63"
                .into(),
        ),
        availability_zone: Some("us-west-2a".into()),
        availability_zone_id: Some("usw2-az1".into()),
        vpc_id: Some("vpc-0fake".into()),
        tasks: vec![Arc::new(TaskView {
            spec: Arc::new(spec()),
            progress,
            waiting_for: None,
            health: BTreeMap::new(),
        })],
    }
}

struct Roles;

impl CredentialsLookup for Roles {
    fn get(&self, id: &str) -> CredentialsAnswer {
        match id {
            "cred-0001" => CredentialsAnswer::Found(RoleCredentials {
                id: CredentialsId(id.into()),
                role_arn: "arn:aws:iam::123456789012:role/peer-task".into(),
                access_key_id: "AKIDTASK1".into(),
                secret_access_key: "secret1".into(),
                session_token: "token1".into(),
                expiration: "2036-01-01T00:00:00Z".into(),
            }),
            "restored" => CredentialsAnswer::KnownButAbsent,
            _ => CredentialsAnswer::Unknown,
        }
    }
}

/// What an auditor was told: status, path, user agent and the credentials that were given.
#[derive(Default)]
struct Audit(std::sync::Mutex<Vec<String>>);

impl AccessLog for Audit {
    fn note(&self, access: &Access<'_>) {
        assert!(access.peer.ip().is_loopback() && access.peer.port() > 0);
        let Access { status, path, user_agent, credentials_id, .. } = access;
        let text = format!("{status} {path} {user_agent} {}", credentials_id.unwrap_or("-"));
        self.0.lock().unwrap().push(text);
    }
}

struct Fixture {
    audit: Arc<Audit>,
    metadata: SocketAddr,
    introspection: SocketAddr,
    publish: watch::Sender<Arc<Snapshot>>,
    handles: Vec<ServerHandle>,
}

async fn start_limited(limit: RateLimit) -> Fixture {
    let (publish, newest) = watch::channel(Arc::new(snapshot()));
    let any: SocketAddr = ([127, 0, 0, 1], 0).into();
    let audit = Arc::new(Audit::default());
    let metadata = MetadataHandler::new(newest.clone(), Arc::new(Roles), limit).with_audit(audit.clone());
    let version = "Amazon ECS Agent - v1.105.1 (*a8b3e7d3)".to_owned();
    let mut metadata = Server::start("metadata", any, Arc::new(metadata));
    let mut introspection =
        Server::start("introspection", any, Arc::new(IntrospectionHandler::new(newest, version)));
    Fixture {
        audit,
        metadata: metadata.bound().await.unwrap(),
        introspection: introspection.bound().await.unwrap(),
        publish,
        handles: vec![metadata, introspection],
    }
}

async fn start() -> Fixture {
    start_limited(RateLimit::default()).await
}

/// A raw answer, taken apart.
#[derive(Debug)]
struct Answer {
    status: String,
    headers: BTreeMap<String, String>,
    body: String,
}

impl Answer {
    fn parse(raw: &str) -> Self {
        let raw = raw.replace("\r\n", "\n");
        let (head, body) = raw.split_once("\n\n").unwrap_or_else(|| panic!("no answer: {raw:?}"));
        let mut lines = head.lines();
        let status = lines.next().unwrap().to_owned();
        let headers: BTreeMap<String, String> = lines
            .map(|l| l.split_once(':').unwrap())
            .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
            .collect();
        let chunked = headers.contains_key("Transfer-Encoding");
        let body = if chunked { body.split('\n').nth(1).unwrap() } else { body };
        Self { status, headers, body: body.to_owned() }
    }

    /// What may differ, taken out.
    fn comparable_headers(&self) -> BTreeMap<String, String> {
        let mut headers = self.headers.clone();
        for name in ["Date", "Content-Length", "Transfer-Encoding", "X-Rate-Limit-Request-Remote-Addr"] {
            headers.remove(name);
        }
        headers
    }
}

async fn raw(server: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(server).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8(answer).unwrap()
}

async fn get(server: SocketAddr, path: &str) -> Answer {
    Answer::parse(&raw(server, &format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")).await)
}

/// The recorded body with our ids in it.
fn ours(recorded: &str) -> String {
    let spec = spec();
    RECORDED.iter().fold(recorded.to_owned(), |text, (name, id, docker_name)| {
        text.replace(id, spec.container_id(name).as_str()).replace(docker_name, &spec.docker_name(name))
    })
}

fn recorded(file: &str) -> String {
    let path = format!("{}/tests/fixtures/tmds/{file}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(path).unwrap()
}

#[tokio::test]
async fn metadata_is_what_the_original_answers() {
    let f = start().await;
    for (path, file) in [
        (format!("/v4/{MAIN}"), "v4_root"),
        (format!("/v4/{MAIN}/task"), "v4_task"),
        (format!("/v3/{MAIN}"), "v3_root"),
        (format!("/v3/{MAIN}/task"), "v3_task"),
        (format!("/v3/{MAIN}/associations/gpu"), "v3_associations_gpu"),
        (format!("/v4/{MAIN}/"), "v4_"),
        ("/".into(), "other_"),
        ("/v3/nosuchid".into(), "other_v3_nosuchid"),
        ("/v4/nosuchid/task".into(), "other_v4_nosuchid_task"),
        ("/v2/metadata".into(), "other_v2_metadata"),
        ("/v2/credentials/cred-0001".into(), "creds_v2"),
        ("/v1/credentials?id=cred-0001".into(), "creds_v1"),
        ("/v2/credentials/nope".into(), "creds_unknown"),
        ("/v2/credentials".into(), "creds_noid"),
    ] {
        let want = Answer::parse(&recorded(&format!("{file}.http")));
        let got = get(f.metadata, &path).await;
        assert_eq!(got.status, want.status, "{path}");
        assert_eq!(got.body, ours(&want.body).replace("172.17.0.3' with", "127.0.0.1' with"), "{path}");
        assert_eq!(got.comparable_headers(), want.comparable_headers(), "{path}");
        assert_eq!(got.headers["Content-Length"], got.body.len().to_string(), "{path}");
    }
}

/// By the original's source: nothing of it was recorded.
#[tokio::test]
async fn health_is_shown_of_containers_that_are_checked() {
    let f = start().await;
    let with = |health: Health| {
        let mut snapshot = snapshot();
        let mut task = TaskView::clone(&snapshot.tasks[0]);
        task.health = BTreeMap::from([("main".to_owned(), health)]);
        snapshot.tasks = vec![Arc::new(task)];
        f.publish.send_replace(Arc::new(snapshot));
    };
    let unhealthy = Health {
        status: HealthStatus::Unhealthy,
        since: at(500_000_000),
        output: "<down>".into(),
        exit_code: Some(7),
    };
    let healthy =
        Health { status: HealthStatus::Healthy, exit_code: None, output: String::new(), ..unhealthy.clone() };
    for (health, shown) in [
        (Health::default(), r#""Health":{},"#),
        (healthy, r#""Health":{"status":"HEALTHY","statusSince":"2026-11-23T20:58:34.5Z"},"#),
        (
            unhealthy,
            r#""Health":{"status":"UNHEALTHY","statusSince":"2026-11-23T20:58:34.5Z","exitCode":7,"output":"\u003cdown\u003e"},"#,
        ),
    ] {
        with(health);
        let id = spec().container_id("main");
        let v3 = format!(r#""IPv4Addresses":["172.17.0.3"]}}],{}"#, &shown[..shown.len() - 1]);
        let v4 = format!(r#""Type":"NORMAL",{shown}"#);
        let v2 = format!(r#""Type":"NORMAL",{}"#, &shown[..shown.len() - 1]);
        for (path, want) in [
            (format!("/v3/{MAIN}"), v3),
            (format!("/v4/{MAIN}/task"), v4),
            (format!("/v2/metadata/{id}"), v2),
        ] {
            let body = get(f.metadata, &path).await.body;
            assert!(
                body.contains(&want) && body.matches("\"Health\"").count() == 1,
                "{want} in {path}: {body}"
            );
        }
    }
}

#[tokio::test]
async fn introspection_is_what_the_original_answers() {
    let f = start().await;
    let id = spec().container_id("main").as_str().to_owned();
    for (path, file) in [
        ("/".to_owned(), "introspection_.json"),
        ("/v1/metadata".into(), "introspection_v1_metadata.json"),
        (format!("/v1/tasks?dockerid={}", &id[..12]), "introspection_task.json"),
        (format!("/v1/tasks?dockerid={id}"), "introspection_task.json"),
        (format!("/v1/tasks?taskarn={TASK}"), "introspection_task.json"),
        ("/v1/tasks?taskarn=nope".into(), "introspection_unknown_task.json"),
    ] {
        let want: serde_json::Value = serde_json::from_str(&recorded(file)).unwrap();
        let got = get(f.introspection, &path).await;
        assert!(got.status.contains(&want["status"].to_string()), "{path}: {}", got.status);
        assert_eq!(got.body, ours(want["body"].as_str().unwrap()), "{path}");
        assert_eq!(got.headers["Content-Type"], want["headers"]["Content-Type"].as_str().unwrap(), "{path}");
    }
    let both = get(f.introspection, "/v1/tasks?taskarn=&dockerid=").await;
    assert_eq!((both.status.as_str(), both.body.len()), ("HTTP/1.1 400 Bad Request", 70));
    assert!(get(f.introspection, "/v1/tasks").await.body.starts_with("{\"Tasks\":[{\"Arn\":\"arn:"));
    assert!(get(f.introspection, "/license").await.body.contains("Apache License"));
    let head =
        raw(f.introspection, "HEAD /v1/metadata HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
    assert!(head.starts_with("HTTP/1.1 200 OK") && head.ends_with("\r\n\r\n"), "{head}");
}

#[tokio::test]
async fn what_is_not_there_is_said_in_the_originals_words() {
    let f = start().await;
    for (path, status, body) in [
        ("/v2/credentials/", "400", r#"{"code":"NoIdInRequest","message":"CredentialsV2Request: No Credential ID in the request","HTTPErrorCode":400}"#.to_owned()),
        ("/v1/credentials", "400", r#"{"code":"NoIdInRequest","message":"CredentialsV1Request: No Credential ID in the request","HTTPErrorCode":400}"#.to_owned()),
        ("/v2/credentials/restored", "503", r#"{"code":"CredentialsUninitialized","message":"CredentialsV2Request: Credentials uninitialized for ID","HTTPErrorCode":503}"#.to_owned()),
        ("/v4/%3Cb%3E/task", "404", r#""V4 task metadata handler: unable to get task arn from request: unable to get task Arn from v3 endpoint ID: \u003cb\u003e""#.to_owned()),
        ("/v3/x/stats", "400", r#""V3 container stats handler: unable to get task arn from request: unable to get task Arn from v3 endpoint ID: x""#.to_owned()),
        ("/v2/metadata/x", "400", r#""Unable to generate metadata for container 'x'""#.to_owned()),
    ] {
        let got = get(f.metadata, path).await;
        assert!(got.status.contains(status), "{path}: {}", got.status);
        assert_eq!(got.body, body, "{path}");
    }
    let moved = get(f.metadata, &format!("//v4//{MAIN}?a=b")).await;
    assert_eq!(moved.status, "HTTP/1.1 301 Moved Permanently");
    assert_eq!(moved.headers["Location"], format!("/v4/{MAIN}?a=b"));
}

/// Measures, but has no sample yet.
struct NoSample;

impl StatsLookup for NoSample {
    fn latest(&self, _: &ContainerKey) -> Option<Latest> {
        None
    }
}

#[tokio::test]
async fn before_the_first_sample_statistics_are_empty_and_where_nothing_is_measured_an_error() {
    let f = start().await;
    let id = spec().container_id("main").as_str().to_owned();
    let newest = f.publish.subscribe();
    let measures = MetadataHandler::new(newest, Arc::new(Roles), RateLimit::default());
    let measures = measures.with_stats(Arc::new(NoSample));
    let mut measures = Server::start("measures", ([127, 0, 0, 1], 0).into(), Arc::new(measures));
    let measures_at = measures.bound().await.unwrap();
    for (version, none, status) in
        [("v3", "null", "400 Bad Request"), ("v4", "{}", "500 Internal Server Error")]
    {
        let empty = get(measures_at, &format!("/{version}/{MAIN}/stats")).await;
        assert_eq!((empty.status.as_str(), empty.body.as_str()), ("HTTP/1.1 200 OK", none));
        let error = get(f.metadata, &format!("/{version}/{MAIN}/stats")).await;
        assert_eq!(error.status, format!("HTTP/1.1 {status}"));
        assert_eq!(error.body, format!("\"Unable to get container stats for: {id}\""));
        for server in [measures_at, f.metadata] {
            let all = get(server, &format!("/{version}/{MAIN}/task/stats")).await;
            assert_eq!(all.status, "HTTP/1.1 200 OK");
            assert!(all.body.contains(&format!("\"{id}\":{none}")), "{}", all.body);
        }
    }
    measures.shutdown().await;
}

#[tokio::test]
async fn an_auditor_hears_of_credentials_and_of_refusals_but_never_of_an_id() {
    let f = start_limited(RateLimit { per_second: 1, burst: 1 }).await;
    let ask = async |path: &str| {
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: x\r\nUser-Agent: sdk/1\r\nConnection: close\r\n\r\n");
        raw(f.metadata, &request).await
    };
    for path in [
        "/v2/credentials/cred-0001",
        "/v1/credentials?id=cred-0001",
        "/v2/credentials/nope",
        "/v2/credentials/restored",
        "/v2/credentials/",
        "/v4/nosuchid",
        "//v2/credentials/nope",
        "/v2/credentials",
    ] {
        ask(path).await;
    }
    // The limit counts by path and client.
    while !ask("/v2/%63redentials/nope").await.starts_with("HTTP/1.1 429") {}
    while !ask("/v4/nosuchid").await.starts_with("HTTP/1.1 429") {}
    let heard = f.audit.0.lock().unwrap().clone();
    let expected = [
        "200 /v2/credentials sdk/1 cred-0001",
        "200 /v1/credentials sdk/1 cred-0001",
        "400 /v2/credentials sdk/1 -",
        "503 /v2/credentials sdk/1 -",
        "400 /v2/credentials sdk/1 -",
    ];
    assert_eq!(heard[..5], expected, "{heard:?}");
    // How soon a limit is met depends on the clock; all else that was heard are credentials.
    assert!(
        heard[5..].iter().all(|told| told.starts_with("400 /v2/credentials ") || told.starts_with("429 ")),
        "{heard:?}"
    );
    assert!(heard.contains(&"429 /v2/credentials sdk/1 -".to_owned()), "{heard:?}");
    assert_eq!(heard.last().unwrap(), "429 /v4/nosuchid sdk/1 -");
}

#[tokio::test]
async fn answers_follow_the_newest_snapshot() {
    let f = start().await;
    let mut next = snapshot();
    let mut task = (*next.tasks[0]).clone();
    let main = task.progress.containers.get_mut("main").unwrap();
    main.known = ContainerStatus::Stopped;
    main.exit = Some(ExitRecord { code: Some(0), at: at(9_000_000_000).unwrap() });
    let side = task.progress.containers.get_mut("side").unwrap();
    *side = ContainerProgress { known: ContainerStatus::Pulled, ..ContainerProgress::default() };
    next.tasks[0] = Arc::new(task);
    f.publish.send_replace(Arc::new(next));
    let v4 = get(f.metadata, &format!("/v4/{MAIN}/task")).await.body;
    assert!(v4.contains(r#""KnownStatus":"STOPPED","ExitCode":0,"#), "{v4}");
    assert!(v4.contains(r#""FinishedAt":"2026-11-23T20:58:43Z""#), "{v4}");
    assert!(v4.contains(r#"{"DockerId":"","Name":"side""#), "v4 shows what is only pulled: {v4}");
    let v3 = get(f.metadata, &format!("/v3/{MAIN}/task")).await.body;
    assert!(!v3.contains("side"), "v3 does not: {v3}");
}

#[tokio::test]
async fn beyond_the_limit_the_answer_is_429() {
    let f = start_limited(RateLimit { per_second: 1, burst: 3 }).await;
    let path = "/v2/credentials/cred-0001";
    for _ in 0..3 {
        assert_eq!(get(f.metadata, path).await.status, "HTTP/1.1 200 OK");
    }
    let refused = get(f.metadata, "/v2/credentials/cred%2D0001").await;
    assert_eq!(refused.status, "HTTP/1.1 429 Too Many Requests");
    assert_eq!(refused.body, "You have reached maximum request limit.");
    assert_eq!(refused.headers["Content-Type"], "text/plain; charset=utf-8");
    assert_eq!(refused.headers["X-Rate-Limit-Limit"], "1.00");
    assert_eq!(get(f.metadata, "/v2/credentials/restored").await.status, "HTTP/1.1 503 Service Unavailable");
}

#[tokio::test]
async fn clients_that_mean_ill_harm_only_themselves() {
    let f = start().await;
    let long = "a".repeat(100_000);
    let many: String = (0..200).map(|n| format!("H{n}: x\r\n")).collect();
    for request in [
        "\0\u{1}\u{2}\r\n\r\n".to_owned(),
        "GET\r\n\r\n".into(),
        format!("GET /{long} HTTP/1.1\r\nHost: x\r\n\r\n"),
        format!("GET / HTTP/1.1\r\nHost: x\r\nX: {long}\r\n\r\n"),
        format!("GET / HTTP/1.1\r\n{many}\r\n"),
        "GET /v4/%ff%fe%00%0d%0a HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".into(),
        "GET /v1/credentials?id=%zz&&&== HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".into(),
        "POST /v4/x HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 99999999999999999999\r\n\r\n"
            .into(),
        "CONNECT x:1 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".into(),
        "OPTIONS * HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".into(),
        "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX-Forwarded-For: \u{e9}\r\n\r\n".into(),
    ] {
        for server in [f.metadata, f.introspection] {
            let answer = tokio::time::timeout(Duration::from_secs(20), raw(server, &request)).await;
            let answer = answer.unwrap_or_else(|_| panic!("no end to {request:.60?}"));
            assert!(answer.is_empty() || answer.starts_with("HTTP/1."), "{answer}");
        }
    }
    // Some say nothing at all, more of them than one address may have connections.
    let mut silent = Vec::new();
    for _ in 0..200 {
        silent.push(TcpStream::connect(f.metadata).await.unwrap());
    }
    drop(silent.split_off(100));
    let ask = async {
        // Refused while the dropped ones are still being noticed, then served.
        loop {
            let answer = raw(f.metadata, "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
            if answer.contains("404 page not found") {
                break;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(20), ask).await.unwrap();
    // And the silent ones are put out by the server.
    let mut end = [0; 1];
    let read = tokio::time::timeout(Duration::from_secs(20), silent[0].read(&mut end)).await.unwrap();
    assert!(matches!(read, Ok(0) | Err(_)));
}

#[tokio::test]
async fn a_held_port_is_waited_for_and_given_back() {
    let held = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = held.local_addr().unwrap();
    let (_publish, newest) = watch::channel(Arc::new(snapshot()));
    let handler = Arc::new(IntrospectionHandler::new(newest, String::new()));
    let mut handle = Server::start("introspection", address, handler);
    assert!(tokio::time::timeout(Duration::from_millis(100), handle.bound()).await.is_err());
    drop(held);
    assert_eq!(handle.bound().await, Some(address));
    // A connection that is idle does not hold up the shutdown for longer than its second.
    let _idle = TcpStream::connect(address).await.unwrap();
    handle.shutdown().await;
    assert!(std::net::TcpListener::bind(address).is_ok());
}

#[tokio::test]
async fn shutdown_ends_both_servers() {
    let mut f = start().await;
    for handle in f.handles.drain(..) {
        handle.shutdown().await;
    }
    assert!(TcpStream::connect(f.metadata).await.is_err());
}
