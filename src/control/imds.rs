//! The instance metadata service: who this instance is, and what is to become of it
//! (spec/control-plane.md 0.6, 2.3, 6.4). Every question is bounded in time, and none is asked where
//! IMDS is black-holed. The endpoint is the SDK's: `AWS_EC2_METADATA_SERVICE_ENDPOINT`, or the
//! link-local address.

use super::backoff::Backoff;
use super::credentials::CredentialsCache;
use super::http::SchemeClient;
use aws_config::imds::client::{Builder, Client, error::ImdsError as SdkError};
use aws_config::provider_config::ProviderConfig;
use aws_smithy_async::rt::sleep::TokioSleep;
use std::time::{Duration, Instant};

/// One question, its attempts together.
const QUESTION: Duration = Duration::from_secs(5);
/// The question for user data, which every start asks: a host without the service must not wait.
const USER_DATA: Duration = Duration::from_secs(2);
/// The longest answer that is taken: user data has 16 KiB at the most.
const MAX_ANSWER: usize = 64 * 1024;

/// What is asked for by more than one part of the agent.
pub mod paths {
    /// EC2's id of the instance.
    pub const INSTANCE_ID: &str = "/latest/meta-data/instance-id";
    /// What EC2 is about to do to a spot instance; 404 while there is nothing.
    pub const SPOT_ACTION: &str = "/latest/meta-data/spot/instance-action";
    /// Where a warm pool wants the instance to be.
    pub const TARGET_LIFECYCLE_STATE: &str = "/latest/meta-data/autoscaling/target-lifecycle-state";
    /// The Outpost that the instance is on.
    pub const OUTPOST_ARN: &str = "/latest/meta-data/outpost-arn";
    /// User data.
    pub const USER_DATA: &str = "/latest/user-data";
}

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

/// Where an instance is in its VPC.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VpcPlace {
    /// `vpc-...`
    pub vpc: String,
    /// `subnet-...`
    pub subnet: String,
}

