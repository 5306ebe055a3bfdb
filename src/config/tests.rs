use super::*;

fn read(vars: &[(&str, &str)]) -> Result<(Config, Vec<ConfigWarning>), ConfigError> {
    let vars: BTreeMap<String, String> = vars.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
    Config::from_env(|name| vars.get(name).cloned())
}

fn warned(name: &str, value: &str) -> Config {
    let (config, warnings) = read(&[(name, value)]).unwrap();
    assert_eq!(warnings.len(), 1, "{name}={value}: {warnings:?}");
    assert_eq!(warnings[0].variable, name);
    config
}

fn taken(name: &str, value: &str) -> Config {
    let (config, warnings) = read(&[(name, value)]).unwrap();
    assert_eq!(warnings, [], "{name}={value}");
    config
}

#[test]
fn nothing_set_is_the_default() {
    assert_eq!(read(&[]).unwrap(), (Config::default(), vec![]));
    let blank: Vec<_> = VARIABLES.iter().filter(|v| !v.blank_counts).map(|v| (v.name, "  ")).collect();
    assert_eq!(read(&blank).unwrap(), (Config::default(), vec![]));
}

#[test]
fn values_are_taken() {
    assert_eq!(taken("ECS_CLUSTER", " prod ").cluster, "prod");
    assert_eq!(taken("ECS_BACKEND_HOST", "h:9").backend_host.unwrap(), "https://h:9");
    assert_eq!(taken("ECS_BACKEND_HOST", "http://h").backend_host.unwrap(), "http://h");
    assert_eq!(taken("ECS_RESERVED_PORTS", "[1,2] and more").reserved_ports, BTreeSet::from([1, 2]));
    assert_eq!(taken("ECS_CONTAINER_STOP_TIMEOUT", "1m30s").container_stop_timeout.as_secs(), 90);
    assert_eq!(taken("ECS_IMAGE_PULL_BEHAVIOR", "Always").image_pull_behavior, PullBehavior::Default);
    assert_eq!(taken("ECS_IMAGE_PULL_BEHAVIOR", "once").image_pull_behavior, PullBehavior::Once);
    assert_eq!(taken("ECS_TASK_METADATA_RPS_LIMIT", "10, 20").task_metadata_rps, (10, 20));
    assert_eq!(taken("ECS_DYNAMIC_HOST_PORT_RANGE", "100-200").dynamic_host_port_range, Some((100, 200)));
    assert_eq!(taken("ECS_DETAILED_OS_FAMILY", "").os_family, "");
    assert_eq!(taken("ECS_LOGLEVEL", "WARN").log_level, LogLevel::Warn);
    assert!(taken("AWS_EC2_METADATA_DISABLED", "True").imds_disabled);
    assert!(taken("ECS_DISABLE_PRIVILEGED", "T").privileged_disabled);
    assert_eq!(taken("ECS_CONTAINERD_ADDRESS", "unix:///x").containerd_address, PathBuf::from("/x"));
}

#[test]
fn bad_values_warn_and_fall_back_or_are_clamped() {
    let default = Config::default();
    for (name, value) in [
        ("ECS_RESERVED_PORTS", "22"),
        ("ECS_RESERVED_PORTS", "[70000]"),
        ("ECS_RESERVED_MEMORY", "65536"),
        ("ECS_RESERVED_MEMORY", "-1"),
        ("ECS_CONTAINER_STOP_TIMEOUT", "30"),
        ("ECS_TASK_METADATA_RPS_LIMIT", "40"),
        ("ECS_TASK_METADATA_RPS_LIMIT", "0,60"),
        ("ECS_DYNAMIC_HOST_PORT_RANGE", "9-1"),
        ("ECS_LOGLEVEL", "loud"),
        ("ECS_DISABLE_PRIVILEGED", "yes"),
        ("ECS_AVAILABLE_LOGGING_DRIVERS", "json-file"),
        ("ECS_CHECKPOINT", "false"),
        ("DOCKER_HOST", "unix:///var/run/docker.sock"),
        ("ECS_ENABLE_TASK_ENI", "true"),
        ("ECS_ENGINE_TASK_CLEANUP_WAIT_DURATION", "10ms"),
    ] {
        assert_eq!(warned(name, value), default, "{name}={value}");
    }
    assert_eq!(warned("ECS_CONTAINER_STOP_TIMEOUT", "-5s").container_stop_timeout.as_secs(), 1);
    assert_eq!(warned("ECS_CONTAINER_START_TIMEOUT", "1s").container_start_timeout.as_secs(), 45);
}

#[test]
fn fatal_values_are_all_named() {
    let error = read(&[
        ("ECS_INSTANCE_ATTRIBUTES", "{\"a\":1}"),
        ("ECS_AVAILABLE_LOGGING_DRIVERS", "[\"papyrus\"]"),
        ("ECS_DATADIR", "relative"),
        ("ECSD_BRIDGE", "a-name-that-is-too-long"),
        ("ECS_BACKEND_HOST", "http://"),
        ("ECSD_TASK_METADATA_ADDRESS", "localhost"),
    ])
    .unwrap_err();
    assert_eq!(error.0.len(), 6, "{error}");
    let text = error.to_string();
    for words in ["ECS_INSTANCE_ATTRIBUTES", "papyrus", "relative", "15 letters", "127.0.0.1:51679"] {
        assert!(text.contains(words), "{text} lacks {words}");
    }
}

#[test]
fn passwords_are_never_shown() {
    let config = taken("ECS_ENGINE_AUTH_DATA", "{\"r\":\"CANARY\"}");
    assert!(!format!("{config:?}").contains("CANARY"));
    let (_, warnings) = read(&[("ECS_ENGINE_AUTH_DATA", "CANARY")]).unwrap();
    assert!(!format!("{warnings:?}").contains("CANARY"));
}

#[test]
fn no_variable_is_listed_twice() {
    let mut names: Vec<_> =
        VARIABLES.iter().map(|v| v.name).chain(NO_EFFECT.iter().map(|(n, _)| *n)).collect();
    let all = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), all);
}

#[test]
fn the_page_is_up_to_date() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/configuration.md");
    if std::env::var_os("ECSD_BLESS").is_some() {
        std::fs::write(path, markdown()).unwrap();
    }
    let page = std::fs::read_to_string(path).unwrap_or_default();
    assert!(page == markdown(), "docs/configuration.md is stale: run ECSD_BLESS=1 cargo test --lib config");
}
