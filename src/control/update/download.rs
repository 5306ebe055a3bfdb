//! Fetching an update: over HTTP or HTTPS, into a file of its own, to be taken only where its SHA-256
//! is the announced one. TLS is always verified, also under `-k`.

use super::UpdateOptions;
use crate::control::http::{GetError, SchemeClient};
use http::header;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::io::AsyncWriteExt;

/// Names the file that the supervisor is to load.
const DESIRED_IMAGE: &str = "desired-image";
/// How files of updates end.
const SUFFIX: &str = ".ecs-update.tar";
/// Redirects that are followed.
const REDIRECTS: usize = 10;

/// Why an update could not be staged. Never names the location's query: it may be signed.
#[derive(Debug, thiserror::Error)]
pub enum UpdateError {
    /// Not an address.
    #[error("the location is no http or https address")]
    Location,
    /// No answer.
    #[error("{host} does not answer")]
    Connect {
        /// Host and port.
        host: String,
        /// Why.
        #[source]
        source: GetError,
    },
    /// Another answer than the file.
    #[error("{host} answered HTTP {status}")]
    Status {
        /// Host and port.
        host: String,
        /// HTTP status.
        status: u16,
    },
    /// Redirected without end, out of TLS, or to nowhere.
    #[error("{host} redirects {problem}")]
    Redirect {
        /// Host and port.
        host: String,
        /// How.
        problem: &'static str,
    },
    /// The connection broke.
    #[error("the download from {host} broke")]
    Broken {
        /// Host and port.
        host: String,
        /// How.
        #[source]
        source: hyper::Error,
    },
    /// Larger than an agent may be.
    #[error("more than {most} bytes")]
    TooLarge {
        /// The limit.
        most: u64,
    },
    /// Took too long.
    #[error("not done within {limit:?}")]
    Late {
        /// The limit.
        limit: Duration,
    },
    /// Another content than announced.
    #[error("Hashsum validation failed")]
    Hash,
    /// The directory can't be written.
    #[error("{path} can't be written: check ECS_UPDATE_DOWNLOAD_DIR")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

/// Fetches, checks, and names the file to the supervisor. Dropping the future removes what it wrote.
///
/// # Errors
/// [`UpdateError`]; nothing is left then.
pub(super) async fn stage(
    options: &UpdateOptions,
    location: &str,
    signature: &str,
) -> Result<(), UpdateError> {
    let name = format!("{}{SUFFIX}", uuid::Uuid::new_v4().simple());
    let partial = Partial::new(options.directory.join(&name));
    match tokio::time::timeout(options.limit, fetch(options, location, &partial)).await {
        Err(_) => return Err(UpdateError::Late { limit: options.limit }),
        Ok(fetched) => {
            if fetched? != signature.trim() {
                return Err(UpdateError::Hash);
            }
        }
    }
    announce(&options.directory, &name).await?;
    partial.keep();
    remove_others(&options.directory, &name).await;
    Ok(())
}

/// A file that goes unless it is kept.
struct Partial(Option<PathBuf>);

impl Partial {
    fn new(path: PathBuf) -> Self {
        Self(Some(path))
    }

    fn path(&self) -> &Path {
        self.0.as_deref().unwrap_or(Path::new(""))
    }

    fn keep(mut self) {
        self.0 = None;
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        if let Some(path) = &self.0
            && let Err(error) = std::fs::remove_file(path)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(path = %path.display(), %error, "a partial update could not be removed");
        }
    }
}

/// Writes the file, durably; answers its SHA-256 in hex.
async fn fetch(options: &UpdateOptions, location: &str, partial: &Partial) -> Result<String, UpdateError> {
    let failed = |source| UpdateError::File { path: partial.path().to_owned(), source };
    tokio::fs::create_dir_all(&options.directory).await.map_err(failed)?;
    let (host, mut body) = open(location, &options.user_agent).await?;
    let file = tokio::fs::OpenOptions::new().write(true).create_new(true).open(partial.path()).await;
    let mut file = tokio::io::BufWriter::with_capacity(256 * 1024, file.map_err(failed)?);
    let (mut hash, mut bytes) = (Sha256::new(), 0u64);
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|source| UpdateError::Broken { host: host.clone(), source })?;
        let Ok(data) = frame.into_data() else { continue };
        bytes = bytes.saturating_add(data.len() as u64);
        if bytes > options.most_bytes {
            return Err(UpdateError::TooLarge { most: options.most_bytes });
        }
        hash.update(&data);
        file.write_all(&data).await.map_err(failed)?;
    }
    file.flush().await.map_err(failed)?;
    file.get_ref().sync_all().await.map_err(failed)?;
    Ok(hex::encode(hash.finalize()))
}

/// Follows redirects to the file.
async fn open(location: &str, user_agent: &str) -> Result<(String, Incoming), UpdateError> {
    let mut url = url::Url::parse(location).map_err(|_| UpdateError::Location)?;
    // Made for the occasion: an update is fetched once in months, and never under `-k`.
    let client = SchemeClient::default();
    let headers = [("user-agent", user_agent.to_owned())];
    for _ in 0..=REDIRECTS {
        let host = match (url.scheme(), url.host_str(), url.port_or_known_default()) {
            ("http" | "https", Some(host), Some(port)) => format!("{host}:{port}"),
            _ => return Err(UpdateError::Location),
        };
        let answer = client.open(&url, &headers).await;
        let answer = answer.map_err(|source| UpdateError::Connect { host: host.clone(), source })?;
        let status = answer.status();
        if status.is_success() {
            return Ok((host, answer.into_body()));
        }
        let to = answer.headers().get(header::LOCATION).filter(|_| status.is_redirection());
        let Some(to) = to else { return Err(UpdateError::Status { host, status: status.as_u16() }) };
        let next = to.to_str().ok().and_then(|to| url.join(to).ok());
        let Some(next) = next else { return Err(UpdateError::Redirect { host, problem: "to nowhere" }) };
        if url.scheme() == "https" && next.scheme() != "https" {
            return Err(UpdateError::Redirect { host, problem: "out of TLS" });
        }
        url = next;
    }
    Err(UpdateError::Redirect { host: url.host_str().unwrap_or_default().to_owned(), problem: "without end" })
}

/// `desired-image` is there whole or not at all: the supervisor may read it at any time.
async fn announce(directory: &Path, name: &str) -> Result<(), UpdateError> {
    let path = directory.join(DESIRED_IMAGE);
    let fresh = Partial::new(directory.join(format!("{DESIRED_IMAGE}.new")));
    let written = async {
        tokio::fs::write(fresh.path(), format!("{name}\n")).await?;
        let open: std::fs::Permissions = std::os::unix::fs::PermissionsExt::from_mode(0o644);
        tokio::fs::set_permissions(fresh.path(), open).await?;
        tokio::fs::rename(fresh.path(), &path).await
    };
    written.await.map_err(|source| UpdateError::File { path, source })
}

/// Earlier updates, and what a crash left of one: only the newest is ever loaded.
async fn remove_others(directory: &Path, name: &str) {
    let Ok(mut entries) = tokio::fs::read_dir(directory).await else { return };
    while let Ok(Some(entry)) = entries.next_entry().await {
        let other = entry.file_name();
        if other != *name && other.to_string_lossy().ends_with(SUFFIX) {
            // What can't be removed is tried again with the next update.
            drop(tokio::fs::remove_file(entry.path()).await);
        }
    }
}
