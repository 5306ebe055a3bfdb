//! containerd with faults: a proxy in front of its socket that passes every call on, streams included,
//! but for those that a test has something else in mind for. By method, by a text that the request has
//! in it (a container's id or name), by number.
//!
//! ```text
//!   agent ── gRPC ──> proxy ── gRPC ──> containerd
//!                       └ hold, hold the answer, fail, cut the connection
//! ```
//! It runs on a thread of its own, so that a test may block.

use super::containerd::TempDir;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http2::SendRequest;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;

type Body = BoxBody<Bytes, hyper::Error>;

/// More streams than any test has: `Tasks.Wait` is one for each container.
const STREAMS: u32 = 100_000;

/// The proxy. Dropped, it cuts every connection and is gone.
pub struct FaultyContainerd {
    socket: PathBuf,
    shared: Arc<Shared>,
    /// Its end is the end of the thread, and of what runs there.
    _alive: watch::Sender<()>,
    _directory: TempDir,
}

struct Shared {
    upstream: PathBuf,
    rules: Mutex<Vec<Rule>>,
    /// Methods of all calls, in order.
    seen: Mutex<Vec<String>>,
    /// Changes where connections are to be cut.
    cut: watch::Sender<u64>,
    next_rule: Mutex<u64>,
}

/// Which calls.
#[derive(Debug, Clone)]
pub struct Calls {
    method: String,
    naming: Option<String>,
    skip: usize,
    times: usize,
}

impl Calls {
    /// All of a method, such as `Tasks/Create`; `*` is every method.
    pub fn of(method: &str) -> Self {
        Self { method: method.to_owned(), naming: None, skip: 0, times: usize::MAX }
    }

    /// Only those whose request has this text in it.
    pub fn naming(mut self, text: &str) -> Self {
        self.naming = Some(text.to_owned());
        self
    }

    /// Not the first so many.
    pub fn skip(mut self, calls: usize) -> Self {
        self.skip = calls;
        self
    }

    /// Only so many.
    pub fn times(mut self, calls: usize) -> Self {
        self.times = calls;
        self
    }

    fn matches(&self, method: &str, request: &[u8]) -> bool {
        let names = |text: &String| request.windows(text.len()).any(|part| part == text.as_bytes());
        (self.method == "*" || self.method == method) && self.naming.as_ref().is_none_or(names)
    }
}

struct Rule {
    id: u64,
    calls: Calls,
    matched: usize,
    fault: Fault,
}

#[derive(Clone)]
enum Fault {
    /// It never gets to containerd.
    Hold(Gate),
    /// containerd does it, and its answer is kept back.
    HoldAnswer(Gate),
    Fail(tonic::Code, String),
    Cut,
}

#[derive(Clone)]
struct Gate {
    caught: Arc<watch::Sender<usize>>,
    opened: watch::Receiver<()>,
}

impl Gate {
    async fn wait(mut self) {
        self.caught.send_modify(|caught| *caught += 1);
        // Nothing is ever sent: this ends when the gate is gone.
        while self.opened.changed().await.is_ok() {}
    }
}

/// A fault, for as long as it is kept.
pub struct Faulted {
    shared: Arc<Shared>,
    rule: u64,
}

impl Drop for Faulted {
    fn drop(&mut self) {
        self.shared.rules.lock().unwrap().retain(|rule| rule.id != self.rule);
    }
}

/// Calls that are held until this is dropped.
pub struct Held {
    caught: watch::Receiver<usize>,
    // In this order: no call is caught after the gate was opened.
    _fault: Faulted,
    _open: watch::Sender<()>,
}

impl Held {
    /// Waits until so many calls were caught.
    pub async fn caught(&self, calls: usize) {
        let mut caught = self.caught.clone();
        let waited = tokio::time::timeout(super::host::PATIENCE, caught.wait_for(|n| *n >= calls));
        waited.await.unwrap_or_else(|_| panic!("caught {} of {calls} calls", *self.caught.borrow())).unwrap();
    }

    /// How many were caught so far.
    pub fn caught_now(&self) -> usize {
        *self.caught.borrow()
    }
}

