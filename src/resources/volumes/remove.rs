//! Removing a tree that containers have written: no link in it is followed, no depth and no number of
//! entries is too much, and what was made immutable goes too.
//!
//! Every step is relative to the descriptor of a directory that was opened without following links. Of a
//! directory inside, the files are removed and the directories moved up to the top, so that three
//! descriptors and no recursion are enough for any depth.

use super::mountinfo;
use rustix::fs::{
    AtFlags, CWD, Dir, IFlags, Mode, OFlags, ioctl_getflags, ioctl_setflags, openat, renameat, unlinkat,
};
use rustix::io::Errno;
use std::ffi::CString;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Entries that are looked at in one go, so that no directory is read into memory whole.
const BATCH: usize = 4096;

/// Removes whatever is at a path, after unmounting what is mounted at it or below. A path that is not
/// there is fine; its own parent may be a link, the path itself is not followed.
///
/// # Errors
/// What the kernel refused; what was removed until then is gone.
pub(super) fn tree(path: &Path) -> io::Result<()> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "no path of a tree"));
    };
    let parent =
        match openat(CWD, parent, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()) {
            Err(Errno::NOENT) => return Ok(()),
            other => other?,
        };
    if let Ok(there) = path.parent().unwrap_or(path).canonicalize() {
        mountinfo::detach(&there.join(name))?;
    }
    let name = CString::new(name.as_bytes())?;
    if unlink(&parent, &name)? == Kind::Directory {
        let top = open(&parent, &name)?;
        empty(&top)?;
        remove_directory(&parent, &name)?;
    }
    Ok(())
}

/// What [`unlink`] found.
#[derive(Debug, PartialEq, Eq)]
enum Kind {
    /// It is gone.
    Gone,
    /// It stays.
    Directory,
}

fn empty(top: &OwnedFd) -> io::Result<()> {
    let mut lifted = 0_u64;
    loop {
        let names = some_names(top)?;
        if names.is_empty() {
            return Ok(());
        }
        for name in names {
            if unlink(top, &name)? == Kind::Directory {
                let inner = open(top, &name)?;
                lift_all(&inner, top, &mut lifted)?;
                remove_directory(top, &name)?;
            }
        }
    }
}

/// Removes the files of a directory and moves its directories up.
fn lift_all(inner: &OwnedFd, top: &OwnedFd, lifted: &mut u64) -> io::Result<()> {
    loop {
        let names = some_names(inner)?;
        if names.is_empty() {
            return Ok(());
        }
        for name in names {
            if unlink(inner, &name)? == Kind::Directory {
                lift(inner, &name, top, lifted)?;
            }
        }
    }
}

/// Moves a directory up under a name that is free there.
fn lift(inner: &OwnedFd, name: &CString, top: &OwnedFd, lifted: &mut u64) -> io::Result<()> {
    let mut cleared = false;
    loop {
        *lifted += 1;
        match renameat(inner, name, top, format!(".removed-{lifted}")) {
            Ok(()) => return Ok(()),
            Err(Errno::EXIST | Errno::NOTEMPTY | Errno::NOTDIR) => {}
            Err(Errno::PERM) if !cleared => {
                cleared = true;
                unprotect(inner, name);
                unprotect_directory(top);
            }
            Err(errno) => return Err(errno.into()),
        }
    }
}

fn unlink(directory: &OwnedFd, name: &CString) -> io::Result<Kind> {
    for first in [true, false] {
        match unlinkat(directory, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => return Ok(Kind::Gone),
            Err(Errno::ISDIR) => return Ok(Kind::Directory),
            Err(Errno::PERM) if first => unprotect(directory, name),
            Err(errno) => return Err(errno.into()),
        }
    }
    Err(Errno::PERM.into())
}

fn remove_directory(directory: &OwnedFd, name: &CString) -> io::Result<()> {
    for first in [true, false] {
        match unlinkat(directory, name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => return Ok(()),
            Err(Errno::PERM) if first => unprotect(directory, name),
            Err(errno) => return Err(errno.into()),
        }
    }
    Err(Errno::PERM.into())
}

/// Takes away what keeps an entry, or its directory, from being changed. What can't be taken away shows
/// at the next try.
fn unprotect(directory: &OwnedFd, name: &CString) {
    unprotect_directory(directory);
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    if let Ok(entry) = openat(directory, name, flags, Mode::empty()) {
        unprotect_directory(&entry);
    }
}

fn unprotect_directory(opened: &OwnedFd) {
    let protection = IFlags::IMMUTABLE | IFlags::APPEND;
    if let Ok(flags) = ioctl_getflags(opened)
        && flags.intersects(protection)
    {
        let _ = ioctl_setflags(opened, flags - protection);
    }
}

fn open(directory: &OwnedFd, name: &CString) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(openat(directory, name, flags, Mode::empty())?)
}

