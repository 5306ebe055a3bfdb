//! A local cluster in its order: lock, containerd, images, control plane, agent; and the way back.

use super::args::{CredentialsSource, HostArgs};
use super::containerd::Containerd;
use super::hooks::HostHooks;
use super::process::{Interrupts, Program, need};
use super::show::{complain, say};
use super::statedir::{OWNER_VARIABLE, StateDir, StateLock};
use super::{UsageError, hello};
use crate::control::credentials::CredentialsCache;
use crate::control::http::SchemeClient;
use crate::local::{Change, ControlPlane, Handle, LocalError, Options, TaskCredentials};
use anyhow::{Context, bail};
use aws_credential_types::provider::SharedCredentialsProvider;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::process::Command;
use tokio::sync::broadcast::error::RecvError;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until, timeout};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(60);
const AGENT_GRACE: Duration = Duration::from_secs(20);
/// Longer than the default 30 s between the stop signal and SIGKILL.
const TASK_STOP_TIMEOUT: Duration = Duration::from_secs(60);
const CLEANUP_TIMEOUT: Duration = Duration::from_secs(30);

/// A running local cluster.
pub struct Session {
    /// Its files.
    pub dir: StateDir,
    /// Its control plane.
    pub handle: Handle,
    /// Its agent.
    pub agent: Program,
    containerd: Containerd,
    hooks: Arc<dyn HostHooks>,
    keep: Duration,
    serving: JoinHandle<()>,
    _lock: StateLock,
}

impl Session {
    /// Brings everything up; `images` are those that tasks will use, `keep` is how long stopped tasks
    /// and their logs stay. `check` is called with the control plane before anything of the host is
    /// touched. Ends early, with everything taken down, at an interrupt.
    ///
    /// # Errors
    /// The first thing that failed, with its cure.
    pub async fn start(
        args: &HostArgs,
        images: &[String],
        keep: Duration,
        hooks: Arc<dyn HostHooks>,
        interrupts: &mut Interrupts,
        check: impl FnOnce(&Handle) -> anyhow::Result<()>,
    ) -> anyhow::Result<Self> {
        let dir = StateDir::new(&args.state.dir)?;
        if !nix::unistd::geteuid().is_root() {
            bail!("ecsd local makes networks, mounts and cgroups and needs root: run it by sudo");
        }
        need("runc", "containers can't be started without it")?;
        need("nft", "ports can't be published without it")?;
        for file in &args.load {
            if !file.is_file() {
                return Err(UsageError(format!("--load {}: there is no such file", file.display())).into());
            }
        }
        let addr = SocketAddr::from(([127, 0, 0, 1], args.port));
        let mut options = Options::default();
        options.credentials = match args.credentials {
            CredentialsSource::None => TaskCredentials::None,
            CredentialsSource::Fake => TaskCredentials::Fake,
            CredentialsSource::Chain => {
                let chain = CredentialsCache::default_chain(SchemeClient::default(), &options.region);
                TaskCredentials::From(SharedCredentialsProvider::new(chain))
            }
        };
        let bound = ControlPlane::bind(addr, options).await.map_err(anyhow::Error::from);
        let (handle, serving) = bound.map_err(|error| match error.downcast_ref::<LocalError>() {
            Some(LocalError::Credentials { .. }) => {
                error.context("--credentials chain: set AWS_PROFILE or AWS_ACCESS_KEY_ID, or log in first")
            }
            _ => error,
        })?;
        check(&handle)?;
        let lock = dir.lock()?;
        let lock = tokio::task::spawn_blocking(move || {
            let count = lock.end_leftovers();
            (lock, count)
        });
        let (lock, leftovers) = lock.await?;
        if leftovers > 0 {
            say(format_args!(
                "cluster     ended {leftovers} programs that an earlier local cluster left behind"
            ));
        }
        let mut containerd = Containerd::get(args.containerd.as_deref(), &args.namespace, &dir).await?;
        if let Err(error) = load_images(args, images, &dir, &containerd, &*hooks).await {
            containerd.stop().await;
            return Err(error);
        }
        let agent = match spawn_agent(&dir, &handle, &containerd, keep) {
            Ok(agent) => agent,
            Err(error) => {
                containerd.stop().await;
                return Err(error);
            }
        };
        let serving = tokio::spawn(serving);
        let mut session = Self { dir, handle, agent, containerd, hooks, keep, serving, _lock: lock };
        let up = tokio::select! {
            result = session.connected() => result,
            () = interrupts.next() => Err(anyhow::anyhow!("interrupted before the agent was there")),
        };
        let up = up.and_then(|()| session._lock.write_endpoint(&session.handle.endpoint()));
        match up {
            Ok(()) => Ok(session),
            Err(error) => {
                session.stop().await;
                Err(error)
            }
        }
    }

    /// Waits for the agent's registration and connection.
    async fn connected(&mut self) -> anyhow::Result<()> {
        let mut changes = self.handle.subscribe();
        let deadline = Instant::now() + CONNECT_TIMEOUT;
        while !self.handle.has_ready_instance() {
            // Cancel-safe: the channel keeps its messages, the child its status.
            tokio::select! {
                change = changes.recv() => match change {
                    Ok(Change::Instance { .. } | Change::Task(_)) | Err(RecvError::Lagged(_)) => {}
                    Err(RecvError::Closed) => bail!("the control plane ended"),
                },
                status = self.agent.ended() => return Err(self.agent_ended(status)),
                () = sleep_until(deadline) => bail!(
                    "the agent did not connect within {} s; the end of its log:\n  {}",
                    CONNECT_TIMEOUT.as_secs(),
                    self.log_end()
                ),
            }
        }
        Ok(())
    }

