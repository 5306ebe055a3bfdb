//! The composition root of the agent: the only place that names concrete adapters. It puts one of
//! each together, starts them in order, and ends them.
//!
//! Order: configuration, log, state, host, network; then the engine, so that containers are watched
//! over before and while the control plane can't be reached; then registration, and the websockets.

mod abilities;
mod acs;
mod attach;
mod audit;
mod doctor;
mod dump;
mod facts;
mod glue;
pub mod lifecycle;
pub mod local_host;
mod notify;
mod registration;
pub mod settings;
pub mod spot;
pub mod telemetry;

use crate::cgroup::{CgroupOptions, CgroupService};
use crate::config::{self, Config};
use crate::containerd::images::{ImageOptions, PullBehavior};
use crate::containerd::{Connection, ContainerOptions, ContainerService, ImageService};
use crate::control::acs::{AcsContext, AcsTimings};
use crate::control::api::InstanceReporter;
use crate::control::credentials::{ChainOptions, CredentialsCache};
use crate::control::imds::Imds;
use crate::control::payload::PayloadDecoder;
use crate::control::tcs::{TcsContext, TcsTimings};
use crate::control::update::UpdateOptions;
use crate::control::{self, Account, AgentIdentity, CredentialsStore, EcsApi, InstanceFacts};
use crate::core::{Rules, Timeouts};
use crate::engine::{Engine, EngineHandle, Limits, Options, Ports};
use crate::net::{HostLinks, NetworkOptions, NetworkService};
use crate::ports::{Containers, Loaded, Store};
use crate::store::RedbStore;
use crate::telemetry::{AuditLog, Log};
use crate::tmds::{self, IntrospectionHandler, MetadataHandler, RateLimit, Server};
use abilities::Abilities;
pub use abilities::print_attributes;
use doctor::Doctor;
use glue::Instance;
use notify::Notifier;
use registration::{Registrar, cluster_or_default};
use std::path::PathBuf;
use std::sync::Arc;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;

/// Exit code: done.
pub const DONE: u8 = 0;
/// Exit code: failed, and worth another try.
pub const FAILED: u8 = 1;
/// Exit code: failed, and would again; the supervisor must not restart the agent.
pub const TERMINAL: u8 = 5;

/// Exit code: a new agent is staged; the supervisor is to start that one.
pub const UPDATE: u8 = 42;

/// What the command line adds to the environment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Overrides {
    /// Level of standard output, instead of ECS_LOGLEVEL.
    pub log_level_driver: Option<String>,
    /// Level of the log file, instead of ECS_LOGLEVEL_ON_INSTANCE.
    pub log_level_on_instance: Option<String>,
    /// Certificates of the control plane are not verified.
    pub accept_any_certificate: bool,
    /// IMDS is never asked.
    pub imds_disabled: bool,
}

/// Why the agent can't run, and the code to exit with.
#[derive(Debug)]
struct Failure {
    code: u8,
    message: String,
}

impl Failure {
    fn retry(error: impl std::fmt::Display) -> Self {
        Self { code: FAILED, message: error.to_string() }
    }

    fn terminal(error: impl std::fmt::Display) -> Self {
        Self { code: TERMINAL, message: error.to_string() }
    }
}

/// Runs the agent until it is told to end; answers its exit code.
pub fn run(overrides: &Overrides) -> u8 {
    // One thread is enough for what is all waiting; what blocks has threads of its own.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(32)
        .thread_keep_alive(std::time::Duration::from_secs(2))
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("ecsd: no runtime: {error}");
            return FAILED;
        }
    };
    let config::LoadedConfig { config, warnings, .. } = match runtime.block_on(settings::load(overrides)) {
        Ok(loaded) => loaded,
        Err(error) => {
            eprintln!("ecsd: {error}");
            return FAILED;
        }
    };
    let log = match crate::telemetry::init(settings::log_options(&config, overrides)) {
        Ok(log) => log,
        Err(error) => {
            eprintln!("ecsd: {}", control::chain(&error));
            return FAILED;
        }
    };
    for warning in warnings.iter().chain(&settings::unknown_levels(overrides)) {
        tracing::warn!(variable = warning.variable, "{}", warning.message);
    }
    let code = match runtime.block_on(agent(config, overrides, &log)) {
        Ok(()) => DONE,
        Err(failure) => {
            tracing::error!(target: crate::telemetry::CRITICAL, exit = failure.code, "{}", failure.message);
            failure.code
        }
    };
    // Effects under way are left: whatever they were making is found again by its derived id.
    runtime.shutdown_background();
    log.flush();
    code
}

