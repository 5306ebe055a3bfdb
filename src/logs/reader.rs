//! Follows logs from the first line that is there, across rotations, driven by inotify. Used by
//! `ecsd local`, on a thread of its own: it blocks.

use super::gzip::{self, compressed};
use super::record::RECORD_MAX;
use super::sink::older;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use std::fs::File;
use std::io::{self, BufRead, BufReader, PipeReader, PipeWriter, Read, Seek, SeekFrom, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// Every byte of a record's text may take six (`\u0000`), besides the rest of the record. A longer line
/// is passed on in pieces.
const LINE_MAX: u64 = RECORD_MAX as u64 * 6 + 4096;
/// More rotated files than anyone keeps.
const ROTATED_MAX: u32 = 1000;

/// One line of a followed log, without its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// What [`Files::add`] called the log.
    pub source: Arc<str>,
    /// The line. Bytes that are no text are replaced.
    pub text: String,
}

/// Where logs are added while they are followed. Once it is dropped, what is in the files by then is
/// still passed on, and that is all.
#[derive(Debug)]
pub struct Files {
    added: Arc<Mutex<Vec<Tail>>>,
    wake: PipeWriter,
}

impl Files {
    /// Adds one file and what comes to be in its place. Neither it nor its directory need be there yet.
    pub fn add(&mut self, source: &str, path: PathBuf) {
        self.push(Tail::new(source, path, 0));
    }

    /// Adds a container's log with its rotated files, `<path>.1` the newest of them.
    pub fn add_rotated(&mut self, source: &str, path: PathBuf) {
        self.push(Tail::new(source, path, ROTATED_MAX));
    }

    fn push(&mut self, tail: Tail) {
        self.added.lock().unwrap_or_else(PoisonError::into_inner).push(tail);
        // Fails when nobody follows any more: then there is nobody to wake.
        let _ = self.wake.write(&[0]);
    }
}

/// Follows what is in [`Files`].
#[derive(Debug)]
pub struct Follower {
    changes: Inotify,
    added: Arc<Mutex<Vec<Tail>>>,
    woken: PipeReader,
}

/// A follower, and what it follows: no log yet.
///
/// # Errors
/// Where the kernel gives no more inotify instances or files.
pub fn follower() -> io::Result<(Files, Follower)> {
    let changes = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
    let (woken, wake) = io::pipe()?;
    let added = Arc::default();
    Ok((Files { added: Arc::clone(&added), wake }, Follower { changes, added, woken }))
}

impl Follower {
    /// Passes lines on, those of one log in their order, until [`Files`] is dropped or `take` answers
    /// that it takes no more. A log that can't be read says so in its last line.
    ///
    /// # Errors
    /// Where waiting fails.
    pub fn run(mut self, mut take: impl FnMut(Line) -> bool) -> io::Result<()> {
        let mut tails = Vec::new();
        loop {
            let is_last = self.wait()?;
            tails.append(&mut self.added.lock().unwrap_or_else(PoisonError::into_inner));
            let mut wanted = true;
            tails.retain_mut(|tail| {
                let mut pass = |source: &Arc<str>, line: &[u8]| {
                    let text = String::from_utf8_lossy(line).trim_end_matches(['\n', '\r']).to_owned();
                    wanted = wanted && take(Line { source: Arc::clone(source), text });
                };
                let read = tail.pass_on(&self.changes, is_last, &mut pass);
                if let Err(error) = &read {
                    pass(
                        &tail.source,
                        format!("({} can't be read: {error})", tail.path.display()).as_bytes(),
                    );
                }
                read.is_ok()
            });
            if is_last || !wanted {
                return Ok(());
            }
        }
    }

