//! Shapes of the two requests that people write by hand: RegisterTaskDefinition and RunTask
//! (source: the public ECS service model that the aws CLI carries).

use crate::local::shape::Shape::{self, *};

const REPOSITORY_CREDENTIALS: Shape = Members(&[("credentialsParameter", Text)]);

const PORT_MAPPING: Shape = Members(&[
    ("containerPort", Int),
    ("hostPort", Int),
    ("protocol", OneOf(&["tcp", "udp"])),
    ("name", Text),
    ("appProtocol", OneOf(&["http", "http2", "grpc"])),
    ("containerPortRange", Text),
]);

const CONTAINER_RESTART_POLICY: Shape =
    Members(&[("enabled", Flag), ("ignoredExitCodes", List(&Int)), ("restartAttemptPeriod", Int)]);

const KEY_VALUE_PAIR: Shape = Members(&[("name", Text), ("value", Text)]);

const ENVIRONMENT_FILE: Shape = Members(&[("value", Text), ("type", OneOf(&["s3"]))]);

const MOUNT_POINT: Shape = Members(&[("sourceVolume", Text), ("containerPath", Text), ("readOnly", Flag)]);

const VOLUME_FROM: Shape = Members(&[("sourceContainer", Text), ("readOnly", Flag)]);

const KERNEL_CAPABILITIES: Shape = Members(&[("add", List(&Text)), ("drop", List(&Text))]);

const DEVICE: Shape = Members(&[
    ("hostPath", Text),
    ("containerPath", Text),
    ("permissions", List(&OneOf(&["read", "write", "mknod"]))),
]);

const TMPFS: Shape = Members(&[("containerPath", Text), ("size", Int), ("mountOptions", List(&Text))]);

const LINUX_PARAMETERS: Shape = Members(&[
    ("capabilities", KERNEL_CAPABILITIES),
    ("devices", List(&DEVICE)),
    ("initProcessEnabled", Flag),
    ("sharedMemorySize", Int),
    ("tmpfs", List(&TMPFS)),
    ("maxSwap", Int),
    ("swappiness", Int),
]);

const SECRET: Shape = Members(&[("name", Text), ("valueFrom", Text)]);

const CONTAINER_DEPENDENCY: Shape =
    Members(&[("containerName", Text), ("condition", OneOf(&["START", "COMPLETE", "SUCCESS", "HEALTHY"]))]);

const HOST_ENTRY: Shape = Members(&[("hostname", Text), ("ipAddress", Text)]);

const ULIMIT: Shape = Members(&[
    (
        "name",
        OneOf(&[
            "core",
            "cpu",
            "data",
            "fsize",
            "locks",
            "memlock",
            "msgqueue",
            "nice",
            "nofile",
            "nproc",
            "rss",
            "rtprio",
            "rttime",
            "sigpending",
            "stack",
        ]),
    ),
    ("softLimit", Int),
    ("hardLimit", Int),
]);

const LOG_CONFIGURATION: Shape = Members(&[
    (
        "logDriver",
        OneOf(&["json-file", "syslog", "journald", "gelf", "fluentd", "awslogs", "splunk", "awsfirelens"]),
    ),
    ("options", Map(&Text)),
    ("secretOptions", List(&SECRET)),
]);

const HEALTH_CHECK: Shape = Members(&[
    ("command", List(&Text)),
    ("interval", Int),
    ("timeout", Int),
    ("retries", Int),
    ("startPeriod", Int),
]);

const SYSTEM_CONTROL: Shape = Members(&[("namespace", Text), ("value", Text)]);

const RESOURCE_REQUIREMENT: Shape =
    Members(&[("value", Text), ("type", OneOf(&["GPU", "InferenceAccelerator", "NeuronDevice"]))]);

const FIRELENS_CONFIGURATION: Shape =
    Members(&[("type", OneOf(&["fluentd", "fluentbit"])), ("options", Map(&Text))]);

const CONTAINER_DEFINITION: Shape = Members(&[
    ("name", Text),
    ("image", Text),
    ("repositoryCredentials", REPOSITORY_CREDENTIALS),
    ("cpu", Int),
    ("memory", Int),
    ("memoryReservation", Int),
    ("links", List(&Text)),
    ("portMappings", List(&PORT_MAPPING)),
    ("essential", Flag),
    ("restartPolicy", CONTAINER_RESTART_POLICY),
    ("entryPoint", List(&Text)),
    ("command", List(&Text)),
    ("environment", List(&KEY_VALUE_PAIR)),
    ("environmentFiles", List(&ENVIRONMENT_FILE)),
    ("mountPoints", List(&MOUNT_POINT)),
    ("volumesFrom", List(&VOLUME_FROM)),
    ("linuxParameters", LINUX_PARAMETERS),
    ("secrets", List(&SECRET)),
    ("dependsOn", List(&CONTAINER_DEPENDENCY)),
    ("startTimeout", Int),
    ("stopTimeout", Int),
    ("versionConsistency", OneOf(&["enabled", "disabled"])),
    ("hostname", Text),
    ("user", Text),
    ("workingDirectory", Text),
    ("disableNetworking", Flag),
    ("privileged", Flag),
    ("readonlyRootFilesystem", Flag),
    ("dnsServers", List(&Text)),
    ("dnsSearchDomains", List(&Text)),
    ("extraHosts", List(&HOST_ENTRY)),
    ("dockerSecurityOptions", List(&Text)),
    ("interactive", Flag),
    ("pseudoTerminal", Flag),
    ("dockerLabels", Map(&Text)),
    ("ulimits", List(&ULIMIT)),
    ("logConfiguration", LOG_CONFIGURATION),
    ("healthCheck", HEALTH_CHECK),
    ("systemControls", List(&SYSTEM_CONTROL)),
    ("resourceRequirements", List(&RESOURCE_REQUIREMENT)),
    ("firelensConfiguration", FIRELENS_CONFIGURATION),
    ("credentialSpecs", List(&Text)),
]);

