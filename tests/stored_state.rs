//! State that released versions wrote: each is kept in `tests/fixtures/store/v<version>`, with a task in
//! every state, and the newest code must read it for ever. `tests/agent/old_state.rs` has the agent go on
//! with it.
//!
//! A release adds its own: `ECSD_BLESS=1 cargo test --test stored_state` writes what the version of
//! Cargo.toml has none of yet (docs/testing.md). What is there is never written again.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use ecsd::control::acs::wire;
use ecsd::control::payload::{PayloadDecoder, to_stored};
use ecsd::model::{
    Attachment, ContainerAddress, ContainerProgress, ContainerStatus, DesiredStatus, EndpointId, ExitRecord,
    ImageDigest, MacAddress, NetworkBinding, Protocol, StopReason, TaskArn, TaskProgress, TaskStatus, Wall,
};
use ecsd::ports::{Loaded, Store, StoreChange, TaskDecoder};
use ecsd::store::{FILE_NAME, RedbStore};
use serde_json::{Value, json};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

const INSTANCE: &str =
    "arn:aws:ecs:us-west-2:123456789012:container-instance/peer/832a97cd549343aa8d080a50db6dde63";

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/store")
}

fn arn(name: &str) -> String {
    format!("arn:aws:ecs:us-west-2:123456789012:task/peer/{name}")
}

/// What the control plane sent of a task, as the agent stores it. `side` is not essential.
fn source(name: &str, containers: &[&str]) -> String {
    let container = |container: &&str| {
        json!({"name": container, "image": "ecsd.test/busybox:1", "essential": *container == "main", "cpu": 2,
            "memory": 32, "command": ["sh", "-c", "exit 3"], "containerArn": format!("{}/{container}", arn(name)),
            "portMappings": [{"containerPort": 80, "hostPort": 0, "protocol": "tcp"}],
            "dockerConfig": {"config": "{}", "hostConfig": "{\"NetworkMode\":\"bridge\"}", "version": "1.18"}})
    };
    let task = json!({"arn": arn(name), "desiredStatus": "RUNNING", "family": "kept", "version": "1",
        "taskDefinitionAccountId": "123456789012",
        "roleCredentials": {"credentialsId": format!("id-of-{name}"), "roleArn": "arn:aws:iam::1:role/r",
            "accessKeyId": "AKIDTEST", "secretAccessKey": "secret", "sessionToken": "token",
            "expiration": "2099-01-01T00:00:00Z"},
        "containers": containers.iter().map(container).collect::<Vec<_>>()});
    let task: wire::Task = serde_json::from_value(task).unwrap();
    let endpoint = |name: &&str| ((*name).to_owned(), EndpointId::new(format!("endpoint-of-{name}")));
    to_stored(&task, &containers.iter().map(endpoint).collect::<Vec<_>>())
}

/// Seconds after some day in 2023.
fn at(seconds: u64) -> Option<Wall> {
    Some(Wall((1_700_000_000 + seconds) * 1_000_000_000))
}

fn digest() -> Option<ImageDigest> {
    ImageDigest::parse(&format!("sha256:{}", "ab".repeat(32)))
}

/// A container as far as `known`, with all that is recorded on the way.
fn container(known: ContainerStatus, sent: ContainerStatus) -> ContainerProgress {
    let made = known >= ContainerStatus::Created;
    let binding = NetworkBinding {
        bind_ip: Ipv4Addr::UNSPECIFIED,
        container_port: 80,
        host_port: 49201,
        count: 1,
        is_range: false,
        protocol: Protocol::Tcp,
    };
    ContainerProgress {
        known,
        sent,
        image_id: digest().filter(|_| known >= ContainerStatus::Pulled),
        created_at: at(3).filter(|_| made),
        started_at: at(4).filter(|_| known >= ContainerStatus::Running),
        address: match made {
            true => ContainerAddress { ipv4: Some(Ipv4Addr::new(172, 17, 0, 3)), bindings: vec![binding] },
            false => ContainerAddress::default(),
        },
        ..ContainerProgress::default()
    }
}

fn ended(sent: ContainerStatus, code: Option<i32>, error: Option<StopReason>) -> ContainerProgress {
    let exit = code.map(|code| ExitRecord { code: Some(code), at: Wall(1_700_000_009_000_000_000) });
    ContainerProgress { exit, error, ..container(ContainerStatus::Stopped, sent) }
}

