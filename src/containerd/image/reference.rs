//! Image references: `[host[:port]/]path[:tag][@digest]`, with Docker's defaults filled in. Pure.
//! What passed here is fit for a URL path and for the name of a containerd image record.

use crate::model::ImageDigest;
use std::net::IpAddr;

/// Longest reference that is taken, in bytes.
const LONGEST: usize = 512;
/// Docker Hub, as references name it.
const HUB: &str = "docker.io";

/// Why a text is no image reference.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    /// Empty or absurdly long.
    #[error("image reference has {0} bytes: expected 1 to {LONGEST}")]
    Length(usize),
    /// The registry's part.
    #[error(
        "image reference {reference:?}: {host:?} is not a registry host, such as registry.example.com:5000"
    )]
    Host {
        /// Whole text.
        reference: String,
        /// The offending part.
        host: String,
    },
    /// The repository's part.
    #[error(
        "image reference {reference:?}: {path:?} is not a repository: use lower-case letters, digits, \
         single '.', '_' or '-' between them, and '/'"
    )]
    Path {
        /// Whole text.
        reference: String,
        /// The offending part.
        path: String,
    },
    /// The tag.
    #[error("image reference {reference:?}: {tag:?} is not a tag: use up to 128 of [A-Za-z0-9_.-]")]
    Tag {
        /// Whole text.
        reference: String,
        /// The offending part.
        tag: String,
    },
    /// The digest.
    #[error(
        "image reference {reference:?}: {digest:?} is not a digest: expected sha256:<64 lower-case hex digits>"
    )]
    Digest {
        /// Whole text.
        reference: String,
        /// The offending part.
        digest: String,
    },
}

/// A normalised reference.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Reference {
    host: String,
    path: String,
    tag: String,
    digest: Option<ImageDigest>,
}

impl Reference {
    /// Reads a reference as Docker does: no host means Docker Hub, one path component there means
    /// `library/`, no tag means `latest`.
    ///
    /// # Errors
    /// [`ReferenceError`] naming the part that is wrong.
    pub fn parse(text: &str) -> Result<Self, ReferenceError> {
        if text.is_empty() || text.len() > LONGEST {
            return Err(ReferenceError::Length(text.len()));
        }
        let reference = text.to_owned();
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => match ImageDigest::parse(digest) {
                Some(parsed) => (rest, Some(parsed)),
                None => return Err(ReferenceError::Digest { reference, digest: digest.to_owned() }),
            },
            None => (text, None),
        };
        let (host, rest) = match rest.split_once('/') {
            Some((first, rest)) if names_host(first) => (first, rest),
            _ => (HUB, rest),
        };
        if !fit_host(host) {
            return Err(ReferenceError::Host { reference, host: host.to_owned() });
        }
        let (path, tag) = rest.rsplit_once(':').unwrap_or((rest, "latest"));
        if !path.split('/').all(fit_component) {
            return Err(ReferenceError::Path { reference, path: path.to_owned() });
        }
        if !fit_tag(tag) {
            return Err(ReferenceError::Tag { reference, tag: tag.to_owned() });
        }
        let host = if host == "index.docker.io" { HUB } else { host };
        let path = match host == HUB && !path.contains('/') {
            true => format!("library/{path}"),
            false => path.to_owned(),
        };
        Ok(Self { host: host.to_owned(), path, tag: tag.to_owned(), digest })
    }

    /// The registry's host (and port), as references name it.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The host that serves the registry's API.
    pub fn api_host(&self) -> &str {
        if self.host == HUB { "registry-1.docker.io" } else { &self.host }
    }

    /// The repository, such as `library/busybox`.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The tag; `latest` where none was written.
    pub fn tag(&self) -> &str {
        &self.tag
    }

    /// The digest, where one was written; then the tag means nothing (spec/task-engine.md 3.2).
    pub fn digest(&self) -> Option<&ImageDigest> {
        self.digest.as_ref()
    }

    /// The name of the containerd image record.
    pub fn record_name(&self) -> String {
        match &self.digest {
            Some(digest) => format!("{}/{}@{digest}", self.host, self.path),
            None => format!("{}/{}:{}", self.host, self.path, self.tag),
        }
    }
}

