//! Log files as they grow, for a command that waits for other things too: [`follower`] on a thread.

use super::show::complain;
use crate::app::local_host::{Files, Line, follower};
use anyhow::Context;
use std::path::PathBuf;
use tokio::sync::mpsc;

const LINES_IN_FLIGHT: usize = 256;

/// Follows files until it is finished.
#[derive(Debug)]
pub struct Follower {
    files: Option<Files>,
    lines: mpsc::Receiver<Line>,
}

impl Follower {
    /// With no files yet.
    ///
    /// # Errors
    /// Where the kernel lets nothing be watched.
    pub fn new() -> anyhow::Result<Self> {
        let (files, follower) = follower().context("log files can't be watched")?;
        let (sender, lines) = mpsc::channel(LINES_IN_FLIGHT);
        std::thread::spawn(move || {
            if let Err(error) = follower.run(|line| sender.blocking_send(line).is_ok()) {
                complain(&anyhow::Error::new(error).context("log files can't be watched any more"));
            }
        });
        Ok(Self { files: Some(files), lines })
    }

    /// Follows one more file, from its beginning; it need not exist yet.
    pub fn follow(&mut self, source: &str, path: PathBuf) {
        if let Some(files) = &mut self.files {
            files.add(source, path);
        }
    }

    /// Follows one more container's log, from the oldest of its rotated files on.
    pub fn follow_container(&mut self, source: &str, path: PathBuf) {
        if let Some(files) = &mut self.files {
            files.add_rotated(source, path);
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