fn task(
    known: TaskStatus,
    sent: TaskStatus,
    containers: impl IntoIterator<Item = (&'static str, ContainerProgress)>,
) -> TaskProgress {
    let pulls = known >= TaskStatus::ManifestPulled;
    TaskProgress {
        known,
        sent,
        admitted: true,
        pull_started_at: at(1).filter(|_| pulls),
        pull_stopped_at: at(2).filter(|_| pulls),
        execution_stopped_at: at(9).filter(|_| known == TaskStatus::Stopped),
        stopped_at: at(10).filter(|_| known == TaskStatus::Stopped),
        containers: containers.into_iter().map(|(name, c)| (name.to_owned(), c)).collect(),
        ..TaskProgress::default()
    }
}

/// A task in every state that there is between two turns of the engine's loop.
fn every_state() -> Vec<(&'static str, TaskProgress)> {
    use ContainerStatus as C;
    use TaskStatus as T;
    let oom = StopReason::new("OutOfMemoryError", "Container killed due to memory usage");
    let queued =
        TaskProgress { admitted: false, ..task(T::None, T::None, [("main", ContainerProgress::default())]) };
    let looked_up = task(T::ManifestPulled, T::None, [("main", container(C::ManifestPulled, C::None))]);
    let running = || [("main", container(C::Running, C::Running))];
    let unable = TaskProgress {
        admitted: false,
        desired: DesiredStatus::Stopped,
        reason: "Task dependencies cannot be resolved".into(),
        ..task(T::Stopped, T::None, [("main", ended(C::Stopped, None, None))])
    };
    let stopped = |sent| TaskProgress {
        desired: DesiredStatus::Stopped,
        ..task(T::Stopped, sent, [("main", ended(C::Running, Some(137), Some(oom.clone())))])
    };
    let told = TaskProgress {
        desired: DesiredStatus::Stopped,
        ..task(T::Stopped, T::Stopped, [("main", ended(C::Stopped, Some(0), None))])
    };
    vec![
        ("queued", queued),
        ("looked-up", looked_up),
        ("pulled", task(T::ManifestPulled, T::ManifestPulled, [("main", container(C::Pulled, C::None))])),
        ("created", task(T::Created, T::ManifestPulled, [("main", container(C::Created, C::None))])),
        ("running", task(T::Running, T::Running, running())),
        ("running-untold", task(T::Running, T::Created, [("main", container(C::Running, C::None))])),
        (
            "half-ended",
            task(
                T::Running,
                T::Running,
                [("main", container(C::Running, C::Running)), ("side", ended(C::Running, Some(0), None))],
            ),
        ),
        (
            "stopping",
            TaskProgress { desired: DesiredStatus::Stopped, ..task(T::Running, T::Running, running()) },
        ),
        ("stopped-untold", stopped(T::Running)),
        ("stopped-told", told),
        ("unable", unable),
    ]
}

fn changes() -> Vec<StoreChange> {
    let mut changes = Vec::new();
    for (name, progress) in every_state() {
        let id = TaskArn::parse(&arn(name)).unwrap().id();
        let containers: Vec<&str> = progress.containers.keys().map(String::as_str).collect();
        changes.push(StoreChange::PutTask { id: id.clone(), source: source(name, &containers).into() });
        changes.push(StoreChange::PutProgress { id, progress });
    }
    for (key, value) in [
        ("container-instance-arn", INSTANCE),
        ("cluster-name", "peer"),
        ("availability-zone", "us-west-2a"),
        ("ec2-instance-id", "i-0123456789abcdef0"),
        ("task-manifest-seq-num", "7"),
    ] {
        changes.push(StoreChange::PutMeta(key, value.to_owned()));
    }
    let attachment = |n: u8, task: Option<&str>, sent| Attachment {
        arn: format!("arn:aws:ecs:us-west-2:123456789012:attachment/{n}"),
        mac: MacAddress([0x0a, 0, 0, 0, 0, n]),
        task: task.map(|name| TaskArn::parse(&arn(name)).unwrap()),
        expires_at: Wall(1_700_000_300_000_000_000),
        sent,
    };
    changes.push(StoreChange::PutAttachment(attachment(1, Some("running"), true)));
    changes.push(StoreChange::PutAttachment(attachment(2, None, false)));
    changes
}

/// What was read, in words that stay: a later version may add members, and takes none away.
fn describe(loaded: &Loaded) -> Value {
    let tasks = loaded.tasks.iter().map(|(id, source, progress)| {
        let spec = PayloadDecoder.decode(source).unwrap_or_else(|error| panic!("{id}: {error}"));
        let progress = progress.as_ref().unwrap_or_else(|| panic!("{id} has lost its progress"));
        let containers = spec.containers.iter().map(|c| {
            let known = &progress.containers[&c.name];
            let nanos = |at: Option<Wall>| at.map(|at| at.0);
            let bindings = known.address.bindings.iter().map(|b| {
                format!(
                    "{}:{}->{}+{} {}",
                    b.bind_ip,
                    b.host_port,
                    b.container_port,
                    b.count,
                    b.protocol.word()
                )
            });
            let value = json!({
                "image": c.image, "essential": c.essential, "endpoint": c.endpoint.to_string(),
                "known": known.known.word(), "sent": known.sent.word(),
                "image_id": known.image_id.as_ref().map(|d| d.as_str()),
                "created_at": nanos(known.created_at), "started_at": nanos(known.started_at),
                "exit": known.exit.as_ref().map(|exit| json!([exit.code, exit.at.0])),
                "error": known.error.as_ref().map(ToString::to_string),
                "ipv4": known.address.ipv4, "bindings": bindings.collect::<Vec<_>>(),
            });
            (c.name.clone(), value)
        });
        let value = json!({
            "arn": spec.arn.as_str(), "family": spec.family, "role": spec.task_role.as_ref().map(|r| &r.0),
            "desired": progress.desired.word(), "known": progress.known.word(), "sent": progress.sent.word(),
            "reason": progress.reason, "admitted": progress.admitted,
            "stopped_at": progress.stopped_at.map(|at| at.0),
            "containers": containers.collect::<serde_json::Map<_, _>>(),
        });
        (id.to_string(), value)
    });
    let attachments = loaded.attachments.iter().map(|a| {
        json!({"arn": a.arn, "mac": a.mac.to_string(), "sent": a.sent, "expires_at": a.expires_at.0,
            "task": a.task.as_ref().map(TaskArn::as_str)})
    });
    json!({"tasks": tasks.collect::<serde_json::Map<_, _>>(), "meta": loaded.meta,
        "attachments": attachments.collect::<Vec<_>>()})
}

/// Every member of `old` is in `new` and equal.
fn holds(new: &Value, old: &Value, place: &str) {
    match old {
        Value::Object(members) => {
            members.iter().for_each(|(key, old)| holds(&new[key], old, &format!("{place}/{key}")));
        }
        _ => assert_eq!(new, old, "{place}"),
    }
}

/// A copy of a kept state, to be written to.
fn copy_of(version: &Path) -> PathBuf {
    let name = version.file_name().unwrap().to_str().unwrap();
    let directory = std::env::temp_dir().join(format!("ecsd-kept-{name}-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&directory);
    std::fs::create_dir_all(&directory).unwrap();
    std::fs::copy(version.join(FILE_NAME), directory.join(FILE_NAME)).unwrap();
    directory
}

#[test]
fn state_of_every_released_version_reads_and_is_written_on() {
    let versions: Vec<PathBuf> = std::fs::read_dir(fixtures())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_dir())
        .collect();
    assert!(!versions.is_empty());
    for version in versions {
        let directory = copy_of(&version);
        let store = RedbStore::open(&directory).unwrap();
        let loaded = store.load().unwrap();
        assert_eq!(loaded.quarantined, 0, "{}", version.display());
        let expected = std::fs::read_to_string(version.join("expected.json")).unwrap();
        let expected: Value = serde_json::from_str(&expected).unwrap();
        holds(&describe(&loaded), &expected, &version.display().to_string());
        // Written by the newest, read again: nothing is lost on the way.
        let again = loaded.tasks.iter().map(|(id, _, progress)| StoreChange::PutProgress {
            id: id.clone(),
            progress: progress.clone().unwrap(),
        });
        store.commit(&again.collect::<Vec<_>>()).unwrap();
        holds(&describe(&store.load().unwrap()), &expected, "written on");
        drop(store);
        std::fs::remove_dir_all(directory).unwrap();
    }
}

#[test]
fn this_versions_state_is_kept() {
    let directory = fixtures().join(concat!("v", env!("CARGO_PKG_VERSION")));
    if !directory.exists() {
        assert!(
            std::env::var_os("ECSD_BLESS").is_some(),
            "{} is missing: ECSD_BLESS=1 cargo test --test stored_state writes it",
            directory.display()
        );
        let store = RedbStore::open(&directory).unwrap();
        store.commit(&changes()).unwrap();
        let expected = serde_json::to_string_pretty(&describe(&store.load().unwrap())).unwrap();
        std::fs::write(directory.join("expected.json"), expected + "\n").unwrap();
    }
    assert!(directory.join(FILE_NAME).is_file() && directory.join("expected.json").is_file());
    let secrets = ["AKIDTEST", "\"secret\"", "\"token\""];
    let kept = std::fs::read(directory.join(FILE_NAME)).unwrap();
    let kept = String::from_utf8_lossy(&kept);
    assert!(secrets.iter().all(|secret| !kept.contains(secret)), "a credential is in the state");
}
