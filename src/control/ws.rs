//! A signed websocket to the control plane (spec/control-plane.md 3.1): dial, TLS, upgrade. What is
//! said over it is the business of [`super::acs`] and [`super::tcs`].

use super::account::Account;
use super::acs::wire;
use super::dial::{DialError, Target, Wire};
use super::sigv4::{self, SignError};
use aws_credential_types::provider::error::CredentialsError;
use std::time::Duration;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{self, http};

/// Reaching the host.
const DIAL: Duration = Duration::from_secs(30);
/// The upgrade.
const HANDSHAKE: Duration = Duration::from_secs(30);
/// How long one frame may take to be written.
pub const WRITE: Duration = Duration::from_secs(180);
/// Both buffers grow with what they hold; this is where they begin.
const BUFFER: usize = 4096;

/// An open websocket.
pub type Socket = WebSocketStream<Wire>;

/// A websocket could not be opened, or broke.
#[derive(Debug, thiserror::Error)]
pub enum WsError {
    /// Not an address that can be dialled.
    #[error("{url:?} is no http or https address")]
    Url {
        /// The address.
        url: String,
    },
    /// The API does not tell where to connect to.
    #[error("the address of the websocket can't be discovered")]
    Discover(#[source] super::api::ApiError),
    /// No credentials to sign with.
    #[error("no AWS credentials: check the instance role, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")]
    Credentials(#[source] CredentialsError),
    /// Could not be signed.
    #[error(transparent)]
    Sign(#[from] SignError),
    /// The host can't be reached.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// The host did not answer in time.
    #[error("{host} did not answer within {limit:?}")]
    Late {
        /// Host and port.
        host: String,
        /// The limit.
        limit: Duration,
    },
    /// The service answered, but not with an upgrade.
    #[error("{host} refused the websocket: HTTP {status} {kind}: {message}")]
    Refused {
        /// Host and port.
        host: String,
        /// HTTP status.
        status: u16,
        /// Exception, such as `InactiveInstanceException`; empty where the body names none.
        kind: String,
        /// Its message, or the body.
        message: String,
    },
    /// TLS, the handshake or the connection broke.
    #[error("the websocket to {host} broke")]
    Broken {
        /// Host and port.
        host: String,
        /// How.
        #[source]
        source: Box<tungstenite::Error>,
    },
    /// The service closed it with a code that is no clean end.
    #[error("{host} closed the websocket: {code} {reason}")]
    Closed {
        /// Host and port.
        host: String,
        /// Close code.
        code: u16,
        /// Reason.
        reason: String,
    },
    /// Nothing was heard for too long.
    #[error("nothing was heard from {host} for {limit:?}")]
    Silent {
        /// Host and port.
        host: String,
        /// The limit.
        limit: Duration,
    },
}

impl WsError {
    /// The service says that this instance is not registered any more.
    pub fn is_inactive_instance(&self) -> bool {
        const NAME: &str = "InactiveInstanceException";
        match self {
            Self::Refused { kind, message, .. } => kind.contains(NAME) || message.contains(NAME),
            Self::Closed { reason, .. } => reason.contains(NAME),
            _ => false,
        }
    }
}

/// The address of a websocket: `<endpoint>/ws?<query>`, keys in the order given.
///
/// # Errors
/// [`WsError::Url`]
pub fn address(endpoint: &str, query: &[(&str, &str)]) -> Result<url::Url, WsError> {
    let bad = || WsError::Url { url: endpoint.chars().take(256).collect() };
    let mut url = url::Url::parse(endpoint).map_err(|_| bad())?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
        return Err(bad());
    }
    let path = format!("{}/ws", url.path().trim_end_matches('/'));
    url.set_path(&path);
    url.query_pairs_mut().clear().extend_pairs(query);
    Ok(url)
}

/// Dials, signs, upgrades.
///
/// # Errors
/// [`WsError`]
pub async fn connect(account: &Account, url: &url::Url) -> Result<Socket, WsError> {
    let host = sigv4::host_header(url);
    let credentials = account.credentials.get().await.map_err(WsError::Credentials)?;
    let late = |limit| WsError::Late { host: host.clone(), limit };
    let to = Target {
        https: url.scheme() == "https",
        host: url.host_str().unwrap_or_default().trim_matches(['[', ']']).to_owned(),
        port: url.port_or_known_default().unwrap_or(443),
    };
    let (wire, _) = account.http.dialer().dial(&to, DIAL, true).await?;
    // Signed after dialling: a slow host must not eat up the signature's five minutes.
    let signed = sigv4::sign_get(&credentials, &account.region, url, b"", account.clock.now())?;
    let request = request(url, &host, signed, &account.identity.user_agent())?;
    let config = WebSocketConfig::default()
        .read_buffer_size(BUFFER)
        .write_buffer_size(BUFFER)
        .max_message_size(Some(wire::MAX_FRAME_BYTES))
        .max_frame_size(Some(wire::MAX_FRAME_BYTES));
    let upgrade = tokio_tungstenite::client_async_with_config(request, wire, Some(config));
    match tokio::time::timeout(HANDSHAKE, upgrade).await.map_err(|_| late(HANDSHAKE))? {
        Ok((socket, _)) => Ok(socket),
        Err(tungstenite::Error::Http(answer)) => Err(refused(host, &answer)),
        Err(source) => Err(WsError::Broken { host, source: Box::new(source) }),
    }
}

fn request(
    url: &url::Url,
    host: &str,
    signed: Vec<(&'static str, String)>,
    user_agent: &str,
) -> Result<http::Request<()>, WsError> {
    let address = url.as_str().replacen("http", "ws", 1);
    let mut request = http::Request::builder()
        .method("GET")
        .uri(&address)
        .header("Host", host)
        .header("User-Agent", user_agent)
        .header("Upgrade", "websocket")
        .header("Connection", "Upgrade")
        .header("Sec-WebSocket-Key", generate_key())
        .header("Sec-WebSocket-Version", "13");
    for (name, value) in signed {
        request = request.header(name, value);
    }
    request.body(()).map_err(|_| WsError::Url { url: address.chars().take(256).collect() })
}

/// The body of a refusal is `{"type":T,"message":{...}}` or `{"<Exception>":"<message>"}`.
fn refused(host: String, answer: &http::Response<Option<Vec<u8>>>) -> WsError {
    let body = answer.body().as_deref().unwrap_or_default();
    let text: String = String::from_utf8_lossy(body).chars().take(1024).collect();
    let (kind, message) = match serde_json::from_slice::<serde_json::Value>(body) {
        Ok(serde_json::Value::Object(members)) => match members.get("type").and_then(|t| t.as_str()) {
            Some(kind) => {
                let message = members.get("message").and_then(|m| m.get("message")).and_then(|m| m.as_str());
                (kind.to_owned(), message.unwrap_or_default().to_owned())
            }
            None => match members.into_iter().next() {
                Some((kind, serde_json::Value::String(message))) => (kind, message),
                _ => (String::new(), text),
            },
        },
        _ => (String::new(), text),
    };
    WsError::Refused { host, status: answer.status().as_u16(), kind, message }
}

/// How a connection ended.
#[derive(Debug)]
pub enum Ended {
    /// As agreed, or as services are wont to: connect again at once.
    Clean,
    /// Connect again after a while.
    Failed(WsError),
}

/// What a close frame means (spec/control-plane.md 3.3).
pub fn closed(host: String, frame: Option<&tungstenite::protocol::CloseFrame>) -> Ended {
    let Some(frame) = frame else { return Ended::Clean };
    match frame.code {
        CloseCode::Normal | CloseCode::Away | CloseCode::Abnormal | CloseCode::Error => Ended::Clean,
        code => {
            let reason = frame.reason.chars().take(256).collect();
            Ended::Failed(WsError::Closed { host, code: code.into(), reason })
        }
    }
}

/// What the end of reading means. A connection that was cut counts as code 1006, a clean end.
pub fn broke(host: String, error: tungstenite::Error) -> Ended {
    use tungstenite::Error;
    use tungstenite::error::ProtocolError;
    match error {
        Error::ConnectionClosed
        | Error::AlreadyClosed
        | Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => Ended::Clean,
        Error::Io(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => Ended::Clean,
        source => Ended::Failed(WsError::Broken { host, source: Box::new(source) }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_keep_the_endpoints_path() {
        let url = address("http://h:9000/acs", &[("a", "b c"), ("arn", "x:y/z")]).unwrap();
        assert_eq!(url.as_str(), "http://h:9000/acs/ws?a=b+c&arn=x%3Ay%2Fz");
        assert_eq!(address("https://h/", &[]).unwrap().path(), "/ws");
        for bad in ["ftp://h", "h:80", "", "http://"] {
            assert!(address(bad, &[]).is_err(), "{bad}");
        }
    }

    #[test]
    fn refusals_of_both_shapes_are_understood() {
        for (body, kind) in [
            (
                r#"{"type":"InactiveInstanceException","message":{"message":"gone"}}"#,
                "InactiveInstanceException",
            ),
            (r#"{"InactiveInstanceException":"gone"}"#, "InactiveInstanceException"),
            ("<html>", ""),
        ] {
            let answer = http::Response::builder().status(400).body(Some(body.as_bytes().to_vec())).unwrap();
            let error = refused("h".into(), &answer);
            assert_eq!(error.is_inactive_instance(), !kind.is_empty());
            assert!(matches!(error, WsError::Refused { kind: k, .. } if k == kind));
        }
    }
}
