//! Images: which digest a name stands for, by the configured pull behaviour, and making that image
//! ready to run. Called by the engine through [`Images`], and by the containers module for an
//! image's configuration. Never touches another namespace, never runs anything.

use crate::containerd::Connection;
use crate::containerd::cleanup::adopt;
use crate::containerd::image::access::Access;
use crate::containerd::image::error::{PullError, chain};
use crate::containerd::image::flight::Flights;
use crate::containerd::image::hosts::{self, Endpoint};
use crate::containerd::image::pull::{Puller, retried};
use crate::containerd::image::record::{self, Origin};
use crate::containerd::image::reference::Reference;
use crate::containerd::image::unpacked::Found;
use crate::core::PullFailure;
use crate::model::{
    ImageDigest, ImageRequest, PullBehavior, RegistryAuth, RegistryLogin, ResolvedImage, StopReason,
};
use crate::ports::Images;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

pub use crate::containerd::image::access::RegistryLogins;
pub use crate::containerd::image::import::ImportError;
pub use crate::containerd::image::options::{Backoff, ImageOptions, PullTuning, UnpackBounds};
pub use crate::containerd::image::progress::{PullProgress, Pulls};
pub use crate::containerd::image::record::LocalImage;
pub use crate::containerd::image::unpacked::{ImageStore, UnpackedImage};

type Shared<T> = Result<T, Arc<PullError>>;

/// Images of one containerd namespace. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ImageService {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    behavior: PullBehavior,
    hosts_dir: PathBuf,
    logins: Option<Arc<dyn RegistryLogins>>,
    puller: Puller,
    /// Tags being asked for, by record name and who asks; `true` where a local image serves as well.
    asks: Flights<(String, String, bool), Shared<ImageDigest>>,
    /// Pulls under way, by record name, who asks, and digest.
    pulls: Flights<(String, String, ImageDigest), Shared<Arc<UnpackedImage>>>,
    /// Registries that could not be reached, and when.
    unreachable: Mutex<HashMap<String, Instant>>,
}

impl ImageService {
    /// By way of `conn`. Nothing is asked yet.
    pub fn new(conn: Connection, options: ImageOptions) -> Self {
        let inner = Inner {
            behavior: options.pull_behavior,
            hosts_dir: options.hosts_dir.clone(),
            logins: options.logins.clone(),
            puller: Puller::new(conn, &options),
            asks: Flights::default(),
            pulls: Flights::default(),
            unreachable: Mutex::default(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// The handle by which others look images up; shares this service's memory.
    pub fn store(&self) -> ImageStore {
        self.inner.puller.store.clone()
    }

    /// The pulls under way.
    pub fn pulls(&self) -> Pulls {
        self.inner.puller.pulls.clone()
    }

    /// The unpacked image of that name, as a task definition writes it.
    ///
    /// # Errors
    /// `CannotCreateContainerError` where there is none, or containerd does not say.
    pub async fn image_config(&self, image: &str) -> Result<Arc<UnpackedImage>, StopReason> {
        self.inner.puller.store.image_config(image).await
    }

    /// Every image of our namespace.
    ///
    /// # Errors
    /// `CannotListImagesError` with containerd's words.
    pub async fn list(&self) -> Result<Vec<LocalImage>, StopReason> {
        let listed = record::list(&self.inner.puller.conn).await;
        listed.map_err(|error| StopReason::new("CannotListImagesError", chain(&error)))
    }

    /// Removes an image's record, and with it all that nothing else needs. Not there is fine.
    ///
    /// # Errors
    /// `CannotRemoveImageError` with containerd's words.
    pub async fn remove_image(&self, image: &str) -> Result<(), StopReason> {
        let reason = |words: String| StopReason::new("CannotRemoveImageError", words);
        let reference = Reference::parse(image).map_err(|error| reason(error.to_string()))?;
        let removed = record::remove(&self.inner.puller.conn, &reference.record_name()).await;
        removed.map_err(|error| reason(chain(&error)))
    }

    /// Gives back what pulls hold that were cut off and that nobody has gone on with since this was last
    /// called; to be called every now and then.
    pub async fn give_back_abandoned(&self) {
        if let Err(error) = self.inner.puller.give_back_abandoned().await {
            tracing::warn!(error = %chain(&error), "pulls that were cut off are looked for later");
        }
    }

    /// Loads an archive: [`crate::containerd::image::import::import_archive`].
    ///
    /// # Errors
    /// [`ImportError`].
    pub async fn import(&self, path: &Path) -> Result<Vec<String>, ImportError> {
        crate::containerd::image::import::import_archive(self, path).await
    }

    pub(crate) fn puller(&self) -> &Puller {
        &self.inner.puller
    }
}

impl Images for ImageService {
    fn resolve<'a>(&'a self, image: ImageRequest<'a>) -> BoxFuture<'a, Result<ResolvedImage, PullFailure>> {
        self.inner.resolve(image).boxed()
    }

    fn pull<'a>(
        &'a self,
        image: ImageRequest<'a>,
        digest: Option<&'a ImageDigest>,
    ) -> BoxFuture<'a, Result<ImageDigest, PullFailure>> {
        self.inner.pull(image, digest).boxed()
    }
}

impl Inner {
    async fn resolve(self: &Arc<Self>, request: ImageRequest<'_>) -> Result<ResolvedImage, PullFailure> {
        let image = request.image;
        let failed = |error: &PullError, local| PullFailure { reason: error.reason(image), local };
        let reference = Reference::parse(image).map_err(|error| failed(&error.into(), None))?;
        let found = self.puller.store.find(&reference.record_name()).await;
        let found = found.map_err(|error| failed(&error, None))?;
        let unpacked = found.as_ref().filter(|found| found.image.is_some());
        if reference.digest().is_some() {
            // Known without asking, and not told as resolved (spec/task-engine.md 3.2).
            return Ok(ResolvedImage { digest: None, local: unpacked.is_some() });
        }
        if let Some(local) = unpacked
            && !self.asks_for(&local.record.origin)
        {
            // An image that no registry gave has no registry digest either.
            let digest = (local.record.origin == Origin::Registry).then(|| local.record.target.clone());
            return Ok(ResolvedImage { digest, local: true });
        }
        let serves = self.serving(unpacked);
        let answer = async {
            let access = self.access(request, reference, serves.is_some()).await?;
            self.ask(&access, serves.is_some()).await
        };
        match answer.await {
            Ok(digest) => {
                let local = unpacked.is_some_and(|local| local.record.target == digest);
                Ok(ResolvedImage { digest: Some(digest), local })
            }
            Err(error) => Err(failed(&error, serves)),
        }
    }

