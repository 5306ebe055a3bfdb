//! An image, from its digest to a record whose layers are unpacked. Layers are fetched side by side
//! and unpacked in order as they come. Everything is held by one lease until the record holds it.
//!
//! The parts come from a registry, or ([`Source::Local`]) have been put into the content store by
//! an import.

use crate::containerd::Connection;
use crate::containerd::docker_config::health::{self, HealthSettings};
use crate::containerd::image::access::Access;
use crate::containerd::image::blob::Fetcher;
use crate::containerd::image::content::Contents;
use crate::containerd::image::document::{
    Descriptor, Document, Manifest, OCI_INDEX, OCI_MANIFEST, chain_ids, choose, parse, parse_config,
    this_machine,
};
use crate::containerd::image::error::{PullError, RegistryError};
use crate::containerd::image::flight::Locks;
use crate::containerd::image::gate::Gate;
use crate::containerd::image::lease::Lease;
use crate::containerd::image::options::{Backoff, ImageOptions, PullTuning};
use crate::containerd::image::progress::{ProgressMeter, PullProgress, Pulls, TARGET};
use crate::containerd::image::record::{self, Origin};
use crate::containerd::image::registry::{BlobSource, MANIFEST_LIMIT, Registry, digest_of};
use crate::containerd::image::remote::Named;
use crate::containerd::image::unpack::{Layer, Unpacker};
use crate::containerd::image::unpacked::{CONFIG_LIMIT, ImageStore, UnpackedImage};
use crate::model::ImageDigest;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesOrdered;
use futures_util::{FutureExt, StreamExt};
use oci_spec::image::ImageConfiguration;
use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::mpsc;

/// Makes images whole.
#[derive(Debug)]
pub struct Puller {
    pub(crate) conn: Connection,
    pub(crate) contents: Contents,
    pub(crate) store: ImageStore,
    pub(crate) registry: Registry,
    pub(crate) tuning: PullTuning,
    pub(crate) pulls: Pulls,
    unpacker: Arc<Unpacker>,
    fetcher: Fetcher,
    blobs: Locks<ImageDigest>,
    /// Leases of pulls under way, by id.
    leases: Locks<String>,
    /// Leases that no pull had when they were last looked through.
    idle: Mutex<BTreeSet<String>>,
}

/// How the ids of pulls' leases begin.
const LEASE: &str = "ecsd-pull-";

/// Where the parts of an image come from.
#[derive(Debug, Clone, Copy)]
pub enum Source<'a> {
    /// From the image's registry, as far as they are not there.
    Registry(&'a Access),
    /// They are in the content store.
    Local,
}

/// The documents of an image, all in the content store.
struct Tree {
    root: Descriptor,
    manifest_digest: ImageDigest,
    manifest: Manifest,
    config: ImageConfiguration,
    health: Option<HealthSettings>,
    /// By document: what it refers to, in the words of containerd's garbage collector.
    labels: Vec<(ImageDigest, HashMap<String, String>)>,
}

impl Puller {
    /// By way of `conn`.
    pub fn new(conn: Connection, options: &ImageOptions) -> Self {
        let contents = Contents::new(conn.clone());
        let tuning = options.tuning.clone();
        let (snapshotter, patience) = (options.snapshotter.clone(), tuning.unpack_patience);
        let (slots, bounds) = (tuning.unpacks, tuning.unpack_bounds);
        let unpacker = Arc::new(Unpacker::new(conn.clone(), snapshotter, slots, bounds, patience));
        let streams = Arc::new(Gate::new(tuning.streams));
        Self {
            store: ImageStore::with_unpacker(conn.clone(), unpacker.clone()),
            registry: Registry::new(options, streams.clone()),
            fetcher: Fetcher::new(contents.clone(), tuning.clone(), streams),
            blobs: Locks::default(),
            pulls: Pulls::default(),
            leases: Locks::default(),
            idle: Mutex::default(),
            conn,
            contents,
            tuning,
            unpacker,
        }
    }

