//! A small HTTP/1.1 client that blocks: one host, one connection that is kept. For the two log
//! drivers that speak HTTP: their program has no runtime, and sends one request at a time.
//!
//! Every step has a limit in time, every answer one in size. What is refused or cut is the caller's
//! to repeat; only a kept connection that turns out to be closed is replaced here.

use crate::model::logging::Environment;
use crate::reach::proxy::{Proxies, Proxy, ProxyError};
use crate::reach::tls::{Trust, client};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use url::Url;

/// To reach a host; each of its addresses gets it.
const CONNECT: Duration = Duration::from_secs(5);
/// For the next bytes of an answer, and to hand on the next of a request.
const NEXT_BYTES: Duration = Duration::from_secs(20);
/// The longest head and the most headers of an answer.
const HEAD_MAX: usize = 16 * 1024;
const HEADERS_MAX: usize = 64;
/// The longest body that is taken; errors and credentials are short.
const BODY_MAX: usize = 64 * 1024;
/// A connection that lay still for longer is not trusted to be open.
const IDLE_MAX: Duration = Duration::from_secs(50);

/// A host that could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// The URL.
    #[error("{url:?} is no URL of the form http[s]://host[:port]")]
    Url {
        /// As it was given.
        url: String,
    },
    /// The proxy's variable can't be used.
    #[error(transparent)]
    Proxy(#[from] ProxyError),
    /// TLS can't be set up.
    #[error("no certificates to check {host} by: {reason}")]
    Certificates {
        /// The host.
        host: String,
        /// Why.
        reason: String,
    },
    /// No connection, or a broken one.
    #[error("{doing} {host}: {source}")]
    Io {
        /// What was tried.
        doing: &'static str,
        /// The host, or the proxy.
        host: String,
        /// Why.
        source: io::Error,
    },
    /// The proxy said no.
    #[error("the proxy {proxy} refused to reach {host}: status {status} (check HTTPS_PROXY and NO_PROXY)")]
    ProxyRefused {
        /// The proxy.
        proxy: String,
        /// The host.
        host: String,
        /// Its status.
        status: u16,
    },
    /// What came is no HTTP/1.1, or too long.
    #[error("{host} gave no answer that can be understood: {reason}")]
    Answer {
        /// The host.
        host: String,
        /// Why not.
        reason: String,
    },
}

/// What is asked for.
#[derive(Clone, Copy)]
pub struct Request<'a> {
    /// `GET`, `POST`...
    pub method: &'a str,
    /// Path with query.
    pub path: &'a str,
    /// Besides `Host` and `Content-Length`.
    pub headers: &'a [(&'a str, &'a str)],
    /// Body.
    pub body: &'a [u8],
}

/// What came.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Answer {
    /// Status.
    pub status: u16,
    /// The words after it.
    pub reason: String,
    /// Headers, their names in lower case.
    pub headers: Vec<(String, String)>,
    /// Body, cut off after 64 KiB.
    pub body: Vec<u8>,
}

impl Answer {
    /// A header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// One host.
pub struct Client {
    https: bool,
    host: String,
    port: u16,
    /// As `Host` names it: the port only where it is not the scheme's own.
    authority: String,
    server_name: Option<String>,
    tls: Option<Arc<ClientConfig>>,
    proxy: Option<Proxy>,
    kept: Option<(Connection, Instant)>,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Client({})", self.authority)
    }
}

type Connection = Box<dyn Duplex>;

/// Bytes both ways.
trait Duplex: Read + Write + Send {}
impl<T: Read + Write + Send> Duplex for T {}

impl Client {
    /// A client for the host of a URL; its path is left to the requests. Nothing is sent yet.
    ///
    /// # Errors
    /// [`HttpError`]
    pub fn new(url: &Url, environment: &Environment) -> Result<Self, HttpError> {
        let file = environment.get("SSL_CERT_FILE").map(Path::new);
        let directory = environment.get("SSL_CERT_DIR").map(Path::new);
        let trust = match (file, directory) {
            (None, None) => Trust::Machine,
            (file, directory) => Trust::Paths(file, directory),
        };
        Self::trusting(url, trust, environment)
    }

