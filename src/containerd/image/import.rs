//! Images from an archive: an OCI layout or what `docker save` writes, perhaps gzipped. Everything
//! goes to the content store first, within a lease; then images are made as if they were pulled.

use crate::containerd::image::archive::{RootfsConfig, RootfsFile, oci_archive};
use crate::containerd::image::content::{Contents, Opened, ingest_name};
use crate::containerd::image::document::{DOCKER_MANIFEST, RawDescriptor};
use crate::containerd::image::error::{PullError, chain};
use crate::containerd::image::lease::Lease;
use crate::containerd::image::pull::{Puller, Source};
use crate::containerd::image::record::Origin;
use crate::containerd::image::reference::{Reference, ReferenceError};
use crate::containerd::image::registry::digest_of;
use crate::containerd::image::tarball::{Entry, read};
use crate::containerd::images::ImageService;
use crate::model::ImageDigest;
use serde::Deserialize;
use serde_json::json;
use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use tokio::sync::mpsc;
use tonic::Code;

/// Images of one archive.
const IMAGES: usize = 64;

/// Why an archive was not loaded. Nothing of it is left then.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The file can't be opened.
    #[error("image archive {path}")]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It can't be read as a tar archive.
    #[error("the image archive can't be read: is it a tar file, perhaps gzipped?")]
    Read(#[source] std::io::Error),
    /// An entry that is refused.
    #[error("image archive, entry {name:?}: {problem}")]
    Entry {
        /// Its name.
        name: String,
        /// What is wrong.
        problem: String,
    },
    /// The archive as a whole.
    #[error("image archive: {0}")]
    Archive(String),
    /// A name in it that is no reference.
    #[error("image archive")]
    Name(#[source] ReferenceError),
    /// An image of it.
    #[error("image {name} of the archive: {}", chain(source))]
    Image {
        /// Its name.
        name: String,
        /// What is wrong.
        source: Box<PullError>,
    },
    /// containerd did not take it.
    #[error("image archive: {}", chain(.0))]
    Store(Box<PullError>),
}

/// What an archive held; its files are in the content store.
#[derive(Debug, Default)]
struct Catalogue {
    documents: BTreeMap<String, Vec<u8>>,
    files: BTreeMap<String, StoredFile>,
    links: BTreeMap<String, String>,
}

#[derive(Debug, Clone)]
struct StoredFile {
    digest: ImageDigest,
    size: u64,
    gzip: bool,
}

/// An image to make.
#[derive(Debug)]
struct Wanted {
    root: ImageDigest,
    names: Vec<String>,
}

#[derive(Deserialize)]
struct Index {
    manifests: Vec<RawDescriptor>,
}

/// An image in the `manifest.json` of `docker save`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Vec<String>,
}

/// Loads an archive from a file. Answers the names of its images' records.
///
/// # Errors
/// [`ImportError`].
pub async fn import_archive(service: &ImageService, path: &Path) -> Result<Vec<String>, ImportError> {
    let owned = path.to_owned();
    let open =
        move || std::fs::File::open(&owned).map_err(|source| ImportError::Open { path: owned, source });
    let file = tokio::task::spawn_blocking(open).await.map_err(|e| ImportError::Archive(e.to_string()))??;
    import_stream(service, file).await
}

/// Makes an image of files in memory ready to run. Answers the name of its record.
///
/// # Errors
/// [`ImportError`].
pub async fn build_rootfs_image(
    service: &ImageService,
    name: &str,
    files: &[RootfsFile],
    config: &RootfsConfig,
) -> Result<String, ImportError> {
    let archive = oci_archive(name, files, config).map_err(ImportError::Read)?;
    let names = import_stream(service, std::io::Cursor::new(archive)).await?;
    names.into_iter().next().ok_or_else(|| ImportError::Archive("no image".to_owned()))
}

/// Loads an archive from a stream.
///
/// # Errors
/// [`ImportError`].
pub async fn import_stream(
    service: &ImageService,
    source: impl Read + Send + 'static,
) -> Result<Vec<String>, ImportError> {
    let puller = service.puller();
    let stored = |error| ImportError::Store(Box::new(error));
    let id = format!("ecsd-import-{}", uuid::Uuid::new_v4().simple());
    let lease = Lease::take(&puller.conn, id, puller.tuning.lease_life).await.map_err(stored)?;
    let made = import_in(puller, &lease, source).await;
    // What no image needed goes with the lease.
    lease.give_back(true).await;
    made
}

