//! A log file of bounded size: `<path>`, and older ones `<path>.1`, `<path>.2` ... (Docker's names).

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// The newest file, open for appending.
#[derive(Debug)]
pub struct RotatingFile {
    path: PathBuf,
    file: Option<File>,
    written: u64,
    max_size: Option<u64>,
    max_files: u32,
}

impl RotatingFile {
    /// Opens, or goes on with what is there. `max_size` in bytes, `None` is unlimited; `max_files`
    /// counts the newest.
    pub fn new(path: PathBuf, max_size: Option<u64>, max_files: u32) -> Self {
        Self {
            path,
            file: None,
            written: 0,
            max_size: max_size.filter(|size| *size > 0),
            max_files: max_files.max(1),
        }
    }

    /// Appends a record, whole. A file that is full is rotated before.
    ///
    /// # Errors
    /// What the file system says; the next call begins anew.
    pub fn append(&mut self, record: &[u8]) -> io::Result<()> {
        if self.max_size.is_some_and(|max| self.written > 0 && self.written + record.len() as u64 > max) {
            self.file = None;
            self.rotate()?;
        }
        let file = match &mut self.file {
            Some(file) => file,
            none => {
                let file = OpenOptions::new().create(true).append(true).open(&self.path)?;
                self.written = file.metadata()?.len();
                none.insert(file)
            }
        };
        let before = self.written;
        if let Err(error) = file.write_all(record) {
            // A record that is only half there would spoil the next one.
            let _ = file.set_len(before);
            self.file = None;
            return Err(error);
        }
        self.written += record.len() as u64;
        Ok(())
    }

    fn rotate(&mut self) -> io::Result<()> {
        self.written = 0;
        let missing_is_fine = |result: io::Result<()>| match result {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        };
        if self.max_files == 1 {
            return missing_is_fine(std::fs::remove_file(&self.path));
        }
        for n in (1..self.max_files - 1).rev() {
            missing_is_fine(std::fs::rename(numbered(&self.path, n), numbered(&self.path, n + 1)))?;
        }
        missing_is_fine(std::fs::rename(&self.path, numbered(&self.path, 1)))
    }
}

/// `<path>.<n>`
pub fn numbered(path: &Path, n: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{n}"));
    PathBuf::from(name)
}
