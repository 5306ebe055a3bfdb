//! Network interfaces and attachments: what is taken, what is answered, what is told of them.

use crate::acs::Agent;
use crate::support::backend::{Backend, CLUSTER_ARN, Channel, INSTANCE};
use crate::{acs_context, api_of};
use ecsd::control::acs::AcsEvent;
use ecsd::control::api::{InstanceReporter, SubmitTimings};
use ecsd::core::ReportOutcome;
use ecsd::model::{Attachment, MacAddress, TaskArn, TaskStateChange, TaskStatus, Wall};
use ecsd::ports::{AttachmentReporter, Reporter};
use serde_json::{Value, json};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const TASK: &str = "arn:aws:ecs:us-west-2:123456789012:task/peer/t";
const ARN: &str = "arn:aws:ecs:us-west-2:123456789012:attachment/a";

fn now() -> Wall {
    Wall(u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos()).unwrap())
}

fn message(id: &str) -> Value {
    json!({"messageId": id, "clusterArn": CLUSTER_ARN, "containerInstanceArn": INSTANCE, "taskArn": TASK,
        "taskClusterArn": CLUSTER_ARN, "generatedAt": 1, "waitTimeoutMs": 60_000,
        "elasticNetworkInterfaces": [{"attachmentArn": ARN, "ec2Id": "eni-1", "macAddress": "0a:00:00:00:00:01",
            "subnetGatewayIpv4Address": "10.0.0.1/24", "ipv4Addresses": [{"privateAddress": "10.0.0.9"}]}]})
}

fn ack(id: &str) -> (String, Value) {
    let body = json!({"messageId": id, "cluster": CLUSTER_ARN, "containerInstance": INSTANCE});
    ("AckRequest".to_owned(), body)
}

#[tokio::test]
async fn announced_interfaces_are_acknowledged_when_they_are_durable() {
    let mut backend = Backend::start().await;
    let mut agent = Agent::start(acs_context(&backend));
    let mut connection = backend.accept(Channel::Acs).await;
    for (kind, task) in [
        ("AttachTaskNetworkInterfacesMessage", Some(TaskArn::parse(TASK).unwrap())),
        ("AttachInstanceNetworkInterfacesMessage", None),
    ] {
        let before = now();
        connection.send(kind, message("m1")).await;
        let AcsEvent::Attachments { attachments, respond } = agent.event().await else { panic!() };
        let [one] = attachments.try_into().unwrap();
        assert_eq!(
            (one.arn.as_str(), one.mac, one.task, one.sent),
            (ARN, MacAddress([10, 0, 0, 0, 0, 1]), task, false)
        );
        let wait = one.expires_at.since(before);
        assert!(wait >= Duration::from_secs(60), "{wait:?}");
        connection.is_quiet().await;
        assert!(matches!(agent.event().await, AcsEvent::Heartbeat));
        respond.send(Ok(())).unwrap();
        assert_eq!(connection.receive().await, ack("m1"));
        connection.send(kind, message("m2")).await;
        let AcsEvent::Attachments { respond, .. } = agent.event().await else { panic!() };
        respond.send(Err(())).unwrap();
        connection.is_quiet().await;
        assert!(matches!(agent.event().await, AcsEvent::Heartbeat));
    }
}

#[tokio::test]
async fn announcements_that_lack_something_are_ignored() {
    let mut backend = Backend::start().await;
    let _agent = Agent::start(acs_context(&backend));
    let mut connection = backend.accept(Channel::Acs).await;
    let interface = |member: &str, value: Value| {
        let mut changed = message("m")["elasticNetworkInterfaces"].clone();
        changed[0][member] = value;
        ("elasticNetworkInterfaces", changed)
    };
    for (member, value) in [
        ("messageId", json!("")),
        ("clusterArn", json!(null)),
        ("containerInstanceArn", json!("")),
        ("taskArn", json!("t")),
        ("taskClusterArn", json!("")),
        ("waitTimeoutMs", json!(0)),
        ("waitTimeoutMs", json!(-1)),
        ("elasticNetworkInterfaces", json!([])),
        interface("macAddress", json!("")),
        interface("ec2Id", json!("")),
        interface("ipv4Addresses", json!([])),
        interface("subnetGatewayIpv4Address", json!("10.0.0.1")),
        interface("interfaceAssociationProtocol", json!("tunnel")),
        interface("attachmentArn", json!("")),
    ] {
        let mut wrong = message("m");
        wrong[member] = value;
        connection.send("AttachTaskNetworkInterfacesMessage", wrong).await;
    }
    connection.is_quiet().await;
}

