//! The `mounts` part of the spec: Docker's defaults, our generated files, the user's mounts. Pure.

use super::{SpecError, SpecInput, process};
use crate::containerd::docker_config::{ContainerSettings, IpcChoice};
use oci_spec::runtime::{Mount, MountBuilder};
use std::path::{Path, PathBuf};

/// A directory or file of the host at a path of the container.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct BindMount {
    /// On the host, absolute.
    pub source: PathBuf,
    /// In the container, absolute and clean.
    pub target: String,
    /// Read-only.
    pub read_only: bool,
    /// `rprivate` where nothing was said.
    pub propagation: Option<String>,
    /// What is mounted below the source does not come along.
    pub without_submounts: bool,
}

/// The files that every container gets from us, by their path in it; each is a file of that name
/// in the plan's directory.
pub const GENERATED: [&str; 3] = ["/etc/resolv.conf", "/etc/hostname", "/etc/hosts"];

/// Those of them that a container sees: without a network there is nobody to be named.
fn generated(settings: &ContainerSettings) -> impl Iterator<Item = &'static str> {
    let disabled = settings.network_disabled;
    GENERATED.into_iter().filter(move |target| !disabled || *target == "/etc/hostname")
}

/// All mounts, in the order in which they are to be made: Docker's defaults, then the rest by depth.
///
/// # Errors
/// Two mounts of the user at one path.
pub fn mounts(input: &SpecInput<'_>) -> Result<Vec<Mount>, SpecError> {
    let mut own: Vec<(String, Mount)> = Vec::new();
    let mut add = |target: &str, mount: Mount| match own.iter().any(|(taken, _)| taken == target) {
        true => Err(SpecError::MountedTwice(target.to_owned())),
        false => {
            own.push((target.to_owned(), mount));
            Ok(())
        }
    };
    for bind in input.binds {
        add(&bind.target, bind_mount(bind)?)?;
    }
    for (path, options) in &input.settings.tmpfs {
        let target = clean(path).filter(|target| target != "/");
        let target = target.ok_or_else(|| SpecError::MountPath(path.clone()))?;
        add(&target, mount(&target, "tmpfs", "tmpfs", &tmpfs_options(path, options)?)?)?;
    }
    for target in generated(input.settings) {
        if !own.iter().any(|(taken, _)| taken == target) {
            let name = target.trim_start_matches("/etc/");
            let file = input.plan.directory.join(name);
            let access = if input.settings.read_only_rootfs { "ro" } else { "rw" };
            own.push((target.to_owned(), mount_path(target, "bind", &file, &["rbind", access, "rprivate"])?));
        }
    }
    // It is no default of Docker's, but a mount of the container's own: it stays on a /dev of the user's.
    if let Some(memory) = shared_memory(input)?
        && !own.iter().any(|(taken, _)| taken == "/dev/shm")
    {
        own.push(("/dev/shm".to_owned(), memory));
    }
    own.sort_by_key(|(target, _)| target.matches('/').count());

    let dev_is_taken = own.iter().any(|(target, _)| target == "/dev");
    let mut all = Vec::new();
    for default in defaults(input)? {
        let target = default.destination().to_string_lossy().into_owned();
        let taken = own.iter().any(|(taken, _)| *taken == target);
        let hidden = dev_is_taken && target.starts_with("/dev/");
        if !taken && !hidden {
            all.push(default);
        }
    }
    all.extend(own.into_iter().map(|(_, mount)| mount));
    if let Some(program) = process::init(input) {
        all.push(mount_path(process::INIT_TARGET, "bind", program, &["bind", "ro"])?);
    }
    Ok(all)
}

/// What the propagation of the root must be, for the mounts' own to have an effect.
pub fn rootfs_propagation(binds: &[BindMount]) -> Option<&'static str> {
    let has = |words: [&str; 2]| {
        binds.iter().filter_map(|b| b.propagation.as_deref()).any(|word| words.contains(&word))
    };
    match (has(["shared", "rshared"]), has(["slave", "rslave"])) {
        (true, _) => Some("shared"),
        (false, true) => Some("rslave"),
        (false, false) => None,
    }
}

fn defaults(input: &SpecInput<'_>) -> Result<Vec<Mount>, SpecError> {
    let privileged = input.settings.privileged;
    let system: &[&str] =
        if privileged { &["nosuid", "noexec", "nodev"] } else { &["nosuid", "noexec", "nodev", "ro"] };
    let cgroup: &[&str] = if privileged {
        &["nosuid", "noexec", "nodev", "relatime"]
    } else {
        &["ro", "nosuid", "noexec", "nodev", "relatime"]
    };
    Ok(vec![
        mount("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"])?,
        mount("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"])?,
        mount(
            "/dev/pts",
            "devpts",
            "devpts",
            &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        )?,
        mount("/sys", "sysfs", "sysfs", system)?,
        mount("/sys/fs/cgroup", "cgroup", "cgroup", cgroup)?,
        mount("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"])?,
    ])
}

