//! The ECS API: registration, discovery, state changes.

use crate::support::backend::{Backend, INSTANCE};
use crate::{account, api_of, fixture};
use ecsd::control::EcsApi;
use ecsd::control::api::{InstanceReporter, RegisterTimings, Registration, SubmitTimings};
use ecsd::control::attributes::{Attribute, Capabilities, attributes, not_built};
use ecsd::control::facts::InstanceFacts;
use ecsd::control::imds::InstanceDocument;
use ecsd::core::ReportOutcome;
use ecsd::model::{
    ContainerChange, ContainerId, ContainerStatus, ImageDigest, NetworkBinding, Protocol, TaskArn,
    TaskStateChange, TaskStatus, Wall,
};
use ecsd::ports::Reporter;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// What the recorded agent was configured with.
fn recorded_capabilities() -> Capabilities {
    Capabilities { task_iam_role: true, task_iam_role_network_host: true, ..Capabilities::default() }
}

fn recorded_registration(body: &Value) -> Registration {
    Registration {
        cluster: "peer".into(),
        facts: InstanceFacts {
            cpu_units: 2048,
            memory_mib: 24105,
            reserved_tcp: BTreeSet::from([22, 2375, 2376, 51678, 51679]),
            reserved_udp: BTreeSet::new(),
        },
        attributes: attributes(&recorded_capabilities()),
        document: InstanceDocument {
            document: body["instanceIdentityDocument"].as_str().unwrap().into(),
            signature: body["instanceIdentityDocumentSignature"].as_str().unwrap().into(),
        },
        ..Registration::default()
    }
}

#[tokio::test]
async fn registration_is_the_recorded_one_but_for_a_known_list() {
    let mut backend = Backend::start().await;
    let recorded = fixture("register");
    let mut expected = recorded["body"].clone();
    let done = api_of(&backend).register_container_instance(&recorded_registration(&expected)).await.unwrap();
    assert_eq!((done.arn.as_str(), done.cluster.as_str()), (INSTANCE, "peer"));
    assert_eq!(done.availability_zone, "us-west-2a");
    let mut call = backend.call().await;
    assert_eq!(call.headers["user-agent"], recorded["userAgent"].as_str().unwrap());
    assert!(!call.headers.contains_key("x-amz-user-agent"));
    assert_eq!(call.headers["amz-sdk-request"], "attempt=1; max=3");
    let token = call.body["clientToken"].take();
    assert!(uuid::Uuid::parse_str(token.as_str().unwrap()).is_ok());
    expected["clientToken"].take();
    // Whatever is not built is left out; the rest is in the recorded order.
    let not_built: BTreeSet<String> = not_built().collect();
    let kept = expected["attributes"].as_array_mut().unwrap();
    kept.retain(|attribute| !not_built.contains(attribute["name"].as_str().unwrap()));
    // The recorded agent had no image to hold namespaces with.
    let told = call.body["attributes"].as_array_mut().unwrap();
    let holder = told.iter().position(|a| a["name"] == "ecs.capability.pid-ipc-namespace-sharing").unwrap();
    told.remove(holder);
    assert_eq!(call.body, expected);
}

#[test]
fn what_is_not_told_is_documented() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/differences.md");
    let documented = std::fs::read_to_string(path).unwrap();
    let section = documented.split("## Registration").nth(1).unwrap().split("\n## ").next().unwrap();
    let rows: Vec<&str> = section.lines().filter(|line| line.starts_with("| `")).collect();
    let names: BTreeSet<&str> =
        rows.iter().flat_map(|row| row.split('|').nth(1).unwrap().split('`').skip(1).step_by(2)).collect();
    let covers = |pattern: &str, name: &str| match pattern.strip_suffix('*') {
        Some(beginning) => name.starts_with(beginning),
        None => name == pattern,
    };
    let missing: Vec<String> = not_built()
        .map(|name| name.replacen("com.amazonaws.ecs.capability.", "", 1).replacen("ecs.capability.", "", 1))
        .filter(|name| !names.iter().any(|pattern| covers(pattern, name)))
        .collect();
    assert!(missing.is_empty(), "docs/differences.md has no row for {missing:?}");
    let told = attributes(&recorded_capabilities());
    let stale: Vec<_> = told
        .iter()
        .filter_map(|attribute| attribute.name.split_once("capability."))
        .filter(|(_, name)| names.iter().any(|pattern| covers(pattern, name)))
        .collect();
    assert!(stale.is_empty(), "docs/differences.md says that these are not told: {stale:?}");
}

