//! The task definitions, as the control plane hands them over and as the original agent asks dockerd for
//! them; and the image that all of them run.

use crate::support::host::busybox_files;
use ecsd::containerd::image::archive::{RootfsContent, RootfsFile};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

pub const IMAGE: &str = "ecsd.test/parity:1";
const PROBE: &str = include_str!("probe.sh");

/// Members of the agent's environment; their values are its own.
pub const AGENTS_VARIABLES: [&str; 5] = [
    "ECS_CONTAINER_METADATA_URI",
    "ECS_CONTAINER_METADATA_URI_V4",
    "ECS_AGENT_URI",
    "AWS_REGION",
    "AWS_DEFAULT_REGION",
];

/// One task; its last container is looked at.
#[derive(Debug, Clone)]
pub struct Case {
    pub name: String,
    pub network: String,
    pub containers: Vec<Container>,
    /// Volumes of the task.
    pub volumes: Vec<String>,
}

#[derive(Debug, Clone)]
pub struct Container {
    pub name: String,
    pub environment: BTreeMap<String, String>,
    pub command: Vec<String>,
    pub links: Vec<String>,
    /// Port numbers, which get dynamic host ports.
    pub ports: Vec<u64>,
    /// Volume, path, read-only.
    pub mounts: Vec<(String, String, bool)>,
    pub config: Map<String, Value>,
    pub host: Map<String, Value>,
}

impl Case {
    /// All that can be run on a real host: those of the golden table which assume nothing of it, and
    /// those of several containers.
    pub fn all() -> Vec<Self> {
        let golden: Map<String, Value> =
            serde_json::from_str(include_str!("../fixtures/specs/cases.json")).unwrap();
        let tasks: Map<String, Value> =
            serde_json::from_str(include_str!("../fixtures/parity/tasks.json")).unwrap();
        let of_golden = golden.iter().filter_map(|(name, case)| Self::of_golden(name, case));
        let of_tasks = tasks.iter().map(|(name, task)| {
            let containers = task["containers"].as_array().unwrap();
            let containers = containers.iter().map(|c| Container::of(c["name"].as_str().unwrap(), c));
            Self::new(name, task["network"].as_str().unwrap_or("bridge"), containers.collect())
        });
        of_golden.chain(of_tasks).collect()
    }

    fn of_golden(name: &str, case: &Value) -> Option<Self> {
        let on = case["on"].as_object().cloned().unwrap_or_default();
        let elsewhere = on.keys().any(|fact| fact != "network");
        if elsewhere || ["shared", "links", "golden only"].iter().any(|key| case.get(*key).is_some()) {
            return None;
        }
        let network = on.get("network").and_then(Value::as_str).unwrap_or("bridge");
        Some(Self::new(name, network, vec![Container::of("main", case)]))
    }

    fn new(name: &str, network: &str, containers: Vec<Container>) -> Self {
        let (name, network) = (name.to_owned(), network.to_owned());
        Self { name, network, containers, volumes: vec!["data".to_owned()] }
    }

    /// The container that is looked at.
    pub fn probed(&self) -> &Container {
        self.containers.last().unwrap()
    }

    /// Nothing is written where its log would be.
    pub fn is_silent(&self) -> bool {
        self.probed().host.get("LogConfig").is_some_and(|log| log["Type"] == "none")
    }

    /// It sees the devices of the host.
    pub fn has_hosts_devices(&self) -> bool {
        let host = &self.probed().host;
        let binds = host.get("Binds").and_then(Value::as_array);
        host.get("Privileged") == Some(&json!(true))
            || binds.is_some_and(|all| all.contains(&json!("/dev:/dev")))
    }

    /// Where its output is, with a place of this directory for each case.
    pub fn out(&self, base: &Path) -> PathBuf {
        let plain: String =
            self.name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
        base.join("out").join(plain)
    }

    /// A payload's task.
    pub fn payload(&self, arn: &str, base: &Path) -> Value {
        let containers: Vec<Value> =
            self.containers.iter().map(|c| self.payload_container(c, arn, base)).collect();
        let host = |name: &String, path: &Path| json!({"name": name, "type": "host", "host": {"sourcePath": path.display().to_string()}});
        let mut volumes: Vec<Value> = self.volumes.iter().map(|name| host(name, Path::new(""))).collect();
        if self.is_silent() {
            std::fs::create_dir_all(self.out(base)).unwrap();
            volumes.push(host(&"out".to_owned(), &self.out(base)));
        }
        json!({"arn": arn, "desiredStatus": "RUNNING", "family": "parity", "version": "1", "taskDefinitionAccountId": "123456789012",
            "networkMode": self.network, "containers": containers, "volumes": volumes})
    }

