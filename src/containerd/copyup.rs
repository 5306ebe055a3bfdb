//! Filling a new volume with what the image has at its path, as Docker does: content, owners, modes,
//! times, extended attributes, hard links, and special files.
//!
//! Containers may be at work in the volume already, so nothing of it is reached by a path: every step is
//! relative to the descriptor of a directory that was opened or made without following links, and what
//! was made is changed by its own descriptor. A note beside the volume says that filling it has begun: what
//! a crash left half-filled is filled to the end by whoever comes next, and two who come at once wait for
//! one another.

use rustix::fs::{
    AtFlags, CWD, Dir, FileType, FlockOperation, Mode, OFlags, ResolveFlags, Timespec, Timestamps,
    XattrFlags, chownat, fchown, fgetxattr, flistxattr, flock, fsetxattr, futimens, linkat, mkdirat, mknodat,
    openat, openat2, readlinkat, symlinkat, unlinkat, utimensat,
};
use rustix::io::Errno;
use std::collections::HashMap;
use std::ffi::{CStr, CString, OsStr};
use std::fs::{File, Metadata, Permissions};
use std::io::{self, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Of directories within directories; no image has them deeper by paths that a kernel takes.
const DEEPEST: usize = 1024;
/// What the thread that copies needs for that depth, in an unoptimised build, with room.
pub const STACK_BYTES: usize = 16 << 20;
/// The kernel's limit on the list and on the value of extended attributes.
const LARGEST_ATTRIBUTE: usize = 65_536;

/// A volume to be filled with what the image has at its path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopyUp {
    /// Path in the image.
    pub target: String,
    /// The volume's directory; filled only while it is empty.
    pub directory: PathBuf,
}

/// Fills a volume from the image whose root is given; nothing where the image has no directory there.
///
/// # Errors
/// What the kernel refused.
pub fn fill(root: &OwnedFd, copy: &CopyUp) -> io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let inside = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let source = match openat2(root, copy.target.as_str(), flags, Mode::empty(), inside) {
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(()),
        other => other?,
    };
    let volume = openat(CWD, &copy.directory, flags | OFlags::NOFOLLOW, Mode::empty())?;
    let mut note = note(&copy.directory)?;
    let unfinished = note.metadata()?.len() > 0;
    if !unfinished && Dir::read_from(&volume)?.any(|entry| entry.is_ok_and(|e| !is_dots(e.file_name()))) {
        return Ok(());
    }
    note.write_all(b"begun")?;
    note.sync_all()?;
    let mut copier = Copier { volume: &volume, links: HashMap::new(), buffer: vec![0; LARGEST_ATTRIBUTE] };
    copier.directory(&source, &volume, Path::new("."), 0)?;
    note.set_len(0)
}

/// The note beside a volume, held by nobody else until it is dropped.
fn note(directory: &Path) -> io::Result<File> {
    let (Some(parent), Some(name)) = (directory.parent(), directory.file_name()) else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "no path of a volume"));
    };
    let mut file = name.to_owned();
    file.push(".filling");
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = File::from(openat(CWD, parent.join(file), flags, Mode::RUSR | Mode::WUSR)?);
    flock(&file, FlockOperation::LockExclusive)?;
    Ok(file)
}

struct Copier<'a> {
    volume: &'a OwnedFd,
    /// First copies of files with several names, by device and inode: where they are in the volume.
    links: HashMap<(u64, u64), PathBuf>,
    buffer: Vec<u8>,
}

