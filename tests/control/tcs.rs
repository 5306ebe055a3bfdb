//! TCS: idle telemetry, signed frame by frame.

use crate::support::backend::{Backend, Channel, INSTANCE};
use crate::{account, fixture};
use ecsd::control::EcsApi;
use ecsd::control::tcs::{TcsContext, TcsTimings, run};
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

fn context(backend: &Backend, idle: Arc<AtomicBool>, token: Option<&str>) -> TcsContext {
    let account = account(backend, token);
    TcsContext {
        api: EcsApi::new(&account),
        account,
        cluster: "peer".into(),
        instance: INSTANCE.into(),
        idle: Arc::new(move || idle.load(Ordering::Relaxed)),
        timings: TcsTimings {
            publish: Duration::from_millis(50),
            backoff: (Duration::from_millis(10), Duration::from_millis(50)),
            ..TcsTimings::default()
        },
    }
}

#[tokio::test]
async fn an_idle_agent_publishes_the_recorded_frame() {
    let mut backend = Backend::start().await;
    let session = tokio::spawn(run(context(&backend, Arc::new(AtomicBool::new(true)), Some("token"))));
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
async fn nothing_is_claimed_while_tasks_run_and_a_cut_connection_is_replaced() {
    let mut backend = Backend::start().await;
    let idle = Arc::new(AtomicBool::new(false));
    let session = tokio::spawn(run(context(&backend, Arc::clone(&idle), None)));
    let mut busy = backend.accept(Channel::Tcs).await;
    busy.send_text("garbage").await;
    busy.send("StopTelemetrySessionMessage", json!({"message": "x"})).await;
    idle.store(true, Ordering::Relaxed);
    // The first frame ever comes only now.
    assert_eq!(busy.receive_signed().await.0, "PublishMetricsRequest");
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
    let mut context = context(&backend, Arc::new(AtomicBool::new(false)), None);
    context.timings.inactivity = (Duration::from_millis(100), Duration::ZERO);
    let session = tokio::spawn(run(context));
    let mut connection = backend.accept(Channel::Tcs).await;
    assert_eq!(connection.closed().await.0, 1000);
    drop(connection);
    backend.accept(Channel::Tcs).await;
    session.abort();
}