    fn payload_container(&self, c: &Container, arn: &str, base: &Path) -> Value {
        let point = |volume: &str, path: &str, read_only: bool| json!({"sourceVolume": volume, "containerPath": path, "readOnly": read_only});
        let mut points: Vec<Value> = c.mounts.iter().map(|(v, p, ro)| point(v, p, *ro)).collect();
        if self.is_silent() {
            points.push(point("out", "/out", false));
        }
        let mut host = c.host_config(base);
        host.insert("NetworkMode".to_owned(), json!(self.network));
        let ports: Vec<Value> =
            c.ports.iter().map(|port| json!({"containerPort": port, "hostPort": 0})).collect();
        json!({"name": c.name, "containerArn": format!("{arn}/{}", c.name), "image": IMAGE, "essential": true,
            "cpu": 256, "memory": 128, "environment": c.environment, "command": c.command, "links": c.links,
            "mountPoints": points, "portMappings": ports,
            "dockerConfig": {"config": Value::Object(c.config.clone()).to_string(),
                "hostConfig": Value::Object(host).to_string(), "version": "1.18"}})
    }

    /// What the original agent asks dockerd for: its own fields, the documents over them.
    pub fn docker_request(&self, c: &Container, names: &BTreeMap<String, String>, base: &Path) -> Value {
        let agents = AGENTS_VARIABLES.iter().map(|name| format!("{name}=of-the-agent"));
        let environment: Vec<String> =
            c.environment.iter().map(|(name, value)| format!("{name}={value}")).chain(agents).collect();
        let mut request = json!({"Image": IMAGE, "Env": environment});
        if !c.command.is_empty() {
            request["Cmd"] = json!(c.command);
        }
        if !c.ports.is_empty() {
            let ports = c.ports.iter().map(|port| (format!("{port}/tcp"), json!({})));
            request["ExposedPorts"] = Value::Object(ports.collect());
        }
        merge(&mut request, &c.config);
        let binds: Vec<String> = c
            .mounts
            .iter()
            .map(|(volume, path, read_only)| {
                format!("{volume}:{path}{}", if *read_only { ":ro" } else { "" })
            })
            .collect();
        let links: Vec<String> = c
            .links
            .iter()
            .map(|link| {
                let (name, alias) = link.split_once(':').unwrap_or((link, link));
                format!("{}:{alias}", names.get(name).map_or(name, String::as_str))
            })
            .collect();
        let mut host = json!({"Memory": 128 << 20, "CpuShares": 256, "Binds": binds, "Links": links});
        let mut document = c.host_config(base);
        document.insert("NetworkMode".to_owned(), json!(self.network));
        merge(&mut host, &document);
        if self.is_silent() {
            std::fs::create_dir_all(self.out(base)).unwrap();
            let out = json!(format!("{}:/out", self.out(base).display()));
            host["Binds"].as_array_mut().unwrap().push(out);
        }
        request["HostConfig"] = host;
        request
    }
}

impl Container {
    fn of(name: &str, case: &Value) -> Self {
        let object = |key: &str| case[key].as_object().cloned().unwrap_or_default();
        let words = |key: &str| -> Vec<String> {
            serde_json::from_value(case.get(key).cloned().unwrap_or_else(|| json!([]))).unwrap()
        };
        let links = if case["links"].is_array() { words("links") } else { Vec::new() };
        let mut environment = BTreeMap::from([("MINE".into(), "1".into()), ("BOTH".into(), "task".into())]);
        for (name, value) in object("environment") {
            environment.insert(name, value.as_str().unwrap().to_owned());
        }
        let mounts = case["mounts"].as_array().into_iter().flatten().map(|mount| {
            let text = |at: usize| mount[at].as_str().unwrap().to_owned();
            (text(0), text(1), mount[2].as_bool().unwrap())
        });
        Self {
            name: name.to_owned(),
            environment,
            command: words("command"),
            links,
            ports: case["ports"].as_array().into_iter().flatten().filter_map(Value::as_u64).collect(),
            mounts: mounts.collect(),
            config: object("config"),
            host: object("host"),
        }
    }

