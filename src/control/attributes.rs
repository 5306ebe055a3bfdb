//! The attributes that the instance registers with (spec/control-plane.md 2.5, 2.6): one table in the
//! original's order, each row with the condition under which it is told. An attribute is a promise: the
//! scheduler places tasks by it. So it is told only where this agent does it and this host can; what
//! is not built has its row, and its place, and is never told.

use crate::model::logging;
use std::collections::BTreeMap;

/// A name, and for some a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attribute {
    /// Name.
    pub name: String,
    /// Value; most have none.
    pub value: Option<String>,
}

/// What decides over the list: what is configured, and what the host was found to be able to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capabilities {
    /// `ECS_INSTANCE_ATTRIBUTES`; first registration only.
    pub custom: BTreeMap<String, String>,
    /// `ECS_AVAILABLE_LOGGING_DRIVERS`, of which only those that are implemented are told.
    pub logging_drivers: Vec<String>,
    /// Containers can be given all privileges, and `ECS_DISABLE_PRIVILEGED` does not forbid it.
    pub privileged: bool,
    /// Containers get SELinux labels: `ECS_SELINUX_CAPABLE`, on a host that has it.
    pub selinux: bool,
    /// Containers are confined by AppArmor: `ECS_APPARMOR_CAPABLE`, on a host that has it.
    pub apparmor: bool,
    /// Task cgroups can be made and limited.
    pub task_limits: bool,
    /// `ECS_DISABLE_DOCKER_HEALTH_CHECK` does not hide that there are health checks.
    pub health_checks: bool,
    /// `ECS_ENABLE_TASK_IAM_ROLE`
    pub task_iam_role: bool,
    /// `ECS_ENABLE_TASK_IAM_ROLE_NETWORK_HOST`
    pub task_iam_role_network_host: bool,
    /// The driver `awslogs` may use execution roles: `ECS_ENABLE_AWSLOGS_EXECUTIONROLE_OVERRIDE`.
    pub awslogs_execution_role: bool,
    /// `ECS_EXTERNAL`
    pub external: bool,
    /// Version of the driver of the GPUs that are offered.
    pub gpu_driver: Option<String>,
    /// `ECS_DETAILED_OS_FAMILY`
    pub os_family: String,
    /// VPC and subnet, with `ECS_ENABLE_TASK_ENI`.
    pub vpc: Option<(String, String)>,
    /// The Outpost that the instance is on.
    pub outpost_arn: Option<String>,
}

impl Default for Capabilities {
    fn default() -> Self {
        Self {
            custom: BTreeMap::new(),
            logging_drivers: vec!["json-file".into(), "none".into()],
            privileged: true,
            selinux: false,
            apparmor: false,
            task_limits: true,
            health_checks: true,
            task_iam_role: false,
            task_iam_role_network_host: false,
            awslogs_execution_role: false,
            external: false,
            gpu_driver: None,
            os_family: "LINUX".into(),
            vpc: None,
            outpost_arn: None,
        }
    }
}

/// When a row is told.
enum When {
    /// The agent does it on every host.
    Always,
    /// Where this holds.
    If(fn(&Capabilities) -> bool),
    /// It stands for these names, each with the row's own as its beginning.
    Each(fn(&Capabilities) -> Vec<String>),
    /// Where there is a value, with that.
    Valued(fn(&Capabilities) -> Option<String>),
    /// Never: the agent does not do it. docs/differences.md says why, row by row.
    NotBuilt,
}
use When::{Always, Each, If, NotBuilt, Valued};

/// `com.amazonaws.ecs.capability.`, of the oldest.
const P1: &str = "com.amazonaws.ecs.capability.";
const P2: &str = "ecs.capability.";

