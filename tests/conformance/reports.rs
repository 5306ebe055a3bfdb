//! Reports: their order, what they are collected into, how many go at once, and which errors drop one.

use crate::scripted::{Scripted, arn, fresh_id, task};
use crate::support::backend::{Backend, Channel};
use crate::support::host::{PATIENCE, on_own_network};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

const SUBMIT: &str = "SubmitTaskStateChange";

/// The next report, however long the ticker takes.
async fn report(backend: &mut Backend) -> Value {
    let begun = Instant::now();
    loop {
        if let Some(call) = backend.waiting_call_of(SUBMIT) {
            return call.body;
        }
        assert!(begun.elapsed() < PATIENCE, "no report came");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Reports of one task up to and with its STOPPED; those of others are passed over.
async fn to_the_end(backend: &mut Backend, id: &str) -> Vec<Value> {
    let mut all: Vec<Value> = Vec::new();
    while all.last().is_none_or(|last| last["status"] != "STOPPED") {
        let next = report(backend).await;
        if next["task"] == arn(id).as_str() {
            all.push(next);
        }
    }
    all
}

fn statuses(reports: &[Value]) -> Vec<&str> {
    reports.iter().map(|report| report["status"].as_str().unwrap()).collect()
}

/// Statuses never go back, and each is told once.
fn in_order(reports: &[Value]) {
    let order = ["PENDING", "RUNNING", "STOPPED"];
    let ranks: Vec<_> =
        statuses(reports).iter().map(|s| order.iter().position(|o| o == s).unwrap()).collect();
    assert!(ranks.is_sorted_by(|a, b| a < b), "{reports:#?}");
}

#[test]
fn a_task_is_told_in_order_with_what_each_status_holds() {
    on_own_network(|| async {
        let mut scripted = Scripted::start().await;
        let id = fresh_id();
        scripted.send(json!([task(&id, "sleep 2; exit 6")])).await;
        let reports = to_the_end(&mut scripted.backend, &id).await;
        in_order(&reports);
        assert_eq!(statuses(&reports)[reports.len() - 2..], ["RUNNING", "STOPPED"]);
        for report in &reports {
            assert_eq!((report["cluster"].as_str(), report["reason"].as_str()), (Some("peer"), Some("")));
        }
        let [.., running, stopped] = reports.as_slice() else { panic!("{reports:#?}") };
        let container = &running["containers"][0];
        assert_eq!((&container["containerName"], &container["status"]), (&json!("main"), &json!("RUNNING")));
        assert_eq!(container["runtimeId"], scripted.host.container_id(&arn(&id), "main"));
        let container = &stopped["containers"][0];
        assert_eq!((&container["status"], &container["exitCode"]), (&json!("STOPPED"), &json!(6)));
        assert!(stopped["executionStoppedAt"].is_number(), "{stopped}");
    });
}

#[test]
fn what_only_a_container_does_is_collected_and_sent_under_the_tasks_status() {
    on_own_network(|| async {
        let mut scripted = Scripted::start().await;
        let id = fresh_id();
        let mut wanted = task(&id, "trap 'exit 0' TERM; while :; do sleep 0.1; done");
        let mut side = wanted["containers"][0].clone();
        side["name"] = json!("side");
        side["essential"] = json!(false);
        side["command"] = json!(["sh", "-c", "sleep 3; exit 3"]);
        wanted["containers"].as_array_mut().unwrap().push(side);
        scripted.send(json!([wanted])).await;
        let stopped = loop {
            let next = report(&mut scripted.backend).await;
            let containers = next["containers"].as_array().cloned().unwrap_or_default();
            assert_ne!(next["status"], "STOPPED", "the essential container still runs");
            if containers.iter().any(|c| c["containerName"] == "side" && c["status"] == "STOPPED") {
                break next;
            }
        };
        assert_eq!(stopped["status"], "RUNNING");
        assert_eq!(stopped["containers"].as_array().unwrap().len(), 1, "only what is new: {stopped}");
        assert_eq!(stopped["containers"][0]["exitCode"], 3);
    });
}

#[test]
fn a_report_that_hangs_holds_back_its_own_task_alone() {
    on_own_network(|| async {
        let mut scripted = Scripted::start().await;
        let (stuck, free) = (fresh_id(), fresh_id());
        let gate = scripted.backend.hold(SUBMIT, Some(&arn(&stuck)));
        scripted.send(json!([task(&stuck, "exit 4"), task(&free, "sleep 1; exit 5")])).await;
        let mut of_stuck = Vec::new();
        loop {
            let next = report(&mut scripted.backend).await;
            if next["task"] == arn(&stuck).as_str() {
                of_stuck.push(next);
            } else if next["status"] == "STOPPED" {
                break;
            }
        }
        assert_eq!(of_stuck.len(), 1, "the next waits for the first: {of_stuck:#?}");
        drop(gate);
        if of_stuck[0]["status"] != "STOPPED" {
            of_stuck.extend(to_the_end(&mut scripted.backend, &stuck).await);
        }
        in_order(&of_stuck);
        assert_eq!(of_stuck.last().unwrap()["containers"][0]["exitCode"], 4);
    });
}

#[test]
fn ten_tasks_are_reported_at_once_and_the_others_after_them() {
    on_own_network(|| async {
        const TASKS: usize = 13;
        let mut scripted = Scripted::start().await;
        let ids: Vec<String> = (0..TASKS).map(|_| fresh_id()).collect();
        let gate = scripted.backend.hold(SUBMIT, None);
        scripted.send(ids.iter().map(|id| task(id, "echo done")).collect()).await;
        let mut first = Vec::new();
        while first.len() < 10 {
            first.push(report(&mut scripted.backend).await);
        }
        // By now every task has something to tell.
        scripted
            .host
            .until("all have run", |host| ids.iter().all(|id| host.logs(&arn(id), "main").contains("done")))
            .await;
        assert!(scripted.backend.waiting_call_of(SUBMIT).is_none(), "an eleventh");
        let mut tasks: Vec<_> = first.iter().map(|report| report["task"].to_string()).collect();
        tasks.sort();
        tasks.dedup();
        assert_eq!(tasks.len(), 10, "one of each task");
        drop(gate);
        let mut stopped: usize = first.iter().filter(|report| report["status"] == "STOPPED").count();
        while stopped < TASKS {
            stopped += usize::from(report(&mut scripted.backend).await["status"] == "STOPPED");
        }
    });
}

#[test]
fn only_an_invalid_parameter_drops_a_report() {
    on_own_network(|| async {
        let mut scripted = Scripted::start().await;
        let error = |kind: &str| json!({"__type": kind, "message": "scripted"});
        scripted.backend.answer(
            SUBMIT,
            [
                (400, error("InvalidParameterException")),
                (500, error("ServerException")),
                (400, error("ThrottlingException")),
                (400, error("AccessDeniedException")),
            ],
        );
        let id = fresh_id();
        scripted.send(json!([task(&id, "sleep 2; exit 8")])).await;
        let dropped = report(&mut scripted.backend).await;
        let kept = report(&mut scripted.backend).await;
        assert_ne!(kept["status"], dropped["status"], "the refused one is not repeated");
        for _ in 0..3 {
            assert_eq!(report(&mut scripted.backend).await, kept, "any other error: the same again");
        }
        if kept["status"] != "STOPPED" {
            let rest = to_the_end(&mut scripted.backend, &id).await;
            in_order(&rest);
            assert_eq!(rest.last().unwrap()["containers"][0]["exitCode"], 8);
        }
    });
}

#[test]
fn what_was_not_accepted_is_told_after_a_kill_and_what_was_never_again() {
    on_own_network(|| async {
        let mut scripted = Scripted::start().await;
        let id = fresh_id();
        scripted.send(json!([task(&id, "while ! [ -e /tmp/go ]; do sleep 0.1; done; exit 6")])).await;
        scripted.reported(&id, "RUNNING").await;
        // Its answer has reached the agent when a later question has been answered.
        scripted.acs.is_quiet().await;
        let gate = scripted.backend.hold(SUBMIT, None);
        scripted.host.exec(&arn(&id), "main", &["touch", "/tmp/go"]);
        assert_eq!(report(&mut scripted.backend).await["status"], "STOPPED");
        scripted.host.kill_agent();
        drop(gate);
        // The agent may have been about to repeat it.
        scripted.backend.waiting_calls();
        let endpoint = scripted.backend.endpoint().to_owned();
        scripted.host.start_agent_at(&endpoint);
        let again = report(&mut scripted.backend).await;
        assert_eq!((&again["task"], &again["status"]), (&json!(arn(&id)), &json!("STOPPED")));
        assert_eq!(again["containers"][0]["exitCode"], 6);
        let mut acs = scripted.backend.accept(Channel::Acs).await;
        acs.is_quiet().await;
        scripted.host.until_nothing_is_left().await;
        scripted.host.kill_agent();
        assert!(scripted.backend.waiting_call_of(SUBMIT).is_none(), "accepted, and told again");
        scripted.host.start_agent_at(&endpoint);
        scripted.backend.accept(Channel::Acs).await.is_quiet().await;
        assert!(scripted.backend.waiting_call_of(SUBMIT).is_none(), "accepted, and told after a restart");
    });
}
