//! The thread that writes. Who logs only appends to a queue that is bounded in bytes: a sink that is
//! slow or stuck costs lines, never the agent's time. Lines that were dropped or could not be written
//! are counted, and told as soon as the sink takes lines again.

use super::format::{LogFormat, Value, line};
use super::roll::RollingFile;
use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

/// Bytes that may wait. As many again may be under way.
const QUEUE_MAX: usize = 512 * 1024;
/// How long the end of the agent waits for lines to be written.
const FLUSH_LIMIT: Duration = Duration::from_secs(2);

/// Where a line goes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Targets {
    pub(super) stdout: bool,
    pub(super) file: bool,
    pub(super) audit: bool,
}

/// What there is to write to.
#[derive(Default)]
pub(super) struct Sinks {
    pub(super) stdout: Option<Box<dyn Write + Send>>,
    pub(super) file: Option<RollingFile>,
    pub(super) audit: Option<RollingFile>,
}

/// The queue's near end. Cheap to clone.
#[derive(Clone)]
pub(super) struct Writer(Arc<Queue>);

#[derive(Default)]
struct Queue {
    waiting: Mutex<Waiting>,
    filled: Condvar,
    written: Condvar,
}

#[derive(Default)]
struct Waiting {
    lines: VecDeque<(Targets, String)>,
    bytes: usize,
    dropped: u64,
    /// The thread has lines that it has not written yet.
    writing: bool,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // A panic while the lock was held leaves a queue that is whole all the same.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Writer {
    /// Starts the thread, which runs for as long as the process.
    pub(super) fn start(sinks: Sinks, format: LogFormat) -> io::Result<Self> {
        let queue = Arc::new(Queue::default());
        let far_end = queue.clone();
        let named = std::thread::Builder::new().name("log".to_owned()).stack_size(256 * 1024);
        named.spawn(move || write_all(&far_end, Outputs::new(sinks, format)))?;
        Ok(Self(queue))
    }

    /// Queues a line, or counts it as dropped; never waits for a sink.
    pub(super) fn write(&self, targets: Targets, text: String) {
        if targets == Targets::default() {
            return;
        }
        let mut waiting = self.0.lock();
        if waiting.bytes + text.len() > QUEUE_MAX {
            waiting.dropped += 1;
            return;
        }
        waiting.bytes += text.len();
        waiting.lines.push_back((targets, text));
        drop(waiting);
        self.0.filled.notify_one();
    }

    /// Waits until everything is written, but not for ever; false where it is not.
    pub(super) fn flush(&self) -> bool {
        let waiting = self.0.lock();
        let unfinished = |w: &mut Waiting| w.writing || !w.lines.is_empty();
        let waited = self.0.written.wait_timeout_while(waiting, FLUSH_LIMIT, unfinished);
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }
}

fn write_all(queue: &Queue, mut outputs: Outputs) {
    loop {
        let mut waiting = queue.lock();
        waiting.writing = false;
        queue.written.notify_all();
        while waiting.lines.is_empty() {
            waiting = queue.filled.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
        let lines = std::mem::take(&mut waiting.lines);
        let dropped = std::mem::take(&mut waiting.dropped);
        waiting.bytes = 0;
        waiting.writing = true;
        drop(waiting);
        for (targets, text) in lines {
            outputs.write(targets, &text);
        }
        if dropped > 0 {
            outputs.tell_dropped(dropped);
        }
    }
}

/// The sinks, each with what it has lost.
struct Outputs {
    stdout: Output<Box<dyn Write + Send>>,
    file: Output<RollingFile>,
    audit: Output<RollingFile>,
    format: LogFormat,
}

impl Outputs {
    fn new(sinks: Sinks, format: LogFormat) -> Self {
        Self {
            stdout: Output::new(sinks.stdout),
            file: Output::new(sinks.file),
            audit: Output::new(sinks.audit),
            format,
        }
    }

    fn write(&mut self, targets: Targets, text: &str) {
        if targets.stdout {
            self.stdout.write(text, self.format);
        }
        if targets.file {
            self.file.write(text, self.format);
        }
        if targets.audit {
            self.audit.write(text, self.format);
        }
    }

    fn tell_dropped(&mut self, lines: u64) {
        let fields = [("lines".to_owned(), Value::Json(lines.to_string()))];
        let message = "the log was written too slowly: lines were dropped";
        let text = line(self.format, "warn", SystemTime::now(), message, &fields);
        self.write(Targets { stdout: true, file: true, audit: false }, &text);
    }
}

trait Sink {
    fn append(&mut self, text: &str) -> io::Result<()>;
}

impl Sink for RollingFile {
    fn append(&mut self, text: &str) -> io::Result<()> {
        self.write(text)
    }
}

impl Sink for Box<dyn Write + Send> {
    fn append(&mut self, text: &str) -> io::Result<()> {
        self.write_all(text.as_bytes()).and_then(|()| self.flush())
    }
}

struct Output<S> {
    sink: Option<S>,
    lost: u64,
    why: String,
}

impl<S: Sink> Output<S> {
    fn new(sink: Option<S>) -> Self {
        Self { sink, lost: 0, why: String::new() }
    }

    fn write(&mut self, text: &str, format: LogFormat) {
        let Some(sink) = &mut self.sink else { return };
        let told = if self.lost > 0 {
            let fields = [
                ("lines".to_owned(), Value::Json(self.lost.to_string())),
                ("error".to_owned(), Value::text(&self.why)),
            ];
            let message = "lines could not be written here and are lost";
            sink.append(&line(format, "warn", SystemTime::now(), message, &fields))
        } else {
            Ok(())
        };
        match told.inspect(|()| self.lost = 0).and_then(|()| sink.append(text)) {
            Ok(()) => {}
            Err(error) => {
                self.lost += 1;
                self.why = error.to_string();
            }
        }
    }
}

#[cfg(test)]
#[path = "writer_tests.rs"]
mod tests;