async fn agent(config: Config, overrides: &Overrides, log: &Log) -> Result<(), Failure> {
    let mut terminate = signal(SignalKind::terminate()).map_err(Failure::retry)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(Failure::retry)?;
    // From here on it no longer ends the process.
    let asked = signal(SignalKind::user_defined1()).map_err(Failure::retry)?;
    let ended = async {
        // Both only tell that a signal came: cancel-safe.
        tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
        }
    };
    let notifier = Notifier::from_env();
    notifier.status("starting");
    let mut agent = Agent::assemble(config, overrides).await?;
    agent.audit = log.audit();
    agent.background.spawn(dump::serve(asked, agent.handle.view(), agent.roles.clone()));
    let (stop, stopped) = watch::channel(false);
    let engine = tokio::spawn(agent.engine.take_loop(stopped));
    if let Some(period) = notify::watchdog_period(|name| std::env::var(name).ok()) {
        let handle = agent.handle.clone();
        let responds = move || {
            let handle = handle.clone();
            Box::pin(async move { handle.responds().await }) as futures_util::future::BoxFuture<'static, bool>
        };
        agent.background.spawn(notifier.clone().keep_alive(period, responds));
    }
    // The work ends with an error or never; the signal ends it.
    let result = tokio::select! {
        failure = agent.serve(&notifier) => Err(failure),
        name = ended => {
            tracing::info!(signal = name, "the agent ends; containers are left alone");
            Ok(())
        }
    };
    notifier.stopping("ending; containers are left alone");
    agent.background.abort_all();
    stop.send_replace(true);
    // What is known is made durable; a store that hangs does not hold the end back.
    let _ = tokio::time::timeout(std::time::Duration::from_millis(1500), engine).await;
    result
}

/// Everything put together.
struct Agent {
    config: Config,
    imds: Imds,
    account: Account,
    store: Arc<dyn Store>,
    stored: Loaded,
    facts: InstanceFacts,
    abilities: Abilities,
    engine: EngineSlot,
    handle: EngineHandle,
    cgroups: Arc<CgroupService>,
    doctor: Arc<Doctor>,
    reporter: Arc<InstanceReporter>,
    roles: CredentialsStore,
    instance: watch::Sender<Instance>,
    audit: Option<AuditLog>,
    background: JoinSet<()>,
}

/// The engine until its loop is taken.
struct EngineSlot(Option<Engine>);

impl EngineSlot {
    fn take_loop(&mut self, mut stopped: watch::Receiver<bool>) -> impl Future<Output = ()> + use<> {
        let engine = self.0.take();
        async move {
            if let Some(engine) = engine {
                let stop = async move {
                    // The sender gone means the same as told.
                    let _ = stopped.wait_for(|stop| *stop).await;
                };
                engine.run(stop).await;
            }
        }
    }
}

