//! HTTP to registries: TLS with the machine's roots, plain only to loopback and where that is
//! configured, proxies from the environment, redirects, and a limit on every wait. Knows nothing of registries.

use crate::containerd::image::error::RegistryError;
use crate::containerd::image::options::PullTuning;
use crate::containerd::image::reference::is_loopback;
use crate::containerd::image::tls::{Link, LinkKey};
use bytes::Bytes;
use http::header::{ACCEPT, LOCATION, RANGE, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::client::proxy::matcher::{Intercept, Matcher};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

type Direct = Client<HttpsConnector<HttpConnector>, Empty<Bytes>>;
type Proxied = Client<HttpsConnector<Tunnel<HttpConnector>>, Empty<Bytes>>;

/// Redirects that are followed.
const REDIRECTS: usize = 5;
/// Clients of one kind that are kept.
const CLIENTS: usize = 64;

/// The clients: one without TLS, and for each way of TLS one without and one for each proxy. TLS roots are read on first use:
/// a machine with a registry on loopback needs none.
#[derive(Debug)]
pub struct Http {
    plain: Client<HttpConnector, Empty<Bytes>>,
    direct: Mutex<HashMap<LinkKey, Direct>>,
    proxied: Mutex<HashMap<(Uri, LinkKey), Proxied>>,
    proxies: Matcher,
    tuning: PullTuning,
}

/// The head of an answer, and its body to be read.
#[derive(Debug)]
pub struct Answer {
    /// Status.
    pub status: StatusCode,
    /// Headers.
    pub headers: HeaderMap,
    /// Where it came from, after redirects.
    pub uri: Uri,
    /// The body.
    pub body: Body,
}

/// A body, read piece by piece.
#[derive(Debug)]
pub struct Body {
    incoming: Incoming,
    host: String,
    what: String,
    inactivity: Duration,
}

impl Http {
    /// Reads `HTTP_PROXY`, `HTTPS_PROXY` and `NO_PROXY`; connects to nobody yet.
    pub fn new(tuning: PullTuning) -> Self {
        Self {
            plain: builder().build(tcp(&tuning, true)),
            direct: Mutex::default(),
            proxied: Mutex::default(),
            proxies: Matcher::from_env(),
            tuning,
        }
    }

    /// Sends a request without a body and follows redirects; across hosts without credentials, and without
    /// whatever else was meant for the first. `what` names it in errors.
    ///
    /// # Errors
    /// Where no answer came. An answer of any status but a redirect is an answer.
    pub async fn send(
        &self,
        method: Method,
        uri: &Uri,
        headers: &HeaderMap,
        what: &str,
        link: &Link,
    ) -> Result<Answer, RegistryError> {
        let mut uri = uri.clone();
        let mut headers = headers.clone();
        for _ in 0..=REDIRECTS {
            let response = self.once(&method, &uri, &headers, what, link).await?;
            let host = authority(&uri);
            let status = response.status();
            let follow = matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308);
            let Some(location) = response.headers().get(LOCATION).filter(|_| follow) else {
                let (head, incoming) = response.into_parts();
                let inactivity = self.tuning.inactivity_timeout;
                let body = Body { incoming, host, what: what.to_owned(), inactivity };
                return Ok(Answer { status: head.status, headers: head.headers, uri, body });
            };
            let next = redirected(&uri, location).map_err(|problem| RegistryError::Answer {
                host: host.clone(),
                what: what.to_owned(),
                problem,
            })?;
            if next.authority() != uri.authority() || next.scheme() != uri.scheme() {
                let for_anybody = |name: &HeaderName| [ACCEPT, RANGE, USER_AGENT].contains(name);
                let all = headers.iter().filter(|(name, _)| for_anybody(name));
                headers = all.map(|(name, value)| (name.clone(), value.clone())).collect();
            }
            uri = next;
        }
        let problem = format!("more than {REDIRECTS} redirects");
        Err(RegistryError::Answer { host: authority(&uri), what: what.to_owned(), problem })
    }

    async fn once(
        &self,
        method: &Method,
        uri: &Uri,
        headers: &HeaderMap,
        what: &str,
        link: &Link,
    ) -> Result<Response<Incoming>, RegistryError> {
        let host = authority(uri);
        let setup = |problem: String| RegistryError::Setup { what: what.to_owned(), problem };
        let mut request = Request::new(Empty::new());
        *request.method_mut() = method.clone();
        *request.uri_mut() = uri.clone();
        *request.headers_mut() = headers.clone();
        let pending = match uri.scheme_str() {
            Some("http") if link.plain || is_loopback(&host) => self.plain.request(request),
            Some("https") => match self.proxies.intercept(uri).filter(|_| !is_loopback(&host)) {
                None => self.direct(link).map_err(setup)?.request(request),
                Some(proxy) => self.proxied(&proxy, link).map_err(setup)?.request(request),
            },
            _ => {
                let cure = "configure it as http:// in hosts.toml where that is wanted";
                let problem =
                    format!("{host} is not on this machine: plain HTTP is not spoken to it; {cure}");
                return Err(setup(problem));
            }
        };
        let after = self.tuning.header_timeout;
        let (host, what) = (host.clone(), what.to_owned());
        match tokio::time::timeout(after, pending).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(source)) => Err(RegistryError::Connect { host, what, source }),
            Err(_) => Err(RegistryError::Timeout { host, what, after }),
        }
    }

    fn direct(&self, link: &Link) -> Result<Direct, String> {
        let build = || Ok(builder().build(over_tls(tcp(&self.tuning, false), link)?));
        kept(&self.direct, link.key(), build)
    }

    fn proxied(&self, proxy: &Intercept, link: &Link) -> Result<Proxied, String> {
        if proxy.uri().scheme_str() != Some("http") {
            let host = authority(proxy.uri());
            return Err(format!("proxy {host}: only http:// proxies are spoken to: correct HTTPS_PROXY"));
        }
        kept(&self.proxied, (proxy.uri().clone(), link.key()), || {
            let mut tunnel = Tunnel::new(proxy.uri().clone(), tcp(&self.tuning, true));
            if let Some(auth) = proxy.basic_auth() {
                tunnel = tunnel.with_auth(auth.clone());
            }
            Ok(builder().build(over_tls(tunnel, link)?))
        })
    }
}

