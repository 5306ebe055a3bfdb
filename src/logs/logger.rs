//! The work of one logger process: two pipes in, one sink out, until both pipes have ended. It
//! never stops reading while the container lives, whatever becomes of the sink (spec/
//! containerd-and-crates.md, the stdio table): only in blocking mode it reads no further while the
//! sink takes nothing, and so the container's writes wait, and never fail.
//!
//! ```text
//!   fd 3 ─ Pieces ─┐            ┌─ non-blocking, or a sink that may wait ─> Queue ─ writer thread ─┐
//!   fd 4 ─ Pieces ─┴─> Outlet ──┴─ a sink on the local disk, blocking ─────────────────────────────┴─> Driver
//! ```

use super::config::LoggerConfig;
use super::counters::Counters;
use super::driver::{Driver, Message, NotTaken};
use super::pieces::Pieces;
use super::queue::{Popped, Queue};
use super::record::LogStream;
use crate::model::Delivery;
use std::io::{ErrorKind, Read};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// What the kernel holds in a pipe at the most, by default.
const CHUNK: usize = 64 * 1024;
/// A thread needs little more than its buffers, which are on the heap; TLS takes some.
const STACK: usize = 256 * 1024;
/// From the container's end on, for what is still to be sent. The shim kills a logger after 12 s.
const LINGER: Duration = Duration::from_secs(10);

/// Reads both pipes to their end. `complain` tells the operator, and is not called often.
pub fn run(
    config: &LoggerConfig,
    driver: Box<dyn Driver>,
    counters: &Counters,
    complain: &(dyn Fn(&str) + Sync),
    stdout: impl Read + Send,
    stderr: impl Read + Send,
) {
    let settings = &config.settings;
    let direct = driver.is_local() && settings.delivery == Delivery::Blocking;
    let ending = Ending::default();
    let writer = Writer { driver, counters, ending: &ending, complain, failing: false };
    let writer = Mutex::new(writer);
    let outlet = match direct {
        true => Outlet::Direct(&writer),
        false => Outlet::Queue(Queue::new(settings.delivery), counters),
    };
    let max = settings.driver.message_max();
    std::thread::scope(|scope| {
        let queued = match &outlet {
            Outlet::Direct(_) => None,
            Outlet::Queue(queue, _) => {
                let writer = &writer;
                Some(spawn(scope, (), move |()| lock(writer).run(queue)))
            }
        };
        let second = spawn(scope, stderr, |pipe| drain(pipe, LogStream::Stderr, max, &outlet));
        drain(stdout, LogStream::Stdout, max, &outlet);
        let _ = second.join();
        ending.begin();
        if let Outlet::Queue(queue, _) = &outlet {
            queue.close();
        }
        if let Some(queued) = queued {
            let _ = queued.join();
        }
    });
    lock(&writer).finish();
    counters.write();
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A thread, once the host has one: it may be short of them for a moment.
fn spawn<'scope, 'env, T: Send + 'scope>(
    scope: &'scope std::thread::Scope<'scope, 'env>,
    what: T,
    work: impl Fn(T) + Send + Sync + Copy + 'scope,
) -> std::thread::ScopedJoinHandle<'scope, ()> {
    let waiting = std::sync::Arc::new(Mutex::new(Some(what)));
    loop {
        let kept = std::sync::Arc::clone(&waiting);
        let body = move || {
            let taken = lock(&kept).take();
            if let Some(taken) = taken {
                work(taken);
            }
        };
        match std::thread::Builder::new().stack_size(STACK).spawn_scoped(scope, body) {
            Ok(thread) => return thread,
            Err(_) => std::thread::sleep(Duration::from_millis(100)),
        }
    }
}

/// Where the readers put what they read.
enum Outlet<'a> {
    Direct(&'a Mutex<Writer<'a>>),
    Queue(Queue, &'a Counters),
}

impl Outlet<'_> {
    fn take(&self, message: &Message<'_>) {
        match self {
            Self::Direct(writer) => lock(writer).deliver(message),
            Self::Queue(queue, counters) => {
                if !queue.push(message) {
                    counters.add(1);
                }
            }
        }
    }
}

