//! The rules of spec/task-engine.md 1.2 to 1.11, one by one.

use super::testing::{Driver, digest};
use super::*;
use crate::model::{
    Association, AssociationContent, ContainerSpec, ContainerStatus, Dependency, DependencyCondition,
    ExitRecord, GPU_ASSOCIATION, TaskStatus,
};
use DependencyCondition::{Complete, Create, Start, Success};

fn container(name: &str, depends: &[(&str, DependencyCondition)]) -> ContainerSpec {
    let on = |(on, condition): &(&str, DependencyCondition)| Dependency {
        container: (*on).into(),
        condition: *condition,
    };
    ContainerSpec {
        image: format!("image-of-{name}"),
        essential: !name.ends_with('?'),
        depends_on: depends.iter().map(on).collect(),
        ..ContainerSpec::empty(name)
    }
}

fn task(containers: Vec<ContainerSpec>) -> Arc<TaskSpec> {
    let arn = TaskArn::parse("arn:aws:ecs:r:1:task/c/t").unwrap();
    Arc::new(TaskSpec { containers, ..TaskSpec::empty(arn) })
}

fn driver() -> Driver {
    Driver::new(|_| {})
}

/// What concerns one container.
fn of<'a>(lines: &'a [String], name: &str) -> Vec<&'a str> {
    lines.iter().filter_map(|line| line.strip_suffix(name)?.strip_suffix(' ')).collect()
}

const LAUNCH: [&str; 3] = ["pull", "create", "start"];

#[test]
fn each_condition_lets_go_at_its_moment() {
    for (condition, at_once) in [(Create, true), (Start, true), (Complete, false), (Success, false)] {
        let mut driver = driver();
        let lines = driver.run(&task(vec![container("app", &[("db?", condition)]), container("db?", &[])]));
        let expected = if at_once { [&["resolve"][..], &LAUNCH[..]].concat() } else { vec!["resolve"] };
        assert_eq!(of(&lines, "app"), expected, "{condition:?}");
        if !at_once {
            assert_eq!(of(&driver.exit("db?", 0), "app"), LAUNCH, "{condition:?}");
        }
    }
    // However it ended, but not where nobody knows how.
    let mut driver = driver();
    let complete = task(vec![container("app", &[("db?", Complete)]), container("db?", &[])]);
    let _ = driver.run(&complete);
    assert_eq!(of(&driver.exit("db?", 7), "app"), LAUNCH);
}

#[test]
fn what_can_never_be_met_ends_the_container_with_143() {
    for (condition, code, shown) in
        [(Success, Some(1), "1"), (Success, None, "none"), (Complete, None, "none")]
    {
        let mut driver = driver();
        let _ = driver.run(&task(vec![container("app", &[("db?", condition)]), container("db?", &[])]));
        assert_eq!(of(&driver.exit("db?", code), "app"), ["release"]);
        let why = format!(
            "CannotStartContainerError: dependency graph: failed to resolve container ordering dependency \
             [db?(image-of-db?) (STOPPED->RUNNING) - Exit: {shown}] for target [app(image-of-app) \
             (MANIFEST_PULLED->RUNNING)] as dependency did not exit successfully."
        );
        assert_eq!(driver.end("app"), (Some(143), why));
        assert_eq!(driver.task().progress.known, TaskStatus::Stopped);
    }
}

#[test]
fn a_start_timeout_counts_from_the_start_of_the_dependency_also_over_a_restart_of_the_agent() {
    let limited = |condition| {
        let slow = ContainerSpec { start_timeout: Some(Duration::from_secs(60)), ..container("db?", &[]) };
        task(vec![container("app", &[("db?", condition)]), slow])
    };
    for dies_at in [None, Some(40)] {
        let mut driver = driver();
        let _ = driver.run(&limited(Success));
        if let Some(seconds) = dies_at {
            driver.pass(seconds);
            driver.die(&[("db?", Observed::Running)]);
        }
        driver.pass(59 - dies_at.unwrap_or_default());
        assert_eq!(driver.container("app").known, ContainerStatus::ManifestPulled, "{dies_at:?}");
        driver.pass(1);
        let (code, why) = driver.end("app");
        assert_eq!(code, Some(143));
        assert!(
            why.ends_with("for target [app(image-of-app) (MANIFEST_PULLED->RUNNING)] has timed out."),
            "{why}"
        );
    }
    // START has none.
    let mut driver = driver();
    driver.silent.insert("start db?");
    let _ = driver.run(&limited(Start));
    driver.pass(100);
    assert_eq!(driver.container("app").known, ContainerStatus::ManifestPulled);
}

#[test]
fn images_of_dependents_are_pulled_upfront_where_that_is_wished() {
    let spec = task(vec![container("app", &[("db?", Complete)]), container("db?", &[])]);
    let mut driver = Driver::new(|rules| rules.pull_upfront = true);
    let lines = driver.run(&spec);
    assert_eq!(of(&lines, "app"), ["resolve", "pull"]);
    assert_eq!(of(&driver.exit("db?", 0), "app"), ["create", "start"]);
}

