//! What a log driver is: something that takes messages, one after the other, and may have to wait for
//! its sink. The one place where drivers are registered is [`open`].
//!
//! ```text
//!   open ─ Err ──────────────> the container's start fails by these words
//!    │ Ok
//!   write* ─ Ok ─────────────> taken: written, or kept by the driver until `flush`
//!    │      ─ Retry(why) ────> not taken; the same message comes again after a pause, for as long as the
//!    │                         container lives, and a while after
//!    │      ─ Slow ──────────> the sink is at it: the same message comes again at once
//!    │      ─ Dropped(why) ──> lost for good; counted
//!   flush (when `due` says so) answers as `write` does, of what the driver keeps
//!    │
//!   finish (after the last message) until the deadline
//! ```
//!
//! A driver never ends the logger, keeps its memory bounded, and gives every wait of its own a limit.

use super::awslogs::AwsLogs;
use super::config::LoggerConfig;
use super::fluentd::Fluentd;
use super::gelf::Gelf;
use super::journald::Journald;
use super::none::Nothing;
use super::record::LogStream;
use super::sink::FileSink;
use super::splunk::Splunk;
use super::syslog::Syslog;
use crate::model::LogDriver;
use std::time::{Duration, Instant, SystemTime};

/// One line of a container's output, or a piece of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Message<'a> {
    /// Its bytes, without the newline. Any bytes, not only text.
    pub line: &'a [u8],
    /// The container ended the line here. False for all but the last piece of a long line, and for
    /// what stands at the very end of the output.
    pub ends: bool,
    /// Where it came from.
    pub stream: LogStream,
    /// When it was read; all pieces of a line have the first one's time.
    pub time: SystemTime,
    /// Which piece of a long line it is; `None` is a line in one piece.
    pub partial: Option<Partial>,
}

/// A piece of a line that is longer than a message may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Partial {
    /// The same for all pieces of a line, and no other line's.
    pub id: u64,
    /// From 1.
    pub ordinal: u32,
    /// Nothing comes after it.
    pub last: bool,
}

/// Why a message was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotTaken {
    /// The sink does not answer, or not now.
    #[error("{0}")]
    Retry(String),
    /// The sink takes it, but slowly: nothing moved within a second.
    #[error("the server is slow")]
    Slow,
    /// The sink will never take it.
    #[error("{why}")]
    Dropped {
        /// How many messages are lost by it.
        messages: u64,
        /// Why.
        why: String,
    },
}

impl NotTaken {
    /// The message at hand is lost.
    pub fn dropped(why: impl Into<String>) -> Self {
        Self::Dropped { messages: 1, why: why.into() }
    }
}

/// A log driver.
pub trait Driver: Send {
    /// Takes a message.
    ///
    /// # Errors
    /// [`NotTaken`]
    fn write(&mut self, message: &Message<'_>) -> Result<(), NotTaken>;

    /// When what is kept shall be flushed, though no message comes. `None` is never.
    fn due(&self) -> Option<Instant> {
        None
    }

    /// Sends what is kept.
    ///
    /// # Errors
    /// [`NotTaken`]; after `Retry` it is still kept.
    fn flush(&mut self) -> Result<(), NotTaken> {
        Ok(())
    }

    /// How long to pause after this many failures in a row.
    fn pause(&self, failures: u32) -> Duration {
        let doubled = Duration::from_millis(100).saturating_mul(1 << failures.min(16));
        doubled.min(Duration::from_secs(10))
    }

    /// Gives up after this many failures in a row, and drops the message. Docker's option of some
    /// drivers; most never do.
    fn gives_up_after(&self) -> Option<u32> {
        None
    }

    /// The message at hand will not come again: it is lost.
    fn given_up(&mut self) {}

    /// The container has ended: sends what is kept, until the deadline; answers how many messages
    /// were lost.
    fn finish(&mut self, deadline: Instant) -> u64 {
        loop {
            match self.flush() {
                Ok(()) => return 0,
                Err(NotTaken::Dropped { messages, .. }) => return messages,
                Err(NotTaken::Slow) if Instant::now() < deadline => {}
                Err(NotTaken::Slow | NotTaken::Retry(_)) => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return self.kept();
                    }
                    std::thread::sleep(self.pause(0).min(left));
                }
            }
        }
    }

    /// How many messages are kept.
    fn kept(&self) -> u64 {
        0
    }

    /// Never waits for anything but the local disk: the readers call it themselves while the delivery
    /// is blocking, and there is no thread and no memory between.
    fn is_local(&self) -> bool {
        false
    }
}

/// Opens the driver that a configuration asks for. May take as long as the container's start may.
///
/// # Errors
/// In the words that the container's start fails by.
pub fn open(config: &LoggerConfig) -> Result<Box<dyn Driver>, String> {
    Ok(match &config.settings.driver {
        LogDriver::JsonFile(options) => Box::new(FileSink::new(config, options)),
        LogDriver::None => Box::new(Nothing),
        LogDriver::Fluentd(options) => Box::new(Fluentd::open(config, options)?),
        LogDriver::Syslog(options) => Box::new(Syslog::open(config, options)?),
        LogDriver::Gelf(options) => Box::new(Gelf::open(config, options)?),
        LogDriver::Journald(_) => Box::new(Journald::open(config)?),
        LogDriver::AwsLogs(options) => Box::new(AwsLogs::open(options, config)?),
        LogDriver::Splunk(options) => Box::new(Splunk::open(options, config)?),
    })
}

/// The driver that loses everything.
pub fn nothing() -> Box<dyn Driver> {
    Box::new(Nothing)
}
