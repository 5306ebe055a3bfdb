//! The `mounts` part of the spec: Docker's defaults, our generated files, the user's mounts. Pure.

use super::{SpecError, SpecInput};
use oci_spec::runtime::{Mount, MountBuilder};
use std::path::{Path, PathBuf};

/// A directory or file of the host at a path of the container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BindMount {
    /// On the host, absolute.
    pub source: PathBuf,
    /// In the container, absolute and clean.
    pub target: String,
    /// Read-only.
    pub read_only: bool,
    /// `rprivate` where nothing was said.
    pub propagation: Option<String>,
}

/// The files that every container gets from us, by their path in it; each is a file of that name
/// in the plan's directory.
pub const GENERATED: [&str; 3] = ["/etc/resolv.conf", "/etc/hostname", "/etc/hosts"];

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
        let target = clean(path).ok_or_else(|| SpecError::MountPath(path.clone()))?;
        let options = tmpfs_options(options);
        add(
            &target,
            mount(&target, "tmpfs", "tmpfs", &options.iter().map(String::as_str).collect::<Vec<_>>())?,
        )?;
    }
    for target in GENERATED {
        if !own.iter().any(|(taken, _)| taken == target) {
            let name = target.trim_start_matches("/etc/");
            let file = input.plan.directory.join(name);
            own.push((target.to_owned(), mount_path(target, "bind", &file, &["rbind", "rprivate"])?));
        }
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
    let shm = format!("size={}", input.settings.shm_bytes);
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
        mount("/dev/shm", "tmpfs", "shm", &["nosuid", "noexec", "nodev", "mode=1777", &shm])?,
    ])
}

fn bind_mount(bind: &BindMount) -> Result<Mount, SpecError> {
    let propagation = bind.propagation.as_deref().unwrap_or("rprivate");
    let options = ["rbind", if bind.read_only { "ro" } else { "rw" }, propagation];
    mount_path(&bind.target, "bind", &bind.source, &options)
}

/// Docker's base options, each given way to its opposite.
fn tmpfs_options(asked: &str) -> Vec<String> {
    let mut options: Vec<String> = ["noexec", "nosuid", "nodev"].map(str::to_owned).to_vec();
    for option in asked.split(',').map(str::trim).filter(|o| !o.is_empty()) {
        let opposite = match option {
            "exec" => "noexec",
            "suid" => "nosuid",
            "dev" => "nodev",
            "rw" => "ro",
            "ro" => "rw",
            _ => "",
        };
        options.retain(|have| have != opposite && have != option);
        options.push(option.to_owned());
    }
    options
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
    fn options_of_tmpfs_give_way_to_their_opposite() {
        assert_eq!(
            tmpfs_options("exec,size=1m,mode=1777"),
            ["nosuid", "nodev", "exec", "size=1m", "mode=1777"]
        );
        assert_eq!(tmpfs_options(""), ["noexec", "nosuid", "nodev"]);
    }
}