#[tokio::test]
async fn an_unset_cluster_is_default_and_made_where_it_is_missing() {
    let mut backend = Backend::start().await;
    let missing = json!({"__type": "ClientException", "message": "Cluster not found."});
    backend.answer("RegisterContainerInstance", [(400, missing)]);
    let done = api_of(&backend).register_container_instance(&Registration::default()).await.unwrap();
    assert_eq!(done.cluster, "default");
    let operations: Vec<_> =
        backend.waiting_calls().into_iter().map(|c| (c.operation, c.body["clientToken"].clone())).collect();
    assert_eq!(operations[0].1, operations[2].1, "one token for all attempts");
    let names: Vec<_> = operations.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["RegisterContainerInstance", "CreateCluster", "RegisterContainerInstance"]);
}

#[tokio::test]
async fn errors_of_registration_decide_the_exit_code() {
    for (status, code, exit) in [
        (400, "ClientException", 5),
        (400, "InvalidParameterException", 5),
        (400, "AccessDeniedException", 1),
        (403, "UnrecognizedClientException", 1),
    ] {
        let backend = Backend::start().await;
        let body = json!({"__type": format!("com.amazonaws.ecs#{code}"), "message": "Cluster not found."});
        backend.answer("RegisterContainerInstance", [(status, body)]);
        let wanted = Registration { cluster: "named".into(), ..Registration::default() };
        let error = api_of(&backend).register_container_instance(&wanted).await.unwrap_err();
        assert_eq!(error.exit_code(), exit, "{code}: {error}");
    }
}

#[tokio::test]
async fn an_attribute_that_comes_back_changed_is_an_error() {
    let backend = Backend::start().await;
    let instance = json!({"containerInstanceArn": INSTANCE, "attributes": [{"name": "a", "value": "other"}]});
    backend.answer("RegisterContainerInstance", [(200, json!({"containerInstance": instance}))]);
    let attribute =
        |name: &str, value: Option<&str>| Attribute { name: name.into(), value: value.map(str::to_owned) };
    let attributes = vec![attribute("b", None), attribute("a", Some("mine"))];
    let wanted = Registration { cluster: "c".into(), attributes, ..Registration::default() };
    let error = api_of(&backend).register_container_instance(&wanted).await.unwrap_err();
    assert_eq!(error.exit_code(), 5);
    assert!(error.to_string().contains("\"mine\""), "{error}");
}

#[tokio::test]
async fn a_known_instance_registers_under_its_arn() {
    let mut backend = Backend::start().await;
    let known = format!("{INSTANCE}-known");
    let tags = BTreeMap::from([("k".to_owned(), "v".to_owned())]);
    let instance_arn = Some(known.clone());
    let wanted = Registration { cluster: "peer".into(), instance_arn, tags, ..Registration::default() };
    let account = account(&backend, Some("a/session+token=="));
    let done = EcsApi::new(&account).register_container_instance(&wanted).await.unwrap();
    assert_eq!(done.arn, known, "the ARN of the answer is ignored");
    let call = backend.call().await;
    assert_eq!(call.body["containerInstanceArn"], known);
    assert_eq!(call.body["tags"], json!([{"key": "k", "value": "v"}]));
    assert_eq!(call.headers["x-amz-security-token"], "a/session+token==");
    assert_eq!(call.body["instanceIdentityDocument"], "");
}

#[tokio::test]
async fn poll_endpoints_are_asked_for_once() {
    let mut backend = Backend::start().await;
    let api = api_of(&backend);
    let found = api.discover_poll_endpoint("peer", INSTANCE).await.unwrap();
    assert_eq!(found.acs, format!("{}/acs", backend.endpoint()));
    assert_eq!(api.discover_poll_endpoint("peer", INSTANCE).await.unwrap(), found);
    let calls = backend.waiting_calls();
    assert_eq!(calls.len(), 1);
    assert_eq!(calls[0].body, fixture("connect")["discover"]);
}

