//! What containers use, read from the files of their cgroups: by path each time, so that no handle
//! outlives a container and a hundred containers cost no descriptors. Reads only; blocks for some
//! microseconds a file.

use super::files::FileGroups;
use super::slices::SystemdSlices;
use super::usage_v1::V1Files;
use super::usage_v2::V2Files;
use crate::model::{ContainerId, TaskId, Usage};
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// No file that is read here is longer, on the largest of hosts.
const FILE_MAX: usize = 1024 * 1024;

/// The files that tell what one container uses.
#[derive(Debug)]
pub struct ContainerMeter {
    files: Files,
}

#[derive(Debug)]
enum Files {
    V1(V1Files),
    V2(V2Files),
}

impl ContainerMeter {
    pub(super) fn of_files(groups: &FileGroups, task: &TaskId, container: &ContainerId) -> Self {
        let path = groups.container_path(task, container);
        let below = |mount: &Path| mount.join(path.trim_start_matches('/'));
        let files = match groups.v1_mounts() {
            Some(mounts) => Files::V1(V1Files::new(|controller| mounts.get(controller).map(|m| below(m)))),
            None => Files::V2(V2Files::new(below(Path::new(super::slices::MOUNT)))),
        };
        Self { files }
    }

    pub(super) fn of_slices(slices: &SystemdSlices, task: &TaskId, container: &ContainerId) -> Self {
        Self { files: Files::V2(V2Files::new(slices.container_directory(task, container))) }
    }

    /// Reads all counters but the network's; the time is left to the caller. `scratch` only saves
    /// allocations.
    ///
    /// # Errors
    /// Where the cgroup is gone, or holds what is no counter of processors and memory. Counters that
    /// this kernel does not keep are left out.
    pub fn read(&self, scratch: &mut Scratch) -> io::Result<Usage> {
        match &self.files {
            Files::V1(files) => files.read(scratch),
            Files::V2(files) => files.read(scratch),
        }
    }
}

/// Room for one path and one file; used again for each.
#[derive(Debug, Default)]
pub struct Scratch {
    path: PathBuf,
    bytes: Vec<u8>,
}

impl Scratch {
    /// The text of a file, valid until the next is read.
    pub(super) fn read(&mut self, directory: &Path, name: &str) -> io::Result<&str> {
        self.path.clear();
        self.path.push(directory);
        self.path.push(name);
        self.bytes.clear();
        File::open(&self.path)?.take(FILE_MAX as u64).read_to_end(&mut self.bytes)?;
        std::str::from_utf8(&self.bytes).map_err(|_| self.unreadable())
    }

    /// The one number of a file; `None` for `max`.
    pub(super) fn number(&mut self, directory: &Path, name: &str) -> io::Result<Option<u64>> {
        match self.read(directory, name)?.trim() {
            "max" => Ok(None),
            text => text.parse().map(Some).map_err(|_| self.unreadable()),
        }
    }

    /// The file that was read last holds something else than it should.
    pub(super) fn unreadable(&self) -> io::Error {
        let bytes = self.bytes.get(..80).unwrap_or(&self.bytes);
        let text = String::from_utf8_lossy(bytes);
        io::Error::new(
            io::ErrorKind::InvalidData,
            format!("{}: not understood: {text:?}", self.path.display()),
        )
    }
}

/// A counter that this kernel may not keep.
pub(super) fn optional<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        other => other.map(Some),
    }
}

/// The value of a line `name value`.
pub(super) fn value_of(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
}

/// Time that all processors of the host have spent since it started, idle or not; `None` where the
/// kernel does not tell.
pub fn host_cpu_ns() -> Option<u64> {
    let mut text = String::new();
    File::open("/proc/stat").ok()?.take(4096).read_to_string(&mut text).ok()?;
    host_cpu(&text)
}

/// The first line of `/proc/stat`, in hundredths of a second; guests' time is in the first figure.
fn host_cpu(text: &str) -> Option<u64> {
    const TICK_NS: u64 = 10_000_000;
    const STATES: usize = 7;
    let states = text.lines().next()?.strip_prefix("cpu ")?.split_whitespace().take(STATES);
    let mut ticks = 0u64;
    for state in states {
        ticks = ticks.checked_add(state.parse().ok()?)?;
    }
    ticks.checked_mul(TICK_NS)
}

/// Memory of the host in bytes; `None` where the kernel does not tell.
pub fn host_memory_bytes() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hosts_time_is_that_of_seven_states() {
        let text = "cpu  1 2 3 4 5 6 7 8 9 10\ncpu0 1 1 1 1 1 1 1 1 1 1\n";
        assert_eq!(host_cpu(text), Some(280_000_000));
        assert_eq!(host_cpu("cpu  1 x 3\n"), None);
        assert_eq!(host_cpu("intr 1\n"), None);
        assert!(host_memory_bytes().is_some_and(|bytes| bytes > 1 << 20));
        assert!(host_cpu_ns().is_some_and(|ns| ns > 0));
    }

    #[test]
    fn values_are_found_by_their_whole_name() {
        let text = "total_cache 7\ncache 3\ncache_x 9\nrss\n";
        assert_eq!(value_of(text, "cache"), Some(3));
        assert_eq!(value_of(text, "rss"), None);
    }
}
