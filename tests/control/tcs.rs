//! TCS: telemetry as the original sends it, signed frame by frame; and that what can't be written is
//! not lost.

use crate::support::backend::{Backend, Channel, Connection, INSTANCE};
use crate::{account, fixture};
use ecsd::control::EcsApi;
use ecsd::control::tcs::{TcsContext, TcsTimings, Telemetry, run};
use ecsd::model::{
    BlockUsage, CheckStatus, ContainerHealth, ContainerId, CpuUsage, HealthStatus, InstanceCheck,
    InterfaceCounters, InterfaceUsage, Metrics, Mono, Now, TaskArn, TaskHealth, TaskMetrics, TaskSpec, Usage,
    Wall,
};
use ecsd::stats::{Statistics, Target};
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::Notify;

/// Statistics with samples of the test's making, and whatever health and checks it says.
#[derive(Clone)]
pub struct Told {
    statistics: Statistics,
    pub health: Arc<Mutex<Vec<TaskHealth>>>,
    checks: Arc<Mutex<Vec<InstanceCheck>>>,
}

impl Telemetry for Told {
    fn metrics(&self) -> Metrics {
        self.statistics.metrics()
    }
    fn confirm(&self, told: &[TaskMetrics]) {
        self.statistics.confirm(told);
    }
    fn health(&self) -> Vec<TaskHealth> {
        self.health.lock().unwrap().clone()
    }
    fn checks(&self) -> Vec<InstanceCheck> {
        self.checks.lock().unwrap().clone()
    }
}

impl Told {
    pub fn nothing() -> Self {
        let statistics = Statistics::new(Duration::from_secs(1));
        Self { statistics, health: Arc::default(), checks: Arc::default() }
    }

    /// So many tasks of one container each, without a sample.
    pub fn tasks(count: usize) -> (Self, Vec<Target>) {
        Self::tasks_of(count, 1)
    }

    /// So many tasks of so many containers each, without a sample.
    pub fn tasks_of(count: usize, containers: usize) -> (Self, Vec<Target>) {
        let told = Self::nothing();
        let targets: Vec<Target> = (0..count).flat_map(|number| targets(number, containers)).collect();
        told.statistics.track(&targets);
        (told, targets)
    }

    /// A sample of every target, `at` seconds after the start.
    pub fn sample(&self, targets: &[Target], at: u64) {
        for target in targets {
            self.statistics.record(&target.key, usage(at));
        }
    }
}

/// The containers of a task, the first of which is `main`.
fn targets(number: usize, containers: usize) -> Vec<Target> {
    let arn = TaskArn::parse(&format!("arn:aws:ecs:us-west-2:1:task/peer/{number:08}")).unwrap();
    let spec = TaskSpec { family: "family".into(), version: "7".into(), ..TaskSpec::empty(arn.clone()) };
    let spec = Arc::new(spec);
    let names = std::iter::once("main".to_owned()).chain((1..).map(|n| format!("side-{n}")));
    let target = |name: String| Target {
        key: spec.key(&name),
        id: ContainerId::derive(&arn, &name),
        spec: spec.clone(),
        restarts: None,
    };
    names.take(containers).map(target).collect()
}

fn usage(at: u64) -> Usage {
    let counters = InterfaceCounters { rx_bytes: at * 100, ..InterfaceCounters::default() };
    Usage {
        at: Now { wall: Wall(0), mono: Mono(Duration::from_secs(at)) },
        cpu: CpuUsage { total_ns: at * 1_000_000, ..CpuUsage::default() },
        block_io: Some(BlockUsage::default()),
        networks: Some(vec![InterfaceUsage { name: "eth0", counters }]),
        ..Usage::default()
    }
}

