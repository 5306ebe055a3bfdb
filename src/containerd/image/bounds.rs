//! What a layer may take while it is unpacked: an honest one never comes near it, and one that is made to
//! fill the disk is stopped before it has.

use crate::containerd::image::error::PullError;
use crate::containerd::image::options::UnpackBounds;
use crate::model::ImageDigest;
use containerd_client::types::Mount;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How often the disk is looked at.
const LOOK: Duration = Duration::from_millis(200);
/// The part of a disk that is left free.
const PART_KEPT: u64 = 20;

/// A look at the disk that a layer is unpacked to.
#[derive(Debug)]
pub struct Watched {
    path: PathBuf,
    free_before: u64,
    /// What was free when the layer itself was last looked at.
    mark: u64,
    kept: u64,
    allowance: u64,
}

/// What a look at the disk told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    /// There is so little left.
    Full(u64),
    /// More is gone than the layer may take: by it, or by others.
    MuchGone,
}

impl Watched {
    /// The directory that mounts write to; `None` where they do not tell. `size` is that of the layer as it
    /// came.
    pub async fn begin(mounts: &[Mount], size: u64, bounds: &UnpackBounds) -> Option<Self> {
        let path = written_to(mounts)?;
        let (free_before, total) = space(&path).await?;
        let kept = (total / PART_KEPT).min(bounds.kept_free);
        Some(Self { path, free_before, mark: free_before, kept, allowance: bounds.allowance(size) })
    }

    /// Bytes that the layer may take.
    pub fn allowance(&self) -> u64 {
        self.allowance
    }

    /// Resolves when something is to be looked into. Cancel-safe.
    pub async fn until_suspicious(&self) -> Seen {
        loop {
            tokio::time::sleep(LOOK).await;
            let Some((free, _)) = space(&self.path).await else { continue };
            // A disk that was as full before is not this layer's doing: the kernel tells where it ends.
            if free < self.kept && self.free_before >= self.kept {
                return Seen::Full(free);
            }
            if self.mark.saturating_sub(free) > self.allowance {
                return Seen::MuchGone;
            }
        }
    }

    /// It was others: the layer is looked at again when as much again is gone.
    pub fn acquit(&mut self) {
        self.mark = self.mark.saturating_sub(self.allowance);
    }

    /// The disk is nearly full.
    pub fn full(&self, layer: &ImageDigest, left: u64) -> PullError {
        let words = format!("{left} bytes are left, {} are kept free", self.kept);
        PullError::DiskFull { what: format!("unpack layer {layer}"), words }
    }
}

/// The upper directory of an overlay, or what is bound.
fn written_to(mounts: &[Mount]) -> Option<PathBuf> {
    let mount = mounts.first()?;
    let upper = mount.options.iter().find_map(|option| option.strip_prefix("upperdir="));
    let path = match upper {
        Some(upper) => Path::new(upper),
        None if mount.r#type == "bind" => Path::new(&mount.source),
        None => return None,
    };
    path.is_absolute().then(|| path.to_owned())
}

/// Bytes that are free, and all.
async fn space(path: &Path) -> Option<(u64, u64)> {
    let path = path.to_owned();
    let looked = tokio::task::spawn_blocking(move || rustix::fs::statvfs(path)).await;
    let disk = looked.ok()?.ok()?;
    Some((disk.f_bavail.saturating_mul(disk.f_frsize), disk.f_blocks.saturating_mul(disk.f_frsize)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_mounts_write_to_is_found() {
        let mount = |kind: &str, source: &str, options: &[&str]| Mount {
            r#type: kind.into(),
            source: source.into(),
            options: options.iter().map(|o| (*o).to_owned()).collect(),
            ..Mount::default()
        };
        let overlay = mount("overlay", "overlay", &["workdir=/w", "upperdir=/u/fs", "lowerdir=/l"]);
        assert_eq!(written_to(&[overlay]), Some("/u/fs".into()));
        assert_eq!(written_to(&[mount("bind", "/b", &["rbind"])]), Some("/b".into()));
        assert_eq!(written_to(&[mount("zfs", "pool/x", &[])]), None);
        assert_eq!(written_to(&[]), None);
    }

    #[test]
    fn small_layers_may_take_much_and_large_ones_by_their_size() {
        let bounds = UnpackBounds::default();
        assert_eq!(bounds.allowance(1000), bounds.at_least);
        assert_eq!(bounds.allowance(1 << 30), bounds.times << 30);
        assert_eq!(bounds.allowance(u64::MAX), u64::MAX);
    }
}
