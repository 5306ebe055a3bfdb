//! What `ecsd local` has done by others: everything that needs containerd's API or the kernel's
//! network. The composition root hands it in.

use futures_util::future::BoxFuture;
use std::path::{Path, PathBuf};

/// The containerd that a session uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerdTarget {
    /// Its socket.
    pub socket: PathBuf,
    /// Namespace for images and containers.
    pub namespace: String,
    /// Started by the session, and gone with it.
    pub is_private: bool,
}

/// Implemented by the composition root.
pub trait HostHooks: Send + Sync {
    /// Loads an OCI or docker image archive; answers the names of its images.
    fn load_image<'a>(
        &'a self,
        containerd: &'a ContainerdTarget,
        archive: &'a Path,
    ) -> BoxFuture<'a, anyhow::Result<Vec<String>>>;

    /// Called at the end, after the agent has ended and before a private containerd is stopped: removes
    /// whatever the agent keeps on a host between its starts (bridge, rules, cgroup root, namespaces,
    /// what may be left in containerd). `state_dir` is the session's directory. Must be safe to repeat.
    fn teardown_host<'a>(
        &'a self,
        containerd: &'a ContainerdTarget,
        state_dir: &'a Path,
    ) -> BoxFuture<'a, anyhow::Result<()>>;
}