/// The client of that key, made where there is none.
fn kept<K: Hash + Eq, C: Clone>(
    clients: &Mutex<HashMap<K, C>>,
    key: K,
    build: impl FnOnce() -> Result<C, String>,
) -> Result<C, String> {
    let mut clients = clients.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(client) = clients.get(&key) {
        return Ok(client.clone());
    }
    let client = build()?;
    if clients.len() >= CLIENTS {
        clients.clear();
    }
    clients.insert(key, client.clone());
    Ok(client)
}

impl Body {
    /// The next piece; `None` at the end. Cancel-safe.
    ///
    /// # Errors
    /// Where the connection broke or nothing came for too long.
    pub async fn next(&mut self) -> Result<Option<Bytes>, RegistryError> {
        loop {
            let (host, what) = (self.host.clone(), self.what.clone());
            match tokio::time::timeout(self.inactivity, self.incoming.frame()).await {
                Err(_) => return Err(RegistryError::Timeout { host, what, after: self.inactivity }),
                Ok(None) => return Ok(None),
                Ok(Some(Err(source))) => return Err(RegistryError::Broken { host, what, source }),
                Ok(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) if !data.is_empty() => return Ok(Some(data)),
                    _ => {} // trailers
                },
            }
        }
    }

    /// All of it, where it has at most `limit` bytes and does not trickle for ever.
    ///
    /// # Errors
    /// As [`Body::next`], and where there is more.
    pub async fn all(self, limit: usize) -> Result<Vec<u8>, RegistryError> {
        let (host, what, after) = (self.host.clone(), self.what.clone(), self.inactivity * 2);
        let late = |_| Err(RegistryError::Trickle { host, what, after });
        tokio::time::timeout(after, self.up_to(limit)).await.unwrap_or_else(late)
    }

    async fn up_to(mut self, limit: usize) -> Result<Vec<u8>, RegistryError> {
        let mut all = Vec::new();
        while let Some(data) = self.next().await? {
            if all.len() + data.len() > limit {
                let problem = format!("more than {limit} bytes");
                return Err(RegistryError::Answer { host: self.host, what: self.what, problem });
            }
            all.extend_from_slice(&data);
        }
        Ok(all)
    }

    /// At most `limit` bytes of it, as far as they come: for the words of an error.
    pub async fn some(mut self, limit: usize) -> Vec<u8> {
        let mut some = Vec::new();
        while some.len() < limit {
            match self.next().await {
                Ok(Some(data)) => some.extend_from_slice(&data),
                _ => break,
            }
        }
        some.truncate(limit);
        some
    }
}

/// Host and port of a URI, without any user.
pub fn authority(uri: &Uri) -> String {
    match (uri.host(), uri.port_u16()) {
        (Some(host), Some(port)) => format!("{host}:{port}"),
        (Some(host), None) => host.to_owned(),
        _ => String::new(),
    }
}

/// Where a redirect leads. Never named in full: it may be signed.
fn redirected(from: &Uri, location: &HeaderValue) -> Result<Uri, String> {
    let bad = || "a redirect to something that is not a URL".to_owned();
    let text = location.to_str().map_err(|_| bad())?;
    let base = url::Url::parse(&from.to_string()).map_err(|_| bad())?;
    let next = base.join(text).map_err(|_| bad())?;
    if next.scheme() != "https" && from.scheme_str() == Some("https") {
        return Err(format!("a redirect from https to {}", next.scheme()));
    }
    next.as_str().parse().map_err(|_| bad())
}

fn builder() -> hyper_util::client::legacy::Builder {
    let mut builder = Client::builder(TokioExecutor::new());
    builder
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(Duration::from_secs(20))
        .pool_max_idle_per_host(8)
        .http1_max_buf_size(64 << 10);
    builder
}

fn tcp(tuning: &PullTuning, http_only: bool) -> HttpConnector {
    let mut connector = HttpConnector::new();
    connector.enforce_http(http_only);
    connector.set_nodelay(true);
    connector.set_keepalive(Some(Duration::from_secs(30)));
    connector.set_connect_timeout(Some(tuning.connect_timeout));
    connector
}

/// TLS over `inner`.
fn over_tls<C>(inner: C, link: &Link) -> Result<HttpsConnector<C>, String> {
    let builder = HttpsConnectorBuilder::new().with_tls_config(link.config()?);
    Ok(builder.https_only().enable_http1().wrap_connector(inner))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_are_joined_and_never_lead_out_of_tls() {
        let from: Uri = "https://r.example/v2/a".parse().unwrap();
        let to = |text: &str| redirected(&from, &HeaderValue::from_str(text).unwrap());
        assert_eq!(to("/x?y=1").unwrap().to_string(), "https://r.example/x?y=1");
        assert_eq!(to("https://s3.example/b").unwrap().to_string(), "https://s3.example/b");
        assert!(to("http://127.0.0.1/b").is_err());
        assert!(to("file:///etc/passwd").is_err());
    }

    #[test]
    fn an_authority_has_no_user() {
        let uri: Uri = "http://u:CANARY@h:81/".parse().unwrap();
        assert_eq!(authority(&uri), "h:81");
    }
}
