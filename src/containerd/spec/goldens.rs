//! Goldens: what a table of task definitions makes of the default spec, hosts and resolvers, as
//! differences. `ECSD_BLESS=1 cargo test --lib goldens` writes them anew; read them against spec
//! task-engine 2 before committing.

use super::tests::container;
use super::*;
use crate::containerd::docker_config::merge;
use crate::containerd::user::{self, Accounts};
use crate::containerd::{devices, volumes};
use crate::model::{ContainerId, MountPoint, TaskArn, TaskSpec, VolumeSource, VolumeSpec};
use crate::ports::NetworkAttachment;
use links::LinkProtocol;
use mounts::BindMount;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

const HOSTS_RESOLVERS: &str =
    "nameserver 127.0.0.53\nnameserver 10.0.0.2\nsearch ec2.internal\noptions ndots:1\n";

fn host_of(on: &Value) -> HostFacts {
    let mut host = HostFacts::for_tests();
    for (key, value) in on.as_object().into_iter().flatten() {
        let number = |value: &Value| u32::try_from(value.as_u64().unwrap()).unwrap();
        match key.as_str() {
            "cgroups" => host.cgroups = facts::CgroupVersion::V1,
            "without" => {
                for name in value.as_array().unwrap() {
                    let bit = capabilities::ALL.iter().position(|known| name == known).unwrap();
                    host.bounding &= !(1 << bit);
                }
            }
            "nofile" => host.nofile_hard = value.as_u64().unwrap(),
            "blkio" => host.blkio_weight = value.as_bool().unwrap(),
            "swap" => host.swap_limit = value.as_bool().unwrap(),
            "seccomp" => host.seccomp = value.as_bool().unwrap(),
            "kernel" => host.kernel = (number(&value[0]), number(&value[1])),
            "arch" => host.arch = "arm64",
            "apparmor" if value == "default" => host.apparmor = facts::AppArmor::WithDefault,
            "apparmor" => host.apparmor = facts::AppArmor::WithoutDefault,
            "selinux" => {
                host.selinux = Some(facts::SelinuxContexts {
                    process: "system_u:system_r:container_t:s0".into(),
                    file: "system_u:object_r:container_file_t:s0".into(),
                });
            }
            "init" => host.init = Some(value.as_str().unwrap().into()),
            "throttle" => host.throttle_cpus = value.as_array().unwrap().iter().map(number).collect(),
            "network" => {}
            other => panic!("{other}: no fact of a host"),
        }
    }
    host
}

fn plan_of(case: &Value) -> CreatePlan {
    let document = |key: &str| case.get(key).cloned().unwrap_or_else(|| json!({}));
    let mut spec = container(document("config"), document("host"));
    for mount in case["mounts"].as_array().into_iter().flatten() {
        let text = |at: usize| mount[at].as_str().unwrap().to_owned();
        let read_only = mount[2].as_bool().unwrap();
        spec.mounts.push(MountPoint { volume: text(0), container_path: text(1), read_only });
    }
    for (name, value) in case["environment"].as_object().into_iter().flatten() {
        spec.environment.insert(name.clone(), value.as_str().unwrap().to_owned());
    }
    let arn = TaskArn::parse("arn:aws:ecs:us-west-2:1:task/c/0123abcd").unwrap();
    let task = TaskSpec {
        family: "f".into(),
        version: "1".into(),
        containers: vec![spec],
        volumes: vec![VolumeSpec { name: "data".into(), source: VolumeSource::Task }],
        launch_type: "EC2".into(),
        ..TaskSpec::empty(arn.clone())
    };
    let own = |ipv4| NetworkAttachment::Namespace { path: "/run/netns/n".into(), ipv4 };
    CreatePlan {
        spec: Arc::new(task),
        name: "main".into(),
        id: ContainerId::derive(&arn, "main"),
        network: match case["on"]["network"].as_str() {
            _ if case["config"]["NetworkDisabled"] == true => own(None),
            Some("host") => NetworkAttachment::Host,
            Some("none") => own(None),
            _ => own(Some([172, 17, 0, 9].into())),
        },
        cgroup: "/ecs/0123abcd/main".into(),
        directory: "/tasks/main".into(),
        agent_environment: BTreeMap::from([("META".into(), "uri".into())]),
        labels: BTreeMap::new(),
        keepsake: None,
    }
}