fn shared_memory(input: &SpecInput<'_>) -> Result<Option<Mount>, SpecError> {
    let size = format!("size={}", input.settings.shm_bytes);
    Ok(match &input.settings.namespaces.ipc {
        IpcChoice::Own => {
            Some(mount("/dev/shm", "tmpfs", "shm", &["nosuid", "noexec", "nodev", "mode=1777", &size])?)
        }
        IpcChoice::Host => Some(mount("/dev/shm", "bind", "/dev/shm", &["rbind", "rprivate"])?),
        IpcChoice::Of { shm, .. } => Some(mount_path("/dev/shm", "bind", shm, &["rbind", "rprivate"])?),
        IpcChoice::OwnWithoutShm => None,
    })
}

fn bind_mount(bind: &BindMount) -> Result<Mount, SpecError> {
    let propagation = bind.propagation.as_deref().unwrap_or("rprivate");
    let how = if bind.without_submounts { "bind" } else { "rbind" };
    let options = [how, if bind.read_only { "ro" } else { "rw" }, propagation];
    mount_path(&bind.target, "bind", &bind.source, &options)
}

/// Flags of mount(8): those of one number shut one another out, and the last one said counts.
const FLAGS: [(&str, u8); 33] = [
    ("ro", 0),
    ("rw", 0),
    ("suid", 1),
    ("nosuid", 1),
    ("dev", 2),
    ("nodev", 2),
    ("exec", 3),
    ("noexec", 3),
    ("sync", 4),
    ("async", 4),
    ("dirsync", 5),
    ("remount", 6),
    ("mand", 7),
    ("nomand", 7),
    ("atime", 8),
    ("noatime", 8),
    ("diratime", 9),
    ("nodiratime", 9),
    ("relatime", 10),
    ("norelatime", 10),
    ("strictatime", 11),
    ("nostrictatime", 11),
    ("bind", 12),
    ("rbind", 12),
    ("unbindable", 12),
    ("runbindable", 12),
    ("private", 12),
    ("rprivate", 12),
    ("shared", 12),
    ("rshared", 12),
    ("slave", 12),
    ("rslave", 12),
    ("defaults", u8::MAX),
];
/// Options of tmpfs(5) that carry a value.
const TMPFS_VALUES: [&str; 7] = ["size", "mode", "uid", "gid", "nr_inodes", "nr_blocks", "mpol"];

/// Docker's base options, then the asked ones; of those that shut one another out the last counts.
fn tmpfs_options<'a>(path: &str, asked: &'a str) -> Result<Vec<&'a str>, SpecError> {
    let mut chosen: Vec<(&str, &str)> = Vec::new();
    let asked = asked.split(',').map(str::trim).filter(|option| !option.is_empty());
    for option in ["noexec", "nosuid", "nodev", "rprivate"].into_iter().chain(asked) {
        let flag = FLAGS.iter().find(|(name, _)| *name == option);
        // The first flag of a number stands for all of it.
        let group = match (flag, option.split_once('=')) {
            (Some((_, u8::MAX)), _) => continue,
            (Some((_, number)), _) => FLAGS.iter().find(|(_, other)| other == number).map(|(name, _)| *name),
            (None, Some((name, _))) => TMPFS_VALUES.into_iter().find(|known| *known == name),
            (None, None) => None,
        };
        let wrong = || SpecError::TmpfsOption { path: path.to_owned(), option: option.to_owned() };
        let group = group.ok_or_else(wrong)?;
        chosen.retain(|(taken, _)| *taken != group);
        chosen.push((group, option));
    }
    Ok(chosen.into_iter().map(|(_, option)| option).collect())
}

fn mount(target: &str, kind: &str, source: &str, options: &[&str]) -> Result<Mount, SpecError> {
    mount_path(target, kind, Path::new(source), options)
}

fn mount_path(target: &str, kind: &str, source: &Path, options: &[&str]) -> Result<Mount, SpecError> {
    Ok(MountBuilder::default()
        .destination(target)
        .typ(kind)
        .source(source)
        .options(options.iter().map(|o| (*o).to_owned()).collect::<Vec<_>>())
        .build()?)
}

/// An absolute path without `.`, `..`, doubled or trailing slashes; `None` for relative ones and
/// those that the kernel can't take. What is above the root is the root.
pub fn clean(path: &str) -> Option<String> {
    if !path.starts_with('/') || path.contains('\0') || path.len() > 4096 {
        return None;
    }
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            name => parts.push(name),
        }
    }
    Some(format!("/{}", parts.join("/")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_cleaned() {
        for (path, want) in [("/", "/"), ("/a//b/./c/", "/a/b/c"), ("/../../etc", "/etc"), ("/a/..", "/")] {
            assert_eq!(clean(path).as_deref(), Some(want), "{path}");
        }
        assert_eq!((clean("a"), clean(""), clean("/a\0")), (None, None, None));
    }

    #[test]
    fn options_of_tmpfs_give_way_to_later_ones() {
        let options = |asked| tmpfs_options("/t", asked).unwrap();
        assert_eq!(
            options("exec,size=1m,mode=1777"),
            ["nosuid", "nodev", "rprivate", "exec", "size=1m", "mode=1777"]
        );
        assert_eq!(options(""), ["noexec", "nosuid", "nodev", "rprivate"]);
        assert_eq!(
            options("defaults,size=1m,ro,rslave,size=2m,rw"),
            ["noexec", "nosuid", "nodev", "rslave", "size=2m", "rw"]
        );
        let error = tmpfs_options("/t", "size=1m,huge").unwrap_err();
        assert_eq!(error.to_string(), "Invalid tmpfs option \"huge\" of \"/t\"");
    }
}