async fn import_in(
    puller: &Puller,
    lease: &Lease,
    source: impl Read + Send + 'static,
) -> Result<Vec<String>, ImportError> {
    let (to, from) = mpsc::channel(2);
    let reading = tokio::task::spawn_blocking(move || read(source, &to));
    let catalogue = store(&puller.contents, lease, from).await;
    let read = reading.await.map_err(|e| ImportError::Archive(e.to_string()))?;
    // What stopped the reader is the cause of what the writer then missed.
    read?;
    let catalogue = catalogue?;
    let wanted = wanted_images(puller, lease, &catalogue).await?;
    let mut names = Vec::new();
    for image in wanted {
        let built = puller.build(lease, Source::Local, &image.root, &image.names, Origin::Archive).await;
        built.map_err(|source| {
            let name = image.names.first().cloned().unwrap_or_default();
            ImportError::Image { name, source: Box::new(source) }
        })?;
        names.extend(image.names);
    }
    Ok(names)
}

/// Writes every file to the content store.
async fn store(
    contents: &Contents,
    lease: &Lease,
    mut from: mpsc::Receiver<Entry>,
) -> Result<Catalogue, ImportError> {
    let mut catalogue = Catalogue::default();
    while let Some(entry) = from.recv().await {
        match entry {
            Entry::Document(name, bytes) => {
                catalogue.documents.insert(name, bytes);
            }
            Entry::Link(name, target) => {
                catalogue.links.insert(name, target);
            }
            Entry::Begin(name, size) => {
                if let Some(file) = store_file(contents, lease, &mut from, &name, size).await? {
                    catalogue.files.insert(name, file);
                }
            }
            Entry::Data(_) | Entry::End => {}
        }
    }
    Ok(catalogue)
}

/// Writes one file; `None` where the archive ended within it.
async fn store_file(
    contents: &Contents,
    lease: &Lease,
    from: &mut mpsc::Receiver<Entry>,
    name: &str,
    size: u64,
) -> Result<Option<StoredFile>, ImportError> {
    let expected = match name.strip_prefix("blobs/") {
        Some(blob) => {
            Some(ImageDigest::parse(&blob.replacen('/', ":", 1)).ok_or_else(|| ImportError::Entry {
                name: name.to_owned(),
                problem: "not named after a sha256 digest".to_owned(),
            })?)
        }
        None => None,
    };
    let ingest = match &expected {
        Some(digest) => ingest_name(digest),
        None => format!("ecsd-import-{}", uuid::Uuid::new_v4().simple()),
    };
    let failed = |status: tonic::Status| {
        let wrong = matches!(status.code(), Code::FailedPrecondition | Code::OutOfRange);
        match wrong && expected.is_some() {
            true => ImportError::Entry {
                name: name.to_owned(),
                problem: format!("its content does not match its digest: {}", status.message()),
            },
            false => ImportError::Store(Box::new(PullError::containerd(format!("write {name}"), status))),
        }
    };
    let mut writer =
        match contents.open(lease.id(), &ingest, expected.as_ref(), size).await.map_err(failed)? {
            Opened::Exists => None,
            Opened::Ingest(writer) => Some(writer),
        };
    let mut skip = writer.as_ref().map_or(0, |w| w.offset());
    let mut head = Vec::new();
    let written = loop {
        match from.recv().await {
            Some(Entry::Data(mut data)) => {
                if head.len() < 2 {
                    head.extend(data.iter().take(2));
                }
                let known = data.len().min(usize::try_from(skip).unwrap_or(usize::MAX));
                skip -= known as u64;
                data.drain(..known);
                if let Some(writer) = &mut writer
                    && let Err(status) = writer.write(data).await
                {
                    break Err(status);
                }
            }
            Some(_) => break Ok(true),
            None => break Ok(false),
        }
    };
    let gzip = head.starts_with(&[0x1f, 0x8b]);
    let ended = match (written, writer) {
        (Err(status), _) => Err(status),
        (Ok(true), Some(writer)) => writer.commit().await.map(Some),
        (Ok(true), None) => return Ok(expected.map(|digest| StoredFile { digest, size, gzip })),
        (Ok(false), _) => Ok(None),
    };
    match ended {
        Ok(Some(found)) => Ok(ImageDigest::parse(&found).map(|digest| StoredFile { digest, size, gzip })),
        // Content of that digest that came under another name in the meantime.
        Ok(None) => {
            contents.abort(&ingest).await;
            Ok(None)
        }
        Err(status) => {
            contents.abort(&ingest).await;
            Err(failed(status))
        }
    }
}