    /// Fetches and unpacks the image of that digest, and makes the reference's record stand for it.
    ///
    /// # Errors
    /// [`PullError`]; then nothing of what was fetched is left.
    pub async fn pull(&self, access: &Access, digest: &ImageDigest) -> Result<Arc<UnpackedImage>, PullError> {
        let name = access.reference().record_name();
        let hash = digest_of(format!("{name} {digest} {}", access.who()).as_bytes());
        let id = format!("{LEASE}{}", &hash.as_str()[7..39]);
        let _under_way = self.leases.lock(id.clone()).await;
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
        tracing::info!(target: TARGET, image = %name, %digest, "pull begins");
        let lease = Lease::take(&self.conn, id, self.tuning.lease_life).await?;
        let names = [name.clone()];
        let made = self.build(&lease, Source::Registry(access), digest, &names, Origin::Registry).await;
        lease.give_back(made.is_err()).await;
        let (image, meter) = made?;
        let PullProgress { bytes_done, bytes_total, layers_done, layers_total, .. } = meter.now();
        tracing::info!(
            target: TARGET, image = %name, %digest, bytes_done, bytes_total, layers_done, layers_total,
            elapsed_ms = u64::try_from(meter.elapsed().as_millis()).unwrap_or(u64::MAX), "pull ends"
        );
        Ok(image)
    }

    /// Gives back the leases of pulls that were cut off, by a stop or by a crash, and that nobody has gone on
    /// with since this was last called. Answers how many.
    ///
    /// # Errors
    /// Where containerd does not list them.
    pub async fn give_back_abandoned(&self) -> Result<usize, PullError> {
        let (mut idle, mut given_back) = (BTreeSet::new(), 0);
        for lease in Lease::all(&self.conn, LEASE).await? {
            // Nobody begins to use it while this is held.
            let Some(_unused) = self.leases.try_lock(lease.id().to_owned()) else { continue };
            let before = self.idle.lock().unwrap_or_else(PoisonError::into_inner).contains(lease.id());
            if before {
                tracing::info!(lease = lease.id(), "a pull that was cut off is given up");
                lease.give_back(false).await;
                given_back += 1;
            } else {
                idle.insert(lease.id().to_owned());
            }
        }
        *self.idle.lock().unwrap_or_else(PoisonError::into_inner) = idle;
        Ok(given_back)
    }

    /// Makes an image whole within a lease, and makes records of these names stand for it.
    ///
    /// # Errors
    /// [`PullError`].
    pub async fn build(
        &self,
        lease: &Lease,
        source: Source<'_>,
        root: &ImageDigest,
        names: &[String],
        origin: Origin,
    ) -> Result<(Arc<UnpackedImage>, ProgressMeter), PullError> {
        let meter = self.pulls.begin(names.first().map_or(root.as_str(), String::as_str));
        let mut tree = self.tree(lease, source, root).await?;
        meter.layers(tree.manifest.layers.len());
        let chains = chain_ids(tree.config.rootfs().diff_ids());
        self.layers(lease, source, &tree, &chains, &meter).await?;
        let chain_id = chains.last().cloned().unwrap_or_default();
        if !chain_id.is_empty() {
            let key = format!("containerd.io/gc.ref.snapshot.{}", self.unpacker.snapshotter());
            let label = HashMap::from([(key, chain_id.clone())]);
            tree.labels.push((tree.manifest.config.digest.clone(), label));
        }
        for (digest, labels) in tree.labels {
            self.contents.label(&digest, labels).await?;
        }
        for name in names {
            record::put(&self.conn, lease.id(), name, &tree.root, origin).await?;
        }
        let id = tree.manifest.config.digest.clone();
        let image = UnpackedImage {
            id,
            config: Arc::new(tree.config),
            health: tree.health,
            chain_id,
            target: tree.root.digest,
        };
        Ok((self.store.remember(image), meter))
    }

