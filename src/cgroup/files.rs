//! Cgroups as directories: v1, and v2 where no systemd owns the tree.

use super::limits::{CpuLimit, TaskLimits, weight};
use super::{CgroupError, remove_tree};
use crate::model::{ContainerId, TaskId};
use cgroups_rs::fs::cgroup::Cgroup;
use cgroups_rs::fs::cpu::CpuController;
use cgroups_rs::fs::hierarchies::{V1, V2, is_cgroup2_unified_mode};
use cgroups_rs::fs::memory::MemController;
use cgroups_rs::fs::pid::PidController;
use cgroups_rs::fs::{Hierarchy, MaxValue};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// What a task's cgroup is made in. The runtime makes its containers' in all others too.
const WANTED: [&str; 4] = ["cpu", "cpuacct", "memory", "pids"];

/// Task directories below one root directory.
#[derive(Debug)]
pub(super) struct FileGroups {
    root: String,
    /// v1's mounts, read once; `None` on v2.
    v1: Option<V1>,
    /// Those of [`WANTED`] that this host has.
    controllers: Vec<String>,
    /// Every cgroup mount: the runtime leaves the task's directory in each.
    mounts: Vec<PathBuf>,
    /// Where each controller of v1 is mounted.
    controller_mounts: BTreeMap<String, PathBuf>,
}

impl FileGroups {
    pub(super) fn new(root: &str) -> Result<Self, CgroupError> {
        let v1 = (!is_cgroup2_unified_mode()).then(V1::new);
        let subsystems = match &v1 {
            Some(v1) => v1.subsystems(),
            None => V2::new().subsystems(),
        };
        let controllers: Vec<String> =
            subsystems.iter().map(|s| s.controller_name()).filter(|n| WANTED.contains(&n.as_str())).collect();
        if !["cpu", "memory"].iter().all(|c| controllers.iter().any(|have| have == c)) {
            return Err(CgroupError::NoHierarchy);
        }
        let mounts = Path::new("/proc/self/mountinfo");
        let text = fs::read_to_string(mounts).map_err(|e| CgroupError::file("read", mounts, e))?;
        Ok(Self {
            root: root.to_owned(),
            v1,
            controllers,
            mounts: cgroup_mounts(&text),
            controller_mounts: controller_mounts(&text),
        })
    }

    /// Where the controllers are mounted; `None` on v2.
    pub(super) fn v1_mounts(&self) -> Option<&BTreeMap<String, PathBuf>> {
        self.v1.as_ref().map(|_| &self.controller_mounts)
    }

    /// Makes the task's cgroup and applies its limits.
    pub(super) fn prepare(&self, task: &TaskId, limits: &TaskLimits) -> Result<(), CgroupError> {
        let path = format!("{}/{task}", self.root);
        let hierarchy: Box<dyn Hierarchy> = match &self.v1 {
            Some(v1) => Box::new(v1.clone()),
            None => Box::new(V2::new()),
        };
        let v2 = hierarchy.v2();
        let failed = |action: &'static str| {
            let path = path.clone();
            move |source| CgroupError::Group { action, path, source }
        };
        let group = Cgroup::new_with_specified_controllers(hierarchy, &path, Some(self.controllers.clone()))
            .map_err(failed("make"))?;
        if let Some(cpu) = group.controller_of::<CpuController>() {
            let (quota, shares) = match limits.cpu {
                CpuLimit::Quota { us } => (us, None),
                CpuLimit::Shares(shares) => (-1, Some(shares)),
            };
            if let Some(shares) = shares {
                cpu.set_shares(if v2 { weight(shares) } else { shares })
                    .map_err(failed("set the CPU weight of"))?;
            }
            // A kernel without CFS bandwidth control has no quota to lift.
            let set = cpu.set_cfs_quota_and_period(Some(quota), Some(limits.cpu_period_us));
            if quota > 0 {
                set.map_err(failed("set the CPU quota of"))?;
            }
        }
        if let Some(memory) = group.controller_of::<MemController>() {
            memory.set_limit(limits.memory_bytes.unwrap_or(-1)).map_err(failed("set the memory limit of"))?;
        }
        match group.controller_of::<PidController>() {
            Some(pids) => {
                let most = limits.pids.map_or(MaxValue::Max, MaxValue::Value);
                pids.set_pid_max(most).map_err(failed("set the limit of processes of"))?;
            }
            None if limits.pids.is_some() => return Err(CgroupError::NoHierarchy),
            None => {}
        }
        Ok(())
    }

    /// Path of a container's cgroup, for the OCI spec.
    pub(super) fn container_path(&self, task: &TaskId, container: &ContainerId) -> String {
        format!("/{}/{task}/{container}", self.root)
    }

    /// Removes a task's cgroup, or the root where it is empty, in every hierarchy.
    pub(super) fn remove(&self, task: Option<&TaskId>) -> Result<(), CgroupError> {
        let mut first = Ok(());
        for mount in &self.mounts {
            let root = mount.join(&self.root);
            let removed = match task {
                Some(task) => remove_tree(&root.join(task.as_str())),
                None => match fs::remove_dir(&root) {
                    Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                        Err(CgroupError::file("remove", &root, e))
                    }
                    _ => Ok(()),
                },
            };
            if first.is_ok() {
                first = removed;
            }
        }
        first
    }
}

