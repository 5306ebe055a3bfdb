//! Looking at what the runtime holds, where part of it does not answer.

use crate::support::faulty::Calls;
use crate::{run_stays, status, stops, until_ready, with_faults};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tonic::Code;

#[test]
fn a_list_that_never_comes_is_done_without_and_who_does_not_answer_is_not_taken_for_gone() {
    with_faults(&[], |mut host, faulty| async move {
        let (mute, ends) = (run_stays(&host, "mute"), run_stays(&host, "ends"));
        until_ready(&host, &mute, "mute").await;
        until_ready(&host, &ends, "ends").await;
        let doomed = Pid::from_raw(host.container_pid(&ends, "ends").unwrap());
        host.kill_agent();
        kill(doomed, Signal::SIGKILL).unwrap();
        let _list = faulty.fail(Calls::of("Tasks/List"), Code::DeadlineExceeded, "scripted");
        let id = host.container_id(&mute, "mute");
        let held = faulty.hold(Calls::of("Tasks/Get").naming(&id));
        host.until("the control plane has seen it go", |host| !host.control.has_ready_instance()).await;
        host.start().await;
        held.caught(1).await;
        // Told from the same look at all containers.
        let task = host.until_status(&ends, "STOPPED").await;
        assert_eq!(task.containers[0].exit_code, Some(137));
        assert_eq!(status(&host, &mute), "RUNNING");
        drop(held);
        stops(&host, &mute).await;
        host.until_nothing_is_left().await;
    });
}