    /// The error for an agent that ended by itself.
    pub fn agent_ended(&self, status: Option<std::process::ExitStatus>) -> anyhow::Error {
        let status = status.map(|s| s.to_string()).unwrap_or_default();
        anyhow::anyhow!(
            "the agent ended ({status}); the end of {}:\n  {}",
            self.dir.agent_log().display(),
            self.log_end()
        )
    }

    fn log_end(&self) -> String {
        let log = std::fs::read_to_string(self.dir.agent_log()).unwrap_or_default();
        let last: Vec<_> = log.lines().rev().take(8).collect();
        last.into_iter().rev().collect::<Vec<_>>().join("\n  ")
    }

    /// Asks every task to stop, and waits until they are reported stopped.
    pub async fn stop_tasks(&mut self) {
        let mut changes = self.handle.subscribe();
        for task in self.handle.live_tasks() {
            if let Err(error) = self.handle.stop_task(&task.arn, "The local cluster stops") {
                complain(&anyhow::anyhow!("{error}"));
            }
        }
        let deadline = Instant::now() + TASK_STOP_TIMEOUT;
        while !self.handle.live_tasks().is_empty() {
            // Cancel-safe, as above.
            tokio::select! {
                _ = changes.recv() => {}
                _ = self.agent.ended() => return,
                () = sleep_until(deadline) => {
                    complain(&anyhow::anyhow!("tasks did not stop within {} s", TASK_STOP_TIMEOUT.as_secs()));
                    return;
                }
            }
        }
    }

    /// Waits until the agent has removed what is left of stopped tasks: their directories go last.
    async fn cleaned_up(&mut self) {
        let tasks = self.dir.data().join("tasks");
        let deadline = Instant::now() + self.keep + CLEANUP_TIMEOUT;
        loop {
            let left = std::fs::read_dir(&tasks).into_iter().flatten().count();
            if left == 0 {
                return;
            }
            if Instant::now() >= deadline {
                return complain(&anyhow::anyhow!(
                    "{left} tasks in {} were not cleaned up in time",
                    tasks.display()
                ));
            }
            // Cancel-safe: a timer, and a child that keeps its status.
            tokio::select! {
                () = sleep(Duration::from_millis(50)) => {}
                _ = self.agent.ended() => return,
            }
        }
    }

    /// Takes everything down, in order, and goes on where a part of it fails.
    pub async fn stop(mut self) {
        self.stop_tasks().await;
        self.cleaned_up().await;
        self.agent.stop(AGENT_GRACE).await;
        if let Err(error) = self.hooks.teardown_host(&self.containerd.target, self.dir.root()).await {
            complain(&error.context("taking down the host's side"));
        }
        self.containerd.stop().await;
        self.handle.shutdown();
        let _ = timeout(Duration::from_secs(5), &mut self.serving).await;
    }
}

async fn load_images(
    args: &HostArgs,
    images: &[String],
    dir: &StateDir,
    containerd: &Containerd,
    hooks: &dyn HostHooks,
) -> anyhow::Result<()> {
    let mut archives = args.load.clone();
    for image in images.iter().filter(|image| hello::is_hello(image)) {
        let (image, home) = (image.clone(), dir.runtime());
        archives.push(tokio::task::spawn_blocking(move || hello::write_archive(&image, &home)).await??);
    }
    for archive in archives {
        let names = hooks.load_image(&containerd.target, &archive).await;
        let names = names.with_context(|| format!("can't load {}", archive.display()))?;
        say(format_args!("image       {} loaded", names.join(", ")));
    }
    Ok(())
}

fn spawn_agent(
    dir: &StateDir,
    handle: &Handle,
    containerd: &Containerd,
    keep: Duration,
) -> anyhow::Result<Program> {
    let program = std::env::current_exe().context("can't find this program's own file")?;
    // A log of an earlier session would be shown as if it were this one's.
    let _ = std::fs::remove_file(dir.agent_log());
    let output = std::fs::File::create(dir.root().join("agent.out")).context("can't write agent.out")?;
    let mut command = Command::new(program);
    command
        .env("ECS_BACKEND_HOST", handle.endpoint())
        .env("ECS_CLUSTER", "local")
        .env("AWS_DEFAULT_REGION", Options::default().region)
        .env("AWS_EC2_METADATA_DISABLED", "true")
        .env("ECS_ENABLE_TASK_IAM_ROLE", "true")
        .env("ECS_ENABLE_TASK_IAM_ROLE_NETWORK_HOST", "true")
        .env("ECS_DATADIR", dir.data())
        .env("ECS_LOGFILE", dir.agent_log())
        .env("ECS_AUDIT_LOGFILE_DISABLED", "true")
        // Loaded images can't be pulled again; at the end all are removed.
        .env("ECS_DISABLE_IMAGE_CLEANUP", "true")
        .env("ECS_CONTAINERD_ADDRESS", &containerd.target.socket)
        .env("ECS_CONTAINERD_NAMESPACE", &containerd.target.namespace)
        .env("ECSD_RUNTIME_DIR", dir.runtime())
        .env("ECSD_CGROUP_ROOT", crate::app::local_host::CGROUP_ROOT)
        .env("ECS_ENGINE_TASK_CLEANUP_WAIT_DURATION", format!("{}s", keep.as_secs().max(1)))
        .env(OWNER_VARIABLE, dir.root())
        .stdout(output.try_clone()?)
        .stderr(output);
    for (name, value) in [("AWS_ACCESS_KEY_ID", "ecsd-local"), ("AWS_SECRET_ACCESS_KEY", "ecsd-local")] {
        if std::env::var_os(name).is_none() {
            command.env(name, value);
        }
    }
    Program::spawn("the agent", command)
}
