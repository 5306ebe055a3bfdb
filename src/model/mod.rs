//! Plain data in the field's own words: what a task is, what may be known about it and what is
//! reported of it.
//!
//! Everything else speaks in these types: `core` decides over them, the adapters translate them to
//! and from their own wires. Nothing here does I/O, knows tokio or derives serde: wire types live in
//! `control` and `local`, stored records in `store`, and each conversion is written out.

pub mod attachment;
pub mod container;
pub mod credentials;
pub mod ecs;
pub mod health;
pub mod ids;
pub mod image;
pub mod keepsake;
pub mod logging;
pub mod namespaces;
pub mod network;
pub mod progress;
pub mod registry;
pub mod report;
pub mod resources;
pub mod status;
pub mod task;
pub mod telemetry;
pub mod time;
pub mod usage;
pub mod volume;

pub use attachment::{Attachment, MacAddress};
pub use container::{
    ContainerSpec, Dependency, DependencyCondition, DockerConfig, MountPoint, PortMapping, PortRange,
    RestartPolicy, VolumeFrom,
};
pub use credentials::{CredentialsId, RoleCredentials};
pub use ecs::{EcsRefusal, ProtectionAnswer, ProtectionChange, ProtectionFailure, TaskProtection};
pub use health::{Health, HealthCheck, HealthResult, HealthStatus};
pub use ids::{ContainerId, ContainerKey, EndpointId, TaskArn, TaskId};
pub use image::{ImageDigest, PullBehavior, PullUnderWay, RegistryAuth, ResolvedImage};
pub use keepsake::{HeldContainer, Keepsake};
pub use logging::{Delivery, LogDriver, LogError, LogOptions, LogSettings};
pub use namespaces::{ContainerKind, IpcMode, NAMESPACE_HOLDER, PidMode};
pub use network::{ContainerAddress, NetworkBinding, NetworkMode, Protocol};
pub use progress::{ContainerProgress, ExitRecord, Restarts, StopReason, TaskProgress};
pub use registry::{EcrLogin, ImageRequest, RegistryLogin, SecretLogin};
pub use report::{ContainerChange, TaskStateChange};
pub use resources::{HostResources, ResourceClaim};
pub use status::{ContainerStatus, DesiredStatus, TaskStatus};
pub use task::{Association, AssociationContent, GPU_ASSOCIATION, TaskSpec, VISIBLE_GPUS};
pub use telemetry::{
    CheckStatus, ContainerHealth, ContainerMetrics, CounterSet, InstanceCheck, Metrics, NetworkSets,
    StatsSet, StorageSets, TaskHealth, TaskMetrics,
};
pub use time::{Mono, Now, Wall};
pub use usage::{
    BlockEntry, BlockUsage, CpuUsage, InterfaceCounters, InterfaceUsage, MemoryUsage, PidsUsage, Usage,
};
pub use volume::{
    DockerVolume, LOCAL_DRIVER, VolumeBacking, VolumeRequest, VolumeScope, VolumeSource, VolumeSpec,
};
