use super::*;
use crate::model::logging::JsonFileOptions;
use crate::model::{DockerConfig, LogDriver};
use serde_json::json;

/// A container with nothing but a name.
fn bare() -> ContainerSpec {
    ContainerSpec {
        image: "busybox".into(),
        environment: BTreeMap::from([("A".to_owned(), "1".to_owned())]),
        ..ContainerSpec::empty("main")
    }
}

/// A Docker API object as the model keeps it.
pub(in crate::containerd) fn document(value: Value) -> BTreeMap<String, Value> {
    let fields = value.as_object().unwrap().clone();
    fields.into_iter().map(|(key, value)| (key.to_ascii_lowercase(), value)).collect()
}

fn with(config: Value, host: Value) -> Result<ContainerSettings, StopReason> {
    let docker = DockerConfig { config: document(config), host_config: document(host) };
    merge(&ContainerSpec { docker, ..bare() })
}

#[test]
fn the_usual_payload_changes_nothing() {
    let plain = merge(&bare()).unwrap();
    let usual = with(json!({}), json!({"NetworkMode": "bridge", "CapAdd": [], "CapDrop": []})).unwrap();
    assert_eq!(plain, usual);
    assert_eq!((plain.resources.cpu_shares, plain.shm_bytes), (Some(2), 67_108_864));
    assert_eq!((plain.resources.memory_bytes, plain.binds, plain.log), (None, None, None));
}

#[test]
fn scalars_win_arrays_replace_maps_merge_null_resets() {
    let container = ContainerSpec { memory_mib: 64, cpu_shares: 1024, ..bare() };
    let docker = DockerConfig {
        config: document(json!({"Env": ["B=2", "EMPTY"], "Labels": {"x": "y"}, "User": null})),
        host_config: document(json!({"Memory": 134217728u64, "CpuShares": 512, "Binds": null, "Dns": null})),
    };
    let merged = merge(&ContainerSpec { docker, ..container }).unwrap();
    assert_eq!(merged.resources.memory_bytes, Some(128 << 20));
    assert_eq!(merged.resources.cpu_shares, Some(512));
    assert_eq!(merged.environment, BTreeMap::from([("B".into(), "2".into())]));
    assert_eq!(merged.unset_environment, ["EMPTY"]);
    assert_eq!(merged.labels, BTreeMap::from([("x".into(), "y".into())]));
    assert_eq!(merged.binds, Some(Vec::new()));
    assert_eq!(merged.user, None);
}

#[test]
fn a_health_check_that_is_tracked_must_be_there() {
    let with = |config| {
        let docker = DockerConfig { config: document(config), ..DockerConfig::default() };
        merge(&ContainerSpec { docker, health_checked: true, ..bare() })
    };
    let merged =
        with(json!({"HealthCheck": {"Test": ["CMD", "true"]}, "Shell": ["/bin/ash", "-c"]})).unwrap();
    assert_eq!(merged.health.unwrap().test, ["CMD", "true"]);
    assert_eq!((merged.shell.len(), merged.warnings.len()), (2, 0));
    for none in [json!({}), json!({"Healthcheck": null})] {
        let words =
            "DockerClientConfigError: docker health check is nil while container health check type is DOCKER";
        assert_eq!(with(none).unwrap_err().to_string(), words);
    }
    let wrong = with(json!({"Healthcheck": {"Test": "curl -u me:secret"}})).unwrap_err().to_string();
    assert!(wrong.contains("\"healthcheck\"") && !wrong.contains("secret"), "{wrong}");
}

#[test]
fn a_tiny_limit_is_raised_to_what_can_start() {
    let merged = merge(&ContainerSpec { memory_mib: 4, ..bare() }).unwrap();
    assert_eq!(merged.resources.memory_bytes, Some(LEAST_MEMORY_BYTES));
}

#[test]
fn a_container_without_a_limit_may_get_its_tasks() {
    let of = |memory_mib, task, unified| {
        let mut merged = merge(&ContainerSpec { memory_mib, ..bare() }).unwrap();
        merged.resources.within_task(task, unified);
        merged.resources.memory_bytes
    };
    assert_eq!(of(0, Some(64), true), Some(64 << 20));
    assert_eq!(of(32, Some(64), true), Some(32 << 20), "it has its own");
    assert_eq!((of(0, Some(64), false), of(0, None, true), of(0, Some(0), true)), (None, None, None));
}

#[test]
fn a_whole_host_config_is_understood() {
    let merged = with(
        json!({"Hostname": "h", "WorkingDir": "/w", "StopSignal": "SIGINT", "Cmd": "one", "Entrypoint": ["a", "b"]}),
        json!({
            "Binds": ["/a:/b:ro,rslave", "name:/c"], "Tmpfs": {"/t": "size=1m"}, "ShmSize": 1048576,
            "Ulimits": [{"Name": "nofile", "Soft": 10, "hard": 20}], "CapAdd": ["cap_net_admin"], "CapDrop": ["ALL"],
            "Dns": ["10.0.0.2"], "DnsSearch": ["a.b"], "DnsOptions": ["ndots:2"], "ExtraHosts": ["db:10.0.0.9"],
            "SecurityOpt": ["no-new-privileges"], "OomScoreAdj": 100, "MemorySwappiness": 0, "PidsLimit": 50,
            "LogConfig": {"Type": "json-file", "Config": {"max-size": "10m", "max-file": "3"}},
            "Devices": [{"PathOnHost": "/dev/null", "PathInContainer": "/dev/x"}], "Sysctls": {"net.core.somaxconn": "9"},
            "CpuPeriod": 100000, "CpuQuota": 50000, "ReadonlyRootfs": true, "Memory": 8388608, "MemorySwap": -1
        }),
    )
    .unwrap();
    assert_eq!(merged.command, Some(vec!["one".into()]));
    let binds = merged.binds.unwrap();
    assert!(binds[0].read_only && binds[0].propagation.as_deref() == Some("rslave"));
    assert_eq!((binds[1].source.as_str(), binds[1].target.as_str()), ("name", "/c"));
    assert_eq!(merged.ulimits, [Ulimit { name: "nofile".into(), soft: 10, hard: 20 }]);
    assert_eq!((merged.cap_add, merged.cap_drop), (vec!["NET_ADMIN"], vec!["ALL"]));
    assert_eq!(merged.extra_hosts, [("db".into(), "10.0.0.9".into())]);
    let files = JsonFileOptions { max_size: Some(10_000_000), max_files: 3, compress: false };
    assert_eq!(merged.log.unwrap().driver, LogDriver::JsonFile(files));
    assert_eq!(merged.devices[0].permissions, "rwm");
    assert_eq!((merged.resources.memory_swappiness, merged.resources.memory_swap_bytes), (Some(0), Some(-1)));
    assert!(merged.no_new_privileges && merged.read_only_rootfs && merged.warnings.is_empty());
}

