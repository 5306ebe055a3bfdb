//! TLS of a client: whom it believes.

use hyper_rustls::ConfigBuilderExt;
use rustls::client::WantsClientCert;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    ClientConfig, ConfigBuilder, DigitallySignedStruct, Error, RootCertStore, SignatureScheme, WantsVerifier,
};
use std::path::Path;
use std::sync::Arc;

/// Whose certificates are believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trust<'a> {
    /// The machine's own CA certificates, or those of `SSL_CERT_FILE` and `SSL_CERT_DIR`.
    Machine,
    /// Those of a file and of a directory, as `SSL_CERT_FILE` and `SSL_CERT_DIR` name them.
    Paths(Option<&'a Path>, Option<&'a Path>),
    /// The CA certificates of a PEM text, and no others.
    Pem(&'a [u8]),
    /// Everybody's: what is sent is still encrypted, to whoever answers.
    Anyone,
}

/// A configuration without a certificate of its own.
///
/// # Errors
/// In words: no certificate can be loaded.
pub fn client(trust: Trust<'_>) -> Result<ClientConfig, String> {
    Ok(trusting(trust)?.with_no_client_auth())
}

/// The same, for who has a certificate of its own.
///
/// # Errors
/// In words: no certificate can be loaded.
pub fn trusting(trust: Trust<'_>) -> Result<ConfigBuilder<ClientConfig, WantsClientCert>, String> {
    match trust {
        Trust::Machine => builder()?.with_native_roots().map_err(|error| error.to_string()),
        Trust::Paths(file, directory) => believing(roots_at(file, directory)?),
        Trust::Pem(text) => believing(roots(text)?),
        Trust::Anyone => {
            let builder = builder()?;
            let verifier = Arc::new(AnyCertificate(builder.crypto_provider().clone()));
            Ok(builder.dangerous().with_custom_certificate_verifier(verifier))
        }
    }
}

/// The same, for who believes these certificates.
///
/// # Errors
/// In words: TLS can't be had as it is built in.
pub fn believing(roots: RootCertStore) -> Result<ConfigBuilder<ClientConfig, WantsClientCert>, String> {
    Ok(builder()?.with_root_certificates(roots))
}

fn builder() -> Result<ConfigBuilder<ClientConfig, WantsVerifier>, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    builder.map_err(|error| error.to_string())
}

fn roots(text: &[u8]) -> Result<RootCertStore, String> {
    let mut store = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(text) {
        let certificate = certificate.map_err(|error| error.to_string())?;
        store.add(certificate).map_err(|error| error.to_string())?;
    }
    match store.is_empty() {
        true => Err("there is no certificate in it".to_owned()),
        false => Ok(store),
    }
}

/// As the machine's own are taken: one that can't be read is none.
fn roots_at(file: Option<&Path>, directory: Option<&Path>) -> Result<RootCertStore, String> {
    let found = rustls_native_certs::load_certs_from_paths(file, directory);
    let mut store = RootCertStore::empty();
    store.add_parsable_certificates(found.certs);
    match (store.is_empty(), found.errors.first()) {
        (false, _) => Ok(store),
        (true, Some(error)) => Err(error.to_string()),
        (true, None) => Err("there is no certificate in SSL_CERT_FILE and SSL_CERT_DIR".to_owned()),
    }
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
