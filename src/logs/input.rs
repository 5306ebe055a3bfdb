//! A standard input that stays open, for containers that ask for one and have no terminal. The shim
//! gives a container whose output goes to a logger no input but /dev/null; so for these it runs this
//! program in the OCI runtime's place, by a link of this name, which becomes the runtime at once.
//!
//! The input is a pipe whose only descriptor is open both ways: nothing is ever written to it, and
//! nobody has to live for it to stay open.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Name of the link. Beside it lies a file that names the runtime; see [`program_file`].
pub const LINK: &str = "runtime-with-input";

/// The file that names the runtime to become, for a link.
pub fn program_file(link: &Path) -> PathBuf {
    link.with_extension("program")
}

/// The link by which this program was started, where it was.
pub fn started_as(name: &OsString) -> Option<&Path> {
    let path = Path::new(name);
    path.file_name().is_some_and(|name| name == LINK).then_some(path)
}

/// Becomes the runtime; comes back only with an error.
pub fn become_runtime(link: &Path, arguments: &[OsString]) -> io::Error {
    let runtime = match std::fs::read_to_string(program_file(link)) {
        Ok(runtime) => runtime,
        Err(error) => return error,
    };
    let mut command = Command::new(runtime.trim());
    command.args(arguments);
    if arguments.iter().any(|argument| argument == "create") {
        match open_pipe() {
            Ok(pipe) => command.stdin(Stdio::from(pipe)),
            Err(error) => return error,
        };
    }
    command.exec()
}

/// A pipe of which one descriptor is both ends.
fn open_pipe() -> io::Result<File> {
    let (reader, _writer) = io::pipe()?;
    File::options().read(true).write(true).open(format!("/proc/self/fd/{}", reader.as_raw_fd()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    use std::os::fd::AsFd;

    #[test]
    fn the_pipe_is_empty_and_never_ends() {
        let pipe = open_pipe().unwrap();
        let mut watched = [PollFd::new(pipe.as_fd(), PollFlags::POLLIN)];
        // At its end it would be readable, or hung up.
        assert_eq!(poll(&mut watched, PollTimeout::ZERO).unwrap(), 0);
        let name = std::fs::read_link(format!("/proc/self/fd/{}", pipe.as_raw_fd())).unwrap();
        assert!(name.to_string_lossy().starts_with("pipe:["), "{name:?}");
    }

    #[test]
    fn only_the_link_makes_a_runtime() {
        assert_eq!(started_as(&"/a/runtime-with-input".into()), Some(Path::new("/a/runtime-with-input")));
        assert_eq!(started_as(&"/usr/libexec/ecsd-logger".into()), None);
        assert_eq!(
            program_file(Path::new("/a/runtime-with-input")),
            Path::new("/a/runtime-with-input.program")
        );
    }

    #[test]
    fn a_link_without_a_runtime_is_an_error() {
        assert_eq!(become_runtime(Path::new("/absent/link"), &[]).kind(), io::ErrorKind::NotFound);
    }
}