pub fn context(backend: &Backend, told: &Told, token: Option<&str>) -> TcsContext {
    let account = account(backend, token);
    TcsContext {
        api: EcsApi::new(&account),
        account,
        cluster: "peer".into(),
        instance: INSTANCE.into(),
        telemetry: Arc::new(told.clone()),
        drop_connection: Arc::new(Notify::new()),
        timings: TcsTimings {
            publish: Duration::from_millis(50),
            backoff: (Duration::from_millis(10), Duration::from_millis(50)),
            ..TcsTimings::default()
        },
    }
}

/// The next message of one type; others are passed over.
async fn next_of(connection: &mut Connection, wanted: &str) -> Value {
    loop {
        let (kind, body, _) = connection.receive_signed().await;
        if kind == wanted {
            return body;
        }
    }
}

/// Every value replaced by its type: keys and nesting are what is compared.
fn shape(value: &Value) -> Value {
    match value {
        Value::Object(fields) => fields.iter().map(|(key, value)| (key.clone(), shape(value))).collect(),
        Value::Array(entries) => Value::Array(entries.iter().map(shape).collect()),
        Value::Number(_) => "number".into(),
        Value::String(_) => "string".into(),
        Value::Bool(_) => "bool".into(),
        Value::Null => "null".into(),
    }
}

#[tokio::test]
async fn an_idle_agent_publishes_the_recorded_frame() {
    let mut backend = Backend::start().await;
    let session = tokio::spawn(run(context(&backend, &Told::nothing(), Some("token"))));
    let mut connection = backend.accept(Channel::Tcs).await;
    let mut expected: std::collections::BTreeMap<String, String> =
        serde_json::from_value(fixture("connect")["tcs"].clone()).unwrap();
    expected.remove("dockerVersion").unwrap();
    expected.insert("agentHash".into(), "*a8b3e7d3".into());
    assert_eq!(connection.query, expected);
    let mut recorded = fixture("connect")["idle"].clone();
    for _ in 0..3 {
        let (kind, mut body, signed) = connection.receive_signed().await;
        assert_eq!(
            (kind.as_str(), signed.as_str()),
            ("PublishMetricsRequest", "host;x-amz-date;x-amz-security-token")
        );
        assert!(body["timestamp"].as_f64().unwrap() > 1.7e9);
        for body in [&mut body, &mut recorded] {
            body["timestamp"].take();
            body["metadata"]["messageId"].take();
        }
        assert_eq!(body, recorded);
        connection.send("AckPublishMetric", json!({"message": "OK"})).await;
    }
    session.abort();
}

#[tokio::test]
async fn metrics_health_and_status_have_the_recorded_shapes() {
    let mut backend = Backend::start().await;
    let (told, targets) = Told::tasks(1);
    told.sample(&targets, 0);
    told.sample(&targets, 1);
    let arn = &targets[0].spec.arn;
    let health = |status| ContainerHealth { name: "main".into(), status, since: Wall(1_500_000_000) };
    told.health.lock().unwrap().push(TaskHealth {
        arn: arn.clone(),
        family: "family".into(),
        version: "7".into(),
        containers: vec![health(HealthStatus::Unknown)],
    });
    let check = InstanceCheck {
        kind: "ContainerRuntime",
        status: CheckStatus::Ok,
        last_updated: Wall(2_250_000_000),
        last_change: Wall(1_000_000_000),
        runs: 1,
        reason: None,
    };
    told.checks.lock().unwrap().push(check);
    let session = tokio::spawn(run(context(&backend, &told, None)));
    let mut connection = backend.accept(Channel::Tcs).await;
    let recorded = fixture("telemetry");
    let (kind, metrics, signed) = connection.receive_signed().await;
    assert_eq!((kind.as_str(), signed.as_str()), ("PublishMetricsRequest", "host;x-amz-date"));
    assert_eq!(shape(&metrics), shape(&recorded["metrics"]));
    assert_eq!((&metrics["metadata"]["idle"], &metrics["metadata"]["fin"]), (&json!(false), &json!(true)));
    let task = &metrics["taskMetrics"][0];
    assert_eq!(task["taskArn"], arn.as_str());
    assert_eq!(
        (&task["taskDefinitionFamily"], &task["taskDefinitionVersion"]),
        (&json!("family"), &json!("7"))
    );
    let container = &task["containerMetrics"][0];
    assert_eq!(container["containerName"], "main");
    assert_eq!(container["memoryStatsSet"], json!({"min": 0, "max": 0, "sampleCount": 2, "sum": 0}));
    assert_eq!(container["networkStatsSet"]["rxBytes"]["sum"], 100);
    assert_eq!(container["networkStatsSet"]["rxBytesPerSecond"]["max"], 100);
    let health = next_of(&mut connection, "PublishHealthRequest").await;
    assert_eq!(shape(&health), shape(&recorded["health"]));
    let container = json!({"containerName": "main", "healthStatus": "UNKNOWN", "statusSince": 1.5});
    assert_eq!(health["tasks"][0]["containers"], json!([container]));
    let status = next_of(&mut connection, "PublishInstanceStatusRequest").await;
    assert_eq!(shape(&status), shape(&recorded["instanceStatus"]));
    assert_eq!(
        status["statuses"],
        json!([{"type": "ContainerRuntime", "status": "OK", "lastUpdated": 2.25, "lastStatusChange": 1}])
    );
    // Nothing new was measured, so nothing is told but the health, until the doctor has looked again.
    for _ in 0..3 {
        assert_eq!(connection.receive_signed().await.0, "PublishHealthRequest");
    }
    told.checks.lock().unwrap()[0].runs += 1;
    next_of(&mut connection, "PublishInstanceStatusRequest").await;
    session.abort();
}

