//! A look into an image before its container exists: the account files, and the content that a
//! new volume starts with. Called by `create.rs`, the first time that an image is used.
//!
//! The layers are mounted read-only in a mount namespace of a throw-away thread, so that nothing
//! is ever left mounted, whatever dies when; paths are resolved by the kernel inside that root
//! (openat2, RESOLVE_IN_ROOT), so that no symlink of an image leads out of it.

use crate::containerd::copyup::{self, CopyUp};
use crate::containerd::user::Accounts;
use containerd_client::types::Mount;
use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

/// The longest account file that is read.
const LONGEST_FILE: u64 = 4 * 1024 * 1024;

/// Why a look into an image failed.
#[derive(Debug, thiserror::Error)]
pub enum RootfsError {
    /// A snapshotter whose mounts are unknown here.
    #[error("can't look into a root file system of type {0:?}: use the overlayfs or native snapshotter")]
    Kind(String),
    /// The kernel refused.
    #[error("{what} {path}")]
    Kernel {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// Its answer.
        #[source]
        errno: Errno,
    },
    /// Reading or copying failed.
    #[error("{what} {path}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// The answer.
        #[source]
        source: std::io::Error,
    },
    /// An account file of absurd size.
    #[error("{path} of the image is larger than {LONGEST_FILE} bytes")]
    TooLarge {
        /// Which.
        path: &'static str,
    },
    /// No thread could be had.
    #[error("the thread that looks into the image did not come back")]
    Thread,
}

/// What was seen in an image.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ImageLook {
    /// Its account files.
    pub accounts: Accounts,
    /// Its /etc, where it is a directory.
    pub etc: Option<DirectoryAbout>,
}

/// Owner and mode of a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DirectoryAbout {
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// Mounts the layers, reads the account files and fills the volumes. `at` is an existing empty
/// directory. Answers when the thread is done; dropping the future doesn't stop it.
///
/// # Errors
/// [`RootfsError`]
pub async fn look(mounts: Vec<Mount>, at: PathBuf, copies: Vec<CopyUp>) -> Result<ImageLook, RootfsError> {
    let (answer, answered) = tokio::sync::oneshot::channel();
    let work = move || {
        // Nobody may be left to hear it.
        let _ = answer.send(look_here(&mounts, &at, &copies));
    };
    let thread = std::thread::Builder::new().name("rootfs".into()).stack_size(copyup::STACK_BYTES);
    thread.spawn(work).map_err(|_| RootfsError::Thread)?;
    answered.await.map_err(|_| RootfsError::Thread)?
}

/// The work of the thread. Its mount namespace and working directory are its own from here on.
fn look_here(mounts: &[Mount], at: &Path, copies: &[CopyUp]) -> Result<ImageLook, RootfsError> {
    let root = mount_layers(mounts, at)?;
    let accounts =
        Accounts { passwd: read_text(&root, "/etc/passwd")?, group: read_text(&root, "/etc/group")? };
    for copy in copies {
        copyup::fill(&root, copy).map_err(|source| RootfsError::Io {
            what: "fill the volume",
            path: copy.directory.clone(),
            source,
        })?;
    }
    Ok(ImageLook { accounts, etc: about_directory(&root, "/etc")? })
}

/// A directory of the image, not one that a symlink leads to.
fn about_directory(root: &OwnedFd, path: &'static str) -> Result<Option<DirectoryAbout>, RootfsError> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW;
    let failed = |errno| RootfsError::Kernel { what: "look at", path: path.into(), errno };
    let Some(directory) = open_inside(root, path, flags).map_err(failed)? else { return Ok(None) };
    let about = nix::sys::stat::fstat(&directory).map_err(failed)?;
    Ok(Some(DirectoryAbout { mode: about.st_mode & 0o7777, uid: about.st_uid, gid: about.st_gid }))
}

fn mount_layers(mounts: &[Mount], at: &Path) -> Result<OwnedFd, RootfsError> {
    let kernel = |what, path: &Path| {
        let path = path.to_owned();
        move |errno| RootfsError::Kernel { what, path, errno }
    };
    unshare(CloneFlags::CLONE_NEWNS).map_err(kernel("unshare the mounts of", Path::new("/")))?;
    let none: Option<&str> = None;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)
        .map_err(kernel("make private", Path::new("/")))?;
    let [layers] = mounts else {
        return Err(RootfsError::Kind(format!("{} mounts", mounts.len())));
    };
    match lower_directories(layers) {
        Lower::One(directory) => {
            let path = Path::new(&directory);
            mount(Some(path), at, none, MsFlags::MS_BIND, none).map_err(kernel("bind", path))?;
        }
        Lower::Many(directories) => {
            // The kernel takes one page of options: paths are given relative to where they meet.
            let base = common_parent(&directories);
            nix::unistd::chdir(&base).map_err(kernel("enter", &base))?;
            let relative: Vec<&str> = directories
                .iter()
                .map(|d| Path::new(d).strip_prefix(&base).ok().and_then(Path::to_str).unwrap_or(d))
                .collect();
            let options = format!("lowerdir={}", relative.join(":"));
            mount(Some("overlay"), at, Some("overlay"), MsFlags::MS_RDONLY, Some(options.as_str()))
                .map_err(kernel("mount the layers below", &base))?;
        }
        Lower::Unknown => return Err(RootfsError::Kind(layers.r#type.clone())),
    }
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    nix::fcntl::open(at, flags, nix::sys::stat::Mode::empty()).map_err(kernel("open", at))
}

#[derive(Debug, PartialEq, Eq)]
enum Lower {
    One(String),
    Many(Vec<String>),
    Unknown,
}

/// The directories that hold the image, without the container's own upper one: a mount of ours
/// must never share that with the container's.
fn lower_directories(layers: &Mount) -> Lower {
    match layers.r#type.as_str() {
        "bind" => Lower::One(layers.source.clone()),
        "overlay" => {
            let list = layers.options.iter().find_map(|option| option.strip_prefix("lowerdir="));
            let mut all: Vec<String> = list.unwrap_or_default().split(':').map(str::to_owned).collect();
            all.retain(|directory| !directory.is_empty());
            match all.len() {
                0 => Lower::Unknown,
                1 => Lower::One(all.remove(0)),
                _ => Lower::Many(all),
            }
        }
        _ => Lower::Unknown,
    }
}