    /// The document, with directories of `base` in the place of the host's.
    fn host_config(&self, base: &Path) -> Map<String, Value> {
        let mut host = self.host.clone();
        let binds = host.get_mut("Binds").and_then(Value::as_array_mut);
        for bind in binds.into_iter().flatten() {
            let text = bind.as_str().unwrap();
            let real = ["/dev:", "/sys:"].iter().any(|known| text.starts_with(known));
            if text.starts_with('/') && text.contains(':') && !real {
                *bind = json!(format!("{}/host{text}", base.display()));
            }
        }
        host
    }
}

/// Decodes a document over an object as Go does: keys free in case, maps merged, `null` empties lists
/// and maps and leaves the rest.
fn merge(into: &mut Value, document: &Map<String, Value>) {
    let into = into.as_object_mut().unwrap();
    for (key, value) in document {
        let known = into.keys().find(|known| known.eq_ignore_ascii_case(key)).cloned();
        let key = known.unwrap_or_else(|| key.clone());
        match (into.get_mut(&key), value) {
            (Some(Value::Object(old)), Value::Object(new)) => old.extend(new.clone()),
            (Some(old), Value::Null) if !old.is_array() && !old.is_object() => {}
            _ => drop(into.insert(key, value.clone())),
        }
    }
}

/// The image as an archive of `docker save`, which both load: busybox, the probe under the names of the
/// golden table's entry points, accounts. Its configuration is the golden table's, and a port.
pub fn image() -> Vec<u8> {
    let bytes = |path: &str, mode, content: &[u8]| RootfsFile {
        path: path.into(),
        mode,
        content: RootfsContent::Bytes(content.to_vec()),
    };
    let link = |path: &str, to: &str| RootfsFile {
        path: path.into(),
        mode: 0o777,
        content: RootfsContent::Symlink(to.into()),
    };
    let mut files = busybox_files();
    for applet in ["tr", "sed", "find", "stat", "readlink", "timeout", "head", "sort"] {
        files.push(link(&format!("/bin/{applet}"), "busybox"));
    }
    for name in ["/entry", "/only", "/e"] {
        files.push(link(name, "probe"));
    }
    let declared = RootfsContent::Directory;
    files.push(RootfsFile { path: "/declared".into(), mode: 0o750, content: declared });
    for (path, mode, content) in [
        ("/probe", 0o755, PROBE),
        ("/declared/seed", 0o640, "from the image\n"),
        ("/etc/passwd", 0o644, "root:x:0:0::/root:/bin/sh\nweb:x:33:34::/srv/web:/bin/sh\n"),
        ("/etc/group", 0o644, "root:x:0:root\nwww:x:34:\naudio:x:63:web\n"),
        ("/etc/mtab", 0o644, "the image's own\n"),
    ] {
        files.push(bytes(path, mode, content.as_bytes()));
    }
    let mut layer = tar::Builder::new(Vec::new());
    for file in &files {
        let (kind, content) = match &file.content {
            RootfsContent::Bytes(bytes) => (tar::EntryType::Regular, bytes.as_slice()),
            RootfsContent::Symlink(_) => (tar::EntryType::Symlink, &[][..]),
            RootfsContent::Directory => (tar::EntryType::Directory, &[][..]),
        };
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(file.mode);
        header.set_size(content.len() as u64);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        let path = file.path.trim_start_matches('/');
        match &file.content {
            RootfsContent::Symlink(target) => layer.append_link(&mut header, path, target).unwrap(),
            _ => layer.append_data(&mut header, path, content).unwrap(),
        }
    }
    let layer = layer.into_inner().unwrap();
    let config = json!({
        "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }, "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{}", hex::encode(Sha256::digest(&layer)))]},
        "config": {"Env": ["PATH=/bin", "OF_IMAGE=1"], "Entrypoint": ["/entry"], "Cmd": ["default"],
            "WorkingDir": "/w", "Volumes": {"/declared": {}}, "ExposedPorts": {"5432/tcp": {}}},
    });
    let manifest = json!([{"Config": "config.json", "RepoTags": [IMAGE], "Layers": ["layer.tar"]}]);
    let mut archive = tar::Builder::new(Vec::new());
    for (name, content) in [
        ("manifest.json", manifest.to_string().as_bytes()),
        ("config.json", config.to_string().as_bytes()),
        ("layer.tar", &layer),
    ] {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        header.set_size(content.len() as u64);
        archive.append_data(&mut header, name, content).unwrap();
    }
    archive.into_inner().unwrap()
}
