//! What the whole agent tells the control plane of tasks, against recordings of the original.
//!
//! Each scenario replays a recording: the recorded payloads, byte for byte (but see `give_time`), go to the real agent on a
//! private containerd, with the same image under the same name in a registry at the same address, and
//! every recorded `SubmitTaskStateChange` and `AckRequest` must come in the recorded order, with the
//! recorded members. A payload goes out when everything recorded before it has come, and then nothing
//! else may have come.
//!
//! Compared is the shape: times become `time`, digests and runtime ids what they stand for, assigned
//! host ports `assigned`; containers are sorted by name, as the original's order among them is random.
//! Whatever differs after that is a row of one of the tables below, each of which is also a row of
//! docs/differences.md; a row that does not hold any more fails the test like a difference without one.
//!
//! Registration is compared in tests/control/api.rs.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod support;

use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use support::backend::{Backend, Channel, Connection};
use support::host::{Host, on_own_network};
use support::registry::{DockerRegistry, TestImage};
use support::sigv4::{ACCESS_KEY, REGION, SECRET};

/// One value in one report that differs.
struct Difference {
    family: &'static str,
    /// Which report of the task, after the merges below.
    report: usize,
    /// JSON pointer into its shape.
    at: &'static str,
    original: &'static str,
    ecsd: &'static str,
    /// Title of its row in docs/differences.md.
    row: &'static str,
}

/// Values that differ on purpose. `-` is a member that is not there.
const DIFFERENCES: &[Difference] = &[
    Difference {
        family: "exit-nocmd",
        report: 1,
        at: "/containers/0/reason",
        original: "CannotStartContainerError: Error response from daemon: failed to create shim task: \
                   OCI runtime create failed: runc create failed: unable to start container process: \
                   exec: \"/no/such/binary\": stat /no/such/binary: no such file or directory: unknown",
        ecsd: "CannotStartContainerError: failed to create shim task: \
               OCI runtime create failed: runc create failed: unable to start container process: \
               exec: \"/no/such/binary\": stat /no/such/binary: no such file or directory: unknown",
        row: "reason of a process that can't be made",
    },
    Difference {
        family: "exit-nocmd",
        report: 1,
        at: "/containers/0/runtimeId",
        original: "id",
        ecsd: "-",
        row: "`runtimeId` of a process that can't be made",
    },
    Difference {
        family: "deps-complete",
        report: 1,
        at: "/containers/1/exitCode",
        original: "7",
        ecsd: "-",
        row: "`exitCode` in a RUNNING change",
    },
];

/// Reports of the original, by task and number, whose containers ecsd tells with the next report.
const MERGED: &[(&str, usize, &str)] = &[
    ("deps-complete", 1, "start of a container whose dependency is met"),
    ("deps-starttimeout", 1, "when a change of containers alone is told"),
];

type Rewrite = fn(&mut Value);

/// Reports of the original, by task and number, in whose place ecsd tells something else.
const INSTEAD: &[(&str, usize, Rewrite, &str)] = &[(
    "deps-unhealthy",
    1,
    ended_by_its_dependency,
    "`dependsOn` HEALTHY on a container that turns UNHEALTHY",
)];

/// The task that waits for `db` ends, where the original's waits on.
fn ended_by_its_dependency(report: &mut Value) {
    let mut running = report["containers"][0].take();
    let mut ended = running.clone();
    ended["status"] = "STOPPED".into();
    ended["exitCode"] = 0.into();
    running["status"] = "RUNNING".into();
    let reason = "CannotStartContainerError: dependency graph: failed to resolve container ordering dependency \
                  [db(127.0.0.1:5000/bb:1) (RUNNING->RUNNING)] for target [app(127.0.0.1:5000/bb:1) \
                  (MANIFEST_PULLED->RUNNING)] as dependency is unhealthy.";
    let app = json!({"containerName": "app", "exitCode": 143, "imageDigest": running["imageDigest"],
        "reason": reason, "status": "STOPPED"});
    report["containers"] = json!([app, running, ended]);
    report["executionStoppedAt"] = 1.into();
    report["status"] = "STOPPED".into();
}

