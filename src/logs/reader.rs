//! Reads the files of a container's log back, rotated ones first, and follows what is added.
//! Used by `ecsd local logs`. Blocks.

use super::record::{LogLine, RECORD_MAX, decode};
use super::sink::older;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Every byte of a record's text may take six (`\u0000`), besides the rest of the record.
const LINE_MAX: u64 = RECORD_MAX as u64 * 6 + 4096;
/// More rotated files than anyone keeps.
const FILES_MAX: u32 = 1000;

/// All lines that are there, oldest first. Lines that are no records are left out.
///
/// # Errors
/// Where a file can't be opened. A log with no file yet is empty.
pub fn read(path: &Path) -> io::Result<impl Iterator<Item = LogLine> + use<>> {
    let mut files = Vec::new();
    for file in chain(path, FILES_MAX) {
        match File::open(&file) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            other => files.push(other?),
        }
    }
    Ok(files.into_iter().flat_map(|file| {
        let mut lines = Lines::new(file);
        std::iter::from_fn(move || lines.next_line())
    }))
}

/// Names of the log's files, from the oldest that is there on.
fn chain(path: &Path, most: u32) -> Vec<PathBuf> {
    let rotated = (1..=most).map(|n| older(path, n)).take_while(|p| p.exists());
    let mut files: Vec<PathBuf> = rotated.collect();
    files.reverse();
    files.push(path.to_owned());
    files
}

/// The whole records of one file; one that is still being written stays for later.
#[derive(Debug)]
struct Lines {
    file: BufReader<File>,
    /// Bytes of a line whose end is not there yet.
    pending: Vec<u8>,
    /// Bytes read, of this file.
    position: u64,
}

impl Lines {
    fn new(file: File) -> Self {
        Self { file: BufReader::new(file), pending: Vec::new(), position: 0 }
    }

    fn next_line(&mut self) -> Option<LogLine> {
        loop {
            let room = LINE_MAX.saturating_sub(self.pending.len() as u64);
            let count = (&mut self.file).take(room).read_until(b'\n', &mut self.pending).ok()?;
            self.position = self.position.saturating_add(count as u64);
            let whole = self.pending.ends_with(b"\n") || self.pending.len() as u64 >= LINE_MAX;
            if !whole {
                return None;
            }
            let line = decode(&self.pending);
            self.pending.clear();
            if line.is_some() {
                return line;
            }
        }
    }
}

/// Follows a log across rotations, driven by inotify.
#[derive(Debug)]
pub struct Follower {
    path: PathBuf,
    changes: Inotify,
    current: Option<Lines>,
}

impl Follower {
    /// Starts with the first line that is there. The directory must exist, the file need not.
    ///
    /// # Errors
    /// Where the directory can't be watched.
    pub fn new(path: &Path) -> io::Result<Self> {
        let changes = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
        let directory = path.parent().unwrap_or(Path::new("/"));
        changes.add_watch(
            directory,
            AddWatchFlags::IN_MODIFY | AddWatchFlags::IN_CREATE | AddWatchFlags::IN_MOVED_TO,
        )?;
        Ok(Self { path: path.to_owned(), changes, current: None })
    }

    /// The lines that were added since, waiting up to `most` for the first; empty where there were
    /// none in that time.
    ///
    /// # Errors
    /// Where a file can't be read, or the wait failed.
    pub fn next_lines(&mut self, most: Duration) -> io::Result<Vec<LogLine>> {
        let lines = self.collect()?;
        if !lines.is_empty() {
            return Ok(lines);
        }
        let most = PollTimeout::try_from(most).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(self.changes.as_fd(), PollFlags::POLLIN)], most) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(e) => return Err(e.into()),
        }
        // What changed doesn't matter, the files tell.
        match self.changes.read_events() {
            Ok(_) | Err(Errno::EAGAIN) => {}
            Err(e) => return Err(e.into()),
        }
        self.collect()
    }

    fn collect(&mut self) -> io::Result<Vec<LogLine>> {
        let mut found = Vec::new();
        loop {
            let next = self.advance()?;
            // After the look for a newer file: once there is one, this one grows no more.
            if let Some(lines) = &mut self.current {
                found.extend(std::iter::from_fn(|| lines.next_line()));
            }
            match next {
                Some(next) => self.current = Some(next),
                None => return Ok(found),
            }
        }
    }

    /// The file after the current one; `None` where the current one is the newest.
    fn advance(&self) -> io::Result<Option<Lines>> {
        let files = chain(&self.path, FILES_MAX);
        let Some(current) = &self.current else { return first_of(&files) };
        let own = current.file.get_ref().metadata()?;
        if own.len() < current.position {
            // Emptied in place: a log of one file.
            let mut file = current.file.get_ref().try_clone()?;
            file.seek(SeekFrom::Start(0))?;
            return Ok(Some(Lines::new(file)));
        }
        let at = files.iter().position(|f| f.metadata().is_ok_and(|m| m.ino() == own.ino()));
        match at {
            Some(at) => first_of(files.get(at + 1..).unwrap_or_default()),
            // Rotated away altogether: what is left is all newer.
            None => first_of(&files),
        }
    }
}

fn first_of(files: &[PathBuf]) -> io::Result<Option<Lines>> {
    for file in files {
        match File::open(file) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            other => return other.map(|f| Some(Lines::new(f))),
        }
    }
    Ok(None)
}
