use super::*;
use crate::core::ContainerExit;
use crate::model::{ContainerSpec, DesiredStatus, RestartPolicy, TaskArn, TaskSpec};
use std::sync::Arc;
use std::time::Duration;

fn at(seconds: u64) -> Wall {
    Wall(seconds * 1_000_000_000)
}

fn now(seconds: u64) -> Now {
    Now { wall: at(seconds), ..Now::default() }
}

fn end(code: impl Into<Option<i32>>, seconds: u64) -> ContainerExit {
    ContainerExit { exit: ExitRecord { code: code.into(), at: at(seconds) }, oom_killed: false }
}

/// One container that has run since second 100, with a policy of 60 s that ignores 0 and 143.
fn running() -> Task {
    let restart =
        RestartPolicy { ignored_exit_codes: [0, 143].into(), attempt_period: Duration::from_secs(60) };
    let container = ContainerSpec { restart: Some(restart), ..ContainerSpec::empty("main") };
    let arn = TaskArn::parse("arn:aws:ecs:r:1:task/c/t").unwrap();
    let mut task = Task::new(Arc::new(TaskSpec { containers: vec![container], ..TaskSpec::empty(arn) }));
    let main = task.progress.containers.get_mut("main").unwrap();
    (main.known, main.created_at, main.started_at) = (ContainerStatus::Running, Some(at(99)), Some(at(100)));
    task
}

fn main(task: &Task) -> &ContainerProgress {
    &task.progress.containers["main"]
}

#[test]
fn an_exit_qualifies_by_code_and_by_how_long_the_process_ran() {
    for (name, ended, restarts) in [
        ("after the period", end(1, 160), true),
        ("a second before", end(1, 159), false),
        ("ignored", end(143, 1000), false),
        ("well", end(0, 1000), false),
        ("its code is lost", end(None, 1000), false),
    ] {
        let mut task = running();
        // It is seen much later: that counts for nothing.
        task.container_exited("main", ended.clone(), now(5000));
        let known = if restarts { ContainerStatus::Running } else { ContainerStatus::Stopped };
        assert_eq!((main(&task).known, task.restart_due("main")), (known, restarts), "{name}");
        assert_eq!(main(&task).exit, (!restarts).then_some(ended.exit), "{name}");
    }
}

#[test]
fn the_period_begins_anew_with_each_restart_and_an_exit_counts_once() {
    let mut task = running();
    task.container_exited("main", end(1, 200), now(210));
    task.restart_seen("main", now(211));
    assert_eq!((main(&task).restarts.count, main(&task).restarts.last), (1, Some(at(210))));
    assert!(task.is_old_exit("main", &end(1, 200).exit) && task.is_old_exit("main", &end(2, 100).exit));
    assert!(!task.is_old_exit("main", &end(1, 201).exit));
    task.container_exited("main", end(1, 270), now(271));
    assert_eq!((main(&task).restarts.count, main(&task).started_at), (2, Some(at(100))));
    task.restart_seen("main", now(272));
    task.container_exited("main", end(1, 330), now(330));
    assert_eq!((main(&task).restarts.count, main(&task).known), (2, ContainerStatus::Stopped));
}

#[test]
fn a_task_that_stops_restarts_nothing_and_a_restart_that_fails_ends_with_the_exit_before() {
    let mut task = running();
    task.progress.desired = DesiredStatus::Stopped;
    task.container_exited("main", end(1, 200), now(200));
    assert_eq!(main(&task).known, ContainerStatus::Stopped);
    let mut task = running();
    task.container_exited("main", end(9, 200), now(200));
    task.restarted("main", Err(StopReason::new("CannotStartContainerError", "no")));
    assert!(task.must_end() && !task.may_restart("main"));
    let doubt = task.runs.get_mut("main").unwrap().doubt.take();
    task.container_stopped("main", doubt, now(201));
    assert_eq!(main(&task).exit, Some(end(9, 200).exit));
    assert_eq!(main(&task).error.as_ref().unwrap().name, "CannotStartContainerError");
}
