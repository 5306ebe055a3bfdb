//! How full the file systems are that hold containerd's content and snapshots.

use crate::containerd::Connection;
use crate::containerd::image::error::PullError;
use containerd_client::services::v1::PluginsRequest;
use containerd_client::services::v1::introspection_client::IntrospectionClient;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// How full a file system may become, in percent of what users may fill.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Watermarks {
    /// Fuller than this, images are removed...
    pub high: u32,
    /// ...until it is no fuller than this.
    pub low: u32,
}

/// One file system at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fill {
    /// A directory on it.
    pub path: PathBuf,
    /// Bytes in use.
    pub used: u64,
    /// Bytes that can still be written.
    pub free: u64,
    /// Inodes in use, and those that can still be made; none where the file system has no such limit.
    pub inodes: (u64, u64),
}

impl Fill {
    /// Of the file system of a directory. Blocks on it.
    ///
    /// # Errors
    /// The kernel's.
    pub fn measure(path: &Path) -> std::io::Result<Self> {
        let stat = nix::sys::statvfs::statvfs(path)?;
        let block = stat.fragment_size();
        let inodes = (stat.files().saturating_sub(stat.files_free()), stat.files_available());
        Ok(Self {
            path: path.to_owned(),
            used: stat.blocks().saturating_sub(stat.blocks_free()).saturating_mul(block),
            free: stat.blocks_available().saturating_mul(block),
            inodes: if stat.files() == 0 { (0, 0) } else { inodes },
        })
    }

    /// It is fuller than so many percent, in bytes or in inodes.
    pub fn is_above(&self, percent: u32) -> bool {
        let above = |used: u64, free: u64| {
            let all = u128::from(used) + u128::from(free);
            all > 0 && u128::from(used) * 100 > all * u128::from(percent)
        };
        above(self.used, self.free) || above(self.inodes.0, self.inodes.1)
    }

    /// As `df` shows it, rounded up.
    pub fn percent(&self) -> u64 {
        let all = u128::from(self.used) + u128::from(self.free);
        u64::try_from((u128::from(self.used) * 100).div_ceil(all.max(1))).unwrap_or(100)
    }
}

/// Directories of containerd's content and of that snapshotter, one for each file system. Blocks
/// neither, nor looks at other namespaces: containerd has them in common.
///
/// # Errors
/// Where containerd does not say.
pub async fn directories(conn: &Connection, snapshotter: &str) -> Result<Vec<PathBuf>, PullError> {
    let filters = vec![
        "type==io.containerd.content.v1".to_owned(),
        format!("type==io.containerd.snapshotter.v1,id=={snapshotter}"),
    ];
    let request = conn.request(PluginsRequest { filters });
    let answer = IntrospectionClient::new(conn.channel()).plugins(request).await;
    let answer =
        answer.map_err(|status| PullError::containerd("ask for containerd's directories", status))?;
    let plugins = answer.into_inner().plugins.into_iter();
    let roots: Vec<PathBuf> =
        plugins.filter_map(|plugin| plugin.exports.get("root").map(PathBuf::from)).collect();
    let distinct = tokio::task::spawn_blocking(move || one_for_each_file_system(roots)).await;
    Ok(distinct.unwrap_or_default())
}

fn one_for_each_file_system(directories: Vec<PathBuf>) -> Vec<PathBuf> {
    let mut devices = Vec::new();
    let new = |directory: &PathBuf| {
        let device = std::fs::metadata(directory).map(|found| found.dev()).ok();
        let new = device.is_some() && !devices.contains(&device);
        devices.push(device);
        new
    };
    directories.into_iter().filter(new).collect()
}

/// Each of them as it is now; one that can't be looked at is left out. Waits for a file system that
/// hangs, off the runtime's own threads.
pub async fn measure(directories: Vec<PathBuf>) -> Vec<Fill> {
    let measured = tokio::task::spawn_blocking(move || {
        directories.iter().filter_map(|directory| Fill::measure(directory).ok()).collect()
    });
    measured.await.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fill(used: u64, free: u64, inodes: (u64, u64)) -> Fill {
        Fill { path: "/".into(), used, free, inodes }
    }

    #[test]
    fn bytes_and_inodes_count_and_what_has_no_limit_does_not() {
        assert!(fill(91, 9, (0, 0)).is_above(90) && !fill(90, 10, (0, 0)).is_above(90));
        assert!(fill(1, 99, (95, 5)).is_above(90));
        assert!(!fill(0, 0, (0, 0)).is_above(0));
        assert!(
            fill(u64::MAX, u64::MAX, (0, 0)).is_above(49) && !fill(u64::MAX, u64::MAX, (0, 0)).is_above(50)
        );
        assert_eq!((fill(901, 99, (0, 0)).percent(), fill(0, 0, (0, 0)).percent()), (91, 0));
    }

    #[test]
    fn a_file_system_is_looked_at_once() {
        let found =
            one_for_each_file_system(vec!["/proc".into(), "/no/such".into(), "/".into(), "/proc/1".into()]);
        assert_eq!(found, [PathBuf::from("/proc"), PathBuf::from("/")]);
        let root = Fill::measure(Path::new("/")).unwrap();
        assert!(root.used > 0 && root.percent() <= 100);
    }
}
