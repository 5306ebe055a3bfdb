//! The original's own names (spec/local-endpoints-config.md 3.3, 3.4): an operator's files must not hold one
//! that nobody here knows. Left out are those of the proxies, of the AWS SDK and of its tests.

use super::*;
use crate::config::table::{KEYS_WITHOUT_EFFECT, NO_EFFECT};

/// Says where the JSON file is, and so is no setting in it.
const FILE: &str = "ECS_AGENT_CONFIG_FILE_PATH";

const VARIABLES: &str = "
    ECS_CLUSTER ECS_BACKEND_HOST AWS_DEFAULT_REGION DOCKER_HOST ECS_RESERVED_PORTS
    ECS_RESERVED_PORTS_UDP ECS_DATADIR ECS_HOST_DATA_DIR ECS_CHECKPOINT ECS_ENGINE_AUTH_TYPE
    ECS_ENGINE_AUTH_DATA ECS_UPDATES_ENABLED ECS_UPDATE_DOWNLOAD_DIR ECS_DISABLE_METRICS
    ECS_POLL_METRICS ECS_POLLING_METRICS_WAIT_DURATION ECS_DISABLE_DOCKER_HEALTH_CHECK
    ECS_RESERVED_MEMORY ECS_AVAILABLE_LOGGING_DRIVERS ECS_DISABLE_PRIVILEGED ECS_SELINUX_CAPABLE
    ECS_APPARMOR_CAPABLE ECS_ENGINE_TASK_CLEANUP_WAIT_DURATION
    ECS_ENGINE_TASK_CLEANUP_WAIT_DURATION_JITTER ECS_ENABLE_TASK_ENI ECS_ENABLE_HIGH_DENSITY_ENI
    ECS_ENABLE_TASK_IAM_ROLE ECS_ENABLE_TASK_IAM_ROLE_NETWORK_HOST ECS_ENABLE_TASK_CPU_MEM_LIMIT
    ECS_CGROUP_PATH ECS_CGROUP_CPU_PERIOD ECS_TASK_PIDS_LIMIT ECS_PROPAGATE_TASK_MEMORY_LIMIT_CGROUPV2
    ECS_CONTAINER_STOP_TIMEOUT ECS_CONTAINER_START_TIMEOUT ECS_CONTAINER_CREATE_TIMEOUT
    ECS_MANIFEST_PULL_TIMEOUT ECS_IMAGE_PULL_INACTIVITY_TIMEOUT ECS_IMAGE_PULL_TIMEOUT
    ECS_PULL_DEPENDENT_CONTAINERS_UPFRONT ECS_IMAGE_PULL_BEHAVIOR ECS_DISABLE_IMAGE_CLEANUP
    ECS_IMAGE_CLEANUP_INTERVAL ECS_IMAGE_MINIMUM_CLEANUP_AGE NON_ECS_IMAGE_MINIMUM_CLEANUP_AGE
    ECS_NUM_IMAGES_DELETE_PER_CYCLE NONECS_NUM_CONTAINERS_DELETE_PER_CYCLE
    ECS_ENABLE_UNTRACKED_IMAGE_CLEANUP ECS_EXCLUDE_UNTRACKED_IMAGE ECS_INSTANCE_ATTRIBUTES
    ECS_CONTAINER_INSTANCE_TAGS ECS_CONTAINER_INSTANCE_PROPAGATE_TAGS_FROM ECS_CNI_PLUGINS_PATH
    ECS_AWSVPC_BLOCK_IMDS ECS_AWSVPC_ADDITIONAL_LOCAL_ROUTES ECS_ENABLE_CONTAINER_METADATA
    ECS_ENABLE_AWSLOGS_EXECUTIONROLE_OVERRIDE ECS_AUDIT_LOGFILE ECS_AUDIT_LOGFILE_DISABLED
    ECS_TASK_METADATA_RPS_LIMIT ECS_DISABLE_TASK_METADATA_AZ ECS_SHARED_VOLUME_MATCH_FULL_CONFIG
    ECS_VOLUME_PLUGIN_CAPABILITIES ECS_ENABLE_GPU_SUPPORT ECS_NVIDIA_RUNTIME ECS_ENABLE_INF_SUPPORT
    ECS_EBSTA_SUPPORTED ECS_ENABLE_SPOT_INSTANCE_DRAINING ECS_WARM_POOLS_CHECK ECS_EXTERNAL
    ECS_ENABLE_RUNTIME_STATS ECS_EXCLUDE_IPV6_PORTBINDING ECS_INSTANCE_IP_COMPATIBILITY
    ECS_DYNAMIC_HOST_PORT_RANGE ECS_ENABLE_FIRELENS_ASYNC ECS_GMSA_SUPPORTED
    CREDENTIALS_FETCHER_HOST_DIR ECS_DETAILED_OS_FAMILY ECS_PAUSE_LABELS
    ECS_ALTERNATE_CREDENTIAL_PROFILE ECS_AGENT_HEALTHCHECK_HOST ECS_ENABLE_PROMETHEUS_METRICS
    ECS_AGENT_CONFIG_FILE_PATH ECS_LOGLEVEL ECS_LOGLEVEL_ON_INSTANCE ECS_LOGFILE ECS_LOG_DRIVER
    ECS_LOG_ROLLOVER_TYPE ECS_LOG_OUTPUT_FORMAT ECS_LOG_MAX_FILE_SIZE_MB ECS_LOG_MAX_ROLL_COUNT";

