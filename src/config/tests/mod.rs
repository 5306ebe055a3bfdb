mod layers;
mod original;
mod rows;

use super::*;
use std::collections::BTreeMap;

fn env(vars: &[(&str, &str)]) -> Result<LoadedConfig, ConfigError> {
    let vars: BTreeMap<String, String> = vars.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
    Config::from_env(|name| vars.get(name).cloned())
}

#[test]
fn nothing_set_is_the_default() {
    let nothing = env(&[]).unwrap();
    assert_eq!((&nothing.config, nothing.warnings.len()), (&Config::default(), 0));
    assert!(nothing.effective().iter().all(|e| e.origin == Origin::Default));
    let blank: Vec<_> = variables().filter(|v| !v.blank_counts).map(|v| (v.name, "  ")).collect();
    assert_eq!(env(&blank).unwrap(), nothing);
}

#[test]
fn fatal_values_are_all_named() {
    let error = env(&[
        ("ECS_INSTANCE_ATTRIBUTES", "{\"a\":1}"),
        ("ECS_AVAILABLE_LOGGING_DRIVERS", "[\"papyrus\"]"),
        ("ECS_DATADIR", "relative"),
        ("ECSD_BRIDGE", "a-name-that-is-too-long"),
        ("ECS_EXTERNAL", "true"),
    ])
    .unwrap_err();
    assert_eq!(error.0.len(), 5, "{error}");
    let text = error.to_string();
    for words in ["ECS_INSTANCE_ATTRIBUTES", "papyrus", "relative", "15 letters", "AWS_DEFAULT_REGION"] {
        assert!(text.contains(words), "{text} lacks {words}");
    }
}

#[test]
fn passwords_are_never_shown() {
    let vars = [
        ("ECS_ENGINE_AUTH_DATA", "{\"r\":\"CANARY\"}"),
        ("ECS_BACKEND_HOST", "https://me:CANARY@ecs.example"),
    ];
    let loaded = env(&vars).unwrap();
    assert!(!format!("{:?}", loaded.config.engine_auth_data).contains("CANARY"));
    assert!(!format!("{:?}", loaded.effective()).contains("CANARY"));
    let error = env(&[("ECS_BACKEND_HOST", "https://me:CANARY@a b")]).unwrap_err();
    assert!(!error.to_string().contains("CANARY"), "{error}");
    let loaded = env(&[("ECS_ENGINE_AUTH_DATA", "CANARY")]).unwrap();
    assert!(!format!("{:?}", loaded.warnings).contains("CANARY"));
}

#[test]
fn variables_that_build_on_others_go_by_them() {
    let config = |vars: &[(&str, &str)]| env(vars).unwrap().config;
    let audit = config(&[("ECS_AUDIT_LOGFILE", "/a"), ("ECS_AUDIT_LOGFILE_DISABLED", "true")]);
    assert_eq!(audit.audit_log_file, None);
    let ports = env(&[("ECS_RESERVED_PORTS", "[1]"), ("ECS_ENABLE_PROMETHEUS_METRICS", "true")]).unwrap();
    assert_eq!(ports.config.reserved_ports, BTreeSet::from([1, 51680]));
    let implied = env(&[("ECS_ENABLE_PROMETHEUS_METRICS", "true")]).unwrap().effective();
    let ports = implied.iter().find(|e| e.name == "ECS_RESERVED_PORTS").unwrap();
    assert_eq!(ports.origin, Origin::Implied("ECS_ENABLE_PROMETHEUS_METRICS"));
    for (wait, seconds) in [("15s", 15), ("1s", 5), ("1h", 20), ("x", 10)] {
        let vars = [("ECS_POLL_METRICS", "true"), ("ECS_POLLING_METRICS_WAIT_DURATION", wait)];
        assert_eq!(config(&vars).metrics_interval, Some(Duration::from_secs(seconds)), "{wait}");
    }
    let external = config(&[("ECS_EXTERNAL", "true"), ("AWS_DEFAULT_REGION", "eu-west-1")]);
    assert!(external.external && external.no_identity_document);
    let other =
        [("ECS_ALLOW_OFFHOST_INTROSPECTION_ACCESS", "t"), ("ECSD_INTROSPECTION_ADDRESS", "127.0.0.9:1")];
    assert_eq!(config(&other).introspection_address.to_string(), "127.0.0.9:1");
    for (vars, level) in [
        (&[("ECS_LOGLEVEL", "WARN")][..], LogLevel::Warn),
        (&[("ECS_LOG_DRIVER", "awslogs")], LogLevel::None),
        (&[("ECS_LOG_DRIVER", "awslogs"), ("ECS_LOGLEVEL_ON_INSTANCE", "CRIT")], LogLevel::Critical),
    ] {
        assert_eq!(config(vars).log_file_level(), level, "{vars:?}");
    }
}

#[test]
fn what_does_nothing_says_so_unless_it_is_off() {
    for (name, value, warnings) in [
        ("DOCKER_HOST", "unix:///var/run/docker.sock", 1),
        ("ECS_ENABLE_RUNTIME_STATS", "true", 1),
        ("ECS_ENABLE_RUNTIME_STATS", "false", 0),
        ("ECS_ENABLE_TASK_ENI", "true", 1),
        ("ECS_ENABLE_TASK_ENI", "false", 0),
        ("ECS_ENABLE_FIRELENS_ASYNC", "true", 0),
    ] {
        let loaded = env(&[(name, value)]).unwrap();
        assert_eq!(loaded.warnings.len(), warnings, "{name}={value}: {:?}", loaded.warnings);
    }
}

#[test]
fn no_variable_or_key_is_listed_twice() {
    let keys = variables().filter_map(|v| Some(v.key?.0));
    let no_effect = NO_EFFECT.iter().flat_map(|(name, key, _)| [*name, *key]);
    let of_files = table::KEYS_WITHOUT_EFFECT.iter().map(|(key, _)| *key);
    let names = variables().filter(|v| v.env).map(|v| v.name);
    let mut all: Vec<_> =
        names.chain(keys).chain(no_effect).chain(of_files).filter(|name| !name.is_empty()).collect();
    let count = all.len();
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), count);
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
