//! The two Docker API documents of a container (`config`, `hostConfig`), merged by Docker's and
//! the original agent's rules over what the task definition's own fields say, into one typed value
//! (spec task-engine 2.1 to 2.3). Pure; called once for each creation, by `create.rs`.
//!
//! The rules: a scalar of the document wins, an array replaces, a map merges key by key, `null`
//! resets, keys are free in case. What this agent can't do yet is named in `warnings`, never
//! dropped in silence; a value of the wrong type is an error that names key and value.

use crate::containerd::json::{Document, Fields, ValueError, parse_size, show};
use crate::containerd::spec::capabilities;
use crate::model::{ContainerSpec, LogDriver, StopReason};
use serde_json::Value;
use std::collections::BTreeMap;

/// Docker's least hard limit; below it a container can't even start.
pub const LEAST_MEMORY_BYTES: u64 = 6 * 1024 * 1024;
const DEFAULT_SHM_BYTES: u64 = 64 * 1024 * 1024;
/// The kernel's range of `cpu.shares`.
const CPU_SHARES: std::ops::RangeInclusive<u64> = 2..=262_144;

/// Everything that was asked of one container, merged.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ContainerSettings {
    /// Host name; the short id where not said.
    pub hostname: Option<String>,
    /// NIS domain name.
    pub domainname: Option<String>,
    /// `user[:group]`, in place of the image's.
    pub user: Option<String>,
    /// Environment of the task definition; wins over the agent's and the image's.
    pub environment: BTreeMap<String, String>,
    /// In place of the image's Entrypoint, and of its Cmd.
    pub entry_point: Option<Vec<String>>,
    /// In place of the image's Cmd.
    pub command: Option<Vec<String>>,
    /// In place of the image's working directory.
    pub working_dir: Option<String>,
    /// `dockerLabels`.
    pub labels: BTreeMap<String, String>,
    /// In place of the image's stop signal.
    pub stop_signal: Option<String>,
    /// Limits and weights.
    pub resources: ResourceSettings,
    /// Added capabilities, by normalised name.
    pub cap_add: Vec<&'static str>,
    /// Dropped capabilities, by normalised name.
    pub cap_drop: Vec<&'static str>,
    /// All of the host.
    pub privileged: bool,
    /// The root file system is read-only.
    pub read_only_rootfs: bool,
    /// Binds of the document, in place of the mount points, where it has any.
    pub binds: Option<Vec<Bind>>,
    /// tmpfs mounts: options by path.
    pub tmpfs: BTreeMap<String, String>,
    /// Size of /dev/shm in bytes.
    pub shm_bytes: u64,
    /// Kernel parameters.
    pub sysctls: BTreeMap<String, String>,
    /// Resource limits of the process.
    pub ulimits: Vec<Ulimit>,
    /// Devices of the host.
    pub devices: Vec<DeviceRequest>,
    /// Name servers, in place of the host's.
    pub dns: Vec<String>,
    /// Search domains, in place of the host's.
    pub dns_search: Vec<String>,
    /// Resolver options, in place of the host's.
    pub dns_options: Vec<String>,
    /// `name:address` lines for /etc/hosts.
    pub extra_hosts: Vec<(String, String)>,
    /// Supplementary groups.
    pub groups: Vec<String>,
    /// Executed programs gain no privileges.
    pub no_new_privileges: bool,
    /// No seccomp filter.
    pub seccomp_unconfined: bool,
    /// Bias of the kernel's OOM killer.
    pub oom_score_adj: i32,
    /// Where its output goes.
    pub log: Option<LogDriver>,
    /// What was asked and is not done, for the log.
    pub warnings: Vec<String>,
}

/// Limits and weights. `None` is no limit of its own.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ResourceSettings {
    /// Hard memory limit in bytes.
    pub memory_bytes: Option<u64>,
    /// Soft memory limit in bytes.
    pub memory_reservation_bytes: Option<u64>,
    /// Memory and swap together in bytes; -1 is no limit.
    pub memory_swap_bytes: Option<i64>,
    /// 0 to 100.
    pub memory_swappiness: Option<u64>,
    /// Relative weight, 2 to 262144.
    pub cpu_shares: Option<u64>,
    /// CFS period in microseconds.
    pub cpu_period_us: Option<u64>,
    /// CFS quota in microseconds.
    pub cpu_quota_us: Option<i64>,
    /// CPUs, as `0-2,4`.
    pub cpuset_cpus: Option<String>,
    /// Memory nodes, as `0,1`.
    pub cpuset_mems: Option<String>,
    /// Most processes and threads.
    pub pids: Option<i64>,
}

