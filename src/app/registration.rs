//! Registering the container instance: whether what is stored belongs to it, what is told of it, and
//! what is kept of the answer (spec/control-plane.md 1.5, 1.6, 2). Used by the agent's start alone.

use super::Failure;
use super::abilities::Abilities;
use crate::config::Config;
use crate::control::api::{RegisterError, RegisterTimings, Registered, Registration};
use crate::control::attributes::attributes;
use crate::control::imds::{Imds, InstanceDocument, paths};
use crate::control::{Account, EcsApi, InstanceFacts, chain, ec2};
use crate::core::Observed;
use crate::ports::{Containers, Loaded, Store, StoreChange};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Keys of what the store holds of the agent itself, as the original names them.
const INSTANCE_ARN: &str = "container-instance-arn";
const CLUSTER: &str = "cluster-name";
const AVAILABILITY_ZONE: &str = "availability-zone";
const EC2_INSTANCE_ID: &str = "ec2-instance-id";

/// How long the identity document, and then its signature, is asked for (spec 2.3).
const DOCUMENT_PATIENCE: Duration = Duration::from_secs(30);

/// How long the runtime is asked for the container instance that the store does not know.
const RECALL_PATIENCE: Duration = Duration::from_secs(5);

/// What registering is made of.
pub(super) struct Registrar<'a> {
    pub config: &'a Config,
    pub imds: &'a Imds,
    pub account: &'a Account,
    pub facts: &'a InstanceFacts,
    pub abilities: &'a Abilities,
    pub stored: &'a Loaded,
    /// The container instance that running containers tell of, where the store does not.
    pub recalled: Option<&'a str>,
    pub store: &'a Arc<dyn Store>,
}

impl Registrar<'_> {
    /// Registers, anew or under the ARN of an earlier life, and stores what the service answered.
    pub async fn register(&self, api: &EcsApi) -> Result<Registered, Failure> {
        let known = saved(self.stored, INSTANCE_ARN).or(self.recalled).map(str::to_owned);
        if let Err(error) = self.account.credentials.get().await {
            // The first call says so again; here it is the plainest.
            tracing::warn!(error = chain(&error), "no AWS credentials yet");
        }
        let mut capabilities = self.abilities.capabilities(self.config);
        if known.is_some() {
            // Custom attributes belong to the first registration only.
            capabilities.custom.clear();
        }
        if self.config.task_eni && !self.imds.is_disabled() {
            match self.imds.vpc_place().await {
                Ok(place) => capabilities.vpc = Some((place.vpc, place.subnet)),
                Err(error) => tracing::warn!(error = chain(&error), "registering without VPC and subnet"),
            }
        }
        capabilities.outpost_arn = self.imds.find(paths::OUTPOST_ARN).await.ok().flatten();
        let document = match self.config.no_identity_document {
            true => InstanceDocument::default(),
            false => self.imds.document(DOCUMENT_PATIENCE, &self.account.credentials).await,
        };
        let ec2_id = match document.instance_id() {
            Some(id) => Some(id),
            None => self.imds.find(paths::INSTANCE_ID).await.ok().flatten(),
        };
        let mut wanted = Registration {
            cluster: self.config.cluster.clone(),
            instance_arn: known,
            facts: self.facts.clone(),
            attributes: attributes(&capabilities),
            gpus: self.abilities.gpus.clone(),
            tags: self.tags(ec2_id.as_deref()).await?,
            document,
            timings: RegisterTimings::default(),
        };
        let mut registered = api.register_container_instance(&wanted).await;
        if let Err(RegisterError::Terminal { source, .. }) = &registered
            && self.recalled.is_some()
        {
            tracing::warn!(
                error = chain(source),
                "the container instance of before is no more: registering anew"
            );
            wanted.instance_arn = None;
            registered = api.register_container_instance(&wanted).await;
        }
        let mut registered =
            registered.map_err(|error| Failure { code: error.exit_code(), message: chain(&error) })?;
        if registered.availability_zone.is_empty() {
            registered.availability_zone =
                saved(self.stored, AVAILABILITY_ZONE).unwrap_or_default().to_owned();
        }
        tracing::info!(instance = registered.arn, cluster = registered.cluster, "registered");
        self.keep(&registered, ec2_id).await;
        Ok(registered)
    }

    /// EC2's tags where they are propagated; those of `ECS_CONTAINER_INSTANCE_TAGS` win.
    async fn tags(&self, ec2_id: Option<&str>) -> Result<BTreeMap<String, String>, Failure> {
        if !self.config.propagate_ec2_tags {
            return Ok(self.config.instance_tags.clone());
        }
        let id = ec2_id.ok_or_else(|| {
            Failure::retry(
                "ECS_CONTAINER_INSTANCE_PROPAGATE_TAGS_FROM is ec2_instance, but the instance metadata service \
                 does not tell which instance this is",
            )
        })?;
        // The SDKs' own variable for another endpoint.
        let endpoint = std::env::var("AWS_ENDPOINT_URL_EC2")
            .ok()
            .filter(|endpoint| !endpoint.is_empty())
            .unwrap_or_else(|| ec2::endpoint(&self.account.region, self.account.dual_stack));
        let tags = ec2::instance_tags(self.account, &endpoint, id, &ec2::Ec2Timings::default()).await;
        let mut tags = tags.map_err(|error| Failure::retry(chain(&error)))?;
        tags.extend(self.config.instance_tags.clone());
        Ok(tags)
    }

    async fn keep(&self, registered: &Registered, ec2_id: Option<String>) {
        let mut changes = vec![
            StoreChange::PutMeta(INSTANCE_ARN, registered.arn.clone()),
            StoreChange::PutMeta(CLUSTER, registered.cluster.clone()),
            StoreChange::PutMeta(AVAILABILITY_ZONE, registered.availability_zone.clone()),
        ];
        // Where IMDS tells no id, the one that is known stays.
        changes.extend(ec2_id.map(|id| StoreChange::PutMeta(EC2_INSTANCE_ID, id)));
        if let Err(error) = commit(self.store, changes).await {
            tracing::error!(error, "the registration could not be stored: the next start registers anew");
        }
    }
}

