//! Puts the agent together: state, host, runtime, network, engine, in the order in which each needs the
//! one before. What can't be had ends the agent here, before anything runs.

use super::abilities::Abilities;
use super::doctor::Doctor;
use super::glue::{self, Instance};
use super::registration::{self, cluster_or_default};
use super::registries::{Endpoints, Logins};
use super::{Failure, Overrides, facts, lifecycle, options};
use crate::cgroup::CgroupService;
use crate::config::Config;
use crate::containerd::cleanup::{Janitor, Removals};
use crate::containerd::images::Pulls;
use crate::containerd::{Connection, ContainerService, ImageService, apparmor};
use crate::control::api::InstanceReporter;
use crate::control::credentials::{ChainOptions, CredentialsCache};
use crate::control::http::SchemeClient;
use crate::control::imds::Imds;
use crate::control::payload::PayloadDecoder;
use crate::control::{Account, AgentIdentity, CredentialsStore, EcsApi, InstanceFacts, chain};
use crate::engine::{Engine, EngineHandle, Ports};
use crate::model::HostResources;
use crate::net::NetworkService;
use crate::ports::{Containers, Loaded, Store, StoreError};
use crate::resources::volumes::VolumeService;
use crate::stats;
use crate::store::RedbStore;
use crate::telemetry::AuditLog;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinSet;

/// How often pulls that were cut off are looked for; between one and two of these they may go on.
const PULLS_LOOKED_THROUGH: Duration = Duration::from_secs(15 * 60);

/// Everything put together, but for the engine's loop.
pub(super) struct Agent {
    pub config: Config,
    pub imds: Imds,
    pub account: Account,
    pub store: Arc<dyn Store>,
    pub stored: Loaded,
    /// The container instance that running containers tell of, where the store does not.
    pub recalled: Option<String>,
    pub facts: InstanceFacts,
    pub abilities: Abilities,
    pub handle: EngineHandle,
    pub cgroups: Arc<CgroupService>,
    pub doctor: Arc<Doctor>,
    pub pulls: Pulls,
    pub reporter: Arc<InstanceReporter>,
    pub roles: CredentialsStore,
    pub instance: watch::Sender<Instance>,
    pub audit: Option<AuditLog>,
    pub background: JoinSet<()>,
}

impl Agent {
    /// Puts one of each together; the engine is to be run by the caller.
    pub async fn assemble(config: Config, overrides: &Overrides) -> Result<(Self, Engine), Failure> {
        let http = SchemeClient::default();
        let imds = Imds::new(&http, config.imds_disabled || overrides.imds_disabled || config.external);
        let cloud_init = lifecycle::check_cloud_init(&imds, lifecycle::CLOUD_INIT_RESULT.as_ref()).await;
        cloud_init.map_err(|error| Failure::terminal(chain(&error)))?;
        let region = region(&config, &imds).await?;
        let account = account(&config, overrides, http.clone(), region.clone());
        let roles = CredentialsStore::default();
        let (store, stored) = open_store(config.data_dir.clone()).await?;
        let stored = registration::own_state(&config, &imds, &store, stored).await?;
        let facts = InstanceFacts::measure(
            stats::processors(),
            config.reserved_memory_mib,
            config.reserved_ports.clone(),
            config.reserved_ports_udp.clone(),
        )
        .map_err(|error| Failure::retry(chain(&error)))?;
        // `-k` is for the control plane alone: who gives passwords has to prove who it is.
        let of_registries = (account.clone().with_http(http), roles.clone());
        let host = Host::open(&config, &region, of_registries).await?;
        let Host { connection, images, containers, networks, cgroups, volumes, doctor, abilities } = host;
        let recalled = registration::recall_instance(&config, &stored, &*containers).await;
        let account = account.with_dual_stack(abilities.ipv6_only);
        let cluster = cluster_or_default(&config);
        let reporter = InstanceReporter::new(EcsApi::new(&account), cluster.clone());
        let reporter = Arc::new(reporter.with_ipv6_only(abilities.ipv6_only));
        let instance = watch::channel(Instance { cluster: cluster.clone(), ..Instance::default() }).0;
        let facts_of_agent = facts::Facts {
            cluster: cluster.clone(),
            region,
            known_instance: registration::known_instance(&stored).or_else(|| recalled.clone()),
            instance: instance.subscribe(),
        };
        let (removals, pulls) = (Removals::default(), images.pulls());
        let house = images.clone();
        let ports = Ports {
            images: Arc::new(removals.guard(images)),
            containers: containers.clone() as Arc<dyn Containers>,
            health: containers.clone(),
            networks: networks.clone(),
            cgroups: cgroups.clone(),
            volumes,
            store: store.clone(),
            reporter: reporter.clone(),
            facts: Arc::new(facts_of_agent),
            decoder: Arc::new(PayloadDecoder),
        };
        let gpus = abilities.gpus.iter().cloned().collect();
        let rules = options::engine(&config, HostResources { gpus, ..facts.host_resources() });
        let opened = tokio::task::spawn_blocking(move || Engine::open(ports, rules));
        let (engine, handle) = opened.await.map_err(Failure::retry)?.map_err(Failure::terminal)?;
        let mut background = JoinSet::new();
        let cleanup = options::cleanup(&config);
        background.spawn(Janitor::new(connection, cleanup, handle.view(), removals).run());
        background.spawn(async move { containers.follow_events().await });
        background.spawn(async move {
            loop {
                tokio::time::sleep(PULLS_LOOKED_THROUGH).await;
                house.give_back_abandoned().await;
            }
        });
        background.spawn(async move {
            if let Err(error) = networks.keep_rules().await {
                tracing::error!(error = chain(&error), "network rules are not watched");
            }
        });
        let agent = Self {
            config,
            imds,
            account,
            store,
            stored,
            recalled,
            facts,
            abilities,
            handle,
            cgroups,
            doctor,
            pulls,
            reporter,
            roles,
            instance,
            audit: None,
            background,
        };
        Ok((agent, engine))
    }
}