/// The mount points of all cgroup hierarchies, v2's among them, from the text of `mountinfo`.
fn cgroup_mounts(text: &str) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = text
        .lines()
        .filter_map(|line| {
            let (mount, kind) = line.split_once(" - ")?;
            let is_cgroup = matches!(kind.split(' ').next()?, "cgroup" | "cgroup2");
            is_cgroup.then(|| mount.split(' ').nth(4).map(PathBuf::from)).flatten()
        })
        .collect();
    found.sort();
    found.dedup();
    found
}

/// The mount point of each controller of v1, from the text of `mountinfo`: several may share one.
fn controller_mounts(text: &str) -> BTreeMap<String, PathBuf> {
    let mut found = BTreeMap::new();
    for line in text.lines() {
        let Some((mount, about)) = line.split_once(" - ") else { continue };
        let mut about = about.split(' ');
        let (Some("cgroup"), Some(_), Some(options)) = (about.next(), about.next(), about.next()) else {
            continue;
        };
        let Some(path) = mount.split(' ').nth(4) else { continue };
        for option in options.split(',') {
            found.entry(option.to_owned()).or_insert_with(|| PathBuf::from(path));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::super::limits::tests::task;
    use super::super::{CgroupOptions, CgroupService};
    use super::*;
    use crate::ports::Cgroups;
    use std::process::Command;
    use std::time::Duration;

    #[test]
    fn mounts_of_both_versions_are_found() {
        let text = "33 32 0:30 / /sys/fs/cgroup/cpu,cpuacct rw shared:9 - cgroup cgroup rw,cpu,cpuacct\n\
                    34 32 0:31 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n\
                    35 32 0:32 / /tmp rw - tmpfs tmpfs rw\nrubbish\n";
        let found = cgroup_mounts(text);
        assert_eq!(found, ["/sys/fs/cgroup/cpu,cpuacct", "/sys/fs/cgroup/unified"].map(PathBuf::from));
        let controllers = controller_mounts(text);
        assert_eq!(controllers.get("cpuacct"), Some(&found[0]));
        assert_eq!(controllers.get("cpu"), Some(&found[0]));
        assert_eq!(controllers.get("memory"), None);
    }

    /// Reads a file of the task's cgroup on v1.
    fn v1(controller: &str, root: &str, file: &str) -> String {
        let path = format!("/sys/fs/cgroup/{controller}/{root}/t1/{file}");
        fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}")).trim().to_owned()
    }

    #[test]
    fn limits_are_applied_each_time_and_nothing_stays_behind() {
        let root = format!("ecsdtest{}", std::process::id());
        let cpu_period = Duration::from_millis(20);
        let options = CgroupOptions { root: root.clone(), task_pids: Some(77), cpu_period };
        let service = CgroupService::new(options).unwrap();
        let spec = task("t1", Some(256), Some(32), &[10]);
        // The runtime may have been first.
        fs::create_dir_all(format!("/sys/fs/cgroup/freezer/{root}/t1/c1")).unwrap();
        fs::create_dir_all(format!("/sys/fs/cgroup/memory/{root}/t1/c1")).unwrap();
        service.prepare(&spec).unwrap();
        let id = ContainerId::derive(&spec.arn, "c0");
        assert_eq!(service.container_path(&spec.id(), &id), format!("/{root}/t1/{id}"));
        if service.systemd_cgroup() || is_cgroup2_unified_mode() {
            return service.remove(&spec.id()).unwrap(); // the rest looks at v1's files
        }
        assert_eq!(v1("cpu", &root, "cpu.cfs_period_us"), "20000");
        assert_eq!(v1("cpu", &root, "cpu.cfs_quota_us"), "5000");
        assert_eq!(v1("memory", &root, "memory.limit_in_bytes"), "33554432");
        assert_eq!(v1("pids", &root, "pids.max"), "77");
        service.prepare(&task("t1", None, None, &[100, 0])).unwrap();
        assert_eq!(v1("cpu", &root, "cpu.cfs_quota_us"), "-1");
        assert_eq!(v1("cpu", &root, "cpu.shares"), "102");

        // A process in it is never killed: the removal waits for it a moment, then says so.
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        fs::write(format!("/sys/fs/cgroup/pids/{root}/t1/cgroup.procs"), child.id().to_string()).unwrap();
        let error = service.remove(&spec.id()).unwrap_err();
        assert!(error.message.ends_with("still has processes"), "{error}");
        assert!(child.try_wait().unwrap().is_none());
        assert!(service.remove_root().is_err());
        child.kill().unwrap();
        child.wait().unwrap();
        service.remove(&spec.id()).unwrap();
        service.remove(&spec.id()).unwrap();
        service.remove_root().unwrap();
        service.remove_root().unwrap();
        assert!(!Path::new("/sys/fs/cgroup/freezer").join(&root).exists());
        assert!(!Path::new("/sys/fs/cgroup/cpu").join(&root).exists());
    }

    #[test]
    fn names_that_would_leave_the_root_are_refused() {
        for root in ["", "..", "a/b", "a-b"] {
            assert!(
                CgroupService::new(CgroupOptions { root: root.to_owned(), ..CgroupOptions::default() })
                    .is_err()
            );
        }
    }
}