#[tokio::test]
async fn poll_endpoints_grow_old_and_then_serve_where_the_service_fails() {
    let mut backend = Backend::start().await;
    let api = api_of(&backend).with_discovery_ttl(Duration::ZERO);
    let found = api.discover_poll_endpoint("peer", INSTANCE).await.unwrap();
    let refusal = json!({"__type": "ClientException", "message": "no"});
    backend.answer("DiscoverPollEndpoint", [(400, refusal.clone())]);
    assert_eq!(api.discover_poll_endpoint("peer", INSTANCE).await.unwrap(), found, "the old one serves");
    let moved = json!({"endpoint": "http://new/acs", "telemetryEndpoint": "http://new/tcs"});
    backend.answer("DiscoverPollEndpoint", [(200, moved)]);
    assert_eq!(api.discover_poll_endpoint("peer", INSTANCE).await.unwrap().acs, "http://new/acs");
    assert_eq!(backend.waiting_calls().len(), 3);
    backend.answer("DiscoverPollEndpoint", [(400, refusal)]);
    assert!(api.discover_poll_endpoint("peer", "another").await.is_err(), "an answer is one instance's");
}

#[tokio::test]
async fn transient_errors_of_registration_are_retried_with_one_token_until_time_is_up() {
    let mut backend = Backend::start().await;
    let busy = || (400, json!({"__type": "LimitExceededException", "message": "slow down"}));
    let timings = RegisterTimings { least: Duration::from_millis(1), give_up: Duration::from_secs(60) };
    let wanted = Registration { cluster: "peer".into(), timings, ..Registration::default() };
    // Three attempts of the SDK, then one of ours.
    backend.answer("RegisterContainerInstance", [busy(), busy(), busy()]);
    api_of(&backend).register_container_instance(&wanted).await.unwrap();
    let calls = backend.waiting_calls();
    assert_eq!(calls.len(), 4);
    assert!(calls.iter().all(|call| call.body["clientToken"] == calls[0].body["clientToken"]));

    backend.answer("RegisterContainerInstance", [busy(), busy(), busy()]);
    let timings = RegisterTimings { least: Duration::from_millis(1), give_up: Duration::ZERO };
    let error = api_of(&backend).register_container_instance(&Registration { timings, ..wanted }).await;
    let error = error.unwrap_err();
    assert_eq!(error.exit_code(), 1, "time is up: an error, not an instance without an ARN");
}

#[tokio::test]
async fn an_instance_whose_type_changed_ends_for_good() {
    let backend = Backend::start().await;
    let message = "Container instance type changes are not supported. Container instance x had been m5.";
    let body = json!({"__type": "UpdateInProgressException", "message": message});
    backend.answer("RegisterContainerInstance", [(400, body.clone()), (400, body)]);
    let anew = Registration { cluster: "peer".into(), ..Registration::default() };
    let api = api_of(&backend);
    assert_eq!(api.register_container_instance(&anew).await.unwrap_err().exit_code(), 1);
    let again = Registration { instance_arn: Some(INSTANCE.into()), ..anew };
    assert_eq!(api.register_container_instance(&again).await.unwrap_err().exit_code(), 5);
}

#[tokio::test]
async fn gpus_are_platform_devices() {
    let mut backend = Backend::start().await;
    let wanted =
        Registration { cluster: "peer".into(), gpus: vec!["GPU-1".into()], ..Registration::default() };
    api_of(&backend).register_container_instance(&wanted).await.unwrap();
    let call = backend.call().await;
    assert_eq!(call.body["platformDevices"], json!([{"id": "GPU-1", "type": "GPU"}]));
}

#[tokio::test]
async fn an_instance_drains_itself() {
    let mut backend = Backend::start().await;
    let failed = json!({"containerInstances": [], "failures": [{"arn": INSTANCE, "reason": "MISSING"}]});
    backend.answer("UpdateContainerInstancesState", [(200, failed)]);
    let api = api_of(&backend);
    let error = api.drain_container_instance("peer", INSTANCE).await.unwrap_err();
    assert!(error.to_string().contains("MISSING"), "{error}");
    api.drain_container_instance("peer", INSTANCE).await.unwrap();
    let expected = json!({"cluster": "peer", "containerInstances": [INSTANCE], "status": "DRAINING"});
    assert_eq!(backend.call().await.body, expected);
}