const HOST_VOLUME_PROPERTIES: Shape = Members(&[("sourcePath", Text)]);

const DOCKER_VOLUME_CONFIGURATION: Shape = Members(&[
    ("scope", OneOf(&["task", "shared"])),
    ("autoprovision", Flag),
    ("driver", Text),
    ("driverOpts", Map(&Text)),
    ("labels", Map(&Text)),
]);

const EFSAUTHORIZATION_CONFIG: Shape =
    Members(&[("accessPointId", Text), ("iam", OneOf(&["ENABLED", "DISABLED"]))]);

const EFSVOLUME_CONFIGURATION: Shape = Members(&[
    ("fileSystemId", Text),
    ("rootDirectory", Text),
    ("transitEncryption", OneOf(&["ENABLED", "DISABLED"])),
    ("transitEncryptionPort", Int),
    ("authorizationConfig", EFSAUTHORIZATION_CONFIG),
]);

const S3_FILES_VOLUME_CONFIGURATION: Shape = Members(&[
    ("fileSystemArn", Text),
    ("rootDirectory", Text),
    ("transitEncryptionPort", Int),
    ("accessPointArn", Text),
]);

const FSX_WINDOWS_FILE_SERVER_AUTHORIZATION_CONFIG: Shape =
    Members(&[("credentialsParameter", Text), ("domain", Text)]);

const FSX_WINDOWS_FILE_SERVER_VOLUME_CONFIGURATION: Shape = Members(&[
    ("fileSystemId", Text),
    ("rootDirectory", Text),
    ("authorizationConfig", FSX_WINDOWS_FILE_SERVER_AUTHORIZATION_CONFIG),
]);

const VOLUME: Shape = Members(&[
    ("name", Text),
    ("host", HOST_VOLUME_PROPERTIES),
    ("dockerVolumeConfiguration", DOCKER_VOLUME_CONFIGURATION),
    ("efsVolumeConfiguration", EFSVOLUME_CONFIGURATION),
    ("s3filesVolumeConfiguration", S3_FILES_VOLUME_CONFIGURATION),
    ("fsxWindowsFileServerVolumeConfiguration", FSX_WINDOWS_FILE_SERVER_VOLUME_CONFIGURATION),
    ("configuredAtLaunch", Flag),
]);

const TASK_DEFINITION_PLACEMENT_CONSTRAINT: Shape =
    Members(&[("type", OneOf(&["memberOf"])), ("expression", Text)]);

const TAG: Shape = Members(&[("key", Text), ("value", Text)]);

const PROXY_CONFIGURATION: Shape =
    Members(&[("type", OneOf(&["APPMESH"])), ("containerName", Text), ("properties", List(&KEY_VALUE_PAIR))]);

const INFERENCE_ACCELERATOR: Shape = Members(&[("deviceName", Text), ("deviceType", Text)]);

const EPHEMERAL_STORAGE: Shape = Members(&[("sizeInGiB", Int)]);

const RUNTIME_PLATFORM: Shape = Members(&[
    ("cpuArchitecture", OneOf(&["X86_64", "ARM64"])),
    (
        "operatingSystemFamily",
        OneOf(&[
            "WINDOWS_SERVER_2019_FULL",
            "WINDOWS_SERVER_2019_CORE",
            "WINDOWS_SERVER_2016_FULL",
            "WINDOWS_SERVER_2004_CORE",
            "WINDOWS_SERVER_2022_CORE",
            "WINDOWS_SERVER_2022_FULL",
            "WINDOWS_SERVER_2025_CORE",
            "WINDOWS_SERVER_2025_FULL",
            "WINDOWS_SERVER_20H2_CORE",
            "LINUX",
        ]),
    ),
]);

