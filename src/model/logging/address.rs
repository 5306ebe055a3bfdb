//! Addresses of log servers: `tcp://host:port`, `tls://...`, `udp://...`, `unix:///path`.

use std::fmt;
use std::path::PathBuf;

/// A server that is reached by a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServerAddress {
    /// TCP.
    Tcp(String, u16),
    /// TLS over TCP.
    Tls(String, u16),
    /// A unix socket.
    Unix(PathBuf),
}

impl fmt::Display for ServerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(host, port) | Self::Tls(host, port) => write!(f, "tcp {host}:{port}"),
            Self::Unix(path) => write!(f, "unix {}", path.display()),
        }
    }
}

/// `scheme` and the rest; none where there is no `://`.
pub(super) fn scheme(text: &str) -> Option<(&str, &str)> {
    text.split_once("://")
}

/// `host:port`, `[v6]:port`, `host`; a path, user or query is none. Without a port it is `default`, and
/// without that none.
pub(super) fn host_and_port(text: &str, default: Option<u16>) -> Option<(String, u16)> {
    let fit = |c: char| c.is_ascii_alphanumeric() || "-._:[]%".contains(c);
    let text = text.strip_suffix('/').unwrap_or(text);
    if text.is_empty() || !text.chars().all(fit) {
        return None;
    }
    let (host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, "")) => (host, None),
        Some((host, port)) => (host, Some(port.strip_prefix(':')?)),
        None => text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port))),
    };
    let port = match port {
        Some(port) => port.parse::<u16>().ok().filter(|port| *port > 0)?,
        None => default?,
    };
    (!host.is_empty()).then(|| (host.to_owned(), port))
}

/// An absolute path.
pub(super) fn socket_path(text: &str) -> Option<PathBuf> {
    (text.starts_with('/') && text.len() > 1).then(|| PathBuf::from(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_and_ports() {
        for (text, want) in [
            ("log.example:1234", Some(("log.example", 1234))),
            ("10.0.0.1", Some(("10.0.0.1", 99))),
            ("[::1]:5", Some(("::1", 5))),
            ("[fe80::1%eth0]", Some(("fe80::1%eth0", 99))),
            ("host:5/", Some(("host", 5))),
            ("host:5/path", None),
            (":5", None),
            ("host:0", None),
            ("host:x", None),
            ("user@host", None),
            ("", None),
        ] {
            let want = want.map(|(host, port)| (host.to_owned(), port));
            assert_eq!(host_and_port(text, Some(99)), want, "{text}");
        }
        assert_eq!(host_and_port("host", None), None);
        assert_eq!(socket_path("x"), None);
    }
}
