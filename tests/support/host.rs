//! A host of its own for one test: a network namespace, a private containerd in it, an embedded
//! control plane, and the real agent as a process. Fixed ports and the bridge's name can't collide,
//! and when the namespace ends, everything in it does.

use super::containerd::{PrivateContainerd, TempDir};
use ecsd::containerd::image::archive::{RootfsConfig, RootfsContent, RootfsFile};
use ecsd::containerd::image::import::build_rootfs_image;
use ecsd::local::{ControlPlane, Handle, Options, Task};
use serde_json::{Value, json};
use std::future::Future;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Runs a test's body on a thread in a network namespace of its own, with a runtime whose sockets and
/// child processes are all in there.
pub fn on_own_network<F: Future<Output = ()>>(body: impl FnOnce() -> F + Send + 'static) {
    let thread = std::thread::Builder::new().name("test-host".into()).spawn(move || {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("the tests run as root");
        run("ip", &["link", "set", "lo", "up"]);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(body());
    });
    if let Err(panic) = thread.unwrap().join() {
        std::panic::resume_unwind(panic);
    }
}

/// Runs a program to its end; it must succeed.
pub fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap_or_else(|e| panic!("{program}: {e}"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {}: {text}{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    text
}

/// How long anything may take before the test gives up: a limit, never a measure.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// The host.
pub struct Host {
    pub containerd: PrivateContainerd,
    pub control: Handle,
    pub dir: TempDir,
    agent: Option<Child>,
    environment: Vec<(String, String)>,
}

impl Host {
    /// A host whose agent was not started yet, with containerd of PATH or of `ECSD_TEST_CONTAINERD_BIN`.
    pub async fn new() -> Self {
        Self::on(PrivateContainerd::start(None)).await
    }

    /// A host with this containerd.
    pub async fn on(containerd: PrivateContainerd) -> Self {
        let (control, serve) =
            ControlPlane::bind("127.0.0.1:0".parse().unwrap(), Options::default()).await.unwrap();
        tokio::spawn(serve);
        Self { containerd, control, dir: TempDir::new("host"), agent: None, environment: Vec::new() }
    }

    /// A variable of the agent's environment, for its next start.
    pub fn set(&mut self, name: &str, value: &str) {
        self.environment.retain(|(known, _)| known != name);
        self.environment.push((name.into(), value.into()));
    }

    /// Starts the agent against the embedded control plane.
    pub fn start_agent(&mut self) {
        let endpoint = self.control.endpoint();
        self.start_agent_at(&endpoint);
    }

    /// Starts the agent against any back end.
    pub fn start_agent_at(&mut self, endpoint: &str) {
        self.start_agent_with(&[], endpoint);
    }

    /// The same, with flags.
    pub fn start_agent_with(&mut self, flags: &[&str], endpoint: &str) {
        let dir = self.dir.path();
        let log = std::fs::File::options().create(true).append(true).open(dir.join("agent.out")).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_ecsd"))
            .args(flags)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("ECS_BACKEND_HOST", endpoint)
            .env("ECS_CLUSTER", "local")
            .env("AWS_DEFAULT_REGION", "us-east-1")
            .env("AWS_ACCESS_KEY_ID", "AKIDTEST")
            .env("AWS_SECRET_ACCESS_KEY", "test-secret")
            .env("AWS_EC2_METADATA_DISABLED", "true")
            .env("ECS_DATADIR", dir.join("data"))
            .env("ECS_LOGLEVEL", "debug")
            .env("ECS_AUDIT_LOGFILE", dir.join("audit.log"))
            .env("ECS_CONTAINERD_ADDRESS", self.containerd.socket())
            .env("ECS_CONTAINERD_NAMESPACE", "ecs")
            .env("ECS_ENGINE_TASK_CLEANUP_WAIT_DURATION", "1s")
            .env("ECS_CONTAINER_STOP_TIMEOUT", "2s")
            .env("ECSD_RUNTIME_DIR", dir.join("run"))
            .env("ECSD_CGROUP_ROOT", self.cgroup_root())
            .env("ECSD_LOGGER", env!("CARGO_BIN_EXE_ecsd-logger"))
            // As systemd/ecs.service has it.
            .env("MALLOC_ARENA_MAX", "1")
            .envs(self.environment.iter().cloned())
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        self.agent = Some(child);
    }

    /// The cgroup root of this host's tasks.
    pub fn cgroup_root(&self) -> String {
        let name = self.dir.path().file_name().unwrap().to_string_lossy().into_owned();
        name.replace('-', "_")
    }

    /// Starts the agent and waits until it is connected.
    pub async fn start(&mut self) {
        self.start_agent();
        self.until("the agent is connected", |host| host.control.has_ready_instance()).await;
    }

    /// The agent's process id.
    pub fn agent_pid(&self) -> i32 {
        i32::try_from(self.agent.as_ref().expect("the agent runs").id()).unwrap()
    }

    /// SIGKILLs the agent.
    pub fn kill_agent(&mut self) {
        let mut agent = self.agent.take().expect("the agent runs");
        agent.kill().unwrap();
        agent.wait().unwrap();
    }

    /// SIGTERMs the agent; answers its exit code and how long that took.
    pub async fn stop_agent(&mut self) -> (Option<i32>, Duration) {
        let mut agent = self.agent.take().expect("the agent runs");
        let begun = Instant::now();
        let pid = nix::unistd::Pid::from_raw(i32::try_from(agent.id()).unwrap());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
        loop {
            if let Some(status) = agent.try_wait().unwrap() {
                return (status.code(), begun.elapsed());
            }
            assert!(begun.elapsed() < PATIENCE, "the agent does not end");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Waits for the agent to end by itself.
    pub async fn agent_exit(&mut self) -> Option<i32> {
        let mut agent = self.agent.take().expect("the agent runs");
        for _ in 0..9000 {
            if let Some(status) = agent.try_wait().unwrap() {
                return status.code();
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("the agent does not end\n{}", self.agent_log());
    }

    /// Whether the agent has ended by a SIGKILL since it was started; it can then be started again.
    pub fn agent_died(&mut self) -> bool {
        let Some(status) = self.agent.as_mut().and_then(|agent| agent.try_wait().unwrap()) else {
            return false;
        };
        let signal = std::os::unix::process::ExitStatusExt::signal(&status);
        assert_eq!(signal, Some(9), "the agent ended: {status}\n{}", self.agent_log());
        self.agent = None;
        true
    }

    /// What the agent wrote.
    pub fn agent_log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("agent.out")).unwrap_or_default()
    }

    /// Waits until something is so.
    pub async fn until(&self, what: &str, mut so: impl FnMut(&Self) -> bool) {
        let begun = Instant::now();
        while !so(self) {
            if begun.elapsed() > PATIENCE {
                let log = self.agent_log();
                let tail: Vec<&str> = log.lines().rev().take(80).collect();
                let tail: Vec<&str> = tail.into_iter().rev().collect();
                panic!("in vain: {what}\n{}", tail.join("\n"));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Registers a definition of these containers and runs it.
    pub fn run_task(&self, definition: Value) -> String {
        let definition =
            self.control.register_task_definition(definition).unwrap_or_else(|e| panic!("{e:?}"));
        self.control.run_task(&definition, json!({})).unwrap_or_else(|e| panic!("{e:?}"))
    }

    /// Waits until the control plane was told that the task is in that status.
    pub async fn until_status(&self, arn: &str, status: &str) -> Task {
        self.until(&format!("{arn} is {status}"), |host| {
            host.control
                .task(arn)
                .is_some_and(|task| ecsd::local::rank(&task.last_status) >= ecsd::local::rank(status))
        })
        .await;
        let task = self.control.task(arn).unwrap();
        assert_eq!(task.last_status, status, "{task:#?}\n{}", self.agent_log());
        task
    }

    /// `ctr` in the agent's namespace; it must succeed.
    pub fn ctr(&self, arguments: &[&str]) -> String {
        self.containerd.run_ctr("ecs", arguments)
    }

    /// Directory of a task's containers.
    pub fn task_dir(&self, arn: &str) -> PathBuf {
        self.dir.path().join("data/tasks").join(arn.rsplit('/').next().unwrap())
    }

    /// What a container of a task wrote so far, both streams.
    pub fn logs(&self, arn: &str, container: &str) -> String {
        let directory = self.task_dir(arn).join(container);
        let mut text = String::new();
        for entry in std::fs::read_dir(&directory).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().ends_with("-json.log") {
                let lines = std::fs::read_to_string(entry.path()).unwrap_or_default();
                for line in lines.lines() {
                    let record: Value = serde_json::from_str(line).unwrap_or_default();
                    text.push_str(record["log"].as_str().unwrap_or_default());
                }
            }
        }
        text
    }
}

/// A test on a host of its own whose agent is connected, with [`BUSYBOX`] loaded.
pub fn with_agent<F: Future<Output = ()>>(body: impl FnOnce(Host) -> F + Send + 'static) {
    on_own_network(|| async {
        let mut host = Host::new().await;
        host.load_busybox().await;
        host.start().await;
        body(host).await;
    });
}

/// A container definition: [`BUSYBOX`] running a shell script, with other members on top.
pub fn container(name: &str, script: &str, more: Value) -> Value {
    let mut definition = json!({
        "name": name, "image": BUSYBOX, "memory": 32, "cpu": 2, "command": ["sh", "-c", script],
    });
    for (key, value) in more.as_object().expect("an object") {
        definition[key] = value.clone();
    }
    definition
}

/// A task definition of these containers.
pub fn family(name: &str, containers: impl IntoIterator<Item = Value>) -> Value {
    json!({"family": name, "containerDefinitions": containers.into_iter().collect::<Vec<_>>()})
}

impl Drop for Host {
    fn drop(&mut self) {
        if let Some(mut agent) = self.agent.take() {
            let _ = agent.kill();
            let _ = agent.wait();
        }
        if std::thread::panicking() {
            let log = self.agent_log();
            let tail: Vec<&str> = log.lines().rev().take(60).collect();
            eprintln!(
                "--- the agent's last lines\n{}",
                tail.into_iter().rev().collect::<Vec<_>>().join("\n")
            );
        }
        remove_cgroups(&self.cgroup_root());
        forget_in_runc(&self.cgroup_root());
        unpin(&self.dir.path().join("run"));
        let options = ecsd::cgroup::CgroupOptions { root: self.cgroup_root(), ..Default::default() };
        let _ = ecsd::cgroup::CgroupService::new(options).map(|cgroups| cgroups.remove_root());
    }
}

/// Unmounts pinned namespaces and shared memory that an agent which was killed left.
fn unpin(directory: &Path) {
    let below = |name| std::fs::read_dir(directory.join(name)).into_iter().flatten().flatten();
    for entry in below("netns").chain(below("shm")) {
        let _ = nix::mount::umount2(&entry.path(), nix::mount::MntFlags::MNT_DETACH);
    }
}

/// Removes what runc knows of containers in a cgroup: its state is shared by all daemons of the machine.
fn forget_in_runc(cgroup: &str) {
    for entry in std::fs::read_dir("/run/containerd/runc/ecs").into_iter().flatten().flatten() {
        let state = std::fs::read_to_string(entry.path().join("state.json")).unwrap_or_default();
        if state.contains(cgroup) {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

/// Where cgroup hierarchies are mounted.
pub fn cgroup_mounts() -> Vec<PathBuf> {
    let entries = std::fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten();
    entries
        .map(|entry| entry.path())
        .filter(|path| path.is_dir())
        .chain([PathBuf::from("/sys/fs/cgroup")])
        .collect()
}

/// Ends what runs in the cgroups of that name, and removes them in every hierarchy.
pub fn remove_cgroups(name: &str) {
    let roots = cgroup_mounts().into_iter().map(|mount| mount.join(name));
    let roots: Vec<PathBuf> = roots.filter(|root| root.is_dir()).collect();
    roots.iter().for_each(|root| end_processes(root));
    roots.iter().for_each(|root| remove_cgroup(root));
}

/// Removes a cgroup and those below it, as far as the last processes are gone.
fn remove_cgroup(cgroup: &Path) {
    for entry in std::fs::read_dir(cgroup).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            remove_cgroup(&entry.path());
        }
    }
    for _ in 0..100 {
        match std::fs::remove_dir(cgroup) {
            Err(error) if error.kind() == std::io::ErrorKind::ResourceBusy => {
                std::thread::sleep(Duration::from_millis(10));
            }
            _ => break,
        }
    }
}

/// Ends what runs in a cgroup and below it: containers outlive agent, containerd and shim.
fn end_processes(cgroup: &Path) {
    for entry in std::fs::read_dir(cgroup).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            end_processes(&entry.path());
        }
    }
    let pids = std::fs::read_to_string(cgroup.join("cgroup.procs")).unwrap_or_default();
    for pid in pids.lines().filter_map(|pid| pid.parse().ok()) {
        let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
    }
}

/// An image of the host's static busybox in the agent's namespace.
pub const BUSYBOX: &str = "ecsd.test/busybox:1";

impl Host {
    /// Loads [`BUSYBOX`], so that no registry is needed.
    pub async fn load_busybox(&self) {
        let connection = ecsd::containerd::Connection::new(self.containerd.socket(), "ecs").unwrap();
        let images = ecsd::containerd::ImageService::new(connection, Default::default());
        build_rootfs_image(&images, BUSYBOX, &busybox_files(), &busybox_config()).await.unwrap();
    }
}

/// What the image holds: busybox under the names that tests use.
pub fn busybox_files() -> Vec<RootfsFile> {
    let file = |path: &str, mode, content| RootfsFile { path: path.into(), mode, content };
    let busybox = std::fs::read("/bin/busybox").expect("busybox-static is installed");
    let mut files = vec![file("/bin/busybox", 0o755, RootfsContent::Bytes(busybox))];
    for applet in [
        "sh", "sleep", "echo", "cat", "httpd", "wget", "nc", "true", "false", "id", "env", "ls", "touch",
        "dd", "ip", "hostname", "mount", "grep", "date", "test", "kill", "printf", "seq",
    ] {
        files.push(file(&format!("/bin/{applet}"), 0o777, RootfsContent::Symlink("busybox".into())));
    }
    for directory in ["/tmp", "/www", "/etc", "/root"] {
        files.push(file(directory, 0o755, RootfsContent::Directory));
    }
    files.push(file("/www/index.html", 0o644, RootfsContent::Bytes(b"hello\n".to_vec())));
    files
}

pub fn busybox_config() -> RootfsConfig {
    RootfsConfig {
        cmd: vec!["sleep".into(), "3600".into()],
        env: vec!["PATH=/bin".into()],
        ..RootfsConfig::default()
    }
}
