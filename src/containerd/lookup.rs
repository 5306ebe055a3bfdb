//! What creating a container must know of its image. Implemented by the image store; the
//! composition root puts the two together.

use crate::containerd::docker_config::health::HealthSettings;
use crate::model::{ImageDigest, StopReason};
use futures_util::future::BoxFuture;
use oci_spec::image::ImageConfiguration;
use std::sync::Arc;

/// Finds images that are unpacked.
pub trait ImageLookup: Send + Sync {
    /// The unpacked image that a reference, as the task definition writes it, stands for.
    fn unpacked<'a>(&'a self, image: &'a str) -> BoxFuture<'a, Result<UnpackedImageInfo, StopReason>>;
}

/// An image whose layers are snapshots.
#[derive(Debug, Clone)]
pub struct UnpackedImageInfo {
    /// Its configuration: environment, entry point, user, volumes...
    pub config: Arc<ImageConfiguration>,
    /// Its health check, which the OCI's configuration has no place for.
    pub health: Option<HealthSettings>,
    /// Key of the committed snapshot of its topmost layer (OCI image spec, "ChainID").
    pub chain_id: String,
    /// Digest of the configuration: Docker's image id.
    pub id: ImageDigest,
}
