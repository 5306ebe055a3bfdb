//! Options of the driver `local`: `type`, `device`, `o` make it a mount, by the words of mount(8), as
//! Docker understands them. Parsing is pure.

use nix::mount::{MsFlags, mount};
use std::collections::BTreeMap;
use std::net::{IpAddr, ToSocketAddrs};
use std::path::Path;

/// Flags that say how mounts spread; the kernel takes them in a call of their own.
const SPREADING: MsFlags =
    MsFlags::MS_SHARED.union(MsFlags::MS_PRIVATE).union(MsFlags::MS_SLAVE).union(MsFlags::MS_UNBINDABLE);
/// A bind becomes read-only by being mounted once more.
const READ_ONLY_BIND: MsFlags = MsFlags::MS_BIND.union(MsFlags::MS_RDONLY);

/// Checks options.
///
/// # Errors
/// What is wrong with them, in Docker's words.
pub(super) fn check(options: &BTreeMap<String, String>) -> Result<(), String> {
    for name in options.keys() {
        if !matches!(name.as_str(), "type" | "o" | "device" | "size") {
            return Err(format!("invalid option: {name:?}"));
        }
    }
    if options.get("size").is_some_and(|size| !matches!(size.as_str(), "0" | "")) {
        return Err("quota size requested but no quota support".into());
    }
    let needs: [(&str, &[&str]); 3] =
        [("device", &["type"]), ("type", &["device"]), ("o", &["device", "type"])];
    for (name, others) in needs {
        if options.contains_key(name)
            && let Some(missing) = others.iter().find(|other| !options.contains_key(**other))
        {
            return Err(format!("missing required option: {missing:?}"));
        }
    }
    Ok(())
}

/// A mount that a volume is.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Mount {
    kind: String,
    device: String,
    flags: MsFlags,
    data: String,
}

impl Mount {
    /// The mount that options ask for; `None` where the volume is a plain directory.
    pub fn of(options: &BTreeMap<String, String>) -> Option<Self> {
        let text = |name: &str| options.get(name).cloned().unwrap_or_default();
        let (kind, device) = (text("type"), text("device"));
        if kind.is_empty() && device.is_empty() {
            return None;
        }
        let mut flags = MsFlags::empty();
        let mut data = Vec::new();
        let asked = text("o");
        for option in asked.split(',').filter(|option| !option.is_empty()) {
            match flag(option) {
                Some((bits, true)) => flags |= bits,
                Some((bits, false)) => flags &= !bits,
                None => data.push(option),
            }
        }
        Some(Self { kind, device, flags, data: data.join(",") })
    }

    /// Mounts it at `target`. Blocks for as long as the kernel does.
    ///
    /// # Errors
    /// What was tried and the kernel's answer, in Docker's words, without passwords.
    pub fn mount(&self, target: &Path) -> Result<(), String> {
        let data = self
            .resolved()
            .map_err(|why| format!("error resolving passed in network volume address: {why}"))?;
        let flags = self.flags & !SPREADING;
        let none: Option<&str> = None;
        let failed = |op: &str, flags: MsFlags| {
            let (op, target) = (op.to_owned(), target.display().to_string());
            move |errno: nix::errno::Errno| {
                let flags =
                    if flags.is_empty() { String::new() } else { format!(", flags: {:#x}", flags.bits()) };
                let shown =
                    if self.data.is_empty() { String::new() } else { format!(", data: {}", self.shown()) };
                format!("{op} {}:{target}{flags}{shown}: {}", self.device, errno.desc().to_lowercase())
            }
        };
        let kind = Some(self.kind.as_str());
        mount(Some(self.device.as_str()), target, kind, flags, Some(data.as_str()))
            .map_err(failed("mount", flags))?;
        // From here on a failure must not leave it mounted: it would be taken for whole.
        let rest = || -> Result<(), String> {
            let spread = self.flags & (SPREADING | MsFlags::MS_REC);
            if self.flags.intersects(SPREADING) {
                mount(none, target, none, spread, none).map_err(failed("remount", spread))?;
            }
            if flags.contains(READ_ONLY_BIND) {
                let again = flags | MsFlags::MS_REMOUNT;
                mount(none, target, none, again, none).map_err(failed("remount-ro", again))?;
            }
            Ok(())
        };
        rest().inspect_err(|_| {
            let _ = nix::mount::umount2(target, nix::mount::MntFlags::MNT_DETACH);
        })
    }

    /// The data for the kernel, which knows no names of hosts.
    fn resolved(&self) -> std::io::Result<String> {
        let address = self.data.split(',').find_map(|option| option.strip_prefix("addr="));
        let name = address.filter(|address| address.parse::<IpAddr>().is_err());
        let Some(name) = name.filter(|_| matches!(self.kind.as_str(), "nfs" | "nfs4" | "cifs")) else {
            return Ok(self.data.clone());
        };
        let found = (name, 0).to_socket_addrs()?.next();
        let found = found.ok_or_else(|| std::io::Error::other(format!("{name} has no address")))?;
        Ok(self.data.replacen(&format!("addr={name}"), &format!("addr={}", found.ip()), 1))
    }

