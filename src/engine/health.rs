//! Runs the health checks of running containers: a task of its own for each, which waits, has the check
//! run, and hands what changes to the loop.
//!
//! ```text
//!   started, or found running ─> open ─> pause ─> start ─> wait ─> end ─> HealthMonitor ──change──> inbox
//!   ended, lost ─> dropped         │       ^                                  │
//!                             again after  └──────────────────────────────────┘
//!                              a failure
//! ```
//! One container waits for nobody else's check but for a slot to start in, which one that hangs gives
//! back. Nothing is stored: after a restart the timers of whatever runs begin again.

use crate::core::HealthMonitor;
use crate::engine::Input;
use crate::model::{ContainerId, ContainerKey, HealthCheck, HealthResult, Wall};
use crate::ports::{HealthChecks, HealthProbe, OpenedCheck, ProbeError};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{sleep, timeout};

/// Processes that are being started at once; each takes some tens of milliseconds of a processor.
const STARTS: usize = 16;
/// Who takes longer to start than this keeps no slot.
const SLOT_PATIENCE: Duration = Duration::from_secs(2);
/// Docker's limit from asking for a process to its start.
const START_LIMIT: Duration = Duration::from_secs(30);
/// Before a check is looked for again.
const OPEN_AGAIN: Duration = Duration::from_secs(2);

/// The checks under way. What is dropped ends them.
pub(super) struct HealthRuns {
    port: Arc<dyn HealthChecks>,
    starts: Arc<Semaphore>,
    inbox: mpsc::Sender<Input>,
    tasks: JoinSet<()>,
    under_way: BTreeMap<ContainerKey, (Epoch, AbortHandle)>,
    last: Epoch,
}

/// One start of one container: what its checks find says nothing of the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Epoch(u64);

/// The container whose checks are to begin.
pub(super) struct Subject {
    pub key: ContainerKey,
    pub id: ContainerId,
    /// Its own directory.
    pub directory: PathBuf,
    /// When its process started.
    pub started: Wall,
}

impl HealthRuns {
    pub fn new(port: Arc<dyn HealthChecks>, inbox: mpsc::Sender<Input>) -> Self {
        Self {
            port,
            starts: Arc::new(Semaphore::new(STARTS)),
            inbox,
            tasks: JoinSet::new(),
            under_way: BTreeMap::new(),
            last: Epoch::default(),
        }
    }

    /// Begins with a container; what was under way for it ends.
    pub fn begin(&mut self, subject: Subject) {
        self.end(&subject.key);
        while self.tasks.try_join_next().is_some() {}
        self.last = Epoch(self.last.0 + 1);
        let key = subject.key.clone();
        let runs =
            Runs { port: self.port.clone(), starts: self.starts.clone(), subject, begun: Instant::now() };
        let work = runs.follow(self.inbox.clone(), self.last);
        self.under_way.insert(key, (self.last, self.tasks.spawn(work)));
    }

    /// Ends with a container.
    pub fn end(&mut self, container: &ContainerKey) {
        if let Some((_, task)) = self.under_way.remove(container) {
            task.abort();
        }
    }

    /// Whether that start of the container is the one whose checks are under way.
    pub fn is_current(&self, container: &ContainerKey, epoch: Epoch) -> bool {
        self.under_way.get(container).is_some_and(|(current, _)| *current == epoch)
    }
}

/// The checks of one container.
struct Runs {
    port: Arc<dyn HealthChecks>,
    starts: Arc<Semaphore>,
    subject: Subject,
    begun: Instant,
}

