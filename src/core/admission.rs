//! Who may use the host: CPU, memory and fixed ports (spec/task-engine.md 1.7).
//!
//! What is in use is never counted up and down: it is the sum over admitted tasks that have not
//! stopped, so it can't drift. Waiting tasks are admitted in order of arrival, and one that fits does
//! not wait for one that doesn't. It runs at the end of every step, so what one task gave back goes to
//! another within the same step.

use crate::core::{State, Step};
use crate::model::{DesiredStatus, Now, ResourceClaim, TaskId, TaskStatus};

impl State {
    pub(super) fn admit(&mut self, now: Now, step: &mut Step) {
        if !self.reconciled || self.queue.is_empty() {
            return;
        }
        let mut in_use = self.in_use();
        let mut waiting = std::mem::take(&mut self.queue);
        let mut admitted = Vec::new();
        waiting.retain(|id| {
            let Some(task) = self.tasks.get_mut(id) else { return false };
            if task.progress.desired == DesiredStatus::Stopped || task.progress.known == TaskStatus::Stopped {
                return false;
            }
            let claim = task.spec.claim();
            if self.rules.refusal(&in_use, &claim).is_some() {
                return true;
            }
            add(&mut in_use, &claim);
            task.progress.admitted = true;
            admitted.push(id.clone());
            false
        });
        self.queue = waiting;
        for id in admitted {
            step.persist.insert(id.clone());
            self.advance(&id, now, step);
        }
    }

    /// What admitted tasks use: all of their claim until the last container has ended, and their
    /// ports until those are given back.
    pub fn in_use(&self) -> ResourceClaim {
        let mut sum = ResourceClaim::default();
        for task in self.tasks.values().filter(|task| task.progress.admitted) {
            if task.progress.known != TaskStatus::Stopped {
                add(&mut sum, &task.spec.claim());
            } else if !task.all_released() {
                add(&mut sum, &ResourceClaim { cpu: 0, memory_mib: 0, ..task.spec.claim() });
            }
        }
        sum
    }

    /// What a task still waits for, in words; `None` where it does not wait.
    pub fn waiting_for(&self, id: &TaskId) -> Option<String> {
        let task = self.tasks.get(id).filter(|_| self.queue.contains(id))?;
        self.rules.refusal(&self.in_use(), &task.spec.claim())
    }
}

impl super::Rules {
    /// A GPU that this host has never had: waiting for it would be in vain.
    pub(super) fn unknown_gpu<'a>(&self, claim: &'a ResourceClaim) -> Option<&'a String> {
        claim.gpus.iter().find(|gpu| !self.host.gpus.contains(*gpu))
    }

    /// Why a claim can't be met beside what is in use; `None` where it can.
    fn refusal(&self, in_use: &ResourceClaim, claim: &ResourceClaim) -> Option<String> {
        let scarce = |what: &str, wanted: u64, used: u64, all: u64| {
            let free = all.saturating_sub(used);
            (wanted > free).then(|| format!("{what}: wants {wanted}, free {free} of {all}"))
        };
        let taken = |what: &str,
                     wanted: &std::collections::BTreeSet<u16>,
                     sets: [&std::collections::BTreeSet<u16>; 2]| {
            let port = wanted.iter().find(|port| sets.iter().any(|set| set.contains(port)));
            port.map(|port| format!("{what} port {port} is taken"))
        };
        let unavailable = |gpu: &String| !self.host.gpus.contains(gpu) || in_use.gpus.contains(gpu);
        let gpu = || claim.gpus.iter().find(|gpu| unavailable(gpu)).map(|gpu| format!("GPU {gpu} is taken"));
        scarce("CPU", claim.cpu, in_use.cpu, self.host.cpu)
            .or_else(|| scarce("MEMORY", claim.memory_mib, in_use.memory_mib, self.host.memory_mib))
            .or_else(|| taken("TCP", &claim.tcp, [&in_use.tcp, &self.host.reserved_tcp]))
            .or_else(|| taken("UDP", &claim.udp, [&in_use.udp, &self.host.reserved_udp]))
            .or_else(gpu)
    }
}

fn add(sum: &mut ResourceClaim, claim: &ResourceClaim) {
    sum.cpu = sum.cpu.saturating_add(claim.cpu);
    sum.memory_mib = sum.memory_mib.saturating_add(claim.memory_mib);
    sum.tcp.extend(&claim.tcp);
    sum.udp.extend(&claim.udp);
    sum.gpus.extend(claim.gpus.iter().cloned());
}
