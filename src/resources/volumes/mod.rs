//! The named volumes of this host: the implementation of [`crate::ports::Volumes`], and what Docker's
//! driver `local` is to the original agent (spec task-engine 4.1).
//!
//! ```text
//! <root>/<name>/volume.json     driver, options, labels (record.rs); a directory without it has none
//! <root>/<name>/_data           what containers see; where the options say so, a mount (local.rs)
//! <root>/<name>/users/<id>      containers that use a volume that is mounted (users.rs)
//! ```
//! `_data` comes last, so a volume that has it is whole; a mount is there for as long as `users` holds
//! anybody. Both outlive the agent, so every call may be made again after a crash. Only what belongs to
//! a task is ever removed, and no link is followed on the way (remove.rs). Each volume has a lock of its
//! own: a file server that hangs holds up those who use its volume, and nobody else.

mod local;
mod mountinfo;
mod name;
mod record;
mod remove;
mod task;
mod users;

use crate::model::{ContainerId, LOCAL_DRIVER, StopReason, TaskSpec, VolumeRequest};
use crate::ports::{VolumeUse, Volumes};
use futures_util::future::BoxFuture;
use record::Volume;
use std::collections::HashMap;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use users::Users;

/// The directory of a volume that containers see.
const DATA: &str = "_data";

/// How volumes are kept.
#[derive(Debug, Clone)]
pub struct VolumeOptions {
    /// Where they live; made where it is missing.
    pub root: PathBuf,
    /// A shared volume that is there must have the labels and options that the task definition names
    /// (`ECS_SHARED_VOLUME_MATCH_FULL_CONFIG`).
    pub match_full_config: bool,
}

/// Why a volume can't be had, in Docker's words where it has any.
#[derive(Debug, thiserror::Error)]
pub(super) enum VolumeError {
    /// What was asked for makes no sense.
    #[error("create {name}: {why}")]
    Refused {
        /// The volume.
        name: String,
        /// Why.
        why: String,
    },
    /// It is not there.
    #[error("get {0}: no such volume")]
    Missing(String),
    /// The kernel does not mount it.
    #[error("error while mounting volume '{path}': failed to mount local volume: {why}")]
    Mount {
        /// Its directory.
        path: PathBuf,
        /// What was tried, and the answer.
        why: String,
    },
    /// A record that can't be read.
    #[error("the record of the volume, {path}, can't be read: {why}")]
    Record {
        /// The file.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// Files and directories.
    #[error("{what} {path}: {source}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// The answer.
        #[source]
        source: io::Error,
    },
}

impl VolumeError {
    fn io(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { what, path, source }
    }
}

/// The volumes below one directory. Shared by reference; every call is concurrent.
#[derive(Debug, Clone)]
pub struct VolumeService(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// Without links, as the kernel names what is mounted in it.
    root: PathBuf,
    match_full_config: bool,
    users: Users,
    locks: Mutex<HashMap<String, Arc<Mutex<()>>>>,
}

impl VolumeService {
    /// Takes the directory, and whoever uses its volumes. Blocks.
    ///
    /// # Errors
    /// Where the directory can't be made or read.
    pub fn open(options: VolumeOptions) -> io::Result<Self> {
        directory(&options.root)?;
        let root = options.root.canonicalize()?;
        let users = Users::read(&root)?;
        let match_full_config = options.match_full_config;
        Ok(Self(Arc::new(Inner { root, match_full_config, users, locks: Mutex::default() })))
    }

    /// Runs work on a thread that may block; dropping the future does not stop it.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner) -> Result<T, StopReason> + Send + 'static,
    ) -> Result<T, StopReason> {
        let inner = self.0.clone();
        let done = tokio::task::spawn_blocking(move || work(&inner)).await;
        done.unwrap_or_else(|panic| Err(StopReason::new("UnknownError", panic.to_string())))
    }
}