#[test]
fn one_container() {
    replay("single");
}

#[test]
fn exits() {
    replay("exits");
}

#[test]
fn ports() {
    replay("ports");
}

#[test]
fn dependencies() {
    replay("deps");
}

#[test]
fn every_difference_is_documented() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/differences.md");
    let documented = std::fs::read_to_string(path).unwrap();
    let rows = DIFFERENCES.iter().map(|difference| difference.row);
    let rows =
        rows.chain(MERGED.iter().map(|merged| merged.2)).chain(INSTEAD.iter().map(|instead| instead.3));
    for row in rows {
        assert!(documented.contains(&format!("\n| {row} |")), "docs/differences.md has no row {row:?}");
    }
}

fn replay(recording: &'static str) {
    on_own_network(move || async move { Replay::start(recording).await.run().await });
}

// === The recording ===

/// One line of a recording.
enum Step {
    /// To the agent.
    Payload(Value),
    /// From the agent.
    Ack(Value),
    /// From the agent: shape, family and number of the task's report.
    Report(Value, String, usize),
}

struct Recording {
    steps: Vec<Step>,
    /// Families by task ARN.
    families: BTreeMap<String, String>,
}

impl Recording {
    fn load(name: &str) -> Self {
        let path = format!("{}/tests/fixtures/recordings/{name}.jsonl", env!("CARGO_MANIFEST_DIR"));
        let text = std::fs::read_to_string(path).unwrap();
        let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let mut families = BTreeMap::new();
        for task in lines.iter().filter_map(|line| line["body"]["tasks"].get(0)) {
            families.insert(text_of(&task["arn"]), text_of(&task["family"]));
        }
        let mut recording = Self { steps: Vec::new(), families };
        let mut numbers: BTreeMap<String, usize> = BTreeMap::new();
        let mut recorded: BTreeMap<String, usize> = BTreeMap::new();
        let mut carried: BTreeMap<String, Vec<Value>> = BTreeMap::new();
        for line in lines {
            let mut body = line["body"].clone();
            match line["op"].as_str().unwrap() {
                "PayloadMessage" => {
                    give_time(&mut body);
                    recording.steps.push(Step::Payload(body));
                }
                "AckRequest" => recording.steps.push(Step::Ack(body)),
                "SubmitTaskStateChange" => {
                    let family = recording.families[body["task"].as_str().unwrap()].clone();
                    let number = recorded.entry(family.clone()).or_default();
                    let instead = INSTEAD.iter().find(|at| at.0 == family && at.1 == *number);
                    instead.iter().for_each(|(_, _, change, _)| change(&mut body));
                    let mut shape = shape(&body);
                    *number += 1;
                    let mut carry = carried.remove(&family).unwrap_or_default();
                    if MERGED.iter().any(|merged| merged.0 == family && merged.1 == *number - 1) {
                        carry.extend(shape["containers"].as_array().unwrap().clone());
                        carried.insert(family, carry);
                        continue;
                    }
                    if !carry.is_empty() {
                        carry.extend(shape["containers"].as_array().unwrap().clone());
                        sort(&mut carry);
                        shape["containers"] = carry.into();
                    }
                    let number = numbers.entry(family.clone()).or_default();
                    recording.steps.push(Step::Report(shape, family, *number));
                    *number += 1;
                }
                other => panic!("{other} in a recording"),
            }
        }
        recording
    }
}

/// In one recording the third check, the last before unhealthy, runs just when its container has become
/// well: with Docker a little after it, here as chance will have it. The original would wait on, ecsd not.
fn give_time(payload: &mut Value) {
    if payload["tasks"][0]["family"] == "deps-ok" {
        let config = &mut payload["tasks"][0]["containers"][0]["dockerConfig"]["config"];
        *config = text_of(config).replace("\"Retries\": 3", "\"Retries\": 30").into();
    }
}

// === The replay ===

struct Replay {
    recording: Recording,
    name: &'static str,
    host: Host,
    backend: Backend,
    acs: Connection,
    digest: String,
    found: Vec<(String, usize, String, String, String)>,
    _registry: DockerRegistry,
    _runc: RuncState,
}

