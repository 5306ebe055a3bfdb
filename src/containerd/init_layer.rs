//! What Docker's init layer puts between an image and a container: `/.dockerenv`, `/etc/mtab`, and empty
//! files for what is mounted over them (spec task-engine 2.4). Written into the container's own writable
//! layer before anything mounts it. Blocking; called by `create.rs`.

use crate::containerd::rootfs::DirectoryAbout;
use containerd_client::types::Mount;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{FchmodatFlags, Mode, fchmodat, fstatat, mkdirat};
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchownat, symlinkat, unlinkat};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

/// Written last: where it is, all is.
const MARK: &str = ".dockerenv";
/// Empty files of /etc; what is in them for a container is mounted over them.
const EMPTY: [&str; 3] = ["hosts", "hostname", "resolv.conf"];

/// The directory that takes a container's own files, as the snapshotter's mounts name it.
pub fn writable_layer(mounts: &[Mount]) -> Option<PathBuf> {
    let [layers] = mounts else { return None };
    match layers.r#type.as_str() {
        "overlay" => {
            layers.options.iter().find_map(|option| option.strip_prefix("upperdir=")).map(PathBuf::from)
        }
        "bind" => Some(PathBuf::from(&layers.source)),
        _ => None,
    }
}

/// Writes them, unless they were written before. `etc` is the image's /etc, where it is a directory;
/// anything else of that name gives way, as with Docker. Follows no symlink.
///
/// # Errors
/// The kernel's.
pub fn write(layer: &Path, etc: Option<DirectoryAbout>) -> Result<(), Errno> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let root = nix::fcntl::open(layer, flags, Mode::empty())?;
    if fstatat(&root, MARK, AtFlags::AT_SYMLINK_NOFOLLOW).is_ok() {
        return Ok(());
    }
    let directory = directory(&root, "etc", etc)?;
    for name in EMPTY {
        empty(&directory, name)?;
    }
    if remove(&directory, "mtab")? {
        symlinkat("/proc/mounts", &directory, "mtab")?;
    }
    empty(&root, MARK)
}

/// A directory of the layer, like the image's.
fn directory(at: &OwnedFd, name: &str, about: Option<DirectoryAbout>) -> Result<OwnedFd, Errno> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    match openat(at, name, flags, Mode::empty()) {
        Err(Errno::ENOTDIR | Errno::ELOOP) => unlinkat(at, name, UnlinkatFlags::NoRemoveDir)?,
        Err(Errno::ENOENT) => {}
        other => return other,
    }
    let about = about.unwrap_or(DirectoryAbout { mode: 0o755, uid: 0, gid: 0 });
    mkdirat(at, name, Mode::S_IRWXU)?;
    let owner = (Some(Uid::from_raw(about.uid)), Some(Gid::from_raw(about.gid)));
    fchownat(at, name, owner.0, owner.1, AtFlags::AT_SYMLINK_NOFOLLOW)?;
    fchmodat(at, name, Mode::from_bits_truncate(about.mode), FchmodatFlags::FollowSymlink)?;
    openat(at, name, flags, Mode::empty())
}

fn empty(at: &OwnedFd, name: &str) -> Result<(), Errno> {
    if remove(at, name)? {
        let flags = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_WRONLY | OFlag::O_CLOEXEC;
        openat(at, name, flags, Mode::from_bits_truncate(0o755))?;
    }
    Ok(())
}

/// Makes room for a file. False where there is a directory, which stays, as with Docker.
fn remove(at: &OwnedFd, name: &str) -> Result<bool, Errno> {
    match unlinkat(at, name, UnlinkatFlags::NoRemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => Ok(true),
        Err(Errno::EISDIR) => Ok(false),
        Err(errno) => Err(errno),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{MetadataExt, symlink};

    fn layer(name: &str) -> PathBuf {
        let layer = std::env::temp_dir().join(format!("ecsd-init-layer-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&layer);
        std::fs::create_dir_all(&layer).unwrap();
        layer
    }

    #[test]
    fn the_writable_directory_is_the_upper_one() {
        let overlay = Mount {
            r#type: "overlay".into(),
            options: vec!["index=off".into(), "workdir=/s/2/work".into(), "upperdir=/s/2/fs".into()],
            ..Mount::default()
        };
        assert_eq!(writable_layer(&[overlay]).unwrap(), Path::new("/s/2/fs"));
        let native = Mount { r#type: "bind".into(), source: "/n/3".into(), ..Mount::default() };
        assert_eq!(writable_layer(&[native]).unwrap(), Path::new("/n/3"));
        assert_eq!(writable_layer(&[]), None);
    }

    #[test]
    fn etc_is_like_the_images() {
        let layer = layer("like");
        write(&layer, Some(DirectoryAbout { mode: 0o711, uid: 5, gid: 6 })).unwrap();
        let about = std::fs::metadata(layer.join("etc")).unwrap();
        assert_eq!((about.mode() & 0o7777, about.uid(), about.gid()), (0o711, 5, 6));
        assert_eq!(std::fs::read_link(layer.join("etc/mtab")).unwrap(), Path::new("/proc/mounts"));
        for name in [".dockerenv", "etc/hosts", "etc/hostname", "etc/resolv.conf"] {
            let about = std::fs::symlink_metadata(layer.join(name)).unwrap();
            assert_eq!((about.len(), about.mode() & 0o777), (0, 0o755), "{name}");
        }
        std::fs::remove_dir_all(layer).unwrap();
    }

    #[test]
    fn nothing_outside_is_touched_and_nothing_is_done_twice() {
        let (layer, outside) = (layer("links"), layer("outside"));
        std::fs::write(outside.join("hosts"), "the host's").unwrap();
        symlink(&outside, layer.join("etc")).unwrap();
        write(&layer, None).unwrap();
        assert_eq!(std::fs::read_to_string(outside.join("hosts")).unwrap(), "the host's");
        assert!(!outside.join("mtab").exists());
        assert!(layer.join("etc").symlink_metadata().unwrap().is_dir());
        // What a container makes of them stays.
        std::fs::remove_file(layer.join("etc/mtab")).unwrap();
        write(&layer, None).unwrap();
        assert!(!layer.join("etc/mtab").is_symlink());
        for directory in [layer, outside] {
            std::fs::remove_dir_all(directory).unwrap();
        }
    }
}
