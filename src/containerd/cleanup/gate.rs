//! Clean-up and pulls exclude each other, image by image.
//!
//! A removal holds the lock of its image's name while it looks whether a task needs the image and removes
//! it. Whoever resolves or pulls that name waits for its turn of the lock first. Either the removal was
//! before: then the image is not found, and is fetched. Or it comes after: then it sees the task in the
//! view, which the engine publishes before it begins any effect of the task. What other images share with
//! one that is removed is held by the lease of their pull or by their records.

use crate::containerd::image::flight::Locks;
use crate::containerd::image::reference::Reference;
use crate::containerd::images::ImageService;
use crate::core::PullFailure;
use crate::model::{ImageDigest, ImageRequest, ResolvedImage};
use crate::ports::Images;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use std::sync::Arc;

/// Removals under way, by the name of the image's record. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Removals(Arc<Locks<String>>);

impl Removals {
    /// The images, for whoever starts tasks.
    pub fn guard(&self, images: ImageService) -> GuardedImages {
        GuardedImages { images, removals: self.clone() }
    }

    /// Holds the name: who comes now waits until the answer is dropped.
    pub(super) async fn hold(&self, record: &str) -> impl Drop + use<> {
        self.0.lock(record.to_owned()).await
    }

    /// Waits until the image is not being removed. One that can't be named is none.
    async fn pass(&self, image: &str) {
        if let Ok(reference) = Reference::parse(image) {
            drop(self.0.lock(reference.record_name()).await);
        }
    }
}

/// Images that are not being removed.
#[derive(Debug, Clone)]
pub struct GuardedImages {
    images: ImageService,
    removals: Removals,
}

impl Images for GuardedImages {
    fn resolve<'a>(&'a self, image: ImageRequest<'a>) -> BoxFuture<'a, Result<ResolvedImage, PullFailure>> {
        async move {
            self.removals.pass(image.image).await;
            self.images.resolve(image).await
        }
        .boxed()
    }

    fn pull<'a>(
        &'a self,
        image: ImageRequest<'a>,
        digest: Option<&'a ImageDigest>,
    ) -> BoxFuture<'a, Result<ImageDigest, PullFailure>> {
        async move {
            self.removals.pass(image.image).await;
            self.images.pull(image, digest).await
        }
        .boxed()
    }
}
