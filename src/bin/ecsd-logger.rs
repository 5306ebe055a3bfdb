//! The logger of one container: `ecsd-logger --config <file>`, started by the containerd shim with
//! fd 3 = the container's stdout, fd 4 = its stderr, fd 5 = a pipe to say "ready" on, and
//! CONTAINER_ID in the environment. Ends when both pipes have ended, and never before: that would
//! break the container's writes. Started as `runtime-with-input` it becomes the OCI runtime; see
//! [`ecsd::logs::input`].

use ecsd::logs::counters::{Counters, with_suffix};
use ecsd::logs::{LoggerConfig, driver, input, logger};
use nix::sys::signal::{SigSet, Signal};
use std::ffi::OsString;
use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Behind the configuration's name: why the sink could not be opened.
const FAILED: &str = ".failed";

/// The read end of a pipe that was handed down; a closed one where there is none.
fn pipe(fd: i32) -> Box<dyn Read + Send> {
    match File::open(format!("/proc/self/fd/{fd}")) {
        Ok(file) => Box::new(file),
        Err(error) => {
            complain(&format!("fd {fd} can't be read: {error}"));
            Box::new(std::io::empty())
        }
    }
}

/// Both forms of "ready" at once: a byte (binary-v2://), and the end of the pipe (binary://).
fn say_ready() {
    if let Ok(mut ready) = File::options().write(true).open("/proc/self/fd/5") {
        let _ = ready.write_all(&[0]);
        let _ = nix::unistd::close(5);
    }
}

/// Whoever started us may have closed stderr.
fn complain(what: &str) {
    let id = std::env::var("CONTAINER_ID").unwrap_or_default();
    let _ = writeln!(std::io::stderr(), "ecsd-logger {id}: {what}");
}

/// Leaves word for the agent, which looks for it once we are ready: the shim would not notice if we
/// ended. Until the agent takes the container away its output is read and lost.
fn fail_start(config: &Path, why: &str) {
    let file = with_suffix(config, FAILED);
    let opened = File::options().write(true).create(true).truncate(true).mode(0o600).open(file);
    if let Err(error) = opened.and_then(|mut file| file.write_all(why.as_bytes())) {
        complain(&format!("the agent can't be told: {error}"));
    }
}

/// The value of `--config`, wherever it stands: the shim shuffles arguments.
fn config_path() -> Option<PathBuf> {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    let after = arguments.iter().position(|a| a == "--config").and_then(|at| arguments.get(at + 1));
    let joined = arguments.iter().filter_map(|a| a.to_str()?.strip_prefix("--config="));
    after.map(PathBuf::from).or_else(|| joined.map(PathBuf::from).next())
}

fn main() {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    if let Some((link, arguments)) = arguments.split_first()
        && let Some(link) = input::started_as(link)
    {
        let error = input::become_runtime(link, arguments);
        complain(&format!("{}: {error}", link.display()));
        std::process::exit(1);
    }
    // The shim sends SIGTERM when it deletes the task; the last lines may still be in the pipes.
    let mut ignored = SigSet::empty();
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        ignored.add(signal);
    }
    let _ = ignored.thread_block();
    let Some(path) = config_path() else {
        complain("usage: ecsd-logger --config <file>; the container's output is lost");
        return;
    };
    let opened = LoggerConfig::load(&path).and_then(|config| {
        let driver = driver::open(&config)?;
        // What the logger before this one said.
        let _ = std::fs::remove_file(with_suffix(&path, FAILED));
        Ok((config, driver))
    });
    let (config, driver) = opened.unwrap_or_else(|why| {
        complain(&format!("{why}; the container's output is lost"));
        fail_start(&path, &why);
        (LoggerConfig::nothing(), driver::nothing())
    });
    let (stdout, stderr) = (pipe(3), pipe(4));
    say_ready();
    logger::run(&config, driver, &Counters::beside(&path), &complain, stdout, stderr);
}
