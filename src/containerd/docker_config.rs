//! The two Docker API documents of a container (`config`, `hostConfig`), merged by Docker's and
//! the original agent's rules over what the task definition's own fields say, into one typed value
//! (spec task-engine 2.1 to 2.3). Pure; called once for each creation, by `create.rs`.
//!
//! The rules: a scalar of the document wins, an array replaces, a map merges key by key, `null`
//! resets arrays and maps and leaves a scalar as it was, keys are free in case. What this agent
//! can't do yet is named in `warnings`, never dropped in silence; a value of the wrong type is an
//! error that names key and value.

pub mod health;
mod mounts;
mod resources;
mod security;
mod settings;
mod values;

pub use mounts::{Bind, MountRequest, MountSource, Relabel, SharedFrom};
pub use settings::{
    ContainerSettings, DeviceRequest, DeviceRule, HOST_GATEWAY, IpcChoice, NamespaceSettings, PidChoice,
    ResourceSettings, SeccompChoice, SelinuxChoice, Ulimit,
};

use crate::containerd::json::{Document, ValueError, show};
use crate::model::{ContainerSpec, StopReason};
use health::HealthSettings;
use serde_json::Value;
use std::collections::BTreeMap;

/// Docker's least hard limit; below it a container can't even start.
pub const LEAST_MEMORY_BYTES: u64 = 6 * 1024 * 1024;
/// Size of /dev/shm where nothing is said.
pub const DEFAULT_SHM_BYTES: u64 = 64 * 1024 * 1024;

/// Keys that others act on (network, cgroup), or that change nothing about a container:
/// neither merged nor warned about.
const ELSEWHERE: &[&str] = &[
    "networkmode",
    "portbindings",
    "cgroupparent",
    "exposedports",
    "image",
    "stdinonce",
    "stoptimeout",
    "argsescaped",
    "consolesize",
    "autoremove",
    "containeridfile",
    "attachstdin",
    "attachstdout",
    "attachstderr",
    "onbuild",
];

/// Keys with the one value that is what happens anyway; any other is warned about.
const ONLY: &[(&str, &[&str])] = &[("isolation", &["default"]), ("usernsmode", &["host"])];

/// Merges the documents over the container's own fields.
///
/// # Errors
/// `HostConfigError`, `DockerClientConfigError`: key and value that can't be used.
/// `CannotCreateContainerError`: a log driver or option that there is not.
pub fn merge(container: &ContainerSpec) -> Result<ContainerSettings, StopReason> {
    let mut settings = of_task_definition(container);
    let wrong = |name: &'static str| move |error: ValueError| StopReason::new(name, error.to_string());
    let config = Document::new("config", &container.docker.config);
    merge_config(&mut settings, &config).map_err(wrong("DockerClientConfigError"))?;
    if container.health_checked && settings.health.is_none() {
        let words = "docker health check is nil while container health check type is DOCKER";
        return Err(StopReason::new("DockerClientConfigError", words));
    }
    let host = Document::new("hostConfig", &container.docker.host_config);
    merge_host_config(&mut settings, &host).map_err(wrong("HostConfigError"))?;
    settings.log = values::log_config(&host, "logconfig")?;
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
            cpu_shares: Some(resources::cpu_shares(container.cpu_shares)),
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
                settings.environment_is_whole = true;
                settings.environment.clear();
                settings.unset_environment.clear();
                for line in config.texts(key)? {
                    match line.split_once('=') {
                        Some((name, value)) => {
                            settings.environment.insert(name.to_owned(), value.to_owned());
                        }
                        None => settings.unset_environment.push(line),
                    }
                }
            }
            "healthcheck" => {
                let parsed = HealthSettings::parse(value).map_err(|expected| config.wrong(key, expected))?;
                settings.health = parsed;
            }
            "shell" => settings.shell = config.texts(key)?,
            "labels" => merge_map(&mut settings.labels, config.map(key)?),
            "volumes" => settings.volumes = config.each_key(key, values::mount_path)?,
            "tty" => settings.tty = config.flag(key)?,
            "openstdin" => settings.open_stdin = config.flag(key)?,
            "networkdisabled" => settings.network_disabled = config.flag(key)?,
            _ => warn_unknown(settings, config, key, value),
        }
    }
    Ok(())
}

