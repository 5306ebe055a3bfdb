//! A task as ACS describes it (spec/control-plane.md 3.4). Members that ecsd does not read are
//! left out; members that it must refuse are here so that it can see them.

use super::wire_struct;
use std::collections::BTreeMap;
use std::fmt;

wire_struct! {
    /// A task.
    #[derive(Debug)]
    pub struct Task {
        /// Its ARN.
        pub arn: String,
        /// ARN of its cluster.
        pub task_cluster_arn: String,
        /// `RUNNING` or `STOPPED`.
        pub desired_status: String,
        /// Task definition family.
        pub family: String,
        /// Task definition revision.
        pub version: String,
        /// Account of the task definition.
        pub task_definition_account_id: String,
        /// Overrides of the whole task, as JSON text.
        pub overrides: String,
        /// vCPUs; 0 is no limit.
        pub cpu: f64,
        /// MiB; 0 is no limit.
        pub memory: i64,
        /// `host`, `task` or empty.
        pub pid_mode: String,
        /// `host`, `task`, `none` or empty.
        pub ipc_mode: String,
        /// `bridge`, `host`, `none`, `awsvpc`; empty is bridge.
        pub network_mode: String,
        /// `EC2`, `EXTERNAL`...
        pub launch_type: String,
        /// Service that started it.
        pub service_name: String,
        /// Its group.
        pub group: String,
        /// Fault injection is allowed.
        pub enable_fault_injection: bool,
        /// Containers.
        pub containers: Vec<Container>,
        /// Volumes.
        pub volumes: Vec<Volume>,
        /// Attachments.
        pub attachments: Vec<Attachment>,
        /// GPUs and the like.
        pub associations: Vec<Association>,
        /// Network interfaces (awsvpc).
        pub elastic_network_interfaces: Vec<ElasticNetworkInterface>,
        /// App Mesh.
        pub proxy_configuration: Option<ProxyConfiguration>,
        /// Credentials of the task role.
        pub role_credentials: Option<RoleCredentials>,
        /// Credentials of the execution role.
        pub execution_role_credentials: Option<RoleCredentials>,
    }

    /// A container of a task.
    #[derive(Debug)]
    pub struct Container {
        /// Name.
        pub name: String,
        /// ARN.
        pub container_arn: String,
        /// Image reference.
        pub image: String,
        /// Replaces Cmd.
        pub command: Vec<String>,
        /// Replaces Entrypoint.
        pub entry_point: Vec<String>,
        /// Environment.
        pub environment: BTreeMap<String, String>,
        /// Environment files.
        pub environment_files: Vec<EnvironmentFile>,
        /// The task ends with it.
        pub essential: bool,
        /// CPU shares.
        pub cpu: i64,
        /// MiB.
        pub memory: i64,
        /// Links.
        pub links: Vec<String>,
        /// Ports.
        pub port_mappings: Vec<PortMapping>,
        /// Mounts.
        pub mount_points: Vec<MountPoint>,
        /// Mounts of other containers.
        pub volumes_from: Vec<VolumeFrom>,
        /// JSON text; only the key `command` is known.
        pub overrides: String,
        /// Docker API documents.
        pub docker_config: Option<DockerConfig>,
        /// `docker` where there is a health check.
        pub health_check_type: String,
        /// Where the registry's password comes from.
        pub registry_authentication: Option<RegistryAuthentication>,
        /// `ExecutionRole` or empty.
        pub logs_auth_strategy: String,
        /// Secrets.
        pub secrets: Vec<Secret>,
        /// Conditions on other containers.
        pub depends_on: Vec<ContainerDependency>,
        /// Seconds; 0 is none.
        pub start_timeout: i64,
        /// Seconds; 0 is the agent's default.
        pub stop_timeout: i64,
        /// Log router.
        pub firelens_configuration: Option<FirelensConfiguration>,
        /// ECS Exec.
        pub managed_agents: Vec<ManagedAgent>,
        /// Restarts.
        pub restart_policy: Option<RestartPolicy>,
        /// gMSA.
        pub credential_specs: Vec<String>,
    }

    /// Docker API documents.
    #[derive(Debug)]
    pub struct DockerConfig {
        /// Container config, as JSON text.
        pub config: String,
        /// Host config, as JSON text.
        pub host_config: String,
        /// API version.
        pub version: String,
    }

    /// An environment file.
    #[derive(Debug)]
    pub struct EnvironmentFile {
        /// ARN of an S3 object.
        pub value: String,
        /// `s3`
        pub r#type: String,
    }

    /// A port mapping.
    #[derive(Debug)]
    pub struct PortMapping {
        /// Port in the container.
        pub container_port: i64,
        /// Port on the host; 0 is any.
        pub host_port: i64,
        /// `a-b`, instead of `containerPort`.
        pub container_port_range: String,
        /// `tcp` or `udp`.
        pub protocol: String,
    }

    /// A mount.
    #[derive(Debug)]
    pub struct MountPoint {
        /// Name of a volume.
        pub source_volume: String,
        /// Path in the container.
        pub container_path: String,
        /// Read-only.
        pub read_only: bool,
    }

    /// Mounts of another container.
    #[derive(Debug)]
    pub struct VolumeFrom {
        /// That container.
        pub source_container: String,
        /// Read-only.
        pub read_only: bool,
    }

    /// A condition on another container.
    #[derive(Debug)]
    pub struct ContainerDependency {
        /// That container.
        pub container_name: String,
        /// `START`, `COMPLETE`, `SUCCESS`, `HEALTHY`.
        pub condition: String,
    }

    /// Where the registry's password comes from.
    #[derive(Debug)]
    pub struct RegistryAuthentication {
        /// `ecr` or `asm`.
        pub r#type: String,
        /// For `ecr`.
        pub ecr_auth_data: Option<EcrAuthData>,
        /// For `asm`.
        pub asm_auth_data: Option<AsmAuthData>,
    }

    /// A registry of ECR.
    #[derive(Debug)]
    pub struct EcrAuthData {
        /// Account.
        pub registry_id: String,
        /// Region.
        pub region: String,
        /// Endpoint of the ECR API.
        pub endpoint_override: String,
        /// Signs with the execution role.
        pub use_execution_role: bool,
    }

    /// A secret that holds a password.
    #[derive(Debug)]
    pub struct AsmAuthData {
        /// Its ARN.
        pub credentials_parameter: String,
        /// Region.
        pub region: String,
    }

    /// A secret of SSM or Secrets Manager.
    #[derive(Debug)]
    pub struct Secret {
        /// Name of the variable.
        pub name: String,
        /// Its ARN or name.
        pub value_from: String,
        /// Path, for mounts.
        pub container_path: String,
        /// `ENVIRONMENT_VARIABLE`, `MOUNT_POINT`, `BOOTSTRAP`.
        pub r#type: String,
        /// Region.
        pub region: String,
        /// `ssm` or `asm`.
        pub provider: String,
        /// `CONTAINER` or `LOG_DRIVER`.
        pub target: String,
    }

    /// A log router.
    #[derive(Debug)]
    pub struct FirelensConfiguration {
        /// `fluentd` or `fluentbit`.
        pub r#type: String,
        /// Options.
        pub options: BTreeMap<String, String>,
    }

    /// An agent in the container.
    #[derive(Debug)]
    pub struct ManagedAgent {
        /// `ExecuteCommandAgent`.
        pub name: String,
        /// Properties.
        pub properties: BTreeMap<String, String>,
    }

    /// Restarts.
    #[derive(Debug)]
    pub struct RestartPolicy {
        /// On.
        pub enabled: bool,
        /// Codes that don't restart.
        pub ignored_exit_codes: Vec<i64>,
        /// Seconds that it must have run.
        pub restart_attempt_period: i64,
    }

    /// A volume.
    #[derive(Debug)]
    pub struct Volume {
        /// Name.
        pub name: String,
        /// `host`, `docker`, `efs`...; empty is host.
        pub r#type: String,
        /// For `host`.
        pub host: Option<HostVolume>,
        /// For `docker`.
        pub docker_volume_configuration: Option<DockerVolume>,
        /// For `efs`.
        pub efs_volume_configuration: Option<EfsVolume>,
    }

    /// A directory of the host.
    #[derive(Debug)]
    pub struct HostVolume {
        /// Its path; empty is a directory of the task's own.
        pub source_path: String,
    }

    /// A Docker volume.
    #[derive(Debug)]
    pub struct DockerVolume {
        /// `task` or `shared`.
        pub scope: String,
        /// Make it where it is missing.
        pub autoprovision: bool,
        /// Driver.
        pub driver: String,
        /// Options.
        pub driver_opts: BTreeMap<String, String>,
        /// Labels.
        pub labels: BTreeMap<String, String>,
    }

    /// A file system of EFS.
    #[derive(Debug)]
    pub struct EfsVolume {
        /// Id.
        pub file_system_id: String,
        /// Directory.
        pub root_directory: String,
        /// `ENABLED` or `DISABLED`.
        pub transit_encryption: String,
        /// Port.
        pub transit_encryption_port: i64,
        /// Access point and IAM.
        pub authorization_config: Option<EfsAuthorization>,
    }

    /// How EFS lets it in.
    #[derive(Debug)]
    pub struct EfsAuthorization {
        /// Access point.
        pub access_point_id: String,
        /// `ENABLED` or `DISABLED`.
        pub iam: String,
    }

    /// An attachment.
    #[derive(Debug)]
    pub struct Attachment {
        /// ARN.
        pub attachment_arn: String,
        /// Type.
        pub attachment_type: String,
        /// Properties.
        pub attachment_properties: Vec<AttachmentProperty>,
    }

    /// A property of an attachment.
    #[derive(Debug)]
    pub struct AttachmentProperty {
        /// Name.
        pub name: String,
        /// Value.
        pub value: String,
    }

    /// A device that goes with containers.
    #[derive(Debug)]
    pub struct Association {
        /// Containers.
        pub containers: Vec<String>,
        /// Name.
        pub name: String,
        /// `gpu` or `elastic-inference`.
        pub r#type: String,
        /// Content.
        pub content: Option<AssociationContent>,
    }

    /// Content of an association.
    #[derive(Debug)]
    pub struct AssociationContent {
        /// `identity` or `base64`.
        pub encoding: String,
        /// Value.
        pub value: String,
    }

    /// A network interface.
    #[derive(Debug)]
    pub struct ElasticNetworkInterface {
        /// ARN.
        pub attachment_arn: String,
        /// `eni-...`
        pub ec2_id: String,
        /// Hardware address.
        pub mac_address: String,
        /// Name.
        pub name: String,
        /// Order.
        pub index: i64,
        /// Name in the VPC.
        pub private_dns_name: String,
        /// Search domains.
        pub domain_name: Vec<String>,
        /// Name servers.
        pub domain_name_servers: Vec<String>,
        /// `ip/prefix`
        pub subnet_gateway_ipv4_address: String,
        /// `ip/prefix`
        pub subnet_gateway_ipv6_address: String,
        /// IPv4.
        pub ipv4_addresses: Vec<Ipv4Address>,
        /// IPv6.
        pub ipv6_addresses: Vec<Ipv6Address>,
        /// `default` or `vlan`.
        pub interface_association_protocol: String,
        /// For `vlan`.
        pub interface_vlan_properties: Option<VlanProperties>,
    }

    /// An IPv4 address of an interface.
    #[derive(Debug)]
    pub struct Ipv4Address {
        /// The address.
        pub private_address: String,
        /// The interface's first.
        pub primary: bool,
    }

    /// An IPv6 address of an interface.
    #[derive(Debug)]
    pub struct Ipv6Address {
        /// The address.
        pub address: String,
        /// The interface's first.
        pub primary: bool,
    }

    /// A branch interface.
    #[derive(Debug)]
    pub struct VlanProperties {
        /// VLAN.
        pub vlan_id: String,
        /// Trunk.
        pub trunk_interface_mac_address: String,
    }

    /// App Mesh.
    #[derive(Debug)]
    pub struct ProxyConfiguration {
        /// `APPMESH`
        pub r#type: String,
        /// The proxy.
        pub container_name: String,
        /// Properties.
        pub properties: BTreeMap<String, String>,
    }

    /// Credentials of a role. Debug keeps the secret parts to itself.
    pub struct RoleCredentials {
        /// Id at the credentials endpoint.
        pub credentials_id: String,
        /// Role.
        pub role_arn: String,
        /// Access key id.
        pub access_key_id: String,
        /// Secret.
        pub secret_access_key: String,
        /// Secret.
        pub session_token: String,
        /// Text that is passed on as it is.
        pub expiration: String,
    }
}

impl fmt::Debug for RoleCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RoleCredentials")
            .field("credentials_id", &self.credentials_id)
            .field("role_arn", &self.role_arn)
            .field("expiration", &self.expiration)
            .finish_non_exhaustive()
    }
}
