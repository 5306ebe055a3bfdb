//! What an auditor of the endpoint wants to know: who was given credentials, who asked in vain, who
//! asked too often (spec/local-endpoints-config.md 1.10). Who writes it down is `app`'s choice.

use super::reply::RequestHead;
use hyper::StatusCode;
use hyper::header::USER_AGENT;
use percent_encoding::percent_decode_str;
use std::net::SocketAddr;

/// One answer.
#[derive(Debug)]
pub struct Access<'a> {
    /// HTTP status.
    pub status: u16,
    /// Who asked.
    pub peer: SocketAddr,
    /// The path, without the id of credentials: who knows that can ask for them.
    pub path: &'a str,
    /// User agent; may be blank.
    pub user_agent: &'a str,
    /// The id of the credentials that were given; `None` where none were. Not to be written down.
    pub credentials_id: Option<&'a str>,
}

/// Takes note of answers. Called for each; must not block.
pub trait AccessLog: Send + Sync {
    /// Takes note of one.
    fn note(&self, access: &Access<'_>);
}

/// Tells of an answer; `credentials_id` is what was asked for, if anything.
pub(super) fn tell(
    log: &dyn AccessLog,
    request: &RequestHead<'_>,
    status: StatusCode,
    credentials_id: Option<&str>,
) {
    let path = percent_decode_str(request.path).decode_utf8_lossy();
    let agent = request.headers.get(USER_AGENT).and_then(|value| value.to_str().ok());
    log.note(&Access {
        status: status.as_u16(),
        peer: request.peer,
        path: without_id(&path),
        user_agent: agent.unwrap_or_default(),
        credentials_id: credentials_id.filter(|_| status == StatusCode::OK),
    });
}

/// Up to and with `/credentials`.
fn without_id(path: &str) -> &str {
    const CREDENTIALS: &str = "/credentials";
    path.find(CREDENTIALS).map_or(path, |at| &path[..at + CREDENTIALS.len()])
}