    async fn pull(
        self: &Arc<Self>,
        request: ImageRequest<'_>,
        digest: Option<&ImageDigest>,
    ) -> Result<ImageDigest, PullFailure> {
        let image = request.image;
        let failed = |error: &PullError, local| PullFailure { reason: error.reason(image), local };
        let reference = Reference::parse(image).map_err(|error| failed(&error.into(), None))?;
        let found = self.puller.store.find(&reference.record_name()).await;
        let found = found.map_err(|error| failed(&error, None))?;
        let unpacked = found.as_ref().and_then(|found| Some((&found.record, found.image.as_ref()?)));
        let serves = self.serving(found.as_ref());
        let wanted = digest.or(reference.digest()).cloned();
        if let Some((record, local)) = unpacked
            && wanted.as_ref().map_or(!self.asks_for(&record.origin), |wanted| *wanted == record.target)
        {
            if digest.is_some() && record.origin == Origin::Foreign {
                self.adopt(&record.name).await;
            }
            return Ok(local.id.clone());
        }
        let asked = async {
            let access = self.access(request, reference, serves.is_some()).await?;
            let wanted = match wanted {
                Some(wanted) => wanted,
                None => self.ask(&access, serves.is_some()).await?,
            };
            Shared::Ok((access, wanted))
        };
        let (access, wanted) = asked.await.map_err(|error| failed(&error, serves.clone()))?;
        if let Some((record, local)) = unpacked.filter(|(record, _)| record.target == wanted) {
            if record.origin == Origin::Foreign {
                self.adopt(&record.name).await;
            }
            return Ok(local.id.clone());
        }
        let key = (access.reference().record_name(), access.who().to_owned(), wanted.clone());
        let flight = self.pulls.join(key, || {
            let inner = self.clone();
            async move { inner.puller.pull(&access, &wanted).await.map_err(Arc::new) }.boxed()
        });
        match flight.await {
            Ok(image) => Ok(image.id.clone()),
            Err(error) => {
                tracing::warn!(image, error = %chain(&*error), "pull failed");
                Err(failed(&error, serves))
            }
        }
    }

    /// The registry has an image that somebody else put here: from now on it counts as pulled.
    async fn adopt(&self, record: &str) {
        if let Err(error) = adopt(&self.puller.conn, record).await {
            tracing::warn!(
                image = record,
                error = chain(&error),
                "the next start will ask the registry again"
            );
        }
    }

