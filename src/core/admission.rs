//! Who may use the host: CPU, memory, GPUs and fixed ports (spec/task-engine.md 1.7).
//!
//! What is in use is never counted up and down: it is the sum over admitted tasks that have not
//! stopped, so it can't drift. The queue is gone through at the end of every step that brought a task
//! or left room, so what one task gave back goes to another within the same step.
//!
//! **The order.** Tasks are admitted in order of arrival. A later one that fits does not wait for an
//! earlier one that does not, lest one large task stop the host; but it may overtake the *head*, the
//! first that waits, only [`OVERTAKEN_MOST`] times. After that all that the head wants is set aside for
//! it: a later one is admitted only if the head would still fit into what is free, or could as far as
//! it ever can: what the head has enough of already may be shared, what it lacks may not be touched.
//! So from then on room only grows until the head fits, and no stream of small tasks starves it; while
//! a head that waits for nothing but a port holds up only who wants that port, too. The head after it
//! has a count of its own. (Counting, and not time: how often others were preferred is what is unfair,
//! and the order stays the same however long the tasks run.)
//!
//! A task that would not even fit into an empty host ends here, with the reason: it is no head.

use crate::core::task::Holds;
use crate::core::{Rules, State, Step};
use crate::model::{DesiredStatus, HostResources, Now, ResourceClaim, TaskId, TaskStatus};
use std::collections::BTreeSet;
use std::fmt;

/// How many later tasks may overtake the head of the queue.
pub const OVERTAKEN_MOST: u32 = 10;
/// Of those who hold what a task waits for, so many are named.
const HOLDERS_NAMED: usize = 3;

