//! A small HTTP/1.1 server on threads, for fakes of log servers: it hands each request to a function.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;

/// A request, read whole.
#[derive(Debug, Clone)]
pub struct Request {
    pub method: String,
    pub path: String,
    pub headers: BTreeMap<String, String>,
    pub body: Vec<u8>,
}

/// What is answered.
#[derive(Debug, Clone)]
pub enum Reply {
    Answer {
        status: u16,
        headers: Vec<(&'static str, String)>,
        body: Vec<u8>,
    },
    /// In two chunks.
    Chunked {
        status: u16,
        body: Vec<u8>,
    },
    /// The connection is closed without a word.
    Cut,
}

impl Reply {
    pub fn json(status: u16, body: &serde_json::Value) -> Self {
        Self::Answer { status, headers: Vec::new(), body: body.to_string().into_bytes() }
    }
}

/// A byte stream of a connection.
pub trait Duplex: Read + Write + Send {}
impl<T: Read + Write + Send> Duplex for T {}

/// Serves until the process ends. With `tls` connections are encrypted.
pub fn serve(
    tls: Option<Arc<rustls::ServerConfig>>,
    answer: impl Fn(&Request) -> Reply + Send + Sync + 'static,
) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let answer = Arc::new(answer);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (stream, answer, tls) = (stream.unwrap(), Arc::clone(&answer), tls.clone());
            std::thread::spawn(move || {
                let stream: Box<dyn Duplex> = match tls {
                    Some(config) => encrypted(stream, config),
                    None => Box::new(stream),
                };
                connection(stream, &*answer)
            });
        }
    });
    address
}

fn encrypted(stream: TcpStream, config: Arc<rustls::ServerConfig>) -> Box<dyn Duplex> {
    let session = rustls::ServerConnection::new(config).unwrap();
    Box::new(rustls::StreamOwned::new(session, stream))
}

fn connection(mut stream: Box<dyn Duplex>, answer: &dyn Fn(&Request) -> Reply) {
    let mut seen = Vec::new();
    while let Some(request) = request(&mut stream, &mut seen) {
        let (status, headers, body, chunked) = match answer(&request) {
            Reply::Answer { status, headers, body } => (status, headers, body, false),
            Reply::Chunked { status, body } => (status, Vec::new(), body, true),
            Reply::Cut => return,
        };
        let mut out = format!("HTTP/1.1 {status} Because\r\n").into_bytes();
        for (name, value) in headers {
            out.extend(format!("{name}: {value}\r\n").bytes());
        }
        if chunked {
            let (first, second) = body.split_at(body.len() / 2);
            out.extend(b"Transfer-Encoding: chunked\r\n\r\n");
            for chunk in [first, second].into_iter().filter(|chunk| !chunk.is_empty()) {
                out.extend(format!("{:x}\r\n", chunk.len()).bytes());
                out.extend(chunk);
                out.extend(b"\r\n");
            }
            out.extend(b"0\r\n\r\n");
        } else {
            out.extend(format!("Content-Length: {}\r\n\r\n", body.len()).bytes());
            out.extend(body);
        }
        if stream.write_all(&out).and_then(|()| stream.flush()).is_err() {
            return;
        }
    }
}

/// The next request; `None` at the end of the connection.
fn request(stream: &mut Box<dyn Duplex>, seen: &mut Vec<u8>) -> Option<Request> {
    let mut more = |seen: &mut Vec<u8>| {
        let mut chunk = [0; 65536];
        let count = stream.read(&mut chunk).ok().filter(|count| *count > 0)?;
        seen.extend_from_slice(&chunk[..count]);
        Some(())
    };
    let (mut request, used) = loop {
        let mut headers = [httparse::EMPTY_HEADER; 64];
        let mut parsed = httparse::Request::new(&mut headers);
        if let httparse::Status::Complete(used) = parsed.parse(seen).unwrap() {
            let headers = parsed.headers.iter();
            let text = |value: &[u8]| String::from_utf8(value.to_vec()).unwrap();
            let headers = headers.map(|h| (h.name.to_lowercase(), text(h.value))).collect();
            let (method, path) = (parsed.method.unwrap().to_owned(), parsed.path.unwrap().to_owned());
            break (Request { method, path, headers, body: Vec::new() }, used);
        }
        more(seen)?;
    };
    let length: usize = request.headers.get("content-length").map_or(0, |length| length.parse().unwrap());
    while seen.len() < used + length {
        more(seen)?;
    }
    request.body = seen[used..used + length].to_vec();
    seen.drain(..used + length);
    Some(request)
}
