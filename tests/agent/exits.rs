//! How containers end, and what is told of it.

use crate::support::host::{BUSYBOX, Host, busybox_config, busybox_files, container, family, with_agent};
use crate::support::registry::{FakeRegistry, Fault};
use ecsd::containerd::image::archive::RootfsConfig;
use ecsd::containerd::image::import::build_rootfs_image;
use serde_json::json;

/// Runs until it gets this signal, then exits with that code; writes `ready` once it can.
fn exits_on(signal: &str, code: u8) -> String {
    format!("trap 'exit {code}' {signal}; echo ready; while :; do sleep 0.1; done")
}

#[test]
fn exit_codes_are_reported_also_of_containers_that_end_at_once() {
    with_agent(|host| async move {
        let run =
            |name: &str, script: &str| host.run_task(family(name, [container("main", script, json!({}))]));
        let tasks = [
            (run("zero", "sleep 0.3"), 0),
            (run("three", "sleep 0.3; exit 3"), 3),
            (run("instant", "exit 42"), 42),
            (run("killed", "kill -9 $$"), 137),
        ];
        for (arn, code) in tasks {
            let task = host.until_status(&arn, "STOPPED").await;
            // A shell that is process 1 is deaf to its own SIGKILL: it ends well.
            let expected = if code == 137 { 0 } else { code };
            assert_eq!(task.containers[0].exit_code, Some(expected), "{task:#?}");
            assert_eq!(task.details["stopCode"], "EssentialContainerExited");
        }
    });
}

#[test]
fn a_missing_command_stops_the_task_with_the_runtimes_words() {
    with_agent(|host| async move {
        let missing = json!({"command": ["/no/such/program"]});
        let arn = host.run_task(family("missing", [container("main", "", missing)]));
        let task = host.until_status(&arn, "STOPPED").await;
        let reason = task.containers[0].reason.clone().unwrap();
        assert!(reason.starts_with("CannotStartContainerError: "), "{reason}");
        assert!(reason.contains("/no/such/program") && reason.contains("no such file"), "{reason}");
        host.until_nothing_is_left().await;
    });
}

#[test]
fn an_essential_container_takes_the_others_with_it_and_one_shim_serves_them_all() {
    with_agent(|host| async move {
        let waits = container(
            "main",
            "while [ ! -e /v/end ]; do sleep 0.1; done; exit 4",
            json!({
            "mountPoints": [{"sourceVolume": "v", "containerPath": "/v"}]}),
        );
        let others = [
            waits,
            container("sidecar", &exits_on("TERM", 9), json!({"essential": false})),
            container("early", "exit 5", json!({"essential": false})),
        ];
        let mut definition = family("essential", others);
        definition["volumes"] = json!([{"name": "v"}]);
        let arn = host.run_task(definition);
        // A container that ended early and is not essential holds nothing up.
        host.until_status(&arn, "RUNNING").await;
        host.until("the sidecar is ready", |host| host.logs(&arn, "sidecar").contains("ready")).await;
        // A shim is also the program that ends one, for a moment.
        host.until("one shim serves them", |host| host.containerd.shims().len() == 1).await;
        host.exec(&arn, "main", &["touch", "/v/end"]);
        let task = host.until_status(&arn, "STOPPED").await;
        let codes: Vec<_> = task.containers.iter().map(|c| (c.name.as_str(), c.exit_code)).collect();
        assert_eq!(codes, [("main", Some(4)), ("sidecar", Some(9)), ("early", Some(5))]);
    });
}

#[test]
fn a_container_that_ignores_its_stop_signal_is_killed() {
    with_agent(|host| async move {
        let deaf = container(
            "main",
            "trap '' TERM; echo ready; while :; do sleep 0.1; done",
            json!({"stopTimeout": 2}),
        );
        let arn = host.run_task(family("deaf", [deaf]));
        host.until("it is deaf", |host| host.logs(&arn, "main").contains("ready")).await;
        host.control.stop_task(&arn, "test").unwrap();
        let task = host.until_status(&arn, "STOPPED").await;
        assert_eq!(task.containers[0].exit_code, Some(137));
    });
}