fn some_names(directory: &OwnedFd) -> io::Result<Vec<CString>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(directory)? {
        let name = entry?.file_name().to_owned();
        if name.to_bytes() != b"." && name.to_bytes() != b".." {
            names.push(name);
        }
        if names.len() >= BATCH {
            break;
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::os::unix::fs::symlink;
    use std::path::PathBuf;

    /// A directory of its own for one test.
    fn scratch(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("ecsd-remove-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        path.canonicalize().unwrap()
    }

    #[test]
    fn a_tree_deeper_than_any_path_goes() {
        let base = scratch("deep");
        let mut at = openat(CWD, &base, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
        let name = CString::new("d".repeat(100)).unwrap();
        for _ in 0..3000 {
            rustix::fs::mkdirat(&at, &name, Mode::RWXU).unwrap();
            at = open(&at, &name).unwrap();
        }
        tree(&base).unwrap();
        assert!(!base.exists());
    }

    #[test]
    fn names_that_are_taken_and_many_entries_are_no_matter() {
        let base = scratch("many");
        for n in 0..3 {
            std::fs::create_dir_all(base.join(format!(".removed-{n}/in/.removed-{n}"))).unwrap();
            std::fs::write(base.join(format!(".removed-{n}/in/file")), "x").unwrap();
        }
        std::fs::write(base.join(".removed-3"), "in the way").unwrap();
        std::fs::create_dir(base.join("full")).unwrap();
        for n in 0..BATCH + 10 {
            std::fs::write(base.join(format!("full/{n}")), "").unwrap();
        }
        tree(&base).unwrap();
        assert!(!base.exists());
        tree(&base).unwrap();
    }

    #[test]
    fn what_was_made_immutable_goes_where_the_file_system_knows_that() {
        let base = scratch("immutable");
        let inner = base.join("a/b");
        std::fs::create_dir_all(&inner).unwrap();
        for (name, flag) in [("file", IFlags::IMMUTABLE), ("log", IFlags::APPEND)] {
            std::fs::write(inner.join(name), "x").unwrap();
            protect(&inner.join(name), flag);
        }
        let known = [&inner, &base.join("a"), &base].into_iter().all(|path| protect(path, IFlags::IMMUTABLE));
        if known {
            assert!(std::fs::remove_dir_all(&base).is_err(), "it is protected");
        }
        tree(&base).unwrap();
        assert!(!base.exists());
    }

    /// False where the file system has no such flags.
    fn protect(path: &Path, flag: IFlags) -> bool {
        let file = std::fs::File::open(path).unwrap();
        ioctl_getflags(&file).and_then(|flags| ioctl_setflags(&file, flags | flag)).is_ok()
    }

    #[derive(Debug, Clone)]
    enum Entry {
        File,
        Directory,
        Link(&'static str),
    }

    fn entries() -> impl Strategy<Value = Vec<(Vec<u8>, Entry)>> {
        let path = prop::collection::vec(0_u8..4, 1..6);
        let entry = prop_oneof![
            Just(Entry::File),
            Just(Entry::Directory),
            Just(Entry::Link("..")),
            Just(Entry::Link("../../outside")),
            Just(Entry::Link("/")),
            Just(Entry::Link("OUTSIDE")),
        ];
        prop::collection::vec((path, entry), 0..30)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn nothing_outside_is_touched(entries in entries()) {
            let base = scratch("links");
            let (inside, outside) = (base.join("inside"), base.join("outside"));
            std::fs::create_dir_all(&inside).unwrap();
            std::fs::create_dir_all(outside.join("kept")).unwrap();
            std::fs::write(outside.join("kept/file"), "mine").unwrap();
            for (path, entry) in entries {
                let mut at = inside.clone();
                for part in path {
                    // What is no directory yet becomes one, links excepted.
                    if std::fs::symlink_metadata(&at).is_ok_and(|about| about.is_dir()) {
                        at.push(part.to_string());
                        let _ = std::fs::create_dir(&at);
                    }
                }
                let _ = std::fs::remove_dir(&at);
                let _ = match entry {
                    Entry::File => std::fs::write(&at, "x"),
                    Entry::Directory => std::fs::create_dir(&at),
                    Entry::Link("OUTSIDE") => symlink(&outside, &at),
                    Entry::Link(to) => symlink(to, &at),
                };
            }
            tree(&inside).unwrap();
            prop_assert!(std::fs::symlink_metadata(&inside).is_err());
            prop_assert_eq!(std::fs::read_to_string(outside.join("kept/file")).unwrap(), "mine");
            // A link in the tree's own place goes, not what it leads to.
            symlink(&outside, &inside).unwrap();
            tree(&inside).unwrap();
            prop_assert!(outside.join("kept/file").exists());
            std::fs::remove_dir_all(&base).unwrap();
        }
    }
}
