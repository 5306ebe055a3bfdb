//! TLS of the control plane: the machine's CA certificates, or with `-k` any certificate. Made at the
//! first connection that needs it and then shared by the API and both websockets: an agent whose
//! endpoints are all plain (the embedded control plane, IMDS) never loads the certificates, which
//! would cost megabytes that it keeps.

use hyper_rustls::ConfigBuilderExt;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, Error, SignatureScheme};
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
        let build = || build(self.any_certificate).map(Arc::new).map_err(|reason| TlsError { reason });
        self.config.get_or_init(build).clone()
    }
}

fn build(any_certificate: bool) -> Result<ClientConfig, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    if any_certificate {
        let verifier = Arc::new(AnyCertificate(provider));
        return Ok(builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth());
    }
    Ok(builder.with_native_roots().map_err(|error| error.to_string())?.with_no_client_auth())
}

/// Verifies nothing but the handshake's own signatures.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
