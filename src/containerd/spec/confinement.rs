//! What mandatory access control makes of a container: its AppArmor profile and its SELinux
//! labels, where the host has them (spec task-engine 2.3, 2.4). Pure.

use super::SpecInput;
use super::facts::{AppArmor, HostFacts};
use crate::containerd::docker_config::{ContainerSettings, IpcChoice, PidChoice, SelinuxChoice};
use crate::model::ContainerId;

/// The profile that Docker loads and applies where nothing else is said.
pub const DEFAULT_PROFILE: &str = "docker-default";

/// The AppArmor profile of the process; none on a host without AppArmor.
pub fn apparmor(input: &SpecInput<'_>) -> Option<String> {
    let default = match input.host.apparmor {
        AppArmor::Absent => return None,
        AppArmor::WithoutDefault => None,
        AppArmor::WithDefault => Some(DEFAULT_PROFILE),
    };
    let unless_asked = if input.settings.privileged { Some("unconfined") } else { default };
    input.settings.apparmor.clone().or_else(|| unless_asked.map(str::to_owned))
}

/// SELinux labels of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Labels {
    /// Of its process.
    pub process: String,
    /// Of its files.
    pub mount: String,
}

/// The labels; none on a host without SELinux, for who is privileged, and for who shares processes or
/// IPC with the host and asks for none.
pub fn selinux(input: &SpecInput<'_>) -> Option<Labels> {
    labels(input.host, input.settings, &input.plan.id)
}

/// As [`selinux`], of the container of that id.
pub fn labels(host: &HostFacts, settings: &ContainerSettings, id: &ContainerId) -> Option<Labels> {
    let contexts = host.selinux.as_ref()?;
    let (asked, shared) = (&settings.selinux, &settings.namespaces);
    let among_hosts = shared.pid == PidChoice::Host || shared.ipc == IpcChoice::Host;
    if asked.disabled || settings.privileged || (among_hosts && *asked == SelinuxChoice::default()) {
        return None;
    }
    let level = asked.level.clone().unwrap_or_else(|| own_level(id.as_str()));
    let process = context(&contexts.process, [&asked.user, &asked.role, &asked.domain], &level)?;
    let mount = context(&contexts.file, [&asked.user, &None, &asked.file_type], &level)?;
    Some(Labels { process, mount })
}

/// `user:role:type:level`, with what was asked for in the default's place.
fn context(default: &str, asked: [&Option<String>; 3], level: &str) -> Option<String> {
    let mut of_default = default.splitn(4, ':');
    let mut parts = Vec::new();
    for part in asked {
        let of_default = of_default.next()?;
        parts.push(part.as_deref().unwrap_or(of_default));
    }
    parts.push(level);
    Some(parts.join(":"))
}

/// A level with two categories of 1024, by the container's id: it is the same after a crash.
fn own_level(id: &str) -> String {
    let bits = id.get(..8).and_then(|hex| u32::from_str_radix(hex, 16).ok()).unwrap_or(0);
    let (first, second) = (bits % 1024, (bits >> 10) % 1024);
    match first.cmp(&second) {
        std::cmp::Ordering::Less => format!("s0:c{first},c{second}"),
        std::cmp::Ordering::Greater => format!("s0:c{second},c{first}"),
        std::cmp::Ordering::Equal => format!("s0:c{first}"),
    }
}
