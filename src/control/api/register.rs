//! RegisterContainerInstance (spec/control-plane.md 1.4, 1.5, 2).

use super::{ApiError, EcsApi};
use crate::control::attributes::Attribute;
use crate::control::backoff::Backoff;
use crate::control::facts::InstanceFacts;
use crate::control::imds::InstanceDocument;
use aws_sdk_ecs::types;
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// The cluster that an instance without a configured one joins.
const DEFAULT_CLUSTER: &str = "default";
const AZ_ATTRIBUTE: &str = "ecs.availability-zone";

/// How transient errors are retried; shortened by tests.
#[derive(Debug, Clone)]
pub struct RegisterTimings {
    /// The first pause; each is twice the one before, to 64 times the first.
    pub least: Duration,
    /// When it is given up.
    pub give_up: Duration,
}

impl Default for RegisterTimings {
    fn default() -> Self {
        Self { least: Duration::from_secs(3), give_up: Duration::from_secs(3600) }
    }
}

/// What registering needs.
#[derive(Debug, Clone, Default)]
pub struct Registration {
    /// `ECS_CLUSTER`; empty joins `default`, made where it is missing.
    pub cluster: String,
    /// ARN from the store: registers again under it.
    pub instance_arn: Option<String>,
    /// CPU, memory and ports.
    pub facts: InstanceFacts,
    /// Attributes in the order that they are sent.
    pub attributes: Vec<Attribute>,
    /// UUIDs of the GPUs that containers can be given: the platform devices.
    pub gpus: Vec<String>,
    /// The instance's tags: `ECS_CONTAINER_INSTANCE_TAGS`, and those of EC2 where they are propagated.
    pub tags: BTreeMap<String, String>,
    /// Identity document; empty without IMDS.
    pub document: InstanceDocument,
    /// Retries.
    pub timings: RegisterTimings,
}

/// What registering gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registered {
    /// The instance.
    pub arn: String,
    /// The cluster that it is in: the configured one, or `default`.
    pub cluster: String,
    /// Availability zone; empty where the service tells none.
    pub availability_zone: String,
}

/// Registering failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RegisterError {
    /// It will fail again however often it is tried: exit code 5.
    #[error(
        "the instance can't be registered with cluster {cluster:?} (check ECS_CLUSTER and the instance role)"
    )]
    Terminal {
        /// Cluster.
        cluster: String,
        /// Why.
        #[source]
        source: ApiError,
    },
    /// The service registered something else than what was sent: exit code 5.
    #[error("the service did not take attribute {name:?}: sent {sent:?}, registered {registered:?}")]
    Attribute {
        /// Its name.
        name: String,
        /// Value sent.
        sent: String,
        /// Value in the answer; `None` where it is missing.
        registered: Option<String>,
    },
    /// It may succeed later: exit code 1, the supervisor starts the agent again.
    #[error("registering the instance with cluster {cluster:?} failed for now")]
    Retriable {
        /// Cluster.
        cluster: String,
        /// Why.
        #[source]
        source: ApiError,
    },
}

impl RegisterError {
    /// The process's exit code (0.5).
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Terminal { .. } | Self::Attribute { .. } => 5,
            Self::Retriable { .. } => 1,
        }
    }
}

impl EcsApi {
    /// Registers the instance. Makes the cluster only where none is configured and `default` is not
    /// there. Transient errors are retried for up to an hour.
    ///
    /// # Errors
    /// [`RegisterError`]
    pub async fn register_container_instance(
        &self,
        wanted: &Registration,
    ) -> Result<Registered, RegisterError> {
        let token = uuid::Uuid::new_v4().to_string();
        let unset = wanted.cluster.is_empty();
        let mut cluster = if unset { DEFAULT_CLUSTER.to_owned() } else { wanted.cluster.clone() };
        let mut answer = self.register_patiently(wanted, &cluster, &token).await;
        if unset && answer.as_ref().is_err_and(is_cluster_missing) {
            tracing::info!(%cluster, "Creating the cluster");
            cluster = self.create_cluster(&cluster).await.map_err(|e| classify(&cluster, wanted, e))?;
            answer = self.register_patiently(wanted, &cluster, &token).await;
        }
        let instance = answer.map_err(|e| classify(&cluster, wanted, e))?;
        let incomplete = |member| {
            let source = ApiError::Incomplete { operation: "RegisterContainerInstance", member };
            RegisterError::Retriable { cluster: cluster.clone(), source }
        };
        let arn = match &wanted.instance_arn {
            Some(known) => known.clone(),
            None => {
                instance.container_instance_arn.clone().ok_or_else(|| incomplete("containerInstanceArn"))?
            }
        };
        let registered: BTreeMap<&str, &str> =
            instance.attributes().iter().map(|a| (a.name(), a.value().unwrap_or_default())).collect();
        check_attributes(&wanted.attributes, &registered)?;
        let availability_zone = registered.get(AZ_ATTRIBUTE).copied().unwrap_or_default().to_owned();
        Ok(Registered { arn, cluster, availability_zone })
    }

