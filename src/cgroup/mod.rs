//! cgroups of tasks: one for each, with the task's limits; containers' cgroups are made below it by
//! the runtime (spec/task-engine.md 1.13).
//!
//! ```text
//!   v1: <controller>/ecs/<task id>/<container id>       v2: /sys/fs/cgroup/ecs/<task id>/<container id>
//! ```
//!
//! Limits are applied whenever a task is prepared, also where its cgroup is there already: the runtime
//! may have made it first. Nothing outside the agent's own root is ever touched. All calls block, for
//! microseconds to a few milliseconds; the engine gives them a thread.

mod limits;

pub use limits::TaskLimits;

use crate::model::{ContainerId, StopReason, TaskId, TaskSpec};
use crate::ports::Cgroups;
use cgroups_rs::fs::cpu::CpuController;
use cgroups_rs::fs::memory::MemController;
use cgroups_rs::fs::pid::PidController;
use cgroups_rs::fs::{Cgroup, MaxValue, hierarchies};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Controllers that carry limits.
const CONTROLLERS: [&str; 3] = ["cpu", "memory", "pids"];
/// Where hierarchies are mounted (`ECS_CGROUP_PATH` of the original).
const MOUNT: &str = "/sys/fs/cgroup";
/// A cgroup whose last process has just ended may be busy for a moment.
const BUSY: (u32, Duration) = (20, Duration::from_millis(10));

/// How tasks' cgroups are made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CgroupOptions {
    /// Name of the agent's own root, a single path segment.
    pub root: String,
    /// Most processes of a task (`ECS_TASK_PIDS_LIMIT`); `None` is no limit.
    pub pids: Option<u32>,
}

impl Default for CgroupOptions {
    fn default() -> Self {
        Self { root: "ecs".to_owned(), pids: None }
    }
}

/// The service can't be used on this host.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    /// Not one path segment.
    #[error("ECSD_CGROUP_ROOT {0:?} is no cgroup name: use letters, digits, '-', '_' and '.'")]
    Root(String),
}

/// cgroups below one root.
#[derive(Debug, Clone)]
pub struct CgroupService {
    options: CgroupOptions,
}

impl CgroupService {
    /// Checks the options; touches nothing.
    ///
    /// # Errors
    /// [`CgroupError::Root`]
    pub fn new(options: CgroupOptions) -> Result<Self, CgroupError> {
        let fit = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        let root = &options.root;
        if root.is_empty() || root.len() > 64 || root.starts_with('.') || !root.chars().all(fit) {
            return Err(CgroupError::Root(root.chars().take(80).collect()));
        }
        Ok(Self { options })
    }

    /// Removes the root and everything below it (for `ecsd local`, which leaves nothing).
    ///
    /// # Errors
    /// What could not be removed.
    pub fn remove_root(&self) -> io::Result<()> {
        remove_everywhere(Path::new(&self.options.root))
    }

    fn relative(&self, task: &TaskId) -> PathBuf {
        Path::new(&self.options.root).join(task.as_str())
    }
}

impl Cgroups for CgroupService {
    fn prepare(&self, spec: &TaskSpec) -> Result<(), StopReason> {
        let path = self.relative(&spec.id());
        let limits = TaskLimits::of(spec);
        let failed = |what: &str, error: cgroups_rs::fs::error::Error| {
            let message = format!("cgroup {}: {what}: {error}", path.display());
            StopReason::new("ResourceInitializationError", message)
        };
        let controllers = CONTROLLERS.map(str::to_owned).to_vec();
        let group = Cgroup::new_with_specified_controllers(hierarchies::auto(), &path, Some(controllers))
            .map_err(|error| failed("create", error))?;
        if let Some(cpu) = group.controller_of::<CpuController>() {
            match limits.cpu_quota_us {
                Some((quota, period)) => cpu
                    .set_cfs_quota_and_period(Some(quota), Some(period))
                    .map_err(|error| failed("CPU quota", error))?,
                None => cpu.set_shares(limits.cpu_shares).map_err(|error| failed("CPU shares", error))?,
            }
        }
        if let (Some(memory), Some(bytes)) = (group.controller_of::<MemController>(), limits.memory_bytes) {
            memory.set_limit(bytes).map_err(|error| failed("memory limit", error))?;
        }
        if let (Some(pids), Some(most)) = (group.controller_of::<PidController>(), self.options.pids) {
            pids.set_pid_max(MaxValue::Value(i64::from(most)))
                .map_err(|error| failed("pids limit", error))?;
        }
        Ok(())
    }

    fn container_path(&self, task: &TaskId, container: &ContainerId) -> String {
        format!("/{}/{task}/{container}", self.options.root)
    }

    fn remove(&self, task: &TaskId) -> Result<(), StopReason> {
        let path = self.relative(task);
        remove_everywhere(&path).map_err(|error| {
            StopReason::new("CannotRemoveCgroupError", format!("cgroup {}: {error}", path.display()))
        })
    }
}

/// Removes a cgroup and those below it in every hierarchy that is mounted: the runtime makes them in
/// all of them, not only where we set limits.
fn remove_everywhere(relative: &Path) -> io::Result<()> {
    let mut roots = vec![PathBuf::from(MOUNT)];
    if !hierarchies::is_cgroup2_unified_mode() {
        roots = std::fs::read_dir(MOUNT)?.flatten().map(|entry| entry.path()).collect();
    }
    let mut result = Ok(());
    for root in roots {
        // All are tried; the first error is told.
        result = result.and(remove_tree(&root.join(relative)));
    }
    result
}

/// Children first: a cgroup is removed by rmdir, and only when it is empty.
fn remove_tree(path: &Path) -> io::Result<()> {
    let entries = match std::fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    for entry in entries.flatten() {
        if entry.file_type()?.is_dir() {
            remove_tree(&entry.path())?;
        }
    }
    let (tries, pause) = BUSY;
    for _ in 1..tries {
        match std::fs::remove_dir(path) {
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => std::thread::sleep(pause),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => return other,
        }
    }
    std::fs::remove_dir(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_segment_is_a_root() {
        for root in ["", "a/b", "..", ".", "a b", "/ecs"] {
            let options = CgroupOptions { root: root.into(), pids: None };
            assert!(CgroupService::new(options).is_err(), "{root:?}");
        }
        assert!(CgroupService::new(CgroupOptions::default()).is_ok());
    }
}
