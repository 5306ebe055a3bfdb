//! The writer's life: read the configuration, say that it is ready, copy both pipes into records
//! until both have ended. Nothing that goes wrong with the log ends it before that: a container whose
//! logger is gone gets EPIPE.

use crate::logs::record::{Lines, LogLine, Stream};
use crate::logs::rotate::RotatingFile;
use serde::Deserialize;
use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

/// What the agent left for the writer of one container.
#[derive(Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
struct Config {
    /// `json-file` or `none`.
    driver: String,
    /// The newest file.
    #[serde(default)]
    path: PathBuf,
    /// Bytes; `null` is unlimited.
    #[serde(default)]
    max_size: Option<u64>,
    #[serde(default = "one")]
    max_files: u32,
}

fn one() -> u32 {
    1
}

/// Where records go.
struct Sink {
    file: Option<RotatingFile>,
    /// Records that could not be written since the last that could.
    dropped: u64,
    line: Vec<u8>,
}

/// Runs the program; arguments in any order, as the shim gives them.
pub fn main(arguments: impl Iterator<Item = String>) -> ExitCode {
    // Containers end by SIGTERM to their whole group at times; the log's end is the pipes' end.
    ignore_signals();
    let config = match read_config(arguments) {
        Ok(config) => config,
        Err(problem) => {
            eprintln!("ecsd-logger: {problem}: output is thrown away");
            None
        }
    };
    let file = config.map(|c| RotatingFile::new(c.path, c.max_size, c.max_files));
    let sink = Mutex::new(Sink { file, dropped: 0, line: Vec::with_capacity(512) });
    let (stdout, stderr) = (open(3), open(4));
    // Ready: the container may start. Written as well as closed, for both versions of the protocol.
    if let Ok(mut ready) = File::options().write(true).open("/proc/self/fd/5") {
        let _ = ready.write_all(b"\0");
    }
    let _ = nix::unistd::close(5);
    std::thread::scope(|scope| {
        let small = || std::thread::Builder::new().stack_size(64 * 1024);
        let second = small().spawn_scoped(scope, || copy(stderr, Stream::Stderr, &sink));
        copy(stdout, Stream::Stdout, &sink);
        if let Ok(second) = second {
            let _ = second.join();
        }
    });
    ExitCode::SUCCESS
}

fn read_config(arguments: impl Iterator<Item = String>) -> Result<Option<Config>, String> {
    let mut arguments = arguments;
    let path = loop {
        match arguments.next().as_deref() {
            Some("--config") => break arguments.next().ok_or("--config names no file")?,
            Some(other) => match other.strip_prefix("--config=") {
                Some(path) => break path.to_owned(),
                None => return Err(format!("unknown argument {other:?}: expected --config FILE")),
            },
            None => return Err("no --config FILE".to_owned()),
        }
    };
    let text = std::fs::read(Path::new(&path)).map_err(|error| format!("{path}: {error}"))?;
    let config: Config = serde_json::from_slice(&text).map_err(|error| format!("{path}: {error}"))?;
    match config.driver.as_str() {
        "json-file" => Ok(Some(config)),
        "none" => Ok(None),
        driver => Err(format!("{path}: unknown driver {driver:?}")),
    }
}

fn ignore_signals() {
    use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGTERM);
    signals.add(Signal::SIGINT);
    // Blocked for good: nobody takes them. Where that fails they only end us early.
    let _ = sigprocmask(SigmaskHow::SIG_BLOCK, Some(&signals), None);
}

fn open(fd: u32) -> Option<File> {
    let pipe = File::open(format!("/proc/self/fd/{fd}")).ok();
    // The descriptor that was inherited is not needed beside this one.
    let _ = nix::unistd::close(i32::try_from(fd).unwrap_or(-1));
    pipe
}

fn copy(pipe: Option<File>, stream: Stream, sink: &Mutex<Sink>) {
    let Some(mut pipe) = pipe else { return };
    let (mut lines, mut buffer) = (Lines::default(), vec![0; 16 * 1024]);
    let write = |record: &[u8]| sink.lock().unwrap_or_else(PoisonError::into_inner).write(record, stream);
    loop {
        match pipe.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => lines.push(buffer.get(..count).unwrap_or_default(), write),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(_) => break,
        }
    }
    lines.finish(write);
}

impl Sink {
    fn write(&mut self, record: &[u8], stream: Stream) {
        if self.dropped > 0 {
            let lost = format!("[ecsd-logger: {} lines could not be written and are lost]\n", self.dropped);
            if !self.append(lost.as_bytes(), Stream::Stderr) {
                self.dropped += 1;
                return;
            }
            self.dropped = 0;
        }
        if !self.append(record, stream) {
            self.dropped += 1;
        }
    }

    fn append(&mut self, record: &[u8], stream: Stream) -> bool {
        let Some(file) = &mut self.file else { return true };
        let time = humantime::format_rfc3339_nanos(SystemTime::now()).to_string();
        let line = LogLine { log: String::from_utf8_lossy(record), stream, time: time.into() };
        self.line.clear();
        if serde_json::to_writer(&mut self.line, &line).is_err() {
            return false;
        }
        self.line.push(b'\n');
        file.append(&self.line).is_ok()
    }
}
