//! Kernel parameters of a container: those that belong to a namespace of its own, and Docker's
//! two for a network of its own (spec task-engine 2.3, 2.4). Pure.

use super::{SpecError, SpecInput};
use crate::containerd::docker_config::IpcChoice;
use crate::ports::NetworkAttachment;
use std::borrow::Cow;
use std::collections::HashMap;

/// Parameters of the IPC namespace, beside all of `fs.mqueue.`.
const OF_IPC: [&str; 8] = [
    "kernel.msgmax",
    "kernel.msgmnb",
    "kernel.msgmni",
    "kernel.sem",
    "kernel.shmall",
    "kernel.shmmax",
    "kernel.shmmni",
    "kernel.shm_rmid_forced",
];

/// All parameters to be set.
///
/// # Errors
/// One that would change the host, or that no namespace holds.
pub fn sysctls(input: &SpecInput<'_>) -> Result<HashMap<String, String>, SpecError> {
    let settings = input.settings;
    let mut all = HashMap::new();
    if let Some(domain) = &settings.domainname {
        // runc before 1.2 doesn't know the spec's own field; the sysctl serves every version.
        all.insert("kernel.domainname".to_owned(), domain.clone());
    }
    let own_network = matches!(input.plan.network, NetworkAttachment::Namespace { .. });
    if own_network {
        all.insert("net.ipv4.ping_group_range".to_owned(), "0 2147483647".to_owned());
        all.insert("net.ipv4.ip_unprivileged_port_start".to_owned(), "0".to_owned());
    }
    for (name, value) in &settings.sysctls {
        let dotted = dotted(name);
        let refusal = if dotted.starts_with("net.") {
            (!own_network).then(|| SpecError::HostSysctl(name.clone()))
        } else if dotted.starts_with("fs.mqueue.") || OF_IPC.contains(&dotted.as_ref()) {
            (settings.namespaces.ipc == IpcChoice::Host).then(|| SpecError::HostIpcSysctl(name.clone()))
        } else if dotted == "kernel.domainname" && !settings.namespaces.host_uts {
            None
        } else {
            Some(SpecError::UnknownSysctl(name.clone()))
        };
        match refusal {
            Some(error) => return Err(error),
            None => all.insert(dotted.into_owned(), value.clone()),
        };
    }
    Ok(all)
}

/// The name with dots between its parts: `net/ipv4/conf/eth0.1/x` has the same meaning as
/// `net.ipv4.conf.eth0/1.x`; whichever comes first is the separator (sysctl(8)).
fn dotted(name: &str) -> Cow<'_, str> {
    match name.chars().find(|c| matches!(c, '.' | '/')) == Some('/') {
        false => Cow::Borrowed(name),
        true => Cow::Owned(
            name.chars()
                .map(|c| match c {
                    '/' => '.',
                    '.' => '/',
                    other => other,
                })
                .collect(),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_separators_are_read() {
        for (name, want) in [
            ("net.core.somaxconn", "net.core.somaxconn"),
            ("net/core/somaxconn", "net.core.somaxconn"),
            ("net/ipv4/conf/eth0.1/rp_filter", "net.ipv4.conf.eth0/1.rp_filter"),
            ("net.ipv4.conf.eth0/1.rp_filter", "net.ipv4.conf.eth0/1.rp_filter"),
            ("", ""),
        ] {
            assert_eq!(dotted(name), want);
        }
    }
}