#[tokio::test]
async fn the_first_publication_is_without_the_instances_status() {
    let mut backend = Backend::start().await;
    let told = Told::nothing();
    let check = InstanceCheck {
        kind: "ContainerRuntime",
        status: CheckStatus::Initializing,
        last_updated: Wall(0),
        last_change: Wall(0),
        runs: 0,
        reason: None,
    };
    told.checks.lock().unwrap().push(check);
    let session = tokio::spawn(run(context(&backend, &told, None)));
    let mut connection = backend.accept(Channel::Tcs).await;
    for expected in ["PublishMetricsRequest", "PublishMetricsRequest", "PublishInstanceStatusRequest"] {
        assert_eq!(connection.receive_signed().await.0, expected);
    }
    session.abort();
}

#[tokio::test]
async fn many_tasks_are_told_in_parts_of_ten_of_one_publication() {
    let mut backend = Backend::start().await;
    let (told, targets) = Told::tasks(23);
    told.sample(&targets, 0);
    told.sample(&targets, 1);
    let session = tokio::spawn(run(context(&backend, &told, None)));
    let mut connection = backend.accept(Channel::Tcs).await;
    let mut ids = std::collections::BTreeSet::new();
    let mut arns = Vec::new();
    for (count, fin) in [(10, false), (10, false), (3, true)] {
        let (_, body, _) = connection.receive_signed().await;
        let tasks = body["taskMetrics"].as_array().unwrap();
        assert_eq!((tasks.len(), &body["metadata"]["fin"]), (count, &json!(fin)));
        ids.insert(body["metadata"]["messageId"].as_str().unwrap().to_owned());
        arns.extend(tasks.iter().map(|task| task["taskArn"].as_str().unwrap().to_owned()));
    }
    assert_eq!(ids.len(), 1);
    let expected: Vec<&str> = targets.iter().map(|target| target.spec.arn.as_str()).collect();
    assert_eq!(arns, expected);
    session.abort();
}

fn samples_in(body: &Value) -> u64 {
    let set = &body["taskMetrics"][0]["containerMetrics"][0]["memoryStatsSet"];
    set["sampleCount"].as_u64().unwrap()
}