fn common_parent(directories: &[String]) -> PathBuf {
    let mut base = directories.first().map(PathBuf::from).unwrap_or_default();
    while !directories.iter().all(|d| Path::new(d).starts_with(&base) && Path::new(d) != base) {
        if !base.pop() {
            return PathBuf::from("/");
        }
    }
    base
}

fn open_inside(root: &OwnedFd, path: &str, flags: OFlag) -> Result<Option<OwnedFd>, Errno> {
    let how = OpenHow::new()
        .flags(flags | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    match openat2(root.as_fd(), path, how) {
        Ok(fd) => Ok(Some(fd)),
        Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// A small text file of the image; empty where there is none.
fn read_text(root: &OwnedFd, path: &'static str) -> Result<String, RootfsError> {
    // Not blocking: it may be a FIFO.
    let fd = open_inside(root, path, OFlag::O_RDONLY | OFlag::O_NONBLOCK)
        .map_err(|errno| RootfsError::Kernel { what: "open in the image", path: path.into(), errno })?;
    let Some(file) = fd.map(File::from) else { return Ok(String::new()) };
    let io = |source| RootfsError::Io { what: "read from the image", path: path.into(), source };
    if !file.metadata().map_err(io)?.is_file() {
        return Ok(String::new());
    }
    let mut bytes = Vec::new();
    file.take(LONGEST_FILE + 1).read_to_end(&mut bytes).map_err(io)?;
    if bytes.len() as u64 > LONGEST_FILE {
        return Err(RootfsError::TooLarge { path });
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};

    fn overlay(lower: &str) -> Mount {
        Mount {
            r#type: "overlay".into(),
            source: "overlay".into(),
            options: vec![
                "index=off".into(),
                "workdir=/s/9/work".into(),
                "upperdir=/s/9/fs".into(),
                format!("lowerdir={lower}"),
            ],
            ..Mount::default()
        }
    }

    #[test]
    fn the_upper_directory_is_never_used() {
        assert_eq!(lower_directories(&overlay("/s/1/fs")), Lower::One("/s/1/fs".into()));
        assert_eq!(
            lower_directories(&overlay("/s/2/fs:/s/1/fs")),
            Lower::Many(vec!["/s/2/fs".into(), "/s/1/fs".into()])
        );
        assert_eq!(common_parent(&["/s/2/fs".into(), "/s/1/fs".into()]), Path::new("/s"));
        assert_eq!(lower_directories(&Mount { r#type: "erofs".into(), ..Mount::default() }), Lower::Unknown);
    }

    /// A directory of its own for one test.
    fn scratch(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("ecsd-rootfs-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        path
    }

    #[tokio::test]
    async fn layers_are_read_links_stay_inside_and_volumes_are_filled() {
        let base = scratch("look");
        for dir in ["a/etc", "b/data/sub", "b/real", "at", "volume", "full"] {
            std::fs::create_dir_all(base.join(dir)).unwrap();
        }
        std::fs::write(base.join("a/etc/passwd"), "web:x:33:33::/:/x\n").unwrap();
        std::fs::write(base.join("b/real/group"), "inside:x:5:\n").unwrap();
        // Absolute in the image: leads to the image's /real, not to the host's.
        symlink("/real/group", base.join("a/etc/group")).unwrap();
        std::fs::write(base.join("b/data/sub/file"), "x").unwrap();
        chown(base.join("b/data/sub/file"), Some(33), Some(34)).unwrap();
        std::fs::set_permissions(base.join("b/data"), std::fs::Permissions::from_mode(0o700)).unwrap();
        symlink("/etc/shadow", base.join("b/data/link")).unwrap();
        std::fs::write(base.join("full/mine"), "kept").unwrap();
        let at = |name: &str| base.join(name).to_str().unwrap().to_owned();
        let mounts = vec![overlay(&format!("{}:{}", at("a"), at("b")))];
        let copies = vec![
            CopyUp { target: "/data".into(), directory: base.join("volume") },
            CopyUp { target: "/data".into(), directory: base.join("full") },
            CopyUp { target: "/absent".into(), directory: base.join("volume") },
        ];
        let look = super::look(mounts, base.join("at"), copies).await.unwrap();
        assert_eq!(look.accounts.passwd, "web:x:33:33::/:/x\n");
        assert_eq!(look.accounts.group, "inside:x:5:\n");
        let file = base.join("volume/sub/file").metadata().unwrap();
        assert_eq!((file.uid(), file.gid()), (33, 34));
        assert_eq!(base.join("volume").metadata().unwrap().mode() & 0o777, 0o700);
        assert_eq!(std::fs::read_link(base.join("volume/link")).unwrap(), Path::new("/etc/shadow"));
        assert_eq!(std::fs::read_dir(base.join("full")).unwrap().count(), 1);
        assert_eq!(std::fs::read_dir(base.join("at")).unwrap().count(), 0, "nothing is left mounted");
        std::fs::remove_dir_all(base).unwrap();
    }
}
