//! The table of variables. A row is all that there is to know about one: `from_env` and
//! `docs/configuration.md` both come from here.

use super::parse::{self, Applied, shown};
use super::{Config, PullBehavior, Secret};
use crate::telemetry::{LogFormat, LogLevel};
use std::collections::BTreeSet;
use std::time::Duration;

/// One variable.
pub struct Variable {
    /// Name.
    pub name: &'static str,
    /// Type, for the reader.
    pub kind: &'static str,
    /// Default, for the reader.
    pub default: &'static str,
    /// Limits, and what an invalid value does.
    pub invalid: &'static str,
    /// What it is for.
    pub doc: &'static str,
    /// A blank value is a value.
    pub(super) blank_counts: bool,
    pub(super) apply: fn(&mut Config, &str) -> Applied,
}

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
const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

const fn row(
    name: &'static str,
    [kind, default, invalid, doc]: [&'static str; 4],
    apply: fn(&mut Config, &str) -> Applied,
) -> Variable {
    Variable { name, kind, default, invalid, doc, blank_counts: false, apply }
}

fn done() -> Applied {
    Ok(None)
}

/// All variables that do something, in the order of the page.
pub static VARIABLES: &[Variable] = &[
    row(
        "ECS_CLUSTER",
        [
            "text",
            "`default`",
            "-",
            "The cluster to join. `default` is created where it is missing; any other must exist. A data directory that belongs to another cluster stops the agent (exit 5).",
        ],
        |c, v| {
            c.cluster = v.to_owned();
            done()
        },
    ),
    row(
        "ECS_BACKEND_HOST",
        [
            "URL",
            "the region's endpoint",
            "not `http(s)://host[:port]`: exit 1",
            "The ECS API. `https://` is added where no scheme is given.",
        ],
        backend_host,
    ),
    row(
        "AWS_DEFAULT_REGION",
        ["text", "from the instance metadata service", "unresolved: exit 1", "The AWS region."],
        |c, v| {
            c.region = Some(v.to_owned());
            done()
        },
    ),
    row(
        "ECS_DATADIR",
        [
            "path",
            "`/var/lib/ecs/data`",
            "not absolute: exit 1",
            "Where the agent keeps its state. State is always kept.",
        ],
        |c, v| parse::path(v, |p| c.data_dir = p),
    ),
    row(
        "ECS_CHECKPOINT",
        [
            "boolean",
            "true",
            "ignored with a warning",
            "Accepted. State is always kept: `false` gets a warning.",
        ],
        |_, v| match super::go::boolean(v) {
            Some(true) => done(),
            _ => Ok(Some(format!("{} is ignored: state is always kept", shown(v)))),
        },
    ),
    row(
        "ECS_LOGLEVEL",
        [
            "`debug` `info` `warn` `error` `crit` `none`",
            "`info`",
            "default, with a warning",
            "How much is logged. Any case.",
        ],
        |c, v| match LogLevel::from_word(v) {
            Some(level) => {
                c.log_level = level;
                done()
            }
            None => Ok(Some(format!("{} is no level; using info", shown(v)))),
        },
    ),
    row(
        "ECS_LOGFILE",
        [
            "path",
            "none",
            "not absolute: exit 1",
            "File that log lines are appended to, besides standard output.",
        ],
        |c, v| parse::path(v, |p| c.log_file = Some(p)),
    ),
    row(
        "ECS_LOG_OUTPUT_FORMAT",
        ["`logfmt` `json`", "`logfmt`", "default, with a warning", "The form of log lines."],
        |c, v| match LogFormat::from_word(v) {
            Some(format) => {
                c.log_format = format;
                done()
            }
            None => Ok(Some(format!("{} is neither logfmt nor json; using logfmt", shown(v)))),
        },
    ),
    row(
        "ECS_RESERVED_PORTS",
        [
            "JSON list of ports",
            "`[22,2375,2376,51678,51679]`",
            "default, with a warning",
            "TCP ports that no task gets. Replaces the whole list.",
        ],
        |c, v| parse::ports(v, |p| c.reserved_ports = BTreeSet::from_iter(p)),
    ),
    row(
        "ECS_RESERVED_PORTS_UDP",
        ["JSON list of ports", "`[]`", "default, with a warning", "UDP ports that no task gets."],
        |c, v| parse::ports(v, |p| c.reserved_ports_udp = BTreeSet::from_iter(p)),
    ),
    row(
        "ECS_RESERVED_MEMORY",
        ["MiB", "`0`", "not 0 to 65535: default, with a warning", "Memory that no task gets."],
        |c, v| match v.parse::<u16>() {
            Ok(mib) => {
                c.reserved_memory_mib = mib.into();
                done()
            }
            Err(_) => Ok(Some(format!("{} is not 0 to 65535 MiB; reserving none", shown(v)))),
        },
    ),
    row(
        "ECS_CONTAINER_STOP_TIMEOUT",
        [
            "duration",
            "`30s`",
            "less than `1s`: `1s`, with a warning",
            "From the stop signal to SIGKILL, where the task definition says nothing.",
        ],
        |c, v| parse::duration(v, SECOND, SECOND, &mut c.container_stop_timeout),
    ),
    row(
        "ECS_CONTAINER_START_TIMEOUT",
        [
            "duration",
            "`3m`",
            "less than `45s`: `45s`, with a warning",
            "The longest that starting a container may take.",
        ],
        |c, v| parse::duration(v, SECOND * 45, SECOND * 45, &mut c.container_start_timeout),
    ),
    row(
        "ECS_CONTAINER_CREATE_TIMEOUT",
        [
            "duration",
            "`4m`",
            "less than `1m`: `1m`, with a warning",
            "The longest that creating a container may take.",
        ],
        |c, v| parse::duration(v, MINUTE, MINUTE, &mut c.container_create_timeout),
    ),
    row(
        "ECS_MANIFEST_PULL_TIMEOUT",
        [
            "duration",
            "`1m`",
            "less than `30s`: `30s`, with a warning",
            "The longest that finding an image's digest may take.",
        ],
        |c, v| parse::duration(v, SECOND * 30, SECOND * 30, &mut c.manifest_pull_timeout),
    ),
    row(
        "ECS_IMAGE_PULL_INACTIVITY_TIMEOUT",
        ["duration", "`1m`", "less than `1m`: `1m`, with a warning", "How long a pull may make no progress."],
        |c, v| parse::duration(v, MINUTE, MINUTE, &mut c.image_pull_inactivity_timeout),
    ),
    row(
        "ECS_IMAGE_PULL_TIMEOUT",
        ["duration", "`2h`", "negative: default, with a warning", "The longest that a pull may take."],
        |c, v| parse::duration(v, Duration::ZERO, MINUTE * 120, &mut c.image_pull_timeout),
    ),
    row(
        "ECS_IMAGE_PULL_BEHAVIOR",
        [
            "`default` `always` `once` `prefer-cached`",
            "`default`",
            "default",
            "When an image is pulled. Exactly these words.",
        ],
        |c, v| {
            c.image_pull_behavior = match v {
                "always" => PullBehavior::Always,
                "once" => PullBehavior::Once,
                "prefer-cached" => PullBehavior::PreferCached,
                _ => PullBehavior::Default,
            };
            done()
        },
    ),
    row(
        "ECS_ENGINE_TASK_CLEANUP_WAIT_DURATION",
        [
            "duration",
            "`3h`",
            "less than `1s`: `3h`, with a warning",
            "From a task's end to the removal of its containers.",
        ],
        |c, v| parse::duration(v, SECOND, MINUTE * 180, &mut c.task_cleanup_wait),
    ),
    row(
        "ECS_ENGINE_TASK_CLEANUP_WAIT_DURATION_JITTER",
        ["duration", "`0`", "negative: none, with a warning", "Up to this is added to it at random."],
        |c, v| parse::duration(v, Duration::ZERO, Duration::ZERO, &mut c.task_cleanup_jitter),
    ),
    row(
        "ECS_ENGINE_AUTH_TYPE",
        ["`dockercfg` `docker`", "none", "ignored with a warning", "The form of `ECS_ENGINE_AUTH_DATA`."],
        |c, v| match v {
            "dockercfg" | "docker" => {
                c.engine_auth_type = v.to_owned();
                done()
            }
            _ => Ok(Some(format!("{} is neither dockercfg nor docker; ignoring it", shown(v)))),
        },
    ),
    row(
        "ECS_ENGINE_AUTH_DATA",
        ["JSON", "none", "no JSON: ignored with a warning", "Passwords of registries. Never logged."],
        |c, v| {
            if serde_json::from_str::<serde::de::IgnoredAny>(v).is_err() {
                return Ok(Some("[redacted] is no JSON; ignoring it".to_owned()));
            }
            c.engine_auth_data = Secret(v.to_owned());
            done()
        },
    ),
    row(
        "ECS_DYNAMIC_HOST_PORT_RANGE",
        [
            "`first-last`",
            "the kernel's `ip_local_port_range`, or `49153-65535`",
            "default, with a warning",
            "The ports that dynamic host ports are chosen from.",
        ],
        |c, v| {
            let range = v
                .split_once('-')
                .and_then(|(a, b)| Some((a.trim().parse::<u16>().ok()?, b.trim().parse::<u16>().ok()?)));
            match range.filter(|(first, last)| *first > 0 && first <= last) {
                Some(range) => {
                    c.dynamic_host_port_range = Some(range);
                    done()
                }
                None => Ok(Some(format!("{} is no range such as 32768-60999; using the default", shown(v)))),
            }
        },
    ),
    row(
        "ECS_INSTANCE_ATTRIBUTES",
        [
            "JSON object of texts",
            "`{}`",
            "exit 1",
            "Attributes of the instance, told at its first registration.",
        ],
        |c, v| parse::map(v, |m| c.instance_attributes = m),
    ),
    row(
        "ECS_CONTAINER_INSTANCE_TAGS",
        ["JSON object of texts", "`{}`", "exit 1", "Tags of the instance."],
        |c, v| parse::map(v, |m| c.instance_tags = m),
    ),
    row(
        "ECS_AVAILABLE_LOGGING_DRIVERS",
        [
            "JSON list",
            "`[\"json-file\",\"none\"]`",
            "no JSON: default, with a warning; an unknown driver: exit 1",
            "Log drivers that tasks may use. Only those that ecsd has (`json-file`, `none`) are advertised.",
        ],
        logging_drivers,
    ),
    row(
        "ECS_DISABLE_PRIVILEGED",
        ["boolean", "false", "default, with a warning", "Privileged containers are not advertised."],
        |c, v| parse::boolean(v, |b| c.privileged_disabled = b),
    ),
    row(
        "ECS_ENABLE_TASK_CPU_MEM_LIMIT",
        [
            "boolean",
            "true where cgroups can be made",
            "default, with a warning",
            "Limits of whole tasks. `true` where cgroups can't be made stops the agent (exit 5).",
        ],
        |c, v| parse::boolean(v, |b| c.task_cpu_mem_limit = Some(b)),
    ),
    row(
        "ECS_TASK_METADATA_RPS_LIMIT",
        [
            "`steady,burst`",
            "`40,60`",
            "default, with a warning",
            "Requests a second that each container may ask of the metadata endpoint.",
        ],
        |c, v| {
            let pair = v
                .split_once(',')
                .and_then(|(a, b)| Some((a.trim().parse::<u32>().ok()?, b.trim().parse::<u32>().ok()?)));
            match pair.filter(|(steady, burst)| *steady > 0 && *burst > 0) {
                Some(pair) => {
                    c.task_metadata_rps = pair;
                    done()
                }
                None => Ok(Some(format!("{} is no pair of positive numbers; using 40,60", shown(v)))),
            }
        },
    ),
    Variable {
        blank_counts: true,
        ..row(
            "ECS_DETAILED_OS_FAMILY",
            [
                "text",
                "`LINUX`",
                "-",
                "Told at registration and in the User-Agent. Set but blank, it is blank.",
            ],
            |c, v| {
                c.os_family = v.to_owned();
                done()
            },
        )
    },
    row(
        "AWS_EC2_METADATA_DISABLED",
        [
            "`true`",
            "false",
            "-",
            "The instance metadata service is not asked, neither for credentials nor for the identity document.",
        ],
        |c, v| {
            c.imds_disabled = v.eq_ignore_ascii_case("true");
            done()
        },
    ),
    row(
        "ECS_CONTAINERD_ADDRESS",
        ["path", "`/run/containerd/containerd.sock`", "not absolute: exit 1", "containerd's socket."],
        |c, v| parse::path(v.strip_prefix("unix://").unwrap_or(v), |p| c.containerd_address = p),
    ),
    row(
        "ECS_CONTAINERD_NAMESPACE",
        ["name", "`ecs`", "exit 1", "containerd's namespace. No other is ever touched."],
        |c, v| parse::name(v, 76, |n| c.containerd_namespace = n),
    ),
    row(
        "ECS_CONTAINERD_SNAPSHOTTER",
        ["name", "`overlayfs`", "exit 1", "containerd's snapshotter."],
        |c, v| parse::name(v, 76, |n| c.containerd_snapshotter = n),
    ),
    row(
        "ECS_CONTAINERD_RUNTIME",
        ["name", "`io.containerd.runc.v2`", "exit 1", "containerd's runtime."],
        |c, v| parse::name(v, 128, |n| c.containerd_runtime = n),
    ),
    row(
        "ECS_CONTAINERD_RUNTIME_BINARY",
        [
            "path",
            "the runtime's own choice",
            "not absolute: exit 1",
            "A program that is called as runc is: runc, crun, nvidia-container-runtime.",
        ],
        |c, v| parse::path(v, |p| c.containerd_runtime_binary = Some(p)),
    ),
    row(
        "DOCKER_HOST",
        ["text", "none", "ignored with a warning", "Accepted: there is no dockerd."],
        |_, v| {
            Ok(Some(format!("{} is ignored: ecsd runs on containerd; see ECS_CONTAINERD_ADDRESS", shown(v))))
        },
    ),
    row(
        "ECSD_RUNTIME_DIR",
        [
            "path",
            "`/run/ecsd`",
            "not absolute: exit 1",
            "What need not survive a reboot: network namespaces, generated files.",
        ],
        |c, v| parse::path(v, |p| c.runtime_dir = p),
    ),
    row(
        "ECSD_TASK_METADATA_ADDRESS",
        ["address:port", "`127.0.0.1:51679`", "exit 1", "Where the task metadata endpoint listens."],
        |c, v| parse::address(v, &mut c.task_metadata_address),
    ),
    row(
        "ECSD_INTROSPECTION_ADDRESS",
        ["address:port", "`127.0.0.1:51678`", "exit 1", "Where the introspection endpoint listens."],
        |c, v| parse::address(v, &mut c.introspection_address),
    ),
    row("ECSD_CGROUP_ROOT", ["name", "`ecs`", "exit 1", "The cgroup above all tasks' cgroups."], |c, v| {
        parse::name(v, 128, |n| c.cgroup_root = n)
    }),
    row(
        "ECSD_BRIDGE",
        ["name", "`ecs-br0`", "longer than 15: exit 1", "The bridge of tasks in bridge mode."],
        |c, v| parse::name(v, 15, |n| c.bridge = n),
    ),
    row(
        "ECSD_LOGGER",
        [
            "path",
            "`ecsd-logger` beside the agent",
            "not absolute: exit 1",
            "The program that writes containers' logs.",
        ],
        |c, v| parse::path(v, |p| c.logger = Some(p)),
    ),
];

fn backend_host(config: &mut Config, value: &str) -> Applied {
    let schemed = value.starts_with("http://") || value.starts_with("https://");
    let whole = if schemed { value.to_owned() } else { format!("https://{value}") };
    match url::Url::parse(&whole) {
        Ok(url) if url.host_str().is_some_and(|host| !host.is_empty()) => {
            config.backend_host = Some(whole);
            done()
        }
        _ => {
            Err(format!("{} is no endpoint; write such as https://ecs.eu-west-1.amazonaws.com", shown(value)))
        }
    }
}

fn logging_drivers(config: &mut Config, value: &str) -> Applied {
    let Some(drivers) = parse::first_json::<Vec<String>>(value) else {
        let text = format!("{} is no JSON list of drivers; using the default", shown(value));
        return Ok(Some(text));
    };
    if let Some(unknown) = drivers.iter().find(|driver| !DRIVERS.contains(&driver.as_str())) {
        return Err(format!("{} is no log driver; known are {}", shown(unknown), DRIVERS.join(", ")));
    }
    let missing: Vec<&str> =
        drivers.iter().map(String::as_str).filter(|d| !matches!(*d, "json-file" | "none")).collect();
    let warning = (!missing.is_empty())
        .then(|| format!("this agent does not have {} and does not advertise them", missing.join(", ")));
    config.logging_drivers = drivers;
    Ok(warning)
}

const DOCKER: &str = "it is about Docker";
const LATER: &str = "this agent does not do that yet";

/// Variables of the original that are accepted and do nothing, and why. Set, they get a warning.
pub static NO_EFFECT: &[(&str, &str)] = &[
    ("ECS_HOST_DATA_DIR", "the agent runs on the host itself; see ECS_DATADIR"),
    ("ECS_UPDATES_ENABLED", "the agent is updated by the host's packages"),
    ("ECS_UPDATE_DOWNLOAD_DIR", "the agent is updated by the host's packages"),
    ("ECS_DISABLE_METRICS", LATER),
    ("ECS_POLL_METRICS", DOCKER),
    ("ECS_POLLING_METRICS_WAIT_DURATION", LATER),
    ("ECS_DISABLE_DOCKER_HEALTH_CHECK", LATER),
    ("ECS_SELINUX_CAPABLE", LATER),
    ("ECS_APPARMOR_CAPABLE", LATER),
    ("ECS_ENABLE_TASK_ENI", LATER),
    ("ECS_ENABLE_HIGH_DENSITY_ENI", LATER),
    ("ECS_ENABLE_TASK_IAM_ROLE", "role credentials are always served"),
    ("ECS_ENABLE_TASK_IAM_ROLE_NETWORK_HOST", "role credentials are always served"),
    ("ECS_CGROUP_PATH", "the kernel tells where cgroups are"),
    ("ECS_CGROUP_CPU_PERIOD", LATER),
    ("ECS_TASK_PIDS_LIMIT", LATER),
    ("ECS_PROPAGATE_TASK_MEMORY_LIMIT_CGROUPV2", LATER),
    ("ECS_PULL_DEPENDENT_CONTAINERS_UPFRONT", LATER),
    ("ECS_DISABLE_IMAGE_CLEANUP", LATER),
    ("ECS_IMAGE_CLEANUP_INTERVAL", LATER),
    ("ECS_IMAGE_MINIMUM_CLEANUP_AGE", LATER),
    ("NON_ECS_IMAGE_MINIMUM_CLEANUP_AGE", LATER),
    ("ECS_NUM_IMAGES_DELETE_PER_CYCLE", LATER),
    ("NONECS_NUM_CONTAINERS_DELETE_PER_CYCLE", LATER),
    ("ECS_ENABLE_UNTRACKED_IMAGE_CLEANUP", LATER),
    ("ECS_EXCLUDE_UNTRACKED_IMAGE", LATER),
    ("ECS_CONTAINER_INSTANCE_PROPAGATE_TAGS_FROM", LATER),
    ("ECS_CNI_PLUGINS_PATH", "no CNI plugins are used"),
    ("ECS_AWSVPC_BLOCK_IMDS", LATER),
    ("ECS_AWSVPC_ADDITIONAL_LOCAL_ROUTES", LATER),
    ("ECS_ENABLE_CONTAINER_METADATA", LATER),
    ("ECS_ENABLE_AWSLOGS_EXECUTIONROLE_OVERRIDE", LATER),
    ("ECS_AUDIT_LOGFILE", LATER),
    ("ECS_AUDIT_LOGFILE_DISABLED", LATER),
    ("ECS_DISABLE_TASK_METADATA_AZ", LATER),
    ("ECS_SHARED_VOLUME_MATCH_FULL_CONFIG", DOCKER),
    ("ECS_VOLUME_PLUGIN_CAPABILITIES", DOCKER),
    ("ECS_ENABLE_GPU_SUPPORT", LATER),
    ("ECS_NVIDIA_RUNTIME", "see ECS_CONTAINERD_RUNTIME_BINARY"),
    ("ECS_ENABLE_INF_SUPPORT", LATER),
    ("ECS_EBSTA_SUPPORTED", LATER),
    ("ECS_ENABLE_SPOT_INSTANCE_DRAINING", LATER),
    ("ECS_WARM_POOLS_CHECK", LATER),
    ("ECS_EXTERNAL", LATER),
    ("ECS_ENABLE_RUNTIME_STATS", "it is about the original's runtime"),
    ("ECS_EXCLUDE_IPV6_PORTBINDING", LATER),
    ("ECS_INSTANCE_IP_COMPATIBILITY", LATER),
    ("ECS_ENABLE_FIRELENS_ASYNC", LATER),
    ("ECS_GMSA_SUPPORTED", LATER),
    ("ECS_PAUSE_LABELS", "there is no pause container"),
    ("ECS_ALTERNATE_CREDENTIAL_PROFILE", "set AWS_PROFILE"),
    ("ECS_ENABLE_PROMETHEUS_METRICS", LATER),
    ("ECS_AGENT_CONFIG_FILE_PATH", "the environment is the only source; write /etc/ecs/ecs.config"),
    ("ECS_LOGLEVEL_ON_INSTANCE", "both sinks log at ECS_LOGLEVEL"),
    ("ECS_LOG_DRIVER", DOCKER),
    ("ECS_LOG_ROLLOVER_TYPE", "let logrotate turn the file over (copytruncate)"),
    ("ECS_LOG_MAX_FILE_SIZE_MB", "let logrotate turn the file over (copytruncate)"),
    ("ECS_LOG_MAX_ROLL_COUNT", "let logrotate turn the file over (copytruncate)"),
];