/// `source:target[:options]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bind {
    /// Absolute path of the host, or the name of a volume.
    pub source: String,
    /// Absolute path in the container.
    pub target: String,
    /// Read-only.
    pub read_only: bool,
    /// `rprivate` where nothing was said.
    pub propagation: Option<String>,
}

/// A resource limit of the process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ulimit {
    /// Docker's name: `nofile`, `nproc`...
    pub name: String,
    /// Soft limit; -1 is none.
    pub soft: i64,
    /// Hard limit; -1 is none.
    pub hard: i64,
}

/// A device of the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceRequest {
    /// Path on the host; a directory stands for all devices below it.
    pub host_path: String,
    /// Path in the container.
    pub container_path: String,
    /// Letters of `rwm`.
    pub permissions: String,
}

/// Keys that others act on (network, cgroup), that ask for nothing here, or that only older
/// documents hold: neither merged nor warned about.
const ELSEWHERE: &[&str] = &[
    "networkmode",
    "portbindings",
    "links",
    "cgroupparent",
    "volumesfrom",
    "restartpolicy",
    "pidmode",
    "ipcmode",
    "exposedports",
    "healthcheck",
    "image",
    "stoptimeout",
    "argsescaped",
    "consolesize",
    "maskedpaths",
    "readonlypaths",
    "publishallports",
    "autoremove",
    "containeridfile",
    "isolation",
    "volumedriver",
    "attachstdout",
    "attachstderr",
    "runtime",
];

/// Merges the documents over the container's own fields.
///
/// # Errors
/// `HostConfigError`, `DockerClientConfigError`: key and value that can't be used.
pub fn merge(container: &ContainerSpec) -> Result<ContainerSettings, StopReason> {
    let mut settings = of_task_definition(container);
    let wrong = |name: &'static str| move |error: ValueError| StopReason::new(name, error.to_string());
    let config = Document::new("config", &container.docker.config);
    merge_config(&mut settings, &config).map_err(wrong("DockerClientConfigError"))?;
    let host = Document::new("hostConfig", &container.docker.host_config);
    merge_host_config(&mut settings, &host).map_err(wrong("HostConfigError"))?;
    Ok(settings)
}

/// What the container's own fields say (spec task-engine 1.13 for the clamps).
fn of_task_definition(container: &ContainerSpec) -> ContainerSettings {
    let given = |words: &Vec<String>| (!words.is_empty()).then(|| words.clone());
    let memory = container.memory_mib.saturating_mul(1024 * 1024);
    ContainerSettings {
        environment: container.environment.clone(),
        entry_point: given(&container.entry_point),
        command: given(&container.command),
        shm_bytes: DEFAULT_SHM_BYTES,
        resources: ResourceSettings {
            memory_bytes: (memory > 0).then(|| memory.max(LEAST_MEMORY_BYTES)),
            cpu_shares: Some(container.cpu_shares.clamp(*CPU_SHARES.start(), *CPU_SHARES.end())),
            ..ResourceSettings::default()
        },
        ..ContainerSettings::default()
    }
}

fn merge_config(settings: &mut ContainerSettings, config: &Document<'_>) -> Result<(), ValueError> {
    for (key, value) in config.entries() {
        match key {
            "hostname" => settings.hostname = config.text(key)?,
            "domainname" => settings.domainname = config.text(key)?,
            "user" => settings.user = config.text(key)?,
            "workingdir" => settings.working_dir = config.text(key)?,
            "stopsignal" => settings.stop_signal = config.text(key)?,
            "cmd" => settings.command = given(config.texts(key)?),
            "entrypoint" => settings.entry_point = given(config.texts(key)?),
            "env" => {
                let pair = |line: String| match line.split_once('=') {
                    Some((name, value)) => (name.to_owned(), value.to_owned()),
                    None => (line, String::new()),
                };
                settings.environment = config.texts(key)?.into_iter().map(pair).collect();
            }
            "labels" => merge_map(&mut settings.labels, config.map(key)?),
            "tty" | "openstdin" | "stdinonce" | "attachstdin" | "networkdisabled" => {
                if config.flag(key)? {
                    settings.warnings.push(format!("config {key:?} is not supported and has no effect"));
                }
            }
            _ => warn_unknown(settings, config, key, value),
        }
    }
    Ok(())
}