impl Copier<'_> {
    /// Copies what is in `from`, then what is said of the directory itself. `path` is that of `to` in the
    /// volume.
    fn directory(&mut self, from: &OwnedFd, to: &OwnedFd, path: &Path, depth: usize) -> io::Result<()> {
        if depth > DEEPEST {
            return Err(io::Error::other(format!("the image has directories more than {DEEPEST} deep here")));
        }
        for entry in Dir::read_from(from)? {
            let entry = entry?;
            if !is_dots(entry.file_name()) {
                self.entry(from, to, entry.file_name(), path, depth)?;
            }
        }
        let about = File::from(from.try_clone()?).metadata()?;
        self.attributes(from, to)?;
        fchown(to, owner(&about).0, owner(&about).1)?;
        set_mode(to, &about)?;
        Ok(futimens(to, &times(&about))?)
    }

    fn entry(
        &mut self,
        from: &OwnedFd,
        to: &OwnedFd,
        name: &CStr,
        path: &Path,
        depth: usize,
    ) -> io::Result<()> {
        let source = openat(from, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
        let about = File::from(source).metadata()?;
        let path = path.join(OsStr::from_bytes(name.to_bytes()));
        let kind = FileType::from_raw_mode(about.mode());
        if kind == FileType::Directory {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let source = openat(from, name, flags, Mode::empty())?;
            match mkdirat(to, name, Mode::RWXU) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(errno) => return Err(errno.into()),
            }
            let target = openat(to, name, flags, Mode::empty())?;
            return self.directory(&source, &target, &path, depth + 1);
        }
        if about.nlink() > 1 {
            let id = (about.dev(), about.ino());
            if let Some(first) = self.links.get(&id)
                && self.link(first, to, name).is_ok()
            {
                return Ok(());
            }
            self.links.insert(id, path);
        }
        match kind {
            FileType::RegularFile => self.file(from, to, name, &about),
            FileType::Symlink => link(from, to, name, &about),
            // What hides a lower layer's file, should it be seen here.
            FileType::CharacterDevice if about.rdev() == 0 => Ok(()),
            _ => special(to, name, kind, &about),
        }
    }

    /// Another name for a file that is in the volume already.
    fn link(&self, first: &Path, to: &OwnedFd, name: &CStr) -> io::Result<()> {
        let beneath = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let first = openat2(self.volume, first, flags, Mode::empty(), beneath)?;
        replacing(to, name, || linkat(CWD, itself(&first), to, name, AtFlags::SYMLINK_FOLLOW))
    }

    fn file(&mut self, from: &OwnedFd, to: &OwnedFd, name: &CStr, about: &Metadata) -> io::Result<()> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut source = File::from(openat(from, name, flags, Mode::empty())?);
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let made = replacing(to, name, || openat(to, name, flags, Mode::RUSR | Mode::WUSR))?;
        let mut target = File::from(made);
        io::copy(&mut source, &mut target)?;
        let (source, target) = (OwnedFd::from(source), OwnedFd::from(target));
        let (uid, gid) = owner(about);
        // A new owner takes set-id bits and capabilities away.
        fchown(&target, uid, gid)?;
        self.attributes(&source, &target)?;
        set_mode(&target, about)?;
        Ok(futimens(&target, &times(about))?)
    }

    /// Extended attributes: all but those of the overlay itself, and those that this host gives to files.
    fn attributes(&mut self, from: &OwnedFd, to: &OwnedFd) -> io::Result<()> {
        let listed = match flistxattr(from, self.buffer.as_mut_slice()) {
            Err(Errno::NOTSUP) => return Ok(()),
            other => other?,
        };
        let list = self.buffer.get(..listed).unwrap_or_default().to_vec();
        for name in list.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
            let skipped: [&[u8]; 3] = [b"trusted.overlay.", b"user.overlay.", b"security.selinux"];
            if skipped.iter().any(|prefix| name.starts_with(prefix)) {
                continue;
            }
            let name = CString::new(name)?;
            let length = fgetxattr(from, &name, self.buffer.as_mut_slice())?;
            let value = self.buffer.get(..length).unwrap_or_default();
            match fsetxattr(to, &name, value, XattrFlags::empty()) {
                // The volume's file system has none of this kind.
                Ok(()) | Err(Errno::NOTSUP) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(())
    }
}