impl Inner {
    fn home(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// Runs work while nobody else works on this volume.
    fn locked<T>(&self, name: &str, work: impl FnOnce() -> T) -> T {
        let lock = self.locks().entry(name.to_owned()).or_default().clone();
        let done = {
            // What a panic left half-made is what a crash leaves: the next call makes it whole.
            let _held = lock.lock().unwrap_or_else(PoisonError::into_inner);
            work()
        };
        let mut locks = self.locks();
        // The map and this call: nobody waits for it.
        if Arc::strong_count(&lock) == 2 {
            locks.remove(name);
        }
        done
    }

    fn locks(&self) -> MutexGuard<'_, HashMap<String, Arc<Mutex<()>>>> {
        self.locks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The volume of that name, where there is one.
    fn find(&self, name: &str) -> Result<Option<Volume>, VolumeError> {
        let home = self.home(name);
        match name::check(name).is_ok() && has_data(&home).map_err(VolumeError::io("read", &home))? {
            true => Volume::read(&home).map(Some),
            false => Ok(None),
        }
    }

    /// Makes a volume, or takes the one that is there, as it is.
    fn make(&self, request: &VolumeRequest) -> Result<Volume, VolumeError> {
        let refused = |why: String| VolumeError::Refused { name: request.name.clone(), why };
        if !matches!(request.driver.as_str(), "" | LOCAL_DRIVER) {
            let driver = &request.driver;
            return Err(refused(format!(
                "error looking up volume plugin {driver}: plugin \"{driver}\" not found"
            )));
        }
        name::check(&request.name).map_err(refused)?;
        if let Some(found) = self.find(&request.name)? {
            return Ok(found);
        }
        local::check(&request.options).map_err(refused)?;
        let home = self.home(&request.name);
        directory(&home).map_err(VolumeError::io("make", &home))?;
        let volume = Volume { options: request.options.clone(), labels: request.labels.clone() };
        volume.write(&home)?;
        let data = home.join(DATA);
        let made = std::fs::DirBuilder::new().recursive(true).mode(0o755).create(&data);
        made.map_err(VolumeError::io("make", &data))?;
        Ok(volume)
    }

    /// Makes a volume ready for a container; answers its directory.
    fn use_named(&self, user: &ContainerId, request: &VolumeRequest) -> Result<PathBuf, VolumeError> {
        self.locked(&request.name, || {
            let volume = self.make(request)?;
            self.mount(user, &request.name, &volume)
        })
    }

    /// Whoever mounts what another container has mounted uses the volume that it is of, if it is of one.
    fn use_path(&self, user: &ContainerId, path: &Path) -> Result<(), VolumeError> {
        let Some(name) = path.strip_prefix(&self.root).ok().and_then(|rest| rest.iter().next()) else {
            return Ok(());
        };
        let Some(name) = name.to_str() else { return Ok(()) };
        self.locked(name, || match self.find(name)? {
            Some(volume) => self.mount(user, name, &volume).map(|_| ()),
            None => Err(VolumeError::Missing(name.to_owned())),
        })
    }

    /// Mounts a volume whose options say so, where it is not yet; the user is noted first.
    fn mount(&self, user: &ContainerId, name: &str, volume: &Volume) -> Result<PathBuf, VolumeError> {
        let data = self.home(name).join(DATA);
        let Some(mount) = local::Mount::of(&volume.options) else { return Ok(data) };
        self.users.add(&self.home(name), name, user)?;
        if !mountinfo::is_mounted(&data).map_err(VolumeError::io("look for mounts at", &data))?
            && let Err(why) = mount.mount(&data)
        {
            self.let_go(user, name)?;
            return Err(VolumeError::Mount { path: data, why });
        }
        Ok(data)
    }

    /// The container uses this volume no more. The mount goes before the last user does.
    fn let_go(&self, user: &ContainerId, name: &str) -> Result<(), VolumeError> {
        let home = self.home(name);
        if self.users.only(&home, user)? {
            let data = home.join(DATA);
            mountinfo::detach(&data).map_err(VolumeError::io("unmount", &data))?;
        }
        self.users.remove(&home, name, user)
    }

    fn detach(&self, user: &ContainerId) -> Result<(), VolumeError> {
        let volumes = self.users.volumes_of(user);
        volumes.iter().try_for_each(|name| self.locked(name, || self.let_go(user, name)))
    }

    /// Removes a volume with all that is in it, mounted or not.
    fn remove(&self, name: &str) -> Result<(), VolumeError> {
        self.locked(name, || {
            let home = self.home(name);
            remove::tree(&home).map_err(VolumeError::io("remove", &home))?;
            self.users.forget(name);
            Ok(())
        })
    }
}

impl Volumes for VolumeService {
    fn provide<'a>(&'a self, spec: &'a TaskSpec) -> BoxFuture<'a, Result<(), StopReason>> {
        Box::pin(async move {
            if spec.volumes.is_empty() {
                return Ok(());
            }
            let spec = spec.clone();
            // The original tells these without the name of an error.
            let told = |words| StopReason::new("", words);
            self.blocking(move |inner| task::provide(inner, &spec).map_err(told)).await
        })
    }