impl Agent {
    async fn assemble(config: Config, overrides: &Overrides) -> Result<Self, Failure> {
        let imds_disabled = config.imds_disabled || overrides.imds_disabled || config.external;
        let identity = AgentIdentity { os_family: config.os_family.clone(), ..AgentIdentity::default() };
        let http = control::http::SchemeClient::default();
        let imds = Imds::new(&http, imds_disabled);
        let cloud_init = lifecycle::check_cloud_init(&imds, lifecycle::CLOUD_INIT_RESULT.as_ref()).await;
        cloud_init.map_err(|error| Failure::terminal(control::chain(&error)))?;
        let region = match &config.region {
            Some(region) => region.clone(),
            None => imds.region().await.map_err(|error| {
                Failure::retry(format!("no region: set AWS_DEFAULT_REGION ({})", control::chain(&error)))
            })?,
        };
        let chain = ChainOptions {
            external: config.external,
            rotating_profile: config.alternate_credential_profile.clone().unwrap_or_else(|| "default".into()),
            ..ChainOptions::new(region.clone())
        };
        let mut account = Account::new(region.clone(), config.backend_host.clone(), identity)
            .with_http(http.clone())
            .with_credentials(CredentialsCache::chain(http, chain));
        if overrides.accept_any_certificate {
            tracing::warn!("-k: the control plane's certificates are not verified");
            account = account.accept_any_certificate();
        }
        std::fs::create_dir_all(&config.data_dir)
            .map_err(|error| Failure::retry(format!("ECS_DATADIR {}: {error}", config.data_dir.display())))?;
        let data_dir = config.data_dir.clone();
        let opened = tokio::task::spawn_blocking(move || {
            let store = RedbStore::open(&data_dir)?;
            let stored = store.load()?;
            Ok::<_, crate::ports::StoreError>((store, stored))
        });
        let (store, stored) = opened.await.map_err(Failure::retry)?.map_err(Failure::terminal)?;
        let store: Arc<dyn Store> = Arc::new(store);
        let stored = registration::own_state(&config, &imds, &store, stored).await?;
        let facts = InstanceFacts::measure(
            config.reserved_memory_mib,
            config.reserved_ports.clone(),
            config.reserved_ports_udp.clone(),
        )
        .map_err(|error| Failure::retry(control::chain(&error)))?;

        let connection = Connection::new(&config.containerd_address, &config.containerd_namespace)
            .map_err(Failure::terminal)?;
        let images = ImageService::new(connection.clone(), image_options(&config)?);
        let doctor = Arc::new(Doctor::new(connection.clone()));
        let cgroups = CgroupService::new(CgroupOptions {
            root: config.cgroup_root.clone(),
            task_pids: Some(config.task_pids_limit).filter(|limit| *limit > 0),
        })
        .map_err(|error| Failure::terminal(control::chain(&error)))?;
        let cgroups = Arc::new(cgroups);
        let abilities = {
            let (config, cgroups) = (config.clone(), cgroups.clone());
            let probed = tokio::task::spawn_blocking(move || Abilities::probe(&config, &cgroups));
            probed.await.map_err(Failure::retry)??
        };
        account = account.with_dual_stack(abilities.ipv6_only);
        let containers = Arc::new(ContainerService::new(
            connection,
            container_options(&config, cgroups.systemd_cgroup())?,
            Arc::new(glue::Images(images.store())),
        ));
        let networks = NetworkService::new(network_options(&config))
            .map_err(|error| Failure::terminal(control::chain(&error)))?;
        networks.start().await.map_err(|error| Failure::retry(control::chain(&error)))?;
        let networks = Arc::new(networks);

        let api = EcsApi::new(&account);
        let cluster = cluster_or_default(&config);
        let reporter =
            Arc::new(InstanceReporter::new(api.clone(), cluster.clone()).with_ipv6_only(abilities.ipv6_only));
        let ports = Ports {
            images: Arc::new(images),
            containers: containers.clone() as Arc<dyn Containers>,
            networks: networks.clone(),
            cgroups: cgroups.clone(),
            store: store.clone(),
            reporter: reporter.clone(),
            facts: Arc::new(facts::Facts { cluster: cluster.clone(), region }),
            decoder: Arc::new(PayloadDecoder),
        };
        let options = Options {
            rules: Rules {
                host: facts.host_resources(),
                stop_timeout: config.container_stop_timeout,
                cleanup_wait: config.task_cleanup_wait,
                cleanup_jitter: config.task_cleanup_jitter,
                timeouts: Timeouts {
                    resolve: config.manifest_pull_timeout,
                    pull: config.image_pull_timeout,
                    create: config.container_create_timeout,
                    start: config.container_start_timeout,
                },
                pull_failure_stops_task: matches!(
                    config.image_pull_behavior,
                    config::PullBehavior::Always | config::PullBehavior::Once
                ),
            },
            data_dir: config.data_dir.clone(),
            limits: Limits::default(),
        };
        let opened = tokio::task::spawn_blocking(move || Engine::open(ports, options));
        let (engine, handle) = opened.await.map_err(Failure::retry)?.map_err(Failure::terminal)?;
        let mut background = JoinSet::new();
        background.spawn(async move { containers.follow_events().await });
        background.spawn(async move {
            if let Err(error) = networks.keep_rules().await {
                tracing::error!(error = control::chain(&error), "network rules are not watched");
            }
        });
        Ok(Self {
            config,
            imds,
            account,
            store,
            stored,
            facts,
            abilities,
            engine: EngineSlot(Some(engine)),
            handle,
            cgroups,
            doctor,
            reporter,
            roles: CredentialsStore::default(),
            instance: watch::channel(Instance { cluster, ..Instance::default() }).0,
            audit: None,
            background,
        })
    }

