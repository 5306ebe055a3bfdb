//! When samples are taken, and of what: of every container that the engine knows to run.

use super::table::Statistics;
use crate::model::{ContainerId, ContainerKey, ContainerStatus, TaskSpec, Usage};
use crate::ports::{TaskView, TasksView};
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

/// A container to measure.
#[derive(Debug, Clone)]
pub struct Target {
    /// Which it is.
    pub key: ContainerKey,
    /// Its runtime id.
    pub id: ContainerId,
    /// Its task.
    pub spec: Arc<TaskSpec>,
    /// How often it was restarted; `None` without a restart policy.
    pub restarts: Option<u32>,
}

/// Reads counters. Called on a thread that may block: one round over all targets, then the next.
pub trait Meter: Send + 'static {
    /// A round begins over these targets, and no others.
    fn begin(&mut self, targets: &[Target]);
    /// The counters of one of them, and when they were read.
    ///
    /// # Errors
    /// Where it can't be measured; it is left out of this round.
    fn read(&mut self, target: &Target) -> io::Result<Usage>;
}

/// Samples what runs, every `every`, until the engine is gone.
pub async fn run(
    statistics: Statistics,
    mut tasks: watch::Receiver<TasksView>,
    meter: impl Meter,
    every: Duration,
) {
    let mut round = Round { statistics, meter, targets: Vec::new() };
    while tasks.wait_for(|view| running(view).next().is_some()).await.is_ok() {
        let mut tick = interval(every);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut is_new = true;
        loop {
            tick.tick().await;
            // What was seen last still holds where the engine is gone.
            if std::mem::take(&mut is_new) || tasks.has_changed().unwrap_or(false) {
                round.targets = running(&tasks.borrow_and_update()).collect();
                round.statistics.track(&round.targets);
            }
            if round.targets.is_empty() {
                break;
            }
            // Files of a cgroup may make their reader wait.
            round = match tokio::task::spawn_blocking(move || round.take()).await {
                Ok(round) => round,
                Err(error) => return tracing::error!(%error, "containers are not measured any more"),
            };
        }
    }
}

struct Round<M> {
    statistics: Statistics,
    meter: M,
    targets: Vec<Target>,
}

impl<M: Meter> Round<M> {
    fn take(mut self) -> Self {
        self.meter.begin(&self.targets);
        for target in &self.targets {
            match self.meter.read(target) {
                Ok(usage) => self.statistics.record(&target.key, usage),
                // It has just ended, as a rule.
                Err(error) => tracing::debug!(container = %target.key, %error, "not measured"),
            }
        }
        self
    }
}

/// Every container that is known to run.
fn running(view: &TasksView) -> impl Iterator<Item = Target> {
    view.values().flat_map(|task| of_task(task))
}

fn of_task(task: &TaskView) -> impl Iterator<Item = Target> {
    let told = task.spec.containers.iter().filter(|container| !container.is_internal());
    told.filter_map(|container| {
        let progress = task.progress.containers.get(&container.name)?;
        (progress.known == ContainerStatus::Running).then(|| Target {
            key: task.spec.key(&container.name),
            id: task.spec.container_id(&container.name),
            spec: task.spec.clone(),
            restarts: container.restart.as_ref().map(|_| progress.restarts.count),
        })
    })
}
