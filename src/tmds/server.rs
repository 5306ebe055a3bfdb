//! The HTTP/1.1 server under both endpoints: a listener that is retried until it can be had, and
//! connections that are bounded in number, size and time.

use super::holder::listener_on;
use super::reply::{Answer, Handler, RequestHead};
use super::stall::WriteDeadline;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::collections::HashMap;
use std::convert::Infallible;
use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{Id, JoinSet};
use tokio::time::{sleep, timeout};

/// To send a whole request head, to take a response, and to stay idle in between.
const IO_LIMIT: Duration = Duration::from_secs(5);
/// Connections at once; more wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 512;
/// Of these from one address: one task must not shut out the others.
const CONNECTIONS_PER_CLIENT: usize = 128;
/// Bytes of a request head.
const HEAD_MAX: usize = 16 * 1024;
/// Bytes of a request's body, where that is read.
const BODY_MAX: usize = 16 * 1024;
/// Headers of a request.
const HEADERS_MAX: usize = 64;
/// First and last pause between attempts to bind (spec/local-endpoints-config.md 1.1).
const BIND_RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// What running connections get at shutdown.
const DRAIN_LIMIT: Duration = Duration::from_secs(1);

/// Starts servers.
#[derive(Debug)]
pub struct Server;

/// A running server. Dropping it stops it at once; [`ServerHandle::shutdown`] lets answers finish.
#[derive(Debug)]
pub struct ServerHandle {
    stop: watch::Sender<bool>,
    bound: watch::Receiver<Option<SocketAddr>>,
    server: JoinSet<()>,
}

impl Server {
    /// Binds (again and again, until it succeeds) and serves. `name` is for the log.
    /// Must be called within a tokio runtime.
    pub fn start(name: &'static str, listen: SocketAddr, handler: Arc<dyn Handler>) -> ServerHandle {
        let (stop, to_stop) = watch::channel(false);
        let (tell, bound) = watch::channel(None);
        let mut server = JoinSet::new();
        server.spawn(async move {
            let mut stopping = to_stop.clone();
            let listener = tokio::select! {
                // Cancel-safe: a bind that is dropped holds nothing.
                listener = bind(name, listen) => listener,
                () = stopped(&mut stopping) => return,
            };
            tell.send_replace(listener.local_addr().ok());
            serve(name, listener, handler, to_stop).await;
        });
        ServerHandle { stop, bound, server }
    }
}

impl ServerHandle {
    /// Waits until the server listens; the address, with the port where port 0 was asked for.
    pub async fn bound(&mut self) -> Option<SocketAddr> {
        self.bound.wait_for(Option::is_some).await.ok().and_then(|address| *address)
    }

    /// Stops listening and gives running connections a second.
    pub async fn shutdown(mut self) {
        self.stop.send_replace(true);
        while self.server.join_next().await.is_some() {}
    }
}

/// Retries for ever: the port may be held by the agent that this one replaces.
async fn bind(name: &str, listen: SocketAddr) -> TcpListener {
    let (mut pause, longest) = BIND_RETRY;
    loop {
        let error = match TcpListener::bind(listen).await {
            Ok(listener) => return listener,
            Err(error) => error,
        };
        let port = listen.port();
        let holder = tokio::task::spawn_blocking(move || listener_on(port)).await.ok().flatten();
        let held_by = holder.as_deref().unwrap_or("no process that can be seen");
        tracing::error!(server = name, address = %listen, %error, held_by, retry_in = ?pause,
            "can't listen: stop what holds the port, or the agent that still runs here");
        sleep(jittered(pause)).await;
        pause = (pause * 2).min(longest);
    }
}

/// Up to a fifth longer, so that two agents do not retry in step.
fn jittered(pause: Duration) -> Duration {
    let random = RandomState::new().hash_one(()) % 1000;
    pause + pause.mul_f64(random as f64 / 5000.0)
}

async fn serve(
    name: &'static str,
    listener: TcpListener,
    handler: Arc<dyn Handler>,
    mut stop: watch::Receiver<bool>,
) {
    let mut connections = JoinSet::new();
    let mut clients: HashMap<Id, IpAddr> = HashMap::new();
    loop {
        tokio::select! {
            // All three are cancel-safe by their documentation: accept loses no connection,
            // join_next no task, the stop flag stays set.
            accepted = listener.accept(), if connections.len() < CONNECTIONS_MAX => match accepted {
                Ok((stream, peer)) => {
                    let from_there = clients.values().filter(|ip| **ip == peer.ip()).count();
                    if from_there < CONNECTIONS_PER_CLIENT {
                        let task = connections.spawn(connection(stream, peer, handler.clone(), stop.clone()));
                        clients.insert(task.id(), peer.ip());
                    } else {
                        tracing::warn!(server = name, %peer, limit = CONNECTIONS_PER_CLIENT,
                            "too many connections from one address: refused one");
                    }
                }
                Err(error) => {
                    // Out of descriptors, most likely: what runs will give some back.
                    tracing::warn!(server = name, %error, "can't accept a connection");
                    sleep(Duration::from_millis(100)).await;
                }
            },
            Some(ended) = connections.join_next_with_id() => {
                let id = ended.map_or_else(|panicked| panicked.id(), |(id, ())| id);
                clients.remove(&id);
            }
            () = stopped(&mut stop) => break,
        }
    }
    drop(listener);
    let drain = async { while connections.join_next().await.is_some() {} };
    // What has not ended by then is aborted with the set.
    let _ = timeout(DRAIN_LIMIT, drain).await;
}

/// Resolves once the server is to stop.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

async fn connection(
    stream: TcpStream,
    peer: SocketAddr,
    handler: Arc<dyn Handler>,
    mut stop: watch::Receiver<bool>,
) {
    // Answers are small and whole: waiting to fill a segment only adds latency.
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request: Request<Incoming>| {
        let handler = handler.clone();
        async move { Ok::<_, Infallible>(respond(&*handler, request, peer).await) }
    });
    let io = TokioIo::new(WriteDeadline::new(stream, IO_LIMIT));
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(IO_LIMIT)
        .max_buf_size(HEAD_MAX)
        .max_headers(HEADERS_MAX)
        .title_case_headers(true)
        .serve_connection(io, service);
    tokio::pin!(serving);
    let result = tokio::select! {
        // `serving` is polled by reference, so the other arm only interrupts it.
        result = serving.as_mut() => result,
        () = stopped(&mut stop) => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = result {
        tracing::debug!(%peer, %error, "a connection ended early");
    }
}

async fn respond(
    handler: &dyn Handler,
    request: Request<Incoming>,
    peer: SocketAddr,
) -> Response<Full<Bytes>> {
    let (path, query) = (request.uri().path(), request.uri().query());
    tracing::debug!(method = %request.method(), %peer, path = path_for_log(path), "request");
    let head = RequestHead { method: request.method(), path, query, headers: request.headers(), peer };
    let ask = match handler.answer(&head) {
        Answer::Now(response) => return response,
        Answer::Later(ask) => ask,
    };
    // One that is too long or does not come is as good as none.
    let body = timeout(IO_LIMIT, Limited::new(request.into_body(), BODY_MAX).collect()).await;
    ask(body.ok().and_then(Result::ok).map(|body| body.to_bytes()).unwrap_or_default()).await
}

/// A credentials path without its id: who knows the id can ask for the credentials.
fn path_for_log(path: &str) -> &str {
    if path.contains("/credentials") {
        "/v2/credentials"
    } else {
        path.get(..path.len().min(256)).unwrap_or("")
    }
}
