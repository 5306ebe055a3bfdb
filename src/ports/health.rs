//! Health checks as the engine has them run: which container has one, and one run after the other.

use crate::model::{ContainerId, HealthCheck, StopReason};
use futures_util::future::BoxFuture;
use std::path::Path;

/// Health checks of containers that run.
pub trait HealthChecks: Send + Sync {
    /// The check that a container was made with, and what runs it; `None` where it has none. What runs
    /// write passes through `directory`, the container's own.
    ///
    /// # Errors
    /// Where the runtime does not say.
    fn open<'a>(
        &'a self,
        id: &'a ContainerId,
        directory: &'a Path,
    ) -> BoxFuture<'a, Result<Option<OpenedCheck>, StopReason>>;
}

/// A container's check, and what runs it.
pub type OpenedCheck = (HealthCheck, Box<dyn HealthProbe>);

/// The health check of one container. Its calls come in the order start, wait, end; any of the first two
/// may be given up at any time, and is followed by [`HealthProbe::end`].
pub trait HealthProbe: Send {
    /// Starts the process of a run.
    fn start(&mut self) -> BoxFuture<'_, Result<(), ProbeError>>;
    /// Its exit code, once it has ended.
    fn wait(&mut self) -> BoxFuture<'_, Result<i32, ProbeError>>;
    /// Ends the run: a process that still is there is killed, and nothing of it stays. Answers what it
    /// wrote, its beginning. Takes no longer than a minute, whatever hangs.
    fn end(&mut self) -> BoxFuture<'_, String>;
}

/// Why a run has no exit code.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProbeError {
    /// The runtime can't be asked, or the container is just going: that says nothing of its health.
    #[error("{0}")]
    Unreachable(String),
    /// The process could not be made, in the runtime's words.
    #[error("{0}")]
    Failed(String),
}
