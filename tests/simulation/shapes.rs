//! The tasks of the simulated world: every kind of dependency, port and end that the core knows, in few
//! containers.

use ecsd::model::*;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

/// How many tasks there may be at once.
pub const TASKS: u8 = 6;
/// Kinds of tasks.
pub const SHAPES: u8 = 14;
/// What every container of every task is made of, but those of [`OTHER_IMAGE`].
pub const IMAGE: &str = "registry/app:1";
pub const OTHER_IMAGE: &str = "registry/side:2";

/// Every task of every shape, made once.
static SPECS: LazyLock<Vec<Vec<Arc<TaskSpec>>>> = LazyLock::new(|| {
    (0..TASKS).map(|task| (0..SHAPES).map(|shape| Arc::new(make(task, shape))).collect()).collect()
});

pub fn spec(task: u8, shape: u8) -> Arc<TaskSpec> {
    SPECS[usize::from(task % TASKS)][usize::from(shape % SHAPES)].clone()
}

pub fn arn(task: u8) -> &'static TaskArn {
    &SPECS[usize::from(task % TASKS)][0].arn
}

pub fn id(task: u8) -> TaskId {
    arn(task).id()
}

fn container(
    name: &str,
    essential: bool,
    depends: &[(&str, DependencyCondition)],
    port: u16,
) -> ContainerSpec {
    let ports = (port != 0).then_some(PortMapping {
        container: PortRange { first: 80, count: 1, is_range: false },
        host_port: port,
        protocol: Protocol::Tcp,
    });
    ContainerSpec {
        image: if name == "side" { OTHER_IMAGE.into() } else { IMAGE.into() },
        essential,
        cpu_shares: 100,
        memory_mib: 100,
        ports: ports.into_iter().collect(),
        depends_on: depends
            .iter()
            .map(|(on, condition)| Dependency { container: (*on).into(), condition: *condition })
            .collect(),
        health_checked: name == "checked",
        start_timeout: (name == "init").then(|| Duration::from_secs(20)),
        ..ContainerSpec::empty(name)
    }
}

/// Restarted after anything but code 0, once it has run for so long.
fn restarted(container: ContainerSpec, period: u64) -> ContainerSpec {
    let attempt_period = Duration::from_secs(period);
    ContainerSpec {
        restart: Some(RestartPolicy { ignored_exit_codes: [0].into(), attempt_period }),
        ..container
    }
}

fn make(task: u8, shape: u8) -> TaskSpec {
    use DependencyCondition::{Complete, Create, Healthy, Start, Success};
    let containers = match shape {
        0 => vec![container("main", true, &[], 0)],
        1 => vec![container("main", true, &[], 8080)],
        2 => vec![container("main", true, &[("init", Success)], 0), container("init", false, &[], 0)],
        3 => vec![container("main", true, &[("side", Create)], 0), container("side", false, &[], 0)],
        4 => vec![container("main", true, &[("init", Complete)], 8081), container("init", false, &[], 0)],
        5 => vec![container("a", true, &[("b", Start)], 0), container("b", true, &[("a", Start)], 0)],
        6 => vec![container("stubborn", true, &[], 0), container("immortal", false, &[], 0)],
        7 => vec![
            container("a", true, &[], 0),
            container("b", true, &[("a", Start)], 8080),
            container("c", false, &[], 0),
        ],
        8 => vec![restarted(container("main", true, &[], 8080), 10), container("side", false, &[], 0)],
        9 => vec![
            container("main", true, &[("side", Start)], 0),
            restarted(container("side", false, &[], 0), 0),
            restarted(container("init", false, &[("side", Success)], 0), 3),
        ],
        10 => vec![container("main", true, &[], 0), restarted(container("side", false, &[], 0), 0)],
        11 => vec![
            container("main", true, &[("checked", Healthy)], 0),
            restarted(container("checked", false, &[], 0), 5),
        ],
        12 => vec![ContainerSpec { cpu_shares: 400, ..container("main", true, &[], 0) }],
        // More than the host has.
        _ => vec![ContainerSpec { cpu_shares: 500, ..container("main", true, &[], 0) }],
    };
    let spec = TaskSpec {
        pid_mode: if shape == 10 { PidMode::Task } else { PidMode::Unset },
        family: "f".into(),
        version: "1".into(),
        containers,
        launch_type: "EC2".into(),
        ..TaskSpec::empty(TaskArn::parse(&format!("arn:aws:ecs:us-east-1:1:task/c/t{task}")).unwrap())
    };
    spec.with_namespace_holder()
}