fn linked() -> LinkedContainer {
    LinkedContainer {
        alias: "db".into(),
        docker_name: "ecs-f-1-store-00".into(),
        hostname: "feedfeedfeed".into(),
        ipv4: [172, 17, 0, 2].into(),
        ports: [(LinkProtocol::Tcp, 5432)].into(),
        environment: vec!["PASSWORD=x".into(), "PATH=/bin".into()],
    }
}

/// Everything that is generated for a case, or the words of the error.
pub(super) fn outcome(case: &Value) -> Result<Value, String> {
    let (plan, host) = (plan_of(case), host_of(&case["on"]));
    let mut settings = merge(&plan.spec.containers[0]).map_err(|e| format!("{}: {}", e.name, e.message))?;
    let _ = settings.resolve_gateway(Some([172, 17, 0, 1].into()));
    let image: ImageConfiguration = serde_json::from_value(json!({
        "architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": []},
        "config": {"Env": ["PATH=/bin", "OF_IMAGE=1"], "Entrypoint": ["/entry"], "Cmd": ["default"],
                   "WorkingDir": "/w", "Volumes": {"/declared": {}}}
    }))
    .unwrap();
    let shared = case["shared"].as_array().into_iter().flatten().map(|mount| BindMount {
        source: mount[0].as_str().unwrap().into(),
        target: mount[1].as_str().unwrap().into(),
        read_only: mount[2].as_bool().unwrap(),
        ..BindMount::default()
    });
    let volumes = volumes::resolve(&plan, &plan.spec.containers[0], &settings, &image, shared.collect());
    let volumes = volumes::ready_in_tests(volumes.map_err(|e| format!("{}: {}", e.name, e.message))?);
    let accounts = Accounts {
        passwd: "root:x:0:0::/:/bin/sh\nweb:x:33:34::/:/x\n".into(),
        group: "root:x:0:root\nwww:x:34:\naudio:x:63:web\n".into(),
    };
    let asked = settings.user.clone().unwrap_or_default();
    let user = user::resolve(&asked, &settings.groups, &accounts).map_err(|e| e.to_string())?;
    let devices = devices::requested(&settings.devices).map_err(|e| e.to_string())?;
    let binds: Vec<BindMount> = volumes.iter().map(|volume| volume.bind.clone()).collect();
    let links: Vec<LinkedContainer> = case["links"].as_bool().into_iter().map(|_| linked()).collect();
    let hostname = settings.hostname.clone().unwrap_or_else(|| plan.id.short().to_owned());
    let input = SpecInput {
        plan: &plan,
        settings: &settings,
        image: &image,
        user: &user,
        binds: &binds,
        devices: &devices,
        links: &links,
        host: &host,
        hostname: &hostname,
    };
    let spec = build(&input).map_err(|e| e.to_string())?;
    let (hosts, own) = match &plan.network {
        NetworkAttachment::Host => (files::hosts_of_host("127.0.0.1 localhost\n", &settings), false),
        NetworkAttachment::Empty => return Err("no container of a task definition has it".to_owned()),
        NetworkAttachment::Namespace { ipv4, .. } => {
            (files::hosts(&hostname, *ipv4, &settings, &links), true)
        }
    };
    let lines = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
    let mut warnings = settings.warnings.clone();
    warnings.extend(shortfalls::shortfalls(&settings, &host).into_iter().map(str::to_owned));
    Ok(json!({
        "spec": readable(serde_json::to_value(&spec).unwrap()),
        "copied up": volumes.iter().filter(|v| v.copy_up).map(|v| v.bind.target.clone()).collect::<Vec<_>>(),
        "hosts": lines(&hosts),
        "resolv.conf": lines(&files::resolv_conf(HOSTS_RESOLVERS, own, &settings)),
        "warnings": warnings,
    }))
}

/// The spec with one set of capabilities, and the filter as sentences.
fn readable(mut spec: Value) -> Value {
    let sets = spec["process"]["capabilities"].take();
    let sorted = |set: &Value| {
        let mut names: Vec<String> =
            set.as_array().unwrap().iter().map(|n| n.as_str().unwrap().to_owned()).collect();
        names.sort();
        names
    };
    assert_eq!(sorted(&sets["bounding"]), sorted(&sets["effective"]));
    assert_eq!(sorted(&sets["bounding"]), sorted(&sets["permitted"]));
    assert_eq!((&sets["inheritable"], &sets["ambient"]), (&json!([]), &json!([])));
    spec["process"]["capabilities"] = json!(sorted(&sets["bounding"]));
    let filter = spec["linux"]["seccomp"].take();
    if !filter.is_null() {
        spec["linux"]["seccomp"] = json!(sentences(&filter));
    }
    spec
}