    /// Gathers index, manifest and configuration.
    async fn tree(&self, lease: &Lease, source: Source<'_>, root: &ImageDigest) -> Result<Tree, PullError> {
        let mut labels = Vec::new();
        let mut digest = root.clone();
        let mut top = None;
        let manifest = loop {
            let bytes = self.document(lease, source, &digest).await?;
            let parsed = parse(&digest, &bytes)?;
            let fallback = if let Document::Index(_) = parsed { OCI_INDEX } else { OCI_MANIFEST };
            top.get_or_insert_with(|| Descriptor {
                media_type: said_type(&bytes).unwrap_or_else(|| fallback.to_owned()),
                digest: digest.clone(),
                size: bytes.len() as u64,
            });
            match parsed {
                Document::Manifest(manifest) => break manifest,
                Document::Index(_) if labels.len() >= 2 => {
                    let problem = "an index of indexes of indexes".to_owned();
                    return Err(PullError::Document { what: "index", digest: root.to_string(), problem });
                }
                Document::Index(manifests) => {
                    let (place, chosen) = choose(&digest, &manifests, &this_machine())?;
                    let label =
                        (format!("containerd.io/gc.ref.content.m.{place}"), chosen.digest.to_string());
                    labels.push((digest, HashMap::from([label])));
                    digest = chosen.digest;
                }
            }
        };
        let mut refs = HashMap::from([(
            "containerd.io/gc.ref.content.config".to_owned(),
            manifest.config.digest.to_string(),
        )]);
        refs.extend(
            manifest
                .layers
                .iter()
                .enumerate()
                .map(|(n, layer)| (format!("containerd.io/gc.ref.content.l.{n}"), layer.digest.to_string())),
        );
        labels.push((digest.clone(), refs));
        let missing = || PullError::Document {
            what: "image configuration",
            digest: manifest.config.digest.to_string(),
            problem: "it is missing".to_owned(),
        };
        if manifest.config.size > CONFIG_LIMIT as u64 {
            let (digest, size) = (manifest.config.digest.to_string(), manifest.config.size);
            let problem = format!("{size} bytes: {CONFIG_LIMIT} is the most");
            return Err(PullError::Document { what: "image configuration", digest, problem });
        }
        self.blob(lease, source, &manifest.config, &ProgressMeter::silent()).await?;
        let bytes = self.contents.read(&manifest.config.digest, CONFIG_LIMIT).await?.ok_or_else(missing)?;
        let config = parse_config(&manifest, &bytes)?;
        let root = top.ok_or_else(missing)?;
        Ok(Tree { root, manifest_digest: digest, manifest, config, health: health::of_image(&bytes), labels })
    }

    /// A manifest or an index, from the content store or else from the registry.
    async fn document(
        &self,
        lease: &Lease,
        source: Source<'_>,
        digest: &ImageDigest,
    ) -> Result<Vec<u8>, PullError> {
        let _turn = self.blobs.lock(digest.clone()).await;
        lease.hold("content", digest.as_str()).await?;
        if let Some(bytes) = self.contents.read(digest, MANIFEST_LIMIT).await? {
            return Ok(bytes);
        }
        let Source::Registry(access) = source else {
            let problem = "it is not in the archive".to_owned();
            return Err(PullError::Document { what: "manifest", digest: digest.to_string(), problem });
        };
        let got = retried(&self.tuning.retry, || self.registry.manifest(access, Some(digest))).await?;
        parse(digest, &got.bytes)?;
        self.contents.put(lease.id(), digest, &got.bytes).await?;
        Ok(got.bytes)
    }

