//! The bodies of the metadata endpoint, key by key in the original's order
//! (spec/local-endpoints-config.md 1.8), and their conversion from a snapshot.
//!
//! One struct serves v2, v3 and v4: what a version lacks, or has in another place, is an option that
//! stays empty.

use super::ecs::{Tags, TagsError};
use super::gojson::opt_time;
use super::route::Version;
use super::snapshot::{ContainerView, Snapshot, Stage, TaskView};
use crate::model::{
    ContainerKind, Health, HealthStatus, NetworkBinding, NetworkMode, TaskSpec, VolumeBacking, Wall,
};
use serde::Serialize;
use std::collections::BTreeMap;

/// A task.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct TaskBody {
    cluster: String,
    #[serde(rename = "TaskARN")]
    task_arn: String,
    family: String,
    revision: String,
    desired_status: &'static str,
    known_status: &'static str,
    #[serde(rename = "Containers", skip_serializing_if = "Vec::is_empty")]
    containers_v3: Vec<ContainerBody>,
    #[serde(skip_serializing_if = "Option::is_none")]
    limits: Option<TaskLimits>,
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "opt_time")]
    pull_started_at: Option<Wall>,
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "opt_time")]
    pull_stopped_at: Option<Wall>,
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "opt_time")]
    execution_stopped_at: Option<Wall>,
    #[serde(skip_serializing_if = "Option::is_none")]
    availability_zone: Option<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    task_tags: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    container_instance_tags: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    launch_type: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<TagsError>,
    #[serde(rename = "Containers", skip_serializing_if = "Vec::is_empty")]
    containers_v4: Vec<ContainerBody>,
    #[serde(rename = "VPCID", skip_serializing_if = "Option::is_none")]
    vpc_id: Option<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    service_name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    fault_injection_enabled: Option<bool>,
    #[serde(rename = "AvailabilityZoneID", skip_serializing_if = "Option::is_none")]
    availability_zone_id: Option<String>,
}

#[derive(Serialize)]
struct TaskLimits {
    #[serde(rename = "CPU", skip_serializing_if = "Option::is_none")]
    vcpu: Option<f64>,
    #[serde(rename = "Memory", skip_serializing_if = "Option::is_none")]
    memory_mib: Option<u64>,
}

/// A container.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct ContainerBody {
    docker_id: String,
    name: String,
    docker_name: String,
    image: String,
    #[serde(rename = "ImageID")]
    image_id: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    ports: Vec<PortBody>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    labels: BTreeMap<String, String>,
    desired_status: &'static str,
    known_status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    exit_code: Option<i32>,
    limits: ContainerLimits,
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "opt_time")]
    created_at: Option<Wall>,
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "opt_time")]
    started_at: Option<Wall>,
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "opt_time")]
    finished_at: Option<Wall>,
    #[serde(rename = "Type")]
    kind: &'static str,
    #[serde(rename = "Networks", skip_serializing_if = "Vec::is_empty")]
    networks_v3: Vec<NetworkBody>,
    #[serde(skip_serializing_if = "Option::is_none")]
    health: Option<HealthBody>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    volumes: Vec<VolumeBody>,
    #[serde(skip_serializing_if = "Option::is_none")]
    log_driver: Option<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    log_options: BTreeMap<String, String>,
    #[serde(rename = "ContainerARN", skip_serializing_if = "String::is_empty")]
    container_arn: String,
    #[serde(rename = "Networks", skip_serializing_if = "Vec::is_empty")]
    networks_v4: Vec<NetworkBody>,
    #[serde(skip_serializing_if = "Option::is_none")]
    restart_count: Option<u32>,
}

#[derive(Serialize)]
struct ContainerLimits {
    #[serde(rename = "CPU")]
    shares: f64,
    #[serde(rename = "Memory")]
    memory_mib: u64,
}

/// What is not known is not there: an empty object says that the container is checked.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct HealthBody {
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "opt_time")]
    status_since: Option<Wall>,
    #[serde(skip_serializing_if = "Option::is_none")]
    exit_code: Option<i32>,
    #[serde(skip_serializing_if = "String::is_empty")]
    output: String,
}

/// A port that is published, or in introspection also one that would be.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct PortBody {
    #[serde(skip_serializing_if = "is_zero")]
    container_port: u16,
    protocol: &'static str,
    #[serde(skip_serializing_if = "is_zero")]
    host_port: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    host_ip: Option<String>,
}

#[derive(Serialize)]
struct NetworkBody {
    #[serde(rename = "NetworkMode")]
    mode: &'static str,
    #[serde(rename = "IPv4Addresses")]
    ipv4: Vec<String>,
}

/// A mounted volume.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct VolumeBody {
    #[serde(skip_serializing_if = "Option::is_none")]
    docker_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    destination: String,
}