/// Whether a host (perhaps with a port) is this machine: the only kind that plain HTTP is spoken to.
pub fn is_loopback(authority: &str) -> bool {
    let host = match authority.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => authority.split(':').next().unwrap_or_default(),
    };
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// Whether the first component of a reference is a host rather than a path.
fn names_host(first: &str) -> bool {
    first == "localhost" || first.contains(['.', ':']) || first.chars().any(|c| c.is_ascii_uppercase())
}

fn fit_host(host: &str) -> bool {
    let (name, port) = match host.strip_prefix('[') {
        Some(rest) => {
            let Some((address, rest)) = rest.split_once(']') else { return false };
            if address.parse::<std::net::Ipv6Addr>().is_err() {
                return false;
            }
            match rest.strip_prefix(':') {
                Some(port) => return fit_port(port),
                None => return rest.is_empty(),
            }
        }
        None => host.split_once(':').map_or((host, None), |(name, port)| (name, Some(port))),
    };
    let label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    name.len() <= 253 && name.split('.').all(label) && port.is_none_or(fit_port)
}

fn fit_port(port: &str) -> bool {
    port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|port| port > 0)
}

/// `[a-z0-9]+` separated by `.`, `_`, `__` or any number of `-`.
fn fit_component(part: &str) -> bool {
    let alphanumeric = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let separators = part.split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit());
    let separated = |s: &str| matches!(s, "" | "." | "_" | "__") || s.bytes().all(|b| b == b'-');
    part.bytes().next().is_some_and(alphanumeric)
        && part.bytes().last().is_some_and(alphanumeric)
        && separators.into_iter().all(separated)
}

fn fit_tag(tag: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    tag.len() <= 128
        && tag.bytes().next().is_some_and(word)
        && tag.bytes().all(|b| word(b) || b == b'.' || b == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    #[test]
    fn names_are_normalised() {
        for (written, record) in [
            ("busybox", "docker.io/library/busybox:latest"),
            ("busybox:1.36", "docker.io/library/busybox:1.36"),
            ("me/app", "docker.io/me/app:latest"),
            ("docker.io/busybox", "docker.io/library/busybox:latest"),
            ("index.docker.io/a/b:c", "docker.io/a/b:c"),
            ("127.0.0.1:5000/bb:1", "127.0.0.1:5000/bb:1"),
            ("localhost/a__b/c--d", "localhost/a__b/c--d:latest"),
            ("[::1]:5000/x", "[::1]:5000/x:latest"),
            ("1.dkr.ecr.us-west-2.amazonaws.com/a/b:v1.2", "1.dkr.ecr.us-west-2.amazonaws.com/a/b:v1.2"),
        ] {
            assert_eq!(Reference::parse(written).unwrap().record_name(), record, "{written}");
        }
        let pinned = Reference::parse(&format!("busybox:1@{DIGEST}")).unwrap();
        assert_eq!(pinned.record_name(), format!("docker.io/library/busybox@{DIGEST}"));
        assert_eq!(pinned.api_host(), "registry-1.docker.io");
    }

    #[test]
    fn hostile_references_are_refused() {
        let long = "a".repeat(600);
        for text in [
            "",
            &long,
            "../etc/passwd",
            "a/../b",
            "a//b",
            "/a",
            "a/",
            "A",
            "a b",
            "a:",
            "a:b:c",
            "a@sha256:00",
            "a@md5:0",
            "host:99999/a",
            "host:x/a",
            "-h.com/a",
            "h..com/a",
            "[::g]/a",
            "u:p@h.com/a",
            "a?x=1",
            "a%2e",
            "a\n",
            "é",
            "a:-x",
            ".a",
            "a___b",
            "[::1/a",
            "a._b",
        ] {
            assert!(Reference::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn only_this_machine_is_loopback() {
        for host in ["127.0.0.1", "127.9.9.9:80", "localhost:5000", "[::1]:5000", "[::1]"] {
            assert!(is_loopback(host), "{host}");
        }
        for host in ["128.0.0.1", "localhost.evil.com", "127.0.0.1.evil.com", "[::2]", "docker.io"] {
            assert!(!is_loopback(host), "{host}");
        }
    }
}
