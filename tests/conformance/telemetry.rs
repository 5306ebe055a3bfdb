//! TCS: what is told of running tasks and of the instance. A publication comes every 20 seconds, so
//! these wait; shapes, parts and repetitions are held by `tests/control/tcs.rs`, with a shorter one.

use crate::scripted::{Scripted, arn, fresh_id, task};
use crate::support::backend::{Channel, Connection};
use crate::support::host::{PATIENCE, on_own_network};
use serde_json::{Value, json};

const STAYS: &str = "trap 'exit 0' TERM; while :; do sleep 0.1; done";

/// The next frame, its signature verified: type and body.
async fn frame(tcs: &mut Connection) -> (String, Value) {
    let text = tokio::time::timeout(PATIENCE, tcs.next_text()).await.expect("no frame came");
    let (kind, body, _) = tcs.verified(&text.expect("the telemetry ended"));
    (kind, body)
}

async fn next_of(tcs: &mut Connection, wanted: &str) -> Value {
    loop {
        let (kind, body) = frame(tcs).await;
        if kind == wanted {
            return body;
        }
    }
}

fn assert_idle(body: &Value) {
    assert_eq!((&body["metadata"]["idle"], &body["metadata"]["fin"]), (&json!(true), &json!(true)));
    assert!(body.get("taskMetrics").is_none(), "{body}");
}

#[test]
fn a_running_task_is_measured_and_none_is_idle() {
    on_own_network(|| async {
        let mut scripted = Scripted::start().await;
        let mut tcs = scripted.backend.accept(Channel::Tcs).await;
        let (kind, body) = frame(&mut tcs).await;
        assert_eq!(kind, "PublishMetricsRequest");
        assert_idle(&body);
        let id = fresh_id();
        scripted.send(json!([task(&id, STAYS)])).await;
        scripted.reported(&id, "RUNNING").await;
        let mut body = next_of(&mut tcs, "PublishMetricsRequest").await;
        if body["metadata"]["idle"] == true {
            // It came up too late for this one.
            body = next_of(&mut tcs, "PublishMetricsRequest").await;
        }
        assert_eq!((&body["metadata"]["idle"], &body["metadata"]["fin"]), (&json!(false), &json!(true)));
        let [told] = body["taskMetrics"].as_array().unwrap().as_slice() else { panic!("{body}") };
        assert_eq!(told["taskArn"], arn(&id));
        assert_eq!(
            (&told["taskDefinitionFamily"], &told["taskDefinitionVersion"]),
            (&json!("scripted"), &json!("1"))
        );
        let [container] = told["containerMetrics"].as_array().unwrap().as_slice() else { panic!("{body}") };
        assert_eq!(container["containerName"], "main");
        for set in ["cpuStatsSet", "memoryStatsSet"] {
            assert!(container[set]["sampleCount"].as_u64() > Some(0), "{set}: {container}");
        }
    });
}

#[test]
fn an_instance_is_impaired_while_containerd_does_not_answer() {
    on_own_network(|| async {
        let mut scripted = Scripted::start().await;
        let mut tcs = scripted.backend.accept(Channel::Tcs).await;
        for (stands_still, status) in [(true, "IMPAIRED"), (false, "OK")] {
            if stands_still {
                scripted.host.containerd.stand_still();
            } else {
                scripted.host.containerd.go_on();
            }
            // A heartbeat, which makes the instance look at itself.
            scripted.acs.is_quiet().await;
            let told = loop {
                let body = next_of(&mut tcs, "PublishInstanceStatusRequest").await;
                let [check] = body["statuses"].as_array().unwrap().as_slice() else { panic!("{body}") };
                // A status of before the heartbeat may be on its way.
                if check["status"] == status {
                    break check.clone();
                }
            };
            assert_eq!(told["type"], "ContainerRuntime");
        }
    });
}

#[test]
fn with_metrics_disabled_a_running_task_is_idle_and_has_no_statistics() {
    on_own_network(|| async {
        let mut scripted = Scripted::start_with(&[("ECS_DISABLE_METRICS", "true")]).await;
        let mut tcs = scripted.backend.accept(Channel::Tcs).await;
        let id = fresh_id();
        scripted.send(json!([task(&id, STAYS)])).await;
        scripted.reported(&id, "RUNNING").await;
        let ask = |uri: &str| {
            let script = format!("wget -qO- ${uri}/stats 2>&1 || true; wget -qO- ${uri}/task/stats");
            scripted.host.exec(&arn(&id), "main", &["sh", "-c", &script])
        };
        let container = scripted.host.container_id(&arn(&id), "main");
        for (uri, status, nothing) in [
            ("ECS_CONTAINER_METADATA_URI", "400 Bad Request", "null"),
            ("ECS_CONTAINER_METADATA_URI_V4", "500 Internal Server Error", "{}"),
        ] {
            let answers = ask(uri);
            assert!(answers.contains(status), "{uri}: {answers}");
            assert!(answers.contains(&format!("{{\"{container}\":{nothing}}}")), "{uri}: {answers}");
        }
        // The second of them comes when there was time enough to measure.
        for _ in 0..2 {
            assert_idle(&next_of(&mut tcs, "PublishMetricsRequest").await);
        }
    });
}
