//! A scripted control plane in this process, over real sockets, plain or TLS: the ECS API, ACS and TCS
//! on one port, EC2's DescribeTags, and an instance metadata service. It verifies every signature. What it is asked and has no answer
//! for is a failure of the test.

use super::sigv4;
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};

pub const INSTANCE: &str =
    "arn:aws:ecs:us-west-2:123456789012:container-instance/peer/832a97cd549343aa8d080a50db6dde63";
pub const CLUSTER_ARN: &str = "arn:aws:ecs:us-west-2:123456789012:cluster/peer";

/// How long a test waits for what must come.
const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Debug, Clone)]
pub struct ApiCall {
    pub operation: String,
    pub headers: BTreeMap<String, String>,
    pub body: Value,
    /// HTTP status of the answer.
    pub status: u16,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Channel {
    Acs,
    Tcs,
}

type Refusals = VecDeque<(u16, String)>;

#[derive(Default)]
struct Script {
    answers: HashMap<String, VecDeque<(u16, Value)>>,
    refusals: HashMap<Channel, Refusals>,
    imds: HashMap<String, String>,
    /// Paths that are refused, and how often still.
    imds_refusals: HashMap<String, usize>,
    /// Questions by path.
    imds_asked: HashMap<String, usize>,
    gates: Vec<Gated>,
    failures: Vec<String>,
    imds_requests: usize,
    /// How far the service's clock is ahead of this machine's, in seconds; with it, signatures that are
    /// more than five minutes off are refused, by this code.
    clock: Option<(i64, String)>,
    ec2: VecDeque<(u16, String)>,
}

/// An operation whose answers wait, perhaps only for one task.
struct Gated {
    operation: String,
    task: Option<String>,
    opened: watch::Receiver<()>,
}

/// Answers wait for as long as this is held.
pub struct Gate {
    _sender: watch::Sender<()>,
}

struct Shared {
    base: String,
    script: Mutex<Script>,
    calls: mpsc::UnboundedSender<ApiCall>,
    acs: mpsc::UnboundedSender<Connection>,
    tcs: mpsc::UnboundedSender<Connection>,
}

/// Plain or TLS.
trait Duplex: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin {}
impl<T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin> Duplex for T {}

pub struct Backend {
    shared: Arc<Shared>,
    address: std::net::SocketAddr,
    calls: mpsc::UnboundedReceiver<ApiCall>,
    acs: mpsc::UnboundedReceiver<Connection>,
    tcs: mpsc::UnboundedReceiver<Connection>,
    server: tokio::task::JoinHandle<()>,
}

impl Backend {
    pub async fn start() -> Self {
        Self::start_as(None, None).await
    }

    /// With TLS, and known by `https://localhost:<port>`.
    pub async fn start_tls(tls: Arc<rustls::ServerConfig>) -> Self {
        Self::start_as(Some(tls), None).await
    }

    /// `base` is the address by which the service calls itself.
    pub async fn start_as(tls: Option<Arc<rustls::ServerConfig>>, base: Option<&str>) -> Self {
        Self::start_at("127.0.0.1:0", tls, |address| match (base, address) {
            (Some(base), _) => base.to_owned(),
            (None, (true, address)) => format!("https://localhost:{}", address.port()),
            (None, (false, address)) => format!("http://{address}"),
        })
        .await
    }