    /// The same, with its own choice of whom to believe.
    ///
    /// # Errors
    /// [`HttpError`]
    pub fn trusting(url: &Url, trust: Trust<'_>, environment: &Environment) -> Result<Self, HttpError> {
        let bad = || HttpError::Url { url: url.as_str().chars().take(256).collect() };
        let https = match url.scheme() {
            "https" => true,
            "http" => false,
            _ => return Err(bad()),
        };
        let host = url.host_str().filter(|host| !host.is_empty()).ok_or_else(bad)?;
        let port = url.port_or_known_default().ok_or_else(bad)?;
        let authority = match url.port() {
            Some(port) => format!("{host}:{port}"),
            None => host.to_owned(),
        };
        let proxies = Proxies::from_vars(|name| environment.get(name).map(str::to_owned));
        let proxy = proxies.to(https, host, port)?.cloned();
        let tls = match https || proxy.as_ref().is_some_and(|proxy| proxy.tls) {
            true => Some(
                client(trust)
                    .map(Arc::new)
                    .map_err(|reason| HttpError::Certificates { host: authority.clone(), reason })?,
            ),
            false => None,
        };
        let host = host.trim_matches(['[', ']']).to_owned();
        Ok(Self { https, host, port, authority, server_name: None, tls, proxy, kept: None })
    }

    /// Its certificate has to be for this name instead of the host's.
    #[must_use]
    pub fn named(mut self, name: String) -> Self {
        self.server_name = Some(name);
        self
    }

    /// `host[:port]`, as the `Host` header says it.
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// Asks, and reads the whole answer.
    ///
    /// # Errors
    /// [`HttpError`]. A request that was cut may have been carried out.
    pub fn send(&mut self, request: &Request<'_>) -> Result<Answer, HttpError> {
        if let Some((mut connection, since)) = self.kept.take()
            && since.elapsed() < IDLE_MAX
        {
            match self.exchange(&mut connection, request) {
                Ok((answer, keep)) => {
                    self.kept = keep.then(|| (connection, Instant::now()));
                    return Ok(answer);
                }
                // It was closed while it lay still, most likely: then nobody has seen the request.
                Err(Broken::BeforeAnswer(_)) => {}
                Err(Broken::Within(error)) => return Err(error),
            }
        }
        let mut connection = self.connect()?;
        match self.exchange(&mut connection, request) {
            Ok((answer, keep)) => {
                self.kept = keep.then(|| (connection, Instant::now()));
                Ok(answer)
            }
            Err(Broken::BeforeAnswer(error) | Broken::Within(error)) => Err(error),
        }
    }

    fn exchange(&self, connection: &mut Connection, request: &Request<'_>) -> Result<(Answer, bool), Broken> {
        let unsent = |source| Broken::BeforeAnswer(self.io("send to", source));
        let texts = request.headers.iter().flat_map(|(name, value)| [*name, *value]).chain([request.path]);
        if texts.flat_map(str::chars).any(char::is_control) {
            return Err(Broken::Within(self.io("send to", ErrorKind::InvalidInput.into())));
        }
        let mut head = Vec::with_capacity(1024);
        head.extend_from_slice(request.method.as_bytes());
        head.push(b' ');
        if !self.https && self.proxy.is_some() {
            head.extend_from_slice(format!("http://{}", self.authority).as_bytes());
        }
        head.extend_from_slice(request.path.as_bytes());
        head.extend_from_slice(format!(" HTTP/1.1\r\nHost: {}\r\n", self.authority).as_bytes());
        if let Some(authorization) = self.proxy.as_ref().filter(|_| !self.https).and_then(proxy_authorization)
        {
            head.extend_from_slice(authorization.as_bytes());
        }
        for (name, value) in request.headers {
            head.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
        }
        head.extend_from_slice(format!("Content-Length: {}\r\n\r\n", request.body.len()).as_bytes());
        connection.write_all(&head).map_err(unsent)?;
        connection.write_all(request.body).map_err(unsent)?;
        connection.flush().map_err(unsent)?;
        let mut reader = AnswerReader { connection, buffer: Vec::new(), at: 0 };
        reader.read(request.method == "HEAD", &self.authority)
    }

    fn connect(&self) -> Result<Connection, HttpError> {
        let (host, port) = match &self.proxy {
            Some(proxy) => (proxy.host.as_str(), proxy.port),
            None => (self.host.as_str(), self.port),
        };
        let named = self.proxy.as_ref().map_or_else(|| self.authority.clone(), ToString::to_string);
        let failed = |source| HttpError::Io { doing: "connect to", host: named.clone(), source };
        let mut wire: Connection = Box::new(tcp(host, port).map_err(failed)?);
        if let Some(proxy) = &self.proxy {
            if proxy.tls {
                wire = self.encrypt(wire, host)?;
            }
            if !self.https {
                return Ok(wire);
            }
            self.tunnel(&mut wire, proxy)?;
        }
        match self.https {
            true => self.encrypt(wire, self.server_name.as_deref().unwrap_or(&self.host)),
            false => Ok(wire),
        }
    }