#[test]
fn shutdown_goes_in_the_reverse_order_of_the_start() {
    let spec = task(vec![
        container("app", &[("proxy", Start)]),
        container("proxy", &[("db", Start)]),
        container("db", &[]),
        container("other", &[]),
    ]);
    let mut driver = driver();
    let _ = driver.run(&spec);
    let signals =
        |lines: Vec<String>| lines.into_iter().filter(|line| line.starts_with("signal")).collect::<Vec<_>>();
    assert_eq!(signals(driver.stop(&spec)), ["signal app", "signal other"]);
    assert_eq!(signals(driver.exit("other", 143)), [""; 0]);
    assert_eq!(signals(driver.exit("app", 143)), ["signal proxy"]);
    assert_eq!(signals(driver.exit("proxy", 143)), ["signal db"]);
    assert_eq!(driver.exit("db", 143), ["release db", "STOPPED"]);
}

#[test]
fn an_essential_container_takes_the_task_with_it_and_others_do_not() {
    let spec = task(vec![container("app", &[]), container("side?", &[]), container("early?", &[])]);
    let mut driver = driver();
    let _ = driver.run(&spec);
    driver.exit("early?", 9);
    assert_eq!(driver.task().progress.desired, DesiredStatus::Running);
    assert_eq!(driver.task().progress.execution_stopped_at, None);
    let ended = driver.now.wall;
    driver.pass(1);
    let lines = driver.exit("app", 3);
    assert_eq!(of(&lines, "side?"), ["signal"]);
    assert!(driver.task().progress.execution_stopped_at.is_some_and(|at| at > ended));
    assert!(driver.exit("side?", 143).contains(&"STOPPED".to_owned()));
    // One whose start failed stops the others at once, not when what is left of it was given back.
    let mut driver = self::driver();
    driver.failing.insert("start app");
    driver.silent.insert("release app");
    let lines = driver.run(&task(vec![container("side?", &[]), container("app", &[])]));
    assert_eq!(of(&lines, "side?").last(), Some(&"signal"));
    assert_ne!(driver.container("app").known, ContainerStatus::Stopped);
}

#[test]
fn a_stop_escalates_from_the_signal_to_giving_up() {
    let own = ContainerSpec { stop_timeout: Some(Duration::from_secs(5)), ..container("own?", &[]) };
    let spec = task(vec![container("default", &[]), own]);
    let mut driver = driver();
    let _ = driver.run(&spec);
    assert_eq!(driver.stop(&spec), ["signal default", "signal own?"]);
    assert_eq!(driver.pass(4), [""; 0]);
    assert_eq!(driver.pass(1), ["kill own?"]);
    driver.exit("own?", 137);
    assert_eq!(of(&driver.pass(25), "default"), ["kill"]);
    let lines = driver.pass(120);
    assert_eq!(of(&lines, "default").iter().filter(|line| **line == "kill").count(), 11);
    assert_eq!(lines.last().map(String::as_str), Some("STOPPED"));
    let (code, why) = driver.end("default");
    assert_eq!(code, None);
    assert!(why.starts_with("CannotStopContainerError: "), "{why}");
}

#[test]
fn what_is_never_answered_has_failed_in_the_originals_words() {
    for (silent, limit, why) in [
        ("create app", 240, "Could not transition to created; timed out after waiting 4m0s"),
        ("start app", 180, "Could not transition to started; timed out after waiting 3m0s"),
        ("resolve app", 60, "Could not transition to manifest_pulled; timed out after waiting 1m0s"),
    ] {
        let mut driver = driver();
        driver.silent.insert(silent);
        let _ = driver.run(&task(vec![container("app", &[])]));
        driver.pass(limit + 9);
        assert_ne!(driver.task().progress.known, TaskStatus::Stopped, "{silent}");
        driver.pass(1);
        assert_eq!(driver.end("app"), (None, format!("DockerTimeoutError: {why}")));
        assert_eq!(driver.task().progress.sent, TaskStatus::Stopped);
    }
}

#[test]
fn a_task_that_waits_for_a_gpu_ends_where_the_host_comes_back_without() {
    let mut driver = Driver::new(|rules| rules.host.gpus = ["g0".to_owned()].into());
    let content = AssociationContent { encoding: String::new(), value: String::new() };
    let containers = vec!["app".to_owned()];
    let gpu = Association { containers, name: "g0".into(), kind: GPU_ASSOCIATION.into(), content };
    for id in ["first", "second"] {
        let arn = TaskArn::parse(&format!("arn:aws:ecs:r:1:task/c/{id}")).unwrap();
        let (containers, associations) = (vec![container("app", &[])], vec![gpu.clone()]);
        driver.run(&Arc::new(TaskSpec { containers, associations, ..TaskSpec::empty(arn) }));
    }
    assert_eq!(driver.task().progress.known, TaskStatus::None, "it waits");
    driver.rules.host.gpus.clear();
    assert!(driver.die(&[]).contains(&"STOPPED".to_owned()));
    assert_eq!(driver.task().progress.reason, "task gpu g0 not found in host gpus");
}