fn merge_host_config(settings: &mut ContainerSettings, host: &Document<'_>) -> Result<(), ValueError> {
    for (key, value) in host.entries() {
        match key {
            "capadd" => settings.cap_add = capability_names(host, key)?,
            "capdrop" => settings.cap_drop = capability_names(host, key)?,
            "privileged" => settings.privileged = host.flag(key)?,
            "readonlyrootfs" => settings.read_only_rootfs = host.flag(key)?,
            "binds" => settings.binds = Some(host.each_text(key, parse_bind)?),
            "tmpfs" => merge_map(&mut settings.tmpfs, host.map(key)?),
            "shmsize" => {
                if let Some(bytes) = host.unsigned(key)?.filter(|bytes| *bytes > 0) {
                    settings.shm_bytes = bytes;
                }
            }
            "sysctls" => merge_map(&mut settings.sysctls, host.map(key)?),
            "ulimits" => settings.ulimits = host.each_object(key, parse_ulimit)?,
            "devices" => settings.devices = host.each_object(key, parse_device)?,
            "dns" => settings.dns = host.each_text(key, parse_address)?,
            "dnssearch" => settings.dns_search = host.each_text(key, one_word)?,
            "dnsoptions" => settings.dns_options = host.each_text(key, one_word)?,
            "extrahosts" => settings.extra_hosts = host.each_text(key, parse_extra_host)?,
            "groupadd" => settings.groups = host.texts(key)?,
            "securityopt" => {
                for option in host.texts(key)? {
                    security_option(settings, host, key, &option)?;
                }
            }
            "oomscoreadj" => {
                let value = host.signed(key)?.unwrap_or(0);
                let fit = i32::try_from(value).ok().filter(|v| (-1000..=1000).contains(v));
                settings.oom_score_adj = fit.ok_or_else(|| host.wrong(key, "a number from -1000 to 1000"))?;
            }
            "logconfig" => settings.log = parse_log_config(host, key)?,
            "init" => {
                if host.flag(key)? {
                    settings.warnings.push(
                        "initProcessEnabled is not supported yet: the container's own process is PID 1 and must \
                         reap its children"
                            .to_owned(),
                    );
                }
            }
            "memory" | "memoryreservation" | "memoryswap" | "memoryswappiness" | "cpushares"
            | "cpuperiod" | "cpuquota" | "nanocpus" | "cpusetcpus" | "cpusetmems" | "pidslimit" => {
                resource(&mut settings.resources, host, key)?;
            }
            _ => warn_unknown(settings, host, key, value),
        }
    }
    check_memory(&settings.resources, host)
}

fn resource(into: &mut ResourceSettings, host: &Document<'_>, key: &str) -> Result<(), ValueError> {
    let some = |value: Option<u64>| value.filter(|v| *v > 0);
    match key {
        "memory" => into.memory_bytes = some(host.unsigned(key)?),
        "memoryreservation" => into.memory_reservation_bytes = some(host.unsigned(key)?),
        "memoryswap" => {
            let value = host.signed(key)?.filter(|v| *v != 0);
            if value.is_some_and(|v| v < -1) {
                return Err(host.wrong(key, "a number of bytes, or -1"));
            }
            into.memory_swap_bytes = value;
        }
        "memoryswappiness" => {
            // Docker's -1 is "as the host".
            let value = host.signed(key)?.filter(|v| *v != -1);
            let fit = value.map(|v| u64::try_from(v).ok().filter(|v| *v <= 100));
            into.memory_swappiness = match fit {
                Some(None) => return Err(host.wrong(key, "a number from 0 to 100")),
                other => other.flatten(),
            };
        }
        "cpushares" => {
            let clamp = |v: u64| v.clamp(*CPU_SHARES.start(), *CPU_SHARES.end());
            into.cpu_shares = some(host.unsigned(key)?).map(clamp);
        }
        "cpuperiod" => {
            let value = some(host.unsigned(key)?);
            if value.is_some_and(|v| !(1000..=1_000_000).contains(&v)) {
                return Err(host.wrong(key, "microseconds from 1000 to 1000000"));
            }
            into.cpu_period_us = value;
        }
        "cpuquota" => {
            let value = host.signed(key)?.filter(|v| *v != 0);
            if value.is_some_and(|v| v > 0 && v < 1000) {
                return Err(host.wrong(key, "at least 1000 microseconds"));
            }
            into.cpu_quota_us = value;
        }
        "nanocpus" => {
            if let Some(nano) = some(host.unsigned(key)?) {
                into.cpu_period_us = Some(100_000);
                into.cpu_quota_us = Some(i64::try_from(nano / 10_000).unwrap_or(i64::MAX));
            }
        }
        "cpusetcpus" => into.cpuset_cpus = host.text(key)?,
        "cpusetmems" => into.cpuset_mems = host.text(key)?,
        "pidslimit" => into.pids = host.signed(key)?.filter(|v| *v > 0),
        _ => {}
    }
    Ok(())
}

