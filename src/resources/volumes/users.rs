//! Which containers use volumes that are mounted: an empty file for each in the volume's directory, so
//! that it outlives the agent, and the same in memory, so that the end of a container that uses none
//! costs nothing.

use super::VolumeError;
use crate::model::ContainerId;
use std::collections::{BTreeSet, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Directory of the users in a volume's.
const DIRECTORY: &str = "users";

/// Volumes by their users.
#[derive(Debug, Default)]
pub(super) struct Users(Mutex<HashMap<String, BTreeSet<String>>>);

impl Users {
    /// Reads those of all volumes below `root`.
    pub fn read(root: &Path) -> io::Result<Self> {
        let mut found: HashMap<String, BTreeSet<String>> = HashMap::new();
        for volume in std::fs::read_dir(root)? {
            let volume = volume?;
            let Ok(name) = volume.file_name().into_string() else { continue };
            for user in names(&volume.path().join(DIRECTORY))? {
                found.entry(user).or_default().insert(name.clone());
            }
        }
        Ok(Self(Mutex::new(found)))
    }

    /// Notes a user of the volume `name`, whose directory is `home`.
    pub fn add(&self, home: &Path, name: &str, user: &ContainerId) -> Result<(), VolumeError> {
        let file = file(home, user)?;
        let directory = home.join(DIRECTORY);
        let made = std::fs::create_dir_all(&directory).and_then(|()| std::fs::File::create(&file));
        made.map_err(VolumeError::io("make", &file))?;
        self.known().entry(user.as_str().to_owned()).or_default().insert(name.to_owned());
        Ok(())
    }

    /// Whether that one, and nobody else, may use the volume: nobody does is as good.
    pub fn only(&self, home: &Path, user: &ContainerId) -> Result<bool, VolumeError> {
        let directory = home.join(DIRECTORY);
        let all = names(&directory).map_err(VolumeError::io("read", &directory))?;
        Ok(all.iter().all(|other| other == user.as_str()))
    }

    /// Takes a user back.
    pub fn remove(&self, home: &Path, name: &str, user: &ContainerId) -> Result<(), VolumeError> {
        let file = file(home, user)?;
        match std::fs::remove_file(&file) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(VolumeError::io("remove", &file)(error));
            }
            _ => {}
        }
        self.drop_where(|id, volume| id == user.as_str() && volume == name);
        Ok(())
    }

    /// The volume is no more.
    pub fn forget(&self, name: &str) {
        self.drop_where(|_, volume| volume == name);
    }

    /// Volumes that a container uses.
    pub fn volumes_of(&self, user: &ContainerId) -> BTreeSet<String> {
        self.known().get(user.as_str()).cloned().unwrap_or_default()
    }

    fn drop_where(&self, gone: impl Fn(&str, &str) -> bool) {
        self.known().retain(|id, volumes| {
            volumes.retain(|volume| !gone(id, volume));
            !volumes.is_empty()
        });
    }

    /// A panic while this was held can't have left it half-written.
    fn known(&self) -> MutexGuard<'_, HashMap<String, BTreeSet<String>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn file(home: &Path, user: &ContainerId) -> Result<PathBuf, VolumeError> {
    let path = home.join(DIRECTORY).join(user.as_str());
    let fit = !user.as_str().is_empty() && user.as_str().chars().all(|c| c.is_ascii_alphanumeric());
    let wrong = || io::Error::new(io::ErrorKind::InvalidInput, "the id of a container is no file name");
    if fit { Ok(path) } else { Err(VolumeError::io("name", &path)(wrong())) }
}

/// Names in a directory; none where it is missing.
fn names(directory: &Path) -> io::Result<Vec<String>> {
    let entries = match std::fs::read_dir(directory) {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(Vec::new());
        }
        other => other?,
    };
    let mut names = Vec::new();
    for entry in entries {
        names.extend(entry?.file_name().into_string());
    }
    Ok(names)
}