    /// Registers and keeps both websockets; comes back only with a failure.
    async fn serve(&mut self, notifier: &Notifier) -> Failure {
        let (cgroups, doctor) = (self.cgroups.clone(), self.doctor.clone());
        let told = telemetry::start(&self.config, cgroups, doctor, self.handle.view(), &mut self.background);
        self.start_endpoints(told.clone());
        if self.config.warm_pools_check {
            notifier.status("waiting for the warm pool to let the instance into service");
            let timings = lifecycle::WarmPoolTimings::default();
            if let Err(error) = lifecycle::leave_warm_pool(&self.imds, &timings).await {
                return Failure::terminal(control::chain(&error));
            }
        }
        notifier.status("registering");
        let api = EcsApi::new(&self.account);
        let registrar = Registrar {
            config: &self.config,
            imds: &self.imds,
            account: &self.account,
            facts: &self.facts,
            abilities: &self.abilities,
            stored: &self.stored,
            store: &self.store,
        };
        let registered = match registrar.register(&api).await {
            Ok(registered) => registered,
            Err(failure) => return failure,
        };
        self.instance.send_modify(|instance| {
            instance.cluster = registered.cluster.clone();
            instance.arn = Some(registered.arn.clone());
            instance.availability_zone =
                Some(registered.availability_zone.clone()).filter(|zone| !zone.is_empty());
        });
        notifier.ready(&format!("registered with cluster {}", registered.cluster));
        if self.config.spot_draining {
            let (cluster, instance) = (registered.cluster.clone(), registered.arn.clone());
            let imds = self.imds.clone();
            self.background.spawn(spot::drain_when_interrupted(
                imds,
                api.clone(),
                cluster,
                instance,
                spot::POLL,
            ));
        }
        let timeline = self.stored.meta.get(acs::MANIFEST_SEQUENCE).and_then(|text| text.parse().ok());
        let (events, inbox) = tokio::sync::mpsc::channel(64);
        let context = AcsContext {
            api: api.clone(),
            account: self.account.clone(),
            cluster: registered.cluster.clone(),
            instance: registered.arn.clone(),
            roles: self.roles.clone(),
            timeline: timeline.unwrap_or(-1),
            updates: self.update_options(),
            timings: AcsTimings::default(),
        };
        self.background.spawn(control::acs::run(context, events));
        self.background.spawn(acs::forget_credentials(self.handle.view(), self.roles.clone()));
        let listeners = acs::Listeners {
            attachments: self.start_attachments(),
            doctor: self.doctor.clone(),
            drop_telemetry: Arc::new(Notify::new()),
        };
        let context = TcsContext {
            api,
            account: self.account.clone(),
            cluster: registered.cluster,
            instance: registered.arn,
            telemetry: told,
            drop_connection: listeners.drop_telemetry.clone(),
            timings: TcsTimings::default(),
        };
        self.background.spawn(control::tcs::run(context));
        match acs::serve(inbox, self.handle.clone(), self.store.clone(), listeners).await {
            acs::Ended::Session => Failure::retry("the ACS session ended"),
            acs::Ended::Update => {
                Failure { code: UPDATE, message: "a new agent is staged, and takes over".into() }
            }
        }
    }

    /// Updates are taken where they are on and have a place to go.
    fn update_options(&self) -> Option<UpdateOptions> {
        let directory = self.config.update_download_dir.clone().filter(|_| self.config.updates_enabled);
        directory.map(|directory| UpdateOptions::new(directory, self.account.identity.user_agent()))
    }

