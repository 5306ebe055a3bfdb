//! The work of one logger process: two pipes in, one sink out, until both pipes have ended. It
//! never stops reading while the container lives, whatever becomes of the sink: a logger that ends
//! early breaks the container's writes (spec/containerd-and-crates.md, the stdio table).

use super::config::LoggerConfig;
use super::record::LogStream;
use super::sink::FileSink;
use super::splitter::LineSplitter;
use std::io::{ErrorKind, Read};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// What the kernel holds in a pipe at the most, by default.
const CHUNK: usize = 64 * 1024;
/// A reader needs little more than its buffers, which are on the heap.
const STACK: usize = 128 * 1024;

/// Reads both pipes to their end.
pub fn run(config: &LoggerConfig, stdout: impl Read + Send, stderr: impl Read + Send) {
    let sink = match config {
        LoggerConfig::JsonFile { path, max_size, max_files } => {
            Some(Mutex::new(FileSink::new(path.clone(), *max_size, *max_files)))
        }
        LoggerConfig::None => None,
    };
    // Kept until a thread was made for it: a host may be short of them for a moment.
    let waiting = Mutex::new(Some(stderr));
    std::thread::scope(|scope| {
        let second = || {
            let pipe = waiting.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some(pipe) = pipe {
                drain(pipe, LogStream::Stderr, sink.as_ref());
            }
        };
        while std::thread::Builder::new().stack_size(STACK).spawn_scoped(scope, second).is_err() {
            std::thread::sleep(Duration::from_millis(100));
        }
        drain(stdout, LogStream::Stdout, sink.as_ref());
    });
}

fn drain(mut pipe: impl Read, stream: LogStream, sink: Option<&Mutex<FileSink>>) {
    let mut lines = LineSplitter::default();
    let mut buffer = vec![0; CHUNK];
    let write = |line: &[u8]| {
        if let Some(sink) = sink {
            sink.lock().unwrap_or_else(PoisonError::into_inner).write(stream, line);
        }
    };
    loop {
        match pipe.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => lines.push(buffer.get(..count).unwrap_or_default(), write),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => break,
        }
    }
    lines.finish(write);
}
