//! The one HTTP client of the agent, as the SDK wants it: the ECS API, the credentials providers and
//! IMDS share it and its connections. It dials like the websockets do, by [`super::dial`]. What speaks
//! no SDK's protocol asks by [`SchemeClient::get`].

use super::dial::{DialError, Dialer, Target, Wire};
use super::proxy::Proxies;
use super::tls::Tls;
use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::body::SdkBody;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::Uri;
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

/// Dialling, where the caller names no limit.
const CONNECT: Duration = Duration::from_secs(30);
/// Idle connections are closed after this: less than the service's own patience.
const IDLE: Duration = Duration::from_secs(20);

type Pool = Client<Connector, SdkBody>;

/// The client; clones share their connections.
#[derive(Debug, Clone)]
pub struct SchemeClient {
    dialer: Dialer,
    /// By the limit of dialling.
    pools: Arc<Mutex<BTreeMap<Duration, Pool>>>,
}

impl Default for SchemeClient {
    fn default() -> Self {
        Self::new(Proxies::from_env(), Tls::default())
    }
}

impl SchemeClient {
    /// With these proxies and this TLS. Does no I/O.
    pub fn new(proxies: Proxies, tls: Tls) -> Self {
        Self { dialer: Dialer { proxies: Arc::new(proxies), tls }, pools: Arc::default() }
    }

    /// What dials.
    pub fn dialer(&self) -> &Dialer {
        &self.dialer
    }

