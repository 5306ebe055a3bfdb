//! Looking at a host from outside the agent: what containerd, the kernel and the disk hold of a task.

use super::host::{Host, cgroup_mounts, run};
use ecsd::local::Task;
use ecsd::model::{ContainerId, NAMESPACE_HOLDER, TaskArn};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

impl Host {
    /// The runtime's id of a container, which follows from task and name.
    pub fn container_id(&self, arn: &str, name: &str) -> String {
        ContainerId::derive(&TaskArn::parse(arn).unwrap(), name).as_str().to_owned()
    }

    /// Process id of a container, where containerd knows one that runs.
    pub fn container_pid(&self, arn: &str, name: &str) -> Option<i32> {
        let id = self.container_id(arn, name);
        let listed = self.ctr(&["tasks", "ls"]);
        let line = listed.lines().find(|line| line.starts_with(&id) && line.contains("RUNNING"))?;
        line.split_whitespace().nth(1)?.parse().ok()
    }

    /// Runs a command in a container; its output.
    pub fn exec(&self, arn: &str, name: &str, command: &[&str]) -> String {
        let (id, exec) = (self.container_id(arn, name), uuid::Uuid::new_v4().to_string());
        let mut arguments = vec!["tasks", "exec", "--exec-id", exec.as_str(), id.as_str()];
        arguments.extend(command);
        self.ctr(&arguments)
    }

    /// containerd's record of a container.
    pub fn record(&self, arn: &str, name: &str) -> Value {
        serde_json::from_str(&self.ctr(&["containers", "info", &self.container_id(arn, name)])).unwrap()
    }

    /// A file of a task's or a container's cgroup.
    pub fn cgroup_file(&self, arn: &str, container: Option<&str>, file: &str) -> String {
        let controller = file.split('.').next().unwrap();
        let v1 = Path::new("/sys/fs/cgroup").join(controller);
        let root = if v1.is_dir() { v1 } else { PathBuf::from("/sys/fs/cgroup") };
        let mut path = root.join(self.cgroup_root()).join(task_id(arn));
        if let Some(name) = container {
            path = path.join(self.container_id(arn, name));
        }
        let path = path.join(file);
        let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        text.trim().to_owned()
    }

    /// Elements of the map of host ports, as nft prints them.
    pub fn port_map(&self) -> Vec<String> {
        let listed: Value =
            serde_json::from_str(&run("nft", &["-j", "list", "map", "inet", "ecsd", "ports"])).unwrap();
        let maps =
            listed["nftables"].as_array().unwrap().iter().filter_map(|item| item["map"]["elem"].as_array());
        maps.flatten().map(ToString::to_string).collect()
    }

    /// Host ends of the containers' links.
    pub fn links(&self) -> Vec<String> {
        let listed: Value =
            serde_json::from_str(&run("ip", &["-j", "link", "show", "type", "veth"])).unwrap();
        let names = listed.as_array().unwrap().iter().filter_map(|link| link["ifname"].as_str());
        names.filter(|name| name.starts_with("ecs")).map(str::to_owned).collect()
    }

    /// Files that pin containers' namespaces.
    pub fn pins(&self) -> Vec<String> {
        names_in(&self.dir.path().join("run/netns"))
    }

    /// Everything that containers leave behind on this host, in words; empty when nothing is left.
    pub fn remains(&self) -> Vec<String> {
        let mut remains = Vec::new();
        let mut note = |what: &str, found: Vec<String>| {
            remains.extend(found.into_iter().map(|found| format!("{what} {found}")));
        };
        let lines = |text: String| text.lines().skip(1).map(str::to_owned).collect::<Vec<_>>();
        note("container", lines(self.ctr(&["containers", "ls"])));
        note("process", lines(self.ctr(&["tasks", "ls"])));
        note("lease", lines(self.ctr(&["leases", "ls"])));
        let snapshots = lines(self.ctr(&["snapshots", "ls"]));
        note("snapshot", snapshots.into_iter().filter(|line| !line.contains("Committed")).collect());
        note("shim", self.containerd.shims().iter().map(ToString::to_string).collect());
        note("logger", self.loggers().iter().map(ToString::to_string).collect());
        note("port", self.port_map());
        note("link", self.links());
        note("pin", self.pins());
        note("shared memory", names_in(&self.dir.path().join("run/shm")));
        note("directory", names_in(&self.dir.path().join("data/tasks")));
        note("cgroup", self.cgroups());
        let volumes = names_in(&self.dir.path().join("data/volumes")).into_iter();
        note("volume", volumes.filter(|name| name.starts_with("ecs-")).collect());
        note("mount", self.mounts_below("data"));
        let state = std::fs::read_dir("/run/containerd/runc/ecs").into_iter().flatten().flatten();
        let known: Vec<String> = self
            .control
            .call("ListTasks", serde_json::json!({"desiredStatus": "STOPPED"}))
            .map(|answer| answer["taskArns"].as_array().cloned().unwrap_or_default())
            .unwrap_or_default()
            .iter()
            .filter_map(|arn| self.control.task(arn.as_str()?))
            .flat_map(|task| self.ids(&task))
            .collect();
        let state = state.map(|entry| entry.file_name().to_string_lossy().into_owned());
        note("runc state", state.filter(|id| known.contains(id)).collect());
        remains
    }

