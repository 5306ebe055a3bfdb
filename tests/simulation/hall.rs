//! Tasks that do nothing but take room, come and end: for the order in which they are admitted.

use ecsd::core::{Action, Effect, EffectId, Event, OVERTAKEN_MOST, Outcome, Rules, State, Timeouts};
use ecsd::model::*;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

const CPU: u64 = 1000;
const MEMORY_MIB: u64 = 1000;

#[derive(Debug, Clone)]
pub enum Visit {
    Comes {
        cpu: u64,
        memory_mib: u64,
        port: Option<u16>,
    },
    /// The n-th of those that run.
    Ends(u8),
}

pub struct Hall {
    state: State,
    now: Now,
    /// In order of arrival, which is the order of their ids.
    specs: BTreeMap<TaskId, Arc<TaskSpec>>,
    running: BTreeSet<TaskId>,
    /// How many later ones were admitted while a task was the first that waits.
    overtaken: BTreeMap<TaskId, u32>,
}

impl Hall {
    pub fn new() -> Self {
        let rules = Rules {
            host: HostResources { cpu: CPU, memory_mib: MEMORY_MIB, ..HostResources::default() },
            stop_timeout: Duration::from_secs(30),
            cleanup_wait: Duration::from_secs(60),
            cleanup_jitter: Duration::ZERO,
            timeouts: Timeouts::default(),
            pull_failure_stops_task: false,
            pull_upfront: false,
        };
        let mut hall = Self {
            state: State::new(rules),
            now: Now { wall: Wall(1_000_000_000), mono: Mono(Duration::from_secs(1)) },
            specs: BTreeMap::new(),
            running: BTreeSet::new(),
            overtaken: BTreeMap::new(),
        };
        let as_of = hall.state.look();
        hall.step(Event::Reconciled { containers: BTreeMap::new(), as_of });
        hall
    }

    pub fn apply(&mut self, visit: Visit) {
        match visit {
            Visit::Comes { cpu, memory_mib, port } => {
                let arn = format!("arn:aws:ecs:us-east-1:1:task/c/t{:05}", self.specs.len());
                let ports = port.map(|host_port| PortMapping {
                    container: PortRange { first: 80, count: 1, is_range: false },
                    host_port,
                    protocol: Protocol::Tcp,
                });
                let container = ContainerSpec {
                    cpu_shares: cpu,
                    memory_mib,
                    ports: ports.into_iter().collect(),
                    ..ContainerSpec::empty("main")
                };
                let arn = TaskArn::parse(&arn).unwrap();
                let spec = Arc::new(TaskSpec { containers: vec![container], ..TaskSpec::empty(arn) });
                self.specs.insert(spec.id(), spec.clone());
                self.step(Event::TaskWanted { spec, desired: DesiredStatus::Running });
            }
            Visit::Ends(n) => {
                let which = usize::from(n).checked_rem(self.running.len()).unwrap_or_default();
                if let Some(id) = self.running.iter().nth(which).cloned() {
                    self.end(&id);
                }
            }
        }
    }

    /// All that run end, and those that are admitted then, until nobody waits.
    pub fn everybody_leaves(&mut self) {
        for _ in 0..=self.specs.len() {
            for id in self.running.clone() {
                self.end(&id);
            }
        }
        let waiting: Vec<_> = self.state.queue().collect();
        assert!(waiting.is_empty(), "{waiting:?} wait in an empty hall");
    }

    /// Nothing of it was started, so it ends at once; its port is given back with the answer.
    fn end(&mut self, id: &TaskId) {
        self.running.remove(id);
        let spec = self.specs[id].clone();
        self.step(Event::TaskWanted { spec, desired: DesiredStatus::Stopped });
    }

    fn step(&mut self, event: Event) {
        let effects = self.state.step(event, self.now);
        self.check();
        let release = |effect: Effect| match effect {
            Effect::Run { id, action: Action::Release { .. }, .. } => Some(id),
            _ => None,
        };
        let releases: Vec<EffectId> = effects.into_iter().filter_map(release).collect();
        for id in releases {
            self.step(Event::Done { id, outcome: Outcome::Released(Ok(())) });
        }
    }

    fn check(&mut self) {
        let live =
            |task: &ecsd::core::Task| task.progress.admitted && task.progress.known < TaskStatus::Stopped;
        let tasks = self.state.tasks();
        let admitted: Vec<TaskId> = tasks
            .iter()
            .filter(|(id, task)| live(task) && !self.running.contains(*id))
            .map(|(id, _)| id.clone())
            .collect();
        let in_use = self.state.in_use();
        if let Some(head) = self.state.queue().next() {
            let wants = self.specs[head].claim();
            let overtaken = self.overtaken.entry(head.clone()).or_default();
            for later in admitted.iter().filter(|id| *id > head) {
                *overtaken += 1;
                if *overtaken > OVERTAKEN_MOST {
                    let takes = self.specs[later].claim();
                    let leaves =
                        |takes: u64, used: u64, wants: u64, all: u64| takes == 0 || used + wants <= all;
                    assert!(
                        leaves(takes.cpu, in_use.cpu, wants.cpu, CPU)
                            && leaves(takes.memory_mib, in_use.memory_mib, wants.memory_mib, MEMORY_MIB)
                            && takes.tcp.is_disjoint(&wants.tcp),
                        "{later} ({takes:?}) delays {head} ({wants:?}), which {overtaken} have overtaken"
                    );
                }
            }
        }
        for id in self.state.queue() {
            assert!(self.state.waiting_for(id).is_some(), "{id} waits for nothing");
        }
        self.running.extend(admitted);
    }
}