    /// Waits until there is something to look at; answers whether it is for the last time.
    fn wait(&mut self) -> io::Result<bool> {
        let mut fds =
            [&self.changes.as_fd(), &self.woken.as_fd()].map(|fd| PollFd::new(*fd, PollFlags::POLLIN));
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        let [_, woken] = fds.map(|fd| fd.revents().unwrap_or(PollFlags::empty()));
        // What changed doesn't matter, the files tell.
        match self.changes.read_events() {
            Ok(_) | Err(Errno::EAGAIN) => {}
            Err(error) => return Err(error.into()),
        }
        if woken.contains(PollFlags::POLLIN) {
            let _ = self.woken.read(&mut [0; 64])?;
        }
        Ok(woken.contains(PollFlags::POLLHUP))
    }
}

/// Watches a directory, or the nearest one above it that is there, where its making is an event.
/// Answers whether it is the directory itself.
fn watch(changes: &Inotify, directory: &Path) -> io::Result<bool> {
    let flags = AddWatchFlags::IN_MODIFY | AddWatchFlags::IN_CREATE | AddWatchFlags::IN_MOVED_TO;
    let mut below: Option<&Path> = None;
    let mut at = directory;
    loop {
        match changes.add_watch(at, flags) {
            Ok(_) if at == directory => return Ok(true),
            Ok(_) => match below.take() {
                // Made before the watch on what is above it.
                Some(made) if made.exists() => at = directory,
                _ => return Ok(false),
            },
            Err(Errno::ENOENT) => (below, at) = (Some(at), at.parent().ok_or(Errno::ENOENT)?),
            Err(error) => return Err(error.into()),
        }
    }
}

/// One log, as far as it was read.
#[derive(Debug)]
struct Tail {
    source: Arc<str>,
    path: PathBuf,
    /// How many rotated files are a part of it.
    rotated_max: u32,
    is_watched: bool,
    current: Option<Lines>,
}

impl Tail {
    fn new(source: &str, path: PathBuf, rotated_max: u32) -> Self {
        Self { source: source.into(), path, rotated_max, is_watched: false, current: None }
    }

    /// Passes on what was added, after its directory is watched: nothing is added unseen.
    fn pass_on(
        &mut self,
        changes: &Inotify,
        is_last: bool,
        pass: &mut impl FnMut(&Arc<str>, &[u8]),
    ) -> io::Result<()> {
        if !self.is_watched {
            self.is_watched = watch(changes, self.path.parent().unwrap_or(Path::new("/")))?;
        }
        loop {
            let next = self.advance()?;
            // After the look for a newer file: once there is one, this one grows no more.
            if let Some(lines) = &mut self.current {
                lines.pass_on(is_last || next.is_some(), |line| pass(&self.source, line))?;
            }
            match next {
                Some(next) => self.current = Some(next),
                None => return Ok(()),
            }
        }
    }

    /// The file after the current one; `None` where the current one is the newest.
    fn advance(&self) -> io::Result<Option<Lines>> {
        let files = self.files();
        let Some(current) = &self.current else { return first_of(&files) };
        if let Some(plain) = &current.plain
            && plain.metadata()?.len() < current.position
        {
            // Emptied in place: a log of one file.
            let mut file = plain.try_clone()?;
            file.seek(SeekFrom::Start(0))?;
            return Lines::new(file).map(Some);
        }
        // A file that is open keeps its inode to itself; one that was compressed left it in its head.
        let is_it = |file: &PathBuf| file.metadata().is_ok_and(|metadata| metadata.ino() == current.inode);
        let was_it = |file: &PathBuf| gzip::former_inode(file) == Some(current.inode);
        let at = files.iter().position(is_it).or_else(|| files.iter().rposition(was_it));
        match at {
            Some(at) => first_of(files.get(at + 1..).unwrap_or_default()),
            // Rotated away altogether: what is left is all newer.
            None => first_of(&files),
        }
    }

    /// Names of the log's files, from the oldest that is there on.
    fn files(&self) -> Vec<PathBuf> {
        let there = |path: PathBuf| {
            let mut forms = [compressed(&path), path].into_iter();
            forms.find(|path| path.exists())
        };
        let rotated = (1..=self.rotated_max).map_while(|n| there(older(&self.path, n)));
        let mut files: Vec<PathBuf> = rotated.collect();
        files.reverse();
        files.push(self.path.clone());
        files
    }
}

