//! SIGUSR1: what the agent knows, into its log at level critical; the agent goes on. Names, statuses
//! and numbers only: never an environment, a command or a credential.

use crate::control::CredentialsStore;
use crate::model::{ContainerSpec, ContainerStatus};
use crate::ports::{TaskView, TasksView};
use crate::telemetry::CRITICAL;
use crate::tmds::ChecksLookup;
use std::sync::Arc;
use tokio::signal::unix::Signal;
use tokio::sync::watch;

/// Dumps each time that the signal comes; ends with the process.
pub async fn serve(
    mut asked: Signal,
    tasks: watch::Receiver<TasksView>,
    roles: CredentialsStore,
    checks: Arc<dyn ChecksLookup>,
) {
    while asked.recv().await.is_some() {
        let now = tasks.borrow().clone();
        for check in checks.checks() {
            let (status, reason) = (check.status.word(), check.reason);
            tracing::error!(target: CRITICAL, check = check.kind, status, reason, "SIGUSR1: check of the instance");
        }
        dump(&now, roles.len());
    }
}

fn dump(tasks: &TasksView, credentials: usize) {
    let (memory, files) = (resident_memory(), open_files());
    tracing::error!(target: CRITICAL, tasks = tasks.len(), credentials, memory, open_files = files, "SIGUSR1: state of the agent");
    for task in tasks.values() {
        let (spec, progress) = (&task.spec, &task.progress);
        tracing::error!(
            target: CRITICAL,
            task = %spec.arn,
            family = spec.family,
            version = spec.version,
            known = progress.known.word(),
            desired = progress.desired.word(),
            sent = progress.sent.word(),
            admitted = progress.admitted,
            waits_for = task.waiting_for.as_deref().unwrap_or_default(),
            reason = progress.reason,
            "SIGUSR1: task"
        );
        for container in &spec.containers {
            dump_container(task, container);
        }
    }
    tracing::error!(target: CRITICAL, "SIGUSR1: end of the state");
}

fn dump_container(task: &TaskView, spec: &ContainerSpec) {
    let progress = task.progress.containers.get(&spec.name).cloned().unwrap_or_default();
    let waits_for: Vec<String> = if progress.known < ContainerStatus::Created {
        spec.depends_on.iter().map(|on| format!("{} {:?}", on.container, on.condition)).collect()
    } else {
        Vec::new()
    };
    tracing::error!(
        target: CRITICAL,
        task = %task.spec.id(),
        container = spec.name,
        image = spec.image,
        known = progress.known.word(),
        sent = progress.sent.word(),
        waits_for = waits_for.join(", "),
        exit_code = progress.exit.and_then(|exit| exit.code),
        error = progress.error.map(|error| error.to_string()),
        "SIGUSR1: container"
    );
}

/// Resident memory of this process, such as `13560 kB`; blank where /proc does not tell.
fn resident_memory() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.unwrap_or_default().trim().to_owned()
}

/// How many descriptors are open.
fn open_files() -> usize {
    std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count)
}
