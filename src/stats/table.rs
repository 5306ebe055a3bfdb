//! The queues of all containers, behind one lock that is held for microseconds.

use super::queue::{Figures, Queue};
use super::sampler::Target;
use crate::model::{ContainerKey, ContainerMetrics, Metrics, TaskMetrics, Usage};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How often the control plane is told.
const PUBLISH: Duration = Duration::from_secs(20);
/// Publications whose samples are kept while they can't be written.
const PUBLICATIONS_KEPT: f64 = 4.0;

/// What is known of every measured container. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Statistics {
    table: Arc<Mutex<Table>>,
}

#[derive(Debug)]
struct Table {
    containers: BTreeMap<ContainerKey, Entry>,
    /// Samples kept of each.
    capacity: usize,
    cores: u32,
}

#[derive(Debug)]
struct Entry {
    target: Target,
    queue: Queue,
}

impl Statistics {
    /// For samples taken so often: those of four publications are kept, 80 where it is every second.
    pub fn new(interval: Duration) -> Self {
        let kept = PUBLISH.as_secs_f64() / interval.as_secs_f64().max(1.0) * PUBLICATIONS_KEPT;
        let table = Table { containers: BTreeMap::new(), capacity: kept as usize, cores: processors() };
        Self { table: Arc::new(Mutex::new(table)) }
    }

    /// Measures these from now on, and no others.
    pub fn track(&self, targets: &[Target]) {
        let mut table = self.lock();
        let capacity = table.capacity;
        let wanted: BTreeSet<&ContainerKey> = targets.iter().map(|target| &target.key).collect();
        table.containers.retain(|key, _| wanted.contains(key));
        for target in targets {
            table
                .containers
                .entry(target.key.clone())
                .and_modify(|entry| entry.target.restarts = target.restarts)
                .or_insert_with(|| Entry { target: target.clone(), queue: Queue::new(capacity) });
        }
    }

    /// Takes a sample of a container that is tracked.
    pub fn record(&self, container: &ContainerKey, usage: Usage) {
        let mut table = self.lock();
        let cores = table.cores;
        if let Some(entry) = table.containers.get_mut(container) {
            entry.queue.push(usage, cores, entry.target.restarts);
        }
    }

    /// Figures over all samples that were not confirmed yet. Containers of which too little is known
    /// are left out, and so are tasks without any other.
    pub fn metrics(&self) -> Metrics {
        let table = self.lock();
        let mut tasks: Vec<TaskMetrics> = Vec::new();
        // The containers of a task are neighbours.
        for (entry, figures) in table.containers.values().filter_map(|e| Some((e, e.queue.figures()?))) {
            let spec = &entry.target.spec;
            let container = container_metrics(&entry.target, figures);
            match tasks.last_mut().filter(|task| task.arn == spec.arn) {
                Some(task) => task.containers.push(container),
                None => tasks.push(TaskMetrics {
                    arn: spec.arn.clone(),
                    family: spec.family.clone(),
                    version: spec.version.clone(),
                    containers: vec![container],
                }),
            }
        }
        Metrics { is_idle: table.containers.is_empty(), tasks }
    }

    /// These were written: what is in them is not told again.
    pub fn confirm(&self, told: &[TaskMetrics]) {
        let mut table = self.lock();
        for task in told {
            for container in &task.containers {
                let key = ContainerKey { task: task.arn.id(), name: container.name.clone() };
                if let Some(entry) = table.containers.get_mut(&key) {
                    entry.queue.confirm(container.newest);
                }
            }
        }
    }

    /// The newest sample of a container, and the one before; `None` before the first.
    pub fn latest(&self, container: &ContainerKey) -> Option<(Arc<Usage>, Option<Arc<Usage>>)> {
        self.lock().containers.get(container)?.queue.latest()
    }

    /// A panic elsewhere left the table as it was: each change is whole.
    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn container_metrics(target: &Target, figures: Figures) -> ContainerMetrics {
    let Figures { newest, cpu, memory, storage, network, restarts } = figures;
    ContainerMetrics { name: target.key.name.clone(), newest, cpu, memory, storage, network, restarts }
}

/// The processors that this process may use, as the original counts those of the instance.
pub fn processors() -> u32 {
    let own = nix::unistd::Pid::from_raw(0);
    let usable = nix::sched::sched_getaffinity(own).map_or(1, |set| {
        (0..nix::sched::CpuSet::count()).filter(|cpu| set.is_set(*cpu).unwrap_or(false)).count()
    });
    u32::try_from(usable).unwrap_or(1).max(1)
}