/// A namespace of containerd, removed from runc's directory at the end.
struct RuncState(String);

impl RuncState {
    fn new(name: &str) -> Self {
        Self(format!("golden-{name}-{}", std::process::id()))
    }
}

impl Drop for RuncState {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(format!("/run/containerd/runc/{}", self.0));
    }
}

impl Replay {
    async fn start(name: &'static str) -> Self {
        let registry = DockerRegistry::start_at("127.0.0.1:5000".parse().unwrap(), None);
        let image = image();
        registry.push("bb", "1", &image);
        let mut host = Host::new().await;
        // runc's state is outside of the private containerd, by namespace; the recorded tasks make the
        // same container ids in every run.
        let namespace = RuncState::new(name);
        host.set("ECS_CONTAINERD_NAMESPACE", &namespace.0);
        host.set("ECS_CLUSTER", "peer");
        host.set("AWS_DEFAULT_REGION", REGION);
        host.set("AWS_ACCESS_KEY_ID", ACCESS_KEY);
        host.set("AWS_SECRET_ACCESS_KEY", SECRET);
        let mut backend = Backend::start().await;
        host.start_agent_at(backend.endpoint());
        let acs = backend.accept(Channel::Acs).await;
        let (digest, recording) = (image.digest(), Recording::load(name));
        let found = Vec::new();
        Self { recording, name, host, backend, acs, digest, found, _registry: registry, _runc: namespace }
    }

    async fn run(mut self) {
        for step in std::mem::take(&mut self.recording.steps) {
            match step {
                Step::Payload(payload) => {
                    self.nothing_else().await;
                    self.acs.send("PayloadMessage", payload).await;
                }
                Step::Ack(ack) => {
                    let got = self.acs.receive().await;
                    assert_eq!(got, ("AckRequest".to_owned(), ack), "{}", self.host.agent_log());
                }
                Step::Report(shape, family, number) => self.report(&shape, family, number).await,
            }
        }
        self.nothing_else().await;
        self.acs.is_quiet().await;
        self.judge();
    }

    /// No report has come that was not asked for.
    async fn nothing_else(&mut self) {
        let calls = self.backend.waiting_calls();
        let reports: Vec<_> = calls.iter().filter(|call| call.operation == "SubmitTaskStateChange").collect();
        assert!(reports.is_empty(), "not recorded: {reports:#?}");
    }

    async fn report(&mut self, recorded: &Value, family: String, number: usize) {
        let call = self.backend.call_of("SubmitTaskStateChange").await;
        let told = self.recording.families.get(call.body["task"].as_str().unwrap());
        assert_eq!(told, Some(&family), "a report of another task: {:#}", call.body);
        for container in call.body["containers"].as_array().into_iter().flatten() {
            let digest = container["imageDigest"].as_str();
            assert!(digest.is_none_or(|digest| digest == self.digest), "digest {digest:?}");
        }
        let own = shape(&call.body);
        let (recorded, own) = (flat(recorded), flat(&own));
        let missing = || "-".to_owned();
        for at in recorded.keys().chain(own.keys().filter(|at| !recorded.contains_key(*at))) {
            let original = recorded.get(at).cloned().unwrap_or_else(missing);
            let ecsd = own.get(at).cloned().unwrap_or_else(missing);
            if original != ecsd {
                self.found.push((family.clone(), number, at.clone(), original, ecsd));
            }
        }
    }

    /// Exactly the differences of the table were found.
    fn judge(&self) {
        let families: Vec<&String> = self.recording.families.values().collect();
        let ours = DIFFERENCES.iter().filter(|d| families.iter().any(|family| *family == d.family));
        let mut expected: Vec<_> = ours
            .map(|d| (d.family.into(), d.report, d.at.into(), d.original.into(), d.ecsd.into()))
            .collect();
        let mut found = self.found.clone();
        expected.sort();
        found.sort();
        assert_eq!(found, expected, "differences in {}: (task, report, member, original, ecsd)", self.name);
    }
}

