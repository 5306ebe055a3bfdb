//! What is known of local images: a record's target, its configuration and its chain. Looking at
//! an image twice costs two small calls: what a digest means never changes, so it is kept in memory.

use crate::containerd::Connection;
use crate::containerd::docker_config::health::{self, HealthSettings};
use crate::containerd::image::content::Contents;
use crate::containerd::image::document::{
    Document, Manifest, chain_ids, choose, parse, parse_config, this_machine,
};
use crate::containerd::image::error::{PullError, chain};
use crate::containerd::image::options::UnpackBounds;
use crate::containerd::image::record::{self, LocalImage};
use crate::containerd::image::reference::Reference;
use crate::containerd::image::registry::MANIFEST_LIMIT;
use crate::containerd::image::unpack::Unpacker;
use crate::model::{ImageDigest, StopReason};
use oci_spec::image::ImageConfiguration;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Bytes that an image's configuration may have.
pub const CONFIG_LIMIT: usize = 8 << 20;
/// Images kept in memory.
const KEPT: usize = 256;

/// A local image whose layers are unpacked.
#[derive(Debug, Clone)]
pub struct UnpackedImage {
    /// Digest of its configuration: Docker's image id.
    pub id: ImageDigest,
    /// Its configuration.
    pub config: Arc<ImageConfiguration>,
    /// Its health check.
    pub health: Option<HealthSettings>,
    /// Its topmost snapshot, to be the parent of a container's; empty for an image without layers.
    pub chain_id: String,
    /// Digest of its manifest, or of its index: what its record stands for.
    pub target: ImageDigest,
}

/// Local images. Cheap to clone; clones share their memory.
#[derive(Debug, Clone)]
pub struct ImageStore {
    conn: Connection,
    contents: Contents,
    unpacker: Arc<Unpacker>,
    known: Arc<Mutex<HashMap<ImageDigest, Arc<UnpackedImage>>>>,
}

/// A local image: its record, and the unpacked image where it is whole.
#[derive(Debug, Clone)]
pub struct Found {
    /// The record.
    pub record: LocalImage,
    /// The unpacked image; `None` where parts are missing.
    pub image: Option<Arc<UnpackedImage>>,
}

impl ImageStore {
    /// The images of `conn`'s namespace, unpacked by that snapshotter.
    pub fn new(conn: Connection, snapshotter: &str) -> Self {
        let (name, bounds) = (snapshotter.to_owned(), UnpackBounds::default());
        let unpacker = Arc::new(Unpacker::new(conn.clone(), name, 1, bounds, Duration::MAX));
        Self::with_unpacker(conn, unpacker)
    }

    pub(crate) fn with_unpacker(conn: Connection, unpacker: Arc<Unpacker>) -> Self {
        Self { contents: Contents::new(conn.clone()), conn, unpacker, known: Arc::default() }
    }

    /// The image of that name, as a task definition writes it, to make a container of. Whether it is
    /// unpacked is not asked: preparing the container's snapshot tells.
    ///
    /// # Errors
    /// `CannotCreateContainerError` where there is none, or containerd does not say.
    pub async fn image_config(&self, image: &str) -> Result<Arc<UnpackedImage>, StopReason> {
        let shown: String = image.chars().take(256).collect();
        let reason =
            |words: String| StopReason::new("CannotCreateContainerError", format!("image {shown}: {words}"));
        let reference = Reference::parse(image).map_err(|error| reason(error.to_string()))?;
        let record = record::get(&self.conn, &reference.record_name()).await;
        let record = record.map_err(|error| reason(chain(&error)))?;
        let record = record.ok_or_else(|| reason("no such image".to_owned()))?;
        let image = self.described(&record.target).await.map_err(|error| reason(chain(&error)))?;
        image.ok_or_else(|| reason("parts of it are missing: it must be pulled again".to_owned()))
    }

    /// The image of a record, by the record's name.
    ///
    /// # Errors
    /// Where containerd does not say.
    pub async fn find(&self, record: &str) -> Result<Option<Found>, PullError> {
        let Some(record) = record::get(&self.conn, record).await? else { return Ok(None) };
        let image = self.by_target(&record.target).await?;
        Ok(Some(Found { record, image }))
    }

    /// The unpacked image of a manifest or index; `None` where parts of it are missing.
    ///
    /// # Errors
    /// Where containerd does not say.
    pub async fn by_target(&self, target: &ImageDigest) -> Result<Option<Arc<UnpackedImage>>, PullError> {
        let Some(image) = self.described(target).await? else { return Ok(None) };
        Ok(self.unpacker.exists(&image.chain_id).await?.then_some(image))
    }

    /// What the documents of a manifest or index say; `None` where they are missing.
    async fn described(&self, target: &ImageDigest) -> Result<Option<Arc<UnpackedImage>>, PullError> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner).get(target).cloned();
        if known.is_some() {
            return Ok(known);
        }
        match self.read(target).await {
            Ok(image) => Ok(image.map(|image| self.remember(image))),
            // Documents that can't be used are as good as missing: they are fetched again.
            Err(PullError::Document { .. } | PullError::Platform { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Keeps what was learnt of an image.
    pub(crate) fn remember(&self, image: UnpackedImage) -> Arc<UnpackedImage> {
        let image = Arc::new(image);
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= KEPT {
            known.clear();
        }
        known.insert(image.target.clone(), image.clone());
        image
    }

    async fn read(&self, target: &ImageDigest) -> Result<Option<UnpackedImage>, PullError> {
        let Some(manifest) = self.manifest(target).await? else { return Ok(None) };
        let id = manifest.config.digest.clone();
        let Some(bytes) = self.contents.read(&id, CONFIG_LIMIT).await? else { return Ok(None) };
        let config = parse_config(&manifest, &bytes)?;
        let chain_id = chain_ids(config.rootfs().diff_ids()).pop().unwrap_or_default();
        Ok(Some(UnpackedImage {
            id,
            config: Arc::new(config),
            health: health::of_image(&bytes),
            chain_id,
            target: target.clone(),
        }))
    }

    async fn manifest(&self, target: &ImageDigest) -> Result<Option<Manifest>, PullError> {
        let mut digest = target.clone();
        // An index of indexes is allowed, a chain of them is not.
        for _ in 0..3 {
            let Some(bytes) = self.contents.read(&digest, MANIFEST_LIMIT).await? else { return Ok(None) };
            match parse(&digest, &bytes)? {
                Document::Manifest(manifest) => return Ok(Some(manifest)),
                Document::Index(manifests) => digest = choose(&digest, &manifests, &this_machine())?.1.digest,
            }
        }
        let problem = "an index of indexes of indexes".to_owned();
        Err(PullError::Document { what: "index", digest: target.to_string(), problem })
    }
}
