//! What the control plane asked of a task.

use crate::model::container::ContainerSpec;
use crate::model::credentials::CredentialsId;
use crate::model::ids::{ContainerId, ContainerKey, TaskArn, TaskId};
use crate::model::namespaces::{IpcMode, PidMode};
use crate::model::network::{NetworkMode, Protocol};
use crate::model::registry::ImageRequest;
use crate::model::resources::ResourceClaim;
use crate::model::volume::VolumeSpec;

/// A task as the control plane described it. Never changes once it was taken; what happens to it
/// is [`crate::model::TaskProgress`].
#[derive(Debug, Clone, PartialEq)]
pub struct TaskSpec {
    /// Its ARN.
    pub arn: TaskArn,
    /// Task definition family.
    pub family: String,
    /// Task definition revision.
    pub version: String,
    /// Network mode.
    pub network_mode: NetworkMode,
    /// Whose processes its containers see.
    pub pid_mode: PidMode,
    /// With whom its containers share memory and queues.
    pub ipc_mode: IpcMode,
    /// Task CPU limit in units (1024 to a vCPU), as a quota; `None` is no limit.
    pub cpu: Option<u64>,
    /// Task memory limit in MiB; `None` is no limit.
    pub memory_mib: Option<u64>,
    /// Containers, in the order of the payload, then ours; at least one, names unique.
    pub containers: Vec<ContainerSpec>,
    /// Volumes by name.
    pub volumes: Vec<VolumeSpec>,
    /// `EC2`, `EXTERNAL`...; empty where not said.
    pub launch_type: String,
    /// Service, where a service started it.
    pub service_name: String,
    /// Id of the task role's credentials.
    pub task_role: Option<CredentialsId>,
    /// Id of the execution role's credentials.
    pub execution_role: Option<CredentialsId>,
    /// Accelerators that go with containers.
    pub associations: Vec<Association>,
}

/// The kind of an [`Association`] whose name is the id of a GPU.
pub const GPU_ASSOCIATION: &str = "gpu";
/// The variable that tells NVIDIA's runtime which GPUs a container gets.
pub const VISIBLE_GPUS: &str = "NVIDIA_VISIBLE_DEVICES";

/// An accelerator, as the metadata endpoint tells of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Association {
    /// Containers that may use it.
    pub containers: Vec<String>,
    /// Name.
    pub name: String,
    /// `elastic-inference`, `gpu`.
    pub kind: String,
    /// What a container is given of it.
    pub content: AssociationContent,
}

/// Content of an [`Association`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AssociationContent {
    /// `identity` or `base64`.
    pub encoding: String,
    /// In that encoding.
    pub value: String,
}

impl TaskSpec {
    /// A task of which nothing is known but its ARN: no containers, no limits, bridge mode.
    pub fn empty(arn: TaskArn) -> Self {
        Self {
            arn,
            family: String::new(),
            version: String::new(),
            network_mode: NetworkMode::default(),
            pid_mode: PidMode::default(),
            ipc_mode: IpcMode::default(),
            cpu: None,
            memory_mib: None,
            containers: Vec::new(),
            volumes: Vec::new(),
            launch_type: String::new(),
            service_name: String::new(),
            task_role: None,
            execution_role: None,
            associations: Vec::new(),
        }
    }

    /// Its id.
    pub fn id(&self) -> TaskId {
        self.arn.id()
    }

    /// The container of that name.
    pub fn container(&self, name: &str) -> Option<&ContainerSpec> {
        self.containers.iter().find(|c| c.name == name)
    }

    /// The images of its containers, as written; internal ones have none.
    pub fn images(&self) -> impl Iterator<Item = &str> {
        self.containers.iter().filter(|c| !c.is_internal()).map(|container| container.image.as_str())
    }

    /// The image of a container, and how its registry is asked for it.
    pub fn image_request(&self, name: &str) -> ImageRequest<'_> {
        let container = self.container(name);
        ImageRequest {
            image: container.map_or("", |container| container.image.as_str()),
            login: container.and_then(|container| container.registry_login.as_ref()),
            execution_role: self.execution_role.as_ref(),
        }
    }

    /// The key of a container.
    pub fn key(&self, name: &str) -> ContainerKey {
        ContainerKey { task: self.id(), name: name.to_owned() }
    }

    /// The runtime id of a container.
    pub fn container_id(&self, name: &str) -> ContainerId {
        ContainerId::derive(&self.arn, name)
    }

    /// The name Docker would have shown: `ecs-<family>-<revision>-<name>-<hex>`.
    pub fn docker_name(&self, name: &str) -> String {
        let plain: String = name.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-').collect();
        let id = self.container_id(name);
        let tail = id.as_str().get(44..).unwrap_or_default();
        format!("ecs-{}-{}-{plain}-{tail}", self.family, self.version)
    }

    /// What the task takes of the host: its own limits, or the sum of its containers'
    /// (`memoryReservation` of the host config before the hard limit), its fixed host ports, its GPUs.
    pub fn claim(&self) -> ResourceClaim {
        let mut claim = ResourceClaim {
            cpu: self.cpu.unwrap_or_else(|| self.containers.iter().map(|c| c.cpu_shares).sum()),
            memory_mib: self
                .memory_mib
                .unwrap_or_else(|| self.containers.iter().map(ContainerSpec::memory_claim_mib).sum()),
            gpus: self
                .associations
                .iter()
                .filter(|association| association.kind == GPU_ASSOCIATION)
                .map(|association| association.name.clone())
                .collect(),
            ..ResourceClaim::default()
        };
        // In host mode a mapping names the port that the process itself will take.
        let host = self.network_mode == NetworkMode::Host;
        for mapping in self.containers.iter().flat_map(|c| &c.ports) {
            let port =
                if host && mapping.host_port == 0 { mapping.container.first } else { mapping.host_port };
            if port != 0 && self.network_mode != NetworkMode::None {
                match mapping.protocol {
                    Protocol::Tcp => claim.tcp.insert(port),
                    Protocol::Udp => claim.udp.insert(port),
                };
            }
        }
        claim
    }
}

impl ContainerSpec {
    /// MiB that this container adds to its task's claim.
    fn memory_claim_mib(&self) -> u64 {
        let reserved = self.docker.host_config.get("memoryreservation").and_then(|v| v.as_u64());
        match reserved {
            Some(bytes) if bytes > 0 => bytes / (1024 * 1024),
            _ => self.memory_mib,
        }
    }
}
