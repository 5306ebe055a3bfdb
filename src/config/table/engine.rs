//! Tasks and containers: their resources, limits, timeouts and roles.

use super::*;
use crate::model::logging;

/// The rows.
pub(super) const ROWS: &[Variable] = &[
    row(
        "ECS_RESERVED_MEMORY",
        ["MiB", "`0`", "not 0 to 65535: ignored with a warning", "Memory that no task gets."],
        |c, v| match v.parse::<u16>() {
            Ok(mib) => {
                c.reserved_memory_mib = mib.into();
                Outcome::Taken
            }
            Err(_) => Outcome::Ignored(format!("{} is not 0 to 65535 MiB; ignoring it", shown(v))),
        },
        |c| c.reserved_memory_mib.show(),
    )
    .key("ReservedMemory", Form::Number),
    row(
        "ECS_CONTAINER_STOP_TIMEOUT",
        [
            "duration",
            "`30s`",
            "less than `1s`: `1s`, with a warning; in a file: exit 1",
            "From the stop signal to SIGKILL, where the task definition says nothing.",
        ],
        |c, v| parse::duration(v, SECOND, SECOND, &mut c.container_stop_timeout),
        |c| c.container_stop_timeout.show(),
    )
    .key("DockerStopTimeout", Form::Nanoseconds(SECOND)),
    row(
        "ECS_CONTAINER_START_TIMEOUT",
        [
            "duration",
            "`3m`",
            "less than `45s`: `45s`, with a warning; in a file: exit 1",
            "The longest that starting a container may take.",
        ],
        |c, v| parse::duration(v, START_LEAST, START_LEAST, &mut c.container_start_timeout),
        |c| c.container_start_timeout.show(),
    )
    .key("ContainerStartTimeout", Form::Nanoseconds(START_LEAST)),
    row(
        "ECS_CONTAINER_CREATE_TIMEOUT",
        [
            "duration",
            "`4m`",
            "less than `1m`: `1m`, with a warning",
            "The longest that creating a container may take.",
        ],
        |c, v| parse::duration(v, MINUTE, MINUTE, &mut c.container_create_timeout),
        |c| c.container_create_timeout.show(),
    )
    .nanoseconds("ContainerCreateTimeout"),
    row(
        "ECS_ENGINE_TASK_CLEANUP_WAIT_DURATION",
        [
            "duration",
            "`3h`",
            "less than `1s`: `3h`, with a warning",
            "From a task's end to the removal of its containers.",
        ],
        |c, v| parse::duration(v, SECOND, MINUTE * 180, &mut c.task_cleanup_wait),
        |c| c.task_cleanup_wait.show(),
    )
    .nanoseconds("TaskCleanupWaitDuration"),
    row(
        "ECS_ENGINE_TASK_CLEANUP_WAIT_DURATION_JITTER",
        ["duration", "`0`", "negative: none, with a warning", "Up to this is added to it at random."],
        |c, v| parse::duration(v, Duration::ZERO, Duration::ZERO, &mut c.task_cleanup_jitter),
        |c| c.task_cleanup_jitter.show(),
    )
    .nanoseconds("TaskCleanupWaitDurationJitter"),
    row(
        "ECS_AVAILABLE_LOGGING_DRIVERS",
        [
            "JSON list",
            "`[\"json-file\",\"none\"]`",
            "no JSON: ignored with a warning; an unknown driver: exit 1",
            "Log drivers that tasks may use. Of those that ecsd has, and this host: docs/logs.md.",
        ],
        logging_drivers,
        |c| c.logging_drivers.show(),
    )
    .key("AvailableLoggingDrivers", Form::Json),
    flag(
        "ECS_DISABLE_PRIVILEGED",
        "false",
        "Privileged containers are not advertised.",
        |c, v| parse::boolean(v, |b| c.privileged_disabled = b),
        |c| c.privileged_disabled.show(),
    )
    .tri("PrivilegedDisabled"),
    flag(
        "ECS_SELINUX_CAPABLE",
        "false",
        "On a host with SELinux, containers get labels, and its capability is advertised.",
        |c, v| parse::boolean(v, |b| c.selinux_capable = b),
        |c| c.selinux_capable.show(),
    )
    .tri("SELinuxCapable"),
    flag(
        "ECS_APPARMOR_CAPABLE",
        "false",
        "On a host with AppArmor, its capability is advertised; containers are confined anyway.",
        |c, v| parse::boolean(v, |b| c.apparmor_capable = b),
        |c| c.apparmor_capable.show(),
    )
    .tri("AppArmorCapable"),
    flag(
        "ECS_ENABLE_TASK_CPU_MEM_LIMIT",
        "true where cgroups can be made",
        "Limits of whole tasks. `true` where cgroups can't be made stops the agent (exit 5).",
        |c, v| parse::boolean(v, |b| c.task_cpu_mem_limit = Some(b)),
        |c| c.task_cpu_mem_limit.show(),
    )
    .tri("TaskCPUMemLimit"),
    row(
        "ECS_CGROUP_CPU_PERIOD",
        [
            "duration",
            "`100ms`",
            "not `8ms` to `100ms`: `100ms`, with a warning",
            "The period of the CPU quota of tasks.",
        ],
        |c, v| {
            let (least, default) = (Duration::from_millis(8), Duration::from_millis(100));
            parse::between(v, (least, default), (default, default), &mut c.cgroup_cpu_period)
        },
        |c| c.cgroup_cpu_period.show(),
    )
    .nanoseconds("CgroupCPUPeriod"),
    row(
        "ECS_TASK_PIDS_LIMIT",
        [
            "number",
            "`0`, no limit",
            "not 1 to 4194304: ignored with a warning",
            "How many processes and threads a task may have.",
        ],
        |c, v| parse::number(v, 1..=4_194_304, &mut c.task_pids_limit),
        |c| c.task_pids_limit.show(),
    )
    .key("TaskPidsLimit", Form::Number),
    flag(
        "ECS_PROPAGATE_TASK_MEMORY_LIMIT_CGROUPV2",
        "false",
        "With cgroup v2, containers without a memory limit get the task's.",
        |c, v| parse::boolean(v, |b| c.propagate_task_memory_limit = b),
        |c| c.propagate_task_memory_limit.show(),
    )
    .tri("PropagateTaskMemoryLimitCgroupV2"),
    flag(
        "ECS_ENABLE_TASK_IAM_ROLE",
        "false",
        "Task roles are advertised. Credentials that ECS sends are served in any case.",
        |c, v| parse::boolean(v, |b| c.task_iam_role = b),
        |c| c.task_iam_role.show(),
    )
    .tri("TaskIAMRoleEnabled"),
    flag(
        "ECS_ENABLE_TASK_IAM_ROLE_NETWORK_HOST",
        "false",
        "Task roles are advertised for host mode, too.",
        |c, v| parse::boolean(v, |b| c.task_iam_role_network_host = b),
        |c| c.task_iam_role_network_host.show(),
    )
    .key("TaskIAMRoleEnabledForNetworkHost", Form::Bool),
    flag(
        "ECS_ENABLE_AWSLOGS_EXECUTIONROLE_OVERRIDE",
        "false",
        "Tasks may have the driver `awslogs` use their execution role; told as a capability.",
        |c, v| parse::boolean(v, |b| c.awslogs_execution_role = b),
        |c| c.awslogs_execution_role.show(),
    )
    .tri("OverrideAWSLogsExecutionRole"),
    flag(
        "ECS_ENABLE_FIRELENS_ASYNC",
        "true",
        "Containers do not wait for a FireLens router that does not answer.",
        |c, v| parse::boolean(v, |b| c.firelens_async = b),
        |c| c.firelens_async.show(),
    )
    .tri("FirelensAsyncEnabled")
    .later(),
    flag(
        "ECS_ENABLE_CONTAINER_METADATA",
        "false",
        "Each container gets a file with its metadata.",
        |c, v| parse::boolean(v, |b| c.container_metadata = b),
        |c| c.container_metadata.show(),
    )
    .tri("ContainerMetadataEnabled")
    .later(),
    flag(
        "ECS_SHARED_VOLUME_MATCH_FULL_CONFIG",
        "false",
        "A shared volume that is there must have the labels and driver options that the task definition names.",
        |c, v| parse::boolean(v, |b| c.shared_volume_match_full_config = b),
        |c| c.shared_volume_match_full_config.show(),
    )
    .tri("SharedVolumeMatchFullConfig"),
    row(
        "ECS_VOLUME_PLUGIN_CAPABILITIES",
        [
            "JSON list",
            "`[]`",
            "ignored with a warning",
            "`efsAuth`: EFS volumes may use access points and roles.",
        ],
        |c, v| parse::list(v, "capabilities", |l| c.volume_plugin_capabilities = l),
        |c| c.volume_plugin_capabilities.show(),
    )
    .key("VolumePluginCapabilities", Form::Json)
    .later(),
    flag(
        "ECS_EBSTA_SUPPORTED",
        "true",
        "EBS volumes are attached to tasks, once ecsd can do that.",
        |c, v| parse::boolean(v, |b| c.ebs_task_attach = b),
        |c| c.ebs_task_attach.show(),
    ),
];

const START_LEAST: Duration = Duration::from_secs(45);

const DRIVERS: [&str; 11] = [
    "json-file",
    "syslog",
    "journald",
    "gelf",
    "fluentd",
    "awslogs",
    "splunk",
    "logentries",
    "sumologic",
    "none",
    "awsfirelens",
];

fn logging_drivers(config: &mut Config, value: &str) -> Outcome {
    let Some(drivers) = parse::first_json::<Vec<String>>(value) else {
        return Outcome::Ignored(format!("{} is no JSON list of drivers; ignoring it", shown(value)));
    };
    if let Some(unknown) = drivers.iter().find(|driver| !DRIVERS.contains(&driver.as_str())) {
        let known = DRIVERS.join(", ");
        return Outcome::Fatal(format!("{} is no log driver; known are {known}", shown(unknown)));
    }
    let missing: Vec<&str> =
        drivers.iter().map(String::as_str).filter(|d| !logging::DRIVERS.contains(d)).collect();
    let warning = (!missing.is_empty())
        .then(|| format!("this agent does not have {} and does not advertise them", missing.join(", ")));
    config.logging_drivers = drivers;
    warning.map_or(Outcome::Taken, Outcome::Changed)
}
