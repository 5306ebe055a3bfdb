//! Where measuring meets telling: counters of cgroups and links go into the statistics, and these,
//! the health of containers and the doctor's findings go out by TCS.

use super::doctor::Doctor;
use crate::cgroup::{CgroupService, ContainerMeter, Scratch, host_cpu_ns, host_memory_bytes};
use crate::config::Config;
use crate::control::chain;
use crate::control::tcs::Telemetry;
use crate::model::{
    ContainerHealth, ContainerKey, ContainerStatus, InstanceCheck, Metrics, Mono, NetworkMode, Now,
    TaskHealth, TaskMetrics, Usage,
};
use crate::net::TrafficMeter;
use crate::ports::{TaskView, TasksView};
use crate::stats::{self, Meter, Statistics, Target};
use crate::tmds::{Latest, StatsLookup};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Between two samples, unless ECS_POLL_METRICS asks for something else.
const EVERY: Duration = Duration::from_secs(1);

/// Begins to measure what runs, unless ECS_DISABLE_METRICS says not to, and to do what the doctor is
/// asked for. Answers what there is to tell of it.
pub fn start(
    config: &Config,
    cgroups: Arc<CgroupService>,
    doctor: Arc<Doctor>,
    tasks: watch::Receiver<TasksView>,
    background: &mut JoinSet<()>,
) -> Arc<Told> {
    let every = config.metrics_interval.unwrap_or(EVERY);
    let statistics = Statistics::new(every);
    if !config.metrics_disabled {
        let meter = HostMeter::new(cgroups);
        background.spawn(stats::run(statistics.clone(), tasks.clone(), meter, every));
    }
    let at_work = doctor.clone();
    background.spawn(async move { at_work.run().await });
    Arc::new(Told { statistics, tasks, doctor })
}

/// Reads the counters of this host's containers.
pub struct HostMeter {
    cgroups: Arc<CgroupService>,
    meters: BTreeMap<ContainerKey, ContainerMeter>,
    scratch: Scratch,
    /// `None` until a container is on the bridge, and after the kernel refused.
    traffic: Option<TrafficMeter>,
    host_ns: u64,
    host_cpus: u32,
    host_memory: Option<u64>,
    started: Instant,
}

impl HostMeter {
    /// Of containers in these cgroups and in the network namespace of the threads that use it.
    pub fn new(cgroups: Arc<CgroupService>) -> Self {
        Self {
            cgroups,
            meters: BTreeMap::new(),
            scratch: Scratch::default(),
            traffic: None,
            host_ns: 0,
            host_cpus: stats::processors(),
            host_memory: host_memory_bytes(),
            started: Instant::now(),
        }
    }

    fn refresh_traffic(&mut self) {
        let opened = match self.traffic.take() {
            Some(traffic) => Ok(traffic),
            None => TrafficMeter::open(),
        };
        let refreshed = opened.and_then(|mut traffic| traffic.refresh().map(|()| traffic));
        match refreshed {
            Ok(traffic) => self.traffic = Some(traffic),
            Err(error) => tracing::debug!(error = chain(&error), "traffic is not counted"),
        }
    }
}

impl Meter for HostMeter {
    fn begin(&mut self, targets: &[Target]) {
        let wanted: BTreeSet<&ContainerKey> = targets.iter().map(|target| &target.key).collect();
        self.meters.retain(|key, _| wanted.contains(key));
        self.host_ns = host_cpu_ns().unwrap_or_default();
        if targets.iter().any(|target| target.spec.network_mode == NetworkMode::Bridge) {
            self.refresh_traffic();
        }
        if let Some(traffic) = &mut self.traffic {
            traffic.retain(|key| wanted.contains(key));
        }
    }

