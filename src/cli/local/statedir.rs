//! The directory of a local cluster: paths in it, the lock that says a cluster is up, and the
//! programs that an earlier one may have left.

use anyhow::{Context, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Children carry this in their environment: by it their owner is known.
pub const OWNER_VARIABLE: &str = "ECSD_LOCAL_DIR";

/// Paths of a local cluster.
#[derive(Debug, Clone)]
pub struct StateDir {
    root: PathBuf,
}

/// Held while a cluster is up.
#[derive(Debug)]
pub struct StateLock {
    dir: StateDir,
    _file: File,
}

impl StateDir {
    /// At `root`, made absolute.
    ///
    /// # Errors
    /// Where the current directory can't be read.
    pub fn new(root: &Path) -> anyhow::Result<Self> {
        let root = std::path::absolute(root).with_context(|| format!("--dir {}", root.display()))?;
        Ok(Self { root })
    }

    /// The directory itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The agent's log.
    pub fn agent_log(&self) -> PathBuf {
        self.root.join("agent.log")
    }

    /// The agent's data directory.
    pub fn data(&self) -> PathBuf {
        self.root.join("data")
    }

    /// The agent's run-time directory.
    pub fn runtime(&self) -> PathBuf {
        runtime_dir(&self.root)
    }

    /// Files of a private containerd.
    pub fn containerd(&self) -> PathBuf {
        self.root.join("containerd")
    }

    /// A task's files; gone when the task was cleaned up.
    pub fn task(&self, id: &str) -> PathBuf {
        self.data().join("tasks").join(id)
    }

    fn endpoint_file(&self) -> PathBuf {
        self.root.join("endpoint")
    }

    fn pid_file(&self) -> PathBuf {
        self.root.join("pid")
    }

    /// Makes the directory and takes its lock.
    ///
    /// # Errors
    /// Where another cluster is up in it.
    pub fn lock(&self) -> anyhow::Result<StateLock> {
        let make = || DirBuilder::new().recursive(true).mode(0o700).create(&self.root);
        make().with_context(|| {
            format!("can't make the directory {} (choose another by --dir)", self.root.display())
        })?;
        let path = self.pid_file();
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .with_context(|| format!("can't open {}", path.display()))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => bail!(
                "a local cluster is up in {} already: use `aws ecs run-task --endpoint-url {}` on it, end it by \
                 `ecsd local down`, or choose another directory by --dir",
                self.root.display(),
                self.endpoint().unwrap_or_else(|_| "(its endpoint)".to_owned())
            ),
            Err(TryLockError::Error(error)) => {
                return Err(error).with_context(|| format!("can't lock {}", path.display()));
            }
        }
        file.set_len(0).and_then(|()| write!(file, "{}", std::process::id()))?;
        let lock = StateLock { dir: self.clone(), _file: file };
        for directory in [self.data(), self.runtime()] {
            fs::create_dir_all(&directory).with_context(|| format!("can't make {}", directory.display()))?;
        }
        Ok(lock)
    }

    /// The endpoint of the cluster that is up here.
    ///
    /// # Errors
    /// Where none is.
    pub fn endpoint(&self) -> anyhow::Result<String> {
        fs::read_to_string(self.endpoint_file())
            .map(|text| text.trim().to_owned())
            .map_err(|_| self.none_is_up())
    }

    /// The process that holds the cluster that is up here; by the lock, so never a stranger.
    ///
    /// # Errors
    /// Where none is up.
    pub fn holder(&self) -> anyhow::Result<Pid> {
        let mut file = File::open(self.pid_file()).map_err(|_| self.none_is_up())?;
        if file.try_lock().is_ok() {
            return Err(self.none_is_up());
        }
        let mut text = String::new();
        file.read_to_string(&mut text)?;
        let pid =
            text.trim().parse().with_context(|| format!("{} holds no pid", self.pid_file().display()))?;
        Ok(Pid::from_raw(pid))
    }

    fn none_is_up(&self) -> anyhow::Error {
        anyhow::anyhow!(
            "no local cluster is up in {}: start one by `ecsd local up`, or name its directory by --dir",
            self.root.display()
        )
    }
}

impl StateLock {
    /// Tells other commands where the control plane listens.
    ///
    /// # Errors
    /// Where the file can't be written.
    pub fn write_endpoint(&self, endpoint: &str) -> anyhow::Result<()> {
        let path = self.dir.endpoint_file();
        fs::write(&path, format!("{endpoint}\n")).with_context(|| format!("can't write {}", path.display()))
    }

    /// Ends what an earlier cluster in this directory left behind when it was killed: known by its
    /// environment, so never a stranger. Blocking; answers how many there were.
    pub fn end_leftovers(&self) -> usize {
        let mark = format!("{OWNER_VARIABLE}={}", self.dir.root.display());
        let own = std::process::id().to_string();
        let has_mark = |pid: &str| {
            let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            environment.split(|byte| *byte == 0).any(|entry| entry == mark.as_bytes())
        };
        let program_of = |pid: &str| fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        // Shims inherit the mark from containerd; they hold containers and are not touched.
        let own_program = program_of("self");
        let is_program = |pid: &str| program_of(pid) == own_program || program_of(pid).trim() == "containerd";
        let names = fs::read_dir("/proc").into_iter().flatten().flatten();
        let names = names.filter_map(|entry| entry.file_name().into_string().ok());
        let found: Vec<i32> = names
            .filter(|pid| *pid != own && is_program(pid) && has_mark(pid))
            .filter_map(|pid| pid.parse().ok())
            .collect();
        for pid in &found {
            let _ = kill(Pid::from_raw(*pid), Signal::SIGTERM);
        }
        for pid in &found {
            for _ in 0..100 {
                if kill(Pid::from_raw(*pid), None).is_err() {
                    break;
                }
                std::thread::sleep(Duration::from_millis(100));
            }
        }
        found.len()
    }
}

impl Drop for StateLock {
    fn drop(&mut self) {
        let _ = fs::remove_file(self.dir.endpoint_file());
    }
}

/// Where the agent of a local cluster in `root` keeps what lives as long as the host's uptime.
pub fn runtime_dir(root: &Path) -> PathBuf {
    root.join("run")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_cluster_a_directory() {
        let root = std::env::temp_dir().join(format!("ecsd-statedir-{}", std::process::id()));
        let dir = StateDir::new(&root).unwrap();
        assert!(dir.endpoint().unwrap_err().to_string().contains("ecsd local up"));
        assert!(dir.holder().is_err());
        let lock = dir.lock().unwrap();
        lock.write_endpoint("http://127.0.0.1:1").unwrap();
        assert_eq!(dir.endpoint().unwrap(), "http://127.0.0.1:1");
        assert_eq!(dir.holder().unwrap().as_raw(), std::process::id() as i32);
        assert!(dir.lock().unwrap_err().to_string().contains("ecsd local down"));
        assert_eq!(lock.end_leftovers(), 0);
        drop(lock);
        assert!(dir.endpoint().is_err() && dir.holder().is_err());
        std::fs::remove_dir_all(root).unwrap();
    }
}
