//! Health checks of containers through the whole agent: who waits for them, who is told, and that they
//! hold up nothing.

use crate::scripted::{Scripted, arn, fresh_id, task};
use crate::support::backend::{Channel, Connection};
use crate::support::host::{self, Host, family, on_own_network, with_agent};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// A container of a payload that runs a script, beside the host's directory at /v.
fn container(id: &str, name: &str, script: &str, more: Value) -> Value {
    let mut container = task(id, script)["containers"][0].take();
    container["name"] = name.into();
    container["essential"] = (name == "main").into();
    container["mountPoints"] = json!([{"sourceVolume": "v", "containerPath": "/v"}]);
    for (key, value) in more.as_object().unwrap() {
        container[key] = value.clone();
    }
    container
}

/// The members of a container that is checked by this shell line ten times a second.
fn checked(line: &str, more: Value) -> Value {
    let mut check = json!({"Test": ["CMD-SHELL", line], "Interval": 100_000_000, "Timeout": 5_000_000_000i64, "Retries": 2});
    for (key, value) in more.as_object().unwrap() {
        check[key] = value.clone();
    }
    json!({
        "healthCheckType": "docker",
        "dockerConfig": {"config": json!({"Healthcheck": check}).to_string(), "hostConfig": "{\"NetworkMode\":\"bridge\"}"},
    })
}

fn of(id: &str, shared: &Path, containers: Value) -> Value {
    let mut task = task(id, "");
    task["volumes"] = json!([{"name": "v", "host": {"sourcePath": shared.display().to_string()}}]);
    task["containers"] = containers;
    task
}

/// A directory of the host that containers share.
fn shared(host: &Host) -> PathBuf {
    let directory = host.dir.path().join("shared");
    std::fs::create_dir_all(&directory).unwrap();
    directory
}

const STAYS: &str = "trap 'exit 0' TERM; while :; do sleep 0.1; done";

fn metadata(host: &Host, arn: &str, path: &str) -> Value {
    let script = format!("wget -qO- $ECS_CONTAINER_METADATA_URI_V4{path}");
    serde_json::from_str(&host.exec(arn, "main", &["sh", "-c", &script])).unwrap()
}

fn health_of(task: &Value, name: &str) -> Value {
    let containers = task["Containers"].as_array().unwrap();
    containers.iter().find(|container| container["Name"] == name).unwrap()["Health"].clone()
}

/// The next publication of health that says this of these containers of the task.
async fn published(tcs: &mut Connection, arn: &str, wanted: &[(&str, &str)]) -> Value {
    loop {
        let (kind, body, _) = tcs.receive_signed().await;
        if kind != "PublishHealthRequest" {
            continue;
        }
        let tasks = body["tasks"].as_array().unwrap();
        let Some(task) = tasks.iter().find(|task| task["taskArn"] == arn) else { continue };
        let told = |name: &str| {
            let mut all = task["containers"].as_array().unwrap().iter();
            all.find(|container| container["containerName"] == name).map(|c| c["healthStatus"].clone())
        };
        if wanted.iter().all(|(name, status)| told(name).is_some_and(|told| told == *status)) {
            return task.clone();
        }
    }
}

#[test]
fn dependents_wait_for_a_healthy_container_and_everybody_is_told() {
    on_own_network(|| async {
        let mut scripted = Scripted::start().await;
        let mut tcs = scripted.backend.accept(Channel::Tcs).await;
        let (id, directory) = (fresh_id(), shared(&scripted.host));
        let on = json!({"dependsOn": [{"containerName": "db", "condition": "HEALTHY"}]});
        let db = "echo db >> /v/order; sleep 1; echo ready >> /v/order; touch /tmp/ok; ";
        let containers = json!([
            container(&id, "main", &format!("echo main >> /v/order; {STAYS}"), on),
            container(
                &id,
                "db",
                &format!("{db}{STAYS}"),
                checked("test -f /tmp/ok && echo fine", json!({"Retries": 1000}))
            ),
            container(&id, "ill", STAYS, checked("echo broken >&2; exit 3", json!({}))),
            container(&id, "fresh", STAYS, checked("true", json!({"Interval": 3_600_000_000_000i64}))),
        ]);
        scripted.send(json!([of(&id, &directory, containers)])).await;
        scripted.reported(&id, "RUNNING").await;
        let order = || std::fs::read_to_string(directory.join("order")).unwrap();
        scripted.host.until("the dependent has started", |_| order().lines().count() == 3).await;
        assert_eq!(order(), "db\nready\nmain\n");

        let host = &scripted.host;
        let arn = arn(&id);
        host.until("ill is unhealthy", |host| {
            health_of(&metadata(host, &arn, "/task"), "ill")["status"] == "UNHEALTHY"
        })
        .await;
        let seen = metadata(host, &arn, "/task");
        let since = |health: &mut Value| health.as_object_mut().unwrap().remove("statusSince").unwrap();
        let mut ill = health_of(&seen, "ill");
        assert!(since(&mut ill).as_str().is_some_and(|text| text.ends_with('Z')), "{seen}");
        assert_eq!(ill, json!({"status": "UNHEALTHY", "exitCode": 3, "output": "broken\n"}));
        let mut db = health_of(&seen, "db");
        since(&mut db);
        assert_eq!(db, json!({"status": "HEALTHY", "output": "fine\n"}));
        assert_eq!(health_of(&seen, "fresh"), json!({}));
        assert_eq!(health_of(&seen, "main"), Value::Null);
        assert_eq!(seen["KnownStatus"], "RUNNING", "health changes no status");

        let told =
            published(&mut tcs, &arn, &[("db", "HEALTHY"), ("ill", "UNHEALTHY"), ("fresh", "UNKNOWN")]).await;
        assert_eq!(told["containers"].as_array().unwrap().len(), 3, "{told:#}");
        for container in told["containers"].as_array().unwrap() {
            let members: Vec<&String> = container.as_object().unwrap().keys().collect();
            assert_eq!(members, ["containerName", "healthStatus", "statusSince"]);
        }
    });
}

