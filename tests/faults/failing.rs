//! Calls that fail, and connections that break.

use crate::support::faulty::Calls;
use crate::{another_lives, reason, run_stays, stops, until_ready, with_faults};
use tonic::Code;

#[test]
fn a_call_that_fails_ends_its_task_in_the_originals_words_with_containerds() {
    with_faults(&[], |host, faulty| async move {
        for (method, words) in [
            (
                "Images/Get",
                "CannotPullContainerError: image ecsd.test/busybox:1: look for image ecsd.test/busybox:1: containerd: scripted",
            ),
            ("Snapshots/Prepare", "CannotCreateContainerError: prepare the snapshot: scripted"),
            ("Containers/Create", "CannotCreateContainerError: record the container: scripted"),
            ("Tasks/Create", "CannotCreateContainerError: create the process: scripted"),
            ("Tasks/Start", "CannotStartContainerError: start: scripted"),
        ] {
            let fault = faulty.fail(Calls::of(method), Code::Internal, "scripted");
            let arn = run_stays(&host, "fails");
            let task = host.until_status(&arn, "STOPPED").await;
            assert_eq!(reason(&task), words, "{method}");
            assert_eq!(task.details["stopCode"], "TaskFailedToStart", "{method}");
            drop(fault);
            another_lives(&host).await;
        }
        host.until_nothing_is_left().await;
    });
}

#[test]
fn a_stop_of_which_calls_fail_gets_through() {
    with_faults(&[], |host, faulty| async move {
        // The signal can't be sent: SIGKILL follows at once.
        let arn = run_stays(&host, "signal");
        until_ready(&host, &arn, "signal").await;
        let fault = faulty.fail(Calls::of("Tasks/Kill").times(1), Code::Internal, "scripted");
        host.control.stop_task(&arn, "test").unwrap();
        assert_eq!(host.until_status(&arn, "STOPPED").await.containers[0].exit_code, Some(137));
        drop(fault);
        // What can't be given back or removed is tried again.
        for method in ["Tasks/Delete", "Containers/Delete", "Snapshots/Remove"] {
            let arn = run_stays(&host, "remains");
            until_ready(&host, &arn, "remains").await;
            let _fault = faulty.fail(Calls::of(method).times(1), Code::Internal, "scripted");
            stops(&host, &arn).await;
            host.until("it is cleaned up", |host| !host.task_dir(&arn).exists()).await;
        }
        host.until_nothing_is_left().await;
    });
}

#[test]
fn a_connection_that_breaks_at_any_call_of_a_launch_costs_no_task() {
    with_faults(&[], |host, faulty| async move {
        let stays = run_stays(&host, "stays");
        until_ready(&host, &stays, "stays").await;
        for method in [
            "Images/Get",
            "Snapshots/Stat",
            "Snapshots/Prepare",
            "Containers/Create",
            "Tasks/Create",
            "Tasks/Start",
            "Tasks/Wait",
        ] {
            let _fault = faulty.cut_at(Calls::of(method).times(1));
            let arn = run_stays(&host, "cut");
            until_ready(&host, &arn, "cut").await;
            stops(&host, &arn).await;
        }
        for method in ["Tasks/Kill", "Tasks/Delete", "Containers/Delete", "Snapshots/Remove"] {
            let arn = run_stays(&host, "cut");
            until_ready(&host, &arn, "cut").await;
            let _fault = faulty.cut_at(Calls::of(method).times(1));
            host.control.stop_task(&arn, "test").unwrap();
            host.until_status(&arn, "STOPPED").await;
        }
        stops(&host, &stays).await;
        host.until_nothing_is_left().await;
    });
}