#[tokio::test]
async fn a_connection_that_ends_costs_no_sample_and_none_is_told_twice() {
    let mut backend = Backend::start().await;
    let (told, targets) = Told::tasks(1);
    let mut context = context(&backend, &told, None);
    context.timings.publish = Duration::from_millis(5);
    let session = tokio::spawn(run(context));
    told.sample(&targets, 0);
    let (mut taken, mut seen) = (1, 0);
    for round in 0..12 {
        // The first of them was taken while there was no connection.
        let mut connection = backend.accept(Channel::Tcs).await;
        for _ in 0..3 {
            told.sample(&targets, taken);
            taken += 1;
            while seen < taken {
                seen += samples_in(&next_of(&mut connection, "PublishMetricsRequest").await);
            }
            assert_eq!(seen, taken);
        }
        connection.close(if round % 2 == 0 { 4001 } else { 1000 }, "").await;
        told.sample(&targets, taken);
        taken += 1;
    }
    session.abort();
}

#[tokio::test]
async fn nothing_is_claimed_before_it_is_known_and_a_cut_connection_is_replaced() {
    let mut backend = Backend::start().await;
    let (told, targets) = Told::tasks(1);
    let session = tokio::spawn(run(context(&backend, &told, None)));
    let mut busy = backend.accept(Channel::Tcs).await;
    busy.send_text("garbage").await;
    busy.send("StopTelemetrySessionMessage", json!({"message": "x"})).await;
    told.sample(&targets, 0);
    // The first frame ever comes only when there are two samples.
    told.sample(&targets, 1);
    let (kind, body, _) = busy.receive_signed().await;
    assert_eq!((kind.as_str(), &body["metadata"]["idle"]), ("PublishMetricsRequest", &json!(false)));
    told.statistics.track(&[]);
    let (_, body, _) = busy.receive_signed().await;
    assert_eq!(body["metadata"]["idle"], true);
    drop(busy);
    let mut next = backend.accept(Channel::Tcs).await;
    assert_eq!(next.receive_signed().await.0, "PublishMetricsRequest");
    next.close(4001, "x").await;
    backend.accept(Channel::Tcs).await;
    session.abort();
}

#[tokio::test]
async fn a_silent_service_gets_a_close_frame() {
    let mut backend = Backend::start().await;
    let mut context = context(&backend, &Told::tasks(1).0, None);
    context.timings.inactivity = (Duration::from_millis(100), Duration::ZERO);
    let session = tokio::spawn(run(context));
    let mut connection = backend.accept(Channel::Tcs).await;
    assert_eq!(connection.closed().await.0, 1000);
    drop(connection);
    backend.accept(Channel::Tcs).await;
    session.abort();
}

#[tokio::test]
async fn a_deregistered_instance_drops_its_connection() {
    let mut backend = Backend::start().await;
    let context = context(&backend, &Told::tasks(1).0, None);
    let drop_connection = context.drop_connection.clone();
    let session = tokio::spawn(run(context));
    let connection = backend.accept(Channel::Tcs).await;
    drop_connection.notify_one();
    connection.gone().await;
    backend.accept(Channel::Tcs).await;
    session.abort();
}

#[tokio::test]
async fn restarts_are_told_once_and_only_of_containers_with_a_policy() {
    let mut backend = Backend::start().await;
    let (told, mut targets) = Told::tasks_of(1, 2);
    let mut sample = |restarts, at| {
        targets[0].restarts = Some(restarts);
        told.statistics.track(&targets);
        told.sample(&targets, at);
    };
    sample(2, 1);
    sample(3, 2);
    let session = tokio::spawn(run(context(&backend, &told, None)));
    let mut connection = backend.accept(Channel::Tcs).await;
    let mut publication = async || {
        let body = next_of(&mut connection, "PublishMetricsRequest").await;
        body["taskMetrics"][0]["containerMetrics"].as_array().unwrap().clone()
    };
    let containers = publication().await;
    assert_eq!(containers[0]["restartStatsSet"], json!({"restartCount": 1}));
    assert_eq!(containers[1].get("restartStatsSet"), None);
    sample(3, 3);
    assert_eq!(publication().await[0]["restartStatsSet"], json!({"restartCount": 0}));
    session.abort();
}