/// The capabilities, in the order in which the original tells them.
const CAPABILITIES: &[(&str, &str, When)] = &[
    (P2, "private-registry-authentication.secretsmanager", Always),
    (P2, "secrets.ssm.environment-variables", NotBuilt),
    (P2, "secrets.ssm.bootstrap.log-driver", NotBuilt),
    (P2, "ecr-endpoint", Always),
    (P2, "secrets.asm.environment-variables", NotBuilt),
    (P2, "secrets.asm.bootstrap.log-driver", NotBuilt),
    (P2, "container-ordering", Always),
    (P2, "full-sync", Always),
    (P2, "env-files.s3", NotBuilt),
    (P2, "network.container-port-range", Always),
    (P2, "container-restart-policy", Always),
    (P1, "privileged-container", If(|has| has.privileged)),
    // Placement of old task definitions keys on these; the Docker documents of a task are understood
    // in all of them.
    (P1, "docker-remote-api.1.", Each(|_| DOCKER_API.map(str::to_owned).to_vec())),
    (P1, "logging-driver.", Each(logging_drivers)),
    (P1, "selinux", If(|has| has.selinux)),
    (P1, "apparmor", If(|has| has.apparmor)),
    (P1, "task-iam-role", If(|has| has.task_iam_role)),
    (P1, "task-iam-role-network-host", If(|has| has.task_iam_role_network_host)),
    (P2, "task-cpu-mem-limit", If(|has| has.task_limits)),
    (P2, "increased-task-cpu-limit", If(|has| has.task_limits)),
    // The task ENI, trunking, App Mesh, Elastic Inference, Service Connect, EBS and fault injection
    // are never told of an external instance: a row that is built needs that in its condition.
    (P2, "task-eni", NotBuilt),
    (P2, "task-eni.ipv6", NotBuilt),
    (P2, "cni-plugin-version", NotBuilt),
    (P2, "task-eni-block-instance-metadata", NotBuilt),
    (P2, "task-eni-trunking", NotBuilt),
    (P2, "branch-cni-plugin-version", NotBuilt),
    (P1, "ecr-auth", Always),
    (P2, "execution-role-ecr-pull", Always),
    (P2, "container-health-check", If(|has| has.health_checks)),
    (P2, "execution-role-awslogs", If(|has| has.awslogs_execution_role)),
    (P2, "docker-plugin.local", Always),
    (P2, "nvidia-driver-version.", Each(|has| has.gpu_driver.iter().cloned().collect())),
    (P2, "gpu-driver-version", Valued(|has| has.gpu_driver.clone())),
    (P2, "pid-ipc-namespace-sharing", Always),
    (P2, "aws-appmesh", NotBuilt),
    (P2, "task-eia", NotBuilt),
    (P2, "task-eia.optimized-cpu", NotBuilt),
    (P2, "firelens.fluentd", NotBuilt),
    (P2, "firelens.fluentbit", NotBuilt),
    (P1, "logging-driver.awsfirelens", NotBuilt),
    (P2, "logging-driver.awsfirelens.log-driver-buffer-limit", NotBuilt),
    (P2, "firelens.non-root-user", NotBuilt),
    (P2, "efs", NotBuilt),
    (P2, "storage.s3-files", NotBuilt),
    (P2, "efsAuth", NotBuilt),
    (P2, "firelens.options.config.file", NotBuilt),
    (P2, "firelens.options.config.s3", NotBuilt),
    (P2, "gmsa", NotBuilt),
    (P2, "gmsa-domainless", NotBuilt),
    (P2, "execute-command", NotBuilt),
    (P2, "service-connect-v1", NotBuilt),
    (P2, "storage.ebs-task-volume-attach", NotBuilt),
    (P2, "storage.ebsta-non-root-user", NotBuilt),
    (P2, "ipv6-only", NotBuilt),
    (P2, "external", If(|has| has.external)),
    (P2, "fault-injection", NotBuilt),
];

/// Docker API versions that the original tells for any modern daemon.
const DOCKER_API: [&str; 13] = ["17", "18", "19", "20", "21", "22", "23", "24", "25", "28", "29", "30", "32"];

fn logging_drivers(has: &Capabilities) -> Vec<String> {
    has.logging_drivers.iter().filter(|driver| logging::DRIVERS.contains(&driver.as_str())).cloned().collect()
}

