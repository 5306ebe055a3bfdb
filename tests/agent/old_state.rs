//! The newest agent goes on with the state of every released version (see `tests/stored_state.rs`), on a
//! host whose containers are gone.

use crate::scripted::{arn, prepared_host};
use crate::support::backend::{Backend, Channel};
use crate::support::host::{PATIENCE, on_own_network};
use ecsd::ports::Store;
use ecsd::store::{FILE_NAME, RedbStore};
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// What is told of the end of each task: exit code and the beginning of the reason, of the container or
/// of the task.
const ENDS: &[(&str, Option<i64>, &str)] = &[
    // Not begun yet, so done now.
    ("queued", Some(3), ""),
    ("looked-up", Some(3), ""),
    ("pulled", Some(3), ""),
    // Their containers are gone.
    ("created", None, "ContainerVanishedError: "),
    ("running", None, "ContainerVanishedError: "),
    ("running-untold", None, "ContainerVanishedError: "),
    ("half-ended", None, "ContainerVanishedError: "),
    ("stopping", None, "ContainerVanishedError: "),
    // Known before, and told now.
    ("stopped-untold", Some(137), "OutOfMemoryError: "),
    ("unable", None, "Task dependencies cannot be resolved"),
];

/// What the agent says of its tasks.
fn introspected() -> String {
    let mut text = String::new();
    if let Ok(mut stream) = TcpStream::connect("127.0.0.1:51678") {
        let _ = stream.write_all(b"GET /v1/tasks HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        let _ = stream.read_to_string(&mut text);
    }
    text
}

async fn goes_on(version: &Path) {
    let mut backend = Backend::start().await;
    let mut host = prepared_host().await;
    let data = host.dir.path().join("data");
    std::fs::create_dir_all(&data).unwrap();
    std::fs::copy(version.join(FILE_NAME), data.join(FILE_NAME)).unwrap();
    host.start_agent_at(backend.endpoint());
    // It is the instance that it was.
    let registered = backend.call_of("RegisterContainerInstance").await.body;
    assert_eq!(registered["containerInstanceArn"], crate::support::backend::INSTANCE);
    let _acs = backend.accept(Channel::Acs).await;
    let mut told: BTreeMap<String, Value> = BTreeMap::new();
    let begun = Instant::now();
    while told.len() < ENDS.len() {
        assert!(begun.elapsed() < PATIENCE, "told: {:?}\n{}", told.keys(), host.agent_log());
        let report = backend.call_of("SubmitTaskStateChange").await.body;
        if report["status"] == "STOPPED" {
            told.insert(report["task"].as_str().unwrap().to_owned(), report);
        }
    }
    for (name, code, why) in ENDS {
        let report = &told[&arn(name)];
        let containers = report["containers"].as_array().cloned().unwrap_or_default();
        let main = containers.iter().rev().find(|c| c["containerName"] == "main").unwrap_or(report);
        assert_eq!(main["exitCode"].as_i64(), *code, "{name}: {report:#}");
        let reason = main["reason"].as_str().or(report["reason"].as_str()).unwrap_or_default();
        assert!(reason.starts_with(why), "{name}: {report:#}");
    }
    host.until_nothing_is_left().await;
    host.until("every task is forgotten", |_| introspected().contains("\"Tasks\":[]")).await;
    host.stop_agent().await;
    let loaded = RedbStore::open(&data).unwrap().load().unwrap();
    assert!(loaded.tasks.is_empty() && loaded.quarantined == 0, "{:?}", loaded.tasks);
    assert_eq!(loaded.meta["task-manifest-seq-num"], "7");
}

#[test]
fn state_of_every_released_version_is_gone_on_with() {
    on_own_network(|| async {
        let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/store");
        let versions: Vec<PathBuf> = std::fs::read_dir(kept).unwrap().map(|e| e.unwrap().path()).collect();
        for version in versions.iter().filter(|path| path.is_dir()) {
            goes_on(version).await;
        }
    });
}
