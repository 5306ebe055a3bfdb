//! The attributes of instances of several makes, as the original tells them in its order
//! (spec/control-plane.md 2.5, 2.6), against what the program prints. What this agent does not do is
//! left out; the list of that is its own, and documented.

use ecsd::control::attributes::not_built;
use std::collections::BTreeSet;
use std::process::Command;

/// Of an instance without any variable set, with a modern daemon and a pause image. `c:` stands for the
/// old prefix of capabilities, `e:` for the new one; what follows `=` is the value.
const PLAIN: &str = "
    e:private-registry-authentication.secretsmanager e:secrets.ssm.environment-variables
    e:secrets.ssm.bootstrap.log-driver e:ecr-endpoint e:secrets.asm.environment-variables
    e:secrets.asm.bootstrap.log-driver e:container-ordering e:full-sync e:env-files.s3
    e:network.container-port-range e:container-restart-policy c:privileged-container
    c:docker-remote-api.1.17 c:docker-remote-api.1.18 c:docker-remote-api.1.19 c:docker-remote-api.1.20
    c:docker-remote-api.1.21 c:docker-remote-api.1.22 c:docker-remote-api.1.23 c:docker-remote-api.1.24
    c:docker-remote-api.1.25 c:docker-remote-api.1.28 c:docker-remote-api.1.29 c:docker-remote-api.1.30
    c:docker-remote-api.1.32 c:logging-driver.json-file c:logging-driver.none
    e:task-cpu-mem-limit e:increased-task-cpu-limit c:ecr-auth e:execution-role-ecr-pull
    e:container-health-check e:docker-plugin.local e:pid-ipc-namespace-sharing e:aws-appmesh e:task-eia
    e:firelens.fluentd e:firelens.fluentbit c:logging-driver.awsfirelens
    e:logging-driver.awsfirelens.log-driver-buffer-limit e:firelens.non-root-user e:efs e:storage.s3-files
    e:firelens.options.config.file e:firelens.options.config.s3 e:storage.ebsta-non-root-user e:ipv6-only
    ecs.os-type=linux ecs.os-family=LINUX ecs.os-type-detailed=LINUX";

/// How one make of instance differs from the plain one.
enum Differs {
    /// These are not told.
    Without(&'static [&'static str]),
    /// These come after that one; after none is at the beginning.
    After(&'static str, &'static [&'static str]),
}
use Differs::{After, Without};

type Make = (&'static [(&'static str, &'static str)], &'static [Differs]);

/// Variables, and what they change.
const MAKES: &[Make] = &[
    (&[], &[]),
    (&[("ECS_DISABLE_PRIVILEGED", "true")], &[Without(&["c:privileged-container"])]),
    (
        &[("ECS_ENABLE_TASK_IAM_ROLE", "true"), ("ECS_ENABLE_TASK_IAM_ROLE_NETWORK_HOST", "true")],
        &[After("c:logging-driver.none", &["c:task-iam-role", "c:task-iam-role-network-host"])],
    ),
    (
        &[("ECS_ENABLE_TASK_IAM_ROLE_NETWORK_HOST", "true")],
        &[After("c:logging-driver.none", &["c:task-iam-role-network-host"])],
    ),
    (
        &[("ECS_ENABLE_TASK_CPU_MEM_LIMIT", "false")],
        &[Without(&["e:task-cpu-mem-limit", "e:increased-task-cpu-limit"])],
    ),
    (&[("ECS_AVAILABLE_LOGGING_DRIVERS", r#"["none"]"#)], &[Without(&["c:logging-driver.json-file"])]),
    (&[("ECS_DISABLE_DOCKER_HEALTH_CHECK", "true")], &[Without(&["e:container-health-check"])]),
    (&[("ECS_EBSTA_SUPPORTED", "false")], &[Without(&["e:storage.ebsta-non-root-user"])]),
    (
        &[("ECS_INSTANCE_ATTRIBUTES", r#"{"stack": "prod"}"#), ("ECS_DETAILED_OS_FAMILY", "DEBIAN_12")],
        &[
            After("", &["stack=prod"]),
            Without(&["ecs.os-type-detailed=LINUX"]),
            After("ecs.os-family=LINUX", &["ecs.os-type-detailed=DEBIAN_12"]),
        ],
    ),
    (
        &[("ECS_EXTERNAL", "true"), ("AWS_DEFAULT_REGION", "us-west-2"), ("ECS_ENABLE_TASK_ENI", "true")],
        &[
            Without(&["e:aws-appmesh", "e:task-eia", "e:storage.ebsta-non-root-user"]),
            After("e:ipv6-only", &["e:external"]),
            After("ecs.os-type-detailed=LINUX", &[CPU]),
        ],
    ),
];

/// EC2 tells its own by the identity document.
const CPU: &str = match std::env::consts::ARCH.as_bytes() {
    b"aarch64" => "ecs.cpu-architecture=arm64",
    _ => "ecs.cpu-architecture=x86_64",
};

fn expected(differences: &[Differs]) -> Vec<String> {
    let mut list: Vec<&str> = PLAIN.split_whitespace().collect();
    for difference in differences {
        match difference {
            Without(gone) => {
                assert!(gone.iter().all(|name| list.contains(name)), "{gone:?}");
                list.retain(|name| !gone.contains(name));
            }
            After(before, more) => {
                let at = list.iter().position(|name| name == before).map_or(0, |at| at + 1);
                list.splice(at..at, more.iter().copied());
            }
        }
    }
    let whole = |name: &str| match name.split_once(':') {
        Some(("c", rest)) => format!("com.amazonaws.ecs.capability.{rest}"),
        Some((_, rest)) => format!("ecs.capability.{rest}"),
        None => name.to_owned(),
    };
    let not_built: BTreeSet<String> = not_built().collect();
    list.into_iter().map(whole).filter(|name| !not_built.contains(name)).collect()
}

#[test]
fn every_make_of_instance_tells_what_the_original_would_in_its_order() {
    for (variables, differences) in MAKES {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ecsd"));
        command.arg("-ecs-attributes").env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.env("ECSD_LOGGER", env!("CARGO_BIN_EXE_ecsd-logger"));
        let printed = command.envs(variables.iter().copied()).output().unwrap();
        let text = String::from_utf8(printed.stdout).unwrap();
        assert_eq!(printed.status.code(), Some(0), "{variables:?}: {text}");
        let told: Vec<String> = text
            .lines()
            .map(|line| match line.split_once('\t').expect("name, tab, value") {
                (name, "") => name.to_owned(),
                (name, value) => format!("{name}={value}"),
            })
            .collect();
        assert_eq!(told, expected(differences), "{variables:?}");
    }
}