/// The checks that dockerd makes across keys, and Docker's default for swap: twice the memory.
fn check_memory(resources: &ResourceSettings, host: &Document<'_>) -> Result<(), ValueError> {
    let Some(memory) = resources.memory_bytes else { return Ok(()) };
    if memory < LEAST_MEMORY_BYTES || i64::try_from(memory).is_err() {
        return Err(host.wrong("memory", "at least 6291456 bytes (6 MiB)"));
    }
    if resources.memory_reservation_bytes.is_some_and(|soft| soft > memory) {
        return Err(host.wrong("memoryreservation", "not more than the hard limit"));
    }
    let less = |swap: i64| swap > 0 && u64::try_from(swap).is_ok_and(|swap| swap < memory);
    if resources.memory_swap_bytes.is_some_and(less) {
        return Err(host.wrong("memoryswap", "at least the memory limit (it counts memory and swap)"));
    }
    Ok(())
}

fn capability_names(host: &Document<'_>, key: &str) -> Result<Vec<&'static str>, ValueError> {
    host.each_text(key, |name| {
        capabilities::normalise(name).ok_or("capabilities by their names, such as NET_ADMIN")
    })
}

fn parse_bind(text: &str) -> Result<Bind, &'static str> {
    const WANT: &str = "source:target[:options] with an absolute target";
    let mut parts = text.split(':');
    let (Some(source), Some(target)) = (parts.next(), parts.next()) else { return Err(WANT) };
    let options = parts.next().unwrap_or_default();
    if source.is_empty() || !target.starts_with('/') || parts.next().is_some() {
        return Err(WANT);
    }
    let mut bind =
        Bind { source: source.to_owned(), target: target.to_owned(), read_only: false, propagation: None };
    for option in options.split(',').filter(|o| !o.is_empty()) {
        match option {
            "ro" => bind.read_only = true,
            // z and Z relabel for SELinux, which is left to the host's policy; volumes are copied up.
            "rw" | "z" | "Z" | "nocopy" | "cached" | "delegated" | "consistent" => {}
            "shared" | "rshared" | "slave" | "rslave" | "private" | "rprivate" => {
                bind.propagation = Some(option.to_owned());
            }
            _ => {
                return Err(
                    "a bind with known options: ro, rw, z, Z, nocopy, [r]shared, [r]slave, [r]private",
                );
            }
        }
    }
    Ok(bind)
}

fn parse_ulimit(fields: &Fields<'_>) -> Result<Ulimit, &'static str> {
    const WANT: &str = "{\"Name\", \"Soft\", \"Hard\"} with Soft at most Hard, and a name such as nofile";
    let name = fields.text("name").ok_or(WANT)?.to_ascii_lowercase();
    let (soft, hard) = (fields.signed("soft").unwrap_or(0), fields.signed("hard").unwrap_or(0));
    let known = crate::containerd::spec::process::rlimit(&name).is_some();
    if !known || soft < -1 || hard < -1 || (hard != -1 && (soft == -1 || soft > hard)) {
        return Err(WANT);
    }
    Ok(Ulimit { name, soft, hard })
}

fn parse_device(fields: &Fields<'_>) -> Result<DeviceRequest, &'static str> {
    const WANT: &str = "{\"PathOnHost\", \"PathInContainer\", \"CgroupPermissions\"} with absolute paths";
    let host_path = fields.text("pathonhost").filter(|p| p.starts_with('/')).ok_or(WANT)?;
    let container_path = fields.text("pathincontainer").filter(|p| !p.is_empty()).unwrap_or(host_path);
    let permissions = fields.text("cgrouppermissions").filter(|p| !p.is_empty()).unwrap_or("rwm");
    if !container_path.starts_with('/') || permissions.chars().any(|c| !"rwm".contains(c)) {
        return Err(WANT);
    }
    Ok(DeviceRequest {
        host_path: host_path.to_owned(),
        container_path: container_path.to_owned(),
        permissions: permissions.to_owned(),
    })
}

fn parse_address(text: &str) -> Result<String, &'static str> {
    text.parse::<std::net::IpAddr>().map(|ip| ip.to_string()).map_err(|_| "IP addresses")
}

fn one_word(text: &str) -> Result<String, &'static str> {
    let fit = !text.is_empty() && text.chars().all(|c| c.is_ascii_graphic());
    fit.then(|| text.to_owned()).ok_or("words without spaces")
}