impl FaultyContainerd {
    /// In front of the containerd at `upstream`.
    pub fn start(upstream: &Path) -> Self {
        let directory = TempDir::new("faulty");
        let socket = directory.path().join("c.sock");
        let shared = Arc::new(Shared {
            upstream: upstream.to_owned(),
            rules: Mutex::default(),
            seen: Mutex::default(),
            cut: watch::Sender::new(0),
            next_rule: Mutex::new(0),
        });
        let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        listener.set_nonblocking(true).unwrap();
        let (alive, mut ended) = watch::channel(());
        let for_connections = shared.clone();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let listener = UnixListener::from_std(listener).unwrap();
                loop {
                    tokio::select! {
                        accepted = listener.accept() => {
                            tokio::spawn(connection(for_connections.clone(), accepted.unwrap().0));
                        }
                        _ = ended.changed() => break,
                    }
                }
            });
        });
        Self { socket, shared, _alive: alive, _directory: directory }
    }

    /// Where it listens.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Holds calls before they get to containerd.
    pub fn hold(&self, calls: Calls) -> Held {
        self.gated(calls, Fault::Hold)
    }

    /// Holds the answers to calls: containerd has done what was asked.
    pub fn hold_answer(&self, calls: Calls) -> Held {
        self.gated(calls, Fault::HoldAnswer)
    }

    /// Answers calls with an error; containerd never sees them.
    pub fn fail(&self, calls: Calls, code: tonic::Code, words: &str) -> Faulted {
        self.rule(calls, Fault::Fail(code, words.to_owned()))
    }

    /// Cuts the connection that such a call comes by, before it gets to containerd.
    pub fn cut_at(&self, calls: Calls) -> Faulted {
        self.rule(calls, Fault::Cut)
    }

    /// Cuts every connection.
    pub fn cut(&self) {
        self.shared.cut.send_modify(|times| *times += 1);
    }

    /// Methods of the calls that came, in order.
    pub fn seen(&self) -> Vec<String> {
        self.shared.seen.lock().unwrap().clone()
    }

    /// How many calls of a method came.
    pub fn count(&self, method: &str) -> usize {
        self.shared.seen.lock().unwrap().iter().filter(|seen| *seen == method).count()
    }

    fn gated(&self, calls: Calls, fault: impl FnOnce(Gate) -> Fault) -> Held {
        let (open, opened) = watch::channel(());
        let caught = Arc::new(watch::Sender::new(0));
        let counted = caught.subscribe();
        let fault = self.rule(calls, fault(Gate { caught, opened }));
        Held { caught: counted, _fault: fault, _open: open }
    }

    fn rule(&self, calls: Calls, fault: Fault) -> Faulted {
        let mut next = self.shared.next_rule.lock().unwrap();
        *next += 1;
        self.shared.rules.lock().unwrap().push(Rule { id: *next, calls, matched: 0, fault });
        Faulted { shared: self.shared.clone(), rule: *next }
    }
}

impl Shared {
    /// Notes a call; what is to become of it.
    fn judge(&self, method: &str, request: &[u8]) -> Option<Fault> {
        self.seen.lock().unwrap().push(method.to_owned());
        let mut rules = self.rules.lock().unwrap();
        for rule in rules.iter_mut().filter(|rule| rule.calls.matches(method, request)) {
            rule.matched += 1;
            let number = rule.matched - 1;
            if number >= rule.calls.skip && number - rule.calls.skip < rule.calls.times {
                return Some(rule.fault.clone());
            }
        }
        None
    }
}

/// Serves one connection of the agent by one of its own to containerd; the end of either ends both.
async fn connection(shared: Arc<Shared>, agent: UnixStream) {
    let mut cut = shared.cut.subscribe();
    let (cut_this, mut cut_now) = watch::channel(false);
    let cut_this = Arc::new(cut_this);
    let Ok(containerd) = UnixStream::connect(&shared.upstream).await else { return };
    let mut client = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
    client.max_concurrent_reset_streams(1000).initial_max_send_streams(STREAMS as usize);
    let Ok((to_containerd, upstream)) = client.handshake::<_, Body>(TokioIo::new(containerd)).await else {
        return;
    };
    let rules = shared.clone();
    drop(shared);
    let service = service_fn(move |request| {
        let (rules, to_containerd, cut_this) = (rules.clone(), to_containerd.clone(), cut_this.clone());
        async move { Ok::<_, std::convert::Infallible>(pass(&rules, to_containerd, &cut_this, request).await) }
    });
    let mut server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
    server.max_concurrent_streams(STREAMS).max_pending_accept_reset_streams(1000);
    let served = server.serve_connection(TokioIo::new(agent), service);
    // Whatever ends first takes the rest along: that is what a cut is.
    tokio::select! {
        _ = served => {}
        _ = upstream => {}
        _ = cut.changed() => {}
        _ = cut_now.wait_for(|cut| *cut) => {}
    }
}

async fn pass(
    shared: &Shared,
    mut to_containerd: SendRequest<Body>,
    cut: &watch::Sender<bool>,
    request: Request<Incoming>,
) -> Response<Body> {
    let path = request.uri().path().to_owned();
    let method = path.rsplit_once('.').map_or(path.as_str(), |(_, method)| method);
    let (head, body) = request.into_parts();
    // What the agent streams is passed on as it comes; the rest is one message.
    let (body, message): (Body, Bytes) = if method == "Content/Write" {
        (body.boxed(), Bytes::new())
    } else {
        match body.collect().await {
            Ok(all) => {
                let message = all.to_bytes();
                (Full::new(message.clone()).map_err(|never| match never {}).boxed(), message)
            }
            Err(error) => return failed(tonic::Code::Internal, &error.to_string()),
        }
    };
    let fault = shared.judge(method, &message);
    match &fault {
        Some(Fault::Hold(gate)) => gate.clone().wait().await,
        Some(Fault::Fail(code, words)) => return failed(*code, words),
        Some(Fault::Cut) => {
            cut.send_replace(true);
            std::future::pending().await
        }
        Some(Fault::HoldAnswer(_)) | None => {}
    }
    let answer = match to_containerd.send_request(Request::from_parts(head, body)).await {
        Ok(answer) => answer.map(BodyExt::boxed),
        Err(error) => return failed(tonic::Code::Unavailable, &error.to_string()),
    };
    if let Some(Fault::HoldAnswer(gate)) = fault {
        gate.wait().await;
    }
    answer
}

/// An answer that is only an error.
fn failed(code: tonic::Code, words: &str) -> Response<Body> {
    let words = percent_encoding::utf8_percent_encode(words, percent_encoding::NON_ALPHANUMERIC);
    Response::builder()
        .header("content-type", "application/grpc")
        .header("grpc-status", (code as i32).to_string())
        .header("grpc-message", words.to_string())
        .body(Empty::new().map_err(|never| match never {}).boxed())
        .unwrap()
}
