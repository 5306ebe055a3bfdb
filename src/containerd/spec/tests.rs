//! Goldens: whole specs for task definitions, compared as JSON.

use super::*;
use crate::containerd::docker_config::merge;
use crate::containerd::docker_config::tests::document;
use crate::model::{ContainerId, ContainerSpec, DockerConfig, TaskArn, TaskSpec};
use crate::ports::NetworkAttachment;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

pub(super) fn container(config: Value, host: Value) -> ContainerSpec {
    ContainerSpec {
        image: "busybox".into(),
        environment: BTreeMap::from([
            ("MINE".to_owned(), "1".to_owned()),
            ("BOTH".to_owned(), "task".to_owned()),
        ]),
        cpu_shares: 256,
        memory_mib: 128,
        docker: DockerConfig { config: document(config), host_config: document(host) },
        ..ContainerSpec::empty("main")
    }
}

/// The spec as the runtime reads it, on a host like `host`; `adjust` changes the plan.
fn built(
    container: ContainerSpec,
    host: &HostFacts,
    adjust: impl FnOnce(&mut CreatePlan),
) -> Result<Value, SpecError> {
    built_of(&["PATH=/bin", "BOTH=image"], container, host, adjust)
}

/// The same, of an image with this environment.
fn built_of(
    environment: &[&str],
    container: ContainerSpec,
    host: &HostFacts,
    adjust: impl FnOnce(&mut CreatePlan),
) -> Result<Value, SpecError> {
    let arn = TaskArn::parse("arn:aws:ecs:us-west-2:1:task/c/0123abcd").unwrap();
    let spec = TaskSpec {
        family: "f".into(),
        version: "1".into(),
        containers: vec![container],
        launch_type: "EC2".into(),
        ..TaskSpec::empty(arn.clone())
    };
    let mut plan = CreatePlan {
        spec: Arc::new(spec),
        name: "main".into(),
        id: ContainerId::derive(&arn, "main"),
        network: NetworkAttachment::Namespace { path: "/run/netns/n".into(), ipv4: None },
        cgroup: "/ecs/0123abcd/main".into(),
        directory: "/var/lib/ecs/c".into(),
        agent_environment: BTreeMap::from([("BOTH".into(), "agent".into()), ("META".into(), "uri".into())]),
        labels: BTreeMap::new(),
        keepsake: None,
    };
    adjust(&mut plan);
    let settings = merge(&plan.spec.containers[0]).unwrap();
    let image: ImageConfiguration = serde_json::from_value(json!({
        "architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": []},
        "config": {"Env": environment, "Entrypoint": ["/entry"], "Cmd": ["default"], "WorkingDir": "/w//x/"}
    }))
    .unwrap();
    let user = ResolvedUser { uid: 5, gid: 6, groups: vec![7] };
    let input = SpecInput {
        plan: &plan,
        settings: &settings,
        image: &image,
        user: &user,
        binds: &[
            BindMount {
                source: "/srv/a/b".into(),
                target: "/m/n".into(),
                read_only: true,
                ..BindMount::default()
            },
            BindMount {
                source: "/srv/a".into(),
                target: "/m".into(),
                propagation: Some("rslave".into()),
                ..BindMount::default()
            },
        ],
        devices: &[],
        links: &[],
        host,
        hostname: "hostname",
    };
    build(&input).map(|spec| serde_json::to_value(&spec).unwrap())
}

/// Sets of the document are in no order: sorted, they compare.
fn sorted(mut value: Value) -> Value {
    if let Some(items) = value.as_array_mut() {
        items.sort_by_key(ToString::to_string);
    }
    value
}

#[test]
fn a_plain_container_is_what_docker_makes_of_it() {
    let host = HostFacts::for_tests();
    let mut spec = built(container(json!({}), json!({"NetworkMode": "bridge"})), &host, |_| {}).unwrap();
    let capabilities = spec["process"].as_object_mut().unwrap().remove("capabilities").unwrap();
    let names = sorted(json!(capabilities::DEFAULT.map(|name| format!("CAP_{name}"))));
    for set in ["bounding", "effective", "permitted"] {
        assert_eq!(sorted(capabilities[set].clone()), names, "{set}");
    }
    assert_eq!((&capabilities["ambient"], &capabilities["inheritable"]), (&json!([]), &json!([])));
    assert!(spec["linux"].as_object_mut().unwrap().remove("seccomp").is_some());
    let golden: Value =
        serde_json::from_str(include_str!("../../../tests/fixtures/specs/plain.json")).unwrap();
    if spec != golden {
        panic!("the spec is now:\n{}", serde_json::to_string_pretty(&spec).unwrap());
    }
}

