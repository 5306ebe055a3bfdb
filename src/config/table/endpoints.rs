//! The metadata, credentials and introspection endpoints; metrics and health.

use super::*;
use std::net::Ipv4Addr;

const POLL: (Duration, Duration, Duration) =
    (Duration::from_secs(5), Duration::from_secs(10), Duration::from_secs(20));

/// The rows.
pub(super) const ROWS: &[Variable] = &[
    flag(
        "ECS_DISABLE_METRICS",
        "false",
        "No metrics are collected or sent.",
        |c, v| parse::boolean(v, |b| c.metrics_disabled = b),
        |c| c.metrics_disabled.show(),
    )
    .tri("DisableMetrics"),
    flag(
        "ECS_POLL_METRICS",
        "false",
        "Containers are sampled at `ECS_POLLING_METRICS_WAIT_DURATION`, not every second.",
        |c, v| parse::boolean(v, |b| c.metrics_interval = b.then_some(POLL.1)),
        |c| c.metrics_interval.is_some().show(),
    )
    .tri("PollMetrics"),
    row(
        "ECS_POLLING_METRICS_WAIT_DURATION",
        [
            "duration",
            "`10s`",
            "outside of `5s` to `20s`: the nearer of these, with a warning",
            "How long between two samples; only with `ECS_POLL_METRICS`.",
        ],
        |c, v| {
            let (least, _, most) = POLL;
            match &mut c.metrics_interval {
                Some(interval) => parse::between(v, (least, most), (least, most), interval),
                None => Outcome::Ignored("counts only with ECS_POLL_METRICS=true; ignoring it".to_owned()),
            }
        },
        |c| c.metrics_interval.unwrap_or(POLL.1).show(),
    )
    .nanoseconds("PollingMetricsWaitDuration"),
    flag(
        "ECS_DISABLE_DOCKER_HEALTH_CHECK",
        "false",
        "Health checks of containers are not advertised; those of tasks that come all the same are run.",
        |c, v| parse::boolean(v, |b| c.health_checks_disabled = b),
        |c| c.health_checks_disabled.show(),
    )
    .tri("DisableDockerHealthCheck"),
    row(
        "TaskMetadataSteadyStateRate",
        [
            "number",
            "`40`",
            "not positive: ignored with a warning",
            "The first half of `ECS_TASK_METADATA_RPS_LIMIT`.",
        ],
        |c, v| parse::number(v, 1..=i32::MAX as u32, &mut c.task_metadata_rps.0),
        |c| c.task_metadata_rps.0.show(),
    )
    .file_only(Form::Number),
    row(
        "TaskMetadataBurstRate",
        [
            "number",
            "`60`",
            "not positive: ignored with a warning",
            "The second half of `ECS_TASK_METADATA_RPS_LIMIT`.",
        ],
        |c, v| parse::number(v, 1..=i32::MAX as u32, &mut c.task_metadata_rps.1),
        |c| c.task_metadata_rps.1.show(),
    )
    .file_only(Form::Number),
    row(
        "ECS_TASK_METADATA_RPS_LIMIT",
        [
            "`steady,burst`",
            "`40,60`",
            "ignored with a warning",
            "Requests a second that each container may ask of the metadata endpoint.",
        ],
        |c, v| match parse::pair::<u32>(v, ',').filter(|(steady, burst)| *steady > 0 && *burst > 0) {
            Some(pair) => {
                c.task_metadata_rps = pair;
                Outcome::Taken
            }
            None => Outcome::Ignored(format!("{} is no pair of positive numbers; ignoring it", shown(v))),
        },
        |c| c.task_metadata_rps.show(),
    ),
    flag(
        "ECS_DISABLE_TASK_METADATA_AZ",
        "false",
        "Task metadata leaves the availability zone out.",
        |c, v| parse::boolean(v, |b| c.task_metadata_az_disabled = b),
        |c| c.task_metadata_az_disabled.show(),
    )
    .key("TaskMetadataAZDisabled", Form::Bool),
    row(
        "ECSD_TASK_METADATA_ADDRESS",
        ["address:port", "`127.0.0.1:51679`", "exit 1", "Where the task metadata endpoint listens."],
        |c, v| parse::address(v, &mut c.task_metadata_address),
        |c| c.task_metadata_address.show(),
    ),
    flag(
        "ECS_ALLOW_OFFHOST_INTROSPECTION_ACCESS",
        "false",
        "The introspection endpoint listens on all IPv4 addresses.",
        |c, v| {
            parse::boolean(v, |b| {
                if b {
                    c.introspection_address.set_ip(Ipv4Addr::UNSPECIFIED.into());
                }
            })
        },
        |c| c.introspection_address.ip().is_unspecified().show(),
    ),
    row(
        "ECSD_INTROSPECTION_ADDRESS",
        ["address:port", "`127.0.0.1:51678`", "exit 1", "Where the introspection endpoint listens."],
        |c, v| parse::address(v, &mut c.introspection_address),
        |c| c.introspection_address.show(),
    ),
    row(
        "ECS_AGENT_HEALTHCHECK_HOST",
        ["host", "`localhost`", "-", "Whom `ecsd -healthcheck` asks."],
        |c, v| {
            c.healthcheck_host = v.to_owned();
            Outcome::Taken
        },
        |c| c.healthcheck_host.show(),
    ),
];