fn link(from: &OwnedFd, to: &OwnedFd, name: &CStr, about: &Metadata) -> io::Result<()> {
    let target = readlinkat(from, name, Vec::new())?;
    replacing(to, name, || symlinkat(&target, to, name))?;
    let (uid, gid) = owner(about);
    chownat(to, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(utimensat(to, name, &times(about), AtFlags::SYMLINK_NOFOLLOW)?)
}

/// Devices, FIFOs and sockets.
fn special(to: &OwnedFd, name: &CStr, kind: FileType, about: &Metadata) -> io::Result<()> {
    replacing(to, name, || mknodat(to, name, kind, Mode::empty(), about.rdev()))?;
    let made = openat(to, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
    if FileType::from_raw_mode(File::from(made.try_clone()?).metadata()?.mode()) != kind {
        return Err(io::Error::other("what was made was replaced at once"));
    }
    let (uid, gid) = owner(about);
    chownat(CWD, itself(&made), uid, gid, AtFlags::empty())?;
    set_mode(&made, about)?;
    Ok(utimensat(CWD, itself(&made), &times(about), AtFlags::empty())?)
}

/// Makes an entry; one that is in the way, of a filling that was not finished, gives way.
fn replacing<T>(to: &OwnedFd, name: &CStr, make: impl Fn() -> rustix::io::Result<T>) -> io::Result<T> {
    match make() {
        Err(Errno::EXIST) => {
            unlinkat(to, name, AtFlags::empty())?;
            Ok(make()?)
        }
        other => Ok(other?),
    }
}

/// A path that is the opened file itself, whatever its name is by now.
fn itself(opened: &OwnedFd) -> PathBuf {
    PathBuf::from(format!("/proc/thread-self/fd/{}", opened.as_raw_fd()))
}

fn set_mode(opened: &OwnedFd, about: &Metadata) -> io::Result<()> {
    std::fs::set_permissions(itself(opened), Permissions::from_mode(about.mode() & 0o7777))
}

fn owner(about: &Metadata) -> (Option<rustix::fs::Uid>, Option<rustix::fs::Gid>) {
    (Some(rustix::fs::Uid::from_raw(about.uid())), Some(rustix::fs::Gid::from_raw(about.gid())))
}

fn times(about: &Metadata) -> Timestamps {
    Timestamps {
        last_access: Timespec { tv_sec: about.atime(), tv_nsec: about.atime_nsec() },
        last_modification: Timespec { tv_sec: about.mtime(), tv_nsec: about.mtime_nsec() },
    }
}

fn is_dots(name: &CStr) -> bool {
    matches!(name.to_bytes(), b"." | b"..")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{chown, symlink};

    /// An image's directory and a volume, which go at the end.
    struct Bench(PathBuf);

    impl Bench {
        fn new(name: &str) -> Self {
            let base = std::env::temp_dir().join(format!("ecsd-copyup-{name}-{}", std::process::id()));
            std::fs::create_dir_all(base.join("image/data")).unwrap();
            std::fs::create_dir_all(base.join("volume")).unwrap();
            Self(base)
        }

        fn at(&self, path: &str) -> PathBuf {
            self.0.join(path)
        }

        fn fill(&self) -> io::Result<()> {
            let root =
                openat(CWD, self.at("image"), OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).unwrap();
            fill(&root, &CopyUp { target: "/data".into(), directory: self.at("volume") })
        }
    }

    impl Drop for Bench {
        fn drop(&mut self) {
            std::fs::remove_dir_all(&self.0).unwrap();
        }
    }

    #[test]
    fn all_that_is_said_of_files_is_taken_over() {
        let bench = Bench::new("all");
        let data = bench.at("image/data");
        std::fs::create_dir(data.join("sub")).unwrap();
        std::fs::write(data.join("sub/program"), "x").unwrap();
        chown(data.join("sub/program"), Some(33), Some(34)).unwrap();
        std::fs::set_permissions(data.join("sub/program"), Permissions::from_mode(0o4751)).unwrap();
        let file = File::open(data.join("sub/program")).unwrap();
        let attribute = fsetxattr(&file, "user.note", b"kept", XattrFlags::empty());
        std::fs::hard_link(data.join("sub/program"), data.join("again")).unwrap();
        symlink("/etc/shadow", data.join("link")).unwrap();
        std::os::unix::fs::lchown(data.join("link"), Some(7), Some(8)).unwrap();
        let dir = openat(CWD, &data, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
        mknodat(&dir, "fifo", FileType::Fifo, Mode::RUSR, 0).unwrap();
        std::fs::set_permissions(data.join("fifo"), Permissions::from_mode(0o402)).unwrap();
        mknodat(&dir, "null", FileType::CharacterDevice, Mode::RUSR, rustix::fs::makedev(1, 3)).unwrap();
        let old = Timespec { tv_sec: 1_000_000_000, tv_nsec: 5 };
        let old = Timestamps { last_access: old, last_modification: old };
        futimens(&file, &old).unwrap();
        std::fs::set_permissions(&data, Permissions::from_mode(0o1733)).unwrap();
        chown(&data, Some(101), Some(102)).unwrap();
        futimens(&dir, &old).unwrap();
        bench.fill().unwrap();

        let about = |name: &str| bench.at("volume").join(name).symlink_metadata().unwrap();
        let program = about("sub/program");
        assert_eq!((program.uid(), program.gid(), program.mode() & 0o7777), (33, 34, 0o4751));
        assert_eq!((program.mtime(), program.mtime_nsec()), (1_000_000_000, 5));
        assert_eq!((program.ino(), program.nlink()), (about("again").ino(), 2), "hard links stay one file");
        let link = about("link");
        assert_eq!((link.uid(), link.gid(), link.is_symlink()), (7, 8, true));
        assert_eq!(FileType::from_raw_mode(about("fifo").mode()), FileType::Fifo);
        assert_eq!(about("fifo").mode() & 0o7777, 0o402);
        assert_eq!(about("null").rdev(), rustix::fs::makedev(1, 3));
        let top = about(".");
        assert_eq!((top.uid(), top.gid(), top.mode() & 0o7777), (101, 102, 0o1733));
        assert_eq!(top.mtime(), 1_000_000_000);
        if attribute.is_ok() {
            let mut value = [0; 8];
            let copy = File::open(bench.at("volume/sub/program")).unwrap();
            let length = fgetxattr(&copy, "user.note", &mut value[..]).unwrap();
            assert_eq!(value[..length], *b"kept");
        }
    }

    #[test]
    fn what_has_content_is_left_alone_and_what_was_begun_is_finished() {
        let bench = Bench::new("begun");
        std::fs::write(bench.at("image/data/seed"), "from the image").unwrap();
        std::fs::create_dir(bench.at("image/data/sub")).unwrap();
        std::fs::write(bench.at("volume/mine"), "kept").unwrap();
        bench.fill().unwrap();
        assert!(!bench.at("volume/seed").exists());
        // An agent that died half-way.
        std::fs::write(bench.at("volume.filling"), "begun").unwrap();
        std::fs::write(bench.at("volume/seed"), "from").unwrap();
        std::fs::create_dir(bench.at("volume/sub")).unwrap();
        bench.fill().unwrap();
        assert_eq!(std::fs::read_to_string(bench.at("volume/seed")).unwrap(), "from the image");
        assert_eq!(std::fs::read_to_string(bench.at("volume/mine")).unwrap(), "kept");
        std::fs::remove_file(bench.at("volume/seed")).unwrap();
        bench.fill().unwrap();
        assert!(!bench.at("volume/seed").exists(), "it is filled once");
    }

    #[test]
    fn who_comes_at_the_same_time_finds_it_whole() {
        let bench = Bench::new("together");
        for n in 0..50 {
            std::fs::write(bench.at(&format!("image/data/{n}")), vec![b'x'; 10_000]).unwrap();
        }
        let whole = || {
            bench.fill().unwrap();
            (0..50)
                .all(|n| bench.at(&format!("volume/{n}")).metadata().is_ok_and(|about| about.len() == 10_000))
        };
        std::thread::scope(|threads| {
            let fillers: Vec<_> = (0..8).map(|_| threads.spawn(whole)).collect();
            assert!(fillers.into_iter().all(|filler| filler.join().unwrap()));
        });
    }

    #[test]
    fn a_link_in_the_volume_leads_nowhere() {
        let bench = Bench::new("links");
        std::fs::create_dir_all(bench.at("image/data/sub")).unwrap();
        std::fs::write(bench.at("image/data/sub/file"), "x").unwrap();
        std::fs::write(bench.at("image/data/plain"), "x").unwrap();
        std::fs::create_dir(bench.at("outside")).unwrap();
        // As if a container had been quicker.
        std::fs::write(bench.at("volume.filling"), "begun").unwrap();
        symlink(bench.at("outside"), bench.at("volume/sub")).unwrap();
        symlink(bench.at("outside/plain"), bench.at("volume/plain")).unwrap();
        assert!(bench.fill().is_err(), "a link is no directory to copy to");
        assert_eq!(std::fs::read_dir(bench.at("outside")).unwrap().count(), 0);
    }

    #[test]
    fn links_of_the_image_stay_in_it() {
        let bench = Bench::new("inside");
        std::fs::remove_dir(bench.at("image/data")).unwrap();
        std::fs::create_dir(bench.at("image/real")).unwrap();
        std::fs::write(bench.at("image/real/seed"), "x").unwrap();
        symlink("/../../real", bench.at("image/data")).unwrap();
        bench.fill().unwrap();
        assert!(bench.at("volume/seed").exists());
    }
}