    fn read(&mut self, target: &Target) -> io::Result<Usage> {
        let meter = self
            .meters
            .entry(target.key.clone())
            .or_insert_with(|| self.cgroups.meter(&target.key.task, &target.id));
        let mut usage = meter.read(&mut self.scratch)?;
        usage.at = Now { wall: SystemTime::now().into(), mono: Mono(self.started.elapsed()) };
        usage.cpu.host_ns = self.host_ns;
        usage.cpu.host_cpus = self.host_cpus;
        // The host's memory is the limit of those who have no other.
        usage.memory.limit = usage.memory.limit.into_iter().chain(self.host_memory).min();
        if target.spec.network_mode == NetworkMode::Bridge {
            usage.networks = self.traffic.as_mut().and_then(|traffic| traffic.of(&target.key));
        }
        Ok(usage)
    }
}

/// What this agent tells over TCS, and to the containers themselves.
pub struct Told {
    statistics: Statistics,
    tasks: watch::Receiver<TasksView>,
    doctor: Arc<Doctor>,
}

impl StatsLookup for Told {
    fn latest(&self, container: &ContainerKey) -> Option<Latest> {
        self.statistics.latest(container)
    }
}

impl Telemetry for Told {
    fn metrics(&self) -> Metrics {
        self.statistics.metrics()
    }

    fn confirm(&self, told: &[TaskMetrics]) {
        self.statistics.confirm(told);
    }

    fn health(&self) -> Vec<TaskHealth> {
        self.tasks.borrow().values().filter_map(|task| task_health(task)).collect()
    }

    fn checks(&self) -> Vec<InstanceCheck> {
        self.doctor.checks()
    }
}

/// Containers that run and whose health is tracked. That nothing is known yet is told, since the start.
fn task_health(task: &TaskView) -> Option<TaskHealth> {
    let spec = &task.spec;
    let containers = spec.containers.iter().filter_map(|container| {
        let health = task.health.get(&container.name)?;
        let progress = task.progress.containers.get(&container.name)?;
        (progress.known == ContainerStatus::Running).then(|| ContainerHealth {
            name: container.name.clone(),
            status: health.status,
            since: health.since.or(progress.started_at).unwrap_or_default(),
        })
    });
    let containers: Vec<ContainerHealth> = containers.collect();
    (!containers.is_empty()).then(|| TaskHealth {
        arn: spec.arn.clone(),
        family: spec.family.clone(),
        version: spec.version.clone(),
        containers,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{
        ContainerProgress, ContainerSpec, Health, HealthStatus, TaskArn, TaskProgress, TaskSpec, Wall,
    };

    #[test]
    fn health_is_told_of_containers_that_run_and_are_checked() {
        let names = ["fresh", "ill", "plain", "waits"];
        let spec = TaskSpec {
            family: "f".into(),
            version: "1".into(),
            network_mode: NetworkMode::None,
            containers: names.map(ContainerSpec::empty).to_vec(),
            ..TaskSpec::empty(TaskArn::parse("arn:aws:ecs:r:1:task/c/t").unwrap())
        };
        let mut progress = TaskProgress::default();
        for name in names {
            let known = if name == "waits" { ContainerStatus::Created } else { ContainerStatus::Running };
            let started_at = Some(Wall(7));
            let so_far = ContainerProgress { known, started_at, ..ContainerProgress::default() };
            progress.containers.insert(name.into(), so_far);
        }
        let ill = Health { status: HealthStatus::Unhealthy, since: Some(Wall(9)), ..Health::default() };
        let fresh = Health::default;
        let health =
            [("fresh".into(), fresh()), ("ill".into(), ill), ("waits".into(), fresh())].into_iter().collect();
        let mut task = TaskView { spec: Arc::new(spec), progress, waiting_for: None, health };
        let told =
            |name: &str, status, since| ContainerHealth { name: name.into(), status, since: Wall(since) };
        assert_eq!(
            task_health(&task).unwrap().containers,
            [told("fresh", HealthStatus::Unknown, 7), told("ill", HealthStatus::Unhealthy, 9)]
        );
        task.progress.containers.clear();
        assert_eq!(task_health(&task), None);
    }
}
