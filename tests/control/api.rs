//! The ECS API: registration, discovery, state changes.

use crate::support::backend::{Backend, INSTANCE};
use crate::{account, api_of, fixture};
use ecsd::control::EcsApi;
use ecsd::control::api::{InstanceReporter, Registration, SubmitTimings};
use ecsd::control::attributes::{Attribute, Capabilities, attributes};
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

/// What the original advertises and ecsd does not do, yet or at all. docs/differences.md says why.
const NOT_ADVERTISED: [&str; 28] = [
    "ecs.capability.private-registry-authentication.secretsmanager",
    "ecs.capability.secrets.ssm.environment-variables",
    "ecs.capability.secrets.ssm.bootstrap.log-driver",
    "ecs.capability.ecr-endpoint",
    "ecs.capability.secrets.asm.environment-variables",
    "ecs.capability.secrets.asm.bootstrap.log-driver",
    "ecs.capability.env-files.s3",
    "ecs.capability.container-restart-policy",
    "com.amazonaws.ecs.capability.task-iam-role",
    "com.amazonaws.ecs.capability.task-iam-role-network-host",
    "com.amazonaws.ecs.capability.ecr-auth",
    "ecs.capability.execution-role-ecr-pull",
    "ecs.capability.container-health-check",
    "ecs.capability.docker-plugin.local",
    "ecs.capability.aws-appmesh",
    "ecs.capability.task-eia",
    "ecs.capability.task-eia.optimized-cpu",
    "ecs.capability.firelens.fluentd",
    "ecs.capability.firelens.fluentbit",
    "com.amazonaws.ecs.capability.logging-driver.awsfirelens",
    "ecs.capability.logging-driver.awsfirelens.log-driver-buffer-limit",
    "ecs.capability.firelens.non-root-user",
    "ecs.capability.efs",
    "ecs.capability.storage.s3-files",
    "ecs.capability.firelens.options.config.file",
    "ecs.capability.firelens.options.config.s3",
    "ecs.capability.storage.ebsta-non-root-user",
    "ecs.capability.ipv6-only",
];

fn recorded_registration(body: &Value) -> Registration {
    Registration {
        cluster: "peer".into(),
        facts: InstanceFacts {
            cpu_units: 2048,
            memory_mib: 24105,
            reserved_tcp: BTreeSet::from([22, 2375, 2376, 51678, 51679]),
            reserved_udp: BTreeSet::new(),
        },
        attributes: attributes(&Capabilities::default()),
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
    // Every row of the list is a real difference.
    let kept = expected["attributes"].as_array_mut().unwrap();
    for name in NOT_ADVERTISED {
        let before = kept.len();
        kept.retain(|a| a["name"] != name);
        assert_eq!(kept.len(), before - 1, "{name} is no difference");
    }
    assert_eq!(call.body, expected);
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
    reporter(&backend).submit(&change).await;
    let call = backend.call().await;
    assert_eq!(call.body["reason"].as_str().unwrap().len(), 1024);
    assert_eq!(call.body["containers"][0]["reason"].as_str().unwrap().len(), 1024);
    change.containers.clear();
    reporter(&backend).submit(&change).await;
    assert!(backend.call().await.body.get("containers").is_none());
}