#[test]
fn what_cannot_be_used_is_named() {
    for (host, words) in [
        (json!({"Memory": "lots"}), "\"memory\" = \"lots\": expected a whole number"),
        (json!({"Memory": 1024}), "\"memory\" = 1024: expected at least 6291456 bytes"),
        (json!({"Memory": 8388608, "MemorySwap": 7340032}), "\"memoryswap\" = 7340032"),
        (json!({"Memory": 1.5}), "\"memory\" = 1.5"),
        (json!({"CapAdd": ["NET_ADMINN"]}), "\"capadd\" = [\"NET_ADMINN\"]"),
        (json!({"Binds": ["/a:b"]}), "\"binds\" = [\"/a:b\"]: expected [source:]target"),
        (json!({"Mounts": [{"Type": "bind", "Source": "a", "Target": "/b"}]}), "absolute path as the source"),
        (json!({"Mounts": [{"Type": "npipe", "Target": "/b"}]}), "a type of bind, volume or tmpfs"),
        (json!({"Mounts": [{"Type": "tmpfs", "Source": "x", "Target": "/b"}]}), "no source for a tmpfs"),
        (json!({"Mounts": [{"Type": "volume", "ReadOnly": true, "Target": "/b"}]}), "a name for a volume"),
        (json!({"Mounts": [{"Type": "tmpfs", "Target": "/"}]}), "not the root"),
        (
            json!({"Mounts": [{"Type": "tmpfs", "Target": "/t"}], "Tmpfs": {"/t": ""}}),
            "nothing else is mounted at",
        ),
        (
            json!({"Mounts": [{"Type": "bind", "Source": "/a", "Target": "/b", "VolumeOptions": {"NoCopy": true}}]}),
            "its own type alone",
        ),
        (
            json!({"Mounts": [{"Type": "bind", "Source": "/a", "Target": "/b", "ReadOnly": 1}]}),
            "true or false",
        ),
        (json!({"VolumesFrom": ["a:nocopy"]}), "\"volumesfrom\""),
        (json!({"Binds": ["/a:/b\u{0}"]}), "\"binds\""),
        (json!({"Ulimits": [{"Name": "nofile", "Soft": 20, "Hard": 10}]}), "\"ulimits\""),
        (json!({"Ulimits": [{"Name": "bogus", "Soft": 1, "Hard": 1}]}), "\"ulimits\""),
        (json!({"Dns": ["x"]}), "\"dns\" = [\"x\"]: expected IP addresses"),
        (json!({"ExtraHosts": ["a b:10.0.0.1"]}), "\"extrahosts\""),
        (json!({"SecurityOpt": ["wild"]}), "\"securityopt\" = [\"wild\"]"),
        (json!({"LogConfig": "json-file"}), "an object"),
        (json!({"LogConfig": {"Type": "json-file", "Config": {"max-file": 3}}}), "values are strings"),
        (json!({"OomScoreAdj": 5000}), "-1000 to 1000"),
        (json!({"BlkioWeight": 5}), "a weight from 10 to 1000"),
        (json!({"Sysctls": {"a": 1}}), "\"sysctls\""),
    ] {
        let reason = with(json!({}), host.clone()).unwrap_err();
        assert_eq!(reason.name, "HostConfigError", "{host}");
        assert!(reason.message.contains(words), "{host}: {}", reason.message);
    }
    assert_eq!(with(json!({"Cmd": [1]}), json!({})).unwrap_err().name, "DockerClientConfigError");
}

#[test]
fn what_dockerd_would_refuse_of_a_log_driver_fails_the_creation() {
    for (log, words) in [
        (json!({"Type": "papyrus"}), "logger: no log driver named 'papyrus' is registered"),
        (json!({"Config": {"max-sise": "x"}}), "unknown log opt 'max-sise' for json-file log driver"),
        (json!({"Type": "json-file", "Config": {"max-size": "x"}}), "max-size"),
    ] {
        let reason = with(json!({}), json!({"LogConfig": log})).unwrap_err();
        assert_eq!(reason.name, "CannotCreateContainerError");
        assert!(reason.message.contains(words), "{}", reason.message);
    }
}

#[test]
fn what_is_not_done_is_said() {
    let merged =
        with(json!({"MacAddress": "x"}), json!({"Init": true, "BlkioWeight": 500, "UsernsMode": ""}))
            .unwrap();
    assert_eq!(merged.warnings.len(), 1, "{:?}", merged.warnings);
}
