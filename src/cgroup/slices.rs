//! Cgroups as systemd's slices, on hosts where systemd owns a v2 tree: what systemd did not make,
//! it takes away. Slices are made, limited and removed over D-Bus, by property names of
//! systemd.resource-control(5).

use super::CgroupError;
use super::limits::{CpuLimit, TaskLimits, weight};
use crate::model::{ContainerId, TaskId};
use cgroups_rs::systemd::{
    CPU_ACCOUNTING, CPU_QUOTA_PER_SEC_US, CPU_QUOTA_PERIOD_US, CPU_WEIGHT, DESCRIPTION, MEMORY_ACCOUNTING,
    MEMORY_MAX, Property, SystemdClient, TASKS_ACCOUNTING, TASKS_MAX, UNIT_MODE_REPLACE,
};
use std::fs;
use std::path::{Path, PathBuf};
use zbus::blocking::Connection;

/// systemd's "no limit".
const INFINITY: u64 = u64::MAX;
/// Where v2 is mounted.
pub(super) const MOUNT: &str = "/sys/fs/cgroup";

/// Slices below one parent slice.
#[derive(Debug)]
pub(super) struct SystemdSlices {
    /// `<root>tasks`, without the suffix.
    parent: String,
    /// Prefix of the scopes that the runtime makes.
    prefix: String,
}

impl SystemdSlices {
    pub(super) fn new(root: &str) -> Self {
        Self { parent: format!("{root}tasks"), prefix: root.to_owned() }
    }

    /// A dash parts the levels of slices, so one within a task id is escaped, as systemd-escape does.
    fn unit(&self, task: &TaskId) -> String {
        format!("{}-{}.slice", self.parent, task.as_str().replace('-', "\\x2d"))
    }

    fn directory(&self, task: &TaskId) -> PathBuf {
        Path::new(MOUNT).join(format!("{}.slice", self.parent)).join(self.unit(task))
    }