fn parse_extra_host(text: &str) -> Result<(String, String), &'static str> {
    const WANT: &str = "lines of the form host:address";
    let (name, address) = text.split_once(':').ok_or(WANT)?;
    let name = one_word(name).map_err(|_| WANT)?;
    let bare = address.trim_start_matches('[').trim_end_matches(']');
    Ok((name, parse_address(bare).map_err(|_| WANT)?))
}

fn security_option(
    settings: &mut ContainerSettings,
    host: &Document<'_>,
    key: &str,
    option: &str,
) -> Result<(), ValueError> {
    let (name, value) = match option.split_once(['=', ':']) {
        Some((name, value)) => (name, value),
        None => (option, ""),
    };
    match (name, value) {
        ("no-new-privileges", "" | "true") => settings.no_new_privileges = true,
        ("no-new-privileges", "false") => settings.no_new_privileges = false,
        ("seccomp", "unconfined") => settings.seccomp_unconfined = true,
        ("apparmor" | "label" | "credentialspec", _) => {
            settings.warnings.push(format!("security option {option:?} is not supported and has no effect"));
        }
        _ => return Err(host.wrong(key, "no-new-privileges[:true|false], seccomp=unconfined")),
    }
    Ok(())
}

/// `LogConfig`: `json-file` (also the meaning of an empty type) and `none`.
fn parse_log_config(host: &Document<'_>, key: &str) -> Result<Option<LogDriver>, ValueError> {
    let Some(fields) = host.object(key)? else { return Ok(None) };
    match fields.text("type").unwrap_or_default() {
        "none" => Ok(Some(LogDriver::None)),
        "" | "json-file" => {
            let options = fields.object("config");
            let option = |name: &str| options.as_ref().and_then(|o| o.text(name));
            let max_size = match option("max-size") {
                None | Some("-1" | "") => None,
                Some(text) => Some(
                    parse_size(text)
                        .filter(|size| *size > 0)
                        .ok_or_else(|| host.wrong(key, "a max-size such as 10m"))?,
                ),
            };
            let max_files = match option("max-file") {
                None | Some("") => 1,
                Some(text) => text
                    .parse::<u32>()
                    .ok()
                    .filter(|n| (1..=1000).contains(n))
                    .ok_or_else(|| host.wrong(key, "a max-file from 1 to 1000"))?,
            };
            Ok(Some(LogDriver::JsonFile { max_size, max_files }))
        }
        _ => Err(host.wrong(key, "a log driver that this agent has: json-file, none")),
    }
}

fn given(words: Vec<String>) -> Option<Vec<String>> {
    (!words.is_empty()).then_some(words)
}

/// A map merges key by key; `null` in its place empties it.
fn merge_map(into: &mut BTreeMap<String, String>, from: Option<BTreeMap<String, String>>) {
    match from {
        Some(entries) => into.extend(entries),
        None => into.clear(),
    }
}

/// Names a key that nothing here acts on, where it asks for anything at all.
fn warn_unknown(settings: &mut ContainerSettings, document: &Document<'_>, key: &str, value: &Value) {
    let asks = match value {
        Value::Null | Value::Bool(false) => false,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(fields) => !fields.is_empty(),
        Value::Bool(true) => true,
    };
    if asks && !ELSEWHERE.contains(&key) {
        let text = show(value);
        settings
            .warnings
            .push(format!("{} {key:?} = {text} is not supported and has no effect", document.name()));
    }
}

#[cfg(test)]
#[path = "docker_config_tests.rs"]
pub(super) mod tests;
