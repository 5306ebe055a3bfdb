//! Who was killed for memory, and who was not: what the kernel counted for the container itself,
//! joined with its exit.

use crate::support::faulty::Calls;
use crate::support::host::{container, family, with_agent};
use crate::{reason, with_faults};
use serde_json::json;

/// Takes far more than any limit here.
const GREEDY: &str = "dd if=/dev/zero of=/dev/null bs=256M count=1";
const OUT_OF_MEMORY: &str = "OutOfMemoryError: Container killed due to memory usage";

#[test]
fn a_container_that_goes_on_after_a_kill_is_told_by_its_own_end() {
    with_agent(|host| async move {
        let run = |name: &str, script: &str| {
            host.run_task(family(name, [container("main", script, json!({"memory": 16}))]))
        };
        let fails = run("fails", &format!("{GREEDY}; exit 9"));
        let ends = run("ends", &format!("{GREEDY}; exit 0"));
        let goes_on = format!("trap 'exit 7' TERM; {GREEDY}; echo killed; while :; do sleep 0.1; done");
        let stopped = run("stopped", &goes_on);
        let deaf = run("deaf", &format!("trap '' TERM; {GREEDY}; echo killed; while :; do sleep 0.1; done"));
        let task = host.until_status(&fails, "STOPPED").await;
        assert_eq!((task.containers[0].exit_code, reason(&task).as_str()), (Some(9), OUT_OF_MEMORY));
        let task = host.until_status(&ends, "STOPPED").await;
        assert_eq!((task.containers[0].exit_code, reason(&task).as_str()), (Some(0), ""));
        // The first ends as it is asked to, the second by our own SIGKILL.
        for (arn, code) in [(&stopped, 7), (&deaf, 137)] {
            host.until("its child was killed", |host| host.logs(arn, "main").contains("killed")).await;
            host.control.stop_task(arn, "test").unwrap();
            let task = host.until_status(arn, "STOPPED").await;
            assert_eq!((task.containers[0].exit_code, reason(&task).as_str()), (Some(code), ""));
        }
        host.until_nothing_is_left().await;
    });
}

#[test]
fn the_limit_of_the_whole_task_names_only_who_was_killed() {
    with_agent(|host| async move {
        // No limit of its own but the task's; the other fails right after, for a reason of its own.
        let greedy = json!({"memoryReservation": 8, "essential": false,
            "command": ["dd", "if=/dev/zero", "of=/dev/null", "bs=256M", "count=1"]});
        let bystander = "while [ ! -e /v/end ]; do sleep 0.1; done; exit 3";
        let more = json!({"memoryReservation": 8,
            "mountPoints": [{"sourceVolume": "v", "containerPath": "/v"}]});
        let mut definition =
            family("whole", [container("bystander", bystander, more), container("greedy", "", greedy)]);
        for container in definition["containerDefinitions"].as_array_mut().unwrap() {
            container.as_object_mut().unwrap().remove("memory");
        }
        definition["memory"] = "32".into();
        definition["volumes"] = json!([{"name": "v"}]);
        let arn = host.run_task(definition);
        host.until("the greedy one was killed", |host| {
            let task = host.control.task(&arn).unwrap();
            task.last_status == "RUNNING" && host.container_pid(&arn, "greedy").is_none()
        })
        .await;
        host.exec(&arn, "bystander", &["touch", "/v/end"]);
        let task = host.until_status(&arn, "STOPPED").await;
        let told: Vec<_> =
            task.containers.iter().map(|c| (c.exit_code, c.reason.clone().unwrap_or_default())).collect();
        assert_eq!(told, [(Some(3), String::new()), (Some(137), OUT_OF_MEMORY.to_owned())]);
        host.until_nothing_is_left().await;
    });
}

#[test]
fn an_exit_that_no_event_precedes_is_told_with_its_reason_all_the_same() {
    with_faults(&[], |mut host, faulty| async move {
        host.stop_agent().await;
        let _held = faulty.hold(Calls::of("Events/Subscribe"));
        host.until("the control plane has seen it go", |host| !host.control.has_ready_instance()).await;
        host.start().await;
        let greedy =
            json!({"memory": 16, "command": ["dd", "if=/dev/zero", "of=/dev/null", "bs=256M", "count=1"]});
        let arn = host.run_task(family("greedy", [container("main", "", greedy)]));
        let task = host.until_status(&arn, "STOPPED").await;
        assert_eq!((task.containers[0].exit_code, reason(&task).as_str()), (Some(137), OUT_OF_MEMORY));
        host.until_nothing_is_left().await;
    });
}
