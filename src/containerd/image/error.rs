//! What can go wrong between an image's name and its snapshot, and how it reads to a user. No
//! variant holds a credential or a signed URL.

use crate::containerd::image::hosts::HostsError;
use crate::containerd::image::reference::ReferenceError;
use crate::model::{ImageDigest, StopReason};
use std::error::Error;
use std::time::Duration;

/// A request to a registry (or to its token server) that failed.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// No connection.
    #[error("{what}: no answer from {host}")]
    Connect {
        /// Whom.
        host: String,
        /// Asked for what.
        what: String,
        /// Why.
        #[source]
        source: hyper_util::client::legacy::Error,
    },
    /// The connection broke.
    #[error("{what}: the connection to {host} broke")]
    Broken {
        /// Whom.
        host: String,
        /// Asked for what.
        what: String,
        /// How.
        #[source]
        source: hyper::Error,
    },
    /// It did not answer, or stopped in the middle.
    #[error("{what}: nothing came from {host} for {} s", after.as_secs_f64())]
    Timeout {
        /// Whom.
        host: String,
        /// Asked for what.
        what: String,
        /// How long.
        after: Duration,
    },
    /// A small answer that does not end.
    #[error("{what}: the answer of {host} did not end within {} s", after.as_secs_f64())]
    Trickle {
        /// Whom.
        host: String,
        /// Asked for what.
        what: String,
        /// How long.
        after: Duration,
    },
    /// It answered with an error.
    #[error("{what}: {host} answered {status}{words}")]
    Status {
        /// Who.
        host: String,
        /// Asked for what.
        what: String,
        /// The HTTP status.
        status: http::StatusCode,
        /// Its own words, after `: `, or nothing.
        words: String,
        /// `Retry-After`.
        wish: Option<Duration>,
    },
    /// The body ended too early.
    #[error("{what}: {host} sent {got} of {wanted} bytes")]
    Short {
        /// Who.
        host: String,
        /// Asked for what.
        what: String,
        /// Bytes that came.
        got: u64,
        /// Bytes that were due.
        wanted: u64,
    },
    /// An answer that makes no sense.
    #[error("{what}: answer of {host}: {problem}")]
    Answer {
        /// Who.
        host: String,
        /// Asked for what.
        what: String,
        /// What is wrong with it.
        problem: String,
    },
    /// This machine can't speak to it.
    #[error("{what}: {problem}")]
    Setup {
        /// Asked for what.
        what: String,
        /// What is missing.
        problem: String,
    },
}

impl RegistryError {
    /// Whether trying again can help.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Connect { source, .. } => !refuses_certificate(source),
            Self::Broken { .. } | Self::Timeout { .. } | Self::Short { .. } | Self::Trickle { .. } => true,
            Self::Status { status, .. } => status.is_server_error() || status.as_u16() == 429,
            Self::Answer { .. } | Self::Setup { .. } => false,
        }
    }

    /// Whether the registry could not be talked to at all.
    pub fn is_unreachable(&self) -> bool {
        matches!(self, Self::Connect { .. } | Self::Timeout { .. } | Self::Trickle { .. })
    }

    /// `Retry-After`.
    pub fn wish(&self) -> Option<Duration> {
        if let Self::Status { wish, .. } = self { *wish } else { None }
    }
}

