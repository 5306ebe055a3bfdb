//! Every row of the table: its default, a value that it takes, and what it does with one that it can't.

use super::*;

/// What becomes of an unusable value.
enum Bad {
    /// There is no such value.
    Nothing,
    /// The default stays, with a warning.
    Warned(&'static str),
    /// The default is taken, without a word.
    Silent(&'static str),
    /// Another value is taken, with a warning.
    Becomes(&'static str, &'static str),
    /// Exit 1.
    Fatal(&'static str),
}
use Bad::{Becomes, Fatal, Nothing, Silent, Warned};

/// A row's name, its default, a value with what is shown of it, and unusable ones.
type Case = (&'static str, &'static str, &'static str, &'static str, &'static [Bad]);

const NOT_BOOLEAN: &[Bad] = &[Warned("yes"), Warned("2"), Warned("tRUE")];
const NOT_ABSOLUTE: &[Bad] = &[Fatal("relative"), Fatal("./x")];
const NO_NAME: &[Bad] = &[Fatal("a/b"), Fatal(".x"), Fatal("a b")];
const NO_LEVEL: &[Bad] = &[Warned("loud"), Warned("5")];
const NO_DURATION: &[Bad] = &[Warned("30"), Warned("soon"), Silent("0")];

/// Needs `ECS_POLL_METRICS`, without which it warns whatever it is set to.
const POLLING: &str = "ECS_POLLING_METRICS_WAIT_DURATION";

const CASES: &[Case] = &[
    ("ECS_CLUSTER", "", " prod ", "prod", &[Nothing]),
    ("ECS_BACKEND_HOST", "", "h:9", "https://h:9", &[Fatal("http://"), Fatal("a b")]),
    ("AWS_DEFAULT_REGION", "", "eu-west-1", "eu-west-1", &[Nothing]),
    ("ECS_DATADIR", "/var/lib/ecs/data", "/d", "/d", NOT_ABSOLUTE),
    ("ECS_CHECKPOINT", "true", "true", "true", &[Warned("false"), Warned("x")]),
    (
        "ECS_INSTANCE_ATTRIBUTES",
        "{}",
        r#"{"a":"b"}"#,
        r#"{"a":"b"}"#,
        &[Fatal("{oops"), Fatal(r#"{"a":1}"#), Fatal("{} x")],
    ),
    ("ECS_CONTAINER_INSTANCE_TAGS", "{}", r#"{"a":"b"}"#, r#"{"a":"b"}"#, &[Fatal("[]"), Fatal("x")]),
    ("ECS_CONTAINER_INSTANCE_PROPAGATE_TAGS_FROM", "none", "ec2_instance", "ec2_instance", &[Warned("EC2")]),
    ("ECS_DETAILED_OS_FAMILY", "LINUX", "DEBIAN_12", "DEBIAN_12", &[Becomes("", "")]),
    ("AWS_EC2_METADATA_DISABLED", "false", "True", "true", &[Silent("1")]),
    ("ECS_EXTERNAL", "false", "true", "true", NOT_BOOLEAN),
    ("NoIID", "false", "true", "true", &[Nothing]),
    ("ECS_ALTERNATE_CREDENTIAL_PROFILE", "", "p", "p", &[Nothing]),
    ("ECS_UPDATES_ENABLED", "false", "true", "true", NOT_BOOLEAN),
    ("ECS_UPDATE_DOWNLOAD_DIR", "", "/var/cache/ecs", "/var/cache/ecs", NOT_ABSOLUTE),
    ("ECS_ENABLE_SPOT_INSTANCE_DRAINING", "false", "true", "true", NOT_BOOLEAN),
    ("ECS_WARM_POOLS_CHECK", "false", "true", "true", NOT_BOOLEAN),
    ("ECS_ENABLE_GPU_SUPPORT", "false", "true", "true", NOT_BOOLEAN),
    ("ECSD_GPU_INFO", "/var/lib/ecs/gpu/nvidia-gpu-info.json", "/g", "/g", NOT_ABSOLUTE),
    ("ECS_NVIDIA_RUNTIME", "nvidia", " /usr/bin/n ", "/usr/bin/n", &[Nothing]),
    ("ECS_ENABLE_INF_SUPPORT", "false", "true", "true", NOT_BOOLEAN),
    ("ECS_RESERVED_MEMORY", "0", "65535", "65535", &[Warned("65536"), Warned("-1"), Warned("1.5")]),
    (
        "ECS_CONTAINER_STOP_TIMEOUT",
        "30s",
        "1m30s",
        "1m30s",
        &[Warned("30"), Silent("0"), Becomes("-5s", "1s"), Becomes("999ms", "1s")],
    ),
    ("ECS_CONTAINER_START_TIMEOUT", "3m", "45s", "45s", &[Warned("x"), Becomes("44s", "45s")]),
    ("ECS_CONTAINER_CREATE_TIMEOUT", "4m", "1m", "1m", &[Warned("x"), Becomes("59s", "1m")]),
    ("ECS_ENGINE_TASK_CLEANUP_WAIT_DURATION", "3h", "1s", "1s", &[Warned("x"), Becomes("10ms", "3h")]),
    ("ECS_ENGINE_TASK_CLEANUP_WAIT_DURATION_JITTER", "0s", "1h", "1h", &[Warned("x"), Becomes("-1s", "0s")]),
    (
        "ECS_AVAILABLE_LOGGING_DRIVERS",
        r#"["json-file","none"]"#,
        r#"["none"] and more"#,
        r#"["none"]"#,
        &[
            Warned("json-file"),
            Warned("[1]"),
            Fatal(r#"["papyrus"]"#),
            Becomes(r#"["sumologic"]"#, r#"["sumologic"]"#),
        ],
    ),
    ("ECS_DISABLE_PRIVILEGED", "false", "T", "true", NOT_BOOLEAN),
    ("ECS_SELINUX_CAPABLE", "false", "true", "true", NOT_BOOLEAN),
    ("ECS_APPARMOR_CAPABLE", "false", "true", "true", NOT_BOOLEAN),
    ("ECS_ENABLE_TASK_CPU_MEM_LIMIT", "", "false", "false", NOT_BOOLEAN),
    (
        "ECS_CGROUP_CPU_PERIOD",
        "100ms",
        "8ms",
        "8ms",
        &[Warned("8"), Becomes("7ms", "100ms"), Becomes("101ms", "100ms")],
    ),
    ("ECS_TASK_PIDS_LIMIT", "0", " 4194304 ", "4194304", &[Warned("0"), Warned("4194305"), Warned("-1")]),
    ("ECS_PROPAGATE_TASK_MEMORY_LIMIT_CGROUPV2", "false", "true", "true", NOT_BOOLEAN),
    ("ECS_ENABLE_TASK_IAM_ROLE", "false", "true", "true", NOT_BOOLEAN),
    ("ECS_ENABLE_TASK_IAM_ROLE_NETWORK_HOST", "false", "true", "true", NOT_BOOLEAN),
    ("ECS_ENABLE_AWSLOGS_EXECUTIONROLE_OVERRIDE", "false", "true", "true", NOT_BOOLEAN),
    ("ECS_ENABLE_FIRELENS_ASYNC", "true", "false", "false", NOT_BOOLEAN),
    ("ECS_ENABLE_CONTAINER_METADATA", "false", "true", "true", NOT_BOOLEAN),
    ("ECS_SHARED_VOLUME_MATCH_FULL_CONFIG", "false", "true", "true", NOT_BOOLEAN),
    (
        "ECS_VOLUME_PLUGIN_CAPABILITIES",
        "[]",
        r#"["efsAuth"] x"#,
        r#"["efsAuth"]"#,
        &[Warned("efsAuth"), Warned("[1]")],
    ),
    ("ECS_EBSTA_SUPPORTED", "true", "false", "false", NOT_BOOLEAN),
    (
        "ECS_IMAGE_PULL_BEHAVIOR",
        "default",
        "prefer-cached",
        "prefer-cached",
        &[Silent("Always"), Silent("never")],
    ),
    ("ECS_IMAGE_PULL_TIMEOUT", "2h", "1s", "1s", NO_DURATION),
    ("ECS_IMAGE_PULL_INACTIVITY_TIMEOUT", "1m", "2m", "2m", &[Warned("x"), Becomes("59s", "1m")]),
    ("ECS_MANIFEST_PULL_TIMEOUT", "1m", "30s", "30s", &[Warned("x"), Becomes("29s", "30s")]),
    ("ECS_PULL_DEPENDENT_CONTAINERS_UPFRONT", "false", "true", "true", NOT_BOOLEAN),
    ("ECS_ENGINE_AUTH_TYPE", "", "docker", "docker", &[Warned("Docker")]),
    ("ECS_ENGINE_AUTH_DATA", "", "{}", "[redacted]", &[Warned("{oops")]),
    ("ECS_DISABLE_IMAGE_CLEANUP", "false", "true", "true", NOT_BOOLEAN),
    ("ECS_IMAGE_CLEANUP_INTERVAL", "30m", "10m", "10m", &[Warned("x"), Becomes("9m59s", "30m")]),
    ("ECS_IMAGE_MINIMUM_CLEANUP_AGE", "1h", "1ms", "1ms", NO_DURATION),
    ("NON_ECS_IMAGE_MINIMUM_CLEANUP_AGE", "1h", "1ms", "1ms", NO_DURATION),
    ("ECS_NUM_IMAGES_DELETE_PER_CYCLE", "5", "1", "1", &[Warned("0"), Warned("x")]),
    ("NONECS_NUM_CONTAINERS_DELETE_PER_CYCLE", "5", "9", "9", &[Warned("-1"), Warned("x")]),
    ("ECS_ENABLE_UNTRACKED_IMAGE_CLEANUP", "false", "true", "true", NOT_BOOLEAN),
    ("ECS_EXCLUDE_UNTRACKED_IMAGE", "[]", "a:1,b", r#"["a:1","b"]"#, &[Nothing]),
    (
        "ECS_RESERVED_PORTS",
        "[22,2375,2376,51678,51679]",
        "[2,1] and more",
        "[1,2]",
        &[Warned("22"), Warned("[70000]"), Warned("[-1]")],
    ),
    ("ECS_IMAGE_CLEANUP_HIGH_WATERMARK", "90", "100", "100", &[Warned("0"), Warned("101"), Warned("90%")]),
    ("ECS_IMAGE_CLEANUP_LOW_WATERMARK", "80", "1", "1", &[Warned("0"), Warned("101"), Warned("x")]),
    ("ECS_RESERVED_PORTS_UDP", "[]", "[53]", "[53]", &[Warned("53")]),
    ("ECS_ENABLE_PROMETHEUS_METRICS", "false", "true", "true", NOT_BOOLEAN),
    (
        "ECS_DYNAMIC_HOST_PORT_RANGE",
        "",
        "100 - 200",
        "100-200",
        &[Warned("9-1"), Warned("0-9"), Warned("1-70000"), Warned("5")],
    ),
    ("ECS_EXCLUDE_IPV6_PORTBINDING", "", "false", "false", NOT_BOOLEAN),
    ("ECS_INSTANCE_IP_COMPATIBILITY", "", "IPv6", "ipv6", &[Warned("6")]),
    ("ECS_ENABLE_TASK_ENI", "false", "true", "true", NOT_BOOLEAN),
    ("ECS_ENABLE_HIGH_DENSITY_ENI", "true", "false", "false", NOT_BOOLEAN),
    ("ECS_AWSVPC_BLOCK_IMDS", "false", "true", "true", NOT_BOOLEAN),
    (
        "ECS_AWSVPC_ADDITIONAL_LOCAL_ROUTES",
        "[]",
        r#"["10.0.0.0/8","fd00::/8"]"#,
        r#"["10.0.0.0/8","fd00::/8"]"#,
        &[Fatal("[1]"), Fatal(r#"["10.0.0.0"]"#), Fatal(r#"["10.0.0.0/33"]"#), Fatal("[] x")],
    ),
    ("ECS_DISABLE_METRICS", "false", "true", "true", NOT_BOOLEAN),
    ("ECS_POLL_METRICS", "false", "true", "true", NOT_BOOLEAN),
    (POLLING, "10s", "15s", "15s", &[Warned("x"), Becomes("4s", "5s"), Becomes("1m", "20s")]),
    ("ECS_DISABLE_DOCKER_HEALTH_CHECK", "false", "true", "true", NOT_BOOLEAN),
    ("TaskMetadataSteadyStateRate", "40", "10", "10", &[Warned("-1")]),
    ("TaskMetadataBurstRate", "60", "10", "10", &[Warned("-1")]),
    (
        "ECS_TASK_METADATA_RPS_LIMIT",
        "40,60",
        "10, 20",
        "10,20",
        &[Warned("40"), Warned("0,60"), Warned("1,2,3"), Warned("a,b")],
    ),
    ("ECS_DISABLE_TASK_METADATA_AZ", "false", "true", "true", NOT_BOOLEAN),
    (
        "ECSD_TASK_METADATA_ADDRESS",
        "127.0.0.1:51679",
        "127.0.0.2:1",
        "127.0.0.2:1",
        &[Fatal("localhost"), Fatal("127.0.0.1")],
    ),
    ("ECS_ALLOW_OFFHOST_INTROSPECTION_ACCESS", "false", "true", "true", NOT_BOOLEAN),
    ("ECSD_INTROSPECTION_ADDRESS", "127.0.0.1:51678", "[::1]:1", "[::1]:1", &[Fatal("51678")]),
    ("ECS_AGENT_HEALTHCHECK_HOST", "localhost", "h", "h", &[Nothing]),
    ("ECS_LOGLEVEL", "info", "CRIT", "crit", NO_LEVEL),
    ("ECS_LOG_DRIVER", "", "journald", "journald", &[Nothing]),
    ("ECS_LOGLEVEL_ON_INSTANCE", "info", "None", "none", NO_LEVEL),
    ("ECS_LOGFILE", "", "/l", "/l", NOT_ABSOLUTE),
    ("ECS_LOG_OUTPUT_FORMAT", "logfmt", "json", "json", &[Warned("xml")]),
    ("ECS_LOG_ROLLOVER_TYPE", "size", "none", "none", &[Nothing]),
    (
        "ECS_LOG_MAX_FILE_SIZE_MB",
        "5",
        "0.5",
        "0.5",
        &[Warned("0"), Warned("-1"), Warned("NaN"), Warned("inf"), Warned("5MB")],
    ),
    ("ECS_LOG_MAX_ROLL_COUNT", "24", "3", "3", &[Warned("-1"), Warned("x")]),
    ("ECS_AUDIT_LOGFILE", "/var/log/ecs/audit.log", "/a", "/a", NOT_ABSOLUTE),
    ("ECS_AUDIT_LOGFILE_DISABLED", "false", "true", "true", NOT_BOOLEAN),
    ("ECS_CONTAINERD_ADDRESS", "/run/containerd/containerd.sock", "unix:///x", "/x", NOT_ABSOLUTE),
    ("ECS_CONTAINERD_NAMESPACE", "ecs", "mine", "mine", NO_NAME),
    ("ECS_CONTAINERD_SNAPSHOTTER", "overlayfs", "native", "native", NO_NAME),
    ("ECS_CONTAINERD_CERTS_DIR", "/etc/containerd/certs.d", "/c", "/c", NOT_ABSOLUTE),
    ("ECS_CONTAINERD_RUNTIME", "io.containerd.runc.v2", "io.x", "io.x", NO_NAME),
    ("ECS_CONTAINERD_RUNTIME_BINARY", "", "/usr/bin/crun", "/usr/bin/crun", NOT_ABSOLUTE),
    ("ECSD_RUNTIME_DIR", "/run/ecsd", "/r", "/r", NOT_ABSOLUTE),
    ("ECSD_CGROUP_ROOT", "ecs", "mine", "mine", NO_NAME),
    ("ECSD_BRIDGE", "ecs-br0", "br1", "br1", &[Fatal("sixteen-letters-"), Fatal("a/b")]),
    ("ECSD_LOGGER", "", "/l", "/l", NOT_ABSOLUTE),
];

/// A value for one row alone: by the environment, or by a file where only that has it.
fn set(variable: &Variable, value: &str) -> Result<LoadedConfig, ConfigError> {
    if !variable.env {
        let file = format!("{{\"{}\": {value}}}", variable.name);
        return Config::load(Sources { file: Some(("/f".into(), file)), ..Sources::default() });
    }
    let context = match variable.name {
        "ECS_EXTERNAL" => Some(("AWS_DEFAULT_REGION", "r")),
        POLLING => Some(("ECS_POLL_METRICS", "true")),
        _ => None,
    };
    env(&context.into_iter().chain([(variable.name, value)]).collect::<Vec<_>>())
}

fn check(variable: &Variable, (name, default, value, shown, bad): &Case) {
    assert_eq!((variable.show)(&Config::default()), *default, "{name}");
    let loaded = set(variable, value).unwrap();
    assert_eq!((variable.show)(&loaded.config), *shown, "{name}={value}");
    let later = usize::from(variable.later.is_some());
    assert_eq!(loaded.warnings.len(), later, "{name}={value}: {:?}", loaded.warnings);
    assert!(!bad.is_empty(), "{name}: what becomes of an unusable value?");
    for bad in *bad {
        let (value, expected, warnings) = match bad {
            Nothing => continue,
            Fatal(value) => {
                let error = set(variable, value).unwrap_err();
                assert!(error.0.len() == 1 && error.0[0].contains(name), "{name}={value}: {error}");
                continue;
            }
            Warned(value) => (value, default, 1),
            Silent(value) => (value, default, 0),
            Becomes(value, other) => (value, other, usize::from(!value.is_empty())),
        };
        let loaded = set(variable, value).unwrap();
        assert_eq!((variable.show)(&loaded.config), *expected, "{name}={value}");
        // What is not done yet may say so, too.
        let extra = loaded.warnings.iter().filter(|w| Some(w.message.as_str()) != variable.later).count();
        assert_eq!(extra, warnings, "{name}={value}: {:?}", loaded.warnings);
    }
}

#[test]
fn every_row_has_its_default_takes_what_it_should_and_survives_the_rest() {
    for variable in variables() {
        let case = CASES.iter().find(|case| case.0 == variable.name);
        check(variable, case.unwrap_or_else(|| panic!("{} has no case here", variable.name)));
    }
    for (name, ..) in CASES {
        assert!(variables().any(|v| v.name == *name), "{name} is no row of the table");
    }
}