fn first_of(files: &[PathBuf]) -> io::Result<Option<Lines>> {
    for file in files {
        // It may have been compressed just now.
        match File::open(file).or_else(|error| File::open(compressed(file)).map_err(|_| error)) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            other => return other.and_then(Lines::new).map(Some),
        }
    }
    Ok(None)
}

/// The lines of one file; one that is still being written stays for later.
struct Lines {
    text: Box<dyn BufRead + Send>,
    /// The file, where it is not compressed.
    plain: Option<File>,
    inode: u64,
    /// Bytes of a line whose end is not there yet.
    pending: Vec<u8>,
    /// Bytes read, of this file.
    position: u64,
}

impl std::fmt::Debug for Lines {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lines").field("position", &self.position).finish_non_exhaustive()
    }
}

impl Lines {
    fn new(file: File) -> io::Result<Self> {
        let inode = file.metadata()?.ino();
        let (text, plain): (Box<dyn BufRead + Send>, _) = match gzip::open(file.try_clone()?)? {
            Some(decoder) => (Box::new(BufReader::new(decoder)), None),
            None => (Box::new(BufReader::new(file.try_clone()?)), Some(file)),
        };
        Ok(Self { text, plain, inode, pending: Vec::new(), position: 0 })
    }

    fn pass_on(&mut self, also_partial: bool, mut pass: impl FnMut(&[u8])) -> io::Result<()> {
        loop {
            let room = LINE_MAX.saturating_sub(self.pending.len() as u64);
            let count = (&mut self.text).take(room).read_until(b'\n', &mut self.pending)?;
            self.position = self.position.saturating_add(count as u64);
            let is_whole = self.pending.ends_with(b"\n") || self.pending.len() as u64 >= LINE_MAX;
            if is_whole || (also_partial && !self.pending.is_empty()) {
                pass(&self.pending);
                self.pending.clear();
            }
            if !is_whole {
                return Ok(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn a_file_that_appears_grows_and_is_rotated_is_read_in_order() {
        let root = std::env::temp_dir().join(format!("ecsd-follow-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&root);
        std::fs::create_dir_all(&root).unwrap();
        let (mut files, follower) = follower().unwrap();
        let (sender, lines) = mpsc::sync_channel(1);
        let thread = std::thread::spawn(move || follower.run(|line| sender.send(line).is_ok()));
        let path = root.join("task/web/log");
        files.add("web", path.clone());
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let mut file = File::create(&path).unwrap();
        write!(file, "one\ntw").unwrap();
        assert_eq!(lines.recv().unwrap().text, "one");
        write!(file, "o\r\nthree\n").unwrap();
        std::fs::rename(&path, root.join("task/web/log.1")).unwrap();
        std::fs::write(&path, "four\nfive").unwrap();
        for expected in ["two", "three", "four"] {
            let line = lines.recv().unwrap();
            assert_eq!((&*line.source, line.text.as_str()), ("web", expected));
        }
        drop(files);
        assert_eq!(lines.recv().unwrap().text, "five");
        assert!(lines.recv().is_err());
        thread.join().unwrap().unwrap();
        std::fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn rotated_files_come_first_and_what_can_not_be_read_is_told() {
        let root = std::env::temp_dir().join(format!("ecsd-follow-old-{}", std::process::id()));
        std::fs::create_dir_all(root.join("dir")).unwrap();
        let path = root.join("log");
        for (file, text) in [(older(&path, 2), "a\n"), (older(&path, 1), "b\n"), (path.clone(), "c\n")] {
            std::fs::write(file, text).unwrap();
        }
        let (mut files, follower) = follower().unwrap();
        files.add_rotated("web", path);
        files.add("dir", root.join("dir"));
        drop(files);
        let mut texts = Vec::new();
        follower
            .run(|line| {
                texts.push(line.text);
                true
            })
            .unwrap();
        assert_eq!(texts[..3], ["a", "b", "c"]);
        assert!(texts[3].contains("can't be read") && texts.len() == 4, "{texts:?}");
        std::fs::remove_dir_all(root).unwrap();
    }
}
