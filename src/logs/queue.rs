//! Messages between the readers of a container's output and the one that writes them to the sink: one
//! piece of memory, bounded in bytes. Blocking, a reader waits for room; non-blocking, a message that
//! finds it full is dropped, as dockerd drops the newest.

use super::driver::{Message, Partial};
use super::record::LogStream;
use crate::model::Delivery;
use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// What waits at the most while the container's writes wait as well: enough to keep the writer busy.
const BLOCKING_BYTES: usize = 256 * 1024;
/// An empty queue keeps this much memory.
const KEPT_BYTES: usize = 2 * BLOCKING_BYTES;
/// What is kept of a message besides its line.
const HEAD_BYTES: usize = 25;

const STDERR: u8 = 1;
const ENDS: u8 = 2;
const PARTIAL: u8 = 4;
const LAST: u8 = 8;

/// A queue of messages.
#[derive(Debug)]
pub struct Queue {
    limits: Limits,
    inner: Mutex<Inner>,
    filled: Condvar,
    drained: Condvar,
}

#[derive(Debug, Clone, Copy)]
struct Limits {
    waits: bool,
    /// Of lines, as dockerd counts.
    line_bytes: usize,
    /// Of memory: many lines that are next to nothing take more than their bytes.
    memory: usize,
    messages: u64,
}

#[derive(Debug, Default)]
struct Inner {
    bytes: VecDeque<u8>,
    line_bytes: usize,
    messages: u64,
    closed: bool,
    reader_waits: bool,
    writer_waits: bool,
}

/// What came of waiting for a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Popped {
    /// There is one.
    Message(Head),
    /// None until then.
    TimedOut,
    /// None any more.
    Ended,
}

/// A message without its line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    ends: bool,
    stream: LogStream,
    time: SystemTime,
    partial: Option<Partial>,
}

impl Head {
    /// The message again, with its line.
    pub fn with<'a>(&self, line: &'a [u8]) -> Message<'a> {
        let Self { ends, stream, time, partial } = *self;
        Message { line, ends, stream, time, partial }
    }
}