/// What is stored, if it belongs to this instance and cluster. State of another EC2 instance (an
/// image was made of a machine that had run) is forgotten, and this one registers anew: its tasks are
/// not ours. State of another cluster ends the agent for good.
pub(super) async fn own_state(
    config: &Config,
    imds: &Imds,
    store: &Arc<dyn Store>,
    stored: Loaded,
) -> Result<Loaded, Failure> {
    if let Some(known) = saved(&stored, EC2_INSTANCE_ID)
        && let Ok(Some(current)) = imds.find(paths::INSTANCE_ID).await
        && current != known
    {
        tracing::warn!(
            saved = known,
            current,
            tasks = stored.tasks.len(),
            "the state in {} is of another EC2 instance: it is forgotten, and this instance registers as a new one",
            config.data_dir.display()
        );
        let mut changes: Vec<StoreChange> =
            stored.tasks.iter().map(|(id, _, _)| StoreChange::RemoveTask(id.clone())).collect();
        for key in [INSTANCE_ARN, CLUSTER, AVAILABILITY_ZONE, super::acs::MANIFEST_SEQUENCE] {
            changes.push(StoreChange::PutMeta(key, String::new()));
        }
        changes.push(StoreChange::PutMeta(EC2_INSTANCE_ID, current));
        // With it the engine would take up what is not this instance's.
        commit(store, changes).await.map_err(Failure::terminal)?;
        return Ok(Loaded::default());
    }
    check_cluster(config, &stored)?;
    Ok(stored)
}

/// ARN of the container instance of an earlier life.
pub(super) fn known_instance(stored: &Loaded) -> Option<String> {
    saved(stored, INSTANCE_ARN).map(str::to_owned)
}

/// Where the store knows no container instance any more, but containers run on this host that were made
/// for one, in this cluster: it is that one. A process runs on the machine that started it, so this can be
/// no image of another.
pub(super) async fn recall_instance(
    config: &Config,
    stored: &Loaded,
    containers: &dyn Containers,
) -> Option<String> {
    if saved(stored, INSTANCE_ARN).is_some() {
        return None;
    }
    // Without an answer there is nothing to recall; the agent does not wait for it.
    let asked = async { Some((containers.list().await.ok()?, containers.held().await.ok()?)) };
    let answer = tokio::time::timeout(RECALL_PATIENCE, asked).await.ok().flatten();
    let (seen, held) = answer.unwrap_or_default();
    let cluster = cluster_or_default(config);
    let running = held.into_iter().filter(|(key, container)| {
        matches!(seen.get(key), Some(Observed::Running)) && container.cluster == cluster
    });
    let mut instances = running.filter_map(|(_, c)| c.keepsake.map(|k| k.instance)).filter(|i| !i.is_empty());
    instances.next().inspect(|instance| {
        tracing::warn!(
            instance,
            "the state is lost, but not the containers: this is their container instance"
        );
    })
}

/// State of one cluster must not go on in another.
fn check_cluster(config: &Config, stored: &Loaded) -> Result<(), Failure> {
    let configured = cluster_or_default(config);
    match saved(stored, CLUSTER) {
        Some(saved) if *saved != configured => Err(Failure::terminal(format!(
            "ECS_CLUSTER is {configured:?}, but the state in {} is of cluster {saved:?}: set ECS_CLUSTER back, or \
             move the state away to register anew",
            config.data_dir.display()
        ))),
        _ => Ok(()),
    }
}

/// The cluster by its name: an unset one is `default`.
pub(super) fn cluster_or_default(config: &Config) -> String {
    if config.cluster.is_empty() { "default".to_owned() } else { config.cluster.clone() }
}

/// A stored value; one that was forgotten is stored empty.
fn saved<'a>(stored: &'a Loaded, key: &str) -> Option<&'a str> {
    stored.meta.get(key).map(String::as_str).filter(|value| !value.is_empty())
}

async fn commit(store: &Arc<dyn Store>, changes: Vec<StoreChange>) -> Result<(), String> {
    let store = store.clone();
    let written = tokio::task::spawn_blocking(move || store.commit(&changes)).await;
    written.map_err(|error| error.to_string())?.map_err(|error| error.to_string())
}