/// A question that got no answer.
#[derive(Debug, thiserror::Error)]
pub enum ImdsError {
    /// `AWS_EC2_METADATA_DISABLED`, `-blackhole-ec2-metadata` or `ECS_EXTERNAL`.
    #[error("the instance metadata service is blackholed (AWS_EC2_METADATA_DISABLED, ECS_EXTERNAL)")]
    Disabled,
    /// Not an address.
    #[error("{endpoint:?} is no address of an instance metadata service")]
    Endpoint {
        /// The address.
        endpoint: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Too slow.
    #[error("the instance metadata service did not answer {path} within {limit:?}")]
    Late {
        /// What was asked.
        path: String,
        /// How long it had.
        limit: Duration,
    },
    /// Refused, unreachable, not there.
    #[error("the instance metadata service has no {path}")]
    Failed {
        /// What was asked.
        path: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// There is nothing by that name.
    #[error("the instance metadata service has no {path} (HTTP 404)")]
    NotThere {
        /// What was asked.
        path: String,
    },
    /// Longer than anything that it could say.
    #[error("the instance metadata service's {path} has {bytes} bytes; {MAX_ANSWER} are taken")]
    TooLong {
        /// What was asked.
        path: String,
        /// How long it was.
        bytes: usize,
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
        Self { client: (!disabled).then(|| builder(http).build()) }
    }

    /// At another address than the environment's.
    ///
    /// # Errors
    /// [`ImdsError::Endpoint`]
    pub fn with_endpoint(http: &SchemeClient, endpoint: &str) -> Result<Self, ImdsError> {
        let bad = |source| ImdsError::Endpoint { endpoint: endpoint.to_owned(), source };
        Ok(Self { client: Some(builder(http).endpoint(endpoint).map_err(bad)?.build()) })
    }

    /// Whether it is never asked.
    pub fn is_disabled(&self) -> bool {
        self.client.is_none()
    }

    /// Whether `AWS_EC2_METADATA_DISABLED` is set to true in this environment.
    pub fn disabled_by(value: Option<&str>) -> bool {
        value.is_some_and(|v| v.trim().eq_ignore_ascii_case("true"))
    }

    /// Document and signature. Each is asked for with growing pauses until `patience` is over; each
    /// failure also drops the instance's credentials, which on a new instance come late the same way.
    /// What can't be had is empty: registration goes on without.
    pub async fn document(&self, patience: Duration, credentials: &CredentialsCache) -> InstanceDocument {
        const DOCUMENT: &str = "/latest/dynamic/instance-identity/document";
        const SIGNATURE: &str = "/latest/dynamic/instance-identity/signature";
        if self.is_disabled() {
            return InstanceDocument::default();
        }
        let document = self.get_patiently(DOCUMENT, patience, Some(credentials)).await;
        if document.is_empty() {
            // There is nothing that a signature could be of.
            return InstanceDocument::default();
        }
        let signature = self.get_patiently(SIGNATURE, patience, None).await;
        InstanceDocument { document, signature }
    }

    async fn get_patiently(&self, path: &str, patience: Duration, drop: Option<&CredentialsCache>) -> String {
        let (begun, least) = (Instant::now(), Duration::from_millis(100));
        let mut backoff = Backoff::new(least, Duration::from_secs(5), 0.2, 2.0);
        loop {
            let error = match self.get(path).await {
                Ok(text) => return text,
                Err(error) => error,
            };
            if let Some(credentials) = drop {
                credentials.invalidate().await;
                // For the sake of the cache; who needs them says what is wrong.
                let _ = credentials.get().await;
            }
            let delay = backoff.next_delay();
            let final_answer = matches!(error, ImdsError::NotThere { .. } | ImdsError::TooLong { .. });
            if final_answer || begun.elapsed() + delay > patience {
                tracing::warn!(error = super::chain(&error), "registering without {path}");
                return String::new();
            }
            tokio::time::sleep(delay).await;
        }
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
        self.ask(paths::USER_DATA, USER_DATA).await
    }

    /// VPC and subnet of the primary interface.
    ///
    /// # Errors
    /// [`ImdsError`]; [`ImdsError::NotThere`] outside a VPC.
    pub async fn vpc_place(&self) -> Result<VpcPlace, ImdsError> {
        let mac = self.get("/latest/meta-data/mac").await?;
        // It becomes part of a path.
        let mac: String = mac.chars().filter(|c| c.is_ascii_hexdigit() || *c == ':').collect();
        let of = |member: &str| format!("/latest/meta-data/network/interfaces/macs/{mac}/{member}");
        let (vpc, subnet) = (of("vpc-id"), of("subnet-id"));
        Ok(VpcPlace { vpc: self.get(&vpc).await?, subnet: self.get(&subnet).await? })
    }

    /// What is there by a path below `/latest`; `None` where the service says that there is nothing.
    ///
    /// # Errors
    /// [`ImdsError`]
    pub async fn find(&self, path: &str) -> Result<Option<String>, ImdsError> {
        match self.get(path).await {
            Err(ImdsError::NotThere { .. }) => Ok(None),
            other => other.map(Some),
        }
    }

    async fn get(&self, path: &str) -> Result<String, ImdsError> {
        self.ask(path, QUESTION).await
    }

    async fn ask(&self, path: &str, limit: Duration) -> Result<String, ImdsError> {
        let client = self.client.as_ref().ok_or(ImdsError::Disabled)?;
        let path = path.to_owned();
        match tokio::time::timeout(limit, client.get(path.clone())).await {
            Ok(Ok(text)) if text.as_ref().len() > MAX_ANSWER => {
                Err(ImdsError::TooLong { path, bytes: text.as_ref().len() })
            }
            Ok(Ok(text)) => Ok(text.as_ref().trim().to_owned()),
            Ok(Err(SdkError::ErrorResponse(answer))) if answer.response().status().as_u16() == 404 => {
                Err(ImdsError::NotThere { path })
            }
            Ok(Err(source)) => Err(ImdsError::Failed { path, source: source.into() }),
            Err(_) => Err(ImdsError::Late { path, limit }),
        }
    }
}

fn builder(http: &SchemeClient) -> Builder {
    let config =
        ProviderConfig::without_region().with_http_client(http.clone()).with_sleep_impl(TokioSleep::new());
    Client::builder().configure(&config).max_attempts(3)
}