/// Why a task can't be admitted.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Refusal {
    Scarce { what: &'static str, wanted: u64, free: u64, all: u64 },
    Port { protocol: &'static str, port: u16 },
    Gpu { gpu: String },
}

impl State {
    pub(super) fn admit(&mut self, now: Now, step: &mut Step) {
        if !self.reconciled || !std::mem::take(&mut self.queue_due) {
            return;
        }
        self.queue_rounds += 1;
        if self.queue.is_empty() {
            return;
        }
        let mut in_use = self.in_use();
        let mut head: Option<(TaskId, ResourceClaim, u32)> = None;
        let (mut admitted, mut hopeless) = (Vec::new(), Vec::new());
        let mut waiting = std::mem::take(&mut self.queue);
        waiting.retain(|id| {
            let Some(task) = self.tasks.get_mut(id) else { return false };
            if task.progress.desired == DesiredStatus::Stopped || task.progress.known == TaskStatus::Stopped {
                return false;
            }
            if let Some(refusal) = self.rules.refusal(&ResourceClaim::default(), &task.claim) {
                hopeless.push((id.clone(), refusal));
                return false;
            }
            if self.rules.refusal(&in_use, &task.claim).is_some() {
                head.get_or_insert_with(|| (id.clone(), task.claim.clone(), task.overtaken));
                return true;
            }
            if let Some((_, claim, overtaken)) = &mut head {
                if *overtaken >= OVERTAKEN_MOST && self.rules.delays(&in_use, claim, &task.claim) {
                    return true;
                }
                *overtaken = overtaken.saturating_add(1);
            }
            add(&mut in_use, &task.claim);
            task.progress.admitted = true;
            admitted.push(id.clone());
            false
        });
        self.queue = waiting;
        if let Some((id, _, overtaken)) = head
            && let Some(task) = self.tasks.get_mut(&id)
        {
            task.overtaken = overtaken;
        }
        for (id, refusal) in hopeless {
            if let Some(task) = self.tasks.get_mut(&id) {
                task.give_up(&format!("HostResourceError: {refusal}: this host can never run the task"), now);
            }
            admitted.push(id);
        }
        for id in admitted {
            step.persist.insert(id.clone());
            self.advance(&id, now, step);
        }
    }

    /// What admitted tasks use: all of their claim until the last container has ended, and their
    /// ports until those are given back.
    pub fn in_use(&self) -> ResourceClaim {
        let mut sum = ResourceClaim::default();
        for task in self.tasks.values() {
            match task.holds() {
                Holds::All => add(&mut sum, &task.claim),
                Holds::Ports => add_ports(&mut sum, &task.claim),
                Holds::Nothing => {}
            }
        }
        sum
    }

    /// What a task still waits for and who holds it, in words; `None` where it does not wait.
    pub fn waiting_for(&self, id: &TaskId) -> Option<String> {
        let task = self.tasks.get(id).filter(|_| self.queue.contains(id))?;
        let Some(refusal) = self.rules.refusal(&self.in_use(), &task.claim) else {
            let head = self.queue.front().filter(|head| *head != id)?;
            return Some(format!("task {head}, which {OVERTAKEN_MOST} later tasks have overtaken"));
        };
        let held = self.holders(&refusal);
        Some(if held.is_empty() { refusal.to_string() } else { format!("{refusal}; held by {held}") })
    }

    /// Who holds what a task was refused, the most first.
    fn holders(&self, refusal: &Refusal) -> String {
        let mut holders: Vec<(u64, &TaskId)> = Vec::new();
        for (id, task) in &self.tasks {
            let holds = task.holds();
            let amount = match refusal {
                _ if holds == Holds::Nothing => 0,
                Refusal::Port { protocol: "TCP", port } => task.claim.tcp.contains(port).into(),
                Refusal::Port { port, .. } => task.claim.udp.contains(port).into(),
                _ if holds == Holds::Ports => 0,
                Refusal::Gpu { gpu } => task.claim.gpus.contains(gpu).into(),
                Refusal::Scarce { what: "CPU", .. } => task.claim.cpu,
                Refusal::Scarce { .. } => task.claim.memory_mib,
            };
            if amount > 0 {
                holders.push((amount, id));
            }
        }
        holders.sort_by_key(|(amount, _)| std::cmp::Reverse(*amount));
        let mut words: Vec<String> = Vec::new();
        for (amount, id) in holders.iter().take(HOLDERS_NAMED) {
            words.push(match refusal {
                Refusal::Port { .. } | Refusal::Gpu { .. } => format!("task {id}"),
                Refusal::Scarce { .. } => format!("task {id} ({amount})"),
            });
        }
        if holders.len() > HOLDERS_NAMED {
            words.push(format!("{} more", holders.len() - HOLDERS_NAMED));
        }
        words.join(", ")
    }
}

impl Rules {
    /// A GPU of the claim that this host does not have.
    pub(super) fn unknown_gpu<'a>(&self, claim: &'a ResourceClaim) -> Option<&'a String> {
        claim.gpus.iter().find(|gpu| !self.host.gpus.contains(*gpu))
    }

    /// Why a claim can't be met beside what is in use; `None` where it can.
    fn refusal(&self, in_use: &ResourceClaim, claim: &ResourceClaim) -> Option<Refusal> {
        let host = &self.host;
        let scarce = |what: &'static str, wanted: u64, used: u64, all: u64| {
            let free = all.saturating_sub(used);
            (wanted > free).then_some(Refusal::Scarce { what, wanted, free, all })
        };
        let taken = |protocol: &'static str, wanted: &BTreeSet<u16>, sets: [&BTreeSet<u16>; 2]| {
            let port = wanted.iter().find(|port| sets.iter().any(|set| set.contains(port)));
            port.map(|port| Refusal::Port { protocol, port: *port })
        };
        let unavailable = |gpu: &&String| !host.gpus.contains(*gpu) || in_use.gpus.contains(*gpu);
        let gpu = || claim.gpus.iter().find(unavailable).map(|gpu| Refusal::Gpu { gpu: gpu.clone() });
        scarce("CPU", claim.cpu, in_use.cpu, host.cpu)
            .or_else(|| scarce("MEMORY", claim.memory_mib, in_use.memory_mib, host.memory_mib))
            .or_else(|| taken("TCP", &claim.tcp, [&in_use.tcp, &host.reserved_tcp]))
            .or_else(|| taken("UDP", &claim.udp, [&in_use.udp, &host.reserved_udp]))
            .or_else(gpu)
    }

    /// A task with that claim would take what is set aside for the head: more than is left of what is
    /// free when the head has all that it wants.
    fn delays(&self, in_use: &ResourceClaim, head: &ResourceClaim, claim: &ResourceClaim) -> bool {
        let HostResources { cpu, memory_mib, .. } = self.host;
        let takes = |wanted: u64, used: u64, head: u64, all: u64| {
            wanted > 0 && wanted > all.saturating_sub(used).saturating_sub(head)
        };
        takes(claim.cpu, in_use.cpu, head.cpu, cpu)
            || takes(claim.memory_mib, in_use.memory_mib, head.memory_mib, memory_mib)
            || !claim.tcp.is_disjoint(&head.tcp)
            || !claim.udp.is_disjoint(&head.udp)
            || !claim.gpus.is_disjoint(&head.gpus)
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Scarce { what, wanted, free, all } => {
                write!(f, "{what}: wants {wanted}, free {free} of {all}")
            }
            Self::Port { protocol, port } => write!(f, "{protocol} port {port} is taken"),
            Self::Gpu { gpu } => write!(f, "GPU {gpu} is taken"),
        }
    }
}

fn add(sum: &mut ResourceClaim, claim: &ResourceClaim) {
    sum.cpu = sum.cpu.saturating_add(claim.cpu);
    sum.memory_mib = sum.memory_mib.saturating_add(claim.memory_mib);
    sum.gpus.extend(claim.gpus.iter().cloned());
    add_ports(sum, claim);
}

fn add_ports(sum: &mut ResourceClaim, claim: &ResourceClaim) {
    sum.tcp.extend(&claim.tcp);
    sum.udp.extend(&claim.udp);
}
