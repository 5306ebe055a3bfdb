//! The driver `json-file`: a file, rotated by size. Never fails towards the container: what can't be
//! written is dropped and counted, and the count is written as soon as anything can be.

use super::config::LoggerConfig;
use super::counters::with_suffix;
use super::driver::{Driver, Message, NotTaken};
use super::gzip::{self, compressed};
use super::record::{LogStream, encode};
use crate::model::logging::JsonFileOptions;
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::time::{Instant, SystemTime};

/// The newest file of a container's log, and those before it. No Debug: attributes may be secrets.
pub struct FileSink {
    path: PathBuf,
    options: JsonFileOptions,
    /// The chosen labels and variables, and the tag.
    attributes: BTreeMap<String, String>,
    /// `None` where it could not be opened; tried again with the next line.
    file: Option<File>,
    /// The newest rotated file is being compressed.
    compressing: Option<JoinHandle<()>>,
    /// Bytes in the newest file.
    size: u64,
    dropped: u64,
    line: Vec<u8>,
    buffer: Vec<u8>,
}

impl Driver for FileSink {
    fn write(&mut self, message: &Message<'_>) -> Result<(), NotTaken> {
        if self.dropped > 0 {
            let text = format!("[ecsd-logger: {} lines lost, the log could not be written]\n", self.dropped);
            if let Err(error) = self.append(LogStream::Stderr, SystemTime::now(), text.as_bytes()) {
                return Err(self.lost(&error));
            }
            self.dropped = 0;
        }
        let mut line = std::mem::take(&mut self.line);
        line.clear();
        line.extend_from_slice(message.line);
        line.extend_from_slice(if message.ends { b"\n" } else { b"" });
        let done = self.append(message.stream, message.time, &line);
        self.line = line;
        done.map_err(|error| self.lost(&error))
    }

    fn is_local(&self) -> bool {
        true
    }

    fn finish(&mut self, _: Instant) -> u64 {
        if let Some(compressing) = self.compressing.take() {
            let _ = compressing.join();
        }
        0
    }
}

impl FileSink {
    /// Appends to what is there. A file that can't be opened now is tried again later.
    pub fn new(config: &LoggerConfig, options: &JsonFileOptions) -> Self {
        let mut attributes = config.attributes.clone();
        if !config.tag.is_empty() {
            attributes.insert("tag".to_owned(), config.tag.clone());
        }
        let mut sink = Self {
            path: config.path.clone(),
            options: options.clone(),
            attributes,
            file: None,
            compressing: None,
            size: 0,
            dropped: 0,
            line: Vec::new(),
            buffer: Vec::new(),
        };
        let _ = sink.open();
        sink
    }

    fn lost(&mut self, error: &io::Error) -> NotTaken {
        self.dropped = self.dropped.saturating_add(1);
        NotTaken::dropped(format!("{}: {error}", self.path.display()))
    }

    fn append(&mut self, stream: LogStream, time: SystemTime, line: &[u8]) -> io::Result<()> {
        self.buffer.clear();
        encode(&mut self.buffer, stream, time, line, &self.attributes)?;
        // Docker rotates before the write that would find the file full already.
        if self.file.is_some() && self.options.max_size.is_some_and(|most| self.size >= most.max(1)) {
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
        // Of the rotation before: it is done long since, but on a very slow disk.
        if let Some(compressing) = self.compressing.take() {
            let _ = compressing.join();
        }
        self.file = None;
        if self.options.max_files == 1 {
            return OpenOptions::new().write(true).truncate(true).open(&self.path).map(drop);
        }
        for number in (1..self.options.max_files - 1).rev() {
            shift(&older(&self.path, number), &older(&self.path, number + 1))?;
        }
        let first = older(&self.path, 1);
        let _ = fs::remove_file(compressed(&first));
        fs::rename(&self.path, &first)?;
        if self.options.compress {
            // Without a thread it stays as it is.
            let thread = std::thread::Builder::new().name("compress".to_owned());
            self.compressing = thread.spawn(move || gzip::compress(&first)).ok();
        }
        Ok(())
    }
}

/// Moves a rotated file, whichever of its forms is there, in the place of one that is older.
fn shift(from: &Path, to: &Path) -> io::Result<()> {
    for (from, to, other) in
        [(from.to_owned(), to.to_owned(), compressed(to)), (compressed(from), compressed(to), to.to_owned())]
    {
        match fs::rename(from, to) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            Err(_) => {}
            // It took the place of this one.
            Ok(()) => drop(fs::remove_file(other)),
        }
    }
    Ok(())
}

/// The name of the file that was rotated `number` times.
pub fn older(path: &Path, number: u32) -> PathBuf {
    with_suffix(path, &format!(".{number}"))
}

#[cfg(test)]
mod tests {
    use super::super::record::decode;
    use super::*;

    fn read(path: &Path) -> Vec<String> {
        let text = fs::read_to_string(path).unwrap();
        text.lines().map(|line| decode(line.as_bytes()).unwrap().text).collect()
    }

    fn sink(path: &Path, options: JsonFileOptions) -> FileSink {
        FileSink::new(&LoggerConfig { path: path.to_owned(), ..LoggerConfig::nothing() }, &options)
    }

    fn message(line: &str) -> Message<'_> {
        let (line, stream, time) = (line.as_bytes(), LogStream::Stdout, SystemTime::now());
        Message { line, ends: true, stream, time, partial: None }
    }

    #[test]
    fn what_could_not_be_written_is_counted_and_told_as_soon_as_it_can_be() {
        let directory = std::env::temp_dir().join(format!("ecsd-sink-{}", std::process::id()));
        let _ = fs::remove_dir_all(&directory);
        let path = directory.join("out.log");
        let mut sink = sink(&path, JsonFileOptions::default());
        for text in ["lost", "lost too"] {
            assert!(matches!(sink.write(&message(text)), Err(NotTaken::Dropped { messages: 1, .. })));
        }
        fs::create_dir(&directory).unwrap();
        sink.write(&message("kept")).unwrap();
        assert_eq!(read(&path), ["[ecsd-logger: 2 lines lost, the log could not be written]\n", "kept\n"]);
        fs::remove_dir_all(&directory).unwrap();
    }

    #[test]
    fn a_new_logger_goes_on_where_the_file_ends() {
        let path = std::env::temp_dir().join(format!("ecsd-sink-on-{}", std::process::id()));
        for text in ["one", "two"] {
            let options = JsonFileOptions { max_size: Some(1 << 20), max_files: 2, compress: false };
            sink(&path, options).write(&message(text)).unwrap();
        }
        assert_eq!(read(&path).len(), 2);
        fs::remove_file(&path).unwrap();
    }
}
