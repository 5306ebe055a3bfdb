//! A log file that is turned over by size or by the hour, the newest so many kept
//! (spec/local-endpoints-config.md 4). Only the writer's thread has one.
//!
//! By size: `log` becomes `log.1`, then `log.2`...: the highest is the newest. By the hour: `log`
//! becomes `log.2006-01-02-15`, the local hour that it is of. A file that somebody moved or removed,
//! with its directory even, is made anew.

use super::Rollover;
use super::localtime::LocalTime;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// When to turn over, and how many to keep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rolling {
    /// What decides.
    pub when: Rollover,
    /// Size in bytes from which on the next line begins a new file.
    pub max_bytes: u64,
    /// How many that were turned over are kept; 0 keeps all.
    pub keep: u32,
}

/// The file.
pub(super) struct RollingFile {
    path: PathBuf,
    rolling: Rolling,
    zone: LocalTime,
    clock: Box<dyn Fn() -> SystemTime + Send>,
    open: Option<Open>,
}

struct Open {
    file: File,
    /// Device and number, by which it is told from what has its name by now.
    inode: (u64, u64),
    bytes: u64,
    hour: String,
    /// The last line is not whole: the disk was full.
    torn: bool,
}

impl RollingFile {
    /// By the host's clock. Nothing is opened yet.
    pub(super) fn new(path: &Path, rolling: Rolling) -> Self {
        Self::by_clock(path, rolling, LocalTime::of_host(), Box::new(SystemTime::now))
    }

    /// By any clock.
    pub(super) fn by_clock(
        path: &Path,
        rolling: Rolling,
        zone: LocalTime,
        clock: Box<dyn Fn() -> SystemTime + Send>,
    ) -> Self {
        Self { path: path.to_owned(), rolling, zone, clock, open: None }
    }

    /// Never turned over.
    #[cfg(test)]
    pub(super) fn plain(path: &Path) -> Self {
        Self::new(path, Rolling { when: Rollover::None, max_bytes: 0, keep: 0 })
    }

    /// Opens the file, where it is not open or no longer what its name stands for.
    pub(super) fn open(&mut self) -> io::Result<()> {
        self.opened().map(|_| ())
    }

    /// Appends a line.
    pub(super) fn write(&mut self, line: &str) -> io::Result<()> {
        let (when, max) = (self.rolling.when, self.rolling.max_bytes);
        let now = if when == Rollover::Hourly { self.zone.hour((self.clock)()) } else { String::new() };
        let open = self.opened()?;
        let over = match when {
            Rollover::Size => open.bytes >= max,
            Rollover::Hourly => open.hour != now,
            Rollover::None => false,
        };
        if over && open.bytes > 0 {
            self.turn_over(&now);
        }
        let open = self.opened()?;
        let written = match open.torn {
            true => open.file.write_all(b"\n").and_then(|()| open.file.write_all(line.as_bytes())),
            false => open.file.write_all(line.as_bytes()),
        };
        match written {
            Ok(()) => {
                open.bytes += line.len() as u64 + u64::from(open.torn);
                open.torn = false;
                Ok(())
            }
            Err(error) => {
                let bytes = open.file.metadata().map_or(open.bytes, |about| about.len());
                open.torn |= bytes > open.bytes;
                open.bytes = bytes;
                Err(error)
            }
        }
    }

    fn opened(&mut self) -> io::Result<&mut Open> {
        let there = fs::metadata(&self.path).ok().map(|about| (about.dev(), about.ino()));
        if self.open.as_ref().is_some_and(|open| Some(open.inode) != there) {
            self.open = None;
        }
        let open = match self.open.take() {
            Some(open) => open,
            None => self.open_anew()?,
        };
        Ok(self.open.insert(open))
    }

    fn open_anew(&self) -> io::Result<Open> {
        let options = || OpenOptions::new().create(true).append(true).open(&self.path);
        let file = match options() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.path.parent().map_or(Ok(()), fs::create_dir_all)?;
                options()?
            }
            opened => opened?,
        };
        let about = file.metadata()?;
        // What an earlier life wrote belongs to the hour of its last line.
        let written = if about.len() > 0 { about.modified()? } else { (self.clock)() };
        let hour = self.zone.hour(written);
        Ok(Open { file, inode: (about.dev(), about.ino()), bytes: about.len(), hour, torn: false })
    }

    /// Renames the file and removes the oldest. Where that can't be done the log goes on in the same
    /// file, until the next occasion.
    fn turn_over(&mut self, now: &str) {
        let Some(open) = self.open.as_mut() else { return };
        let hour = std::mem::replace(&mut open.hour, now.to_owned());
        open.bytes = 0;
        let mut history = self.history();
        let suffix = match self.rolling.when {
            Rollover::Hourly => self.free_suffix(&hour),
            _ => {
                let newest = history.last().and_then(|(order, _)| order.parse::<u64>().ok()).unwrap_or(0);
                newest.saturating_add(1).to_string()
            }
        };
        let rolled = self.with_suffix(&suffix);
        if fs::rename(&self.path, &rolled).is_err() {
            return;
        }
        self.open = None;
        history.push((String::new(), rolled));
        let keep = self.rolling.keep as usize;
        let over = if keep == 0 { 0 } else { history.len().saturating_sub(keep) };
        for (_, path) in history.drain(..over) {
            // One that can't be removed now is tried again next time.
            let _ = fs::remove_file(path);
        }
    }

    fn with_suffix(&self, suffix: &str) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push(".");
        name.push(suffix);
        name.into()
    }

    /// The hour, or the hour with a number: a clock that went back must not cost a file.
    fn free_suffix(&self, hour: &str) -> String {
        let numbered = (1..1000).map(|n| format!("{hour}.{n:03}"));
        std::iter::once(hour.to_owned())
            .chain(numbered)
            .find(|suffix| !self.with_suffix(suffix).exists())
            .unwrap_or_else(|| hour.to_owned())
    }

    /// Files that were turned over in this way, oldest first, by what orders them.
    fn history(&self) -> Vec<(String, PathBuf)> {
        let Some((dir, name)) = self.path.parent().zip(self.path.file_name().and_then(|n| n.to_str())) else {
            return Vec::new();
        };
        let prefix = format!("{name}.");
        let hourly = self.rolling.when == Rollover::Hourly;
        let order = |suffix: &str| {
            let number = suffix.parse::<u64>().ok().filter(|_| suffix.bytes().all(|b| b.is_ascii_digit()));
            match (hourly, number) {
                (false, Some(number)) => Some(format!("{number:020}")),
                (true, _) if is_hour(suffix) => Some(suffix.to_owned()),
                _ => None,
            }
        };
        let mut found: Vec<(String, PathBuf)> = fs::read_dir(dir)
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|entry| {
                Some((order(entry.file_name().to_str()?.strip_prefix(&prefix)?)?, entry.path()))
            })
            .collect();
        found.sort_unstable();
        found
    }
}

/// `YYYY-MM-DD-HH`, perhaps with a number.
fn is_hour(suffix: &str) -> bool {
    let (hour, number) = suffix.split_once('.').unwrap_or((suffix, "0"));
    let pattern = "0000-00-00-00";
    let fits = |(a, b): (u8, u8)| if b == b'0' { a.is_ascii_digit() } else { a == b };
    hour.len() == pattern.len()
        && hour.bytes().zip(pattern.bytes()).all(fits)
        && number.bytes().all(|b| b.is_ascii_digit())
}

#[cfg(test)]
#[path = "roll_tests.rs"]
mod tests;
