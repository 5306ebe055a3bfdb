//! Follows growing files line by line, on one thread for all of them: log files appear late, are
//! rotated and are removed while they are read, and reading them blocks. Looks every 100 ms, because
//! none of that is an event that all file systems have.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;
use tokio::sync::mpsc;

const LOOK_EVERY: Duration = Duration::from_millis(100);
/// A longer line is passed on in pieces.
const MAX_LINE_BYTES: usize = 256 * 1024;
const READ_BYTES: usize = 64 * 1024;
const LINES_IN_FLIGHT: usize = 256;
const FILES_IN_FLIGHT: usize = 64;

/// One line of a followed file, without its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// What [`Follower::follow`] called the file.
    pub source: Arc<str>,
    /// The line.
    pub text: String,
}

/// Follows files until it is finished.
#[derive(Debug)]
pub struct Follower {
    files: Option<SyncSender<Tail>>,
    lines: mpsc::Receiver<Line>,
}

impl Follower {
    /// With no files yet.
    pub fn new() -> Self {
        let (files, new_files) = sync_channel(FILES_IN_FLIGHT);
        let (sender, lines) = mpsc::channel(LINES_IN_FLIGHT);
        std::thread::spawn(move || look(&new_files, &sender));
        Self { files: Some(files), lines }
    }

    /// Follows one more file, from its beginning; it need not exist yet.
    pub fn follow(&self, source: &str, path: PathBuf) {
        if let Some(files) = &self.files {
            let _ = files.send(Tail::new(source, path));
        }
    }

    /// The next line; `None` after [`Follower::finish`] when all is read. Cancel-safe.
    pub async fn next(&mut self) -> Option<Line> {
        self.lines.recv().await
    }

    /// What is in the files now is still passed on, and that is all.
    pub fn finish(&mut self) {
        self.files = None;
    }
}

fn look(new_files: &Receiver<Tail>, lines: &mpsc::Sender<Line>) {
    let mut tails: Vec<Tail> = Vec::new();
    loop {
        let is_last = match new_files.recv_timeout(LOOK_EVERY) {
            Ok(tail) => {
                tails.push(tail);
                false
            }
            Err(RecvTimeoutError::Timeout) => false,
            Err(RecvTimeoutError::Disconnected) => true,
        };
        for tail in &mut tails {
            if tail.pass_on(lines, is_last).is_err() {
                return;
            }
        }
        if is_last {
            return;
        }
    }
}

/// The receiver is gone.
struct Gone;

#[derive(Debug)]
struct Tail {
    source: Arc<str>,
    path: PathBuf,
    file: Option<(File, u64)>,
    rest: Vec<u8>,
}

impl Tail {
    fn new(source: &str, path: PathBuf) -> Self {
        Self { source: source.into(), path, file: None, rest: Vec::new() }
    }

    fn pass_on(&mut self, lines: &mpsc::Sender<Line>, is_last: bool) -> Result<(), Gone> {
        loop {
            if self.file.is_none() {
                self.file = File::open(&self.path).ok().and_then(|f| f.metadata().ok().map(|m| (f, m.ino())));
            }
            let Some((file, inode)) = &mut self.file else { return Ok(()) };
            // Looked up before the reading: what was written to the old file before a rotation that is
            // seen here is read first.
            let was_rotated = std::fs::metadata(&self.path).is_ok_and(|now| now.ino() != *inode);
            let mut buffer = vec![0; READ_BYTES];
            while let Ok(count @ 1..) = file.read(&mut buffer) {
                self.rest.extend_from_slice(buffer.get(..count).unwrap_or_default());
                Self::split(&self.source, &mut self.rest, lines, false)?;
            }
            if !was_rotated {
                return Self::split(&self.source, &mut self.rest, lines, is_last);
            }
            Self::split(&self.source, &mut self.rest, lines, true)?;
            self.file = None;
        }
    }

    fn split(
        source: &Arc<str>,
        rest: &mut Vec<u8>,
        lines: &mpsc::Sender<Line>,
        also_partial: bool,
    ) -> Result<(), Gone> {
        let mut start = 0;
        loop {
            let ahead = rest.get(start..).unwrap_or_default();
            let (line, taken) = match ahead.iter().position(|byte| *byte == b'\n') {
                Some(end) => (ahead.get(..end), end + 1),
                None if ahead.len() >= MAX_LINE_BYTES || (also_partial && !ahead.is_empty()) => {
                    (Some(ahead), ahead.len())
                }
                None => break,
            };
            let text = String::from_utf8_lossy(line.unwrap_or_default()).trim_end_matches('\r').to_owned();
            start += taken;
            lines.blocking_send(Line { source: Arc::clone(source), text }).map_err(|_| Gone)?;
        }
        rest.drain(..start);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[tokio::test]
    async fn a_file_that_appears_grows_and_is_rotated_is_read_in_order() {
        let dir = std::env::temp_dir().join(format!("ecsd-follow-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let path = dir.join("log");
        let mut follower = Follower::new();
        follower.follow("web", path.clone());
        let mut file = File::create(&path).unwrap();
        write!(file, "one\ntw").unwrap();
        assert_eq!(follower.next().await.unwrap().text, "one");
        write!(file, "o\nthree\n").unwrap();
        std::fs::rename(&path, dir.join("log.1")).unwrap();
        std::fs::write(&path, "four\nfive").unwrap();
        for expected in ["two", "three", "four"] {
            let line = follower.next().await.unwrap();
            assert_eq!((&*line.source, line.text.as_str()), ("web", expected));
        }
        follower.finish();
        assert_eq!(follower.next().await.unwrap().text, "five");
        assert_eq!(follower.next().await, None);
        std::fs::remove_dir_all(dir).unwrap();
    }
}
