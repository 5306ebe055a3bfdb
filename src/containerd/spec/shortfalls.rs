//! What was asked of a container and this host can't do, for the log: nothing is left out in
//! silence. Pure; called by `create.rs` beside the builder.

use super::facts::{AppArmor, CgroupVersion, HostFacts};
use crate::containerd::docker_config::{ContainerSettings, PidChoice, SelinuxChoice};

/// One sentence for each.
pub fn shortfalls(settings: &ContainerSettings, host: &HostFacts) -> Vec<&'static str> {
    let resources = &settings.resources;
    let unified = host.cgroups == CgroupVersion::V2;
    let labels = SelinuxChoice { disabled: false, ..settings.selinux.clone() } != SelinuxChoice::default();
    let confined = settings.apparmor.as_deref().is_some_and(|profile| profile != "unconfined");
    let all = [
        (
            settings.init && host.init.is_none(),
            "initProcessEnabled has no effect, as the agent could not write its init program: the container's own \
             process is PID 1 and must reap its children",
        ),
        (
            settings.init && settings.namespaces.pid != PidChoice::Own,
            "initProcessEnabled has no effect in a PID namespace that is shared: it has a process 1 already",
        ),
        (
            confined && host.apparmor == AppArmor::Absent,
            "the AppArmor profile has no effect, as this host has no AppArmor",
        ),
        (
            labels && host.selinux.is_none(),
            "the SELinux label has no effect, as containers get no labels on this host (ECS_SELINUX_CAPABLE)",
        ),
        (!host.seccomp, "system calls are not filtered, as this kernel has no seccomp"),
        (
            resources.memory_swappiness.is_some() && unified,
            "swappiness has no effect on cgroup v2, which has none",
        ),
        (
            resources.blkio_weight.is_some() && !host.blkio_weight,
            "BlkioWeight has no effect, as this kernel's I/O scheduler has no weights",
        ),
        (
            resources.memory_swap_bytes.is_some() && !host.swap_limit,
            "the limit on swap has no effect, as this kernel can't limit it",
        ),
        (
            resources.oom_kill_disable && unified,
            "OomKillDisable has no effect on cgroup v2, where the kernel always kills",
        ),
    ];
    all.into_iter().filter(|(short, _)| *short).map(|(_, words)| words).collect()
}