    /// Whether the registry is asked about an image that is there (spec/task-engine.md 3.1).
    fn asks_for(&self, origin: &Origin) -> bool {
        match self.behavior {
            PullBehavior::Default | PullBehavior::Always => true,
            PullBehavior::Once => *origin == Origin::Foreign,
            PullBehavior::PreferCached => false,
        }
    }

    /// The local image that may serve where the registry fails.
    fn serving(&self, found: Option<&Found>) -> Option<ImageDigest> {
        let may = matches!(self.behavior, PullBehavior::Default | PullBehavior::PreferCached);
        found.filter(|_| may)?.image.as_ref().map(|image| image.id.clone())
    }

    /// By which hosts the registry is asked, and as whom. Where a local image serves, this is quick or it
    /// fails.
    async fn access(&self, request: ImageRequest<'_>, reference: Reference, serves: bool) -> Shared<Access> {
        let (directory, of) = (self.hosts_dir.clone(), reference.clone());
        let read = tokio::task::spawn_blocking(move || hosts::endpoints(&directory, &of)).await;
        let endpoints = read.unwrap_or_else(|_| Ok(vec![Endpoint::of(&reference)]));
        let endpoints = endpoints.map_err(|error| Arc::new(PullError::Hosts(error)))?;
        let Some(login) = request.login else { return Ok(Access::new(reference, endpoints, None)) };
        let asked = self.login(request, login);
        let answer = if serves {
            let after = self.puller.tuning.local_patience;
            let late = |_| {
                let words = format!("no password for {} within {} s", reference.host(), after.as_secs_f64());
                Err(StopReason::new("CannotPullContainerError", words))
            };
            tokio::time::timeout(after, asked).await.unwrap_or_else(late)
        } else {
            asked.await
        };
        match answer {
            Ok(auth) => Ok(Access::new(reference, endpoints, Some(auth))),
            Err(reason) => Err(Arc::new(PullError::Login(reason))),
        }
    }

    async fn login(
        &self,
        request: ImageRequest<'_>,
        login: &RegistryLogin,
    ) -> Result<RegistryAuth, StopReason> {
        match &self.logins {
            Some(logins) => logins.login(request.image, login, request.execution_role).await,
            None => {
                Err(StopReason::new("CannotPullContainerError", "passwords of registries are not to be had"))
            }
        }
    }

    /// The digest that the registry has for a tag. Where a local image serves, this is quick or it
    /// fails.
    async fn ask(self: &Arc<Self>, access: &Access, serves: bool) -> Shared<ImageDigest> {
        let host = access.reference().host().to_owned();
        if serves && let Some(ago) = self.unreachable_since(&host) {
            return Err(Arc::new(PullError::StillUnreachable { host, ago }));
        }
        let key = (access.reference().record_name(), access.who().to_owned(), serves);
        let flight = self.asks.join(key, || {
            let (inner, access) = (self.clone(), access.clone());
            async move { inner.ask_registry(&access, serves).await.map_err(Arc::new) }.boxed()
        });
        let answer = match serves {
            false => flight.await,
            true => {
                let after = self.puller.tuning.local_patience;
                let late = || Err(Arc::new(PullError::Patience { host: host.clone(), after }));
                tokio::time::timeout(after, flight).await.unwrap_or_else(|_| late())
            }
        };
        let mut unreachable = self.unreachable.lock().unwrap_or_else(PoisonError::into_inner);
        match &answer {
            Err(error) if error.is_unreachable() => unreachable.insert(host, Instant::now()),
            _ => unreachable.remove(&host),
        };
        answer
    }

    fn unreachable_since(&self, host: &str) -> Option<std::time::Duration> {
        let unreachable = self.unreachable.lock().unwrap_or_else(PoisonError::into_inner);
        let ago = unreachable.get(host)?.elapsed();
        (ago < self.puller.tuning.unreachable_memory).then_some(ago)
    }

    async fn ask_registry(&self, access: &Access, serves: bool) -> Result<ImageDigest, PullError> {
        let registry = &self.puller.registry;
        let ask = || async {
            match registry.head(access).await {
                Ok(Some(digest)) => return Ok(digest),
                Err(error) if error.is_transient() => return Err(error),
                // HEAD has no words, and some registries refuse it: GET tells.
                Ok(None) | Err(_) => {}
            }
            registry.manifest(access, None).await.map(|document| document.digest)
        };
        let mut backoff = self.puller.tuning.resolve_retry;
        if serves {
            // Nobody need wait: one more try is all.
            backoff.attempts = backoff.attempts.min(2);
        }
        retried(&backoff, ask).await
    }
}
