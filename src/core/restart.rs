//! Restart policies: an exit that is answered by another process of the same container, on its files
//! and in its network (spec/task-engine.md 1.8). The control plane hears nothing of it: the container
//! stays RUNNING.
//!
//! ```text
//!   RUNNING ─an exit that qualifies─> due ─restart─> RUNNING
//!                                      │ └─failed──┐
//!                                      └─stop──────┴─> STOPPED, with that exit
//! ```
//!
//! An exit qualifies by what is known of the process alone: it ran for the policy's period, from its
//! start to its own end, and ended with a code that is not ignored. When the exit is seen does not
//! matter, so one from a time when the agent was away is answered too.
//!
//! The count, the time and the exit that is answered are durable before the restart is begun. By that
//! exit one that is seen again (repeated, or by a reconcile after a crash) is told from the next one.

use crate::core::Action;
use crate::core::container::Operation;
use crate::core::task::Task;
use crate::model::{
    ContainerKey, ContainerProgress, ContainerStatus, ExitRecord, Now, Restarts, StopReason, Wall,
};

impl Task {
    /// Takes an exit for the beginning of a restart, where the policy says so. False: it is the end.
    pub(super) fn restarts_after(&mut self, name: &str, exit: &ExitRecord, now: Now) -> bool {
        if !self.may_restart(name) || !self.qualifies(name, exit) {
            return false;
        }
        // Whether or not anybody saw it run.
        self.learn(name, ContainerStatus::Running, |c| c.started_at = c.started_at.or(c.created_at));
        let Some(container) = self.progress.containers.get_mut(name) else { return false };
        container.restarts = Restarts {
            count: container.restarts.count.saturating_add(1),
            last: Some(now.wall),
            answers: Some(exit.clone()),
            under_way: true,
        };
        true
    }

    /// It has a policy and no reason not to go by it: an exit that is still to be seen may be no end.
    pub fn may_restart(&self, name: &str) -> bool {
        let has_policy = self.spec.container(name).is_some_and(|c| c.restart.is_some());
        let lives = self.progress.containers.get(name).is_some_and(|c| c.known != ContainerStatus::Stopped);
        let doubted = self.runs.get(name).is_some_and(|run| run.doubt.is_some());
        has_policy && lives && !doubted && !self.wants_stop()
    }

    fn qualifies(&self, name: &str, exit: &ExitRecord) -> bool {
        let policy = self.spec.container(name).and_then(|c| c.restart.as_ref());
        let began = self.progress.containers.get(name).and_then(process_began);
        let (Some(policy), Some(code), Some(began)) = (policy, exit.code, began) else { return false };
        !policy.ignored_exit_codes.contains(&code) && exit.at.since(began) >= policy.attempt_period
    }

    /// The process ended and its restart was not seen to be done.
    pub(super) fn restart_due(&self, name: &str) -> bool {
        self.progress.containers.get(name).is_some_and(|c| c.restarts.under_way)
    }

    /// What restarts it, where that is due.
    pub(super) fn restart(&mut self, key: &ContainerKey) -> Option<(Operation, Action)> {
        let restarts = &self.progress.containers.get(&key.name)?.restarts;
        if !restarts.under_way {
            return None;
        }
        self.runs.get_mut(&key.name)?.restart = restarts.count;
        Some((Operation::Restart, Action::Restart { container: key.clone(), arn: self.spec.arn.clone() }))
    }

    /// A restart came to its end. Where its process has ended again, the next one is due already.
    pub(super) fn restarted(&mut self, name: &str, result: Result<Wall, StopReason>) {
        let begun = self.runs.get(name).map(|run| run.restart);
        match result {
            Ok(at) => {
                if let Some(container) = self.progress.containers.get_mut(name)
                    && Some(container.restarts.count) == begun
                {
                    container.restarts.under_way = false;
                }
                self.health_begins(name, at);
            }
            Err(reason) => self.doubts(name, reason),
        }
    }

    /// A process was seen: whatever restart was due is done.
    pub(super) fn restart_seen(&mut self, name: &str, now: Now) {
        if let Some(container) = self.progress.containers.get_mut(name)
            && std::mem::take(&mut container.restarts.under_way)
        {
            self.health_begins(name, now.wall);
        }
    }

    /// This exit is the one that the last restart answers.
    pub(super) fn is_answered(&self, name: &str, exit: &ExitRecord) -> bool {
        self.answered(name) == Some(exit)
    }

    /// An event that tells of a process before the present one. Reconciling does not go by time: it
    /// would find out where a clock went back.
    pub(super) fn is_old_exit(&self, name: &str, exit: &ExitRecord) -> bool {
        self.answered(name).is_some_and(|answered| exit.at <= answered.at)
    }

    fn answered(&self, name: &str) -> Option<&ExitRecord> {
        self.progress.containers.get(name)?.restarts.answers.as_ref()
    }
}

/// When the present process began; of one that was never seen to, when it was made.
fn process_began(container: &ContainerProgress) -> Option<Wall> {
    container.restarts.last.or(container.started_at).or(container.created_at)
}

#[cfg(test)]
#[path = "restart_tests.rs"]
mod tests;