    /// Makes the task's slice, or limits the one that is there.
    pub(super) fn prepare(&self, task: &TaskId, limits: &TaskLimits) -> Result<(), CgroupError> {
        let unit = self.unit(task);
        let failed = |action| {
            let unit = unit.clone();
            move |e: &dyn std::fmt::Display| CgroupError::Systemd { action, unit, message: e.to_string() }
        };
        let mut client = SystemdClient::new(&unit, Vec::new()).map_err(|e| failed("name")(&e))?;
        if !client.exists() {
            // Without a process: the client's own `start` is for scopes and insists on one.
            let mut properties = properties(limits);
            properties.push((DESCRIPTION, format!("ECS task {task}").into()));
            let auxiliary: Vec<(&str, Vec<Property<'_>>)> = Vec::new();
            let started = Connection::system().and_then(|bus| {
                bus.call_method(
                    Some("org.freedesktop.systemd1"),
                    "/org/freedesktop/systemd1",
                    Some("org.freedesktop.systemd1.Manager"),
                    "StartTransientUnit",
                    &(unit.as_str(), UNIT_MODE_REPLACE, properties, auxiliary),
                )
            });
            match started {
                Ok(_) => return Ok(()),
                // Someone was quicker.
                Err(_) if client.exists() => {}
                Err(e) => return Err(failed("make")(&e)),
            }
        }
        client.set_properties(&properties(limits)).map_err(|e| failed("limit")(&e))
    }

    /// `slice:prefix:name`, as runc takes it for systemd.
    pub(super) fn container_path(&self, task: &TaskId, container: &ContainerId) -> String {
        format!("{}:{}:{container}", self.unit(task), self.prefix)
    }

    /// The scope that the runtime makes of [`Self::container_path`].
    pub(super) fn container_directory(&self, task: &TaskId, container: &ContainerId) -> PathBuf {
        self.directory(task).join(format!("{}-{container}.scope", self.prefix))
    }

    /// Stops the slice, which would end what runs in it: so only when nothing does.
    pub(super) fn remove(&self, task: &TaskId) -> Result<(), CgroupError> {
        let directory = self.directory(task);
        if is_populated(&directory) {
            return Err(CgroupError::Busy { path: directory });
        }
        self.stop(&self.unit(task))
    }

    /// Stops the parent slice where no task is left.
    pub(super) fn remove_root(&self) -> Result<(), CgroupError> {
        let unit = format!("{}.slice", self.parent);
        let directory = Path::new(MOUNT).join(&unit);
        if is_populated(&directory) {
            return Err(CgroupError::Busy { path: directory });
        }
        self.stop(&unit)
    }

    fn stop(&self, unit: &str) -> Result<(), CgroupError> {
        let stopped = SystemdClient::new(unit, Vec::new()).and_then(|client| client.stop());
        stopped.map_err(|e| CgroupError::Systemd {
            action: "stop",
            unit: unit.to_owned(),
            message: e.to_string(),
        })
    }
}

/// Whether any process is in a cgroup or below it.
fn is_populated(directory: &Path) -> bool {
    fs::read_to_string(directory.join("cgroup.events"))
        .is_ok_and(|text| text.lines().any(|l| l == "populated 1"))
}

/// The limits as properties of a slice; one that isn't set is lifted.
fn properties(limits: &TaskLimits) -> Vec<Property<'static>> {
    let number = |value: Option<i64>| value.and_then(|v| u64::try_from(v).ok()).unwrap_or(INFINITY);
    let (per_second, share) = match limits.cpu {
        // A quota of a period, as systemd counts it: over a second.
        CpuLimit::Quota { us } => (number(Some(us)).saturating_mul(1_000_000) / limits.cpu_period_us, None),
        CpuLimit::Shares(shares) => (INFINITY, Some(weight(shares))),
    };
    let mut properties: Vec<Property<'static>> = vec![
        (CPU_ACCOUNTING, true.into()),
        (MEMORY_ACCOUNTING, true.into()),
        (TASKS_ACCOUNTING, true.into()),
        (CPU_QUOTA_PERIOD_US, limits.cpu_period_us.into()),
        (CPU_QUOTA_PER_SEC_US, per_second.into()),
        (MEMORY_MAX, number(limits.memory_bytes).into()),
        (TASKS_MAX, number(limits.pids).into()),
    ];
    properties.extend(share.map(|weight| (CPU_WEIGHT, weight.into())));
    properties
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::TaskArn;

    #[test]
    fn a_task_is_one_level_below_the_parent_slice() {
        let slices = SystemdSlices::new("ecs");
        let arn = TaskArn::parse("arn:aws:ecs:r:1:task/c/0a-1").unwrap();
        let id = ContainerId::from_recorded("cid");
        assert_eq!(slices.container_path(&arn.id(), &id), "ecstasks-0a\\x2d1.slice:ecs:cid");
        let path = "/sys/fs/cgroup/ecstasks.slice/ecstasks-0a\\x2d1.slice";
        assert_eq!(slices.directory(&arn.id()), Path::new(path));
        let scope = Path::new(path).join("ecs-cid.scope");
        assert_eq!(slices.container_directory(&arn.id(), &id), scope);
    }

    #[test]
    fn a_quota_is_counted_by_the_second_and_what_is_unset_is_lifted() {
        let quota = CpuLimit::Quota { us: 15_000 };
        let limits = TaskLimits { cpu: quota, memory_bytes: None, pids: Some(9), cpu_period_us: 30_000 };
        let all = properties(&limits);
        let value = |name: &str| all.iter().find(|(n, _)| *n == name).map(|(_, v)| u64::try_from(v).unwrap());
        assert_eq!((value(CPU_QUOTA_PER_SEC_US), value(CPU_QUOTA_PERIOD_US)), (Some(500_000), Some(30_000)));
        assert_eq!((value(MEMORY_MAX), value(TASKS_MAX), value(CPU_WEIGHT)), (Some(u64::MAX), Some(9), None));
        let limits = TaskLimits { cpu: CpuLimit::Shares(2), memory_bytes: Some(1), pids: None, ..limits };
        assert!(properties(&limits).iter().any(|(n, _)| *n == CPU_WEIGHT));
    }
}