fn drain(mut pipe: impl Read, stream: LogStream, max: usize, outlet: &Outlet<'_>) {
    let mut pieces = Pieces::new(stream, max);
    let mut buffer = vec![0; CHUNK];
    loop {
        match pipe.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => {
                pieces.push(buffer.get(..count).unwrap_or_default(), |message| outlet.take(message));
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => break,
        }
    }
    pieces.finish(|message| outlet.take(message));
}

/// When the container has ended, and what follows from it.
#[derive(Default)]
struct Ending {
    deadline: Mutex<Option<Instant>>,
    begun: Condvar,
}

impl Ending {
    fn begin(&self) {
        *lock(&self.deadline) = Some(Instant::now() + LINGER);
        self.begun.notify_all();
    }

    /// Waits, though not longer than until the deadline; answers false once that is over.
    fn pause(&self, pause: Duration) -> bool {
        let until = Instant::now() + pause;
        let mut deadline = lock(&self.deadline);
        loop {
            let now = Instant::now();
            if deadline.is_some_and(|deadline| deadline <= now) {
                return false;
            }
            let end = deadline.map_or(until, |deadline| deadline.min(until));
            if end <= now {
                return true;
            }
            let waited = self.begun.wait_timeout(deadline, end - now);
            deadline = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn deadline(&self) -> Instant {
        lock(&self.deadline).unwrap_or_else(|| Instant::now() + LINGER)
    }
}

/// The one that gives messages to the driver.
struct Writer<'a> {
    driver: Box<dyn Driver>,
    counters: &'a Counters,
    ending: &'a Ending,
    complain: &'a (dyn Fn(&str) + Sync),
    /// The sink takes nothing, and the operator knows.
    failing: bool,
}

impl Writer<'_> {
    fn run(&mut self, queue: &Queue) {
        let mut line = Vec::new();
        loop {
            let due = [self.driver.due(), self.counters.due()].into_iter().flatten().min();
            match queue.pop(&mut line, due) {
                Popped::Message(head) => self.deliver(&head.with(&line)),
                Popped::TimedOut => {}
                Popped::Ended => return,
            }
            if self.driver.due().is_some_and(|due| due <= Instant::now()) {
                self.until_taken(|driver| driver.flush());
            }
            if self.counters.due().is_some_and(|due| due <= Instant::now()) {
                self.counters.write();
            }
        }
    }

    fn deliver(&mut self, message: &Message<'_>) {
        self.until_taken(|driver| driver.write(message));
    }

    /// Tries until the driver takes it, or gives up, or the time after the container's end is over.
    fn until_taken(&mut self, mut attempt: impl FnMut(&mut dyn Driver) -> Result<(), NotTaken>) {
        let mut failures: u32 = 0;
        loop {
            let why = match attempt(self.driver.as_mut()) {
                Ok(()) => {
                    self.failing = false;
                    return;
                }
                Err(NotTaken::Dropped { messages, why }) => {
                    self.tell(&why);
                    self.counters.add(messages);
                    return;
                }
                Err(NotTaken::Slow) => None,
                Err(NotTaken::Retry(why)) => Some(why),
            };
            let goes_on = match why {
                None => self.ending.pause(Duration::ZERO),
                Some(why) => {
                    self.tell(&why);
                    let pause = self.driver.pause(failures);
                    failures = failures.saturating_add(1);
                    let most = self.driver.gives_up_after();
                    most.is_none_or(|most| failures <= most) && self.ending.pause(pause)
                }
            };
            if !goes_on {
                self.driver.given_up();
                self.counters.add(1);
                return;
            }
            if self.counters.due().is_some_and(|due| due <= Instant::now()) {
                self.counters.write();
            }
        }
    }

    fn tell(&mut self, why: &str) {
        if !std::mem::replace(&mut self.failing, true) {
            (self.complain)(&format!("the log is not taken: {why}"));
        }
    }

    fn finish(&mut self) {
        let lost = self.driver.finish(self.ending.deadline());
        self.counters.add(lost);
    }
}