    /// Makes sure that a blob is in the content store.
    async fn blob(
        &self,
        lease: &Lease,
        source: Source<'_>,
        blob: &Descriptor,
        meter: &ProgressMeter,
    ) -> Result<(), PullError> {
        let _turn = self.blobs.lock(blob.digest.clone()).await;
        let Source::Registry(access) = source else {
            lease.hold("content", blob.digest.as_str()).await?;
            if self.contents.exists(&blob.digest).await? {
                meter.add(blob.size);
                return Ok(());
            }
            let problem = "it is not in the archive".to_owned();
            return Err(PullError::Document { what: "blob", digest: blob.digest.to_string(), problem });
        };
        let from = BlobSource::new(&self.registry, access, &blob.digest);
        self.fetcher.fetch(lease, &from, blob, meter).await
    }

    /// Fetches and unpacks whatever layers are not unpacked yet.
    async fn layers(
        &self,
        lease: &Lease,
        source: Source<'_>,
        tree: &Tree,
        chains: &[String],
        meter: &ProgressMeter,
    ) -> Result<(), PullError> {
        let layers = &tree.manifest.layers;
        // The highest chain that is there stands for all below it.
        let mut begin = layers.len();
        while begin > 0 && !self.unpacker.hold(lease, &chains[begin - 1]).await? {
            begin -= 1;
        }
        if let Source::Registry(access) = source {
            let image = access.reference().record_name();
            let named = Named { image: &image, manifest: &tree.manifest_digest };
            while begin < layers.len() {
                let below = begin.checked_sub(1).map_or("", |below| chains[below].as_str());
                let chain = (below, chains[begin].as_str());
                if !self.unpacker.is_provided(lease, named, &layers[begin..], chain).await {
                    break;
                }
                begin += 1;
            }
        }
        (0..begin).for_each(|_| meter.layer_done());
        let missing = &layers[begin..];
        meter.expect(missing.iter().map(|layer| layer.size).sum());
        let (arrived, mut arrivals) = mpsc::channel(missing.len().max(1));
        let fetch = async move {
            let mut waiting = missing.iter();
            let mut fetching: FuturesOrdered<BoxFuture<'_, Result<(), PullError>>> = FuturesOrdered::new();
            loop {
                while fetching.len() < self.tuning.layers_per_image.max(1)
                    && let Some(layer) = waiting.next()
                {
                    fetching.push_back(self.blob(lease, source, layer, meter).boxed());
                }
                let Some(fetched) = fetching.next().await else { return Ok::<(), PullError>(()) };
                fetched?;
                let _ = arrived.send(()).await;
            }
        };
        let unpack = async {
            let mut next = begin;
            while let Some(()) = arrivals.recv().await {
                let below = next.checked_sub(1).map_or("", |below| chains[below].as_str());
                let layer = Layer {
                    layer: &layers[next],
                    diff_id: &tree.config.rootfs().diff_ids()[next],
                    parent: below,
                    chain: &chains[next],
                };
                self.unpacker.unpack(lease, layer).await?;
                meter.layer_done();
                next += 1;
            }
            Ok(())
        };
        tokio::try_join!(fetch, unpack).map(|_| ())
    }
}

/// Asks until it works, or trying again can't help.
pub(crate) async fn retried<T, F: Future<Output = Result<T, RegistryError>>>(
    backoff: &Backoff,
    ask: impl Fn() -> F,
) -> Result<T, PullError> {
    let mut attempt = 1;
    loop {
        let source = match ask().await {
            Ok(got) => return Ok(got),
            Err(error) => error,
        };
        let delay = backoff.after(attempt, source.wish()).filter(|_| source.is_transient());
        let Some(delay) = delay else {
            return Err(PullError::Registry { attempts: attempt, source: Box::new(source) });
        };
        tracing::debug!(attempt, error = %source, "a registry is asked again");
        tokio::time::sleep(delay).await;
        attempt += 1;
    }
}

/// The media type that a document gives itself.
fn said_type(bytes: &[u8]) -> Option<String> {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Said {
        media_type: Option<String>,
    }
    serde_json::from_slice::<Said>(bytes).ok()?.media_type.filter(|t| !t.is_empty() && t.len() < 256)
}
