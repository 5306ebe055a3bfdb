//! SELinux labels of what is mounted: `z` and `Z` of binds, and volumes, whose files containers are to
//! use on a host that labels processes. Which label is decided purely; it is set file by file, and no link
//! is followed.

use crate::containerd::docker_config::{ContainerSettings, Relabel};
use crate::containerd::spec::confinement::{self, Labels};
use crate::containerd::spec::facts::HostFacts;
use crate::containerd::volumes::Volume;
use crate::model::ContainerId;
use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Mode, OFlags, ResolveFlags, XattrFlags, lsetxattr, openat, openat2,
    setxattr, statat,
};
use rustix::io::Errno;
use std::ffi::OsStr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// The attribute.
const ATTRIBUTE: &str = "security.selinux";
/// Of files that any container may use, where the policy names none.
const SHARED_FILES: &str = "system_u:object_r:container_file_t:s0";
/// Docker never relabels these, lest the host no longer starts.
const NEVER: [&str; 23] = [
    "/",
    "/bin",
    "/boot",
    "/dev",
    "/etc",
    "/etc/passwd",
    "/etc/pki",
    "/etc/shadow",
    "/home",
    "/lib",
    "/lib64",
    "/media",
    "/opt",
    "/proc",
    "/root",
    "/run",
    "/sbin",
    "/srv",
    "/sys",
    "/tmp",
    "/usr",
    "/var",
    "/var/lib",
];

/// Why a volume was not relabelled.
#[derive(Debug, thiserror::Error)]
pub enum RelabelError {
    /// Docker's words.
    #[error("SELinux relabeling of {path} is not allowed", path = .0.display())]
    NotAllowed(PathBuf),
    /// The kernel refused.
    #[error("set the SELinux label {label} of {path}", path = .path.display())]
    Kernel {
        /// Which label.
        label: String,
        /// Of what.
        path: PathBuf,
        /// Its answer.
        #[source]
        source: std::io::Error,
    },
}

/// The label of a container's files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileLabel {
    label: String,
    /// The container's processes have one, too.
    of_processes: bool,
}

/// The label of the files of a container; `None` where nothing is to be relabelled: on a host without
/// SELinux.
pub fn label(host: &HostFacts, settings: &ContainerSettings, id: &ContainerId) -> Option<FileLabel> {
    let enabled = host.selinux.is_some() || Path::new("/sys/fs/selinux/enforce").exists();
    file_label(enabled, confinement::labels(host, settings, id))
}

fn file_label(enabled: bool, labels: Option<Labels>) -> Option<FileLabel> {
    let of_processes = labels.is_some();
    let label = labels.map_or_else(|| SHARED_FILES.to_owned(), |labels| labels.mount);
    enabled.then_some(FileLabel { label, of_processes })
}

/// Sets the label of a volume and of all that is in it, where it is to be set.
///
/// # Errors
/// [`RelabelError`]
pub fn volume(volume: &Volume, label: Option<&FileLabel>) -> Result<(), RelabelError> {
    let path = &volume.bind.source;
    let Some(label) = decide(volume.relabel, path, label)? else { return Ok(()) };
    tree(path, &label).map_err(|source| RelabelError::Kernel { label, path: path.clone(), source })
}

/// The label that a path is to get: of the container alone, or without its level.
fn decide(relabel: Relabel, path: &Path, label: Option<&FileLabel>) -> Result<Option<String>, RelabelError> {
    let Some(FileLabel { label, of_processes }) = label else { return Ok(None) };
    if relabel != Relabel::No && NEVER.iter().any(|never| Path::new(never) == path) {
        return Err(RelabelError::NotAllowed(path.to_owned()));
    }
    Ok(match relabel {
        Relabel::No => None,
        Relabel::WithProcesses if !of_processes => None,
        Relabel::Private => Some(label.clone()),
        Relabel::Shared | Relabel::WithProcesses => {
            let kind: Vec<&str> = label.splitn(4, ':').take(3).collect();
            Some(format!("{}:s0", kind.join(":")))
        }
    })
}

/// Sets an attribute of everything at a path and below. What can't have one is left without.
fn tree(path: &Path, label: &str) -> std::io::Result<()> {
    let top = openat(CWD, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    // The path itself may be a link of the host's own: to what it leads.
    let itself = Path::new("/proc/self/fd").join(top.as_raw_fd().to_string());
    let about = statat(&top, "", AtFlags::EMPTY_PATH)?;
    if FileType::from_raw_mode(about.st_mode) != FileType::Directory {
        return set(&itself, label, true);
    }
    set(&itself.join("."), label, true)?;
    let mut waiting = vec![PathBuf::from(".")];
    while let Some(directory) = waiting.pop() {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let beneath = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        let opened: OwnedFd = match openat2(&top, &directory, flags, Mode::empty(), beneath) {
            // It went in the meantime, or was replaced.
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => continue,
            other => other?,
        };
        for entry in Dir::read_from(&opened)? {
            let entry = entry?;
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if name == "." || name == ".." {
                continue;
            }
            let at = Path::new("/proc/self/fd").join(opened.as_raw_fd().to_string()).join(name);
            set(&at, label, false)?;
            let kind = statat(&opened, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW);
            if kind.is_ok_and(|about| FileType::from_raw_mode(about.st_mode) == FileType::Directory) {
                waiting.push(directory.join(name));
            }
        }
    }
    Ok(())
}

/// Sets the attribute of one file; of a link itself, unless it is to be followed.
fn set(path: &Path, label: &str, follow: bool) -> std::io::Result<()> {
    // The kernel's own form ends with a NUL.
    let value = format!("{label}\0");
    let done = match follow {
        true => setxattr(path, ATTRIBUTE, value.as_bytes(), XattrFlags::empty()),
        false => lsetxattr(path, ATTRIBUTE, value.as_bytes(), XattrFlags::empty()),
    };
    match done {
        Ok(()) | Err(Errno::NOTSUP | Errno::NOENT) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_decided_by_the_bind_and_the_host() {
        let own = Labels {
            process: "system_u:system_r:container_t:s0:c1,c2".into(),
            mount: "system_u:object_r:container_file_t:s0:c1,c2".into(),
        };
        assert_eq!(file_label(false, None), None, "no SELinux, no labels");
        let (with, without) = (file_label(true, Some(own.clone())), file_label(true, None));
        let decided = |relabel, path: &str| decide(relabel, Path::new(path), with.as_ref());
        assert_eq!(decided(Relabel::No, "/srv/a").unwrap(), None);
        assert_eq!(decided(Relabel::Private, "/srv/a").unwrap(), Some(own.mount.clone()));
        for shared in [Relabel::Shared, Relabel::WithProcesses] {
            assert_eq!(decided(shared, "/srv/a").unwrap().as_deref(), Some(SHARED_FILES));
        }
        let decided_without = |relabel| decide(relabel, Path::new("/srv/a"), without.as_ref()).unwrap();
        assert_eq!(decided_without(Relabel::Shared).as_deref(), Some(SHARED_FILES), "it was asked for");
        assert_eq!(decided_without(Relabel::WithProcesses), None, "every process may use it as it is");
        for never in ["/", "/etc", "/var/lib"] {
            let words = decided(Relabel::Shared, never).unwrap_err().to_string();
            assert_eq!(words, format!("SELinux relabeling of {never} is not allowed"));
            assert_eq!(decided(Relabel::No, never).unwrap(), None);
        }
        assert_eq!(decide(Relabel::Private, Path::new("/etc"), None).unwrap(), None, "no SELinux, no harm");
    }
}
