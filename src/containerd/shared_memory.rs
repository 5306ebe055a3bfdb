//! Memory that the containers of a task share: a tmpfs of the host that is /dev/shm in each of them, as
//! Docker's of a shareable IPC namespace. It lives from the making of the namespaces' holder to its
//! release; both may be done again.

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount as mount_at, umount2};
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Mounts it, with the options that /dev/shm has in a container, unless it is there.
///
/// # Errors
/// Where the directory can't be made or nothing be mounted.
pub(super) fn mount(directory: &Path, bytes: u64) -> io::Result<()> {
    std::fs::create_dir_all(directory)?;
    if is_mounted(directory)? {
        return Ok(());
    }
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    let options = format!("mode=1777,size={bytes}");
    Ok(mount_at(Some("shm"), directory, Some("tmpfs"), flags, Some(options.as_str()))?)
}

/// Unmounts and removes it; whoever has it mounted keeps it until he ends.
///
/// # Errors
/// Where it stays.
pub(super) fn unmount(directory: &Path) -> io::Result<()> {
    match umount2(directory, MntFlags::MNT_DETACH) {
        // EINVAL: nothing is mounted there.
        Ok(()) | Err(Errno::EINVAL) => {}
        Err(Errno::ENOENT) => return Ok(()),
        Err(errno) => return Err(errno.into()),
    }
    match std::fs::remove_dir(directory) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Another file system than that of the directory above it.
fn is_mounted(directory: &Path) -> io::Result<bool> {
    let device = |path: &Path| std::fs::metadata(path).map(|about| about.dev());
    Ok(device(directory)? != device(&directory.join(".."))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_mounted_once_and_leaves_nothing() {
        let above = std::env::temp_dir().join(format!("ecsd-shm-{}", std::process::id()));
        let directory = above.join("id");
        unmount(&directory).unwrap();
        mount(&directory, 1 << 20).unwrap();
        std::fs::write(directory.join("kept"), "x").unwrap();
        mount(&directory, 1 << 20).unwrap();
        assert!(directory.join("kept").exists(), "nothing was mounted over it");
        assert_eq!(std::fs::metadata(&directory).unwrap().mode() & 0o7777, 0o1777);
        let too_much = std::fs::write(directory.join("large"), vec![0; 2 << 20]).unwrap_err();
        assert_eq!(too_much.kind(), ErrorKind::StorageFull);
        unmount(&directory).unwrap();
        assert!(!directory.exists());
        unmount(&directory).unwrap();
        std::fs::remove_dir(&above).unwrap();
    }
}
