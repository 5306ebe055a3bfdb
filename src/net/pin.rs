//! Network namespaces, kept alive by a file that their entry in /proc is bind-mounted on.
//!
//! The mount must be seen by containerd and the runtime: the agent has to run in the host's mount
//! namespace (no `PrivateTmp=`, `ProtectSystem=` and the like in its unit).

use super::error::NetError;
use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::statfs::{FsType, statfs};
use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::Path;

/// `NSFS_MAGIC` of linux/magic.h.
const NSFS: FsType = FsType(0x6e73_6673);
/// The calling thread's namespace (not its process's).
const OWN: &str = "/proc/thread-self/ns/net";

/// Moves the calling thread into a new namespace and pins it. The thread must end with this job:
/// it can't come back.
pub(super) fn enter_new(pin: &Path) -> Result<(), NetError> {
    File::create(pin).map_err(|e| NetError::file("create", pin, e))?;
    let made = || -> Result<(), NetError> {
        let refused = |action: &'static str| move |e: Errno| NetError::file(action, pin, e.into());
        unshare(CloneFlags::CLONE_NEWNET).map_err(refused("make a network namespace for"))?;
        mount(Some(OWN), pin, None::<&str>, MsFlags::MS_BIND, None::<&str>)
            .map_err(refused("mount a namespace on"))
    };
    made().inspect_err(|_| drop(fs::remove_file(pin)))
}

/// Whether a namespace is pinned there. A bare file is what a crash or a reboot leaves.
pub(super) fn is_pinned(pin: &Path) -> bool {
    statfs(pin).is_ok_and(|s| s.filesystem_type() == NSFS)
}

/// Lets a namespace go: it ends when its last process has ended. One that isn't there is fine.
pub(super) fn remove(pin: &Path) -> Result<(), NetError> {
    while is_pinned(pin) {
        umount2(pin, MntFlags::MNT_DETACH).map_err(|e| NetError::file("unmount", pin, e.into()))?;
    }
    match fs::remove_file(pin) {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(NetError::file("remove", pin, e)),
        _ => Ok(()),
    }
}

/// File names of all pins.
pub(super) fn list(directory: &Path) -> Result<Vec<String>, NetError> {
    let entries = match fs::read_dir(directory) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(|e| NetError::file("list", directory, e))?,
    };
    Ok(entries.flatten().filter_map(|e| e.file_name().into_string().ok()).collect())
}
