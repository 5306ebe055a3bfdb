//! What every part of the control plane shares: region, endpoint, credentials, the HTTP client and
//! the agent's identity. Building it does no I/O.

use super::credentials::CredentialsCache;
use super::http::{SchemeClient, TlsError, WebsocketTls};
use super::identity::AgentIdentity;

/// The account that the agent acts in, and how it gets there.
#[derive(Clone)]
pub struct Account {
    /// AWS region.
    pub region: String,
    /// `ECS_BACKEND_HOST` with its scheme; `None` takes the region's own endpoint.
    pub endpoint: Option<String>,
    /// Own credentials.
    pub credentials: CredentialsCache,
    /// The one HTTP client.
    pub http: SchemeClient,
    /// TLS of the websockets.
    pub tls: WebsocketTls,
    /// Version and User-Agent.
    pub identity: AgentIdentity,
}

impl Account {
    /// With the default credentials chain.
    pub fn new(region: impl Into<String>, endpoint: Option<String>, identity: AgentIdentity) -> Self {
        let (region, http) = (region.into(), SchemeClient::default());
        let credentials = CredentialsCache::default_chain(http.clone(), &region);
        Self { region, endpoint, credentials, http, tls: WebsocketTls::default(), identity }
    }

    /// Taking any certificate of the control plane (`-k`).
    ///
    /// # Errors
    /// [`TlsError`]
    pub fn accept_any_certificate(mut self) -> Result<Self, TlsError> {
        self.http = SchemeClient::insecure()?;
        self.tls = WebsocketTls::insecure()?;
        self.credentials = CredentialsCache::default_chain(SchemeClient::default(), &self.region);
        Ok(self)
    }

    /// With other credentials (tests, the embedded control plane).
    pub fn with_credentials(mut self, credentials: CredentialsCache) -> Self {
        self.credentials = credentials;
        self
    }
}

impl std::fmt::Debug for Account {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Account")
            .field("region", &self.region)
            .field("endpoint", &self.endpoint)
            .finish_non_exhaustive()
    }
}
