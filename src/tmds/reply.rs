//! Requests and replies, before and after HTTP: what handlers take and give.

use super::gojson;
use futures_util::future::BoxFuture;
use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{CONTENT_TYPE, HeaderValue, LOCATION, X_CONTENT_TYPE_OPTIONS};
use hyper::{HeaderMap, Method, Response, StatusCode};
use std::net::SocketAddr;

/// A request as far as anything here looks at it. A body is read for who answers [`Answer::Later`] alone.
#[derive(Debug)]
pub struct RequestHead<'a> {
    /// Method.
    pub method: &'a Method,
    /// Path as it came, percent-encoded.
    pub path: &'a str,
    /// Query as it came, without the `?`.
    pub query: Option<&'a str>,
    /// Headers.
    pub headers: &'a HeaderMap,
    /// Who asks.
    pub peer: SocketAddr,
}

/// The answer to one request.
pub enum Answer {
    /// At once.
    Now(Response<Full<Bytes>>),
    /// Made of the request's body, which may take asking somebody else.
    Later(Box<dyn FnOnce(Bytes) -> BoxFuture<'static, Response<Full<Bytes>>> + Send>),
}

/// Answers requests. Must not block: it runs on the server's own tasks.
pub trait Handler: Send + Sync + 'static {
    /// The answer to one request, whatever it holds.
    fn answer(&self, request: &RequestHead<'_>) -> Answer;
}

/// Status, type and body.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    content_type: Option<&'static str>,
    location: Option<HeaderValue>,
    pub(crate) body: Vec<u8>,
}

impl Reply {
    /// JSON in Go's manner.
    pub(crate) fn json(status: StatusCode, value: &impl serde::Serialize) -> Self {
        let (status, body) = match gojson::to_vec(value) {
            Ok(body) => (status, body),
            Err(_) => (StatusCode::INTERNAL_SERVER_ERROR, b"{}".to_vec()),
        };
        Self { status, content_type: Some("application/json"), location: None, body }
    }

    /// Plain text.
    pub(crate) fn text(status: StatusCode, body: impl Into<Vec<u8>>) -> Self {
        Self { status, content_type: Some("text/plain; charset=utf-8"), location: None, body: body.into() }
    }

    /// What Prometheus reads.
    pub(crate) fn metrics(body: String) -> Self {
        let content_type = Some("text/plain; version=0.0.4; charset=utf-8");
        Self { status: StatusCode::OK, content_type, location: None, body: body.into_bytes() }
    }

    /// Go's `http.NotFound`.
    pub(crate) fn not_found() -> Self {
        Self::text(StatusCode::NOT_FOUND, "404 page not found\n")
    }

    /// For a path that does not know the method.
    pub(crate) fn not_allowed() -> Self {
        let status = StatusCode::METHOD_NOT_ALLOWED;
        Self { status, content_type: None, location: None, body: Vec::new() }
    }

    /// A redirect to a cleaned path.
    pub(crate) fn moved(to: &str) -> Self {
        let location = HeaderValue::from_str(to).ok();
        Self { status: StatusCode::MOVED_PERMANENTLY, content_type: None, location, body: Vec::new() }
    }

    /// As an HTTP response.
    pub(crate) fn into_response(self) -> Response<Full<Bytes>> {
        let nosniff = self.status == StatusCode::NOT_FOUND && self.content_type != Some("application/json");
        let mut response = Response::new(Full::new(Bytes::from(self.body)));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        if let Some(kind) = self.content_type {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        }
        if let Some(location) = self.location {
            headers.insert(LOCATION, location);
        }
        if nosniff {
            headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        }
        response
    }
}
