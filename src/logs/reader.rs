//! Reading back what the writer wrote: all rotated files in order, and what comes after.

use crate::logs::record::LogLine;
use crate::logs::rotate::numbered;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// More rotated files than anybody keeps.
const MOST_FILES: u32 = 1000;

/// Follows one container's log from its oldest line.
#[derive(Debug)]
pub struct LogReader {
    path: PathBuf,
    /// Files still to be read before the newest, oldest last.
    older: Vec<PathBuf>,
    /// The newest, once it is reached: the file, its inode, and how far it was read.
    newest: Option<(File, u64, u64)>,
}

impl LogReader {
    /// A reader of `path` and its rotated predecessors, as they are now.
    pub fn new(path: &Path) -> Self {
        let older = (1..MOST_FILES).map(|n| numbered(path, n)).take_while(|p| p.exists()).collect();
        Self { path: path.to_owned(), older, newest: None }
    }

    /// Everything that was written since the last call. A line that is only half there waits for the
    /// next; one that is no record is left out. A file that is not there yet is empty.
    ///
    /// # Errors
    /// What the file system says.
    pub fn read(&mut self, mut line: impl FnMut(&LogLine<'_>)) -> io::Result<()> {
        while let Some(path) = self.older.pop() {
            match File::open(path) {
                Ok(file) => {
                    read_records(file, 0, &mut line)?;
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        // Rotated away under us: finish the old file, then begin the new one.
        let now = std::fs::metadata(&self.path).map(|m| m.ino()).ok();
        if let Some((file, inode, at)) = self.newest.take() {
            let at = read_records(file.try_clone()?, at, &mut line)?;
            if now.is_none_or(|now| now == inode) {
                self.newest = Some((file, inode, at));
                return Ok(());
            }
        }
        match File::open(&self.path) {
            Ok(file) => {
                let inode = file.metadata()?.ino();
                let at = read_records(file.try_clone()?, 0, &mut line)?;
                self.newest = Some((file, inode, at));
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// Reads whole lines from `at`; answers where the next read begins.
fn read_records(mut file: File, mut at: u64, line: &mut impl FnMut(&LogLine<'_>)) -> io::Result<u64> {
    file.seek(SeekFrom::Start(at))?;
    let (mut reader, mut bytes) = (BufReader::new(file), Vec::new());
    loop {
        bytes.clear();
        let count = reader.read_until(b'\n', &mut bytes)?;
        if !bytes.ends_with(b"\n") {
            return Ok(at);
        }
        at += count as u64;
        if let Ok(record) = serde_json::from_slice::<LogLine<'_>>(&bytes) {
            line(&record);
        }
    }
}