/// The adapters that reach this host: its containerd, its networks, its cgroups, its volumes.
struct Host {
    connection: Connection,
    images: ImageService,
    containers: Arc<ContainerService>,
    networks: Arc<NetworkService>,
    cgroups: Arc<CgroupService>,
    volumes: Arc<VolumeService>,
    doctor: Arc<Doctor>,
    abilities: Abilities,
}

impl Host {
    async fn open(
        config: &Config,
        region: &str,
        (account, roles): (Account, CredentialsStore),
    ) -> Result<Self, Failure> {
        let connection = Connection::new(&config.containerd_address, &config.containerd_namespace)
            .map_err(Failure::terminal)?;
        let doctor = Arc::new(Doctor::new(connection.clone()));
        let cgroups = CgroupService::new(options::cgroups(config));
        let cgroups = cgroups.map_err(|error| Failure::terminal(chain(&error)))?;
        let cgroups = Arc::new(cgroups);
        let (abilities, of_containers) = {
            let (config, cgroups, region) = (config.clone(), cgroups.clone(), region.to_owned());
            let probed = tokio::task::spawn_blocking(move || {
                let abilities = Abilities::probe(&config, &cgroups)?;
                let log_host = options::log_host(&config, &region, abilities.ipv6_only);
                Ok((abilities, options::containers(&config, cgroups.systemd_cgroup(), log_host)?))
            });
            probed.await.map_err(Failure::retry)??
        };
        let account = account.with_dual_stack(abilities.ipv6_only);
        let endpoints = Endpoints::from_env(|name| std::env::var(name).ok());
        let logins = Arc::new(Logins::new(account, roles, endpoints));
        let images = ImageService::new(connection.clone(), options::images(config, logins)?);
        let volumes = {
            let options = options::volumes(config);
            let opened = tokio::task::spawn_blocking(move || VolumeService::open(options));
            let failed = |error| Failure::retry(format!("volumes in ECS_DATADIR: {error}"));
            Arc::new(opened.await.map_err(Failure::retry)?.map_err(failed)?)
        };
        load_apparmor_profile().await;
        let images_of_containers = Arc::new(glue::Images(images.store()));
        let containers =
            ContainerService::new(connection.clone(), of_containers, images_of_containers, volumes.clone());
        let containers = Arc::new(containers);
        let networks = NetworkService::new(options::networks(config))
            .map_err(|error| Failure::terminal(chain(&error)))?;
        networks.start().await.map_err(|error| Failure::retry(chain(&error)))?;
        let networks = Arc::new(networks);
        if let Some(gateway) = networks.gateway() {
            containers.set_gateway(gateway);
        }
        Ok(Self { connection, images, containers, networks, cgroups, volumes, doctor, abilities })
    }
}

/// Before the first container, so that none runs unconfined where it need not.
async fn load_apparmor_profile() {
    match tokio::task::spawn_blocking(apparmor::load_default).await {
        Ok(Ok(true)) => tracing::info!("loaded the AppArmor profile docker-default"),
        Ok(Ok(false)) | Err(_) => {}
        Ok(Err(error)) => {
            tracing::warn!(error = chain(&error), "containers run unconfined by AppArmor");
        }
    }
}

/// Where the instance is: AWS_DEFAULT_REGION, or what IMDS tells.
async fn region(config: &Config, imds: &Imds) -> Result<String, Failure> {
    match &config.region {
        Some(region) => Ok(region.clone()),
        None => imds.region().await.map_err(|error| {
            Failure::retry(format!("no region: set AWS_DEFAULT_REGION ({})", chain(&error)))
        }),
    }
}

/// Whom the control plane takes the agent for.
fn account(config: &Config, overrides: &Overrides, http: SchemeClient, region: String) -> Account {
    let identity = AgentIdentity { os_family: config.os_family.clone(), ..AgentIdentity::default() };
    let credentials = ChainOptions {
        external: config.external,
        rotating_profile: config.alternate_credential_profile.clone().unwrap_or_else(|| "default".into()),
        ..ChainOptions::new(region.clone())
    };
    let account = Account::new(region, config.backend_host.clone(), identity)
        .with_http(http.clone())
        .with_credentials(CredentialsCache::chain(http, credentials));
    if !overrides.accept_any_certificate {
        return account;
    }
    tracing::warn!("-k: the control plane's certificates are not verified");
    account.accept_any_certificate()
}

/// The store in ECS_DATADIR, made where there is none, and what it holds.
async fn open_store(data_dir: PathBuf) -> Result<(Arc<dyn Store>, Loaded), Failure> {
    std::fs::create_dir_all(&data_dir)
        .map_err(|error| Failure::retry(format!("ECS_DATADIR {}: {error}", data_dir.display())))?;
    let opened = tokio::task::spawn_blocking(move || {
        let store = RedbStore::open(&data_dir)?;
        let stored = store.load()?;
        Ok::<_, StoreError>((Arc::new(store) as Arc<dyn Store>, stored))
    });
    opened.await.map_err(Failure::retry)?.map_err(Failure::terminal)
}