fn merge_host_config(settings: &mut ContainerSettings, host: &Document<'_>) -> Result<(), ValueError> {
    let mut requests = Vec::new();
    for (key, value) in host.entries() {
        match key {
            "capadd" => settings.cap_add = values::capability_names(host, key)?,
            "capdrop" => settings.cap_drop = values::capability_names(host, key)?,
            "privileged" => settings.privileged = host.flag(key)?,
            "readonlyrootfs" => settings.read_only_rootfs = host.flag(key)?,
            "binds" => settings.binds = Some(host.each_text(key, mounts::bind)?),
            "mounts" => requests = host.each_object(key, mounts::request)?,
            "volumesfrom" => settings.volumes_from = Some(host.each_text(key, mounts::shared_from)?),
            "volumedriver" => settings.volume_driver = host.text(key)?,
            "tmpfs" => merge_map(&mut settings.tmpfs, host.map(key)?),
            "shmsize" => {
                if let Some(bytes) = host.unsigned(key)?.filter(|bytes| *bytes > 0) {
                    settings.shm_bytes = bytes;
                }
            }
            "sysctls" => merge_map(&mut settings.sysctls, host.map(key)?),
            "ulimits" => settings.ulimits = host.each_object(key, values::ulimit)?,
            "devices" => settings.devices = host.each_object(key, values::device)?,
            "devicecgrouprules" => settings.device_rules = host.each_text(key, values::device_rule)?,
            "dns" => settings.dns = host.each_text(key, values::address)?,
            "dnssearch" => settings.dns_search = host.each_text(key, values::one_word)?,
            "dnsoptions" => settings.dns_options = host.each_text(key, values::one_word)?,
            "extrahosts" => settings.extra_hosts = host.each_text(key, values::extra_host)?,
            "groupadd" => settings.groups = host.texts(key)?,
            "securityopt" => security::options(settings, host, key)?,
            "maskedpaths" => settings.masked_paths = host.replaced(key, values::mount_path)?,
            "readonlypaths" => settings.readonly_paths = host.replaced(key, values::mount_path)?,
            "pidmode" | "utsmode" | "ipcmode" | "cgroupnsmode" => namespace(settings, host, key)?,
            "oomscoreadj" => {
                let value = host.signed(key)?.unwrap_or(0);
                let fit = i32::try_from(value).ok().filter(|v| (-1000..=1000).contains(v));
                settings.oom_score_adj = fit.ok_or_else(|| host.wrong(key, "a number from -1000 to 1000"))?;
            }
            // Its errors have other names.
            "logconfig" => {}
            "init" => settings.init = host.flag(key)?,
            "runtime" => settings.runtime = host.text(key)?,
            "restartpolicy" => {
                let name = host.object(key)?.and_then(|fields| fields.text("name")).unwrap_or_default();
                if !matches!(name, "" | "no") {
                    warn_unknown(settings, host, key, value);
                }
            }
            "memory" | "memoryreservation" | "memoryswap" | "memoryswappiness" | "cpushares"
            | "cpuperiod" | "cpuquota" | "nanocpus" | "cpusetcpus" | "cpusetmems" | "pidslimit"
            | "oomkilldisable" | "blkioweight" => {
                resources::merge(&mut settings.resources, host, key)?;
            }
            _ => warn_unknown(settings, host, key, value),
        }
    }
    // Last: what `Tmpfs` says stands beside them.
    for request in requests {
        match request {
            mounts::Request::Mount(mount) => settings.mounts.push(mount),
            mounts::Request::Tmpfs { target, .. } if settings.tmpfs.contains_key(&target) => {
                return Err(host.wrong("mounts", "a target that nothing else is mounted at"));
            }
            mounts::Request::Tmpfs { target, options } => {
                settings.tmpfs.insert(target, options);
            }
        }
    }
    if settings.namespaces.host_uts && (settings.hostname.is_some() || settings.domainname.is_some()) {
        return Err(host.wrong("utsmode", "no host name beside it: the host's is used"));
    }
    resources::check(&settings.resources, host)
}

/// Modes of namespaces. Those that name another container can't be had: which one runs first is
/// the task's to say (`pidMode`, `ipcMode` of the task definition).
fn namespace(settings: &mut ContainerSettings, host: &Document<'_>, key: &str) -> Result<(), ValueError> {
    let mode = host.text(key)?.unwrap_or_default();
    let into = &mut settings.namespaces;
    match (key, mode.as_str()) {
        ("pidmode", "" | "private") => into.pid = PidChoice::Own,
        ("pidmode", "host") => into.pid = PidChoice::Host,
        ("utsmode", "" | "private") => into.host_uts = false,
        ("utsmode", "host") => into.host_uts = true,
        ("ipcmode", "" | "private" | "shareable") => into.ipc = IpcChoice::Own,
        ("ipcmode", "none") => into.ipc = IpcChoice::OwnWithoutShm,
        ("ipcmode", "host") => into.ipc = IpcChoice::Host,
        ("cgroupnsmode", "") => into.own_cgroup = None,
        ("cgroupnsmode", "private") => into.own_cgroup = Some(true),
        ("cgroupnsmode", "host") => into.own_cgroup = Some(false),
        ("ipcmode", _) => return Err(host.wrong(key, "private, shareable, none or host")),
        _ => return Err(host.wrong(key, "private or host")),
    }
    Ok(())
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
    let only = ONLY.iter().find(|(name, _)| *name == key).map_or(&[][..], |(_, values)| values);
    let asks = match value {
        Value::Null | Value::Bool(false) => false,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty() && !only.contains(&text.as_str()),
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
pub(super) mod tests;