#[tokio::test]
async fn attachments_are_acknowledged_where_they_are_well_formed() {
    let mut backend = Backend::start().await;
    let _agent = Agent::start(acs_context(&backend));
    let mut connection = backend.accept(Channel::Acs).await;
    let confirm = |kind: &str, properties: &[(&str, &str)]| {
        let properties: Vec<_> = properties.iter().map(|(n, v)| json!({"name": n, "value": v})).collect();
        let mut message = message("m");
        message["attachment"] =
            json!({"attachmentArn": ARN, "attachmentType": kind, "attachmentProperties": properties});
        message
    };
    let ebs = [
        ("volumeId", "v"),
        ("volumeSizeGib", "1"),
        ("deviceName", "d"),
        ("sourceVolumeHostPath", "p"),
        ("volumeName", "n"),
    ];
    let storage = [("resourceType", "EphemeralStorage"), ("volumeID", "v"), ("deviceName", "d")];
    for good in [confirm("amazonebs", &ebs), confirm("other", &storage)] {
        connection.send("ConfirmAttachmentMessage", good).await;
        assert_eq!(connection.receive().await, ack("m"));
    }
    let mut strange = ebs.to_vec();
    strange.push(("fileSystem", "zfs"));
    let mut no_arn = confirm("amazonebs", &ebs);
    no_arn["attachment"]["attachmentArn"] = json!("x");
    for bad in [
        confirm("amazonebs", &ebs[1..]),
        confirm("amazonebs", &strange),
        no_arn,
        message("m"),
        confirm("s3files", &ebs),
        confirm("other", &storage[..2]),
    ] {
        connection.send("ConfirmAttachmentMessage", bad).await;
    }
    connection.is_quiet().await;
}

fn reporter(backend: &Backend) -> InstanceReporter {
    let timings = SubmitTimings {
        transient_unit: Duration::from_micros(1),
        transient_most: Duration::from_millis(1),
        other_least: Duration::from_millis(1),
    };
    InstanceReporter::new(api_of(backend), "peer").with_timings(timings)
}

fn attachment(task: Option<&str>, expires_at: Wall) -> Attachment {
    let task = task.map(|arn| TaskArn::parse(arn).unwrap());
    Attachment { arn: ARN.into(), mac: MacAddress([1; 6]), task, expires_at, sent: false }
}

#[tokio::test]
async fn an_interface_of_a_task_waits_its_turn_among_the_reports_of_the_task() {
    let mut backend = Backend::start().await;
    let reporter = reporter(&backend);
    let failure = (400, json!({"__type": "ClientException", "message": "later"}));
    backend.answer("SubmitTaskStateChange", [failure.clone(), failure]);
    let report = TaskStateChange {
        task: TaskArn::parse(TASK).unwrap(),
        status: TaskStatus::Running,
        reason: String::new(),
        containers: Vec::new(),
        pull_started_at: None,
        pull_stopped_at: None,
        execution_stopped_at: None,
    };
    let far = Wall(u64::MAX);
    let announced = attachment(Some(TASK), far);
    // Polled in this order: the confirmation stands before the report in the queue, and stays there.
    let (confirmed, reported) = tokio::join!(biased; reporter.attached(&announced), reporter.submit(&report));
    assert_eq!((confirmed, reported), (ReportOutcome::Accepted, ReportOutcome::Accepted));
    let confirmation = json!({"cluster": "peer", "task": TASK,
        "attachments": [{"attachmentArn": ARN, "status": "ATTACHED"}]});
    for _ in 0..3 {
        assert_eq!(backend.call_of("SubmitTaskStateChange").await.body, confirmation);
    }
    assert_eq!(backend.call_of("SubmitTaskStateChange").await.body["status"], "RUNNING");
}

#[tokio::test]
async fn an_interface_of_the_instance_is_told_until_it_is_taken() {
    let mut backend = Backend::start().await;
    let refused = (400, json!({"__type": "InvalidParameterException", "message": "later"}));
    let taken = (200, json!({"acknowledgment": "ACK"}));
    backend.answer("SubmitAttachmentStateChanges", [refused, taken]);
    let told = reporter(&backend).attached(&attachment(None, Wall(u64::MAX))).await;
    assert_eq!(told, ReportOutcome::Accepted);
    let body = json!({"cluster": "peer", "attachments": [{"attachmentArn": ARN, "status": "ATTACHED"}]});
    assert_eq!(backend.call_of("SubmitAttachmentStateChanges").await.body, body);
    assert_eq!(backend.call_of("SubmitAttachmentStateChanges").await.body, body);
}

#[tokio::test]
async fn what_expired_is_not_told_and_what_expires_is_given_up() {
    let mut backend = Backend::start().await;
    let reporter = reporter(&backend);
    assert_eq!(reporter.attached(&attachment(None, now())).await, ReportOutcome::Refused);
    assert!(backend.waiting_calls().is_empty());
    let failure = || (400, json!({"__type": "ClientException", "message": "never"}));
    backend.answer("SubmitAttachmentStateChanges", std::iter::repeat_with(failure).take(10_000));
    let soon = Wall(now().0 + 100_000_000);
    assert_eq!(reporter.attached(&attachment(None, soon)).await, ReportOutcome::Refused);
}
