//! Where records go: a file, rotated by size. Never fails towards the container: what can't be
//! written is dropped and counted, and the count is written as soon as anything can be.

use super::record::{LogStream, encode};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// The newest file of a container's log, and those before it.
#[derive(Debug)]
pub struct FileSink {
    path: PathBuf,
    max_size: Option<u64>,
    max_files: u32,
    /// `None` where it could not be opened; tried again with the next line.
    file: Option<File>,
    /// Bytes in the newest file.
    size: u64,
    dropped: u64,
    buffer: Vec<u8>,
}

impl FileSink {
    /// Appends to what is there. A file that can't be opened now is tried again later.
    pub fn new(path: PathBuf, max_size: Option<u64>, max_files: u32) -> Self {
        let max_files = max_files.max(1);
        let mut sink =
            Self { path, max_size, max_files, file: None, size: 0, dropped: 0, buffer: Vec::new() };
        let _ = sink.open();
        sink
    }

    /// Writes one line (with its newline), or a part of one (without).
    pub fn write(&mut self, stream: LogStream, line: &[u8]) {
        if self.dropped > 0 {
            let text = format!("[ecsd-logger: {} lines lost, the log could not be written]\n", self.dropped);
            if self.append(LogStream::Stderr, text.as_bytes()).is_err() {
                self.dropped = self.dropped.saturating_add(1);
                return;
            }
            self.dropped = 0;
        }
        if self.append(stream, line).is_err() {
            self.dropped = self.dropped.saturating_add(1);
        }
    }

    fn append(&mut self, stream: LogStream, line: &[u8]) -> io::Result<()> {
        self.buffer.clear();
        encode(&mut self.buffer, stream, SystemTime::now(), line)?;
        // Docker rotates before the write that would find the file full already.
        if self.file.is_some() && self.max_size.is_some_and(|most| self.size >= most.max(1)) {
            self.rotate()?;
        }
        if self.file.is_none() {
            self.open()?;
        }
        let Some(file) = &mut self.file else { return Err(io::ErrorKind::NotFound.into()) };
        match file.write_all(&self.buffer) {
            Ok(()) => {
                self.size = self.size.saturating_add(self.buffer.len() as u64);
                Ok(())
            }
            Err(error) => {
                // Half a record (a full disk) would spoil the next one.
                let _ = file.set_len(self.size);
                Err(error)
            }
        }
    }

    fn open(&mut self) -> io::Result<()> {
        let file = OpenOptions::new().append(true).create(true).open(&self.path)?;
        self.size = file.metadata()?.len();
        self.file = Some(file);
        Ok(())
    }

    /// Each file becomes the one before it; the oldest is no more.
    fn rotate(&mut self) -> io::Result<()> {
        self.file = None;
        if self.max_files == 1 {
            return OpenOptions::new().write(true).truncate(true).open(&self.path).map(drop);
        }
        for number in (1..self.max_files - 1).rev() {
            match fs::rename(older(&self.path, number), older(&self.path, number + 1)) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                _ => {}
            }
        }
        fs::rename(&self.path, older(&self.path, 1))
    }
}

/// The name of the file that was rotated `number` times.
pub fn older(path: &Path, number: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}"));
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    use super::super::record::decode;
    use super::*;

    fn read(path: &Path) -> Vec<String> {
        let text = fs::read_to_string(path).unwrap();
        text.lines().map(|line| decode(line.as_bytes()).unwrap().text).collect()
    }

    #[test]
    fn what_could_not_be_written_is_counted_and_told_as_soon_as_it_can_be() {
        let directory = std::env::temp_dir().join(format!("ecsd-sink-{}", std::process::id()));
        let _ = fs::remove_dir_all(&directory);
        let path = directory.join("out.log");
        let mut sink = FileSink::new(path.clone(), None, 1);
        sink.write(LogStream::Stdout, b"lost\n");
        sink.write(LogStream::Stderr, b"lost too\n");
        fs::create_dir(&directory).unwrap();
        sink.write(LogStream::Stdout, b"kept\n");
        assert_eq!(read(&path), ["[ecsd-logger: 2 lines lost, the log could not be written]\n", "kept\n"]);
        fs::remove_dir_all(&directory).unwrap();
    }

    #[test]
    fn a_new_logger_goes_on_where_the_file_ends() {
        let path = std::env::temp_dir().join(format!("ecsd-sink-on-{}", std::process::id()));
        for text in ["one\n", "two\n"] {
            FileSink::new(path.clone(), Some(1 << 20), 2).write(LogStream::Stdout, text.as_bytes());
        }
        assert_eq!(read(&path).len(), 2);
        fs::remove_file(&path).unwrap();
    }
}