    fn start_attachments(&mut self) -> tokio::sync::mpsc::Sender<attach::Announcement> {
        let (announce, announced) = tokio::sync::mpsc::channel(64);
        let service = attach::Service {
            store: self.store.clone(),
            links: Arc::new(HostLinks),
            reporter: self.reporter.clone(),
            tasks: self.handle.view(),
        };
        let stored = std::mem::take(&mut self.stored.attachments);
        self.background.spawn(service.run(stored, announced));
        announce
    }

    /// Metadata and introspection.
    fn start_endpoints(&mut self, told: Arc<telemetry::Told>) {
        let (snapshots, snapshot) = watch::channel(Arc::new(tmds::Snapshot::default()));
        let publish = glue::publish_snapshots(self.handle.view(), self.instance.subscribe(), snapshots);
        self.background.spawn(publish);
        let credentials =
            Arc::new(glue::Credentials { delivered: self.roles.clone(), tasks: self.handle.view() });
        let (steady, burst) = self.config.task_metadata_rps;
        let metadata =
            MetadataHandler::new(snapshot.clone(), credentials, RateLimit { per_second: steady, burst })
                .with_stats(told);
        let metadata = match self.audit.clone() {
            Some(log) => metadata.with_audit(Arc::new(audit::Audit {
                log,
                tasks: self.handle.view(),
                instance: self.instance.subscribe(),
            })),
            None => metadata,
        };
        let introspection = IntrospectionHandler::new(snapshot, self.account.identity.full_version());
        for (name, address, handler) in [
            (
                "task metadata",
                self.config.task_metadata_address,
                Arc::new(metadata) as Arc<dyn tmds::Handler>,
            ),
            ("introspection", self.config.introspection_address, Arc::new(introspection)),
        ] {
            let server = Server::start(name, address, handler);
            self.background.spawn(async move {
                // Serves until it is dropped.
                let _server = server;
                std::future::pending::<()>().await;
            });
        }
    }
}

fn image_options(config: &Config) -> Result<ImageOptions, Failure> {
    let mut options = ImageOptions {
        snapshotter: config.containerd_snapshotter.clone(),
        pull_behavior: match config.image_pull_behavior {
            config::PullBehavior::Default => PullBehavior::Default,
            config::PullBehavior::Always => PullBehavior::Always,
            config::PullBehavior::Once => PullBehavior::Once,
            config::PullBehavior::PreferCached => PullBehavior::PreferCached,
        },
        auth: config.registry_auth().map_err(Failure::retry)?,
        ..ImageOptions::default()
    };
    options.tuning.inactivity_timeout = config.image_pull_inactivity_timeout;
    Ok(options)
}

fn container_options(config: &Config, systemd_cgroup: bool) -> Result<ContainerOptions, Failure> {
    Ok(ContainerOptions {
        snapshotter: config.containerd_snapshotter.clone(),
        runtime: config.containerd_runtime.clone(),
        runtime_binary: config.containerd_runtime_binary.as_ref().map(|path| path.display().to_string()),
        systemd_cgroup,
        logger_program: logger_program(config)?,
    })
}

/// `ecsd-logger`: where ECSD_LOGGER says, or beside the agent.
fn logger_program(config: &Config) -> Result<PathBuf, Failure> {
    let beside = || Some(std::env::current_exe().ok()?.parent()?.join("ecsd-logger"));
    let program =
        config.logger.clone().or_else(beside).unwrap_or_else(|| PathBuf::from("/usr/bin/ecsd-logger"));
    if program.is_file() {
        return Ok(program);
    }
    Err(Failure::terminal(format!(
        "the log writer {} is not there: install ecsd-logger beside ecsd, or name it by ECSD_LOGGER",
        program.display()
    )))
}

fn network_options(config: &Config) -> NetworkOptions {
    NetworkOptions {
        bridge_name: config.bridge.clone(),
        netns_dir: config.runtime_dir.join("netns"),
        metadata_port: config.task_metadata_address.port(),
        dynamic_port_range: config.dynamic_host_port_range,
        reserved_tcp: config.reserved_ports.clone(),
        reserved_udp: config.reserved_ports_udp.clone(),
        ..NetworkOptions::default()
    }
}
