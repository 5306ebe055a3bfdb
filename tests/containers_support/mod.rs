//! A private containerd, a tiny image made by hand, and plans for containers of it.

use ecsd::containerd::{Connection, ContainerOptions, ContainerService, ImageLookup, UnpackedImageInfo};
use ecsd::model::{
    ContainerId, ContainerSpec, DockerConfig, EndpointId, ImageDigest, NetworkMode, StopReason, TaskArn,
    TaskSpec,
};
use ecsd::ports::{CreatePlan, NetworkAttachment};
use futures_util::future::BoxFuture;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

pub const IMAGE: &str = "example.com/tiny:1";

/// A containerd of one's own, with everything of it below one temporary directory. Dropping it
/// ends the daemon and its shims and removes the directory.
pub struct PrivateContainerd {
    pub dir: PathBuf,
    pub socket: PathBuf,
    /// Of its own: runc's state lies below /run/containerd/runc/<namespace>, whatever containerd.
    pub namespace: String,
    bin_dir: Option<PathBuf>,
    child: Child,
}

impl PrivateContainerd {
    pub fn start(bin_dir: Option<&Path>) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("ecsd-c{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let dir = std::env::temp_dir().join(&name);
        std::fs::create_dir_all(&dir).unwrap();
        let socket = dir.join("c.sock");
        let d = dir.display();
        let config = format!(
            "version = 2\nroot = \"{d}/root\"\nstate = \"{d}/state\"\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\", \
             \"io.containerd.internal.v1.opt\", \"io.containerd.snapshotter.v1.btrfs\", \
             \"io.containerd.snapshotter.v1.devmapper\", \"io.containerd.snapshotter.v1.zfs\"]\n[grpc]\naddress = \
             \"{d}/c.sock\"\n[ttrpc]\naddress = \"{d}/c.sock.ttrpc\"\n"
        );
        std::fs::write(dir.join("config.toml"), config).unwrap();
        let bin_dir = bin_dir.map(Path::to_owned);
        let child = spawn(&dir, bin_dir.as_deref());
        let started = Self { dir, socket, namespace: name, bin_dir, child };
        started.wait_until_up();
        started
    }

