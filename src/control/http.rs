//! The one HTTP client of the agent: the ECS API, the credentials providers and IMDS share it.
//!
//! Plain HTTP and HTTPS are two connectors behind one front, so that an agent whose endpoints are all
//! plain (the embedded control plane, tests, IMDS) never loads the machine's certificates: that costs
//! megabytes of memory that it would keep.

use super::insecure::{self, InsecureConnector};
use aws_smithy_async::rt::sleep::TokioSleep;
use aws_smithy_http_client::proxy::ProxyConfig;
use aws_smithy_http_client::tls::{Provider, rustls_provider::CryptoMode};
use aws_smithy_http_client::{Builder, Connector};
use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpClient,
    SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use hyper_rustls::ConfigBuilderExt;
use std::sync::{Arc, OnceLock};

/// Picks the connector by the scheme of each request.
#[derive(Debug, Clone)]
pub struct SchemeClient {
    plain: SharedHttpClient,
    secure: Arc<OnceLock<SharedHttpClient>>,
    insecure: Option<InsecureConnector>,
}

impl Default for SchemeClient {
    fn default() -> Self {
        Self { plain: Builder::new().build_http(), secure: Arc::default(), insecure: None }
    }
}

impl SchemeClient {
    /// The same, taking any certificate (`-k`).
    ///
    /// # Errors
    /// [`TlsError`]
    pub fn insecure() -> Result<Self, TlsError> {
        let connector = InsecureConnector::new().map_err(|e| TlsError { reason: e.to_string() })?;
        Ok(Self { insecure: Some(connector), ..Self::default() })
    }

    fn secure(&self) -> &SharedHttpClient {
        self.secure
            .get_or_init(|| Builder::new().build_with_connector_fn(|settings, _| secure_connector(settings)))
    }
}

/// Only HTTPS goes through a proxy: what is plain is on this machine or link-local.
fn secure_connector(settings: Option<&HttpConnectorSettings>) -> Connector {
    let mut builder =
        Connector::builder().sleep_impl(TokioSleep::new()).proxy_config(ProxyConfig::from_env());
    if let Some(settings) = settings {
        builder = builder.connector_settings(settings.clone());
    }
    builder.tls_provider(Provider::Rustls(CryptoMode::Ring)).build()
}

impl HttpClient for SchemeClient {
    fn http_connector(
        &self,
        settings: &HttpConnectorSettings,
        components: &RuntimeComponents,
    ) -> SharedHttpConnector {
        SharedHttpConnector::new(SchemeConnector {
            client: self.clone(),
            settings: settings.clone(),
            components: components.clone(),
        })
    }
}

/// One call's choice. The clients below cache their connectors by the settings.
#[derive(Debug)]
struct SchemeConnector {
    client: SchemeClient,
    settings: HttpConnectorSettings,
    components: RuntimeComponents,
}

impl HttpConnector for SchemeConnector {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let plain = request.uri().starts_with("http://");
        if let (false, Some(insecure)) = (plain, &self.client.insecure) {
            return insecure.call(request);
        }
        let client = if plain { &self.client.plain } else { self.client.secure() };
        client.http_connector(&self.settings, &self.components).call(request)
    }
}

/// TLS can't be set up.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the machine's CA certificates can't be loaded: {reason}; install ca-certificates or set SSL_CERT_FILE"
)]
pub struct TlsError {
    /// What happened.
    pub reason: String,
}

/// TLS for the websockets, made at the first `wss://` and then shared.
#[derive(Clone, Default)]
pub struct WebsocketTls {
    config: Arc<OnceLock<Result<Arc<rustls::ClientConfig>, TlsError>>>,
}

impl WebsocketTls {
    /// The same, taking any certificate (`-k`).
    ///
    /// # Errors
    /// [`TlsError`]
    pub fn insecure() -> Result<Self, TlsError> {
        let config = insecure::tls_config().map_err(|e| TlsError { reason: e.to_string() })?;
        Ok(Self { config: Arc::new(OnceLock::from(Ok(Arc::new(config)))) })
    }

    /// The configuration.
    ///
    /// # Errors
    /// [`TlsError`]
    pub fn config(&self) -> Result<Arc<rustls::ClientConfig>, TlsError> {
        self.config.get_or_init(build_tls).clone()
    }
}

fn build_tls() -> Result<Arc<rustls::ClientConfig>, TlsError> {
    let failed = |reason: String| TlsError { reason };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| failed(e.to_string()))?
        .with_native_roots()
        .map_err(|e| failed(e.to_string()))?
        .with_no_client_auth();
    Ok(Arc::new(config))
}
