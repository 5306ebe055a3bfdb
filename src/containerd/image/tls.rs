//! How one host is spoken to: in plain HTTP, or by TLS with CAs and client certificates of its own.

use crate::reach::tls::{Trust, believing, trusting};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use sha2::{Digest, Sha256};
use std::fmt;
use std::sync::Arc;

/// How a host is spoken to.
#[derive(Debug, Clone, Default)]
pub struct Link {
    /// It is configured to be spoken to in plain HTTP. Without that only this machine is.
    pub plain: bool,
    /// What is particular about its TLS.
    pub tls: Option<Arc<TlsFiles>>,
}

/// Certificates in PEM, as read. Debug shows none of them.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct TlsFiles {
    /// CAs besides the machine's.
    pub ca: Vec<Vec<u8>>,
    /// Client certificates, each with its key.
    pub client: Vec<(Vec<u8>, Vec<u8>)>,
    /// Any certificate of the host is taken.
    pub skip_verify: bool,
}

/// Tells links apart that need a client of their own; the same for all that are as usual.
pub type LinkKey = Option<[u8; 32]>;

impl Link {
    /// Its key.
    pub fn key(&self) -> LinkKey {
        let tls = self.tls.as_ref()?;
        let mut hash = Sha256::new();
        hash.update([u8::from(tls.skip_verify)]);
        let client = tls.client.iter().flat_map(|(certificate, key)| [certificate, key]);
        for (kind, bytes) in tls.ca.iter().map(|ca| (0u8, ca)).chain(client.map(|bytes| (1, bytes))) {
            hash.update([kind]);
            hash.update(bytes.len().to_le_bytes());
            hash.update(bytes);
        }
        Some(hash.finalize().into())
    }

    /// The TLS configuration.
    ///
    /// # Errors
    /// What is wrong with the certificates, of this host or of the machine.
    pub fn config(&self) -> Result<ClientConfig, String> {
        let files = self.tls.as_deref().cloned().unwrap_or_default();
        let builder = match files.skip_verify {
            true => trusting(Trust::Anyone)?,
            false => believing(roots(&files)?)?,
        };
        let Some((certificate, key)) = files.client.first() else { return Ok(builder.with_no_client_auth()) };
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(certificate).collect();
        let chain = chain.map_err(|error| format!("client certificate in hosts.toml: {error}"))?;
        let key = PrivateKeyDer::from_pem_slice(key);
        let key = key.map_err(|error| format!("client key in hosts.toml: {error}"))?;
        builder.with_client_auth_cert(chain, key).map_err(|error| format!("client certificate: {error}"))
    }
}

/// The machine's CAs, and those of the host.
fn roots(files: &TlsFiles) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    let native = rustls_native_certs::load_native_certs();
    roots.add_parsable_certificates(native.certs);
    for pem in &files.ca {
        for certificate in CertificateDer::pem_slice_iter(pem) {
            let bad = |error: &dyn fmt::Display| format!("CA in hosts.toml: {error}");
            roots.add(certificate.map_err(|e| bad(&e))?).map_err(|e| bad(&e))?;
        }
    }
    if roots.is_empty() {
        let why = native.errors.first().map(|error| format!(" ({error})")).unwrap_or_default();
        return Err(format!(
            "no TLS roots on this machine{why}: install ca-certificates or set SSL_CERT_FILE"
        ));
    }
    Ok(roots)
}

impl fmt::Debug for TlsFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsFiles")
            .field("ca", &self.ca.len())
            .field("client", &self.client.len())
            .field("skip_verify", &self.skip_verify)
            .finish()
    }
}
