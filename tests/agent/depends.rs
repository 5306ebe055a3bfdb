//! dependsOn: the order of starts, the reverse order of stops, and conditions that are never met.

use crate::support::host::{container, family, with_agent};
use serde_json::{Value, json};

/// A container that shares the volume `v` of its task.
fn sharing(name: &str, script: &str, on: &[(&str, &str)]) -> Value {
    let on: Vec<Value> =
        on.iter().map(|(name, what)| json!({"containerName": name, "condition": what})).collect();
    let volume = json!([{"sourceVolume": "v", "containerPath": "/v"}]);
    container(name, script, json!({"mountPoints": volume, "dependsOn": on, "essential": name == "main"}))
}

fn with_volume(name: &str, containers: impl IntoIterator<Item = Value>) -> Value {
    let mut definition = family(name, containers);
    definition["volumes"] = json!([{"name": "v"}]);
    definition
}

const STAYS: &str = "trap 'sleep 0.5; echo $NAME-ended >> /v/order; exit 0' TERM; echo $NAME >> /v/order; while :; do sleep 0.1; done";

#[test]
fn containers_start_in_order_and_stop_in_the_reverse() {
    with_agent(|host| async move {
        let stays = |name: &str| STAYS.replace("$NAME", name);
        let arn = host.run_task(with_volume(
            "order",
            [
                sharing("main", &stays("main"), &[("server", "START"), ("done", "COMPLETE")]),
                sharing("server", &stays("server"), &[("init", "SUCCESS")]),
                sharing("done", "sleep 0.2; echo done >> /v/order; exit 3", &[("init", "SUCCESS")]),
                sharing("init", "sleep 0.2; echo init >> /v/order", &[]),
            ],
        ));
        host.until_status(&arn, "RUNNING").await;
        let order = |host: &crate::support::host::Host| {
            let file = host.volume("order", "v").join("order");
            std::fs::read_to_string(file).unwrap_or_default().lines().map(str::to_owned).collect::<Vec<_>>()
        };
        host.until("all have started", |host| order(host).len() == 4).await;
        let started = order(&host);
        let at = |name: &str| started.iter().position(|line| line == name).unwrap();
        assert_eq!(at("init"), 0);
        assert!(at("done") < at("main"), "{started:?}");
        host.control.stop_task(&arn, "test").unwrap();
        host.until("both have ended", |host| order(host).len() == 6).await;
        assert_eq!(order(&host)[4..], ["main-ended", "server-ended"]);
        let task = host.until_status(&arn, "STOPPED").await;
        let codes: Vec<_> = task.containers.iter().map(|c| c.exit_code).collect();
        assert_eq!(codes, [Some(0), Some(0), Some(3), Some(0)]);
    });
}

#[test]
fn a_dependency_that_fails_ends_who_waits_for_its_success() {
    with_agent(|host| async move {
        let arn = host.run_task(with_volume(
            "unmet",
            [sharing("main", "exit 0", &[("init", "SUCCESS")]), sharing("init", "exit 1", &[])],
        ));
        let task = host.until_status(&arn, "STOPPED").await;
        let main = &task.containers[0];
        assert_eq!(main.exit_code, Some(143), "{task:#?}");
        let reason = main.reason.clone().unwrap();
        assert!(
            reason.contains("failed to resolve container ordering dependency")
                && reason.contains("Exit: 1")
                && reason.ends_with("as dependency did not exit successfully."),
            "{reason}"
        );
        assert_eq!(task.containers[1].exit_code, Some(1));
    });
}
