//! The cgroups of tasks: one for each task, with the task's limits; its containers' cgroups are
//! made below it by the runtime.
//!
//! | host | task's cgroup | path in the OCI spec |
//! |---|---|---|
//! | v1 (and hybrid) | `/ecs/<task>` in cpu, cpuacct, memory, pids | `/ecs/<task>/<container>` |
//! | v2, no systemd | `/ecs/<task>`, controllers enabled from the top | `/ecs/<task>/<container>` |
//! | v2, systemd | `ecstasks.slice/ecstasks-<task>.slice` | `ecstasks-<task>.slice:ecs:<container>` |
//!
//! Owns everything below its root directory (or slice), and never touches anything else. Limits are
//! applied whenever a task is prepared, whether its cgroup was there or not: the runtime may have
//! made it first (spec/task-engine.md 1.13). Never ends a process. Every call blocks, for
//! microseconds on a file system, for a D-Bus exchange under systemd.

mod files;
mod limits;
mod slices;
mod usage;
mod usage_v1;
mod usage_v2;

pub use usage::{ContainerMeter, Scratch, host_cpu_ns, host_memory_bytes};

use crate::model::{ContainerId, StopReason, TaskId, TaskSpec};
use crate::ports::Cgroups;
use cgroups_rs::fs::hierarchies;
use files::FileGroups;
use limits::TaskLimits;
use slices::SystemdSlices;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How to keep the cgroups of tasks. [`CgroupOptions::default`] is right for an agent.
#[derive(Debug, Clone)]
pub struct CgroupOptions {
    /// Name of the root directory, and of the slice (`<name>tasks.slice`); 1 to 64 characters
    /// `[A-Za-z0-9_]`.
    pub root: String,
    /// Processes and threads of one task (ECS_TASK_PIDS_LIMIT); `None` is no limit.
    pub task_pids: Option<u32>,
    /// The period over which a task's CPU quota is counted (ECS_CGROUP_CPU_PERIOD); the kernel takes
    /// 1 ms to 1 s.
    pub cpu_period: Duration,
}

impl Default for CgroupOptions {
    fn default() -> Self {
        Self { root: "ecs".to_owned(), task_pids: None, cpu_period: Duration::from_millis(100) }
    }
}

/// A cgroup could not be made, limited or removed.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    /// The root's name is none.
    #[error("{0:?} can't name the cgroup root: 1 to 64 characters [A-Za-z0-9_]")]
    Root(String),
    /// The host has no cgroups of either version.
    #[error("no cgroup hierarchy with cpu and memory is mounted below /sys/fs/cgroup")]
    NoHierarchy,
    /// A file or directory could not be changed.
    #[error("could not {action} {path}")]
    File {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// cgroups-rs failed.
    #[error("could not {action} cgroup {path}")]
    Group {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: String,
        /// Why not.
        #[source]
        source: cgroups_rs::fs::error::Error,
    },
    /// There are processes in it.
    #[error("cgroup {path} still has processes")]
    Busy {
        /// The cgroup.
        path: PathBuf,
    },
    /// systemd refused.
    #[error("systemd could not {action} {unit}: {message}")]
    Systemd {
        /// What was tried.
        action: &'static str,
        /// On what.
        unit: String,
        /// What it said.
        message: String,
    },
}

impl CgroupError {
    fn file(action: &'static str, path: &Path, source: io::Error) -> Self {
        Self::File { action, path: path.to_owned(), source }
    }

    /// As users see it, with all causes.
    pub fn reason(&self) -> StopReason {
        let mut text = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            text.push_str(&format!(": {error}"));
            cause = error.source();
        }
        StopReason::new("CannotCreateContainerError", text)
    }
}

#[derive(Debug)]
enum Kind {
    Files(FileGroups),
    Slices(SystemdSlices),
}

/// The cgroups of this host's tasks.
#[derive(Debug)]
pub struct CgroupService {
    kind: Kind,
    options: CgroupOptions,
}