/// A pull or an import that failed.
#[derive(Debug, thiserror::Error)]
pub enum PullError {
    /// No image reference.
    #[error(transparent)]
    Reference(#[from] ReferenceError),
    /// A file of the registry's hosts can't be used.
    #[error(transparent)]
    Hosts(#[from] HostsError),
    /// The password that the task definition names could not be had.
    #[error("{}", .0.message)]
    Login(StopReason),
    /// The registry failed us.
    #[error("after {attempts} attempt(s)")]
    Registry {
        /// How often it was tried.
        attempts: u32,
        /// The last failure.
        #[source]
        source: Box<RegistryError>,
    },
    /// A blob could not be had.
    #[error("blob {digest} from {host}, after {attempts} attempt(s)")]
    Blob {
        /// Which.
        digest: ImageDigest,
        /// From where.
        host: String,
        /// How often it was tried.
        attempts: u32,
        /// The last failure.
        #[source]
        source: Box<RegistryError>,
    },
    /// What came is not what the digest says.
    #[error(
        "blob {digest} from {host}: its content does not match the digest, after {attempts} attempt(s): {words}"
    )]
    WrongBytes {
        /// Which.
        digest: ImageDigest,
        /// From where.
        host: String,
        /// How often it was fetched.
        attempts: u32,
        /// What containerd (or we) found.
        words: String,
    },
    /// A manifest, index or configuration that can't be used.
    #[error("{what} {digest}: {problem}")]
    Document {
        /// What it should be.
        what: &'static str,
        /// Which.
        digest: String,
        /// What is wrong.
        problem: String,
    },
    /// No image for this machine.
    #[error("image index {digest} has nothing for {wanted}: it offers {offered}")]
    Platform {
        /// The index.
        digest: ImageDigest,
        /// This machine.
        wanted: String,
        /// What there is.
        offered: String,
    },
    /// A layer whose content differs from what the configuration promises.
    #[error("layer {layer} unpacks to {found}, but the image's configuration promises {promised}")]
    DiffId {
        /// The layer.
        layer: ImageDigest,
        /// What it gave.
        found: String,
        /// What it should be.
        promised: String,
    },
    /// A layer that is made to fill the disk.
    #[error("layer {layer} of {size} bytes unpacks to more than {allowance} bytes: it is refused")]
    Bomb {
        /// The layer.
        layer: ImageDigest,
        /// Its bytes as it came.
        size: u64,
        /// What it may take.
        allowance: u64,
    },
    /// The disk is full.
    #[error(
        "{what}: no space left on the disk of containerd: free some or lower ECS_IMAGE_MINIMUM_CLEANUP_AGE ({words})"
    )]
    DiskFull {
        /// While doing what.
        what: String,
        /// containerd's words.
        words: String,
    },
    /// containerd failed us.
    #[error("{what}")]
    Containerd {
        /// While doing what.
        what: String,
        /// How.
        #[source]
        source: Box<tonic::Status>,
    },
    /// The registry took longer than is waited for where a local image serves.
    #[error("registry {host} did not answer within {} s", after.as_secs_f64())]
    Patience {
        /// Whom.
        host: String,
        /// How long.
        after: Duration,
    },
    /// The registry could not be reached a moment ago.
    #[error("registry {host} could not be reached {} s ago", ago.as_secs())]
    StillUnreachable {
        /// Whom.
        host: String,
        /// When.
        ago: Duration,
    },
}

impl PullError {
    /// A failed call to containerd; a full disk is told apart by containerd's words, for it has no
    /// code for that.
    pub fn containerd(what: impl Into<String>, status: tonic::Status) -> Self {
        let what = what.into();
        match status.message().contains("no space left on device") {
            true => Self::DiskFull { what, words: status.message().to_owned() },
            false => Self::Containerd { what, source: Box::new(status) },
        }
    }

    /// Whether the registry could not be talked to at all.
    pub fn is_unreachable(&self) -> bool {
        match self {
            Self::Registry { source, .. } | Self::Blob { source, .. } => source.is_unreachable(),
            Self::Patience { .. } => true,
            _ => false,
        }
    }

    /// As the control plane shows it.
    pub fn reason(&self, image: &str) -> StopReason {
        let shown: String = image.chars().take(256).collect();
        let name = match self {
            Self::Login(reason) => reason.name.as_str(),
            _ => "CannotPullContainerError",
        };
        StopReason::new(name, format!("image {shown}: {}", chain(self)))
    }
}

/// Whether the other side's certificate is the trouble: it will be the same the next time.
fn refuses_certificate(error: &(dyn Error + 'static)) -> bool {
    let is_that = |e: &rustls::Error| matches!(e, rustls::Error::InvalidCertificate(_));
    let mut next = Some(error);
    while let Some(cause) = next {
        // An io::Error does not name what it wraps as its source.
        let wrapped = cause.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        let wrapped = wrapped.and_then(|inner| inner.downcast_ref::<rustls::Error>());
        if wrapped.or_else(|| cause.downcast_ref::<rustls::Error>()).is_some_and(is_that) {
            return true;
        }
        next = cause.source();
    }
    false
}

/// An error and all that caused it, in one line.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        // tonic's own Display names code and details; its message alone is what people search for.
        let boxed = cause.downcast_ref::<Box<tonic::Status>>().map(Box::as_ref);
        let words = match boxed.or_else(|| cause.downcast_ref::<tonic::Status>()) {
            Some(status) => format!("containerd: {}", status.message()),
            None => cause.to_string(),
        };
        if !text.ends_with(&words) {
            text.push_str(": ");
            text.push_str(&words);
        }
        next = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn containerds_own_words_are_shown_and_a_full_disk_is_told_apart() {
        let broken = PullError::containerd("write blob x", tonic::Status::internal("it broke"));
        let reason = broken.reason("busybox").to_string();
        assert_eq!(reason, "CannotPullContainerError: image busybox: write blob x: containerd: it broke");
        let full = tonic::Status::unknown("write /var/lib/x: no space left on device");
        assert!(matches!(PullError::containerd("w", full), PullError::DiskFull { .. }));
    }
}