impl From<&Health> for HealthBody {
    fn from(health: &Health) -> Self {
        let known = health.status != HealthStatus::Unknown;
        Self {
            status: known.then(|| health.status.word()),
            status_since: health.since,
            exit_code: health.exit_code,
            output: health.output.clone(),
        }
    }
}

fn is_zero(port: &u16) -> bool {
    *port == 0
}

/// A task as v3 (and v2) or v4 shows it.
pub(crate) fn task(snapshot: &Snapshot, task: &TaskView, version: Version) -> TaskBody {
    let (spec, progress) = (&task.spec, &task.progress);
    let v4 = version == Version::V4;
    let shown = |c: &ContainerView<'_>| c.stage() == Stage::Created || (v4 && c.stage() == Stage::Pulled);
    let containers = task.containers().filter(shown).map(|c| container(snapshot, c, Some(version))).collect();
    let (containers_v3, containers_v4) = if v4 { (Vec::new(), containers) } else { (containers, Vec::new()) };
    let limited = spec.cpu.is_some() || spec.memory_mib.is_some();
    let only_v4 = |value: &Option<String>| value.clone().filter(|_| v4);
    TaskBody {
        cluster: snapshot.cluster.clone(),
        task_arn: spec.arn.as_str().to_owned(),
        family: spec.family.clone(),
        revision: spec.version.clone(),
        desired_status: progress.desired.word(),
        known_status: progress.known.word(),
        containers_v3,
        limits: limited.then(|| TaskLimits {
            vcpu: spec.cpu.map(|units| units as f64 / 1024.0),
            memory_mib: spec.memory_mib,
        }),
        pull_started_at: progress.pull_started_at,
        pull_stopped_at: progress.pull_stopped_at,
        execution_stopped_at: progress.execution_stopped_at,
        availability_zone: snapshot.availability_zone.clone(),
        task_tags: BTreeMap::new(),
        container_instance_tags: BTreeMap::new(),
        errors: Vec::new(),
        launch_type: if v4 { spec.launch_type.clone() } else { String::new() },
        containers_v4,
        vpc_id: only_v4(&snapshot.vpc_id),
        service_name: if v4 { spec.service_name.clone() } else { String::new() },
        fault_injection_enabled: v4.then_some(false),
        availability_zone_id: only_v4(&snapshot.availability_zone_id),
    }
}

impl TaskBody {
    /// With the tags of the instance.
    pub(crate) fn with_instance_tags(mut self, arn: &str, tags: Tags, version: Version) -> Self {
        self.container_instance_tags = self.taken("ContainerInstanceTags", arn, tags, version);
        self
    }

    /// With the tags of the task.
    pub(crate) fn with_task_tags(mut self, tags: Tags, version: Version) -> Self {
        self.task_tags = self.taken("TaskTags", &self.task_arn.clone(), tags, version);
        self
    }

    /// Tags that could not be had are none; v4 says why.
    fn taken(
        &mut self,
        field: &'static str,
        arn: &str,
        tags: Tags,
        version: Version,
    ) -> BTreeMap<String, String> {
        tags.unwrap_or_else(|error| {
            if version == Version::V4 {
                self.errors.push(TagsError::new(field, arn, error));
            }
            BTreeMap::new()
        })
    }
}

/// A container as v3 or v4 shows it; without a version as v2 does, which has no networks but awsvpc's.
pub(crate) fn container(
    snapshot: &Snapshot,
    view: ContainerView<'_>,
    version: Option<Version>,
) -> ContainerBody {
    let (spec, task) = (view.spec, view.task);
    let v4 = version == Some(Version::V4);
    let created = view.stage() == Stage::Created;
    let networks = if created && version.is_some() { networks(view) } else { Vec::new() };
    let (networks_v3, networks_v4) = if v4 { (Vec::new(), networks) } else { (networks, Vec::new()) };
    let (log_driver, log_options) = if v4 { log_config(view) } else { (None, BTreeMap::new()) };
    let progress = view.progress;
    let exit = progress.and_then(|p| p.exit.as_ref());
    ContainerBody {
        docker_id: if created { view.id() } else { String::new() },
        name: spec.name.clone(),
        docker_name: if created { task.spec.docker_name(&spec.name) } else { String::new() },
        image: spec.image.clone(),
        image_id: image_id(view),
        ports: bound_ports(view, v4),
        labels: labels(&snapshot.cluster, view),
        desired_status: task.progress.desired.word(),
        known_status: progress.map(|p| p.known).unwrap_or_default().word(),
        exit_code: exit.and_then(|e| e.code),
        // The kernel's least share is 2, and that is what 0 and 1 become.
        limits: ContainerLimits { shares: spec.cpu_shares.max(2) as f64, memory_mib: spec.memory_mib },
        created_at: progress.and_then(|p| p.created_at),
        started_at: progress.and_then(|p| p.started_at),
        finished_at: exit.map(|e| e.at),
        kind: match spec.kind {
            ContainerKind::Normal => "NORMAL",
            ContainerKind::NamespaceHolder => "NAMESPACE_PAUSE",
        },
        networks_v3,
        health: task.health.get(&spec.name).map(HealthBody::from),
        volumes: volumes(view),
        log_driver,
        log_options,
        container_arn: if v4 { spec.arn.clone() } else { String::new() },
        networks_v4,
        restart_count: view.restart_count().filter(|_| v4),
    }
}

