//! Whether the kernel killed something in a container's cgroup for memory: the cgroup's own
//! counter, which (unlike an event) is there to be read when the exit is seen.
//!
//! Except under systemd, which removes a container's scope as soon as its last process ended. There
//! the task's slice remains, whose counter has the kills of all that is or was below it: what no
//! living scope counts, and no exit before this one was told of, is the container's that just ended.

use crate::containerd::spec::facts::CgroupVersion;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// v2's counters of a cgroup and of all below it.
const EVENTS: &str = "memory.events";

/// The kills of slices' scopes that were told to an exit already. Not kept over a restart of the agent:
/// a kill from before may then be told again, to the next container of the same task that fails.
#[derive(Debug, Default)]
pub struct OomCounters {
    told: Mutex<BTreeMap<PathBuf, u64>>,
}

impl OomCounters {
    /// Whether a container that just ended had a kill; `cgroup` is as the OCI spec names it (`/a/b`, or
    /// systemd's `slice:prefix:name`). `None` where the cgroup is gone with its parent. Blocking, but
    /// only for kernel memory.
    pub fn counted(&self, cgroup: &str, version: CgroupVersion) -> Option<bool> {
        let path = file_system_path(cgroup)?;
        let (mount, file) = match version {
            CgroupVersion::V1 => ("/sys/fs/cgroup/memory", "memory.oom_control"),
            CgroupVersion::V2 => ("/sys/fs/cgroup", EVENTS),
        };
        let directory = Path::new(mount).join(path);
        match is_scope(cgroup) {
            true => self.of_scope(&directory),
            false => kills_of(&directory.join(file)).map(|kills| kills > 0),
        }
    }

    fn of_scope(&self, scope: &Path) -> Option<bool> {
        let slice = scope.parent()?;
        // Held while the files are read: two containers that end at once get each its own.
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        told.retain(|slice, _| slice.is_dir());
        let all = kills_of(&slice.join(EVENTS))?;
        // Its last words, where systemd was not yet here.
        let own = kills_of(&scope.join(EVENTS));
        let entries = std::fs::read_dir(slice).into_iter().flatten().flatten();
        let others = entries.map(|entry| entry.path()).filter(|other| other != scope);
        let living: u64 = others.filter_map(|other| kills_of(&other.join(EVENTS))).sum();
        let before = told.get(slice).copied().unwrap_or_default();
        let found = own.unwrap_or_else(|| all.saturating_sub(living).saturating_sub(before));
        if found > 0 {
            told.insert(slice.to_owned(), before.saturating_add(found));
        }
        Some(found > 0)
    }
}

/// systemd's `slice:prefix:name`; only used on v2.
fn is_scope(cgroup: &str) -> bool {
    cgroup.contains(".slice:")
}

/// `None` where there is no such file (any more).
fn kills_of(file: &Path) -> Option<u64> {
    std::fs::read_to_string(file).ok().map(|text| kills(&text))
}

fn kills(text: &str) -> u64 {
    let value = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
    value.and_then(|number| number.trim().parse().ok()).unwrap_or(0)
}

/// Relative path of a cgroup in the file system. `a-b.slice` lies below `a.slice`.
fn file_system_path(cgroup: &str) -> Option<PathBuf> {
    let mut parts = cgroup.splitn(3, ':');
    match (parts.next(), parts.next(), parts.next()) {
        (Some(path), None, None) => {
            let path = path.trim_start_matches('/');
            (!path.is_empty() && !path.split('/').any(|part| part == "..")).then(|| path.into())
        }
        (Some(slice), Some(prefix), Some(name)) => {
            let stem = slice.strip_suffix(".slice")?;
            let mut path = PathBuf::new();
            for (at, _) in stem.match_indices('-') {
                path.push(format!("{}.slice", stem.get(..at)?));
            }
            path.push(slice);
            path.push(format!("{prefix}-{name}.scope"));
            Some(path)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_and_paths() {
        assert_eq!(kills("oom_kill_disable 0\nunder_oom 0\noom_kill 2\n"), 2);
        assert_eq!(kills("low 0\noom 1\noom_kill 0\n"), 0);
        assert_eq!(file_system_path("/ecs/t/c"), Some("ecs/t/c".into()));
        assert_eq!(
            file_system_path("ecstasks-ab.slice:ecs:cd"),
            Some("ecstasks.slice/ecstasks-ab.slice/ecs-cd.scope".into())
        );
        assert_eq!((file_system_path("/"), file_system_path("/a/../b")), (None, None));
        assert!(is_scope("ecstasks-ab.slice:ecs:cd") && !is_scope("/ecs/t/c"));
    }

    #[test]
    fn a_kill_in_a_scope_that_is_gone_is_told_once_to_the_container_that_ended() {
        let slice = std::env::temp_dir().join(format!("ecsd-oom-{}.slice", std::process::id()));
        let scope = |name: &str| slice.join(format!("ecs-{name}.scope"));
        let write = |directory: &Path, count: u64| {
            std::fs::create_dir_all(directory).unwrap();
            let text = format!("low 0\nhigh 0\nmax 12\noom 1\noom_kill {count}\noom_group_kill 0\n");
            std::fs::write(directory.join("memory.events"), text).unwrap();
        };
        let counters = OomCounters::default();
        write(&slice, 0);
        assert_eq!(counters.of_scope(&scope("quiet")), Some(false));
        // Of two kills one is a living container's, the other that of one whose scope is gone.
        write(&slice, 2);
        write(&scope("lives"), 1);
        assert_eq!(counters.of_scope(&scope("gone")), Some(true));
        assert_eq!(counters.of_scope(&scope("ended-by-its-stop")), Some(false));
        // The living one ends, with its scope still there and then without it.
        assert_eq!(counters.of_scope(&scope("lives")), Some(true));
        std::fs::remove_dir_all(scope("lives")).unwrap();
        assert_eq!(counters.of_scope(&scope("ended-by-its-stop")), Some(false));
        write(&slice, 3);
        assert_eq!(counters.of_scope(&scope("another")), Some(true));
        std::fs::remove_dir_all(&slice).unwrap();
        assert_eq!(counters.of_scope(&scope("another")), None);
        assert!(counters.told.lock().unwrap().is_empty(), "what is gone is forgotten");
    }
}
