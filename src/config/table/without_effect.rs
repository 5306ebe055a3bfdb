//! What the original reads and ecsd does not: because it is about Docker, or about what ecsd does not
//! have. Set, it gets a warning; set to false, none.

use super::LATER;

const GO: &str = "it is about the original's runtime";
const CONTAINER: &str = "the agent is no container itself";
const NO_PAUSE: &str = "there is no pause container";
const GMSA: &str = "this agent does not do gMSA yet";

/// Variable, its key in JSON (blank where it has none), and why it does nothing.
pub static NO_EFFECT: &[(&str, &str, &str)] = &[
    ("DOCKER_HOST", "DockerEndpoint", "there is no dockerd; see ECS_CONTAINERD_ADDRESS"),
    ("ECS_HOST_DATA_DIR", "DataDirOnHost", "the agent runs on the host itself; see ECS_DATADIR"),
    ("ECS_CGROUP_PATH", "CgroupPath", "the kernel tells where cgroups are"),
    ("ECS_CNI_PLUGINS_PATH", "CNIPluginsPath", "no CNI plugins are used"),
    ("ECS_ENABLE_RUNTIME_STATS", "EnableRuntimeStats", GO),
    ("ECS_GMSA_SUPPORTED", "GMSACapable", GMSA),
    ("CREDENTIALS_FETCHER_HOST", "", GMSA),
    ("CREDENTIALS_FETCHER_HOST_DIR", "", GMSA),
    ("CREDENTIALS_FETCHER_SECRET_NAME_FOR_DOMAINLESS_GMSA", "GMSADomainlessCapable", GMSA),
    ("ECS_DOMAIN_JOINED_LINUX_INSTANCE", "", GMSA),
    ("ECS_PAUSE_LABELS", "", NO_PAUSE),
    ("ECS_LOG_OPTS", "", CONTAINER),
    ("ECS_INIT_DOCKER_LOG_FILE_SIZE", "", "see ECS_LOG_MAX_FILE_SIZE_MB"),
    ("ECS_INIT_DOCKER_LOG_FILE_NUM", "", "see ECS_LOG_MAX_ROLL_COUNT"),
    ("ECS_AGENT_RUN_PRIVILEGED", "", CONTAINER),
    ("ECS_AGENT_APPARMOR_PROFILE", "", CONTAINER),
    ("ECS_AGENT_PID_NAMESPACE_HOST", "", CONTAINER),
    ("ECS_AGENT_LABELS", "", CONTAINER),
    (
        "ECS_SKIP_LOCALHOST_TRAFFIC_FILTER",
        "",
        "only what comes from tasks, or for the metadata endpoint, is filtered",
    ),
    ("ECS_OFFHOST_INTROSPECTION_INTERFACE_NAME", "", "the original does not read it either"),
    ("ECS_PRIVILEGED_DISABLED", "", "write ECS_DISABLE_PRIVILEGED"),
];

/// Keys of JSON that have no variable, and why they do nothing.
pub(crate) static KEYS_WITHOUT_EFFECT: &[(&str, &str)] = &[
    ("PauseContainerTarballPath", NO_PAUSE),
    ("PauseContainerImageName", NO_PAUSE),
    ("PauseContainerTag", NO_PAUSE),
    ("ENIPauseContainerCleanupDelaySeconds", NO_PAUSE),
    ("OverrideAWSVPCLocalIPv4Address", LATER),
    ("InstanceENIDNSServerList", LATER),
    ("IMDSIAMRolesEnabled", LATER),
    ("RuntimeStatsLogFile", GO),
    ("CSIDriverSocketPath", "there is no CSI driver"),
    ("NodeStageTimeout", "there is no CSI driver"),
    ("NodeUnstageTimeout", "there is no CSI driver"),
    ("PlatformVariables", "it has no members on Linux"),
    ("PrometheusMetricsEnabled", "write ECS_ENABLE_PROMETHEUS_METRICS"),
    ("InstanceIPCompatibility", "write ECS_INSTANCE_IP_COMPATIBILITY"),
    ("EBSTASupportEnabled", "write ECS_EBSTA_SUPPORTED"),
    ("FSxWindowsFileServerCapable", "it is about Windows"),
];