#[test]
fn after_a_restart_of_the_agent_checks_begin_again() {
    on_own_network(|| async {
        let mut scripted = Scripted::start().await;
        let (id, directory) = (fresh_id(), shared(&scripted.host));
        let on = json!({"dependsOn": [{"containerName": "db", "condition": "HEALTHY"}]});
        let containers = json!([
            container(&id, "main", &format!("touch /v/main; {STAYS}"), on),
            container(&id, "db", STAYS, checked("echo >> /v/runs; test -f /v/ok", json!({"Retries": 1000}))),
        ]);
        scripted.send(json!([of(&id, &directory, containers)])).await;
        let runs = || std::fs::read_to_string(directory.join("runs")).unwrap_or_default().lines().count();
        scripted.host.until("checks are run", |_| runs() > 2).await;
        scripted.host.kill_agent();
        scripted.host.start_agent_at(scripted.backend.endpoint());
        let so_far = runs();
        scripted.host.until("checks are run again", |_| runs() > so_far + 2).await;
        assert!(!directory.join("main").exists());
        std::fs::write(directory.join("ok"), "").unwrap();
        scripted.reported(&id, "RUNNING").await;
        scripted.host.until("the dependent has started", |_| directory.join("main").exists()).await;
    });
}

#[test]
fn a_check_that_hangs_delays_nothing_and_leaves_nothing() {
    on_own_network(|| async {
        let mut scripted = Scripted::start().await;
        let (id, directory) = (fresh_id(), shared(&scripted.host));
        let hangs = "echo >> /v/runs; sleep 1000; true";
        let slow = json!({"Timeout": 3_600_000_000_000i64});
        let containers = json!([
            container(&id, "main", STAYS, checked(hangs, slow)),
            container(&id, "quick", STAYS, checked("echo >> /v/quick", json!({}))),
        ]);
        scripted.send(json!([of(&id, &directory, containers)])).await;
        scripted.reported(&id, "RUNNING").await;
        let lines =
            |name: &str| std::fs::read_to_string(directory.join(name)).unwrap_or_default().lines().count();
        scripted
            .host
            .until("one hangs and the other goes on", |_| lines("runs") == 1 && lines("quick") > 5)
            .await;
        let mut stop = of(&id, &directory, json!([]));
        stop["containers"] = json!([container(&id, "main", STAYS, json!({}))]);
        stop["desiredStatus"] = "STOPPED".into();
        scripted.send(json!([stop])).await;
        let report = scripted.reported(&id, "STOPPED").await;
        for container in report["containers"].as_array().unwrap() {
            // By its stop signal: nothing had to be killed.
            assert_eq!(container["exitCode"], 0, "{report:#}");
        }
        assert_eq!(lines("runs"), 1, "one run at a time");
        scripted.host.until_nothing_is_left().await;
    });
}

#[test]
fn the_embedded_control_plane_shows_what_it_was_told_of_health() {
    with_agent(|host| async move {
        let check = |line: &str| json!({"healthCheck": {"command": ["CMD-SHELL", line], "interval": 5, "retries": 1}});
        let mut ill = check("exit 1");
        ill["essential"] = false.into();
        let containers = [
            host::container("main", STAYS, check("exit 0")),
            host::container("ill", STAYS, ill),
            host::container("unchecked", STAYS, json!({})),
        ];
        let arn = host.run_task(family("health", containers));
        let shown =
            || host.control.call("DescribeTasks", json!({"tasks": [arn]})).unwrap()["tasks"][0].take();
        let of = |task: &Value| -> Vec<String> {
            let all = task["containers"].as_array().unwrap().iter();
            all.map(|container| container["healthStatus"].as_str().unwrap().to_owned()).collect()
        };
        assert_eq!(shown()["healthStatus"], "UNKNOWN");
        host.until("health was told", |_| of(&shown()) == ["HEALTHY", "UNHEALTHY", "UNKNOWN"]).await;
        assert_eq!(shown()["healthStatus"], "HEALTHY", "only essential containers count");
    });
}