/// The images that an archive offers, with normalised names.
async fn wanted_images(
    puller: &Puller,
    lease: &Lease,
    catalogue: &Catalogue,
) -> Result<Vec<Wanted>, ImportError> {
    let saved: Vec<Saved> = document(catalogue, "manifest.json")?.unwrap_or_default();
    let index: Option<Index> = document(catalogue, "index.json")?;
    let count = saved.len().max(index.as_ref().map_or(0, |index| index.manifests.len()));
    if count > IMAGES {
        return Err(ImportError::Archive(format!("{count} images: {IMAGES} is the most")));
    }
    let mut wanted: Vec<Wanted> = Vec::new();
    for raw in index.iter().flat_map(|index| &index.manifests) {
        let root = ImageDigest::parse(&raw.digest)
            .ok_or_else(|| ImportError::Archive("index.json: a digest that is not sha256".to_owned()))?;
        let Some(name) = annotated_name(raw) else { continue };
        let name = record_name(&name)?;
        match wanted.iter_mut().find(|image| image.root == root) {
            Some(image) => image.names.push(name),
            None => wanted.push(Wanted { root, names: vec![name] }),
        }
    }
    if wanted.is_empty() {
        for image in &saved {
            let tags = image.repo_tags.iter().flatten();
            let names = tags.map(|tag| record_name(tag)).collect::<Result<Vec<_>, _>>()?;
            if !names.is_empty() {
                wanted.push(Wanted { root: saved_manifest(puller, lease, catalogue, image).await?, names });
            }
        }
    }
    if wanted.is_empty() {
        let problem = match index.is_some() || !saved.is_empty() {
            true => "no image in it has a name: write it with a name, such as repository:tag",
            false => {
                "neither index.json nor manifest.json in it: expected an OCI layout or the output of docker save"
            }
        };
        return Err(ImportError::Archive(problem.to_owned()));
    }
    Ok(wanted)
}

/// The name that an index gives an image. A bare tag is none.
fn annotated_name(raw: &RawDescriptor) -> Option<String> {
    let annotations = raw.annotations.as_ref()?;
    let full = annotations.get("io.containerd.image.name");
    let name = annotations.get("org.opencontainers.image.ref.name").filter(|name| name.contains(['/', ':']));
    full.or(name).cloned()
}

fn record_name(text: &str) -> Result<String, ImportError> {
    Reference::parse(text).map(|reference| reference.record_name()).map_err(ImportError::Name)
}

fn document<T: for<'a> Deserialize<'a>>(catalogue: &Catalogue, name: &str) -> Result<Option<T>, ImportError> {
    let Some(bytes) = catalogue.documents.get(name) else { return Ok(None) };
    serde_json::from_slice(bytes)
        .map(Some)
        .map_err(|error| ImportError::Entry { name: name.to_owned(), problem: error.to_string() })
}

/// A manifest for an image of `docker save`, which has none that a registry would know.
async fn saved_manifest(
    puller: &Puller,
    lease: &Lease,
    catalogue: &Catalogue,
    image: &Saved,
) -> Result<ImageDigest, ImportError> {
    let stored = |error| ImportError::Store(Box::new(error));
    let missing = |name: &str| ImportError::Entry {
        name: name.chars().take(200).collect(),
        problem: "manifest.json names it, but it is not in the archive".to_owned(),
    };
    let (config, config_size) = match catalogue.documents.get(&image.config) {
        Some(bytes) => {
            let digest = digest_of(bytes);
            puller.contents.put(lease.id(), &digest, bytes).await.map_err(stored)?;
            (digest, bytes.len() as u64)
        }
        None => {
            let file = catalogue.file(&image.config).ok_or_else(|| missing(&image.config))?;
            (file.digest.clone(), file.size)
        }
    };
    let mut layers = Vec::new();
    for name in &image.layers {
        let file = catalogue.file(name).ok_or_else(|| missing(name))?;
        let kind = if file.gzip { "tar.gzip" } else { "tar" };
        layers.push(json!({
            "mediaType": format!("application/vnd.docker.image.rootfs.diff.{kind}"),
            "digest": file.digest.as_str(), "size": file.size,
        }));
    }
    let manifest = json!({
        "schemaVersion": 2, "mediaType": DOCKER_MANIFEST,
        "config": {
            "mediaType": "application/vnd.docker.container.image.v1+json",
            "digest": config.as_str(), "size": config_size,
        },
        "layers": layers,
    });
    let bytes = manifest.to_string().into_bytes();
    let digest = digest_of(&bytes);
    puller.contents.put(lease.id(), &digest, &bytes).await.map_err(stored)?;
    Ok(digest)
}

impl Catalogue {
    /// A file, perhaps by way of links.
    fn file(&self, name: &str) -> Option<&StoredFile> {
        let mut name = name.strip_prefix("./").unwrap_or(name);
        for _ in 0..8 {
            match self.files.get(name) {
                Some(file) => return Some(file),
                None => name = self.links.get(name)?,
            }
        }
        None
    }
}
