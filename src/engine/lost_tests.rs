//! What is found out of tasks that the store has lost.

use super::*;
use crate::core::ContainerExit;
use crate::model::{Keepsake, NetworkMode};

const INSTANCE: &str = "arn:i/ours";

struct Ours;

impl AgentFacts for Ours {
    fn environment(&self, _: &TaskSpec, _: &str) -> BTreeMap<String, String> {
        BTreeMap::new()
    }
    fn labels(&self, _: &TaskArn, _: &TaskSpec, _: &str) -> BTreeMap<String, String> {
        BTreeMap::new()
    }
    fn instance(&self) -> String {
        INSTANCE.to_owned()
    }
    fn cluster(&self) -> &str {
        "c"
    }
}

/// A source is the names of its containers; `main` is essential.
impl TaskDecoder for Ours {
    fn decode(&self, source: &str) -> Result<TaskSpec, String> {
        let names = source.strip_prefix("task ").ok_or("no task")?;
        let container =
            |name: &str| ContainerSpec { essential: name == "main", ..ContainerSpec::empty(name) };
        let containers = names.split(' ').map(container).collect();
        Ok(TaskSpec { network_mode: NetworkMode::None, containers, ..TaskSpec::empty(arn()) })
    }
}

fn arn() -> TaskArn {
    TaskArn::parse("arn:aws:ecs:r:1:task/c/t").unwrap()
}

fn key(name: &str) -> ContainerKey {
    ContainerKey { task: arn().id(), name: name.to_owned() }
}

fn address() -> ContainerAddress {
    ContainerAddress { ipv4: Some([172, 17, 0, 9].into()), bindings: Vec::new() }
}

/// `main` and `side`, as made for that container instance.
fn held(instance: &str, source: &str) -> Held {
    let container = |name: &str| HeldContainer {
        arn: arn(),
        id: ContainerId::derive(&arn(), name),
        created_at: Some(Wall(7)),
        cluster: "c".into(),
        keepsake: Some(Keepsake { source: source.into(), address: address(), instance: instance.into() }),
    };
    ["main", "side"].map(|name| (key(name), container(name))).into()
}

fn seen(main: Observed, side: Observed) -> Seen {
    [(key("main"), main), (key("side"), side)].into()
}

fn exited(code: i32) -> Observed {
    let exit = ExitRecord { code: Some(code), at: Wall(8) };
    Observed::Exited(ContainerExit { exit, oom_killed: false })
}

fn judged(held: Held, seen: &Seen) -> Verdict {
    judge(held, seen, &Ours, &Ours, Wall(9))
}

fn one(verdict: Verdict) -> Found {
    assert!(verdict.removed.is_empty() && verdict.left.is_empty());
    assert_eq!(verdict.found.len(), 1);
    verdict.found.into_iter().next().unwrap()
}

const SOURCE: &str = "task main side";

#[test]
fn a_task_that_runs_and_says_what_it_is_goes_on() {
    let found = one(judged(held(INSTANCE, SOURCE), &seen(Observed::Running, Observed::Created)));
    assert_eq!((found.source.as_deref(), found.progress.desired), (Some(SOURCE), DesiredStatus::Running));
    let main = &found.progress.containers["main"];
    assert_eq!((main.known, &main.address), (ContainerStatus::Running, &address()));
    assert_eq!((main.created_at, main.started_at), (Some(Wall(7)), Some(Wall(7))));
    // It may have ended long ago, as it should; nothing false is told of it.
    let side = &found.progress.containers["side"];
    assert_eq!((side.known, side.sent), (ContainerStatus::Stopped, ContainerStatus::Stopped));
    assert!(found.progress.admitted && found.progress.reason.is_empty());
}

#[test]
fn a_task_that_has_ended_is_told_by_its_exit_or_as_lost() {
    let found = one(judged(held(INSTANCE, SOURCE), &seen(exited(3), Observed::Created)));
    assert_eq!(
        found.progress.containers["main"].known,
        ContainerStatus::Running,
        "its exit is still to come"
    );
    assert!(found.progress.reason.is_empty());
    let found = one(judged(held(INSTANCE, SOURCE), &seen(Observed::Created, Observed::Created)));
    let main = &found.progress.containers["main"];
    assert_eq!((main.known, main.exit.as_ref()), (ContainerStatus::Stopped, None));
    assert!(main.error.as_ref().unwrap().to_string().starts_with("ContainerVanishedError: "));
    assert_eq!(found.progress.reason, TASK_LOST);
}

#[test]
fn a_task_that_runs_and_says_nothing_is_stopped() {
    let mut nothing = held(INSTANCE, SOURCE);
    nothing.values_mut().for_each(|container| container.keepsake = None);
    for held in [nothing, held(INSTANCE, "damaged")] {
        let found = one(judged(held, &seen(Observed::Running, Observed::Running)));
        assert_eq!((found.source, found.progress.desired), (None, DesiredStatus::Stopped));
        assert_eq!(found.progress.reason, TASK_LOST);
        assert!(found.progress.containers.values().all(|c| c.known == ContainerStatus::Running));
        assert_eq!(found.spec.containers.len(), 2);
    }
}

#[test]
fn dead_containers_of_another_machine_are_removed_and_nothing_is_told() {
    let dead = seen(Observed::Created, exited(0));
    let mut nothing = held(INSTANCE, SOURCE);
    nothing.values_mut().for_each(|container| container.keepsake = None);
    for held in [held("arn:i/another", SOURCE), held("", SOURCE), nothing] {
        let verdict = judged(held, &dead);
        assert!(verdict.found.is_empty() && verdict.left.is_empty());
        assert_eq!(verdict.removed.len(), 2);
    }
}

#[test]
fn what_is_not_ours_is_left_alone_with_its_network() {
    let mut other_cluster = held(INSTANCE, SOURCE);
    other_cluster.values_mut().for_each(|container| container.cluster = "another".into());
    for held in [other_cluster, held("arn:i/another", SOURCE)] {
        let verdict = judged(held, &seen(Observed::Running, Observed::Running));
        assert!(verdict.found.is_empty() && verdict.removed.is_empty());
        assert!(verdict.left.iter().all(|(_, left)| *left == address()));
        assert_eq!(verdict.left.len(), 2);
    }
}
