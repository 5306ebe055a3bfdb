//! A child program that never outlives the session by mistake: dropping it tells it to end.

use anyhow::Context;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};

/// A child program.
#[derive(Debug)]
pub struct Program {
    name: &'static str,
    child: Child,
    pid: Option<Pid>,
}

impl Program {
    /// Starts it in a process group of its own: Ctrl-C at the terminal is for the session, which ends
    /// its children in the right order.
    ///
    /// # Errors
    /// Where it can't be started.
    pub fn spawn(name: &'static str, mut command: Command) -> anyhow::Result<Self> {
        command.process_group(0).stdin(std::process::Stdio::null());
        let child = command.spawn().with_context(|| format!("can't start {name}"))?;
        let pid = child.id().and_then(|pid| i32::try_from(pid).ok()).map(Pid::from_raw);
        Ok(Self { name, child, pid })
    }

    /// Resolves when it ended. Cancel-safe.
    pub async fn ended(&mut self) -> Option<ExitStatus> {
        let status = self.child.wait().await.ok();
        self.pid = None;
        status
    }

    /// SIGTERM, and SIGKILL where it has not ended after `grace`.
    pub async fn stop(&mut self, grace: Duration) {
        let Some(pid) = self.pid else { return };
        let _ = kill(pid, Signal::SIGTERM);
        if tokio::time::timeout(grace, self.ended()).await.is_err() {
            tracing::warn!(program = self.name, "did not end in time and is killed");
            let _ = kill(pid, Signal::SIGKILL);
            self.ended().await;
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if let Some(pid) = self.pid {
            let _ = kill(pid, Signal::SIGTERM);
        }
    }
}

/// SIGINT, SIGTERM and SIGHUP, from now on.
pub struct Interrupts {
    streams: [tokio::signal::unix::Signal; 3],
}

impl Interrupts {
    /// Takes the signals over from their default actions.
    ///
    /// # Errors
    /// Where the system refuses.
    pub fn new() -> anyhow::Result<Self> {
        let kinds = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
        let [a, b, c] = kinds.map(signal);
        Ok(Self { streams: [a?, b?, c?] })
    }

    /// The next of them. Cancel-safe.
    pub async fn next(&mut self) {
        let [a, b, c] = &mut self.streams;
        tokio::select! {
            _ = a.recv() => {}
            _ = b.recv() => {}
            _ = c.recv() => {}
        }
    }
}

/// A program on PATH.
pub fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let extra = ["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(extra).map(|dir| dir.join(name)).find(|file| is_executable(file))
}

fn is_executable(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata(file).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

/// A program on PATH, or an error that says how to get it.
///
/// # Errors
/// Where it is not installed.
pub fn need(name: &str, why: &str) -> anyhow::Result<PathBuf> {
    find(name).with_context(|| {
        let package = if name == "nft" { "nftables" } else { name };
        format!("{name} is not installed ({why}). Install the package {package}, for example: apt-get install {package}")
    })
}