/// The recorded image, as far as its behaviour goes: `/bin/serve`, its command, ends well on SIGTERM.
fn image() -> TestImage {
    const SERVE: &[u8] = b"#!/bin/sh\ntrap 'exit 0' TERM\nwhile :; do sleep 1 & wait $!; done\n";
    let busybox = std::fs::read("/bin/busybox").expect("busybox-static is installed");
    TestImage::new(&[&[
        ("bin/sh", &busybox),
        ("bin/sleep", &busybox),
        ("bin/true", &busybox),
        ("bin/touch", &busybox),
        ("tmp/.kept", b""),
        ("bin/serve", SERVE),
        // The command of such images.
        ("bin/app", SERVE),
    ]])
}

// === Shapes ===

/// What must be equal of a report's body.
fn shape(body: &Value) -> Value {
    let mut shape = body.clone();
    for member in ["pullStartedAt", "pullStoppedAt", "executionStoppedAt"] {
        if let Some(time) = shape.get_mut(member) {
            let seconds = time.as_f64().expect("seconds");
            assert!((seconds * 1000.0 - (seconds * 1000.0).round()).abs() < 0.01, "milliseconds: {time}");
            *time = "time".into();
        }
    }
    let several = body["containers"].as_array().is_some_and(|containers| containers.len() > 1);
    if several && body["status"] == "PENDING" {
        // A race in the original: whether a pull began, or ended, before the last image was looked up.
        for member in ["pullStartedAt", "pullStoppedAt"] {
            shape.as_object_mut().unwrap().remove(member);
        }
    }
    if let Some(containers) = shape.get_mut("containers").and_then(Value::as_array_mut) {
        containers.iter_mut().for_each(shape_container);
        sort(containers);
    }
    shape
}

fn shape_container(container: &mut Value) {
    let container = container.as_object_mut().unwrap();
    let hex = |text: &str| text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit());
    if let Some(id) = container.get_mut("runtimeId") {
        assert!(hex(id.as_str().unwrap()), "runtime id {id}");
        *id = "id".into();
    }
    if let Some(digest) = container.get_mut("imageDigest") {
        assert!(digest.as_str().unwrap().strip_prefix("sha256:").is_some_and(hex), "digest {digest}");
        *digest = "digest".into();
    }
    if let Some(bindings) = container.get_mut("networkBindings").and_then(Value::as_array_mut) {
        for binding in bindings.iter_mut() {
            shape_binding(binding.as_object_mut().unwrap());
        }
        bindings.sort_by_key(|binding| (binding["containerPort"].as_i64(), binding["protocol"].to_string()));
    }
}

/// Only 8099 was asked for.
fn shape_binding(binding: &mut Map<String, Value>) {
    if let Some(port) = binding.get_mut("hostPort").filter(|port| **port != 8099) {
        assert!(port.as_u64().is_some_and(|port| (1024..=65535).contains(&port)), "host port {port}");
        *port = "assigned".into();
    }
    if let Some(range) = binding.get_mut("hostPortRange") {
        let (first, last) = range.as_str().unwrap().split_once('-').expect("a range");
        let (first, last): (u16, u16) = (first.parse().unwrap(), last.parse().unwrap());
        *range = format!("{} assigned ones", last - first + 1).into();
    }
}

/// By name, and each container's in the order that they came in.
fn sort(containers: &mut [Value]) {
    containers.sort_by_key(|container| text_of(&container["containerName"]));
}

/// Every value by its JSON pointer.
fn flat(value: &Value) -> BTreeMap<String, String> {
    fn walk(at: String, value: &Value, out: &mut BTreeMap<String, String>) {
        match value {
            Value::Object(members) => {
                members.iter().for_each(|(key, value)| walk(format!("{at}/{key}"), value, out));
            }
            Value::Array(items) => {
                items.iter().enumerate().for_each(|(i, value)| walk(format!("{at}/{i}"), value, out));
            }
            Value::String(text) => drop(out.insert(at, text.clone())),
            other => drop(out.insert(at, other.to_string())),
        }
    }
    let mut out = BTreeMap::new();
    walk(String::new(), value, &mut out);
    out
}

fn text_of(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
