//! What every part of the control plane shares: region, endpoint, credentials, the HTTP client and
//! the agent's identity. Building it does no I/O.

use super::clock::ServiceClock;
use super::credentials::CredentialsCache;
use super::http::SchemeClient;
use super::identity::AgentIdentity;
use super::proxy::Proxies;
use super::tls::Tls;
use crate::model::RoleCredentials;

/// The account that the agent acts in, and how it gets there.
#[derive(Clone)]
pub struct Account {
    /// AWS region.
    pub region: String,
    /// `ECS_BACKEND_HOST` with its scheme; `None` takes the region's own endpoint.
    pub endpoint: Option<String>,
    /// The region's endpoint is that with IPv6 addresses too.
    pub dual_stack: bool,
    /// Own credentials.
    pub credentials: CredentialsCache,
    /// The one HTTP client; the websockets dial by it too.
    pub http: SchemeClient,
    /// What time it is at the service.
    pub clock: ServiceClock,
    /// Version and User-Agent.
    pub identity: AgentIdentity,
}

impl Account {
    /// With the default credentials chain.
    pub fn new(region: impl Into<String>, endpoint: Option<String>, identity: AgentIdentity) -> Self {
        let (region, http) = (region.into(), SchemeClient::default());
        let credentials = CredentialsCache::default_chain(http.clone(), &region);
        let clock = ServiceClock::default();
        Self { region, endpoint, dual_stack: false, credentials, http, clock, identity }
    }

    /// Taking any certificate of the control plane (`-k`), but not of who gives credentials.
    pub fn accept_any_certificate(self) -> Self {
        self.with_http(SchemeClient::new(Proxies::from_env(), Tls::any_certificate()))
    }

    /// With another HTTP client.
    pub fn with_http(mut self, http: SchemeClient) -> Self {
        self.http = http;
        self
    }

    /// With the region's dual-stack endpoint, for an instance that has IPv6 only.
    pub fn with_dual_stack(mut self, dual_stack: bool) -> Self {
        self.dual_stack = dual_stack;
        self
    }

    /// In the name of a task's role.
    pub fn with_role(self, role: &RoleCredentials) -> Self {
        self.with_credentials(CredentialsCache::from_provider(super::ecr::role_credentials(role)))
    }

    /// With other credentials (ECS Anywhere, tests, the embedded control plane).
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