    fn encrypt(&self, wire: Connection, name: &str) -> Result<Connection, HttpError> {
        let failed = |error: io::Error| self.io("TLS with", error);
        let config = self.tls.clone().ok_or_else(|| failed(ErrorKind::Unsupported.into()))?;
        let name = ServerName::try_from(name.to_owned()).map_err(|error| failed(io::Error::other(error)))?;
        let session = ClientConnection::new(config, name).map_err(|error| failed(io::Error::other(error)))?;
        let mut stream = StreamOwned::new(session, wire);
        // Now, so that a certificate that is not believed is told as such.
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock).map_err(failed)?;
        }
        Ok(Box::new(stream))
    }

    /// CONNECT.
    fn tunnel(&self, wire: &mut Connection, proxy: &Proxy) -> Result<(), HttpError> {
        let to = match self.host.contains(':') {
            true => format!("[{}]:{}", self.host, self.port),
            false => format!("{}:{}", self.host, self.port),
        };
        let failed = |source| HttpError::Io { doing: "ask the proxy", host: proxy.to_string(), source };
        let authorization = proxy_authorization(proxy).unwrap_or_default();
        let ask = format!("CONNECT {to} HTTP/1.1\r\nHost: {to}\r\n{authorization}\r\n");
        wire.write_all(ask.as_bytes()).map_err(failed)?;
        wire.flush().map_err(failed)?;
        let mut reader = AnswerReader { connection: wire, buffer: Vec::new(), at: 0 };
        let status = match reader.head(&proxy.to_string()) {
            Ok(head) => head.status,
            Err(Broken::BeforeAnswer(error) | Broken::Within(error)) => return Err(error),
        };
        match status {
            200 => Ok(()),
            status => Err(HttpError::ProxyRefused { proxy: proxy.to_string(), host: to, status }),
        }
    }

    fn io(&self, doing: &'static str, source: io::Error) -> HttpError {
        HttpError::Io { doing, host: self.authority.clone(), source }
    }
}

fn proxy_authorization(proxy: &Proxy) -> Option<String> {
    let value = proxy.authorization.as_ref()?.to_str().ok()?;
    Some(format!("Proxy-Authorization: {value}\r\n"))
}

fn tcp(host: &str, port: u16) -> io::Result<TcpStream> {
    let mut last = io::Error::new(ErrorKind::NotFound, "the name has no address");
    for address in (host, port).to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, CONNECT) {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(NEXT_BYTES))?;
                stream.set_write_timeout(Some(NEXT_BYTES))?;
                return Ok(stream);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Where an exchange broke.
enum Broken {
    /// Not a byte of the answer was seen.
    BeforeAnswer(HttpError),
    /// Within the answer.
    Within(HttpError),
}

/// The head of an answer.
struct Head {
    status: u16,
    reason: String,
    headers: Vec<(String, String)>,
}

/// Reads one answer; nothing is sent ahead of the next request, so what is read beyond it is none.
struct AnswerReader<'a> {
    connection: &'a mut Connection,
    buffer: Vec<u8>,
    /// What of the buffer was used.
    at: usize,
}

