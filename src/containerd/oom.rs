//! Whether the kernel killed something in a container's cgroup for memory: the cgroup's own
//! counter, which (unlike an event) is there to be read when the exit is seen.

use crate::containerd::spec::facts::CgroupVersion;
use std::path::{Path, PathBuf};

/// The counter of a cgroup as the OCI spec names it (`/a/b`, or systemd's `slice:prefix:name`)
/// shows a kill. A cgroup that is gone shows none. Blocking, but only for kernel memory.
pub fn counted(cgroup: &str, version: CgroupVersion) -> bool {
    let Some(path) = file_system_path(cgroup) else { return false };
    let file = match version {
        CgroupVersion::V1 => Path::new("/sys/fs/cgroup/memory").join(path).join("memory.oom_control"),
        CgroupVersion::V2 => Path::new("/sys/fs/cgroup").join(path).join("memory.events"),
    };
    std::fs::read_to_string(file).is_ok_and(|text| kills(&text) > 0)
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
    }
}