#[test]
fn privileged_hides_nothing() {
    let host = HostFacts { cgroups: facts::CgroupVersion::V1, ..HostFacts::for_tests() };
    let spec = built(container(json!({}), json!({"Privileged": true})), &host, |_| {}).unwrap();
    assert!(spec["linux"].get("seccomp").is_none());
    assert_eq!((&spec["linux"]["maskedPaths"], &spec["linux"]["readonlyPaths"]), (&json!([]), &json!([])));
    assert_eq!(spec["process"]["capabilities"]["bounding"].as_array().unwrap().len(), 41);
    assert_eq!(spec["linux"]["resources"]["devices"], json!([{"allow": true, "access": "rwm"}]));
    let sys = spec["mounts"].as_array().unwrap().iter().find(|m| m["destination"] == "/sys").unwrap();
    assert!(!sys["options"].as_array().unwrap().contains(&json!("ro")));
    let kinds: Vec<&Value> =
        spec["linux"]["namespaces"].as_array().unwrap().iter().map(|n| &n["type"]).collect();
    assert_eq!(kinds, ["mount", "uts", "pid", "ipc", "network"], "no cgroup namespace on v1");
}

#[test]
fn the_host_network_has_no_namespace_and_no_sysctls() {
    let host = HostFacts::for_tests();
    let on_host = |plan: &mut CreatePlan| plan.network = NetworkAttachment::Host;
    let spec = built(container(json!({}), json!({})), &host, on_host).unwrap();
    assert_eq!(spec["linux"]["sysctl"], json!({}));
    let kinds: Vec<&Value> =
        spec["linux"]["namespaces"].as_array().unwrap().iter().map(|n| &n["type"]).collect();
    assert!(!kinds.contains(&&json!("network")));
    let sysctl = json!({"Sysctls": {"net.core.somaxconn": "9"}});
    let error = built(container(json!({}), sysctl), &host, on_host).unwrap_err();
    assert!(matches!(error, SpecError::HostSysctl(_)));
}

#[test]
fn commands_follow_dockers_merge() {
    let host = HostFacts::for_tests();
    let words = |list: &[&str]| list.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>();
    for (entry, command, want) in [
        (vec![], vec![], vec!["/entry", "default"]),
        (vec![], vec!["mine"], vec!["/entry", "mine"]),
        (vec!["/e"], vec![], vec!["/e"]),
        (vec!["/e"], vec!["c"], vec!["/e", "c"]),
    ] {
        let spec = ContainerSpec {
            entry_point: words(&entry),
            command: words(&command),
            ..container(json!({}), json!({}))
        };
        assert_eq!(built(spec, &host, |_| {}).unwrap()["process"]["args"], json!(want));
    }
    let relative = container(json!({"WorkingDir": "x"}), json!({}));
    assert!(matches!(built(relative, &host, |_| {}), Err(SpecError::WorkingDirectory(_))));
}

#[test]
fn a_region_of_the_image_keeps_both_of_the_agents_out() {
    let host = HostFacts::for_tests();
    let regions = |plan: &mut CreatePlan| {
        for name in ["AWS_REGION", "AWS_DEFAULT_REGION"] {
            plan.agent_environment.insert(name.into(), "us-west-2".into());
        }
    };
    let of = |environment: &[&str]| {
        let spec = built_of(environment, container(json!({}), json!({})), &host, regions).unwrap();
        let lines: Vec<String> = serde_json::from_value(spec["process"]["env"].clone()).unwrap();
        lines.into_iter().filter(|line| line.contains("REGION")).collect::<Vec<_>>()
    };
    assert_eq!(of(&[]), ["AWS_DEFAULT_REGION=us-west-2", "AWS_REGION=us-west-2"]);
    assert_eq!(of(&["AWS_DEFAULT_REGION=eu-west-1"]), ["AWS_DEFAULT_REGION=eu-west-1"]);
}

#[test]
fn limits_stay_below_what_the_host_can_give() {
    let host = HostFacts {
        bounding: ((1 << 41) - 1) & !(1 << 24),
        nofile_hard: 20_000,
        swap_limit: false,
        ..HostFacts::for_tests()
    };
    let asked = json!({"Ulimits": [{"Name": "nproc", "Soft": -1, "Hard": -1}], "MemorySwappiness": 10});
    let spec = built(container(json!({}), asked), &host, |_| {}).unwrap();
    assert_eq!(
        spec["process"]["rlimits"],
        json!([
            {"type": "RLIMIT_NPROC", "soft": u64::MAX, "hard": u64::MAX},
            {"type": "RLIMIT_NOFILE", "soft": 20000, "hard": 20000}
        ])
    );
    // No swap to limit, and no swappiness on cgroup v2.
    assert_eq!(spec["linux"]["resources"]["memory"], json!({"limit": 134217728}));
}

#[test]
fn mounts_of_the_user_take_the_place_of_defaults() {
    let host = HostFacts::for_tests();
    let spec =
        built(container(json!({}), json!({"Tmpfs": {"/dev": "mode=755", "/sys/": ""}})), &host, |_| {})
            .unwrap();
    let targets: Vec<&str> =
        spec["mounts"].as_array().unwrap().iter().map(|m| m["destination"].as_str().unwrap()).collect();
    assert_eq!(
        targets,
        [
            "/proc",
            "/sys/fs/cgroup",
            "/m",
            "/dev",
            "/sys",
            "/m/n",
            "/etc/resolv.conf",
            "/etc/hostname",
            "/etc/hosts",
            "/dev/shm"
        ]
    );
    let twice = container(json!({}), json!({"Tmpfs": {"/m": ""}}));
    let error = built(twice, &host, |_| {}).unwrap_err();
    assert_eq!(error.to_string(), "Duplicate mount point: /m");
}