/// RegisterTaskDefinition.
pub const REGISTER_TASK_DEFINITION_REQUEST: Shape = Members(&[
    ("family", Text),
    ("taskRoleArn", Text),
    ("executionRoleArn", Text),
    ("networkMode", OneOf(&["bridge", "host", "awsvpc", "none"])),
    ("containerDefinitions", List(&CONTAINER_DEFINITION)),
    ("volumes", List(&VOLUME)),
    ("placementConstraints", List(&TASK_DEFINITION_PLACEMENT_CONSTRAINT)),
    ("requiresCompatibilities", List(&OneOf(&["EC2", "FARGATE", "EXTERNAL", "MANAGED_INSTANCES"]))),
    ("cpu", Text),
    ("memory", Text),
    ("tags", List(&TAG)),
    ("pidMode", OneOf(&["host", "task"])),
    ("ipcMode", OneOf(&["host", "task", "none"])),
    ("proxyConfiguration", PROXY_CONFIGURATION),
    ("inferenceAccelerators", List(&INFERENCE_ACCELERATOR)),
    ("ephemeralStorage", EPHEMERAL_STORAGE),
    ("runtimePlatform", RUNTIME_PLATFORM),
    ("enableFaultInjection", Flag),
]);

const CAPACITY_PROVIDER_STRATEGY_ITEM: Shape =
    Members(&[("capacityProvider", Text), ("weight", Int), ("base", Int)]);

const AWS_VPC_CONFIGURATION: Shape = Members(&[
    ("subnets", List(&Text)),
    ("securityGroups", List(&Text)),
    ("assignPublicIp", OneOf(&["ENABLED", "DISABLED"])),
]);

const NETWORK_CONFIGURATION: Shape = Members(&[("awsvpcConfiguration", AWS_VPC_CONFIGURATION)]);

const CONTAINER_OVERRIDE: Shape = Members(&[
    ("name", Text),
    ("command", List(&Text)),
    ("environment", List(&KEY_VALUE_PAIR)),
    ("environmentFiles", List(&ENVIRONMENT_FILE)),
    ("cpu", Int),
    ("memory", Int),
    ("memoryReservation", Int),
    ("resourceRequirements", List(&RESOURCE_REQUIREMENT)),
]);

const INFERENCE_ACCELERATOR_OVERRIDE: Shape = Members(&[("deviceName", Text), ("deviceType", Text)]);

const TASK_OVERRIDE: Shape = Members(&[
    ("containerOverrides", List(&CONTAINER_OVERRIDE)),
    ("cpu", Text),
    ("inferenceAcceleratorOverrides", List(&INFERENCE_ACCELERATOR_OVERRIDE)),
    ("executionRoleArn", Text),
    ("memory", Text),
    ("taskRoleArn", Text),
    ("ephemeralStorage", EPHEMERAL_STORAGE),
]);

const PLACEMENT_CONSTRAINT: Shape =
    Members(&[("type", OneOf(&["distinctInstance", "memberOf"])), ("expression", Text)]);

const PLACEMENT_STRATEGY: Shape =
    Members(&[("type", OneOf(&["random", "spread", "binpack"])), ("field", Text)]);

const EBSTAG_SPECIFICATION: Shape = Members(&[
    ("resourceType", OneOf(&["volume"])),
    ("tags", List(&TAG)),
    ("propagateTags", OneOf(&["TASK_DEFINITION", "SERVICE", "NONE"])),
]);

const TASK_MANAGED_EBSVOLUME_TERMINATION_POLICY: Shape = Members(&[("deleteOnTermination", Flag)]);

const TASK_MANAGED_EBSVOLUME_CONFIGURATION: Shape = Members(&[
    ("encrypted", Flag),
    ("kmsKeyId", Text),
    ("volumeType", Text),
    ("sizeInGiB", Int),
    ("snapshotId", Text),
    ("volumeInitializationRate", Int),
    ("iops", Int),
    ("throughput", Int),
    ("tagSpecifications", List(&EBSTAG_SPECIFICATION)),
    ("roleArn", Text),
    ("terminationPolicy", TASK_MANAGED_EBSVOLUME_TERMINATION_POLICY),
    ("filesystemType", OneOf(&["ext3", "ext4", "xfs", "ntfs"])),
]);

const TASK_VOLUME_CONFIGURATION: Shape =
    Members(&[("name", Text), ("managedEBSVolume", TASK_MANAGED_EBSVOLUME_CONFIGURATION)]);

/// RunTask.
pub const RUN_TASK_REQUEST: Shape = Members(&[
    ("capacityProviderStrategy", List(&CAPACITY_PROVIDER_STRATEGY_ITEM)),
    ("cluster", Text),
    ("count", Int),
    ("enableECSManagedTags", Flag),
    ("enableExecuteCommand", Flag),
    ("group", Text),
    ("launchType", OneOf(&["EC2", "FARGATE", "EXTERNAL", "MANAGED_INSTANCES"])),
    ("networkConfiguration", NETWORK_CONFIGURATION),
    ("overrides", TASK_OVERRIDE),
    ("placementConstraints", List(&PLACEMENT_CONSTRAINT)),
    ("placementStrategy", List(&PLACEMENT_STRATEGY)),
    ("platformVersion", Text),
    ("propagateTags", OneOf(&["TASK_DEFINITION", "SERVICE", "NONE"])),
    ("referenceId", Text),
    ("startedBy", Text),
    ("tags", List(&TAG)),
    ("taskDefinition", Text),
    ("clientToken", Text),
    ("volumeConfigurations", List(&TASK_VOLUME_CONFIGURATION)),
]);
