//! The instance's own AWS credentials: the SDK's default chain (environment, shared files, container
//! endpoint, instance role) behind one cache that the API and both websockets share
//! (spec/control-plane.md 0.4).

use super::http::SchemeClient;
use aws_config::default_provider::credentials::DefaultCredentialsChain;
use aws_config::provider_config::ProviderConfig;
use aws_credential_types::Credentials;
use aws_credential_types::provider::{
    ProvideCredentials, SharedCredentialsProvider, error::CredentialsError, future,
};
use aws_smithy_async::rt::sleep::TokioSleep;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::Mutex;

/// Credentials that expire are fetched again this long before.
const BEFORE_EXPIRY: Duration = Duration::from_secs(5 * 60);
/// Credentials without an expiry may sit in a file that someone rewrites.
const RELOAD: Duration = Duration::from_secs(60);

/// A shared cache in front of a provider. Debug shows nothing of what it holds.
#[derive(Clone)]
pub struct CredentialsCache {
    inner: Arc<Inner>,
}

struct Inner {
    source: Source,
    held: Mutex<Option<(Credentials, Instant)>>,
}

enum Source {
    /// Built at first use: what it reads may cost time.
    Chain {
        http: Box<SchemeClient>,
        region: String,
        built: Box<tokio::sync::OnceCell<DefaultCredentialsChain>>,
    },
    Given(SharedCredentialsProvider),
}

impl CredentialsCache {
    /// The default chain; `region` is for the providers that ask STS.
    pub fn default_chain(http: SchemeClient, region: &str) -> Self {
        let built = Box::default();
        Self::new(Source::Chain { http: Box::new(http), region: region.to_owned(), built })
    }

    /// Somebody else's provider.
    pub fn from_provider(provider: impl ProvideCredentials + 'static) -> Self {
        Self::new(Source::Given(SharedCredentialsProvider::new(provider)))
    }

    fn new(source: Source) -> Self {
        Self { inner: Arc::new(Inner { source, held: Mutex::new(None) }) }
    }

    /// Valid credentials, from the cache or the chain.
    ///
    /// # Errors
    /// Where no provider of the chain has any. Credentials that have not run out yet outlive a
    /// failure to get new ones.
    pub async fn get(&self) -> Result<Credentials, CredentialsError> {
        let mut held = self.inner.held.lock().await;
        if let Some((credentials, since)) = held.as_ref()
            && is_fresh(credentials, since.elapsed())
        {
            return Ok(credentials.clone());
        }
        match self.inner.source.provide().await {
            Ok(credentials) => {
                *held = Some((credentials.clone(), Instant::now()));
                Ok(credentials)
            }
            Err(error) => match held.as_ref() {
                Some((old, _)) if old.expiry().is_none_or(|at| at > SystemTime::now()) => Ok(old.clone()),
                _ => Err(error),
            },
        }
    }

    /// Forgets what it holds, so that the next call asks the chain.
    pub async fn invalidate(&self) {
        *self.inner.held.lock().await = None;
    }
}

impl Source {
    async fn provide(&self) -> Result<Credentials, CredentialsError> {
        match self {
            Self::Given(provider) => provider.provide_credentials().await,
            Self::Chain { http, region, built } => {
                let build = || async {
                    let region = aws_config::Region::new(region.clone());
                    let config = ProviderConfig::without_region()
                        .with_region(Some(region.clone()))
                        .with_http_client(SchemeClient::clone(http))
                        .with_sleep_impl(TokioSleep::new());
                    DefaultCredentialsChain::builder().region(region).configure(config).build().await
                };
                built.get_or_init(build).await.provide_credentials().await
            }
        }
    }
}

fn is_fresh(credentials: &Credentials, age: Duration) -> bool {
    match credentials.expiry() {
        Some(at) => at.duration_since(SystemTime::now()).is_ok_and(|left| left > BEFORE_EXPIRY),
        None => age < RELOAD,
    }
}

impl std::fmt::Debug for CredentialsCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CredentialsCache").finish_non_exhaustive()
    }
}

impl ProvideCredentials for CredentialsCache {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(self.get())
    }
}