    /// One GET: status and body.
    ///
    /// # Errors
    /// [`GetError`]
    pub async fn get(
        &self,
        url: &url::Url,
        headers: &[(&'static str, String)],
        limit: Duration,
        most: usize,
    ) -> Result<(u16, Bytes), GetError> {
        let exchange = async {
            let answer = self.open(url, headers).await?;
            whole(answer, most).await
        };
        tokio::time::timeout(limit, exchange).await.map_err(|_| GetError::Late(limit))?
    }

    /// One POST: status and body.
    ///
    /// # Errors
    /// [`GetError`]
    pub async fn post(
        &self,
        url: &url::Url,
        headers: &[(&'static str, String)],
        body: Vec<u8>,
        limit: Duration,
        most: usize,
    ) -> Result<(u16, Bytes), GetError> {
        let request = with_headers(http::Request::post(url.as_str()), headers);
        let request = request.body(SdkBody::from(body)).map_err(GetError::Request)?;
        let exchange = async {
            let answer = send(&self.pool(CONNECT), &self.dialer.proxies, request).await;
            whole(answer.map_err(GetError::Send)?, most).await
        };
        tokio::time::timeout(limit, exchange).await.map_err(|_| GetError::Late(limit))?
    }

    /// One GET whose body the caller reads, and for which the caller has a limit.
    ///
    /// # Errors
    /// [`GetError`]
    pub async fn open(
        &self,
        url: &url::Url,
        headers: &[(&'static str, String)],
    ) -> Result<http::Response<Incoming>, GetError> {
        let request = with_headers(http::Request::get(url.as_str()), headers);
        let request = request.body(SdkBody::empty()).map_err(GetError::Request)?;
        send(&self.pool(CONNECT), &self.dialer.proxies, request).await.map_err(GetError::Send)
    }

    fn pool(&self, connect: Duration) -> Pool {
        let mut pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
        let build = || {
            Client::builder(TokioExecutor::new())
                .pool_timer(TokioTimer::new())
                .pool_idle_timeout(IDLE)
                .pool_max_idle_per_host(4)
                .build(Connector { dialer: self.dialer.clone(), limit: connect })
        };
        pools.entry(connect).or_insert_with(build).clone()
    }
}

impl HttpClient for SchemeClient {
    fn http_connector(&self, settings: &HttpConnectorSettings, _: &RuntimeComponents) -> SharedHttpConnector {
        let pool = self.pool(settings.connect_timeout().unwrap_or(CONNECT));
        let proxies = Arc::clone(&self.dialer.proxies);
        SharedHttpConnector::new(Call { pool, proxies, read: settings.read_timeout() })
    }
}

/// Sends requests of one kind.
#[derive(Debug)]
struct Call {
    pool: Pool,
    proxies: Arc<Proxies>,
    read: Option<Duration>,
}

impl HttpConnector for Call {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let (pool, proxies, read) = (self.pool.clone(), Arc::clone(&self.proxies), self.read);
        HttpConnectorFuture::new(async move {
            let request = request.try_into_http1x().map_err(|error| ConnectorError::user(error.into()))?;
            let sent = async { send(&pool, &proxies, request).await.map_err(failed) };
            let answer = match read {
                Some(limit) => tokio::time::timeout(limit, sent)
                    .await
                    .map_err(|_| ConnectorError::timeout(format!("no answer within {limit:?}").into()))??,
                None => sent.await?,
            };
            HttpResponse::try_from(answer.map(SdkBody::from_body_1_x))
                .map_err(|error| ConnectorError::other(error.into(), None))
        })
    }
}

fn with_headers(
    request: http::request::Builder,
    headers: &[(&'static str, String)],
) -> http::request::Builder {
    headers.iter().fold(request, |request, (name, value)| request.header(*name, value))
}

/// Status and body of an answer.
async fn whole(answer: http::Response<Incoming>, most: usize) -> Result<(u16, Bytes), GetError> {
    let status = answer.status().as_u16();
    let body = Limited::new(answer.into_body(), most).collect().await;
    let body = body.map_err(|source| GetError::Body { most, source })?;
    Ok((status, body.to_bytes()))
}

async fn send(
    pool: &Pool,
    proxies: &Proxies,
    mut request: http::Request<SdkBody>,
) -> Result<http::Response<Incoming>, hyper_util::client::legacy::Error> {
    // A proxy that takes whole requests is authenticated to by each of them.
    if let Some(to) = target(request.uri()).filter(|to| !to.https)
        && let Ok(Some(proxy)) = proxies.to(false, &to.host, to.port)
        && let Some(authorization) = &proxy.authorization
    {
        request.headers_mut().insert(http::header::PROXY_AUTHORIZATION, authorization.clone());
    }
    pool.request(request).await
}

/// A GET that gave no whole answer.
#[derive(Debug, thiserror::Error)]
pub enum GetError {
    /// Not a request that can be made.
    #[error("no request can be made of this address")]
    Request(#[source] http::Error),
    /// Not sent, or no answer.
    #[error("no answer")]
    Send(#[source] hyper_util::client::legacy::Error),
    /// The answer broke off, or has no end.
    #[error("no whole answer of at most {most} bytes")]
    Body {
        /// What is taken.
        most: usize,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Not in time.
    #[error("no answer within {0:?}")]
    Late(Duration),
}

/// The SDK tries again what could not be sent; what is wrong here it need not.
fn failed(error: hyper_util::client::legacy::Error) -> ConnectorError {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(&error);
    while let Some(at) = cause {
        match at.downcast_ref::<DialError>() {
            Some(DialError::Late { .. }) => return ConnectorError::timeout(error.into()),
            Some(DialError::Proxy(_) | DialError::Tls(_) | DialError::Certificate { .. }) => {
                return ConnectorError::user(error.into());
            }
            _ => cause = at.source(),
        }
    }
    ConnectorError::io(error.into())
}

fn target(uri: &Uri) -> Option<Target> {
    let https = uri.scheme_str() == Some("https");
    let host = uri.host()?.trim_matches(['[', ']']).to_owned();
    Some(Target { https, host, port: uri.port_u16().unwrap_or(if https { 443 } else { 80 }) })
}

/// Makes connections for the pool.
#[derive(Debug, Clone)]
struct Connector {
    dialer: Dialer,
    limit: Duration,
}

impl tower_service::Service<Uri> for Connector {
    type Response = Pooled;
    type Error = DialError;
    type Future = BoxFuture<'static, Result<Pooled, DialError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), DialError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let Self { dialer, limit } = self.clone();
        Box::pin(async move {
            let unnamed = || DialError::Connect {
                to: uri.to_string(),
                source: std::io::Error::new(std::io::ErrorKind::InvalidInput, "no host"),
            };
            let to = target(&uri).ok_or_else(unnamed)?;
            let (wire, whole_requests) = dialer.dial(&to, limit, false).await?;
            Ok(Pooled { wire: TokioIo::new(wire), whole_requests })
        })
    }
}

/// A connection in the pool.
struct Pooled {
    wire: TokioIo<Wire>,
    /// It leads to a proxy that takes requests with whole URLs.
    whole_requests: bool,
}

impl Connection for Pooled {
    fn connected(&self) -> Connected {
        Connected::new().proxy(self.whole_requests)
    }
}

impl Read for Pooled {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.wire).poll_read(cx, buffer)
    }
}

impl Write for Pooled {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.wire).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.wire).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.wire).poll_shutdown(cx)
    }
}
