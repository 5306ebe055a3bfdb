//! The instance metadata service: who this instance is (spec/control-plane.md 0.6, 2.3). Every
//! question is bounded in time, and none is asked where `AWS_EC2_METADATA_DISABLED` is true. The
//! endpoint is the SDK's: `AWS_EC2_METADATA_SERVICE_ENDPOINT`, or the link-local address.

use super::http::SchemeClient;
use aws_config::imds::client::Client;
use aws_config::provider_config::ProviderConfig;
use aws_smithy_async::rt::sleep::TokioSleep;
use std::time::Duration;

/// One question, its attempts together.
const QUESTION: Duration = Duration::from_secs(5);
/// The question for user data, which every start asks: a host without the service must not wait.
const USER_DATA: Duration = Duration::from_secs(2);

/// Identity document and signature as registration sends them; empty without IMDS.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct InstanceDocument {
    /// `instance-identity/document`, verbatim.
    pub document: String,
    /// `instance-identity/signature`, verbatim.
    pub signature: String,
}

impl InstanceDocument {
    fn member(&self, name: &str) -> Option<String> {
        let document: serde_json::Value = serde_json::from_str(&self.document).ok()?;
        document.get(name)?.as_str().filter(|v| !v.is_empty()).map(str::to_owned)
    }

    /// Region of the instance.
    pub fn region(&self) -> Option<String> {
        self.member("region")
    }

    /// Availability zone of the instance.
    pub fn availability_zone(&self) -> Option<String> {
        self.member("availabilityZone")
    }

    /// EC2's id of the instance.
    pub fn instance_id(&self) -> Option<String> {
        self.member("instanceId")
    }
}

/// A question that got no answer.
#[derive(Debug, thiserror::Error)]
pub enum ImdsError {
    /// `AWS_EC2_METADATA_DISABLED`, or `disabled` was asked for.
    #[error("the instance metadata service is disabled (AWS_EC2_METADATA_DISABLED)")]
    Disabled,
    /// Too slow.
    #[error("the instance metadata service did not answer {path} within {limit:?}")]
    Late {
        /// What was asked.
        path: &'static str,
        /// How long it had.
        limit: Duration,
    },
    /// Refused, unreachable, not there.
    #[error("the instance metadata service has no {path}")]
    Failed {
        /// What was asked.
        path: &'static str,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// The service, or nothing in its place.
#[derive(Debug, Clone)]
pub struct Imds {
    client: Option<Client>,
}

impl Imds {
    /// `disabled` is `AWS_EC2_METADATA_DISABLED`, or an instance outside EC2.
    pub fn new(http: &SchemeClient, disabled: bool) -> Self {
        if disabled {
            return Self { client: None };
        }
        let config = ProviderConfig::without_region()
            .with_http_client(http.clone())
            .with_sleep_impl(TokioSleep::new());
        let client = Client::builder().configure(&config).max_attempts(3).build();
        Self { client: Some(client) }
    }

    /// Whether `AWS_EC2_METADATA_DISABLED` is set to true in this environment.
    pub fn disabled_by(value: Option<&str>) -> bool {
        value.is_some_and(|v| v.trim().eq_ignore_ascii_case("true"))
    }

    /// Document and signature. What can't be had is empty: registration goes on without.
    pub async fn document(&self) -> InstanceDocument {
        const DOCUMENT: &str = "/latest/dynamic/instance-identity/document";
        const SIGNATURE: &str = "/latest/dynamic/instance-identity/signature";
        let document = match self.get(DOCUMENT).await {
            Ok(document) => document,
            Err(error) => {
                tracing::info!(%error, "Registering without an instance identity document");
                return InstanceDocument::default();
            }
        };
        let signature = self.get(SIGNATURE).await.unwrap_or_else(|error| {
            tracing::warn!(%error, "Registering without the signature of the identity document");
            String::new()
        });
        InstanceDocument { document, signature }
    }

    /// Region, where `AWS_DEFAULT_REGION` is not set.
    ///
    /// # Errors
    /// [`ImdsError`]
    pub async fn region(&self) -> Result<String, ImdsError> {
        self.get("/latest/meta-data/placement/region").await
    }

    /// Availability zone.
    ///
    /// # Errors
    /// [`ImdsError`]
    pub async fn availability_zone(&self) -> Result<String, ImdsError> {
        self.get("/latest/meta-data/placement/availability-zone").await
    }

    /// The instance's user data, as it is.
    ///
    /// # Errors
    /// [`ImdsError`], also where the instance has none.
    pub async fn user_data(&self) -> Result<String, ImdsError> {
        self.ask("/latest/user-data", USER_DATA).await
    }

    async fn get(&self, path: &'static str) -> Result<String, ImdsError> {
        self.ask(path, QUESTION).await
    }

    async fn ask(&self, path: &'static str, limit: Duration) -> Result<String, ImdsError> {
        let client = self.client.as_ref().ok_or(ImdsError::Disabled)?;
        match tokio::time::timeout(limit, client.get(path)).await {
            Ok(Ok(text)) => Ok(String::from(text).trim().to_owned()),
            Ok(Err(source)) => Err(ImdsError::Failed { path, source: source.into() }),
            Err(_) => Err(ImdsError::Late { path, limit }),
        }
    }
}