impl CgroupService {
    /// Looks at what the host has; makes nothing.
    ///
    /// # Errors
    /// A bad name, or a host without cgroups.
    pub fn new(options: CgroupOptions) -> Result<Self, CgroupError> {
        let fit = |c: char| c.is_ascii_alphanumeric() || c == '_';
        if options.root.is_empty() || options.root.len() > 64 || !options.root.chars().all(fit) {
            return Err(CgroupError::Root(options.root.chars().take(80).collect()));
        }
        let systemd = Path::new("/run/systemd/system").is_dir();
        let kind = if hierarchies::is_cgroup2_unified_mode() && systemd {
            Kind::Slices(SystemdSlices::new(&options.root))
        } else {
            Kind::Files(FileGroups::new(&options.root)?)
        };
        Ok(Self { kind, options })
    }

    /// Whether the runtime must be told to make containers' cgroups by systemd (runc's option
    /// `SystemdCgroup`).
    pub fn systemd_cgroup(&self) -> bool {
        matches!(self.kind, Kind::Slices(_))
    }

    /// The files that tell what a container uses; touches none of them yet.
    pub fn meter(&self, task: &TaskId, container: &ContainerId) -> ContainerMeter {
        match &self.kind {
            Kind::Files(files) => ContainerMeter::of_files(files, task, container),
            Kind::Slices(slices) => ContainerMeter::of_slices(slices, task, container),
        }
    }

    /// Removes the root itself, where no task is left in it (for `ecsd local`, which leaves nothing
    /// behind). A root that isn't there is fine.
    ///
    /// # Errors
    /// Where tasks are left in it.
    pub fn remove_root(&self) -> Result<(), CgroupError> {
        match &self.kind {
            Kind::Files(files) => files.remove(None),
            Kind::Slices(slices) => slices.remove_root(),
        }
    }
}

impl Cgroups for CgroupService {
    fn prepare(&self, spec: &TaskSpec) -> Result<(), StopReason> {
        let limits = TaskLimits::of(spec, &self.options);
        let done = match &self.kind {
            Kind::Files(files) => files.prepare(&spec.id(), &limits),
            Kind::Slices(slices) => slices.prepare(&spec.id(), &limits),
        };
        done.map_err(|e| e.reason())
    }

    fn container_path(&self, task: &TaskId, container: &ContainerId) -> String {
        match &self.kind {
            Kind::Files(files) => files.container_path(task, container),
            Kind::Slices(slices) => slices.container_path(task, container),
        }
    }

    fn remove(&self, task: &TaskId) -> Result<(), StopReason> {
        let done = match &self.kind {
            Kind::Files(files) => files.remove(Some(task)),
            Kind::Slices(slices) => slices.remove(task),
        };
        done.map_err(|e| e.reason())
    }
}

/// Removes a cgroup and those below it, deepest first, for a moment also where the kernel is still
/// busy with processes that just ended. "Not there" is success.
fn remove_tree(path: &Path) -> Result<(), CgroupError> {
    let mut pause = Duration::from_millis(1);
    loop {
        match remove_tree_once(path) {
            Err(CgroupError::File { source, .. }) if is_busy(&source) => {
                if pause > Duration::from_millis(100) {
                    return Err(CgroupError::Busy { path: path.to_owned() });
                }
                std::thread::sleep(pause);
                pause *= 2;
            }
            other => return other,
        }
    }
}

fn is_busy(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ResourceBusy)
}

fn remove_tree_once(path: &Path) -> Result<(), CgroupError> {
    let gone = |e: &io::Error| e.kind() == io::ErrorKind::NotFound;
    let entries = match std::fs::read_dir(path) {
        Err(e) if gone(&e) => return Ok(()),
        other => other.map_err(|e| CgroupError::file("list", path, e))?,
    };
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|t| t.is_dir()) {
            remove_tree_once(&entry.path())?;
        }
    }
    match std::fs::remove_dir(path) {
        Err(e) if !gone(&e) => Err(CgroupError::file("remove", path, e)),
        _ => Ok(()),
    }
}
