//! TLS of log servers: the host's CA certificates, or those of a file; a client certificate; or no
//! verification, where the task definition says so.

use crate::reach::tls::{Trust, trusting};
use rustls::ClientConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What is asked of a connection's TLS.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TlsFiles {
    /// PEM with the only CA certificates to trust, in place of the host's.
    pub ca: Option<PathBuf>,
    /// PEM with a client certificate, and its key; both or neither.
    pub client: Option<(PathBuf, PathBuf)>,
    /// Any certificate will do.
    pub skip_verify: bool,
}

impl TlsFiles {
    /// The configuration of a connection.
    ///
    /// # Errors
    /// In words that name the file.
    pub fn config(&self) -> Result<Arc<ClientConfig>, String> {
        let named = |error: String| match &self.ca {
            Some(file) => format!("{}: {error}", file.display()),
            None => format!("{error}: install ca-certificates, or name a CA file"),
        };
        let pem = match &self.ca {
            Some(file) if !self.skip_verify => {
                Some(std::fs::read(file).map_err(|error| named(error.to_string()))?)
            }
            _ => None,
        };
        let trust = match &pem {
            _ if self.skip_verify => Trust::Anyone,
            Some(pem) => Trust::Pem(pem),
            None => Trust::Machine,
        };
        let builder = trusting(trust).map_err(named)?;
        let config = match &self.client {
            None => builder.with_no_client_auth(),
            Some((certificate, key_file)) => {
                let key = PrivateKeyDer::from_pem_file(key_file);
                let key = key.map_err(|error| format!("{}: {error}", key_file.display()))?;
                let chain = certificates(certificate)?;
                let config = builder.with_client_auth_cert(chain, key);
                config.map_err(|error| format!("{}: {error}", certificate.display()))?
            }
        };
        Ok(Arc::new(config))
    }
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let failed = |error: &dyn std::fmt::Display| format!("{}: {error}", file.display());
    let found = CertificateDer::pem_file_iter(file).map_err(|error| failed(&error))?;
    let found: Vec<_> = found.collect::<Result<_, _>>().map_err(|error| failed(&error))?;
    if found.is_empty() {
        return Err(failed(&"no certificate in it"));
    }
    Ok(found)
}