fn sentences(filter: &Value) -> Vec<String> {
    let mut all = vec![format!("else {} {}", filter["defaultAction"], filter["defaultErrnoRet"])];
    all.extend(filter["architectures"].as_array().into_iter().flatten().map(ToString::to_string));
    for call in filter["syscalls"].as_array().into_iter().flatten() {
        for name in call["names"].as_array().unwrap() {
            let mut words = vec![name.as_str().unwrap().to_owned()];
            if call["action"] != "SCMP_ACT_ALLOW" {
                words.push(format!("{} {}", call["action"], call["errnoRet"]));
            }
            words.extend(call["args"].as_array().into_iter().flatten().map(ToString::to_string));
            all.push(words.join(" "));
        }
    }
    // A call that two rules allow is allowed once.
    all.sort();
    all.dedup();
    all
}

/// What is otherwise in `is` than in `was`, by the path of the member. Lists are told by what came
/// and went, or whole where only their order is another.
fn differences(path: &str, was: &Value, is: &Value, into: &mut Map<String, Value>) {
    match (was, is) {
        _ if was == is => {}
        (Value::Object(old), Value::Object(new)) => {
            let keys: std::collections::BTreeSet<&String> = old.keys().chain(new.keys()).collect();
            for key in keys {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                let of = |map: &Map<String, Value>| map.get(key).cloned().unwrap_or(Value::Null);
                differences(&path, &of(old), &of(new), into);
            }
        }
        (Value::Array(old), Value::Array(new)) if !path.ends_with("args") => {
            let without = |all: &[Value], these: &[Value]| {
                let mut rest = all.to_vec();
                for item in these {
                    if let Some(at) = rest.iter().position(|have| have == item) {
                        rest.remove(at);
                    }
                }
                rest
            };
            let (came, went) = (without(new, old), without(old, new));
            let mut change = Map::new();
            for (sign, items) in [("+", came), ("-", went)] {
                if !items.is_empty() {
                    change.insert(sign.to_owned(), Value::Array(items));
                }
            }
            let reordered = change.is_empty();
            into.insert(path.to_owned(), if reordered { is.clone() } else { Value::Object(change) });
        }
        _ => {
            into.insert(path.to_owned(), is.clone());
        }
    }
}

/// One line for each difference.
fn page(all: &Map<String, Value>) -> String {
    let one = |(name, change): (&String, &Value)| {
        let lines: Vec<String> = match change {
            Value::Object(members) => members.iter().map(|(k, v)| format!("  {}: {v}", json!(k))).collect(),
            other => return format!(" {}: {other}", json!(name)),
        };
        match lines.is_empty() {
            true => format!(" {}: {{}}", json!(name)),
            false => format!(" {}: {{\n{}\n }}", json!(name), lines.join(",\n")),
        }
    };
    format!("{{\n{}\n}}\n", all.iter().map(one).collect::<Vec<_>>().join(",\n"))
}

#[test]
fn every_task_definition_of_the_table_makes_its_spec() {
    let cases: Map<String, Value> =
        serde_json::from_str(include_str!("../../../tests/fixtures/specs/cases.json")).unwrap();
    assert!(cases.len() >= 40);
    let default = outcome(&json!({})).unwrap();
    let mut now = Map::new();
    for (name, case) in &cases {
        let change = match outcome(case) {
            Err(words) => json!({ "error": words }),
            Ok(outcome) => {
                let mut members = Map::new();
                differences("", &default, &outcome, &mut members);
                Value::Object(members)
            }
        };
        now.insert(name.clone(), change);
    }
    let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/specs/differences.json");
    let now = page(&now);
    if std::env::var_os("ECSD_BLESS").is_some() {
        std::fs::write(&file, &now).unwrap();
    }
    let golden = std::fs::read_to_string(&file).unwrap();
    let other: Vec<&str> = now.lines().filter(|line| !golden.lines().any(|known| known == *line)).collect();
    assert!(now == golden, "specs have changed (ECSD_BLESS=1 takes them over):\n{}", other.join("\n"));
}
