//! Connections that end, and what an agent without one does. Timers of minutes are held by
//! `tests/control/recovery.rs`.

use crate::scripted::{Scripted, arn, fresh_id, host_for, task};
use crate::support::backend::{Backend, Channel};
use crate::support::host::on_own_network;
use serde_json::json;

#[test]
fn every_end_of_a_session_is_followed_by_another_and_costs_no_task() {
    on_own_network(|| async {
        let mut scripted = Scripted::start().await;
        let id = fresh_id();
        let mut wanted = task(&id, "trap 'exit 9' TERM; while :; do sleep 0.1; done");
        scripted.send(json!([wanted.clone()])).await;
        scripted.reported(&id, "RUNNING").await;
        let pid = scripted.host.container_pid(&arn(&id), "main");
        // Clean ends, codes that are failures, and a cut.
        for code in [1000, 1001, 1011, 4000, 1008] {
            scripted.acs.close(code, "scripted").await;
            scripted.acs = scripted.backend.accept(Channel::Acs).await;
            assert_eq!(scripted.acs.query["sendCredentials"], "false", "after {code}");
            scripted.acs.is_quiet().await;
        }
        scripted.backend.refuse(Channel::Acs, 500, "<html>");
        scripted.backend.refuse(Channel::Acs, 400, r#"{"ServerException":"later"}"#);
        drop(scripted.acs);
        scripted.acs = scripted.backend.accept(Channel::Acs).await;
        assert_eq!(scripted.host.container_pid(&arn(&id), "main"), pid);
        wanted["desiredStatus"] = json!("STOPPED");
        scripted.send(json!([wanted])).await;
        assert_eq!(scripted.reported(&id, "STOPPED").await["containers"][0]["exitCode"], 9);
        // A cut of the telemetry is mended as well.
        for _ in 0..2 {
            let mut tcs = scripted.backend.accept(Channel::Tcs).await;
            tcs.send("AckPublishMetric", json!({"message": "OK"})).await;
        }
    });
}

#[test]
fn an_instance_that_is_not_registered_any_more_waits_and_lives_on() {
    on_own_network(|| async {
        let mut backend = Backend::start().await;
        backend.refuse(
            Channel::Acs,
            400,
            r#"{"type":"InactiveInstanceException","message":{"message":"gone"}}"#,
        );
        let mut host = host_for(&backend).await;
        host.until("it was told", |host| host.agent_log().contains("not registered any more")).await;
        assert!(!backend.knocks(Channel::Acs), "an hour from now");
        assert_eq!(host.stop_agent().await.0, Some(0), "it did not end by itself");
    });
}

#[test]
fn an_instance_that_is_not_registered_any_more_drops_its_telemetry() {
    on_own_network(|| async {
        let mut scripted = Scripted::start().await;
        let mut tcs = scripted.backend.accept(Channel::Tcs).await;
        assert_eq!(tcs.receive_signed().await.0, "PublishMetricsRequest");
        scripted.backend.refuse(
            Channel::Acs,
            400,
            r#"{"type":"InactiveInstanceException","message":{"message":"gone"}}"#,
        );
        scripted.acs.close(1000, "scripted").await;
        tcs.gone().await;
    });
}