    /// Ends the daemon with SIGKILL; shims and containers stay.
    pub fn crash(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts the daemon again on the same files.
    pub fn start_again(&mut self) {
        self.child = spawn(&self.dir, self.bin_dir.as_deref());
        self.wait_until_up();
    }

    pub fn ctr(&self, args: &[&str]) -> String {
        let out = Command::new("ctr")
            .arg("-a")
            .arg(&self.socket)
            .args(["-n", &self.namespace])
            .args(args)
            .output()
            .unwrap();
        assert!(out.status.success(), "ctr {args:?}: {}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8(out.stdout).unwrap()
    }

    /// Process ids of the shims of this daemon.
    pub fn shims(&self) -> Vec<i32> {
        let mark = self.socket.to_str().unwrap().as_bytes();
        let mut found = Vec::new();
        for entry in std::fs::read_dir("/proc").unwrap().flatten() {
            let Ok(pid) = entry.file_name().to_string_lossy().parse::<i32>() else { continue };
            let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let words: Vec<&[u8]> = line.split(|b| *b == 0).collect();
            let shim = words.first().is_some_and(|w| w.ends_with(b"containerd-shim-runc-v2"));
            if shim && words.contains(&mark) {
                found.push(pid);
            }
        }
        found
    }

    /// Ends the daemon, its shims and what runs under them: where a test failed, something does.
    pub fn end(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let kill = |pid: i32| {
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::SIGKILL);
        };
        for shim in self.shims() {
            let children =
                std::fs::read_to_string(format!("/proc/{shim}/task/{shim}/children")).unwrap_or_default();
            children.split_whitespace().filter_map(|child| child.parse().ok()).for_each(kill);
            kill(shim);
        }
    }

    fn wait_until_up(&self) {
        let end = Instant::now() + Duration::from_secs(20);
        while !Command::new("ctr")
            .arg("-a")
            .arg(&self.socket)
            .arg("version")
            .output()
            .unwrap()
            .status
            .success()
        {
            assert!(Instant::now() < end, "{}", std::fs::read_to_string(self.dir.join("log")).unwrap());
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for PrivateContainerd {
    fn drop(&mut self) {
        self.end();
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let below = format!("{}/", self.dir.display());
        for path in mounts.lines().filter_map(|line| line.split(' ').nth(1)).filter(|p| p.starts_with(&below))
        {
            let _ = nix::mount::umount2(path, nix::mount::MntFlags::MNT_DETACH);
        }
        let _ = std::fs::remove_dir_all(&self.dir);
        let _ = std::fs::remove_dir_all(Path::new("/run/containerd/runc").join(&self.namespace));
    }
}

fn spawn(dir: &Path, bin_dir: Option<&Path>) -> Child {
    let path = std::env::var("PATH").unwrap_or_default();
    let path = match bin_dir {
        Some(bin) => format!("{}:{path}", bin.display()),
        None => path,
    };
    let log = std::fs::File::options().create(true).append(true).open(dir.join("log")).unwrap();
    let program = bin_dir.map_or_else(|| PathBuf::from("containerd"), |bin| bin.join("containerd"));
    Command::new(program)
        .arg("-c")
        .arg(dir.join("config.toml"))
        .env("PATH", path)
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap()
}

/// The image, found without a puller.
pub struct OneImage(UnpackedImageInfo);

impl ImageLookup for OneImage {
    fn unpacked<'a>(&'a self, image: &'a str) -> BoxFuture<'a, Result<UnpackedImageInfo, StopReason>> {
        let found = if image == IMAGE { Ok(self.0.clone()) } else { Err(StopReason::new("NoImage", image)) };
        Box::pin(async move { found })
    }
}

fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

fn layer(files: &[(&str, u32, u64, &[u8])]) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    for (path, mode, uid, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_mode(*mode);
        header.set_uid(*uid);
        header.set_gid(0);
        header.set_size(content.len() as u64);
        if path.ends_with('/') {
            header.set_entry_type(tar::EntryType::Directory);
        }
        archive.append_data(&mut header, path, *content).unwrap();
    }
    archive.into_inner().unwrap()
}

/// Makes an image of busybox in two layers, and imports and unpacks it.
pub fn import_image(daemon: &PrivateContainerd) -> OneImage {
    let busybox = std::fs::read("/bin/busybox").unwrap();
    let layers = [
        layer(&[
            ("bin/", 0o755, 0, b""),
            ("bin/busybox", 0o755, 0, &busybox),
            ("bin/sh", 0o755, 0, &busybox),
            ("tmp/", 0o1777, 0, b""),
        ]),
        layer(&[
            ("etc/", 0o755, 0, b""),
            ("etc/passwd", 0o644, 0, b"root:x:0:0:root:/root:/bin/sh\nweb:x:33:34::/srv/web:/bin/sh\n"),
            ("etc/group", 0o644, 0, b"root:x:0:root\nwheel:x:10:root\nwww:x:34:\naudio:x:63:web\n"),
            ("data/", 0o755, 33, b""),
            ("data/seed", 0o600, 33, b"from the image\n"),
        ]),
    ];
    let diff_ids: Vec<String> = layers.iter().map(|l| digest(l)).collect();
    let config = serde_json::json!({
        "architecture": "amd64", "os": "linux",
        "config": {
            "Env": ["FROM_IMAGE=1", "BOTH=image"], "Cmd": ["/bin/sh", "-c", "echo default"],
            "Volumes": {"/data": {}}, "StopSignal": "SIGUSR1"
        },
        "rootfs": {"type": "layers", "diff_ids": diff_ids}
    });
    let config_bytes = serde_json::to_vec(&config).unwrap();
    let describe = |kind: &str, bytes: &[u8]| serde_json::json!({"mediaType": kind, "digest": digest(bytes), "size": bytes.len()});
    let manifest = serde_json::to_vec(&serde_json::json!({
        "schemaVersion": 2,
        "config": describe("application/vnd.oci.image.config.v1+json", &config_bytes),
        "layers": layers.iter().map(|l| describe("application/vnd.oci.image.layer.v1.tar", l)).collect::<Vec<_>>()
    }))
    .unwrap();
    let mut root = describe("application/vnd.oci.image.manifest.v1+json", &manifest);
    root["annotations"] =
        serde_json::json!({"io.containerd.image.name": IMAGE, "org.opencontainers.image.ref.name": "1"});
    let index = serde_json::json!({"schemaVersion": 2, "manifests": [root]});
    let mut out = tar::Builder::new(Vec::new());
    let mut add = |path: String, bytes: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        header.set_size(bytes.len() as u64);
        out.append_data(&mut header, path, bytes).unwrap();
    };
    add("oci-layout".into(), br#"{"imageLayoutVersion":"1.0.0"}"#);
    add("index.json".into(), index.to_string().as_bytes());
    for bytes in layers.iter().map(Vec::as_slice).chain([config_bytes.as_slice(), manifest.as_slice()]) {
        add(format!("blobs/{}", digest(bytes).replace(':', "/")), bytes);
    }
    let file = daemon.dir.join("image.tar");
    std::fs::write(&file, out.into_inner().unwrap()).unwrap();
    daemon.ctr(&["images", "import", file.to_str().unwrap()]);
    let chain_id = digest(format!("{} {}", diff_ids[0], diff_ids[1]).as_bytes());
    OneImage(UnpackedImageInfo {
        config: Arc::new(serde_json::from_value(config).unwrap()),
        chain_id,
        id: ImageDigest::parse(&digest(&config_bytes)).unwrap(),
    })
}

/// A daemon with the image, and a service on it.
pub struct Bench {
    pub daemon: PrivateContainerd,
    pub service: Arc<ContainerService>,
    pub cgroup: String,
    image: UnpackedImageInfo,
}

impl Bench {
    pub fn start() -> Self {
        let bin = std::env::var_os("ECSD_TEST_CONTAINERD_BIN").map(PathBuf::from);
        let daemon = PrivateContainerd::start(bin.as_deref());
        let image = import_image(&daemon).0;
        let service = service(&daemon, image.clone());
        let cgroup = format!("/{}", daemon.dir.file_name().unwrap().to_str().unwrap());
        Self { daemon, service, cgroup, image }
    }

    /// A second agent on the same daemon, which knows nothing yet.
    pub fn restarted_service(&self) -> Arc<ContainerService> {
        service(&self.daemon, self.image.clone())
    }

    /// A plan for one container of a task; each container is a shell with a script.
    pub fn plan(&self, task: &TaskSpec, name: &str) -> CreatePlan {
        let id = ContainerId::derive(&task.arn, name);
        let directory = self.daemon.dir.join("agent").join(task.id().as_str()).join(name);
        CreatePlan {
            spec: Arc::new(task.clone()),
            name: name.to_owned(),
            cgroup: format!("{}/{}/{id}", self.cgroup, task.id()),
            network: NetworkAttachment::Host,
            volumes: BTreeMap::new(),
            directory,
            agent_environment: BTreeMap::new(),
            labels: BTreeMap::from([("com.amazonaws.ecs.cluster".to_owned(), "test".to_owned())]),
            id,
        }
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.daemon.end();
        // runc makes the parents of a cgroup in every hierarchy, and leaves them.
        for hierarchy in std::fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten() {
            remove_cgroup(&hierarchy.path().join(self.cgroup.trim_start_matches('/')));
        }
    }
}

fn remove_cgroup(path: &Path) {
    if !path.exists() {
        return;
    }
    for entry in std::fs::read_dir(path).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            remove_cgroup(&entry.path());
        }
    }
    // What was just killed is still on its way out; where it all was released, once is enough.
    for _ in 0..50 {
        if std::fs::remove_dir(path).is_ok() {
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn service(daemon: &PrivateContainerd, image: UnpackedImageInfo) -> Arc<ContainerService> {
    let connection = Connection::new(&daemon.socket, &daemon.namespace).unwrap();
    let options = ContainerOptions {
        snapshotter: "overlayfs".into(),
        runtime: "io.containerd.runc.v2".into(),
        runtime_binary: None,
        systemd_cgroup: false,
        logger_program: daemon.dir.join("logger.sh"),
    };
    Arc::new(ContainerService::new(connection, options, Arc::new(OneImage(image))))
}

/// A task whose containers run these scripts, without logs.
pub fn task(id: &str, scripts: &[(&str, &str)]) -> TaskSpec {
    let arn = TaskArn::parse(&format!("arn:aws:ecs:us-west-2:1:task/test/{id}")).unwrap();
    TaskSpec {
        family: "f".into(),
        version: "1".into(),
        network_mode: NetworkMode::Host,
        containers: scripts.iter().map(|(name, script)| container(name, script)).collect(),
        launch_type: "EC2".into(),
        ..TaskSpec::empty(arn)
    }
}

pub fn container(name: &str, script: &str) -> ContainerSpec {
    ContainerSpec {
        name: name.into(),
        arn: String::new(),
        image: IMAGE.into(),
        command: vec!["/bin/busybox".into(), "sh".into(), "-c".into(), script.into()],
        entry_point: Vec::new(),
        environment: BTreeMap::new(),
        essential: true,
        cpu_shares: 0,
        memory_mib: 0,
        ports: Vec::new(),
        mounts: Vec::new(),
        volumes_from: Vec::new(),
        links: Vec::new(),
        depends_on: Vec::new(),
        start_timeout: None,
        stop_timeout: None,
        docker: docker(serde_json::json!({}), serde_json::json!({"LogConfig": {"Type": "none"}})),
        endpoint: EndpointId::new("e"),
    }
}

/// The two documents, as `control` hands them over.
pub fn docker(config: serde_json::Value, host: serde_json::Value) -> DockerConfig {
    let lower = |value: serde_json::Value| {
        let fields = value.as_object().unwrap().clone();
        fields.into_iter().map(|(key, value)| (key.to_ascii_lowercase(), value)).collect()
    };
    DockerConfig { config: lower(config), host_config: lower(host) }
}
