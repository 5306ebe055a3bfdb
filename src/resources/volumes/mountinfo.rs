//! What is mounted at or below a path, and taking it away.

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// Mounts on top of one another at one path that are taken away.
const MOST_STACKED: usize = 64;

/// Whether something is mounted at exactly this path, which has no links in it.
pub(super) fn is_mounted(path: &Path) -> io::Result<bool> {
    Ok(mount_points()?.iter().any(|point| point == path))
}

/// Takes away everything that is mounted at this path, which has no links in it, or below. Who still has a
/// file of it open keeps that. What was bound here with the mounts below it keeps those: a mount that is
/// shared would take them away where it came from, too.
pub(super) fn detach(path: &Path) -> io::Result<()> {
    // Of mounts on top of one another only the uppermost is reached.
    for _ in 0..MOST_STACKED {
        let points = mount_points()?;
        let points: Vec<&PathBuf> = points.iter().filter(|point| point.starts_with(path)).collect();
        if points.is_empty() {
            return Ok(());
        }
        let none: Option<&str> = None;
        for point in &points {
            ignoring_gone(mount(none, point.as_path(), none, MsFlags::MS_PRIVATE, none))?;
        }
        for point in points.iter().rev() {
            ignoring_gone(umount2(point.as_path(), MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW))?;
        }
    }
    Err(io::Error::other("there is always something mounted there"))
}

/// What was under another mount, or went with it, is no mount any more.
fn ignoring_gone(answer: nix::Result<()>) -> io::Result<()> {
    match answer {
        Ok(()) | Err(Errno::EINVAL | Errno::ENOENT) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// Mount points of this process, in the order in which they were mounted.
fn mount_points() -> io::Result<Vec<PathBuf>> {
    Ok(parse(&std::fs::read("/proc/self/mountinfo")?))
}

/// The fifth field of each line of proc_pid_mountinfo(5).
fn parse(text: &[u8]) -> Vec<PathBuf> {
    let lines = text.split(|byte| *byte == b'\n');
    lines.filter_map(|line| Some(unescape(line.split(|byte| *byte == b' ').nth(4)?))).collect()
}

/// Blanks, tabs, line ends and backslashes are written as three octal digits.
fn unescape(field: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((byte, after)) = rest.split_first() {
        let digits = after.get(..3).and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(escaped) if *byte == b'\\' => {
                bytes.push(escaped);
                rest = after.get(3..).unwrap_or_default();
            }
            _ => {
                bytes.push(*byte);
                rest = after;
            }
        }
    }
    OsString::from_vec(bytes).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_points_are_read() {
        let text = b"22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/root rw\n\
                     30 22 0:26 / /a\\040b\\134c rw - tmpfs tmpfs rw\n\
                     31 22 0:27 / /tail\\04 rw - tmpfs tmpfs rw\n\n";
        assert_eq!(parse(text), ["/", "/a b\\c", "/tail\\04"].map(PathBuf::from));
        assert!(is_mounted(Path::new("/proc")).unwrap() && !is_mounted(Path::new("/proc/self")).unwrap());
    }
}