/// Digest of the image's configuration, Docker's image id; empty where unknown.
pub(crate) fn image_id(view: ContainerView<'_>) -> String {
    view.progress.and_then(|p| p.image_id.as_ref()).map(|d| d.as_str().to_owned()).unwrap_or_default()
}

/// Ports as they were really bound, a range port by port.
pub(crate) fn bound_ports(view: ContainerView<'_>, with_address: bool) -> Vec<PortBody> {
    let bindings = view.progress.map(|p| p.address.bindings.as_slice()).unwrap_or_default();
    let each = |b: &NetworkBinding| {
        let (bind_ip, protocol) = (b.bind_ip, b.protocol.word());
        // A range that runs past 65535 ends there.
        let containers = b.container_port..=b.container_port.saturating_add(b.count.max(1) - 1);
        let hosts = b.host_port..=b.host_port.saturating_add(b.count.max(1) - 1);
        containers.zip(hosts).map(move |(container_port, host_port)| PortBody {
            container_port,
            protocol,
            host_port,
            host_ip: with_address.then(|| bind_ip.to_string()),
        })
    };
    bindings.iter().flat_map(each).collect()
}

/// Ports as the task definition asks for them; ranges, whose ports are chosen late, are left out.
pub(crate) fn asked_ports(view: ContainerView<'_>) -> Vec<PortBody> {
    let single = view.spec.ports.iter().filter(|m| !m.container.is_range);
    let port = |m: &crate::model::PortMapping| PortBody {
        container_port: m.container.first,
        protocol: m.protocol.word(),
        host_port: m.host_port,
        host_ip: None,
    };
    single.map(port).collect()
}

/// Volumes as mounted: a host path by its source, a named volume by its name on the host.
pub(crate) fn volumes(view: ContainerView<'_>) -> Vec<VolumeBody> {
    let task = &view.task.spec;
    let volume = |m: &crate::model::MountPoint| {
        let (docker_name, source) = match task.backing(task.volume(&m.volume)?) {
            VolumeBacking::Host(path) => (None, Some(path.to_owned())),
            VolumeBacking::Named(request) => (Some(request.name), None),
        };
        Some(VolumeBody { docker_name, source, destination: m.container_path.clone() })
    };
    view.spec.mounts.iter().filter_map(volume).collect()
}

/// One entry named by the mode. Its address list always has one element, empty where the container
/// has no address of its own: clients index it.
fn networks(view: ContainerView<'_>) -> Vec<NetworkBody> {
    let mode: NetworkMode = view.task.spec.network_mode;
    let address = view.progress.and_then(|p| p.address.ipv4);
    vec![NetworkBody { mode: mode.word(), ipv4: vec![address.map(|a| a.to_string()).unwrap_or_default()] }]
}

/// The task definition's labels, and the agent's over them.
fn labels(cluster: &str, view: ContainerView<'_>) -> BTreeMap<String, String> {
    let task: &TaskSpec = &view.task.spec;
    let asked = view.spec.docker.config.get("labels").and_then(|l| l.as_object());
    let asked = asked.into_iter().flatten().filter_map(|(k, v)| Some((k.clone(), v.as_str()?.to_owned())));
    let ours = [
        ("cluster", cluster),
        ("container-name", &view.spec.name),
        ("task-arn", task.arn.as_str()),
        ("task-definition-family", &task.family),
        ("task-definition-version", &task.version),
    ];
    asked.chain(ours.map(|(k, v)| (format!("com.amazonaws.ecs.{k}"), v.to_owned()))).collect()
}

/// Log driver and options as the host config names them.
fn log_config(view: ContainerView<'_>) -> (Option<String>, BTreeMap<String, String>) {
    let config = view.spec.docker.host_config.get("logconfig").and_then(|c| c.as_object());
    let member = |key: &str| config?.iter().find(|(k, _)| k.eq_ignore_ascii_case(key)).map(|(_, v)| v);
    let driver = member("type").and_then(|t| t.as_str()).filter(|t| !t.is_empty()).map(str::to_owned);
    let options = member("config").and_then(|c| c.as_object()).into_iter().flatten();
    // Whoever knows that path has the execution role, which is not the container's.
    let options = options.filter(|(k, _)| *k != "awslogs-credentials-endpoint");
    (driver, options.filter_map(|(k, v)| Some((k.clone(), v.as_str()?.to_owned()))).collect())
}