#[tokio::test]
async fn poll_endpoints_that_are_missing_are_an_error_and_not_kept() {
    let backend = Backend::start().await;
    backend.answer("DiscoverPollEndpoint", [(200, json!({"endpoint": "http://x"}))]);
    let api = api_of(&backend);
    let error = api.discover_poll_endpoint("peer", INSTANCE).await.unwrap_err();
    assert!(error.to_string().contains("telemetryEndpoint"), "{error}");
    assert!(api.discover_poll_endpoint("peer", INSTANCE).await.is_ok());
}

/// The state change that a recorded body came from.
fn change_of(body: &Value) -> TaskStateChange {
    let wall = |v: &Value| v.as_f64().map(|s| Wall((s * 1000.0).round() as u64 * 1_000_000));
    let port = |v: &Value| v.as_u64().map(|p| p as u16);
    let binding = |b: &Value| {
        let range = |name: &str| {
            let (a, z) = b[name].as_str()?.split_once('-')?;
            Some((a.parse::<u16>().ok()?, z.parse::<u16>().ok()?))
        };
        let ranges = range("containerPortRange").zip(range("hostPortRange"));
        let single = || (port(&b["containerPort"]).unwrap(), port(&b["hostPort"]).unwrap(), 1);
        let (container_port, host_port, count) =
            ranges.map_or_else(single, |((first, last), (host, _))| (first, host, last - first + 1));
        NetworkBinding {
            bind_ip: b["bindIP"].as_str().unwrap().parse().unwrap(),
            container_port,
            host_port,
            count,
            is_range: ranges.is_some(),
            protocol: if b["protocol"] == "udp" { Protocol::Udp } else { Protocol::Tcp },
        }
    };
    let container = |c: &Value| ContainerChange {
        name: c["containerName"].as_str().unwrap().into(),
        status: ContainerStatus::from_word(c["status"].as_str().unwrap())
            .unwrap_or(ContainerStatus::ManifestPulled),
        runtime_id: c["runtimeId"].as_str().map(ContainerId::from_recorded),
        digest: c["imageDigest"].as_str().and_then(ImageDigest::parse),
        exit_code: c["exitCode"].as_i64().map(|code| code as i32),
        reason: c["reason"].as_str().map(str::to_owned),
        bindings: c["networkBindings"].as_array().into_iter().flatten().map(binding).collect(),
    };
    TaskStateChange {
        task: TaskArn::parse(body["task"].as_str().unwrap()).unwrap(),
        status: TaskStatus::from_word(body["status"].as_str().unwrap()).unwrap_or(TaskStatus::ManifestPulled),
        reason: body["reason"].as_str().unwrap().into(),
        containers: body["containers"].as_array().into_iter().flatten().map(container).collect(),
        pull_started_at: wall(&body["pullStartedAt"]),
        pull_stopped_at: wall(&body["pullStoppedAt"]),
        execution_stopped_at: wall(&body["executionStoppedAt"]),
    }
}

fn reporter(backend: &Backend) -> InstanceReporter {
    let timings = SubmitTimings {
        transient_unit: Duration::from_micros(1),
        transient_most: Duration::from_millis(5),
        other_least: Duration::from_millis(1),
    };
    InstanceReporter::new(api_of(backend), "peer").with_timings(timings)
}

#[tokio::test]
async fn state_changes_are_the_recorded_ones() {
    let mut backend = Backend::start().await;
    let reporter = reporter(&backend);
    let single = fixture("single");
    let submits = fixture("submits");
    for body in single["submits"].as_array().unwrap().iter().chain(submits.as_array().unwrap()) {
        assert_eq!(reporter.submit(&change_of(body)).await, ReportOutcome::Accepted);
        assert_eq!(&backend.call().await.body, body);
    }
}