impl AnswerReader<'_> {
    /// The answer, and whether the connection may be used again.
    fn read(&mut self, bodyless: bool, host: &str) -> Result<(Answer, bool), Broken> {
        let head = loop {
            let head = self.head(host)?;
            if !(100..200).contains(&head.status) {
                break head;
            }
        };
        let mut answer =
            Answer { status: head.status, reason: head.reason, headers: head.headers, body: Vec::new() };
        let says = |name: &str, word: &str| {
            answer.header(name).is_some_and(|value| value.to_ascii_lowercase().contains(word))
        };
        let mut keep = !says("connection", "close");
        let length = answer.header("content-length").map(|value| value.trim().parse::<usize>());
        let within = |reason: String| Broken::Within(HttpError::Answer { host: host.to_owned(), reason });
        let chunked = says("transfer-encoding", "chunked");
        match length {
            _ if bodyless || matches!(answer.status, 204 | 304) => {}
            _ if chunked => {
                let (body, whole) = self.chunks().map_err(|error| within(error.to_string()))?;
                (answer.body, keep) = (body, keep && whole);
            }
            Some(length) => {
                let length = length.map_err(|_| within("its length is no number".to_owned()))?;
                answer.body = self.take(length.min(BODY_MAX)).map_err(|error| within(error.to_string()))?;
                keep = keep && length <= BODY_MAX;
            }
            // It ends with the connection.
            None => {
                while self.buffer.len() - self.at < BODY_MAX
                    && self.more().map_err(|error| within(error.to_string()))? > 0
                {}
                answer.body = self.buffer.split_off(self.at);
                answer.body.truncate(BODY_MAX);
                keep = false;
            }
        }
        keep = keep && self.at == self.buffer.len();
        Ok((answer, keep))
    }

    fn head(&mut self, host: &str) -> Result<Head, Broken> {
        let cut = |seen: bool, source: io::Error| {
            let error = HttpError::Io { doing: "wait for", host: host.to_owned(), source };
            if seen { Broken::Within(error) } else { Broken::BeforeAnswer(error) }
        };
        let strange = |reason: String| Broken::Within(HttpError::Answer { host: host.to_owned(), reason });
        loop {
            let seen = self.buffer.get(self.at..).unwrap_or_default();
            let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
            let mut parsed = httparse::Response::new(&mut headers);
            match parsed.parse(seen) {
                Ok(httparse::Status::Complete(length)) => {
                    let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
                    let head = Head {
                        status: parsed.code.unwrap_or_default(),
                        reason: parsed.reason.unwrap_or_default().to_owned(),
                        headers: parsed
                            .headers
                            .iter()
                            .map(|header| (header.name.to_ascii_lowercase(), text(header.value)))
                            .collect(),
                    };
                    self.at += length;
                    return Ok(head);
                }
                Ok(httparse::Status::Partial) if seen.len() < HEAD_MAX => {}
                Ok(httparse::Status::Partial) => return Err(strange("its head has no end".to_owned())),
                Err(error) => return Err(strange(error.to_string())),
            }
            let seen = !seen.is_empty();
            match self.more() {
                Ok(0) => return Err(cut(seen, ErrorKind::UnexpectedEof.into())),
                Ok(_) => {}
                // One that is late may still be at work on it.
                Err(error) => return Err(cut(seen || error.kind() == ErrorKind::TimedOut, error)),
            }
        }
    }

    /// A chunked body, and whether it was read to its end.
    fn chunks(&mut self) -> io::Result<(Vec<u8>, bool)> {
        let mut body = Vec::new();
        loop {
            let size = loop {
                let seen = self.buffer.get(self.at..).unwrap_or_default();
                match httparse::parse_chunk_size(seen) {
                    Ok(httparse::Status::Complete((used, size))) => {
                        self.at += used;
                        break usize::try_from(size).unwrap_or(usize::MAX);
                    }
                    Ok(httparse::Status::Partial) if seen.len() < HEAD_MAX => {}
                    _ => return Err(io::Error::new(ErrorKind::InvalidData, "a chunk has no size")),
                }
                if self.more()? == 0 {
                    return Err(ErrorKind::UnexpectedEof.into());
                }
            };
            let room = BODY_MAX - body.len();
            if size > room {
                body.append(&mut self.take(room)?);
                return Ok((body, false));
            }
            body.append(&mut self.take(size)?);
            if size == 0 {
                // Trailers end with an empty line; nobody here wants any.
                return Ok((body, self.take(2)? == b"\r\n"));
            }
            self.take(2)?;
        }
    }

    /// Exactly so many bytes.
    fn take(&mut self, count: usize) -> io::Result<Vec<u8>> {
        while self.buffer.len() - self.at < count {
            if self.more()? == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
        }
        let taken = self.buffer.get(self.at..self.at + count).unwrap_or_default().to_vec();
        self.at += count;
        Ok(taken)
    }

    fn more(&mut self) -> io::Result<usize> {
        let mut chunk = [0; 4096];
        loop {
            match self.connection.read(&mut chunk) {
                Ok(count) => {
                    self.buffer.extend_from_slice(chunk.get(..count).unwrap_or_default());
                    return Ok(count);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // How a timeout of a socket shows.
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Err(ErrorKind::TimedOut.into()),
                Err(error) => return Err(error),
            }
        }
    }
}

#[cfg(test)]
#[path = "http_tests.rs"]
mod tests;
