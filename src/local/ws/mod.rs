//! The two websockets of an agent. Which of them a client wants is told by its path (`/acs/ws`,
//! `/tcs/ws`) or, for a bare `/ws`, by the names of its query parameters
//! (spec/control-plane.md 3.1, 4.1).

mod acs;
mod tcs;

use crate::local::error::{ApiError, shortened};
use crate::local::names::means;
use crate::local::server::json_answer;
use crate::local::shared::Shared;
use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::sync::watch;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};

/// The largest frame taken from an agent; telemetry is at most 1 MiB (spec/control-plane.md 4.5).
const MAX_FRAME_BYTES: usize = 2 * 1024 * 1024;
/// An agent that does not read for so long is gone.
const SEND_TIMEOUT: Duration = Duration::from_secs(20);
const UPGRADE_TIMEOUT: Duration = Duration::from_secs(10);

type Socket = WebSocketStream<TokioIo<Upgraded>>;

/// An accepted upgrade, before its first frame.
pub struct Session {
    upgrade: OnUpgrade,
    kind: Kind,
    instance_arn: String,
    query: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Acs,
    Tcs,
}

/// Checks an upgrade request; answers the session to run once the answer was sent, and the answer.
///
/// # Errors
/// What the agent did wrong, as an exception of the websocket protocol.
pub fn accept(
    request: &mut Request<Incoming>,
    shared: &Shared,
) -> Result<(Session, Response<Full<Bytes>>), ApiError> {
    let bad = |message: String| ApiError { kind: "BadRequestException", status: 400, message };
    let key = handshake_key(request.headers()).map_err(bad)?;
    let query: BTreeMap<String, String> =
        url::form_urlencoded::parse(request.uri().query().unwrap_or_default().as_bytes())
            .into_owned()
            .collect();
    let kind = match request.uri().path().trim_start_matches('/') {
        "acs/ws" => Kind::Acs,
        "tcs/ws" => Kind::Tcs,
        "ws" if query.contains_key("clusterArn") => Kind::Acs,
        "ws" => Kind::Tcs,
        other => {
            return Err(bad(format!("no websocket at '/{}': use /acs/ws or /tcs/ws", shortened(other, 80))));
        }
    };
    let (cluster_key, instance_key) = match kind {
        Kind::Acs => ("clusterArn", "containerInstanceArn"),
        Kind::Tcs => ("cluster", "containerInstance"),
    };
    let part = |key: &str| query.get(key).map(String::as_str).unwrap_or_default();
    let state = shared.lock();
    let cluster = state.cluster(part(cluster_key)).ok().filter(|_| !part(cluster_key).is_empty());
    let Some(cluster) = cluster else {
        return Err(ApiError {
            kind: "InvalidClusterException",
            status: 400,
            message: format!(
                "query parameter {cluster_key} names no cluster: '{}'",
                shortened(part(cluster_key), 160)
            ),
        });
    };
    let given = part(instance_key);
    let Some(instance) = state.instances.values().find(|i| i.cluster == cluster && means(given, &i.arn))
    else {
        return Err(ApiError {
            kind: "InvalidInstanceException",
            status: 400,
            message: format!(
                "query parameter {instance_key} names no registered container instance: '{}'",
                shortened(given, 160)
            ),
        });
    };
    let instance_arn = instance.arn.clone();
    drop(state);
    let mut response = Response::new(Full::default());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, header::HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, header::HeaderValue::from_static("websocket"));
    if let Ok(accept) = header::HeaderValue::from_str(&derive_accept_key(&key)) {
        headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    }
    let upgrade = hyper::upgrade::on(request);
    Ok((Session { upgrade, kind, instance_arn, query }, response))
}

/// The refusal of an upgrade, in the shape that agents decode (spec/control-plane.md 3.1).
pub fn refusal(error: &ApiError) -> Response<Full<Bytes>> {
    tracing::warn!(%error, "websocket refused");
    json_answer(error.status, &json!({"type": error.kind, "message": {"message": error.message}}))
}

fn handshake_key(headers: &HeaderMap) -> Result<Vec<u8>, String> {
    let has = |name: header::HeaderName, word: &str| {
        let text = headers.get(&name).and_then(|v| v.to_str().ok()).unwrap_or_default();
        text.split(',').any(|part| part.trim().eq_ignore_ascii_case(word))
    };
    if !has(header::UPGRADE, "websocket") || !has(header::CONNECTION, "upgrade") {
        return Err("an upgrade needs the headers 'Connection: Upgrade' and 'Upgrade: websocket'".to_owned());
    }
    if !has(header::SEC_WEBSOCKET_VERSION, "13") {
        return Err("Sec-WebSocket-Version must be 13".to_owned());
    }
    let key = headers.get(header::SEC_WEBSOCKET_KEY).map(|key| key.as_bytes().to_vec());
    key.ok_or_else(|| "the header Sec-WebSocket-Key is missing".to_owned())
}

impl Session {
    /// Speaks with the agent until either side ends it.
    pub async fn run(self, shared: &Shared, stopped: watch::Receiver<bool>) {
        let upgraded = match tokio::time::timeout(UPGRADE_TIMEOUT, self.upgrade).await {
            Ok(Ok(upgraded)) => upgraded,
            Ok(Err(error)) => return tracing::debug!(%error, "upgrade failed"),
            Err(_) => return tracing::debug!("upgrade took too long"),
        };
        let config = WebSocketConfig::default()
            .max_message_size(Some(MAX_FRAME_BYTES))
            .max_frame_size(Some(MAX_FRAME_BYTES));
        let io = TokioIo::new(upgraded);
        let socket = WebSocketStream::from_raw_socket(io, Role::Server, Some(config)).await;
        match self.kind {
            Kind::Acs => acs::run(socket, shared, &self.instance_arn, &self.query, stopped).await,
            Kind::Tcs => tcs::run(socket, shared, &self.instance_arn, stopped).await,
        }
    }
}

/// `{agentVersion, agentHash, dockerVersion}` of an instance's answers, from the query.
fn version_info(query: &BTreeMap<String, String>) -> Value {
    let part = |key: &str| shortened(query.get(key).map(String::as_str).unwrap_or_default(), 80);
    json!({
        "agentVersion": part("agentVersion"), "agentHash": part("agentHash"),
        "dockerVersion": part("dockerVersion"),
    })
}