const KEYS: &str = "
    ClusterArn Cluster APIEndpoint DockerEndpoint AWSRegion ReservedPorts ReservedPortsUDP DataDir
    DataDirOnHost Checkpoint EngineAuthType EngineAuthData UpdatesEnabled UpdateDownloadDir
    DisableMetrics PollMetrics PollingMetricsWaitDuration DisableDockerHealthCheck ReservedMemory
    ManifestPullTimeout DockerStopTimeout ContainerStartTimeout ContainerCreateTimeout
    DependentContainersPullUpfront ImagePullInactivityTimeout ImagePullTimeout AvailableLoggingDrivers
    PrivilegedDisabled SELinuxCapable AppArmorCapable TaskCleanupWaitDuration
    TaskCleanupWaitDurationJitter TaskIAMRoleEnabled DeleteNonECSImagesEnabled TaskCPUMemLimit
    CredentialsAuditLogFile CredentialsAuditLogDisabled TaskIAMRoleEnabledForNetworkHost TaskENIEnabled
    ENITrunkingEnabled ImageCleanupDisabled MinimumImageDeletionAge NonECSMinimumImageDeletionAge
    ImageCleanupInterval NumImagesToDeletePerCycle NumNonECSContainersToDeletePerCycle ImagePullBehavior
    InstanceAttributes CNIPluginsPath AWSVPCBlockInstanceMetdata AWSVPCAdditionalLocalRoutes
    ContainerMetadataEnabled OverrideAWSLogsExecutionRole CgroupPath TaskMetadataSteadyStateRate
    TaskMetadataBurstRate SharedVolumeMatchFullConfig ContainerInstancePropagateTagsFrom
    ContainerInstanceTags GPUSupportEnabled InferentiaSupportEnabled ImageCleanupExclusionList
    NvidiaRuntime TaskMetadataAZDisabled CgroupCPUPeriod SpotInstanceDrainingEnabled
    VolumePluginCapabilities External EnableRuntimeStats ShouldExcludeIPv6PortBinding WarmPoolsSupport
    DynamicHostPortRange TaskPidsLimit FirelensAsyncEnabled PropagateTaskMemoryLimitCgroupV2
    PlatformVariables PrometheusMetricsEnabled InstanceIPCompatibility GMSACapable GMSADomainlessCapable
    FSxWindowsFileServerCapable EBSTASupportEnabled PauseContainerTarballPath PauseContainerImageName
    PauseContainerTag OverrideAWSVPCLocalIPv4Address ENIPauseContainerCleanupDelaySeconds NoIID
    IMDSIAMRolesEnabled InstanceENIDNSServerList RuntimeStatsLogFile CSIDriverSocketPath
    NodeStageTimeout NodeUnstageTimeout";

#[test]
fn every_variable_of_the_original_is_known() {
    let without_effect = |name: &str| NO_EFFECT.iter().any(|(known, ..)| *known == name);
    let known = |name: &&str| variables().any(|v| v.env && v.name == *name) || without_effect(name);
    let unknown: Vec<&str> =
        VARIABLES.split_whitespace().filter(|name| *name != FILE && !known(name)).collect();
    assert!(unknown.is_empty(), "{unknown:?}");
    assert!(markdown().contains(FILE));
}

#[test]
fn every_key_of_the_original_is_known() {
    let known = |key: &&str| {
        variables().any(|v| v.key.is_some_and(|(known, _)| known == *key))
            || NO_EFFECT.iter().any(|(_, known, _)| known == key)
            || KEYS_WITHOUT_EFFECT.iter().any(|(known, _)| known == key)
    };
    // The other name of Cluster, which `json` knows.
    let unknown: Vec<&str> =
        KEYS.split_whitespace().filter(|key| *key != "ClusterArn" && !known(key)).collect();
    assert!(unknown.is_empty(), "{unknown:?}");
}
