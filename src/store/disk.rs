//! The file: opening, locking, setting a damaged one aside, and committing to it.
//!
//! redb says of a damaged file either an error or, where a page lies convincingly, a panic; and
//! after a failed write it refuses everything until it is opened again. Both are met here and
//! nowhere else: every call into redb is caught, and a database that failed is dropped and opened
//! anew by the next call.

use super::tables::{self, TableResult};
use crate::crashpoint::{self, Moment};
use crate::ports::{Loaded, Store, StoreChange, StoreError};
use redb::backends::FileBackend;
use redb::{Builder, Database, DatabaseError, StorageError};
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Name of the file in the data directory (`ECS_DATADIR`).
pub const FILE_NAME: &str = "ecsd.redb";

/// Bytes of redb's page cache. The whole state of a busy host is a few hundred KiB.
const CACHE_BYTES: usize = 512 * 1024;

/// The state in a redb file. Calls block on fsync: give them a thread.
#[derive(Debug)]
pub struct RedbStore {
    path: PathBuf,
    /// `None` after a failure, until the next call opens it again.
    db: Mutex<Option<Database>>,
    /// The file that was here was damaged and set aside by `open`.
    replaced: bool,
}

/// Why a file could not be opened.
enum OpenFailure {
    /// It is damaged.
    Damaged(String),
    /// Something else is the matter, with the file most likely in order.
    Other(String),
}

impl RedbStore {
    /// Opens `<directory>/ecsd.redb` (0600), making both where they are missing. A damaged file is
    /// kept as `ecsd.redb.corrupt-<n>`, and what still reads of it is taken over.
    ///
    /// # Errors
    /// Where the directory can't be written, or another process has the file open.
    pub fn open(directory: &Path) -> Result<Self, StoreError> {
        let path = directory.join(FILE_NAME);
        DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(|e| {
            StoreError::new(&path, format!("can't make the data directory (ECS_DATADIR): {e}"))
        })?;
        let (db, replaced) = match open_checked(&path) {
            Ok(db) => (db, false),
            Err(OpenFailure::Other(message)) => return Err(StoreError::new(&path, message)),
            Err(OpenFailure::Damaged(why)) => (replace_damaged(&path, &why)?, true),
        };
        Ok(Self { path, db: Mutex::new(Some(db)), replaced })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Runs `work` on the open database, opening it again where an earlier call failed.
    fn with<T>(&self, work: impl FnOnce(&Database) -> TableResult<T>) -> Result<T, StoreError> {
        let mut slot: MutexGuard<'_, Option<Database>> =
            self.db.lock().unwrap_or_else(PoisonError::into_inner);
        let db = match slot.take() {
            Some(db) => db,
            None => open_checked(&self.path).map_err(|failure| {
                let (OpenFailure::Damaged(message) | OpenFailure::Other(message)) = failure;
                StoreError::new(&self.path, format!("can't be opened again: {message}"))
            })?,
        };
        match catch(|| work(&db)) {
            Ok(value) => {
                *slot = Some(db);
                Ok(value)
            }
            Err(message) => {
                // Dropping may trip over the same trouble.
                let _ = catch_unwind(AssertUnwindSafe(move || drop(db)));
                Err(StoreError::new(&self.path, message))
            }
        }
    }

    #[cfg(test)]
    pub(super) fn peek<T>(&self, work: impl FnOnce(&Database) -> T) -> T {
        self.with(|db| Ok(work(db))).unwrap()
    }
}

impl Store for RedbStore {
    fn load(&self) -> Result<Loaded, StoreError> {
        let mut loaded = self.with(|db| {
            let (loaded, bad) = tables::read(db)?;
            for one in &bad {
                tracing::error!(record = %one.place(), file = %self.path.display(), reason = %one.error,
                    "a stored record can't be used and was moved to quarantine");
            }
            if !bad.is_empty() {
                tables::quarantine(db, &bad)?;
            }
            Ok(loaded)
        })?;
        loaded.quarantined += usize::from(self.replaced);
        Ok(loaded)
    }

