//! The one gRPC channel to containerd. It connects on first use and again by itself after
//! containerd went away; every request carries our namespace, none ever names another, and each
//! ends in time (`calls`).

use crate::containerd::calls::Calls;
use crate::model::StopReason;
use containerd_client::services::v1::version_client::VersionClient;
use std::error::Error;
use std::path::{Path, PathBuf};
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::Endpoint;

/// Why no channel could be made. That containerd does not answer is no such error: calls say so.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The address can't be written as a URI.
    #[error(
        "ECS_CONTAINERD_ADDRESS {0:?} is not the path of a unix socket, such as /run/containerd/containerd.sock"
    )]
    Address(PathBuf),
    /// The namespace can't be written as a header.
    #[error(
        "ECS_CONTAINERD_NAMESPACE {0:?} is not a containerd namespace: use letters, digits, '-', '_' and '.'"
    )]
    Namespace(String),
}

/// A shared connection to containerd in one namespace. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Connection {
    calls: Calls,
    namespace: MetadataValue<Ascii>,
    namespace_name: String,
}

impl Connection {
    /// A connection to the daemon at `address` (a unix socket) that will be made when it is needed.
    ///
    /// # Errors
    /// [`ConnectError`] where address or namespace can't be used at all.
    pub fn new(address: &Path, namespace: &str) -> Result<Self, ConnectError> {
        let wrong_address = || ConnectError::Address(address.to_owned());
        let text = address.to_str().ok_or_else(wrong_address)?;
        let path = text.strip_prefix("unix://").unwrap_or(text);
        if !path.starts_with('/') {
            return Err(wrong_address());
        }
        let fit = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        let wrong_namespace = || ConnectError::Namespace(namespace.to_owned());
        if namespace.is_empty() || namespace.len() > 76 || !namespace.chars().all(fit) {
            return Err(wrong_namespace());
        }
        let endpoint = Endpoint::try_from(format!("unix://{path}")).map_err(|_| wrong_address())?;
        Ok(Self {
            calls: Calls::new(endpoint.connect_lazy()),
            namespace: namespace.parse().map_err(|_| wrong_namespace())?,
            namespace_name: namespace.to_owned(),
        })
    }

    /// The channel, for a service client.
    pub fn channel(&self) -> Calls {
        self.calls.clone()
    }

    /// The namespace that every request names.
    pub fn namespace(&self) -> &str {
        &self.namespace_name
    }

    /// A request in our namespace.
    pub fn request<T>(&self, message: T) -> tonic::Request<T> {
        let mut request = tonic::Request::new(message);
        request.metadata_mut().insert("containerd-namespace", self.namespace.clone());
        request
    }

    /// A request whose new content is kept by a lease of that id until it is used or expires.
    pub fn request_in_lease<T>(&self, message: T, lease: &str) -> tonic::Request<T> {
        let mut request = self.request(message);
        if let Ok(lease) = lease.parse() {
            request.metadata_mut().insert("containerd-lease", lease);
        }
        request
    }

    /// The daemon's version, such as `1.6.20`; also the cheapest sign of life.
    ///
    /// # Errors
    /// `DockerStateError`-style reason with containerd's words where it does not answer.
    pub async fn version(&self) -> Result<String, StopReason> {
        let answer = VersionClient::new(self.channel()).version(self.request(())).await;
        let version = answer.map_err(|status| failure("ContainerRuntimeError", "version", &status))?;
        Ok(version.into_inner().version)
    }
}

/// A failed call as a reason: what was tried, and containerd's own words. A call that took too long
/// has the original's name for that.
pub fn failure(name: &str, what: &str, status: &tonic::Status) -> StopReason {
    let name = if status.code() == tonic::Code::DeadlineExceeded { "DockerTimeoutError" } else { name };
    // What containerd itself says has no cause; a connection that failed has.
    let words = match status.source() {
        Some(cause) => format!("containerd does not answer: {}", innermost(cause)),
        None => status.message().to_owned(),
    };
    StopReason::new(name, format!("{what}: {words}"))
}

/// What it all began with: the words around it say only that a call failed.
fn innermost<'a>(mut error: &'a (dyn Error + 'static)) -> &'a (dyn Error + 'static) {
    while let Some(cause) = error.source() {
        error = cause;
    }
    error
}