#[test]
fn a_start_that_waits_for_the_disk_is_begun_while_it_is_wanted() {
    let mut driver = driver();
    driver.silent.insert("start app");
    let spec = task(vec![container("app", &[])]);
    driver.run(&spec);
    let mut pending = driver.state.pending.iter();
    let start = *pending.find(|(_, pending)| pending.container.is_some()).unwrap().0;
    assert_eq!(driver.state.late(start), Late::Begin);
    driver.stop(&spec);
    assert_eq!(driver.state.late(start), Late::Refuse);
    driver.pass(190);
    assert_eq!(driver.state.late(start), Late::Forget);
}

#[test]
fn a_stop_of_an_unknown_task_is_told_and_calls_nothing() {
    let mut driver = driver();
    assert_eq!(driver.stop(&task(vec![container("app", &[]), container("side?", &[])])), ["STOPPED"]);
}

#[test]
fn a_failed_pull_goes_by_the_pull_behaviour() {
    for (stops_task, local, known) in [
        // default, and prefer-cached: what is here may serve; else the container alone has ended.
        (false, digest(), ContainerStatus::Running),
        (false, None, ContainerStatus::Stopped),
        // always and once: the task ends, though the container is not essential.
        (true, digest(), ContainerStatus::Stopped),
        (true, None, ContainerStatus::Stopped),
    ] {
        for failing in ["resolve side?", "pull side?"] {
            let mut driver = Driver::new(|rules| rules.pull_failure_stops_task = stops_task);
            driver.failing.insert(failing);
            driver.local = local.clone();
            let _ = driver.run(&task(vec![container("app", &[]), container("side?", &[])]));
            assert_eq!(driver.container("side?").known, known, "{failing} {stops_task} {local:?}");
            let stopping = driver.task().progress.desired == DesiredStatus::Stopped;
            assert_eq!(stopping, stops_task, "{failing} {local:?}");
        }
    }
}

#[test]
fn a_kill_for_memory_is_told_however_the_exit_was_seen() {
    let exit = |driver: &Driver| ExitRecord { code: Some(137), at: driver.now.wall };
    let spec = task(vec![container("app", &[])]);
    let mut driver = driver();
    let _ = driver.run(&spec);
    let end = ContainerExit { exit: exit(&driver), oom_killed: true };
    driver.die(&[("app", Observed::Exited(end))]);
    let why = "OutOfMemoryError: Container killed due to memory usage".to_owned();
    assert_eq!(driver.end("app"), (Some(137), why));
}

#[test]
fn clean_up_waits_for_the_report_and_for_its_time_over_restarts() {
    let spec = task(vec![container("app", &[])]);
    let mut driver = driver();
    driver.silent.insert("STOPPED");
    let _ = driver.run(&spec);
    driver.exit("app", 0);
    // Put off, and never given up: the report may still get through.
    assert_eq!(driver.pass(100 * 3600), [""; 0]);
    driver.silent.clear();
    let lines = driver.die(&[]);
    assert_eq!(lines, ["release app", "STOPPED", "remove task"]);
    assert!(driver.state.tasks().is_empty());
    let mut driver = self::driver();
    let _ = driver.run(&spec);
    driver.exit("app", 0);
    driver.pass(2 * 3600);
    assert_eq!(driver.die(&[]), ["release app"]);
    assert_eq!(driver.pass(3599), [""; 0]);
    assert_eq!(driver.pass(1), ["remove task"]);
}

#[test]
fn a_task_that_waits_says_what_for_and_who_holds_it() {
    let sized = |id: &str, memory_mib: u64| {
        let arn = TaskArn::parse(&format!("arn:aws:ecs:r:1:task/c/{id}")).unwrap();
        let container = ContainerSpec { memory_mib, ..container("app", &[]) };
        Arc::new(TaskSpec { containers: vec![container], ..TaskSpec::empty(arn) })
    };
    let mut driver = driver();
    for (id, memory) in [("small", 300), ("large", 600), ("waits", 200), ("huge", 2000)] {
        let _ = driver.run(&sized(id, memory));
    }
    let waits = sized("waits", 200).id();
    assert_eq!(
        driver.state.waiting_for(&waits).as_deref(),
        Some("MEMORY: wants 200, free 124 of 1024; held by task large (600), task small (300)")
    );
    let huge = driver.state.task(&sized("huge", 0).id()).unwrap();
    assert_eq!(huge.progress.known, TaskStatus::Stopped);
    assert_eq!(
        huge.progress.reason,
        "HostResourceError: MEMORY: wants 2000, free 1024 of 1024: this host can never run the task"
    );
    // In the very step in which the last container ended.
    driver.id_of("small");
    assert!(driver.exit("app", 0).contains(&"prepare task".to_owned()));
    assert_eq!(driver.state.waiting_for(&waits), None);
}
