//! A small forward proxy in this process: CONNECT and whole requests, with a password. Whatever host
//! is asked for, it leads to one upstream; it tells what it was asked.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// `user:pa:ss` in base64.
pub const AUTHORIZATION: &str = "Basic dXNlcjpwYTpzcw==";

pub struct Proxy {
    scheme: &'static str,
    address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
    server: tokio::task::JoinHandle<()>,
}

impl Proxy {
    pub async fn start(upstream: SocketAddr) -> Self {
        Self::start_as(upstream, None).await
    }

    /// One that itself speaks TLS.
    pub async fn start_as(upstream: SocketAddr, tls: Option<Arc<rustls::ServerConfig>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let asked: Arc<Mutex<Vec<String>>> = Arc::default();
        let for_server = asked.clone();
        let scheme = if tls.is_some() { "https" } else { "http" };
        let server = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (asked, tls) = (for_server.clone(), tls.clone());
                tokio::spawn(async move {
                    match tls {
                        None => serve(stream, upstream, asked).await,
                        Some(tls) => {
                            let stream = tokio_rustls::TlsAcceptor::from(tls).accept(stream).await.unwrap();
                            serve(stream, upstream, asked).await;
                        }
                    }
                });
            }
        });
        Self { scheme, address, asked, server }
    }

    /// With this password.
    pub fn url(&self, password: &str) -> String {
        format!("{}://user:{password}@{}", self.scheme, self.address)
    }

    /// `METHOD target` of each request so far.
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn serve(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    upstream: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return,
        }
    }
    let head = String::from_utf8(head).unwrap();
    let (line, rest) = head.split_once("\r\n").unwrap();
    let mut words = line.split(' ');
    let (method, target) = (words.next().unwrap(), words.next().unwrap());
    asked.lock().unwrap().push(format!("{method} {target}"));
    let expected = format!("proxy-authorization: {AUTHORIZATION}").to_lowercase();
    if !rest.to_lowercase().contains(&expected) {
        let refusal = b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n";
        let _ = stream.write_all(refusal).await;
        let _ = stream.shutdown().await;
        return;
    }
    let mut to = TcpStream::connect(upstream).await.unwrap();
    if method == "CONNECT" {
        stream.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await.unwrap();
    } else {
        let url = url::Url::parse(target).expect("a whole URL");
        let query = url.query().map(|query| format!("?{query}")).unwrap_or_default();
        // One request a connection: the next would not be rewritten.
        let head = format!("{method} {}{query} HTTP/1.1\r\nconnection: close\r\n{rest}", url.path());
        to.write_all(head.as_bytes()).await.unwrap();
    }
    let _ = tokio::io::copy_bidirectional(&mut stream, &mut to).await;
}