impl Runs {
    async fn follow(self, inbox: mpsc::Sender<Input>, epoch: Epoch) {
        let container = &self.subject.key;
        let before = wall().since(self.subject.started);
        let age = || before + self.begun.elapsed();
        let Some((check, mut probe)) = self.open().await else { return };
        let mut monitor = HealthMonitor::new(&check);
        loop {
            sleep(monitor.pause(age())).await;
            let begun_at = age();
            let Some(result) = self.run(&check, &mut *probe).await else { continue };
            let (exit_code, bytes) = (result.exit_code, result.output.len());
            if let Some(health) = monitor.take(result, begun_at, wall()) {
                let status = health.status.word();
                tracing::info!(%container, status, exit_code, "the container's health changed");
                if inbox.send(Input::Health { container: container.clone(), epoch, health }).await.is_err() {
                    return;
                }
            } else if exit_code != 0 {
                tracing::debug!(%container, exit_code, bytes, "a health check failed");
            }
        }
    }

    async fn open(&self) -> Option<OpenedCheck> {
        loop {
            match self.port.open(&self.subject.id, &self.subject.directory).await {
                Ok(found) => return found,
                Err(reason) => {
                    let container = &self.subject.key;
                    tracing::warn!(%container, error = %reason, "health can't be checked; tried again in 2 s");
                    sleep(OPEN_AGAIN).await;
                }
            }
        }
    }

    /// One run, from start to end; `None` where it says nothing of the container's health.
    async fn run(&self, check: &HealthCheck, probe: &mut dyn HealthProbe) -> Option<HealthResult> {
        let failed = |output: String| HealthResult { exit_code: -1, output };
        let outcome = match self.start(probe).await {
            Ok(()) => timeout(check.timeout, probe.wait()).await,
            Err(error) => Ok(Err(error)),
        };
        let output = probe.end().await;
        match outcome {
            Ok(Ok(exit_code)) => Some(HealthResult { exit_code, output }),
            Ok(Err(ProbeError::Failed(words))) => Some(failed(words)),
            Ok(Err(ProbeError::Unreachable(words))) => {
                tracing::debug!(container = %self.subject.key, error = words, "no health check was run");
                None
            }
            Err(_elapsed) => {
                let limit = go_duration(check.timeout);
                let said = if output.is_empty() { output } else { format!(": {output}") };
                Some(failed(format!("Health check exceeded timeout ({limit}){said}")))
            }
        }
    }

    async fn start(&self, probe: &mut dyn HealthProbe) -> Result<(), ProbeError> {
        let slot = self.starts.acquire().await;
        let give_back = async {
            sleep(SLOT_PATIENCE).await;
            drop(slot);
            std::future::pending().await
        };
        let too_late = |_| {
            ProbeError::Failed(format!("timed out starting health check for container {}", self.subject.id))
        };
        tokio::select! {
            started = timeout(START_LIMIT, probe.start()) => started.map_err(too_late)?,
            never = give_back => never,
        }
    }
}

fn wall() -> Wall {
    SystemTime::now().into()
}

/// A duration as Go prints it: `1m30s`, `2.5s`, `500ms`.
fn go_duration(duration: Duration) -> String {
    let fraction = |whole: u128, unit: u128, name: &str| {
        let (whole, rest) = (whole / unit, whole % unit);
        let digits = unit.to_string().len() - 1;
        let rest = format!("{rest:0digits$}");
        let rest = rest.trim_end_matches('0');
        let point = if rest.is_empty() { "" } else { "." };
        format!("{whole}{point}{rest}{name}")
    };
    let nanoseconds = duration.as_nanos();
    match nanoseconds {
        0 => "0s".to_owned(),
        1..1_000 => format!("{nanoseconds}ns"),
        1_000..1_000_000 => fraction(nanoseconds, 1_000, "µs"),
        1_000_000..1_000_000_000 => fraction(nanoseconds, 1_000_000, "ms"),
        _ => {
            const SECOND: u128 = 1_000_000_000;
            let (hours, minutes) = (nanoseconds / (3600 * SECOND), nanoseconds / (60 * SECOND) % 60);
            let seconds = fraction(nanoseconds % (60 * SECOND), SECOND, "s");
            match (hours, minutes) {
                (0, 0) => seconds,
                (0, _) => format!("{minutes}m{seconds}"),
                _ => format!("{hours}h{minutes}m{seconds}"),
            }
        }
    }
}

#[cfg(test)]
#[path = "health_tests.rs"]
mod tests;
