//! The instance's own AWS credentials: the SDK's default chain (environment, shared files, container
//! endpoint, instance role) behind one cache that the API and both websockets share
//! (spec/control-plane.md 0.4).

use super::http::SchemeClient;
use aws_config::default_provider::credentials::DefaultCredentialsChain;
use aws_config::environment::EnvironmentVariableCredentialsProvider;
use aws_config::imds::credentials::ImdsCredentialsProvider;
use aws_config::profile::ProfileFileCredentialsProvider;
use aws_config::provider_config::ProviderConfig;
use aws_credential_types::Credentials;
use aws_credential_types::provider::{
    ProvideCredentials, SharedCredentialsProvider, error::CredentialsError, future,
};
use aws_runtime::env_config::file::{EnvConfigFileKind, EnvConfigFiles};
use aws_smithy_async::rt::sleep::TokioSleep;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::Mutex;

/// Credentials that expire are fetched again this long before.
const BEFORE_EXPIRY: Duration = Duration::from_secs(5 * 60);
/// Credentials without an expiry may sit in a file that someone rewrites.
const RELOAD: Duration = Duration::from_secs(60);
/// Where the SSM agent of an external instance puts its credentials, and renews them.
pub const ROTATING_FILE: &str = "/rotatingcreds/credentials";

/// Which providers are asked, and in which order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChainOptions {
    /// For the providers that ask STS.
    pub region: String,
    /// `ECS_EXTERNAL`: environment, rotating file, shared files, instance role. Otherwise the SDK's
    /// default chain (environment, shared files, container endpoint, instance role), then the rotating
    /// file.
    pub external: bool,
    /// The rotating file.
    pub rotating_file: PathBuf,
    /// Its profile: `ECS_ALTERNATE_CREDENTIAL_PROFILE`, or `default`.
    pub rotating_profile: String,
}

impl ChainOptions {
    /// On EC2, with the usual rotating file.
    pub fn new(region: impl Into<String>) -> Self {
        Self {
            region: region.into(),
            external: false,
            rotating_file: ROTATING_FILE.into(),
            rotating_profile: "default".into(),
        }
    }
}

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
    Chain { http: Box<SchemeClient>, options: ChainOptions },
    Given(SharedCredentialsProvider),
}

impl CredentialsCache {
    /// The default chain; `region` is for the providers that ask STS.
    pub fn default_chain(http: SchemeClient, region: &str) -> Self {
        Self::chain(http, ChainOptions::new(region))
    }

    /// A chain of providers.
    pub fn chain(http: SchemeClient, options: ChainOptions) -> Self {
        Self::new(Source::Chain { http: Box::new(http), options })
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
            Self::Chain { http, options } => {
                // Made anew each time, which is once a minute at the most: the providers that read files
                // read them only once.
                first_that_has_any(chain(http, options).await).await
            }
        }
    }
}

/// Asks one after the other, whatever is wrong with those before.
async fn first_that_has_any(
    providers: Vec<(&'static str, SharedCredentialsProvider)>,
) -> Result<Credentials, CredentialsError> {
    let mut failed = None;
    for (name, provider) in providers {
        match provider.provide_credentials().await {
            Ok(credentials) => return Ok(credentials),
            // What is wrong with one tells more than that another has nothing.
            Err(error) => {
                tracing::debug!(provider = name, error = super::chain(&error), "no credentials");
                if failed.is_none() || !matches!(error, CredentialsError::CredentialsNotLoaded(_)) {
                    failed = Some(error);
                }
            }
        }
    }
    Err(failed.unwrap_or_else(|| CredentialsError::not_loaded("no providers")))
}

async fn chain(
    http: &SchemeClient,
    options: &ChainOptions,
) -> Vec<(&'static str, SharedCredentialsProvider)> {
    let region = aws_config::Region::new(options.region.clone());
    let config = ProviderConfig::without_region()
        .with_region(Some(region.clone()))
        .with_http_client(http.clone())
        .with_sleep_impl(TokioSleep::new());
    let files =
        EnvConfigFiles::builder().with_file(EnvConfigFileKind::Credentials, &options.rotating_file).build();
    let rotating = ProfileFileCredentialsProvider::builder()
        .configure(&config)
        .profile_files(files)
        .profile_name(&options.rotating_profile)
        .build();
    let rotating = ("rotating file", SharedCredentialsProvider::new(rotating));
    if !options.external {
        let default = DefaultCredentialsChain::builder().region(region).configure(config).build().await;
        return vec![("default chain", SharedCredentialsProvider::new(default)), rotating];
    }
    let shared = ProfileFileCredentialsProvider::builder().configure(&config).build();
    let role = ImdsCredentialsProvider::builder().configure(&config).build();
    let environment = EnvironmentVariableCredentialsProvider::new();
    vec![
        ("environment", SharedCredentialsProvider::new(environment)),
        rotating,
        ("shared files", SharedCredentialsProvider::new(shared)),
        ("instance role", SharedCredentialsProvider::new(role)),
    ]
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