    async fn register_patiently(
        &self,
        wanted: &Registration,
        cluster: &str,
        token: &str,
    ) -> Result<types::ContainerInstance, ApiError> {
        let RegisterTimings { least, give_up } = wanted.timings;
        let (begun, mut backoff) = (Instant::now(), Backoff::new(least, least * 64, 0.2, 2.0));
        loop {
            let error = match self.register_once(wanted, cluster, token).await {
                Ok(instance) => return Ok(instance),
                Err(error) => error,
            };
            let transient =
                matches!(error.code(), "ThrottlingException" | "ServerException" | "LimitExceededException");
            let delay = backoff.next_delay();
            if !transient || begun.elapsed() + delay > give_up {
                return Err(error);
            }
            tracing::warn!(%error, ?delay, "Registering the instance failed; trying again");
            tokio::time::sleep(delay).await;
        }
    }

    async fn register_once(
        &self,
        wanted: &Registration,
        cluster: &str,
        token: &str,
    ) -> Result<types::ContainerInstance, ApiError> {
        const OPERATION: &str = "RegisterContainerInstance";
        // The SDK's model has no token, and writes a zero for every type that a resource is not of.
        let members = Map::from_iter([
            ("clientToken".to_owned(), token.into()),
            ("totalResources".to_owned(), resources(&wanted.facts)),
        ]);
        let tags: Vec<types::Tag> =
            wanted.tags.iter().map(|(k, v)| types::Tag::builder().key(k).value(v).build()).collect();
        let attributes = wanted.attributes.iter().filter_map(|a| {
            types::Attribute::builder().name(&a.name).set_value(a.value.clone()).build().ok()
        });
        let devices = wanted.gpus.iter().filter_map(|id| {
            types::PlatformDevice::builder().id(id).r#type(types::PlatformDeviceType::Gpu).build().ok()
        });
        let devices: Vec<types::PlatformDevice> = devices.collect();
        let answer = self
            .client
            .register_container_instance()
            .cluster(cluster)
            .set_container_instance_arn(wanted.instance_arn.clone())
            .instance_identity_document(&wanted.document.document)
            .instance_identity_document_signature(&wanted.document.signature)
            .set_attributes(Some(attributes.collect()))
            .set_platform_devices(Some(devices).filter(|d| !d.is_empty()))
            .set_tags(Some(tags).filter(|t| !t.is_empty()))
            .customize()
            .mutate_request(self.finish(members))
            .send()
            .await
            .map_err(|e| ApiError::new(OPERATION, e))?;
        answer
            .container_instance
            .ok_or(ApiError::Incomplete { operation: OPERATION, member: "containerInstance" })
    }

    async fn create_cluster(&self, name: &str) -> Result<String, ApiError> {
        let answer = self
            .client
            .create_cluster()
            .cluster_name(name)
            .customize()
            .mutate_request(self.finish(Map::new()))
            .send()
            .await
            .map_err(|e| ApiError::new("CreateCluster", e))?;
        let made = answer.cluster.and_then(|c| c.cluster_name);
        Ok(made.unwrap_or_else(|| name.to_owned()))
    }
}

/// `totalResources`, in the original's order (2.2).
fn resources(facts: &InstanceFacts) -> Value {
    let number = |name: &str, value: u64| json!({"name": name, "type": "INTEGER", "integerValue": value});
    let ports = |name: &str, ports: &BTreeSet<u16>| {
        let ports: Vec<String> = ports.iter().map(u16::to_string).collect();
        json!({"name": name, "type": "STRINGSET", "stringSetValue": ports})
    };
    json!([
        number("CPU", facts.cpu_units),
        number("MEMORY", facts.memory_mib),
        ports("PORTS", &facts.reserved_tcp),
        ports("PORTS_UDP", &facts.reserved_udp),
    ])
}

fn is_cluster_missing(error: &ApiError) -> bool {
    error.code() == "ClusterNotFoundException" || error.message().contains("Cluster not found.")
}

/// Terminal and retriable errors of 1.5.
fn classify(cluster: &str, wanted: &Registration, source: ApiError) -> RegisterError {
    let type_changed = wanted.instance_arn.is_some()
        && source.message().contains("Container instance type changes are not supported.");
    let cluster = cluster.to_owned();
    if type_changed || matches!(source.code(), "InvalidParameterException" | "ClientException") {
        RegisterError::Terminal { cluster, source }
    } else {
        RegisterError::Retriable { cluster, source }
    }
}

/// Every attribute sent must be in the answer with its value; a name alone may be missing (1.5).
fn check_attributes(sent: &[Attribute], registered: &BTreeMap<&str, &str>) -> Result<(), RegisterError> {
    for attribute in sent {
        let value = attribute.value.as_deref().unwrap_or_default();
        let found = registered.get(attribute.name.as_str()).copied();
        if found.unwrap_or_default() != value {
            return Err(RegisterError::Attribute {
                name: attribute.name.clone(),
                sent: value.to_owned(),
                registered: found.map(str::to_owned),
            });
        }
    }
    Ok(())
}
