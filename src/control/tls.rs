//! TLS of the control plane: the machine's CA certificates, or with `-k` any certificate. Made at the
//! first connection that needs it and then shared by the API and both websockets: an agent whose
//! endpoints are all plain (the embedded control plane, IMDS) never loads the certificates, which
//! would cost megabytes that it keeps.

use crate::reach::tls::{Trust, client};
use rustls::ClientConfig;
use std::sync::{Arc, OnceLock};

/// TLS can't be set up.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the machine's CA certificates can't be loaded: {reason}; install ca-certificates or set SSL_CERT_FILE"
)]
pub struct TlsError {
    /// What happened.
    pub reason: String,
}

/// The configuration, made when it is first asked for.
#[derive(Debug, Clone, Default)]
pub struct Tls {
    any_certificate: bool,
    config: Arc<OnceLock<Result<Arc<ClientConfig>, TlsError>>>,
}

impl Tls {
    /// Taking any certificate (`-k`): for back ends with certificates of their own making. What is
    /// sent is still encrypted, to whoever answers.
    pub fn any_certificate() -> Self {
        Self { any_certificate: true, ..Self::default() }
    }

    /// The configuration.
    ///
    /// # Errors
    /// [`TlsError`]
    pub fn config(&self) -> Result<Arc<ClientConfig>, TlsError> {
        let trust = if self.any_certificate { Trust::Anyone } else { Trust::Machine };
        let build = || client(trust).map(Arc::new).map_err(|reason| TlsError { reason });
        self.config.get_or_init(build).clone()
    }
}
