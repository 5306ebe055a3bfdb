//! The `process` part of the spec: arguments, environment, directory, limits. Pure.

use super::facts::HostFacts;
use super::{SpecError, SpecInput, capabilities, confinement, links};
use crate::containerd::docker_config::{ContainerSettings, PidChoice};
use oci_spec::image::ImageConfiguration;
use oci_spec::runtime::{
    Capability, LinuxCapabilitiesBuilder, PosixRlimit, PosixRlimitBuilder, PosixRlimitType, Process,
    ProcessBuilder, UserBuilder,
};
use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};

const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Open files where the task definition sets no limit, soft and hard: what dockerd is told on the hosts
/// that ECS users come from (spec task-engine 2.3), and never containerd's own "infinity", with which
/// programs that loop over all descriptors take minutes to start.
const DEFAULT_NOFILE: (u64, u64) = (32_768, 65_536);
/// Variables of the agent that an image's own keep out.
const REGIONS: [&str; 2] = ["AWS_REGION", "AWS_DEFAULT_REGION"];

/// Where a container sees the program of [`init`], as with Docker.
pub const INIT_TARGET: &str = "/sbin/docker-init";

/// Puts the process together.
///
/// # Errors
/// No command, a relative working directory.
pub fn process(input: &SpecInput<'_>, names: &[&'static str]) -> Result<Process, SpecError> {
    let user = input.user;
    let mut groups = user.groups.clone();
    if !groups.contains(&user.gid) {
        groups.insert(0, user.gid);
    }
    let set: HashSet<Capability> = names.iter().filter_map(|name| name.parse().ok()).collect();
    let none = HashSet::new;
    let mut process = ProcessBuilder::default()
        .terminal(input.settings.tty)
        .user(UserBuilder::default().uid(user.uid).gid(user.gid).additional_gids(groups).build()?)
        .args(arguments(input)?)
        .env(environment(input))
        .cwd(directory(input)?)
        .capabilities(
            LinuxCapabilitiesBuilder::default()
                .bounding(set.clone())
                .effective(set.clone())
                .permitted(set)
                .inheritable(none())
                .ambient(none())
                .build()?,
        )
        .rlimits(rlimits(input)?)
        .no_new_privileges(input.settings.no_new_privileges)
        .oom_score_adj(input.settings.oom_score_adj);
    if let Some(profile) = confinement::apparmor(input) {
        process = process.apparmor_profile(profile);
    }
    if let Some(labels) = confinement::selinux(input) {
        process = process.selinux_label(labels.process);
    }
    Ok(process.build()?)
}

/// The program of ours that is to be PID 1, where one was asked for and could be written. Among
/// processes of others there is no PID 1 to be.
pub fn init<'a>(input: &SpecInput<'a>) -> Option<&'a Path> {
    let wanted = input.settings.init && input.settings.namespaces.pid == PidChoice::Own;
    input.host.init.as_deref().filter(|_| wanted)
}

/// Entry point and command: an entry point of the task definition drops the image's command.
pub fn command(settings: &ContainerSettings, image: &ImageConfiguration) -> Vec<String> {
    let image = image.config().as_ref();
    let of_image = |words: Option<&Option<Vec<String>>>| words.cloned().flatten().unwrap_or_default();
    let (mut words, command) = match &settings.entry_point {
        Some(entry_point) => (entry_point.clone(), settings.command.clone().unwrap_or_default()),
        None => (
            of_image(image.map(|c| c.entrypoint())),
            settings.command.clone().unwrap_or_else(|| of_image(image.map(|c| c.cmd()))),
        ),
    };
    words.extend(command);
    words
}

/// The whole command line.
fn arguments(input: &SpecInput<'_>) -> Result<Vec<String>, SpecError> {
    let mut arguments = command(input.settings, input.image);
    if arguments.is_empty() {
        return Err(SpecError::NoCommand);
    }
    if arguments.iter().any(|argument| argument.contains('\0')) {
        return Err(SpecError::NulByte("command"));
    }
    if init(input).is_some() {
        arguments.splice(..0, [INIT_TARGET, "--"].map(str::to_owned));
    }
    Ok(arguments)
}

