//! The one TCP port: HTTP for the API, upgrades to the two websockets. Bounded in connections, header
//! time, body size and body time, so that a peer that hangs costs one slot for seconds.

use crate::local::api;
use crate::local::error::{ApiError, shortened};
use crate::local::shared::{Shared, ended};
use crate::local::ws;
use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::Value;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

/// The largest request body.
pub const MAX_BODY_BYTES: usize = 1024 * 1024;
const MAX_CONNECTIONS: usize = 256;
/// Also how long an idle connection is kept: longer than the 90 s of the agent's own pool, so that it
/// is never closed under a request that is just being sent.
const HEADER_TIMEOUT: Duration = Duration::from_secs(100);
const BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// Answers what [`crate::local::Handle::telemetry`] does, as JSON.
pub const TELEMETRY_PATH: &str = "/ecsd/telemetry";
const TARGET_PREFIX: &str = "AmazonEC2ContainerServiceV20141113.";

type Answer = Response<Full<Bytes>>;

/// Serves until `stopped` turns true or its sender is gone. Dropping it closes all connections.
pub async fn serve(listener: TcpListener, shared: Arc<Shared>, mut stopped: watch::Receiver<bool>) {
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut connections = JoinSet::new();
    let local = listener.local_addr().ok();
    loop {
        // Each arm is cancel-safe: accepting, waiting for a permit, joining and watching lose nothing.
        let accepted = tokio::select! {
            _ = ended(&mut stopped) => break,
            Some(_) = connections.join_next(), if !connections.is_empty() => continue,
            accepted = async {
                let slot = Arc::clone(&slots).acquire_owned().await;
                (listener.accept().await, slot)
            } => accepted,
        };
        match accepted {
            (Ok((stream, _)), Ok(slot)) => {
                let (shared, stopped) = (Arc::clone(&shared), stopped.clone());
                connections.spawn(async move {
                    connection(stream, shared, local, stopped).await;
                    drop(slot);
                });
            }
            (Err(error), _) => {
                // Out of descriptors, most likely: wait for connections to end.
                tracing::warn!(%error, "accepting a connection failed");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            (_, Err(_)) => break,
        }
    }
    connections.shutdown().await;
}

/// One connection, with the websocket that it may turn into: both end with this future.
async fn connection(
    stream: TcpStream,
    shared: Arc<Shared>,
    local: Option<SocketAddr>,
    mut stopped: watch::Receiver<bool>,
) {
    let _ = stream.set_nodelay(true);
    let upgraded: Arc<std::sync::Mutex<Option<ws::Session>>> = Arc::default();
    let slot = Arc::clone(&upgraded);
    let for_requests = Arc::clone(&shared);
    let service = service_fn(move |request: Request<Incoming>| {
        let (shared, slot) = (Arc::clone(&for_requests), Arc::clone(&slot));
        async move { Ok::<_, Infallible>(answer(request, &shared, local, &slot).await) }
    });
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT).max_buf_size(128 * 1024);
    let serving = builder.serve_connection(TokioIo::new(stream), service).with_upgrades();
    // Cancel-safe: whichever ends first ends the connection.
    tokio::select! {
        result = serving => {
            if let Err(error) = result {
                tracing::debug!(%error, "connection ended");
            }
        }
        _ = ended(&mut stopped) => return,
    }
    let session = upgraded.lock().ok().and_then(|mut slot| slot.take());
    if let Some(session) = session {
        session.run(&shared, stopped).await;
    }
}

async fn answer(
    mut request: Request<Incoming>,
    shared: &Shared,
    local: Option<SocketAddr>,
    slot: &std::sync::Mutex<Option<ws::Session>>,
) -> Answer {
    if request.headers().contains_key(header::UPGRADE) {
        return match ws::accept(&mut request, shared) {
            Ok((session, response)) => {
                if let Ok(mut slot) = slot.lock() {
                    *slot = Some(session);
                }
                response
            }
            Err(error) => ws::refusal(&error),
        };
    }
    let host = host(request.headers(), local);
    let operation = request.headers().get("x-amz-target").and_then(|v| v.to_str().ok()).unwrap_or_default();
    let operation = operation.strip_prefix(TARGET_PREFIX).unwrap_or_default().to_owned();
    let result = match (request.method(), operation.is_empty()) {
        (&Method::POST, false) => match body(request).await {
            Ok(input) => api::call(shared, &operation, input, &host),
            Err(error) => Err(error),
        },
        // Outside the ECS API: for `ecsd local stats`.
        (&Method::GET, true) if request.uri().path() == TELEMETRY_PATH => Ok(shared.telemetry().json()),
        (&Method::POST, true) => Err(ApiError::unknown_operation(format!(
            "The header X-Amz-Target must be {TARGET_PREFIX}<Operation>."
        ))),
        (method, _) => Err(ApiError {
            kind: "UnknownOperationException",
            status: 404,
            message: format!(
                "This is the local ECS control plane. {} {} means nothing here: POST operations of the ECS API to /, \
                 for example by: aws ecs list-tasks --endpoint-url http://{host}",
                method,
                shortened(request.uri().path(), 80)
            ),
        }),
    };
    match result {
        Ok(output) => json_answer(200, &output),
        Err(error) => {
            tracing::debug!(operation, %error, "refused");
            json_answer(error.status, &error.body())
        }
    }
}

/// By which `host:port` the caller reached us; what is no such thing counts as not sent.
fn host(headers: &HeaderMap, local: Option<SocketAddr>) -> String {
    let sent = headers.get(header::HOST).and_then(|v| v.to_str().ok());
    let fits = |text: &&str| text.parse::<http::uri::Authority>().is_ok() && text.len() <= 255;
    let own = || local.map(|addr| addr.to_string()).unwrap_or_default();
    sent.filter(fits).map_or_else(own, str::to_owned)
}

async fn body(request: Request<Incoming>) -> Result<Value, ApiError> {
    let too_large = || ApiError {
        kind: "RequestEntityTooLargeException",
        status: 413,
        message: format!("The request body is larger than {MAX_BODY_BYTES} bytes."),
    };
    let declared = request.headers().get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse().ok());
    if declared.is_some_and(|bytes: u64| bytes > MAX_BODY_BYTES as u64) {
        return Err(too_large());
    }
    let collected = Limited::new(request.into_body(), MAX_BODY_BYTES).collect();
    let bytes = match tokio::time::timeout(BODY_TIMEOUT, collected).await {
        Ok(Ok(collected)) => collected.to_bytes(),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => return Err(too_large()),
        Ok(Err(error)) => {
            return Err(ApiError::serialization(format!("The request body could not be read: {error}")));
        }
        Err(_) => {
            return Err(ApiError {
                kind: "RequestTimeoutException",
                status: 408,
                message: format!("The request body did not come within {} s.", BODY_TIMEOUT.as_secs()),
            });
        }
    };
    if bytes.is_empty() {
        return Ok(Value::Object(serde_json::Map::new()));
    }
    serde_json::from_slice(&bytes)
        .map_err(|error| ApiError::serialization(format!("The request body is no JSON: {error}")))
}

/// A JSON answer as the service gives it.
pub fn json_answer(status: u16, body: &Value) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::from(body.to_string())));
    *answer.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/x-amz-json-1.1"));
    if let Ok(id) = header::HeaderValue::from_str(&uuid::Uuid::new_v4().to_string()) {
        headers.insert("x-amzn-requestid", id);
    }
    answer
}
