//! What the control plane should not send, and what it does on bad days.

use crate::scripted::{Scripted, arn, fresh_id, host_for, task};
use crate::support::backend::{Backend, Channel, INSTANCE};
use crate::support::host::on_own_network;
use serde_json::json;
use tokio_tungstenite::tungstenite::Message;

#[test]
fn tasks_that_make_no_sense_are_reported_stopped_and_others_beside_them_run() {
    on_own_network(|| async {
        let mut scripted = Scripted::start().await;
        let ids: Vec<String> = (0..5).map(|_| fresh_id()).collect();
        let mut empty = task(&ids[0], "exit 0");
        empty["containers"] = json!([]);
        let mut unreadable = task(&ids[1], "exit 0");
        unreadable["containers"][0]["dockerConfig"]["hostConfig"] = "{\"Memory\": ".into();
        let mut cycle = task(&ids[2], "exit 0");
        let mut other = cycle["containers"][0].clone();
        other["name"] = "other".into();
        other["dependsOn"] = json!([{"containerName": "main", "condition": "START"}]);
        cycle["containers"][0]["dependsOn"] = json!([{"containerName": "other", "condition": "START"}]);
        cycle["containers"].as_array_mut().unwrap().push(other);
        let mut absurd = task(&ids[3], "exit 0");
        absurd["containers"][0]["memory"] = json!(i64::MAX);
        let good = task(&ids[4], "exit 3");
        scripted.send_payload("mixed", json!([empty, unreadable, cycle, absurd, good])).await;
        // Each may come before another.
        let mut reasons = std::collections::BTreeMap::new();
        while reasons.len() < 5 {
            let call = scripted.backend.call_of("SubmitTaskStateChange").await.body;
            if call["status"] == "STOPPED" {
                let code = call["containers"][0]["exitCode"].as_i64();
                reasons.insert(call["task"].as_str().unwrap().to_owned(), (call["reason"].to_string(), code));
            }
        }
        let reason = |n: usize| reasons[&arn(&ids[n])].0.as_str();
        assert!(reason(0).contains("no containers"), "{reasons:#?}");
        assert!(reason(1).contains("hostConfig"), "{reasons:#?}");
        assert_eq!(reason(2), format!("\"Task dependencies cannot be resolved, taskArn: {}\"", arn(&ids[2])));
        assert!(reason(3).contains("memory"), "{reasons:#?}");
        assert_eq!(reasons[&arn(&ids[4])].1, Some(3));
        scripted.host.until_nothing_is_left().await;
    });
}

#[test]
fn garbage_on_the_websocket_does_no_harm() {
    on_own_network(|| async {
        let mut scripted = Scripted::start().await;
        let frames = [
            Message::text("no json"),
            Message::text("{}"),
            Message::text("[1, 2, 3]"),
            Message::text("{\"type\": \"PayloadMessage\"}"),
            Message::text(
                "{\"type\": \"PayloadMessage\", \"message\": {\"messageId\": 7, \"tasks\": \"many\"}}",
            ),
            Message::text("{\"type\": \"SomethingNew\", \"message\": {\"a\": [1]}}"),
            Message::text(
                "{\"type\": \"PayloadMessage\", \"message\": {\"messageId\": \"x\", \"tasks\": [{\"arn\": \"../../etc\"}]}}",
            ),
            Message::binary(vec![0xff_u8, 0, 1]),
            Message::text(format!("{}{}", "[".repeat(20_000), "]".repeat(20_000))),
        ];
        for frame in frames {
            scripted.acs.try_send(frame).await;
        }
        let id = fresh_id();
        // The agent may have hung up over a frame; then it comes again.
        let (backend, acs) = (&mut scripted.backend, &mut scripted.acs);
        if backend.knocks(Channel::Acs) {
            *acs = backend.accept(Channel::Acs).await;
        }
        scripted.send(json!([task(&id, "exit 4")])).await;
        let report = scripted.reported(&id, "STOPPED").await;
        assert_eq!(report["containers"][0]["exitCode"], 4);
    });
}

#[test]
fn a_task_waits_for_its_port_until_the_one_before_it_has_stopped() {
    on_own_network(|| async {
        let mut scripted = Scripted::start().await;
        let (first, second) = (fresh_id(), fresh_id());
        let with_port = |id: &str, script: &str| {
            let mut task = task(id, script);
            task["containers"][0]["portMappings"] =
                json!([{"containerPort": 80, "hostPort": 8080, "protocol": "tcp"}]);
            task
        };
        scripted
            .send(json!([with_port(&first, "trap 'exit 7' TERM; echo ready; while :; do sleep 0.1; done")]))
            .await;
        scripted.reported(&first, "RUNNING").await;
        scripted.host.until("it is ready", |host| host.logs(&arn(&first), "main").contains("ready")).await;
        scripted.send(json!([with_port(&second, "exit 5")])).await;
        // It was taken, and waits: the first one's report comes first.
        let mut stop = with_port(&first, "");
        stop["desiredStatus"] = "STOPPED".into();
        scripted.send(json!([stop])).await;
        let mut order = Vec::new();
        while order.len() < 2 {
            let body = scripted.backend.call_of("SubmitTaskStateChange").await.body;
            if body["status"] == "STOPPED" {
                order.push((body["task"].clone(), body["containers"][0]["exitCode"].as_i64()));
            } else {
                assert!(order.len() == 1, "the second began before the first had ended: {body:#}");
            }
        }
        assert_eq!(order, [(json!(arn(&first)), Some(7)), (json!(arn(&second)), Some(5))]);
    });
}

#[test]
fn a_back_end_that_fails_and_throttles_is_asked_again_and_nothing_is_lost() {
    on_own_network(|| async {
        let backend = Backend::start().await;
        let fault = |kind: &str| json!({"__type": kind, "message": "not today"});
        backend.answer("RegisterContainerInstance", [(500, fault("ServerException"))]);
        backend.answer(
            "DiscoverPollEndpoint",
            [(500, fault("ServerException")), (400, fault("ThrottlingException"))],
        );
        backend.answer(
            "SubmitTaskStateChange",
            [(500, fault("ServerException")), (400, fault("ThrottlingException")), (503, json!("busy"))],
        );
        let host = host_for(&backend).await;
        let mut scripted = {
            let mut backend = backend;
            let acs = backend.accept(Channel::Acs).await;
            Scripted { host, backend, acs }
        };
        let id = fresh_id();
        scripted.send(json!([task(&id, "exit 3")])).await;
        // The answers that failed are calls too: the fourth at the earliest was heard.
        let mut heard = 0;
        loop {
            let call = scripted.backend.call_of("SubmitTaskStateChange").await;
            heard += 1;
            if call.body["status"] == "STOPPED" && heard > 3 {
                assert_eq!(call.body["containers"][0]["exitCode"], 3);
                break;
            }
        }
        scripted.host.until_nothing_is_left().await;
    });
}

#[test]
fn the_saved_instance_is_registered_again_after_a_kill() {
    on_own_network(|| async {
        let mut scripted = Scripted::start().await;
        let first = scripted.backend.call_of("RegisterContainerInstance").await;
        assert!(first.body.get("containerInstanceArn").is_none_or(|arn| arn.is_null()), "{:#}", first.body);
        scripted.host.kill_agent();
        let endpoint = scripted.backend.endpoint().to_owned();
        scripted.host.start_agent_at(&endpoint);
        let again = scripted.backend.call_of("RegisterContainerInstance").await;
        assert_eq!(again.body["containerInstanceArn"], INSTANCE);
    });
}