impl Queue {
    /// An empty one.
    pub fn new(delivery: Delivery) -> Self {
        let limits = match delivery {
            Delivery::Blocking => {
                let (line_bytes, memory) = (BLOCKING_BYTES, BLOCKING_BYTES);
                Limits { waits: true, line_bytes, memory, messages: u64::MAX }
            }
            Delivery::NonBlocking { max_bytes, max_messages } => {
                let line_bytes = usize::try_from(max_bytes).unwrap_or(usize::MAX);
                let memory = line_bytes.saturating_mul(2);
                Limits { waits: false, line_bytes, memory, messages: max_messages }
            }
        };
        Self { limits, inner: Mutex::default(), filled: Condvar::new(), drained: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a message in; answers false where it was dropped. An empty queue takes any message.
    pub fn push(&self, message: &Message<'_>) -> bool {
        let length = message.line.len();
        let mut inner = self.lock();
        while !inner.has_room(length, self.limits) {
            if !self.limits.waits || inner.closed {
                return false;
            }
            inner.reader_waits = true;
            inner = self.drained.wait(inner).unwrap_or_else(PoisonError::into_inner);
        }
        inner.put(message);
        if std::mem::take(&mut inner.writer_waits) {
            self.filled.notify_one();
        }
        true
    }

    /// Takes the oldest message, its line into `line`; waits for one until then.
    pub fn pop(&self, line: &mut Vec<u8>, until: Option<Instant>) -> Popped {
        let mut inner = self.lock();
        loop {
            if let Some(head) = inner.take(line) {
                if std::mem::take(&mut inner.reader_waits) {
                    self.drained.notify_all();
                }
                return Popped::Message(head);
            }
            if inner.closed {
                return Popped::Ended;
            }
            inner.writer_waits = true;
            let Some(until) = until else {
                inner = self.filled.wait(inner).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                inner.writer_waits = false;
                return Popped::TimedOut;
            }
            let waited = self.filled.wait_timeout(inner, left);
            inner = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// No message comes any more.
    pub fn close(&self) {
        self.lock().closed = true;
        self.filled.notify_all();
        self.drained.notify_all();
    }
}

impl Inner {
    fn has_room(&self, length: usize, limits: Limits) -> bool {
        self.messages == 0
            || (self.messages < limits.messages
                && self.line_bytes.saturating_add(length) <= limits.line_bytes
                && self.bytes.len().saturating_add(HEAD_BYTES + length) <= limits.memory)
    }

    fn put(&mut self, message: &Message<'_>) {
        let mut flags = 0;
        flags |= if message.stream == LogStream::Stderr { STDERR } else { 0 };
        flags |= if message.ends { ENDS } else { 0 };
        flags |= if message.partial.is_some() { PARTIAL } else { 0 };
        flags |= if message.partial.is_some_and(|partial| partial.last) { LAST } else { 0 };
        let (id, ordinal) = message.partial.map_or((0, 0), |partial| (partial.id, partial.ordinal));
        let since = message.time.duration_since(UNIX_EPOCH).unwrap_or_default();
        let nanos = u64::try_from(since.as_nanos()).unwrap_or(u64::MAX);
        // A reader's pieces are far shorter than 4 GiB.
        let length = u32::try_from(message.line.len()).unwrap_or(u32::MAX);
        self.bytes.push_back(flags);
        self.bytes.extend(nanos.to_le_bytes());
        self.bytes.extend(id.to_le_bytes());
        self.bytes.extend(ordinal.to_le_bytes());
        self.bytes.extend(length.to_le_bytes());
        // By slices: byte by byte takes many times longer.
        self.bytes.extend(message.line.get(..length as usize).unwrap_or_default());
        self.line_bytes += length as usize;
        self.messages += 1;
    }

    fn take(&mut self, line: &mut Vec<u8>) -> Option<Head> {
        let flags = self.bytes.pop_front()?;
        let nanos = u64::from_le_bytes(self.array());
        let id = u64::from_le_bytes(self.array());
        let ordinal = u32::from_le_bytes(self.array());
        let length = u32::from_le_bytes(self.array()) as usize;
        line.clear();
        let length = length.min(self.bytes.len());
        let (front, back) = self.bytes.as_slices();
        let split = length.min(front.len());
        line.extend_from_slice(front.get(..split).unwrap_or_default());
        line.extend_from_slice(back.get(..length - split).unwrap_or_default());
        self.bytes.drain(..length);
        self.line_bytes -= length.min(self.line_bytes);
        self.messages -= 1;
        if self.bytes.is_empty() && self.bytes.capacity() > KEPT_BYTES {
            self.bytes = VecDeque::new();
        }
        let partial = Partial { id, ordinal, last: flags & LAST != 0 };
        Some(Head {
            ends: flags & ENDS != 0,
            stream: if flags & STDERR != 0 { LogStream::Stderr } else { LogStream::Stdout },
            time: UNIX_EPOCH + Duration::from_nanos(nanos),
            partial: (flags & PARTIAL != 0).then_some(partial),
        })
    }

    fn array<const N: usize>(&mut self) -> [u8; N] {
        std::array::from_fn(|_| self.bytes.pop_front().unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(line: &[u8]) -> Message<'_> {
        let time = UNIX_EPOCH + Duration::from_nanos(1_700_000_000_000_000_007);
        let partial = Some(Partial { id: 9, ordinal: 2, last: true });
        Message { line, ends: true, stream: LogStream::Stderr, time, partial }
    }

    #[test]
    fn messages_come_out_as_they_went_in() {
        let queue = Queue::new(Delivery::Blocking);
        let plain = Message { ends: false, stream: LogStream::Stdout, partial: None, ..message(b"two") };
        assert!(queue.push(&message(b"one")) && queue.push(&plain) && queue.push(&message(b"")));
        let mut line = Vec::new();
        for want in [message(b"one"), plain, message(b"")] {
            let Popped::Message(head) = queue.pop(&mut line, None) else { panic!("a message is there") };
            assert_eq!(head.with(&line), want);
        }
        assert_eq!(queue.pop(&mut line, Some(Instant::now())), Popped::TimedOut);
        queue.close();
        assert_eq!(queue.pop(&mut line, None), Popped::Ended);
    }

    #[test]
    fn non_blocking_drops_the_newest_and_takes_anything_when_it_is_empty() {
        let queue = Queue::new(Delivery::NonBlocking { max_bytes: 100, max_messages: 3 });
        assert!(queue.push(&message(&[b'x'; 5000])));
        assert!(!queue.push(&message(b"y")));
        let mut line = Vec::new();
        assert!(matches!(queue.pop(&mut line, None), Popped::Message(_)));
        assert!(queue.push(&message(&[b'x'; 60])) && queue.push(&message(&[b'x'; 40])));
        assert!(!queue.push(&message(b"y")));
        assert_eq!(queue.lock().messages, 2);
        assert!(queue.push(&message(b"")) && !queue.push(&message(b"")), "a fourth one");
    }

    #[test]
    fn empty_lines_do_not_fill_the_memory() {
        let queue = Queue::new(Delivery::NonBlocking { max_bytes: 1000, max_messages: u64::MAX });
        let taken = (0..10_000).filter(|_| queue.push(&message(b""))).count();
        assert_eq!(taken, 2000 / HEAD_BYTES);
    }

    #[test]
    fn blocking_waits_for_room_and_loses_nothing() {
        let queue = Queue::new(Delivery::Blocking);
        let line = [b'x'; 10_000];
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for _ in 0..200 {
                    assert!(queue.push(&message(&line)));
                }
                queue.close();
            });
            let (mut got, mut count) = (Vec::new(), 0);
            while let Popped::Message(_) = queue.pop(&mut got, None) {
                assert_eq!(got, line);
                count += 1;
            }
            assert_eq!(count, 200);
        });
    }
}
