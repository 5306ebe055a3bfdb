//! A connection to a host of the control plane: TCP, through the proxy that the environment names,
//! and TLS where the scheme asks for it. The API, IMDS and both websockets dial by it.

use super::addresses;
use super::proxy::{Proxies, Proxy, ProxyError};
use super::tls::{Tls, TlsError};
use rustls::pki_types::ServerName;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// The longest answer that a proxy may give to CONNECT.
const MAX_ANSWER: usize = 16 * 1024;
/// A TLS handshake (spec/control-plane.md 0.2).
const TLS_HANDSHAKE: Duration = Duration::from_secs(10);

/// Bytes both ways.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin + std::fmt::Debug {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin + std::fmt::Debug> Duplex for T {}

/// A connection, whatever it goes through.
pub type Wire = Box<dyn Duplex>;

/// Where to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// With TLS.
    pub https: bool,
    /// Name or address, without brackets.
    pub host: String,
    /// Port.
    pub port: u16,
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (open, close) = if self.host.contains(':') { ("[", "]") } else { ("", "") };
        write!(f, "{open}{}{close}:{}", self.host, self.port)
    }
}

/// A host that could not be reached.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// The proxy's variable can't be used.
    #[error(transparent)]
    Proxy(#[from] ProxyError),
    /// TLS can't be set up here.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// No TCP connection.
    #[error("{to} can't be reached")]
    Connect {
        /// The host, or the proxy.
        to: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Not in time.
    #[error("{to} did not answer within {limit:?}")]
    Late {
        /// The host.
        to: String,
        /// The limit.
        limit: Duration,
    },
    /// The proxy broke off, or said what is no HTTP.
    #[error("the proxy {proxy} gave no answer that can be understood")]
    ProxyBroken {
        /// The proxy.
        proxy: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The proxy said no.
    #[error(
        "the proxy {proxy} refused to reach {to}: {status} (check HTTPS_PROXY, its user and password, NO_PROXY)"
    )]
    ProxyRefused {
        /// The proxy.
        proxy: String,
        /// The host.
        to: String,
        /// The proxy's status line.
        status: String,
    },
    /// Nobody that is trusted here vouches for the host.
    #[error(
        "the certificate of {to} is not trusted: where its CA is a private one, add that to the machine's CA \
         certificates or name its file in SSL_CERT_FILE"
    )]
    Certificate {
        /// The host.
        to: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The handshake failed.
    #[error("no TLS with {to}")]
    Handshake {
        /// The host.
        to: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

/// Dials; cheap to clone.
#[derive(Debug, Clone)]
pub struct Dialer {
    /// Proxies.
    pub proxies: Arc<Proxies>,
    /// TLS.
    pub tls: Tls,
}

impl Dialer {
    /// A connection to the target, and whether it is one to a proxy that takes whole requests: so for
    /// plain HTTP, unless `tunnel` wants the target itself.
    ///
    /// # Errors
    /// [`DialError`]
    pub async fn dial(&self, to: &Target, limit: Duration, tunnel: bool) -> Result<(Wire, bool), DialError> {
        let proxy = self.proxies.to(to.https, &to.host, to.port)?;
        let reach = async {
            let Some(proxy) = proxy else { return Ok((tcp(&to.host, to.port, limit).await?, false)) };
            let mut wire = tcp(&proxy.host, proxy.port, limit).await?;
            if proxy.tls {
                wire = self.encrypt(wire, &proxy.host, &proxy.to_string()).await?;
            }
            if !to.https && !tunnel {
                return Ok((wire, true));
            }
            through(wire, proxy, to).await.map(|wire| (wire, false))
        };
        let late = |limit| DialError::Late { to: to.to_string(), limit };
        let (wire, whole) = tokio::time::timeout(limit, reach).await.map_err(|_| late(limit))??;
        if !to.https {
            return Ok((wire, whole));
        }
        Ok((self.encrypt(wire, &to.host, &to.to_string()).await?, false))
    }

    async fn encrypt(&self, wire: Wire, host: &str, to: &str) -> Result<Wire, DialError> {
        let failed = |source: std::io::Error| {
            let cause = source.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
            let to = to.to_owned();
            match cause {
                Some(rustls::Error::InvalidCertificate(_)) => DialError::Certificate { to, source },
                _ => DialError::Handshake { to, source },
            }
        };
        let connector = tokio_rustls::TlsConnector::from(self.tls.config()?);
        let name = ServerName::try_from(host.to_owned())
            .map_err(|error| failed(std::io::Error::new(std::io::ErrorKind::InvalidInput, error)))?;
        let late = |_| DialError::Late { to: to.to_owned(), limit: TLS_HANDSHAKE };
        let done = tokio::time::timeout(TLS_HANDSHAKE, connector.connect(name, wire)).await.map_err(late)?;
        Ok(Box::new(done.map_err(failed)?))
    }
}

async fn tcp(host: &str, port: u16, limit: Duration) -> Result<Wire, DialError> {
    let to = || Target { https: false, host: host.to_owned(), port }.to_string();
    let failed = |source| DialError::Connect { to: to(), source };
    let found: Vec<SocketAddr> = tokio::net::lookup_host((host, port)).await.map_err(failed)?.collect();
    let stream = addresses::connect(&found, limit).await.map_err(failed)?;
    stream.set_nodelay(true).map_err(failed)?;
    Ok(Box::new(stream))
}

/// CONNECT.
async fn through(mut wire: Wire, proxy: &Proxy, to: &Target) -> Result<Wire, DialError> {
    let mut ask = format!("CONNECT {to} HTTP/1.1\r\nHost: {to}\r\n").into_bytes();
    if let Some(authorization) = &proxy.authorization {
        ask.extend_from_slice(b"Proxy-Authorization: ");
        ask.extend_from_slice(authorization.as_bytes());
        ask.extend_from_slice(b"\r\n");
    }
    ask.extend_from_slice(b"\r\n");
    let broken = |source| DialError::ProxyBroken { proxy: proxy.to_string(), source };
    wire.write_all(&ask).await.map_err(broken)?;
    let mut answer = Vec::new();
    // Byte by byte: what follows the empty line belongs to TLS.
    while !answer.ends_with(b"\r\n\r\n") {
        if answer.len() >= MAX_ANSWER {
            return Err(broken(std::io::Error::other("an answer without end")));
        }
        answer.push(wire.read_u8().await.map_err(broken)?);
    }
    let text = String::from_utf8_lossy(&answer);
    let status: String = text.lines().next().unwrap_or_default().chars().take(256).collect();
    match status.split(' ').nth(1) {
        Some("200") => Ok(wire),
        _ => Err(DialError::ProxyRefused { proxy: proxy.to_string(), to: to.to_string(), status }),
    }
}
