//! Reaching the host, through the proxy that `HTTPS_PROXY` names where there is one
//! (spec/control-plane.md 0.2). Plain `http` and this machine are always dialled directly.

use hyper_util::client::proxy::matcher::Matcher;
use std::io::{Error, ErrorKind};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// The longest answer that a proxy may give to CONNECT.
const MAX_ANSWER: usize = 16 * 1024;

/// A TCP stream that leads to the URL's host.
pub(super) async fn dial(url: &url::Url) -> std::io::Result<TcpStream> {
    let host = url.host_str().unwrap_or_default().to_owned();
    let port = url.port_or_known_default().unwrap_or(443);
    let stream = match proxy_for(url, &host) {
        Some((proxy, authorization)) => through(&proxy, &host, port, authorization).await?,
        None => TcpStream::connect((host.trim_matches(['[', ']']), port)).await?,
    };
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// `host:port` of the proxy and its `Proxy-Authorization`.
fn proxy_for(url: &url::Url, host: &str) -> Option<(String, Option<String>)> {
    let here = host == "localhost"
        || host.trim_matches(['[', ']']).parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback());
    if url.scheme() != "https" || here {
        return None;
    }
    let proxy = Matcher::from_env().intercept(&url.as_str().parse().ok()?)?;
    let uri = proxy.uri();
    let port = uri.port_u16().unwrap_or(if uri.scheme_str() == Some("https") { 443 } else { 80 });
    let authorization = proxy.basic_auth().and_then(|v| v.to_str().ok()).map(str::to_owned);
    Some((format!("{}:{port}", uri.host()?), authorization))
}

async fn through(
    proxy: &str,
    host: &str,
    port: u16,
    authorization: Option<String>,
) -> std::io::Result<TcpStream> {
    let mut stream = TcpStream::connect(proxy).await?;
    let authorization = authorization.map(|a| format!("Proxy-Authorization: {a}\r\n")).unwrap_or_default();
    let ask = format!("CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n{authorization}\r\n");
    stream.write_all(ask.as_bytes()).await?;
    let mut answer = Vec::new();
    // Byte by byte: what follows the empty line belongs to TLS.
    while !answer.ends_with(b"\r\n\r\n") {
        if answer.len() >= MAX_ANSWER {
            return Err(Error::new(ErrorKind::InvalidData, format!("the proxy {proxy} answers without end")));
        }
        answer.push(stream.read_u8().await?);
    }
    let status = String::from_utf8_lossy(&answer);
    let status = status.lines().next().unwrap_or_default();
    match status.split(' ').nth(1) {
        Some("200") => Ok(stream),
        _ => {
            let message = format!("the proxy {proxy} refused to reach {host}:{port}: {status}");
            Err(Error::new(ErrorKind::ConnectionRefused, message))
        }
    }
}