#[tokio::test]
async fn a_state_change_outlives_every_error_but_a_refusal() {
    let mut backend = Backend::start().await;
    let error = |code: &str| json!({"__type": code, "message": "no"});
    backend.answer(
        "SubmitTaskStateChange",
        [
            (500, json!({})),
            (503, json!("<html>")),
            (400, error("ThrottlingException")),
            (400, error("AccessDeniedException")),
            (400, error("ClientException")),
        ],
    );
    let reporter = reporter(&backend);
    let change = change_of(&fixture("single")["submits"][0]);
    assert_eq!(reporter.submit(&change).await, ReportOutcome::Accepted);
    let calls = backend.waiting_calls();
    assert_eq!(calls.len(), 6);
    assert!(calls.iter().all(|c| c.body == calls[0].body));
    backend.answer("SubmitTaskStateChange", [(400, error("InvalidParameterException"))]);
    assert_eq!(reporter.submit(&change).await, ReportOutcome::Refused);
    assert_eq!(backend.waiting_calls().len(), 1);
}

#[tokio::test]
async fn long_texts_are_cut_and_empty_lists_left_out() {
    let mut backend = Backend::start().await;
    let mut change = change_of(&fixture("single")["submits"][0]);
    change.reason = "é".repeat(600);
    change.containers[0].reason = Some("x".repeat(5000));
    change.containers[0].runtime_id = Some(ContainerId::from_recorded("r".repeat(300)));
    reporter(&backend).submit(&change).await;
    let call = backend.call().await;
    let container = &call.body["containers"][0];
    let length = |text: &Value| text.as_str().unwrap().len();
    assert_eq!((length(&call.body["reason"]), length(&container["reason"])), (1024, 1024));
    assert_eq!(length(&container["runtimeId"]), 255);
    change.containers.clear();
    reporter(&backend).submit(&change).await;
    assert!(backend.call().await.body.get("containers").is_none());
}

#[tokio::test]
async fn without_ipv4_its_bindings_are_not_told() {
    let mut backend = Backend::start().await;
    let submits = fixture("submits");
    let bound = |body: &&Value| !body["containers"][0]["networkBindings"].is_null();
    let body = submits.as_array().unwrap().iter().find(bound).expect("a recorded change with bindings");
    reporter(&backend).with_ipv6_only(true).submit(&change_of(body)).await;
    assert!(backend.call().await.body["containers"][0]["networkBindings"].is_null());
}

#[tokio::test]
async fn of_a_container_with_a_range_a_hundred_bindings_are_told() {
    let mut backend = Backend::start().await;
    let mut change = change_of(&fixture("single")["submits"][0]);
    let binding = |port: u16| NetworkBinding {
        bind_ip: std::net::Ipv4Addr::UNSPECIFIED,
        container_port: port,
        host_port: port,
        count: if port == 1 { 2 } else { 1 },
        is_range: port == 1,
        protocol: Protocol::Tcp,
    };
    for (first, told) in [(1, 100), (3, 148)] {
        change.containers[0].bindings = (first..=150).map(binding).collect();
        assert_eq!(reporter(&backend).submit(&change).await, ReportOutcome::Accepted);
        let body = backend.call().await.body;
        assert_eq!(body["containers"][0]["networkBindings"].as_array().unwrap().len(), told);
    }
}

#[tokio::test]
async fn tasks_that_wait_to_be_reported_again_hold_up_no_other() {
    let mut backend = Backend::start().await;
    // Longer than the test has patience.
    let timings = SubmitTimings {
        transient_unit: Duration::from_secs(60),
        transient_most: Duration::from_secs(3600),
        ..SubmitTimings::default()
    };
    let reporter = InstanceReporter::new(api_of(&backend), "peer").with_timings(timings);
    backend.answer("SubmitTaskStateChange", vec![(500, json!({"__type": "ServerException"})); 10]);
    let template = &fixture("submits")[0];
    let change = |number: usize| {
        let task = format!("arn:aws:ecs:us-west-2:123456789012:task/peer/{number}");
        TaskStateChange { task: TaskArn::parse(&task).unwrap(), ..change_of(template) }
    };
    let mut waiting = tokio::task::JoinSet::new();
    for number in 0..10 {
        let (reporter, change) = (reporter.clone(), change(number));
        waiting.spawn(async move { reporter.submit(&change).await });
    }
    for _ in 0..10 {
        assert_eq!(backend.call().await.status, 500);
    }
    let other = change(10);
    let told = tokio::time::timeout(Duration::from_secs(20), reporter.submit(&other)).await;
    assert_eq!(told.expect("an eleventh task waits for the ten"), ReportOutcome::Accepted);
    assert_eq!(waiting.len(), 10);
    assert!(waiting.try_join_next().is_none());
}
