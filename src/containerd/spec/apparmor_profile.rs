//! The text of the AppArmor profile that containers get where nothing else is said: Docker's rules
//! (spec task-engine 2.4) under Docker's name, so that it makes no difference who loaded it. Pure;
//! `containerd::apparmor` hands it to the host's parser.

use super::confinement::DEFAULT_PROFILE;
use std::fmt::Write;

/// What the host's AppArmor has, and who the agent is to it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ParserFacts {
    /// `abi/3.0` is there. Without a word on the ABI, newer parsers take `network` for less than all.
    pub abi: bool,
    /// `tunables/global` is there; it says where /proc is.
    pub tunables: bool,
    /// `abstractions/base` is there.
    pub base: bool,
    /// The profile that the agent itself runs under, where it is confined.
    pub own_profile: Option<String>,
}

/// Who may send signals to a container, beside its own processes.
const SENDERS: [&str; 3] = ["unconfined", "runc", "crun"];

/// Files that a container must not write, though its capabilities and mounts might let it: by kind of
/// access, the paths. `@{PROC}` ends with a slash only in some hosts' tunables.
const DENIED: [(&str, &[&str]); 3] = [
    (
        "w",
        &[
            // Right below /proc; what is neither a process nor `sys`; of `sys`, all but kernel/shm*.
            "@{PROC}/*",
            "@{PROC}/{[^1-9/],[^1-9/][^0-9/],[^1-9s/][^0-9y/][^0-9s/],[^1-9/][^0-9/][^0-9/][^0-9/]*}/**",
            "@{PROC}/sys/[^k]**",
            "@{PROC}/sys/kernel/{?,??,[^s][^h][^m]**}",
        ],
    ),
    (
        "wklx",
        // Of /sys, all but /sys/fs/cgroup.
        &["/sys/[^f]*/**", "/sys/f[^s]*/**", "/sys/fs/[^c]*/**", "/sys/fs/c[^g]*/**", "/sys/fs/cg[^r]*/**"],
    ),
    (
        "rwklx",
        &[
            "@{PROC}/sysrq-trigger",
            "@{PROC}/kcore",
            "/sys/firmware/**",
            "/sys/devices/virtual/powercap/**",
            "/sys/kernel/security/**",
        ],
    ),
];

/// The whole text.
pub fn text(facts: &ParserFacts) -> String {
    let mut text = String::new();
    let mut line = |words: &str| {
        let _ = writeln!(text, "{words}");
    };
    if facts.abi {
        line("abi <abi/3.0>,");
    }
    line(if facts.tunables { "#include <tunables/global>" } else { "@{PROC}=/proc/" });
    line(&format!("profile {DEFAULT_PROFILE} flags=(attach_disconnected,mediate_deleted) {{"));
    if facts.base {
        line("  #include <abstractions/base>");
    }
    for rule in ["network,", "deny network alg,", "capability,", "file,", "umount,", "deny mount,"] {
        line(&format!("  {rule}"));
    }
    for peer in SENDERS.into_iter().chain(facts.own_profile.as_deref()) {
        line(&format!("  signal (receive) peer={peer},"));
    }
    line(&format!("  signal (send,receive) peer={DEFAULT_PROFILE},"));
    line(&format!("  ptrace (trace,tracedby,read,readby) peer={DEFAULT_PROFILE},"));
    for (access, paths) in DENIED {
        for path in paths {
            line(&format!("  deny {path} {access},"));
        }
    }
    line("}");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_without_includes_is_told_where_proc_is() {
        let bare = text(&ParserFacts::default());
        assert!(bare.starts_with("@{PROC}=/proc/\nprofile docker-default flags="), "{bare}");
        assert!(!bare.contains("#include") && !bare.contains("abi <"), "{bare}");
        let whole = ParserFacts { abi: true, tunables: true, base: true, own_profile: Some("ecsd".into()) };
        let whole = text(&whole);
        assert!(whole.starts_with("abi <abi/3.0>,\n#include <tunables/global>\nprofile"), "{whole}");
        for rule in [
            "#include <abstractions/base>",
            "signal (receive) peer=ecsd,",
            "signal (send,receive) peer=docker-default,",
            "deny mount,",
            "deny @{PROC}/kcore rwklx,",
            "deny /sys/fs/[^c]*/** wklx,",
        ] {
            assert!(whole.contains(&format!("  {rule}\n")), "{rule}\n{whole}");
        }
        assert!(whole.ends_with("}\n"));
    }
}