/// Docker's defaults, then what links tell, the image's, the task definition's and the agent's; the
/// last wins and keeps the place of the first. An `Env` of the documents stands for the last two. A
/// variable that it names without a value is not set, not even by the image. HOME is set by the OCI
/// runtime, from the user's passwd entry.
fn environment(input: &SpecInput<'_>) -> Vec<String> {
    let mut order: Vec<String> = Vec::new();
    let mut values: BTreeMap<String, String> = BTreeMap::new();
    let mut set = |name: &str, value: &str| {
        // The kernel can't carry such a line; runc would refuse the whole container.
        if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
            return;
        }
        if values.insert(name.to_owned(), value.to_owned()).is_none() {
            order.push(name.to_owned());
        }
    };
    set("PATH", PATH);
    set("HOSTNAME", input.hostname);
    if input.settings.tty {
        set("TERM", "xterm");
    }
    for link in input.links {
        for (name, value) in links::environment(&input.plan.spec.docker_name(&input.plan.name), link) {
            set(&name, &value);
        }
    }
    let of_image = input.image.config().iter().filter_map(|c| c.env().as_ref()).flatten();
    let of_image: Vec<(&str, &str)> =
        of_image.map(|line| line.split_once('=').unwrap_or((line, ""))).collect();
    let of_image_names = |name: &str| of_image.iter().any(|(known, _)| *known == name);
    // Both or none, so that the SDKs inside never see two regions.
    let has_region = REGIONS.into_iter().any(of_image_names);
    let agents = input.plan.agent_environment.iter().filter(|(name, _)| {
        let is_told = has_region && REGIONS.contains(&name.as_str());
        !input.settings.environment_is_whole && !is_told
    });
    for (name, value) in &of_image {
        set(name, value);
    }
    for (name, value) in input.settings.environment.iter().chain(agents) {
        set(name, value);
    }
    let line = |name: String| {
        let value = values.get(&name).map_or("", String::as_str);
        format!("{name}={value}")
    };
    let wanted = |name: &String| !input.settings.unset_environment.contains(name);
    order.into_iter().filter(wanted).map(line).collect()
}

fn directory(input: &SpecInput<'_>) -> Result<PathBuf, SpecError> {
    let of_image = input.image.config().as_ref().and_then(|c| c.working_dir().clone());
    let wanted = input.settings.working_dir.clone().or(of_image).filter(|dir| !dir.is_empty());
    let wanted = wanted.unwrap_or_else(|| "/".to_owned());
    match super::mounts::clean(&wanted) {
        Some(path) => Ok(PathBuf::from(path)),
        None => Err(SpecError::WorkingDirectory(wanted)),
    }
}

/// The limits of the task definition, and one on open files in any case.
fn rlimits(input: &SpecInput<'_>) -> Result<Vec<PosixRlimit>, SpecError> {
    let unlimited = |value: i64| u64::try_from(value).unwrap_or(u64::MAX);
    let mut limits = Vec::new();
    for asked in &input.settings.ulimits {
        let Some(kind) = rlimit(&asked.name) else { continue };
        let (soft, hard) = (unlimited(asked.soft), unlimited(asked.hard));
        limits.push(limit(kind, soft, hard, input.host)?);
    }
    if !limits.iter().any(|l| l.typ() == PosixRlimitType::RlimitNofile) {
        let (soft, hard) = DEFAULT_NOFILE;
        limits.push(limit(PosixRlimitType::RlimitNofile, soft, hard, input.host)?);
    }
    Ok(limits)
}

/// One limit, kept below what the host can give: asking for more would fail the container.
fn limit(kind: PosixRlimitType, soft: u64, hard: u64, host: &HostFacts) -> Result<PosixRlimit, SpecError> {
    let most = match kind {
        PosixRlimitType::RlimitNofile if !host.can_raise_limits() => host.nofile_hard,
        _ => u64::MAX,
    };
    Ok(PosixRlimitBuilder::default().typ(kind).soft(soft.min(most)).hard(hard.min(most)).build()?)
}

/// The limit that a Docker name stands for.
pub fn rlimit(name: &str) -> Option<PosixRlimitType> {
    Some(match name {
        "as" => PosixRlimitType::RlimitAs,
        "core" => PosixRlimitType::RlimitCore,
        "cpu" => PosixRlimitType::RlimitCpu,
        "data" => PosixRlimitType::RlimitData,
        "fsize" => PosixRlimitType::RlimitFsize,
        "locks" => PosixRlimitType::RlimitLocks,
        "memlock" => PosixRlimitType::RlimitMemlock,
        "msgqueue" => PosixRlimitType::RlimitMsgqueue,
        "nice" => PosixRlimitType::RlimitNice,
        "nofile" => PosixRlimitType::RlimitNofile,
        "nproc" => PosixRlimitType::RlimitNproc,
        "rss" => PosixRlimitType::RlimitRss,
        "rtprio" => PosixRlimitType::RlimitRtprio,
        "rttime" => PosixRlimitType::RlimitRttime,
        "sigpending" => PosixRlimitType::RlimitSigpending,
        "stack" => PosixRlimitType::RlimitStack,
        _ => return None,
    })
}

/// Names of the capabilities of a container on this host.
pub fn capability_names(input: &SpecInput<'_>) -> Vec<&'static str> {
    let settings = input.settings;
    capabilities::effective(settings.privileged, &settings.cap_add, &settings.cap_drop, input.host.bounding)
}