/// What the original can tell and this agent never does.
pub fn not_built() -> impl Iterator<Item = String> {
    let rows = CAPABILITIES.iter().filter(|(_, _, when)| matches!(when, NotBuilt));
    rows.map(|(prefix, name, _)| format!("{prefix}{name}"))
}

/// The list: custom ones, capabilities, VPC and subnet, the instance's kind, its Outpost.
pub fn attributes(has: &Capabilities) -> Vec<Attribute> {
    let mut list: Vec<Attribute> = Vec::new();
    let mut add = |name: String, value: Option<String>| list.push(Attribute { name, value });
    for (name, value) in &has.custom {
        add(name.clone(), Some(value.clone()));
    }
    for (prefix, name, when) in CAPABILITIES {
        match when {
            Always => add(format!("{prefix}{name}"), None),
            If(holds) if holds(has) => add(format!("{prefix}{name}"), None),
            Each(endings) => {
                endings(has).into_iter().for_each(|ending| add(format!("{prefix}{name}{ending}"), None));
            }
            Valued(value) => {
                if let Some(value) = value(has) {
                    add(format!("{prefix}{name}"), Some(value));
                }
            }
            If(_) | NotBuilt => {}
        }
    }
    let mut tell = |name: &str, value: &str| add(format!("ecs.{name}"), Some(value.to_owned()));
    if let Some((vpc, subnet)) = &has.vpc {
        tell("vpc-id", vpc);
        tell("subnet-id", subnet);
    }
    tell("os-type", "linux");
    tell("os-family", "LINUX");
    tell("os-type-detailed", &has.os_family);
    if has.external {
        // EC2's own come with the identity document.
        tell("cpu-architecture", cpu_architecture());
    }
    if let Some(arn) = &has.outpost_arn {
        tell("outpost-arn", arn);
    }
    list
}

fn cpu_architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86" => "i386",
        "aarch64" => "arm64",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(has: &Capabilities) -> Vec<String> {
        attributes(has).into_iter().map(|attribute| attribute.name).collect()
    }

    #[test]
    fn conditions_take_their_rows_away() {
        let without = Capabilities {
            logging_drivers: vec!["sumologic".into(), "none".into()],
            privileged: false,
            task_limits: false,
            ..Capabilities::default()
        };
        let names = names(&without);
        for gone in
            ["privileged-container", "task-iam-role", "logging-driver.json-file", "logging-driver.sumologic"]
        {
            assert!(!names.contains(&format!("{P1}{gone}")), "{gone}");
        }
        assert!(!names.iter().any(|name| name.contains("cpu")), "{names:?}");
        assert!(names.contains(&format!("{P1}logging-driver.none")));
        assert!(!names.contains(&format!("{P2}execution-role-awslogs")));
    }

    #[test]
    fn the_instance_comes_after_its_capabilities() {
        let has = Capabilities {
            custom: BTreeMap::from([("mine".to_owned(), "1".to_owned())]),
            task_iam_role: true,
            external: true,
            vpc: Some(("vpc-1".into(), "subnet-1".into())),
            outpost_arn: Some("arn:o".into()),
            ..Capabilities::default()
        };
        let names = names(&has);
        assert_eq!(names[0], "mine");
        let tail = [
            "ecs.capability.external",
            "ecs.vpc-id",
            "ecs.subnet-id",
            "ecs.os-type",
            "ecs.os-family",
            "ecs.os-type-detailed",
            "ecs.cpu-architecture",
            "ecs.outpost-arn",
        ];
        assert_eq!(names[names.len() - tail.len()..], tail);
        assert!(names.contains(&format!("{P1}task-iam-role")));
    }

    #[test]
    fn no_name_is_told_twice() {
        let mut names = names(&Capabilities::default());
        names.sort();
        names.dedup();
        assert_eq!(names.len(), attributes(&Capabilities::default()).len());
        assert!(not_built().all(|name| !names.contains(&name)));
    }
}