    fn ids(&self, task: &Task) -> Vec<String> {
        let names = task.containers.iter().map(|c| c.name.as_str()).chain([NAMESPACE_HOLDER]);
        names.map(|name| self.container_id(&task.arn, name)).collect()
    }

    /// Log writers of this host's containers.
    pub fn loggers(&self) -> Vec<i32> {
        let own = self.dir.path().join("data").display().to_string();
        let mut found = Vec::new();
        for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
                continue;
            };
            let command = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let command = String::from_utf8_lossy(&command);
            if command.contains("ecsd-logger") && command.contains(&own) {
                found.push(pid);
            }
        }
        found
    }

    /// What is mounted below a directory of this host's.
    pub fn mounts_below(&self, directory: &str) -> Vec<String> {
        let below = format!("{}/", self.dir.path().join(directory).display());
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let points = mounts.lines().filter_map(|line| line.split(' ').nth(4));
        points.filter(|point| point.starts_with(&below)).map(str::to_owned).collect()
    }

    /// What containers see of a volume, by its name on the host.
    pub fn named_volume(&self, name: &str) -> PathBuf {
        self.dir.path().join("data/volumes").join(name).join("_data")
    }

    /// What containers see of a volume of a task's own; the family's name must be no beginning of another.
    pub fn volume(&self, family: &str, name: &str) -> PathBuf {
        let head = format!("ecs-{family}-1-{name}-");
        let all = names_in(&self.dir.path().join("data/volumes"));
        let found = all.iter().find(|volume| volume.starts_with(&head));
        self.named_volume(found.unwrap_or_else(|| panic!("no {head} in {all:?}")))
    }

    fn cgroups(&self) -> Vec<String> {
        let roots = cgroup_mounts().into_iter().map(|mount| mount.join(self.cgroup_root()));
        let tasks = roots.flat_map(|root| std::fs::read_dir(root).into_iter().flatten().flatten());
        let tasks = tasks.filter(|entry| entry.path().is_dir());
        tasks.map(|entry| entry.path().display().to_string()).collect()
    }

    /// Waits until the clean-up left nothing.
    pub async fn until_nothing_is_left(&self) {
        let begun = std::time::Instant::now();
        while begun.elapsed() < super::host::PATIENCE && !self.remains().is_empty() {
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
        let remains = self.remains();
        assert!(remains.is_empty(), "left: {remains:#?}");
    }
}

/// The last part of an ARN.
pub fn task_id(arn: &str) -> &str {
    arn.rsplit('/').next().unwrap()
}

fn names_in(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

/// Another machine: a network namespace that reaches this host through a wire.
pub struct Elsewhere {
    holder: Child,
}

/// This host's address on the wire to [`Elsewhere`].
pub const ON_THE_WIRE: &str = "192.0.2.1";

impl Elsewhere {
    pub fn new() -> Self {
        let child = Command::new("unshare")
            .args(["--net", "sleep", "3600"])
            .stdin(Stdio::null())
            .spawn()
            .expect("util-linux is installed");
        let other = Self { holder: child };
        let pid = other.holder.id().to_string();
        let own = std::fs::read_link("/proc/thread-self/ns/net").unwrap();
        // Until the holder has become `sleep`, it is not known to be in its namespace.
        while std::fs::read_link(format!("/proc/{pid}/ns/net")).unwrap() == own {
            std::thread::yield_now();
        }
        run("ip", &["link", "add", "wire0", "type", "veth", "peer", "name", "wire1", "netns", &pid]);
        run("ip", &["addr", "add", &format!("{ON_THE_WIRE}/24"), "dev", "wire0"]);
        run("ip", &["link", "set", "wire0", "up"]);
        other.run(&["ip", "addr", "add", "192.0.2.2/24", "dev", "wire1"]);
        other.run(&["ip", "link", "set", "wire1", "up"]);
        other
    }

    /// Runs a program there; it must succeed.
    pub fn run(&self, command: &[&str]) -> String {
        let pid = self.holder.id().to_string();
        let mut arguments = vec!["-t", pid.as_str(), "-n", "--"];
        arguments.extend(command);
        run("nsenter", &arguments)
    }

    /// Path of its namespace.
    pub fn namespace(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/ns/net", self.holder.id()))
    }
}

impl Drop for Elsewhere {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

/// Runs blocking work on a thread in another network namespace.
pub fn inside<T: Send + 'static>(
    namespace: PathBuf,
    work: impl FnOnce() -> T + Send + 'static,
) -> std::thread::JoinHandle<T> {
    let (entered, is_in) = std::sync::mpsc::channel();
    let thread = std::thread::spawn(move || {
        let file = std::fs::File::open(&namespace).unwrap_or_else(|e| panic!("{}: {e}", namespace.display()));
        nix::sched::setns(file, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
        entered.send(()).unwrap();
        work()
    });
    is_in.recv().unwrap();
    thread
}
