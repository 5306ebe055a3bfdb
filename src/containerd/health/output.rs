//! What the runs of a health check write: a pipe with a name, from the shim to us, one for a container
//! as long as its checks run. Only the beginning of each run is kept.

use nix::sys::stat::Mode;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::net::unix::pipe::{OpenOptions, Receiver};

/// Bytes that are kept of a run (Docker's).
const KEPT: usize = 4096;
/// Reads at once: more than fills a pipe.
const READS: usize = 80;
/// Between two such rounds.
const BREATH: Duration = Duration::from_millis(5);

/// Each pipe has a name of its own: who drops one late removes no other's.
static PIPES: AtomicU64 = AtomicU64::new(0);

/// The pipe and what came of it. Its name is removed when dropped.
#[derive(Debug)]
pub(super) struct Output {
    path: PathBuf,
    pipe: Receiver,
    kept: Vec<u8>,
    is_cut: bool,
}

impl Output {
    /// Makes the pipe in a directory. One of that name that an earlier life left there goes first.
    ///
    /// # Errors
    /// Of the file system.
    pub(super) fn new(directory: &Path) -> io::Result<Self> {
        let path = directory.join(format!("health-{}", PIPES.fetch_add(1, Ordering::Relaxed)));
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        nix::unistd::mkfifo(&path, Mode::S_IRUSR | Mode::S_IWUSR)?;
        // For writing too: a pipe that has a writer never comes to its end between two runs.
        let pipe = OpenOptions::new().read_write(true).open_receiver(&path)?;
        Ok(Self { path, pipe, kept: Vec::new(), is_cut: false })
    }

    /// Its name, for the shim.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Takes what comes, for ever. Dropping it loses nothing.
    pub(super) async fn follow(&mut self) {
        loop {
            if self.pipe.readable().await.is_err() {
                return std::future::pending().await;
            }
            while self.drain(Receiver::try_read) {
                // A run that writes without end is read as slowly as it likes to wait.
                tokio::time::sleep(BREATH).await;
            }
        }
    }

    /// Takes what is there. True where there is more than was taken at once.
    fn drain(&mut self, read: impl Fn(&Receiver, &mut [u8]) -> io::Result<usize>) -> bool {
        let mut buffer = [0; 1024];
        for _ in 0..READS {
            match read(&self.pipe, &mut buffer) {
                Ok(0) | Err(_) => return false,
                Ok(count) => {
                    let taken = count.min(KEPT - self.kept.len());
                    self.kept.extend_from_slice(buffer.get(..taken).unwrap_or_default());
                    self.is_cut |= taken < count;
                }
            }
        }
        true
    }

    /// What the run wrote, all of which has been written by now; the next one begins anew.
    pub(super) fn take(&mut self) -> String {
        // Not by what the runtime has noticed of the pipe, which may come later.
        self.drain(|pipe, buffer| Ok(nix::unistd::read(pipe, buffer)?));
        let mut text = String::from_utf8_lossy(&std::mem::take(&mut self.kept)).into_owned();
        if std::mem::take(&mut self.is_cut) {
            text.push_str("...");
        }
        text
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        // Gone already where the container's directory is.
        let _ = std::fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::io::Write;

    struct Directory(PathBuf);

    impl Directory {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("ecsd-output-{name}-{}", std::process::id()));
            std::fs::create_dir_all(&path).unwrap();
            Self(path)
        }
    }

    impl Drop for Directory {
        fn drop(&mut self) {
            std::fs::remove_dir_all(&self.0).unwrap();
        }
    }

    fn writer(output: &Output) -> File {
        File::options().write(true).open(output.path()).unwrap()
    }

    #[tokio::test]
    async fn each_run_has_its_own_output_and_the_name_goes_at_the_end() {
        let directory = Directory::new("each");
        let mut output = Output::new(&directory.0).unwrap();
        let other = Output::new(&directory.0).unwrap();
        assert_ne!(output.path(), other.path());
        for run in ["one\n", "", "three\n"] {
            writer(&output).write_all(run.as_bytes()).unwrap();
            assert_eq!(output.take(), run);
        }
        writer(&output).write_all(b"\xff!").unwrap();
        assert_eq!(output.take(), "\u{fffd}!");
        let path = output.path().to_owned();
        drop(output);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_flood_is_swallowed_and_its_beginning_kept() {
        let directory = Directory::new("flood");
        let mut output = Output::new(&directory.0).unwrap();
        let mut pipe = writer(&output);
        // Far more than a pipe holds: it ends only because somebody reads.
        let flood = tokio::task::spawn_blocking(move || {
            for _ in 0..300 {
                pipe.write_all(&[b'x'; 1000]).unwrap();
            }
        });
        tokio::select! { () = output.follow() => unreachable!(), done = flood => done.unwrap() }
        let told = output.take();
        assert_eq!(told, format!("{}...", "x".repeat(KEPT)));
        assert_eq!(output.take(), "");
    }
}