    /// The data as an error may show it.
    fn shown(&self) -> String {
        let hide = |option: &str| match option.split_once('=') {
            Some((name @ ("password" | "pass"), _)) => format!("{name}=********"),
            _ => option.to_owned(),
        };
        self.data.split(',').map(hide).collect::<Vec<_>>().join(",")
    }
}

/// A word of mount(8): its bits, and whether it sets or clears them. `None` for what is the file
/// system's own.
fn flag(word: &str) -> Option<(MsFlags, bool)> {
    let recursive = |bits: MsFlags| bits | MsFlags::MS_REC;
    Some(match word {
        "defaults" => (MsFlags::empty(), true),
        "ro" => (MsFlags::MS_RDONLY, true),
        "rw" => (MsFlags::MS_RDONLY, false),
        "suid" => (MsFlags::MS_NOSUID, false),
        "nosuid" => (MsFlags::MS_NOSUID, true),
        "dev" => (MsFlags::MS_NODEV, false),
        "nodev" => (MsFlags::MS_NODEV, true),
        "exec" => (MsFlags::MS_NOEXEC, false),
        "noexec" => (MsFlags::MS_NOEXEC, true),
        "sync" => (MsFlags::MS_SYNCHRONOUS, true),
        "async" => (MsFlags::MS_SYNCHRONOUS, false),
        "dirsync" => (MsFlags::MS_DIRSYNC, true),
        "remount" => (MsFlags::MS_REMOUNT, true),
        "mand" => (MsFlags::MS_MANDLOCK, true),
        "nomand" => (MsFlags::MS_MANDLOCK, false),
        "atime" => (MsFlags::MS_NOATIME, false),
        "noatime" => (MsFlags::MS_NOATIME, true),
        "diratime" => (MsFlags::MS_NODIRATIME, false),
        "nodiratime" => (MsFlags::MS_NODIRATIME, true),
        "relatime" => (MsFlags::MS_RELATIME, true),
        "norelatime" => (MsFlags::MS_RELATIME, false),
        "strictatime" => (MsFlags::MS_STRICTATIME, true),
        "nostrictatime" => (MsFlags::MS_STRICTATIME, false),
        "bind" => (MsFlags::MS_BIND, true),
        "rbind" => (recursive(MsFlags::MS_BIND), true),
        "unbindable" => (MsFlags::MS_UNBINDABLE, true),
        "runbindable" => (recursive(MsFlags::MS_UNBINDABLE), true),
        "private" => (MsFlags::MS_PRIVATE, true),
        "rprivate" => (recursive(MsFlags::MS_PRIVATE), true),
        "shared" => (MsFlags::MS_SHARED, true),
        "rshared" => (recursive(MsFlags::MS_SHARED), true),
        "slave" => (MsFlags::MS_SLAVE, true),
        "rslave" => (recursive(MsFlags::MS_SLAVE), true),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn options_are_checked_in_dockers_words() {
        for (given, words) in [
            (&[("bogus", "1")][..], "invalid option: \"bogus\""),
            (&[("type", "tmpfs")], "missing required option: \"device\""),
            (&[("device", "x")], "missing required option: \"type\""),
            (&[("o", "ro")], "missing required option: \"device\""),
            (&[("o", "ro"), ("device", "x")], "missing required option: \"type\""),
            (&[("size", "1g")], "quota size requested but no quota support"),
        ] {
            assert_eq!(check(&options(given)).unwrap_err(), words, "{given:?}");
        }
        for fine in
            [&[][..], &[("type", ""), ("device", "")], &[("type", "tmpfs"), ("device", "tmpfs"), ("o", "")]]
        {
            assert_eq!(check(&options(fine)), Ok(()), "{fine:?}");
        }
    }

    #[test]
    fn options_become_mounts() {
        assert_eq!(Mount::of(&options(&[])), None);
        assert_eq!(Mount::of(&options(&[("type", ""), ("device", "")])), None);
        let of = |o: &str| Mount::of(&options(&[("type", "nfs"), ("device", ":/x"), ("o", o)])).unwrap();
        let mount = of("ro,addr=10.0.0.1,,nfsvers=4.1,noexec,exec,rshared");
        assert_eq!(mount.flags, MsFlags::MS_RDONLY | MsFlags::MS_SHARED | MsFlags::MS_REC);
        assert_eq!(mount.data, "addr=10.0.0.1,nfsvers=4.1");
        assert_eq!(mount.resolved().unwrap(), mount.data);
        assert_eq!(of("addr=localhost,hard").resolved().unwrap().split(',').nth(1), Some("hard"));
        assert!(!of("addr=localhost").resolved().unwrap().contains("localhost"));
        assert_eq!(of("user=u,password=secret").shown(), "user=u,password=********");
    }

    #[test]
    fn a_mount_that_fails_says_what_was_tried() {
        let mount =
            Mount::of(&options(&[("type", "nosuchfs"), ("device", "nodev"), ("o", "ro,password=secret")]));
        let words = mount.unwrap().mount(Path::new("/proc/self")).unwrap_err();
        assert!(
            words.starts_with("mount nodev:/proc/self, flags: 0x1, data: password=********: "),
            "{words}"
        );
        assert!(words.ends_with("no such device"), "{words}");
    }
}
