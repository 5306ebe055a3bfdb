//! Calls that are never answered, or very late.

use crate::support::faulty::Calls;
use crate::support::host::{container, family};
use crate::{STAYS, another_lives, reason, run_stays, status, stops, until_ready, with_faults};
use serde_json::json;

#[test]
fn a_launch_that_hangs_anywhere_holds_up_no_other_and_goes_on_when_it_may() {
    with_faults(&[], |host, faulty| async move {
        for method in [
            "Images/Get",
            "Snapshots/Stat",
            "Snapshots/Prepare",
            "Containers/Create",
            "Tasks/Create",
            "Tasks/Start",
        ] {
            for done in [false, true] {
                let calls = Calls::of(method).times(1);
                let held = if done { faulty.hold_answer(calls) } else { faulty.hold(calls) };
                let hangs = run_stays(&host, "hangs");
                held.caught(1).await;
                another_lives(&host).await;
                assert_ne!(status(&host, &hangs), "RUNNING", "{method}");
                drop(held);
                until_ready(&host, &hangs, "hangs").await;
                stops(&host, &hangs).await;
            }
        }
        host.until_nothing_is_left().await;
    });
}

#[test]
fn a_stop_that_hangs_anywhere_holds_up_no_other_and_escalates() {
    with_faults(&[], |host, faulty| async move {
        // SIGKILL does not wait for the stop signal.
        let hangs = run_stays(&host, "hangs");
        until_ready(&host, &hangs, "hangs").await;
        let held = faulty.hold(Calls::of("Tasks/Kill").times(1));
        host.control.stop_task(&hangs, "test").unwrap();
        held.caught(1).await;
        another_lives(&host).await;
        assert_eq!(host.until_status(&hangs, "STOPPED").await.containers[0].exit_code, Some(137));
        // Giving back and removing: the end is told before.
        for method in ["Tasks/Delete", "Containers/Delete", "Snapshots/Remove"] {
            let hangs = run_stays(&host, "hangs");
            until_ready(&host, &hangs, "hangs").await;
            let held = faulty.hold(Calls::of(method).times(1));
            stops(&host, &hangs).await;
            held.caught(1).await;
            another_lives(&host).await;
            assert!(host.task_dir(&hangs).exists(), "{method}");
            drop(held);
            host.until("it is cleaned up", |host| !host.task_dir(&hangs).exists()).await;
        }
        host.until_nothing_is_left().await;
    });
}

#[test]
fn an_exit_is_told_though_the_wait_for_it_hangs() {
    with_faults(&[], |host, faulty| async move {
        let held = faulty.hold(Calls::of("Tasks/Wait"));
        let ends = run_stays(&host, "ends");
        until_ready(&host, &ends, "ends").await;
        held.caught(1).await;
        stops(&host, &ends).await;
        host.until_nothing_is_left().await;
    });
}

#[test]
fn an_exit_is_told_though_there_are_no_events() {
    with_faults(&[], |mut host, faulty| async move {
        host.stop_agent().await;
        let held = faulty.hold(Calls::of("Events/Subscribe"));
        host.until("the control plane has seen it go", |host| !host.control.has_ready_instance()).await;
        host.start().await;
        held.caught(1).await;
        another_lives(&host).await;
        host.until_nothing_is_left().await;
    });
}

#[test]
fn a_task_of_many_containers_that_all_hang_leaves_room_for_others() {
    with_faults(&[], |host, faulty| async move {
        const MANY: usize = 10;
        let held = faulty.hold(Calls::of("Containers/Create").naming("held-"));
        let many = (0..MANY).map(|n| container(&format!("held-{n}"), STAYS, json!({"memory": 6})));
        let hangs = host.run_task(family("many", many));
        // As many as one task may have at once.
        held.caught(4).await;
        another_lives(&host).await;
        drop(held);
        host.until_status(&hangs, "RUNNING").await;
        for n in 0..MANY {
            let name = format!("held-{n}");
            host.until("it is ready", |host| host.logs(&hangs, &name).contains("ready")).await;
        }
        host.control.stop_task(&hangs, "test").unwrap();
        let task = host.until_status(&hangs, "STOPPED").await;
        assert!(task.containers.iter().all(|c| c.exit_code == Some(7)), "{task:#?}");
        host.until_nothing_is_left().await;
    });
}

#[test]
fn tasks_that_hang_give_their_slots_back_though_they_are_many() {
    with_faults(&[], |host, faulty| async move {
        const MANY: usize = 20;
        let held = faulty.hold(Calls::of("Tasks/Create").times(MANY));
        let hanging: Vec<String> = (0..MANY).map(|n| run_stays(&host, &format!("hangs{n}"))).collect();
        // More than there are slots for launches.
        held.caught(MANY).await;
        another_lives(&host).await;
        assert!(hanging.iter().all(|arn| status(&host, arn) != "RUNNING"));
        drop(held);
        for (n, arn) in hanging.iter().enumerate() {
            until_ready(&host, arn, &format!("hangs{n}")).await;
        }
        for arn in &hanging {
            host.control.stop_task(arn, "test").unwrap();
        }
        for arn in &hanging {
            assert_eq!(host.until_status(arn, "STOPPED").await.containers[0].exit_code, Some(7));
        }
        host.until_nothing_is_left().await;
    });
}

/// The shortest limits that can be configured; all three at once, since each takes its time.
const SHORTEST: &[(&str, &str)] =
    &[("ECS_CONTAINER_CREATE_TIMEOUT", "1m"), ("ECS_CONTAINER_START_TIMEOUT", "45s")];

#[test]
fn a_launch_that_hangs_for_ever_fails_in_the_originals_words_and_leaves_nothing() {
    with_faults(SHORTEST, |host, faulty| async move {
        let mut hanging = Vec::new();
        for (method, done, words) in [
            (
                "Snapshots/Prepare",
                false,
                "DockerTimeoutError: Could not transition to created; timed out after waiting 1m0s",
            ),
            (
                "Tasks/Create",
                true,
                "DockerTimeoutError: Could not transition to created; timed out after waiting 1m0s",
            ),
            // containerd has started it: the process runs, and must not go on.
            (
                "Tasks/Start",
                true,
                "DockerTimeoutError: Could not transition to started; timed out after waiting 45s",
            ),
            // The shim itself never answers: what is known of the exit is an event's.
            (
                "Tasks/Start",
                false,
                "DockerTimeoutError: Could not transition to started; timed out after waiting 45s",
            ),
        ] {
            let calls = Calls::of(method).times(1);
            let held = if done { faulty.hold_answer(calls) } else { faulty.hold(calls) };
            let arn = run_stays(&host, "hangs");
            held.caught(1).await;
            hanging.push((method, arn, held, words));
        }
        for (method, arn, _held, words) in &hanging {
            let task = host.until_status(arn, "STOPPED").await;
            assert_eq!(reason(&task), *words, "{method}");
        }
        another_lives(&host).await;
        host.until_nothing_is_left().await;
    });
}