    fn attach<'a>(
        &'a self,
        user: &'a ContainerId,
        uses: &'a [VolumeUse],
    ) -> BoxFuture<'a, Result<Vec<PathBuf>, StopReason>> {
        Box::pin(async move {
            if uses.is_empty() {
                return Ok(Vec::new());
            }
            let (user, uses) = (user.clone(), uses.to_vec());
            let work = move |inner: &Inner| {
                let one = |wanted: &VolumeUse| match wanted {
                    VolumeUse::Named(request) => inner.use_named(&user, request),
                    VolumeUse::At(path) => inner.use_path(&user, path).map(|()| path.clone()),
                };
                uses.iter().map(one).collect::<Result<_, _>>().map_err(told_of_container)
            };
            self.blocking(work).await
        })
    }

    fn detach<'a>(&'a self, user: &'a ContainerId) -> BoxFuture<'a, Result<(), StopReason>> {
        Box::pin(async move {
            if self.0.users.volumes_of(user).is_empty() {
                return Ok(());
            }
            let user = user.clone();
            let told = |error: VolumeError| StopReason::new("CannotUnmountVolumeError", error.to_string());
            self.blocking(move |inner| inner.detach(&user).map_err(told)).await
        })
    }

    fn remove<'a>(
        &'a self,
        spec: &'a TaskSpec,
        directory: &'a Path,
    ) -> BoxFuture<'a, Result<(), StopReason>> {
        let (names, directory) = (task::own_volumes(spec), directory.to_owned());
        let told = |error: VolumeError| StopReason::new("CannotRemoveVolumeError", error.to_string());
        Box::pin(self.blocking(move |inner| {
            names.iter().try_for_each(|name| inner.remove(name)).map_err(told)?;
            remove::tree(&directory).map_err(VolumeError::io("remove", &directory)).map_err(told)
        }))
    }
}

/// Docker mounts volumes when it starts a container, and finds everything else wrong when it creates it.
fn told_of_container(error: VolumeError) -> StopReason {
    let name = match error {
        VolumeError::Mount { .. } => "CannotStartContainerError",
        _ => "CannotCreateContainerError",
    };
    StopReason::new(name, error.to_string())
}

/// Whether a volume's directory has what containers see. That itself is not looked at: where it is mounted
/// from a server that hangs, so would the look.
fn has_data(home: &Path) -> io::Result<bool> {
    let entries = match std::fs::read_dir(home) {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(false);
        }
        other => other?,
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_name() == DATA {
            return Ok(entry.file_type()?.is_dir());
        }
    }
    Ok(false)
}

/// A directory that nobody else may list.
fn directory(path: &Path) -> io::Result<()> {
    std::fs::DirBuilder::new().recursive(true).mode(0o701).create(path)
}

#[cfg(test)]
mod tests;