    fn commit(&self, changes: &[StoreChange]) -> Result<(), StoreError> {
        crashpoint::pass(Moment::Before, "commit");
        if crashpoint::disk_is_full() {
            return Err(StoreError::new(&self.path, nix::errno::Errno::ENOSPC));
        }
        let written = self.with(|db| tables::write(db, changes));
        crashpoint::pass(Moment::After, "commit");
        written
    }
}

/// Opens (or makes) the file and verifies the checksum of every page in it.
fn open_checked(path: &Path) -> Result<Database, OpenFailure> {
    let fresh = !path.exists();
    // O_NOFOLLOW: a link in place of the state is not ours to follow, or to truncate.
    let nofollow = nix::fcntl::OFlag::O_NOFOLLOW.bits();
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(nofollow)
        .open(path)
        .map_err(|e| OpenFailure::Other(format!("can't be opened: {e}")))?;
    if fresh {
        sync_directory(path);
    }
    let opened = catch_unwind(AssertUnwindSafe(|| {
        let db = Builder::new()
            .set_cache_size(CACHE_BYTES)
            .set_check_integrity_on_open(true)
            .create_with_backend(FileBackend::new(file)?)?;
        tables::prepare(&db).map_err(Box::new).map(|()| db).map_err(OpenError::Tables)
    }));
    match opened {
        Ok(Ok(db)) => Ok(db),
        Ok(Err(OpenError::Database(e))) => Err(sort_failure(e)),
        Ok(Err(OpenError::Tables(e))) => Err(match *e {
            // Also a table of other types than ours: not a file that this program wrote.
            redb::Error::Io(e) => OpenFailure::Other(e.to_string()),
            other => OpenFailure::Damaged(other.to_string()),
        }),
        Err(panic) => Err(OpenFailure::Damaged(panic_text(&*panic))),
    }
}

/// Opening has two halves.
enum OpenError {
    Database(DatabaseError),
    Tables(Box<redb::Error>),
}

impl From<DatabaseError> for OpenError {
    fn from(e: DatabaseError) -> Self {
        Self::Database(e)
    }
}

/// Damage, or another trouble? Only damage sets the file aside.
fn sort_failure(error: DatabaseError) -> OpenFailure {
    let text = error.to_string();
    match error {
        DatabaseError::DatabaseAlreadyOpen | DatabaseError::LockProtocolMismatch => OpenFailure::Other(
            "another process has it open: is a second ecsd running on this data directory? Stop it, or give \
             this one an ECS_DATADIR of its own"
                .to_owned(),
        ),
        DatabaseError::Storage(StorageError::Io(e)) => match e.kind() {
            ErrorKind::InvalidData | ErrorKind::UnexpectedEof | ErrorKind::InvalidInput => {
                OpenFailure::Damaged(text)
            }
            _ => OpenFailure::Other(text),
        },
        DatabaseError::Storage(StorageError::Corrupted(_)) | DatabaseError::UpgradeRequired(_) => {
            OpenFailure::Damaged(text)
        }
        _ => OpenFailure::Other(text),
    }
}

/// Keeps the damaged file under another name and starts a fresh one with what still reads of it. The
/// fresh one takes over the name once it is whole: whoever dies on the way finds the damaged one again.
fn replace_damaged(path: &Path, why: &str) -> Result<Database, StoreError> {
    let failed =
        |message: String| StoreError::new(path, format!("a fresh file could not be started: {message}"));
    let aside = name_aside(path);
    if !aside.exists() {
        // Not every file system gives a file two names.
        let kept = std::fs::hard_link(path, &aside).or_else(|_| std::fs::copy(path, &aside).map(drop));
        kept.map_err(|e| {
            StoreError::new(path, format!("is damaged ({why}) and can't be kept under another name: {e}"))
        })?;
    }
    let kept = salvage(&aside);
    tracing::error!(file = %path.display(), kept_as = %aside.display(), reason = why, tasks = kept.tasks.len(),
        "the state file is damaged: it was set aside and a fresh one started with the records that still read. \
         What is missing in it is found out by the containers");
    let fresh = path.with_extension("fresh");
    if let Err(e) = std::fs::remove_file(&fresh)
        && e.kind() != ErrorKind::NotFound
    {
        return Err(failed(e.to_string()));
    }
    let open = |path: &Path| {
        open_checked(path).map_err(|failure| match failure {
            OpenFailure::Damaged(message) | OpenFailure::Other(message) => failed(message),
        })
    };
    let db = open(&fresh)?;
    catch(|| tables::restore(&db, &kept)).map_err(failed)?;
    drop(db);
    std::fs::rename(&fresh, path).map_err(|e| failed(e.to_string()))?;
    sync_directory(path);
    open(path)
}

/// Every record of a damaged file that can still be vouched for.
/// Works on a copy: opening repairs, and the original is evidence.
fn salvage(damaged: &Path) -> Loaded {
    let copy = damaged.with_extension("salvage");
    let read = std::fs::copy(damaged, &copy).map_err(|e| e.to_string()).and_then(|_| {
        catch_unwind(AssertUnwindSafe(|| {
            let db = Builder::new().set_cache_size(CACHE_BYTES).open(&copy).map_err(|e| e.to_string())?;
            tables::read(&db).map_err(|e| e.to_string())
        }))
        .unwrap_or_else(|panic| Err(panic_text(&*panic)))
    });
    let _ = std::fs::remove_file(&copy);
    read.map(|(loaded, _)| loaded).unwrap_or_default()
}

/// `ecsd.redb.corrupt-<n>` with the least `n` that is free, or that this very file has already.
fn name_aside(path: &Path) -> PathBuf {
    let name = |n: u32| path.with_file_name(format!("{FILE_NAME}.corrupt-{n}"));
    let inode = |path: &Path| std::fs::symlink_metadata(path).ok().map(|file| (file.dev(), file.ino()));
    let own = inode(path);
    (1..u32::MAX)
        .map(name)
        .find(|p| inode(p).is_none_or(|other| Some(other) == own))
        .unwrap_or_else(|| name(0))
}

/// A new name is durable only with its directory. Best effort: the next commit syncs the content.
fn sync_directory(path: &Path) {
    if let Some(Ok(directory)) = path.parent().map(File::open) {
        let _ = directory.sync_all();
    }
}

/// Errors and panics of redb as text.
fn catch<T>(work: impl FnOnce() -> TableResult<T>) -> Result<T, String> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(result) => result.map_err(|e| e.to_string()),
        Err(panic) => Err(panic_text(&*panic)),
    }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("unknown");
    format!("the database gave up: {text}")
}
