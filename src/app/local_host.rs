//! What `ecsd local` needs of containerd, of containers' logs and of the kernel, beside the agent itself.

pub use crate::containerd::image::archive::{RootfsConfig, RootfsContent, RootfsFile, oci_archive};
pub use crate::logs::reader::{Files, Line, follower};
pub use crate::logs::record::decode as decode_log_line;

use crate::cgroup::{CgroupOptions, CgroupService};
use crate::containerd::image::import::import_archive;
use crate::containerd::images::ImageOptions;
use crate::containerd::{Connection, ImageService};
use crate::control::chain;
use crate::net::{NetworkOptions, NetworkService};
use std::path::Path;

/// The cgroup root of local tasks: another than the agent's, which may run beside.
pub const CGROUP_ROOT: &str = "ecsd_local";

/// Loads an image archive; answers the names of its images.
///
/// # Errors
/// What went wrong, with its causes.
pub async fn load_image(socket: &Path, namespace: &str, archive: &Path) -> Result<Vec<String>, String> {
    let connection = Connection::new(socket, namespace).map_err(|error| error.to_string())?;
    let images = ImageService::new(connection, ImageOptions::default());
    import_archive(&images, archive).await.map_err(|error| chain(&error))
}

/// Removes what the agent keeps on a host between its starts, and the images of the local namespace.
/// `runtime_dir` is the agent's ECSD_RUNTIME_DIR.
///
/// # Errors
/// Everything that could not be removed; the rest was.
pub async fn take_down(socket: &Path, namespace: &str, runtime_dir: &Path) -> Result<(), String> {
    let mut problems = Vec::new();
    let options = NetworkOptions { netns_dir: runtime_dir.join("netns"), ..NetworkOptions::default() };
    match NetworkService::new(options) {
        Ok(networks) => problems.extend(networks.remove_all().await.err().map(|error| chain(&error))),
        Err(error) => problems.push(chain(&error)),
    }
    let cgroups =
        CgroupService::new(CgroupOptions { root: CGROUP_ROOT.to_owned(), ..CgroupOptions::default() });
    let removed = match cgroups {
        Ok(cgroups) => tokio::task::spawn_blocking(move || cgroups.remove_root()).await,
        Err(error) => return Err(chain(&error)),
    };
    match removed {
        Ok(Ok(())) => {}
        Ok(Err(error)) => problems.push(format!("cgroup {CGROUP_ROOT}: {error}")),
        Err(error) => problems.push(error.to_string()),
    }
    problems.extend(remove_images(socket, namespace).await.err());
    if problems.is_empty() { Ok(()) } else { Err(problems.join("; ")) }
}

async fn remove_images(socket: &Path, namespace: &str) -> Result<(), String> {
    let connection = Connection::new(socket, namespace).map_err(|error| error.to_string())?;
    let images = ImageService::new(connection, ImageOptions::default());
    for image in images.list().await.map_err(|reason| reason.to_string())? {
        images.remove_image(&image.name).await.map_err(|reason| reason.to_string())?;
    }
    Ok(())
}
