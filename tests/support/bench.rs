//! The service for containers on a private containerd, a tiny image made by hand, and plans for
//! containers of it.

use super::containerd::PrivateContainerd;
use super::host::remove_cgroups;
use ecsd::containerd::{Connection, ContainerOptions, ContainerService, ImageLookup, UnpackedImageInfo};
use ecsd::model::{
    ContainerId, ContainerSpec, DockerConfig, ImageDigest, MountPoint, NetworkMode, StopReason, TaskArn,
    TaskSpec, VolumeSource, VolumeSpec,
};
use ecsd::ports::{CreatePlan, NetworkAttachment};
use ecsd::resources::volumes::{VolumeOptions, VolumeService};
use futures_util::future::BoxFuture;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub const IMAGE: &str = "example.com/tiny:1";

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
fn import_image(daemon: &PrivateContainerd, namespace: &str) -> OneImage {
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
    let file = daemon.directory().join("image.tar");
    std::fs::write(&file, out.into_inner().unwrap()).unwrap();
    daemon.run_ctr(namespace, &["images", "import", file.to_str().unwrap()]);
    let chain_id = digest(format!("{} {}", diff_ids[0], diff_ids[1]).as_bytes());
    OneImage(UnpackedImageInfo {
        config: Arc::new(serde_json::from_value(config).unwrap()),
        health: None,
        chain_id,
        id: ImageDigest::parse(&digest(&config_bytes)).unwrap(),
    })
}

/// A daemon with the image, and a service on it.
pub struct Bench {
    pub daemon: PrivateContainerd,
    pub service: Arc<ContainerService>,
    /// Of its own: runc's state lies below /run/containerd/runc/<namespace>, whatever containerd.
    namespace: String,
    image: UnpackedImageInfo,
}

impl Bench {
    pub fn start() -> Self {
        let daemon = PrivateContainerd::start(None);
        let namespace = daemon.directory().file_name().unwrap().to_str().unwrap().to_owned();
        let image = import_image(&daemon, &namespace).0;
        let service = service(&daemon, &namespace, image.clone());
        Self { daemon, service, namespace, image }
    }

    /// A path of this bench.
    pub fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.daemon.directory().join(name)
    }

    /// `ctr` in its namespace; it must succeed.
    pub fn ctr(&self, arguments: &[&str]) -> String {
        self.daemon.run_ctr(&self.namespace, arguments)
    }

    /// A second agent on the same daemon, which knows nothing yet.
    pub fn restarted_service(&self) -> Arc<ContainerService> {
        service(&self.daemon, &self.namespace, self.image.clone())
    }

    /// A plan for one container of a task; each container is a shell with a script.
    pub fn plan(&self, task: &TaskSpec, name: &str) -> CreatePlan {
        let id = ContainerId::derive(&task.arn, name);
        let directory = self.path("agent").join(task.id().as_str()).join(name);
        CreatePlan {
            spec: Arc::new(task.clone()),
            name: name.to_owned(),
            cgroup: format!("/{}/{}/{id}", self.namespace, task.id()),
            network: NetworkAttachment::Host,
            directory,
            agent_environment: BTreeMap::new(),
            labels: BTreeMap::from([("com.amazonaws.ecs.cluster".to_owned(), "test".to_owned())]),
            keepsake: None,
            id,
        }
    }
}

/// Has the plan's container see a directory of the host.
pub fn mount(plan: &mut CreatePlan, source: &Path, target: &str) {
    let spec = Arc::make_mut(&mut plan.spec);
    let source = VolumeSource::HostPath(source.to_str().unwrap().to_owned());
    let volume = format!("v{}", spec.volumes.len());
    spec.volumes.push(VolumeSpec { name: volume.clone(), source });
    let container = spec.containers.iter_mut().find(|container| container.name == plan.name).unwrap();
    container.mounts.push(MountPoint { volume, container_path: target.to_owned(), read_only: false });
}

impl Drop for Bench {
    fn drop(&mut self) {
        // runc makes the parents of a cgroup in every hierarchy, and leaves them.
        remove_cgroups(&self.namespace);
        let _ = std::fs::remove_dir_all(Path::new("/run/containerd/runc").join(&self.namespace));
    }
}

fn service(daemon: &PrivateContainerd, namespace: &str, image: UnpackedImageInfo) -> Arc<ContainerService> {
    let connection = Connection::new(daemon.socket(), namespace).unwrap();
    let options = ContainerOptions {
        snapshotter: "overlayfs".into(),
        runtime: "io.containerd.runc.v2".into(),
        runtime_binary: None,
        systemd_cgroup: false,
        propagate_task_memory: false,
        selinux: false,
        logger_program: daemon.directory().join("logger.sh"),
        log_host: ecsd::model::logging::LogHost::default(),
        init_program: Some(ecsd::containerd::init::install(daemon.directory()).unwrap()),
        nvidia_runtime: "nvidia".into(),
        inferentia: false,
        shm_dir: daemon.directory().join("shm"),
    };
    let volumes = VolumeService::open(VolumeOptions {
        root: daemon.directory().join("volumes"),
        match_full_config: false,
    })
    .unwrap();
    Arc::new(ContainerService::new(connection, options, Arc::new(OneImage(image)), Arc::new(volumes)))
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
        image: IMAGE.into(),
        command: vec!["/bin/busybox".into(), "sh".into(), "-c".into(), script.into()],
        docker: docker(serde_json::json!({}), serde_json::json!({"LogConfig": {"Type": "none"}})),
        ..ContainerSpec::empty(name)
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
