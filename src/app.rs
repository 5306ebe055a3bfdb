//! The composition root of the agent, the only place that names concrete adapters: `assemble` puts one
//! of each together, `serve` sets them to work, and this file starts and ends both.
//!
//! Order: configuration, log, state, host, network; then the engine, so that containers are watched
//! over before and while the control plane can't be reached; then registration, and the websockets.

mod abilities;
mod acs;
mod ask;
mod assemble;
mod attach;
mod audit;
mod doctor;
mod dump;
mod facts;
mod glue;
pub mod lifecycle;
pub mod local_host;
mod notify;
mod options;
mod registration;
pub mod registries;
mod serve;
pub mod settings;
pub mod spot;
pub mod telemetry;

use crate::config::{self, Config};
use crate::control;
use crate::telemetry::Log;
pub use abilities::print_attributes;
use assemble::Agent;
use notify::Notifier;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

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
    // One thread is enough for what is all waiting; what blocks has threads of its own. A second one costs
    // more in waking each other than it brings (docs/performance.md).
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
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
    raise_descriptor_limit();
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

/// As many descriptors as the host allows: each mapped port takes two, and the usual soft limit of 1024
/// is there for programs that use `select`.
fn raise_descriptor_limit() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let kind = Resource::RLIMIT_NOFILE;
    let raised = getrlimit(kind).and_then(|(_, hard)| setrlimit(kind, hard, hard));
    if let Err(error) = raised {
        tracing::warn!(%error, "the limit of open files stays as it is");
    }
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
    let (mut agent, engine) = Agent::assemble(config, overrides).await?;
    agent.audit = log.audit();
    agent.background.spawn(dump::serve(
        asked,
        agent.handle.view(),
        agent.roles.clone(),
        agent.doctor.clone(),
    ));
    let (stop, mut stopped) = watch::channel(false);
    let engine = tokio::spawn(engine.run(async move {
        // The sender gone means the same as told.
        let _ = stopped.wait_for(|stop| *stop).await;
    }));
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