    /// Listening there, and called as it is told by whether it has TLS and where it listens.
    pub async fn start_at(
        bind: &str,
        tls: Option<Arc<rustls::ServerConfig>>,
        base: impl FnOnce((bool, std::net::SocketAddr)) -> String,
    ) -> Self {
        let listener = TcpListener::bind(bind).await.unwrap();
        let address = listener.local_addr().unwrap();
        let base = base((tls.is_some(), address));
        let acceptor = tls.map(tokio_rustls::TlsAcceptor::from);
        let (calls_in, calls) = mpsc::unbounded_channel();
        let (acs_in, acs) = mpsc::unbounded_channel();
        let (tcs_in, tcs) = mpsc::unbounded_channel();
        let script = Mutex::default();
        let shared = Arc::new(Shared { base, script, calls: calls_in, acs: acs_in, tcs: tcs_in });
        let for_server = Arc::clone(&shared);
        let server = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let shared = Arc::clone(&for_server);
                let service = hyper::service::service_fn(move |request| serve(Arc::clone(&shared), request));
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    let stream: Box<dyn Duplex> = match acceptor {
                        None => Box::new(stream),
                        Some(acceptor) => match acceptor.accept(stream).await {
                            Ok(stream) => Box::new(stream),
                            // The agent did not like the certificate.
                            Err(_) => return,
                        },
                    };
                    let http = hyper::server::conn::http1::Builder::new();
                    let _ = http.serve_connection(TokioIo::new(stream), service).with_upgrades().await;
                });
            }
        });
        Self { shared, address, calls, acs, tcs, server }
    }

    /// Where it listens, whatever it calls itself.
    pub fn address(&self) -> std::net::SocketAddr {
        self.address
    }

    /// Its clock goes ahead by so many seconds, and it refuses signatures that are off by this code.
    pub fn clock_ahead(&self, seconds: i64, code: &str) {
        self.shared.script.lock().unwrap().clock = Some((seconds, code.to_owned()));
    }

    /// EC2's next answers.
    pub fn ec2(&self, answers: impl IntoIterator<Item = (u16, String)>) {
        self.shared.script.lock().unwrap().ec2.extend(answers);
    }

    /// The instance metadata service refuses a path so many times (403, which nobody tries again).
    pub fn metadata_refuses(&self, path: &str, times: usize) {
        self.shared.script.lock().unwrap().imds_refusals.insert(path.into(), times);
    }

    /// Waits until a path of it was asked for so many times more.
    pub async fn metadata_asked(&self, path: &str, more: usize) {
        let asked = || self.shared.script.lock().unwrap().imds_asked.get(path).copied().unwrap_or(0);
        let (before, begun) = (asked(), std::time::Instant::now());
        while asked() < before + more {
            assert!(begun.elapsed() < PATIENCE, "{path} is not asked for");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    pub fn endpoint(&self) -> &str {
        &self.shared.base
    }

    /// The next answers of an operation; after them come the friendly ones.
    pub fn answer(&self, operation: &str, answers: impl IntoIterator<Item = (u16, Value)>) {
        self.shared.script.lock().unwrap().answers.entry(operation.into()).or_default().extend(answers);
    }

    /// Whether an operation has scripted answers that were not given yet.
    pub fn has_answers(&self, operation: &str) -> bool {
        self.shared.script.lock().unwrap().answers.get(operation).is_some_and(|left| !left.is_empty())
    }

    /// Calls of an operation, or only those for one task, are noted but not answered until the gate is
    /// dropped.
    pub fn hold(&self, operation: &str, task: Option<&str>) -> Gate {
        let (sender, opened) = watch::channel(());
        let gated = Gated { operation: operation.into(), task: task.map(str::to_owned), opened };
        self.shared.script.lock().unwrap().gates.push(gated);
        Gate { _sender: sender }
    }

    /// The next upgrades are refused.
    pub fn refuse(&self, channel: Channel, status: u16, body: &str) {
        let mut script = self.shared.script.lock().unwrap();
        script.refusals.entry(channel).or_default().push_back((status, body.to_owned()));
    }

    /// What the instance metadata service holds below `/latest`.
    pub fn metadata(&self, path: &str, text: &str) {
        self.shared.script.lock().unwrap().imds.insert(path.into(), text.into());
    }

    pub fn metadata_requests(&self) -> usize {
        self.shared.script.lock().unwrap().imds_requests
    }

    /// The next call of the API.
    pub async fn call(&mut self) -> ApiCall {
        tokio::time::timeout(PATIENCE, self.calls.recv()).await.expect("no API call came").unwrap()
    }

    /// The next call of one operation; others before it are passed over.
    pub async fn call_of(&mut self, operation: &str) -> ApiCall {
        loop {
            let call = self.call().await;
            if call.operation == operation {
                return call;
            }
        }
    }

    /// Calls that came and were not looked at.
    pub fn waiting_calls(&mut self) -> Vec<ApiCall> {
        std::iter::from_fn(|| self.calls.try_recv().ok()).collect()
    }

    /// The next call of one operation that is here already; others before it are passed over.
    pub fn waiting_call_of(&mut self, operation: &str) -> Option<ApiCall> {
        std::iter::from_fn(|| self.calls.try_recv().ok()).find(|call| call.operation == operation)
    }

    /// The next websocket.
    pub async fn accept(&mut self, channel: Channel) -> Connection {
        let from = if channel == Channel::Acs { &mut self.acs } else { &mut self.tcs };
        tokio::time::timeout(PATIENCE, from.recv()).await.expect("no websocket came").unwrap()
    }

    /// Whether a websocket waits to be accepted.
    pub fn knocks(&mut self, channel: Channel) -> bool {
        let from = if channel == Channel::Acs { &mut self.acs } else { &mut self.tcs };
        !from.is_empty()
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.server.abort();
        let failures = std::mem::take(&mut self.shared.script.lock().unwrap().failures);
        if !std::thread::panicking() {
            assert!(failures.is_empty(), "the back end saw: {failures:#?}");
        }
    }
}

/// One websocket of the agent.
pub struct Connection {
    pub path: String,
    pub query: BTreeMap<String, String>,
    pub headers: BTreeMap<String, String>,
    raw_query: String,
    socket: WebSocketStream<TokioIo<hyper::upgrade::Upgraded>>,
}

impl Connection {
    /// Sends a message in its envelope.
    pub async fn send(&mut self, kind: &str, message: Value) {
        self.send_text(&json!({"type": kind, "message": message}).to_string()).await;
    }

    pub async fn send_text(&mut self, text: &str) {
        self.socket.send(Message::text(text)).await.unwrap();
    }

    /// Sends a frame that may be more than the agent takes.
    pub async fn try_send(&mut self, message: Message) -> bool {
        self.socket.send(message).await.is_ok()
    }

    /// The next text frame.
    pub async fn receive_text(&mut self) -> String {
        let next = async {
            loop {
                match self.socket.next().await {
                    Some(Ok(Message::Text(text))) => return text.to_string(),
                    Some(Ok(_)) => {}
                    other => panic!("the agent's websocket ended: {other:?}"),
                }
            }
        };
        tokio::time::timeout(PATIENCE, next).await.expect("no frame came")
    }

    /// The next text frame, however long it takes; `None` where the agent's side ended. Cancel-safe.
    pub async fn next_text(&mut self) -> Option<String> {
        loop {
            match self.socket.next().await {
                Some(Ok(Message::Text(text))) => return Some(text.to_string()),
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return None,
            }
        }
    }

    /// The next message: type and body.
    pub async fn receive(&mut self) -> (String, Value) {
        let text = self.receive_text().await;
        let mut frame: Value = serde_json::from_str(&text).unwrap();
        (frame["type"].as_str().unwrap().to_owned(), frame["message"].take())
    }

    /// The next frame of telemetry, its signature verified: type, body and the signed headers.
    pub async fn receive_signed(&mut self) -> (String, Value, String) {
        let text = self.receive_text().await;
        self.verified(&text)
    }

    /// A frame of telemetry, its signature verified.
    pub fn verified(&self, text: &str) -> (String, Value, String) {
        let (head, json) = text.split_once("\r\n\r\n").expect("a header block");
        let headers: BTreeMap<String, String> = head
            .split("\r\n")
            .map(|line| line.split_once(": ").expect("name: value"))
            .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
            .collect();
        let signed = sigv4::verify("GET", &self.path, &self.raw_query, &headers, json.as_bytes()).unwrap();
        let mut frame: Value = serde_json::from_str(json).unwrap();
        (frame["type"].as_str().unwrap().to_owned(), frame["message"].take(), signed)
    }

    /// Proves that nothing but the answer to a heartbeat comes, then that answer.
    pub async fn is_quiet(&mut self) {
        let id = format!("quiet-{}", uuid::Uuid::new_v4());
        self.send("HeartbeatMessage", json!({"healthy": true, "messageId": id})).await;
        let (kind, body) = self.receive().await;
        assert_eq!((kind.as_str(), &body), ("HeartbeatAckRequest", &json!({"messageId": id})));
    }

    /// Sends a ping and waits for its answer; what comes before that is passed over.
    pub async fn answers_pings(&mut self) {
        self.socket.send(Message::Ping(b"well?".to_vec().into())).await.unwrap();
        let answer = async {
            loop {
                match self.socket.next().await {
                    Some(Ok(Message::Pong(data))) => return assert_eq!(data.as_ref(), b"well?"),
                    Some(Ok(_)) => {}
                    other => panic!("no pong, but {other:?}"),
                }
            }
        };
        tokio::time::timeout(PATIENCE, answer).await.expect("no pong came");
    }

    /// Closes by the book: sends a close frame and waits for the answer.
    pub async fn close(mut self, code: u16, reason: &str) {
        let frame = CloseFrame { code: CloseCode::from(code), reason: reason.into() };
        self.socket.send(Message::Close(Some(frame))).await.unwrap();
        let answered = async { while let Some(Ok(_)) = self.socket.next().await {} };
        tokio::time::timeout(PATIENCE, answered).await.expect("no answer to a close frame");
    }

    /// Waits for a close frame of the agent: code and reason.
    pub async fn closed(&mut self) -> (u16, String) {
        let next = async {
            loop {
                match self.socket.next().await {
                    Some(Ok(Message::Close(Some(frame)))) => {
                        return (frame.code.into(), frame.reason.to_string());
                    }
                    Some(Ok(_)) => {}
                    other => panic!("no close frame, but {other:?}"),
                }
            }
        };
        tokio::time::timeout(PATIENCE, next).await.expect("no close frame came")
    }

    /// Waits for the end of the stream without a close frame of its own.
    pub async fn gone(mut self) {
        let end = async { while let Some(Ok(_)) = self.socket.next().await {} };
        tokio::time::timeout(PATIENCE, end).await.expect("the agent holds on");
    }
}

fn headers_of<B>(request: &Request<B>) -> BTreeMap<String, String> {
    let text = |v: &http::HeaderValue| String::from_utf8_lossy(v.as_bytes()).into_owned();
    request.headers().iter().map(|(k, v)| (k.as_str().to_owned(), text(v))).collect()
}

fn answer(status: u16, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    Response::builder().status(status).body(Full::new(body.into())).unwrap()
}

async fn serve(
    shared: Arc<Shared>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, std::convert::Infallible> {
    let path = request.uri().path().to_owned();
    Ok(match path.as_str() {
        "/acs/ws" => upgrade(&shared, Channel::Acs, request),
        "/tcs/ws" => upgrade(&shared, Channel::Tcs, request),
        _ if path.starts_with("/latest/") => metadata(&shared, &path, &request),
        _ if request.uri().query().is_some_and(|query| query.contains("Action=DescribeTags")) => {
            describe_tags(&shared, &request)
        }
        _ => api(&shared, request).await,
    })
}

fn describe_tags(shared: &Shared, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    let query = request.uri().query().unwrap_or_default().to_owned();
    let verdict = sigv4::verify_for("ec2", "GET", request.uri().path(), &query, &headers_of(request), b"");
    let mut script = shared.script.lock().unwrap();
    if let Err(error) = verdict {
        script.failures.push(format!("DescribeTags: {error}"));
    }
    let (status, answered) = script.ec2.pop_front().unwrap_or_else(|| {
        script.failures.push("no answer is scripted for DescribeTags".into());
        (400, String::new())
    });
    let (headers, body) = (headers_of(request), json!(sigv4::query(&query)));
    shared.calls.send(ApiCall { operation: "DescribeTags".into(), headers, body, status }).ok();
    answer(status, answered)
}

/// By how much a signature is off, where the service minds: its answer.
fn too_skewed(script: &Script, headers: &BTreeMap<String, String>) -> Option<Response<Full<Bytes>>> {
    let (ahead, code) = script.clock.as_ref()?;
    let signed = seconds_of(headers.get("x-amz-date")?);
    (signed - now() - ahead).abs().gt(&300).then(|| {
        answer(403, json!({"__type": code, "message": "Signature expired: the clock is off"}).to_string())
    })
}

fn now() -> i64 {
    i64::try_from(std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs()).unwrap()
}

/// Seconds of `20261123T205629Z`.
fn seconds_of(date: &str) -> i64 {
    let dashed = format!(
        "{}-{}-{}T{}:{}:{}Z",
        &date[..4],
        &date[4..6],
        &date[6..8],
        &date[9..11],
        &date[11..13],
        &date[13..15]
    );
    i64::try_from(
        humantime::parse_rfc3339(&dashed).unwrap().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs(),
    )
    .unwrap()
}

/// The service's own time.
fn dated(script: &Script, mut response: Response<Full<Bytes>>) -> Response<Full<Bytes>> {
    if let Some((ahead, _)) = &script.clock {
        let seconds = u64::try_from(now() + ahead).unwrap();
        let date = aws_smithy_types::DateTime::from_secs(i64::try_from(seconds).unwrap());
        let date = date.fmt(aws_smithy_types::date_time::Format::HttpDate).unwrap();
        response.headers_mut().insert("date", date.parse().unwrap());
    }
    response
}

fn metadata(shared: &Shared, path: &str, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    let mut script = shared.script.lock().unwrap();
    script.imds_requests += 1;
    if request.method() == "PUT" && path == "/latest/api/token" {
        let mut token = answer(200, "token");
        token.headers_mut().insert("x-aws-ec2-metadata-token-ttl-seconds", 21600.into());
        return token;
    }
    if request.headers().get("x-aws-ec2-metadata-token").is_none_or(|t| t != "token") {
        return answer(401, "");
    }
    *script.imds_asked.entry(path.to_owned()).or_default() += 1;
    if let Some(refusals) = script.imds_refusals.get_mut(path).filter(|refusals| **refusals > 0) {
        *refusals -= 1;
        return answer(403, "");
    }
    match script.imds.get(path) {
        Some(text) => answer(200, text.clone()),
        None => answer(404, ""),
    }
}

async fn api(shared: &Shared, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let headers = headers_of(&request);
    let (method, path) = (request.method().to_string(), request.uri().path().to_owned());
    let query = request.uri().query().unwrap_or_default().to_owned();
    let body = request.into_body().collect().await.map(|b| b.to_bytes()).unwrap_or_default();
    let (response, gate) = judge(shared, &method, &path, &query, headers, &body);
    if let Some(mut gate) = gate {
        // Nothing is ever sent: this ends when the gate is gone.
        while gate.changed().await.is_ok() {}
    }
    response
}

/// Notes a call; its answer, and what that has to wait for.
fn judge(
    shared: &Shared,
    method: &str,
    path: &str,
    query: &str,
    headers: BTreeMap<String, String>,
    body: &[u8],
) -> (Response<Full<Bytes>>, Option<watch::Receiver<()>>) {
    let target = headers.get("x-amz-target").cloned().unwrap_or_default();
    let operation = target.strip_prefix("AmazonEC2ContainerServiceV20141113.").unwrap_or(&target).to_owned();
    let json: Value = serde_json::from_slice(body).unwrap_or_default();
    let verdict = sigv4::verify(method, path, query, &headers, body);
    let mut script = shared.script.lock().unwrap();
    if let Err(error) = verdict {
        script.failures.push(format!("{operation}: {error}"));
        return (answer(403, json!({"__type": "SignatureDoesNotMatch"}).to_string()), None);
    }
    if let Some(refusal) = too_skewed(&script, &headers) {
        let status = refusal.status().as_u16();
        shared.calls.send(ApiCall { operation, headers, body: json, status }).ok();
        return (dated(&script, refusal), None);
    }
    if headers.get("content-type").is_none_or(|t| t != "application/x-amz-json-1.1") {
        script.failures.push(format!("{operation}: content-type {:?}", headers.get("content-type")));
    }
    let holds =
        |g: &&Gated| g.operation == operation && g.task.as_ref().is_none_or(|t| json["task"] == t.as_str());
    let gate = script.gates.iter().find(holds).map(|gated| gated.opened.clone());
    let scripted = script.answers.get_mut(&operation).and_then(VecDeque::pop_front);
    let (status, out) = match scripted.or_else(|| friendly(&shared.base, &operation, &json)) {
        Some(out) => out,
        None => {
            script.failures.push(format!("no answer is scripted for {operation:?}"));
            (400, json!({"__type": "UnknownOperationException"}))
        }
    };
    shared.calls.send(ApiCall { operation, headers, body: json, status }).ok();
    let mut response = answer(status, out.to_string());
    response
        .headers_mut()
        .insert("content-type", http::HeaderValue::from_static("application/x-amz-json-1.1"));
    (dated(&script, response), gate)
}

/// What a well service says.
fn friendly(base: &str, operation: &str, body: &Value) -> Option<(u16, Value)> {
    let out = match operation {
        "RegisterContainerInstance" => {
            let mut attributes = body["attributes"].as_array().cloned().unwrap_or_default();
            attributes.push(json!({"name": "ecs.availability-zone", "value": "us-west-2a"}));
            json!({"containerInstance": {"containerInstanceArn": INSTANCE, "attributes": attributes}})
        }
        "CreateCluster" => json!({"cluster": {"clusterName": body["clusterName"]}}),
        "DiscoverPollEndpoint" => {
            json!({"endpoint": format!("{base}/acs"), "telemetryEndpoint": format!("{base}/tcs")})
        }
        "SubmitTaskStateChange" => json!({"acknowledgment": "ACK"}),
        "UpdateContainerInstancesState" => json!({"containerInstances": [], "failures": []}),
        _ => return None,
    };
    Some((200, out))
}

fn upgrade(shared: &Arc<Shared>, channel: Channel, mut request: Request<Incoming>) -> Response<Full<Bytes>> {
    let headers = headers_of(&request);
    let path = request.uri().path().to_owned();
    let raw_query = request.uri().query().unwrap_or_default().to_owned();
    let mut script = shared.script.lock().unwrap();
    match sigv4::verify("GET", &path, &raw_query, &headers, b"") {
        Ok(signed) if signed.starts_with("host;x-amz-date") => {}
        Ok(signed) => script.failures.push(format!("{channel:?}: signed headers {signed}")),
        Err(error) => script.failures.push(format!("{channel:?}: {error}")),
    }
    if let Some(refusal) = too_skewed(&script, &headers) {
        script.failures.push(format!("{channel:?}: signed by a clock that is off"));
        return refusal;
    }
    if let Some((status, body)) = script.refusals.get_mut(&channel).and_then(VecDeque::pop_front) {
        return answer(status, body);
    }
    let key = headers.get("sec-websocket-key").cloned().unwrap_or_default();
    let shared = Arc::clone(shared);
    tokio::spawn(async move {
        let Ok(upgraded) = hyper::upgrade::on(&mut request).await else { return };
        let config = WebSocketConfig::default().max_write_buffer_size(usize::MAX);
        let socket =
            WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, Some(config)).await;
        let query = sigv4::query(&raw_query);
        let connection = Connection { path, query, headers, raw_query, socket };
        let to = if channel == Channel::Acs { &shared.acs } else { &shared.tcs };
        to.send(connection).ok();
    });
    Response::builder()
        .status(101)
        .header("connection", "Upgrade")
        .header("upgrade", "websocket")
        .header("sec-websocket-accept", derive_accept_key(key.as_bytes()))
        .body(Full::default())
        .unwrap()
}
