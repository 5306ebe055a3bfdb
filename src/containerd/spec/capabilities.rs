//! Capabilities: Docker's default set, `CapAdd` and `CapDrop`, and what the host can give. Pure.

/// All capabilities, in the kernel's order: the index is the bit in `CapBnd`.
pub const ALL: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// What Docker gives where nothing else is said.
pub const DEFAULT: [&str; 14] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FSETID",
    "FOWNER",
    "MKNOD",
    "NET_RAW",
    "SETGID",
    "SETUID",
    "SETFCAP",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "SYS_CHROOT",
    "KILL",
    "AUDIT_WRITE",
];

/// The kernel's name of a capability as a task definition may write it (`CAP_` and case are free).
/// `ALL` stays itself; `None` is no capability.
pub fn normalise(name: &str) -> Option<&'static str> {
    let upper = name.to_ascii_uppercase();
    let bare = upper.strip_prefix("CAP_").unwrap_or(&upper);
    if bare == "ALL" {
        return Some("ALL");
    }
    ALL.into_iter().find(|known| *known == bare)
}

/// The set that a process gets, sorted by bit. `add` and `drop` hold normalised names. What the
/// host itself lacks (`bounding`) can't be given and is left out.
pub fn effective(privileged: bool, add: &[&str], drop: &[&str], bounding: u64) -> Vec<&'static str> {
    let chosen = |name: &str| {
        if privileged {
            true
        } else if add.contains(&"ALL") {
            !drop.contains(&name)
        } else if drop.contains(&"ALL") {
            add.contains(&name)
        } else {
            add.contains(&name) || (DEFAULT.contains(&name) && !drop.contains(&name))
        }
    };
    ALL.iter()
        .enumerate()
        .filter(|(bit, name)| bounding & (1 << bit) != 0 && chosen(name))
        .map(|(_, name)| *name)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVERY: u64 = (1 << 41) - 1;

    #[test]
    fn the_default_is_dockers_fourteen() {
        let mut want = DEFAULT.to_vec();
        want.sort_unstable();
        let mut have = effective(false, &[], &[], EVERY);
        have.sort_unstable();
        assert_eq!(have, want);
    }

    #[test]
    fn adding_and_dropping() {
        assert_eq!(effective(false, &["NET_ADMIN"], &["ALL"], EVERY), ["NET_ADMIN"]);
        assert_eq!(effective(false, &["ALL"], &["SYS_ADMIN"], EVERY).len(), 40);
        assert!(!effective(false, &[], &["MKNOD"], EVERY).contains(&"MKNOD"));
        assert_eq!(effective(true, &[], &["ALL"], EVERY).len(), 41);
    }

    #[test]
    fn what_the_host_lacks_is_not_given() {
        let host = EVERY & !(1 << 24);
        assert!(!effective(true, &[], &[], host).contains(&"SYS_RESOURCE"));
        assert_eq!(effective(true, &[], &[], host).len(), 40);
    }

    #[test]
    fn names_are_free_in_case_and_prefix() {
        assert_eq!(normalise("cap_net_admin"), Some("NET_ADMIN"));
        assert_eq!(normalise("all"), Some("ALL"));
        assert_eq!(normalise("NET_ADMINN"), None);
    }
}