#[test]
fn the_stop_signal_is_the_images() {
    with_agent(|host| async move {
        let connection = ecsd::containerd::Connection::new(host.containerd.socket(), "ecs").unwrap();
        let images = ecsd::containerd::ImageService::new(connection, Default::default());
        let config = RootfsConfig { stop_signal: Some("SIGUSR1".into()), ..busybox_config() };
        build_rootfs_image(&images, "ecsd.test/usr1:1", &busybox_files(), &config).await.unwrap();
        let script = format!("trap '' TERM; {}", exits_on("USR1", 8));
        let arn =
            host.run_task(family("usr1", [container("main", &script, json!({"image": "ecsd.test/usr1:1"}))]));
        host.until("it listens", |host| host.logs(&arn, "main").contains("ready")).await;
        host.control.stop_task(&arn, "test").unwrap();
        assert_eq!(host.until_status(&arn, "STOPPED").await.containers[0].exit_code, Some(8));
    });
}

#[test]
fn a_task_is_stopped_while_its_image_is_looked_up() {
    with_agent(|host| async move {
        let registry = FakeRegistry::start();
        registry.fault("manifests", Fault::HangAfter(0), usize::MAX);
        registry.page("/v2/team/app/manifests/1", 200, "", "never sent");
        let image = format!("{}/team/app:1", registry.host());
        let arn = host.run_task(family("early", [container("main", "exit 1", json!({"image": image}))]));
        host.until("the registry is asked", |_| !registry.seen("manifests").is_empty()).await;
        host.control.stop_task(&arn, "test").unwrap();
        let task = host.until_status(&arn, "STOPPED").await;
        assert_eq!((task.containers[0].exit_code, &task.containers[0].reason), (None, &None));
        host.until_nothing_is_left().await;
    });
}

#[test]
fn a_container_that_takes_too_much_memory_is_reported_so() {
    with_agent(|host| async move {
        let greedy =
            json!({"memory": 16, "command": ["dd", "if=/dev/zero", "of=/dev/null", "bs=256M", "count=1"]});
        let arn = host.run_task(family("greedy", [container("main", "", greedy)]));
        let task = host.until_status(&arn, "STOPPED").await;
        assert_eq!(task.containers[0].exit_code, Some(137));
        let reason = task.containers[0].reason.clone().unwrap_or_default();
        assert!(reason.starts_with("OutOfMemoryError: "), "{reason}");
    });
}

#[test]
fn one_task_runs_and_stops() {
    crate::support::host::on_own_network(|| async {
        let mut host = Host::new().await;
        host.load_busybox().await;
        host.start().await;
        let definition = json!({"name": "main", "image": BUSYBOX, "memory": 64, "cpu": 10,
            "command": ["sh", "-c", exits_on("TERM", 7)]});
        let arn = host.run_task(family("one", [definition]));
        host.until_status(&arn, "RUNNING").await;
        host.until("the log is written", |host| host.logs(&arn, "main").contains("ready")).await;
        host.control.stop_task(&arn, "test").unwrap();
        let task = host.until_status(&arn, "STOPPED").await;
        assert_eq!(task.containers[0].exit_code, Some(7));
    });
}

#[test]
fn twenty_tasks_start_at_once_run_and_stop() {
    with_agent(|host| async move {
        let small = container("main", &exits_on("TERM", 7), json!({"memory": 16, "cpu": 2}));
        let tasks: Vec<String> =
            (0..20).map(|n| host.run_task(family(&format!("many-{n}"), [small.clone()]))).collect();
        for arn in &tasks {
            host.until_status(arn, "RUNNING").await;
            host.until("it is ready", |host| host.logs(arn, "main").contains("ready")).await;
        }
        for arn in &tasks {
            host.control.stop_task(arn, "test").unwrap();
        }
        for arn in &tasks {
            assert_eq!(host.until_status(arn, "STOPPED").await.containers[0].exit_code, Some(7));
        }
        host.until_nothing_is_left().await;
    });
}
