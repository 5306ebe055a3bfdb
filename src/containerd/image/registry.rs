//! The registry's API (OCI distribution, Docker registry v2): manifests and blobs, authorised as the
//! registry asks. One request each; who calls decides about trying again.

use crate::containerd::image::access::Access;
use crate::containerd::image::auth::Authorizer;
use crate::containerd::image::document::MANIFEST_TYPES;
use crate::containerd::image::error::RegistryError;
use crate::containerd::image::gate::Gate;
use crate::containerd::image::hosts::Endpoint;
use crate::containerd::image::http::{Answer, Http};
use crate::containerd::image::options::ImageOptions;
use crate::containerd::image::reference::Reference;
use crate::containerd::image::tls::Link;
use crate::containerd::image::turns::{Capability, Turns};
use crate::model::ImageDigest;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, RANGE, RETRY_AFTER, USER_AGENT};
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Bytes that a manifest or an index may have.
pub const MANIFEST_LIMIT: usize = 4 << 20;
/// Bytes of an error's body that are read, and characters that are shown.
const WORDS_LIMIT: usize = 8 << 10;
const WORDS_SHOWN: usize = 500;

/// A manifest or an index as it came.
#[derive(Debug, Clone)]
pub struct RawDocument {
    /// The content's media type, as the registry says.
    pub media_type: String,
    /// The bytes.
    pub bytes: Vec<u8>,
    /// Their digest, computed here.
    pub digest: ImageDigest,
}

/// Registries.
#[derive(Debug)]
pub struct Registry {
    http: Http,
    auth: Authorizer,
    /// Manifests under way, with all else that comes in one stream.
    streams: Arc<Gate>,
}

impl Registry {
    /// With the credentials and times of `options`.
    pub fn new(options: &ImageOptions, streams: Arc<Gate>) -> Self {
        let auth = Authorizer::new(options.auth.clone());
        Self { http: Http::new(options.tuning.clone()), auth, streams }
    }

    /// The digest of what a tag points at, without fetching it. `None` where the registry does not
    /// say.
    ///
    /// # Errors
    /// [`RegistryError`]; an answer to HEAD has no words.
    pub async fn head(&self, access: &Access) -> Result<Option<ImageDigest>, RegistryError> {
        let wanted = version(access.reference(), None);
        let what = format!("HEAD manifest {wanted}");
        let mut turns = Turns::new(access, Capability::Resolve, 0);
        while let Some((_, endpoint)) = turns.next_host() {
            let path = format!("manifests/{wanted}");
            match self.request(Method::HEAD, access, endpoint, &path, &accept(), &what).await {
                Ok(answer) => {
                    let said = answer.headers.get("docker-content-digest").and_then(|v| v.to_str().ok());
                    return Ok(said.and_then(ImageDigest::parse));
                }
                Err(error) => turns.failed(endpoint, error),
            }
        }
        Err(turns.end(&what))
    }

    /// Fetches a manifest or an index: of the digest, or of the tag.
    ///
    /// # Errors
    /// [`RegistryError`]; also where what came does not match the digest.
    pub async fn manifest(
        &self,
        access: &Access,
        digest: Option<&ImageDigest>,
    ) -> Result<RawDocument, RegistryError> {
        let digest = digest.or(access.reference().digest());
        let wanted = version(access.reference(), digest);
        let what = format!("GET manifest {wanted}");
        let capability = if digest.is_some() { Capability::Pull } else { Capability::Resolve };
        let mut turns = Turns::new(access, capability, 0);
        while let Some((_, endpoint)) = turns.next_host() {
            match self.manifest_of(access, endpoint, digest, &wanted, &what).await {
                Ok(document) => return Ok(document),
                Err(error) => turns.failed(endpoint, error),
            }
        }
        Err(turns.end(&what))
    }

    async fn manifest_of(
        &self,
        access: &Access,
        endpoint: &Endpoint,
        digest: Option<&ImageDigest>,
        wanted: &str,
        what: &str,
    ) -> Result<RawDocument, RegistryError> {
        let path = format!("manifests/{wanted}");
        let answer = self.request(Method::GET, access, endpoint, &path, &accept(), what).await?;
        let said = answer.headers.get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
        let media_type = said.split(';').next().unwrap_or_default().trim().to_owned();
        let _pass = self.streams.enter(access.reference().host()).await;
        let bytes = answer.body.all(MANIFEST_LIMIT).await?;
        let found = digest_of(&bytes);
        if let Some(digest) = digest.filter(|digest| **digest != found) {
            // A body cut short by a proxy looks like this as well: worth another try.
            let (host, what) = (endpoint.host.clone(), what.to_owned());
            tracing::warn!(%host, %digest, %found, "the manifest that came has another digest");
            let words = format!(": the manifest that came has the digest {found}");
            let status = StatusCode::BAD_GATEWAY;
            return Err(RegistryError::Status { host, what, status, words, wish: None });
        }
        Ok(RawDocument { media_type, bytes, digest: found })
    }

    async fn request(
        &self,
        method: Method,
        access: &Access,
        endpoint: &Endpoint,
        path: &str,
        headers: &HeaderMap,
        what: &str,
    ) -> Result<Answer, RegistryError> {
        let uri = url_of(endpoint, access.reference(), path, what)?;
        let mut all = endpoint.headers.clone();
        all.extend(headers.clone());
        all.insert(USER_AGENT, HeaderValue::from_static(concat!("ecsd/", env!("CARGO_PKG_VERSION"))));
        if let Some(header) = self.auth.known(access, endpoint) {
            all.insert(AUTHORIZATION, header);
        }
        let mut answer = self.http.send(method.clone(), &uri, &all, what, &endpoint.link).await?;
        if answer.status == StatusCode::UNAUTHORIZED {
            self.auth.forget(access, endpoint);
            if let Some(header) = self.auth.answer(&self.http, access, endpoint, &answer.headers).await? {
                all.insert(AUTHORIZATION, header);
                answer = self.http.send(method, &uri, &all, what, &endpoint.link).await?;
            }
        }
        if answer.status.is_success() {
            return Ok(answer);
        }
        let denied = answer.status == StatusCode::UNAUTHORIZED;
        if denied {
            self.auth.forget(access, endpoint);
        }
        let mut error = refusal(answer, endpoint.host.clone(), what.to_owned()).await;
        if let RegistryError::Status { words, .. } = &mut error
            && denied
            && !self.auth.has_credentials(access, endpoint)
        {
            words.push_str(" (no credentials are configured for it: see ECS_ENGINE_AUTH_DATA)");
        }
        Err(error)
    }
}

/// A mirror is told whose image it is.
fn url_of(endpoint: &Endpoint, reference: &Reference, path: &str, what: &str) -> Result<Uri, RegistryError> {
    let Endpoint { scheme, host, path: root, own, .. } = endpoint;
    let namespace = if *own { String::new() } else { format!("?ns={}", reference.host()) };
    let text = format!("{scheme}://{host}{root}/{}/{path}{namespace}", reference.path());
    let problem = || format!("{text} is not a URL");
    text.parse().map_err(|_| RegistryError::Setup { what: what.to_owned(), problem: problem() })
}

/// One blob of one repository, asked for perhaps in many parts: the host that has it, and the place that
/// it redirects to, are remembered, so that parts go straight there.
#[derive(Debug)]
pub struct BlobSource<'a> {
    registry: &'a Registry,
    access: &'a Access,
    digest: &'a ImageDigest,
    known: Mutex<Known>,
}

/// Where the blob was found.
#[derive(Debug, Clone, Default)]
struct Known {
    /// Which of the registry's hosts has it.
    endpoint: usize,
    /// Where that one redirects to.
    place: Option<(Uri, Link)>,
    /// What came was wrong: only the last of them, the registry itself, is still believed.
    only_last: bool,
}

/// A body that begins at a known place of its blob.
#[derive(Debug)]
pub struct BlobBody {
    /// The body.
    pub body: crate::containerd::image::http::Body,
    /// Offset of its first byte: 0 where the registry ignores ranges.
    pub offset: u64,
    /// It is the whole blob, whatever range was asked for.
    pub whole: bool,
}

impl<'a> BlobSource<'a> {
    /// The blob of that digest in the repository of an image.
    pub fn new(registry: &'a Registry, access: &'a Access, digest: &'a ImageDigest) -> Self {
        Self { registry, access, digest, known: Mutex::default() }
    }

    /// The digest.
    pub fn digest(&self) -> &ImageDigest {
        self.digest
    }

    /// The registry's host.
    pub fn host(&self) -> &str {
        self.access.reference().host()
    }

    /// What was tried failed: the next attempt begins with another host, where there is one. `wrong` where
    /// what came is not what it should be.
    pub fn turn_away(&self, wrong: bool) {
        let hosts = self.access.endpoints();
        let mut known = self.known();
        known.only_last |= wrong;
        let may = |place: &usize| hosts.get(*place).is_some_and(|host| host.pull);
        let next = match known.only_last {
            true => (0..hosts.len()).rev().find(may),
            false => (known.endpoint + 1..hosts.len()).chain(0..=known.endpoint).find(may),
        };
        known.endpoint = next.unwrap_or_default();
        known.place = None;
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks for bytes of the blob; for all where `range` is `None`.
    ///
    /// # Errors
    /// [`RegistryError`].
    pub async fn open(&self, range: Option<Range<u64>>) -> Result<BlobBody, RegistryError> {
        let mut headers = HeaderMap::new();
        if let Some(range) = &range {
            let text = format!("bytes={}-{}", range.start, range.end.saturating_sub(1));
            headers.extend(HeaderValue::from_str(&text).ok().map(|value| (RANGE, value)));
        }
        let what = format!("GET blob {}", self.digest);
        let known = self.known().clone();
        if let Some((place, link)) = &known.place {
            // A signed place expires: whatever is wrong with it, the registry gives another.
            let answer = self.registry.http.send(Method::GET, place, &headers, &what, link).await?;
            if answer.status.is_success() {
                return self.body(answer, range.as_ref(), &what);
            }
            self.known().place = None;
        }
        let path = format!("blobs/{}", self.digest);
        let mut turns = Turns::new(self.access, Capability::Pull, known.endpoint);
        while let Some((number, endpoint)) = turns.next_host() {
            let asked = self.registry.request(Method::GET, self.access, endpoint, &path, &headers, &what);
            match asked.await {
                Ok(answer) => {
                    let own = endpoint.host.parse::<Uri>().ok();
                    let redirected = answer.uri.host() != own.as_ref().and_then(Uri::host);
                    let place = redirected.then(|| (answer.uri.clone(), endpoint.link.clone()));
                    let mut known = self.known();
                    (known.endpoint, known.place) = (number, place);
                    drop(known);
                    return self.body(answer, range.as_ref(), &what);
                }
                Err(error) => turns.failed(endpoint, error),
            }
        }
        Err(turns.end(&what))
    }

    fn body(
        &self,
        answer: Answer,
        range: Option<&Range<u64>>,
        what: &str,
    ) -> Result<BlobBody, RegistryError> {
        let offset = match (answer.status, range) {
            (StatusCode::PARTIAL_CONTENT, Some(range)) => {
                let said = answer.headers.get("content-range").and_then(|v| v.to_str().ok());
                let start = said.and_then(range_start);
                if start != Some(range.start) {
                    return Err(RegistryError::Answer {
                        host: self.host().to_owned(),
                        what: what.to_owned(),
                        problem: format!("asked from byte {}, got range {said:?}", range.start),
                    });
                }
                range.start
            }
            _ => 0,
        };
        let whole = answer.status != StatusCode::PARTIAL_CONTENT;
        Ok(BlobBody { body: answer.body, offset, whole })
    }
}

/// The first byte of `bytes a-b/c`.
fn range_start(text: &str) -> Option<u64> {
    text.strip_prefix("bytes ")?.split_once('-')?.0.trim().parse().ok()
}

/// sha256 of some bytes.
pub fn digest_of(bytes: &[u8]) -> ImageDigest {
    let text = format!("sha256:{}", hex::encode(Sha256::digest(bytes)));
    // The text is a digest by construction; there is nothing to fall back to and nothing to fail.
    ImageDigest::parse(&text).unwrap_or_else(|| unreachable!("sha256 digits"))
}

fn version(reference: &Reference, digest: Option<&ImageDigest>) -> String {
    match digest.or(reference.digest()) {
        Some(digest) => digest.to_string(),
        None => reference.tag().to_owned(),
    }
}

fn accept() -> HeaderMap {
    let types = MANIFEST_TYPES.iter().map(|t| (ACCEPT, HeaderValue::from_static(t)));
    types.chain([(ACCEPT, HeaderValue::from_static("*/*"))]).fold(
        HeaderMap::new(),
        |mut map, (name, value)| {
            map.append(name, value);
            map
        },
    )
}

/// An answer that is an error, with the registry's own words.
pub async fn refusal(answer: Answer, host: String, what: String) -> RegistryError {
    let status = answer.status;
    let wish = answer.headers.get(RETRY_AFTER).and_then(|v| v.to_str().ok()?.trim().parse().ok());
    let words = words_of(&answer.body.some(WORDS_LIMIT).await);
    RegistryError::Status { host, what, status, words, wish: wish.map(Duration::from_secs) }
}

#[derive(Deserialize)]
struct Errors {
    #[serde(default)]
    errors: Vec<ErrorItem>,
}

#[derive(Deserialize)]
struct ErrorItem {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
}

/// `: CODE: message` of the registry's error document; of anything else, its beginning.
fn words_of(body: &[u8]) -> String {
    let text = match serde_json::from_slice::<Errors>(body) {
        Ok(said) if !said.errors.is_empty() => {
            let items = said.errors.iter().map(|e| format!("{}: {}", e.code, e.message));
            items.collect::<Vec<_>>().join("; ")
        }
        _ => String::from_utf8_lossy(body).into_owned(),
    };
    let clean: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let shown: String = clean.chars().filter(|c| !c.is_control()).take(WORDS_SHOWN).collect();
    if shown.is_empty() { shown } else { format!(": {shown}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_registrys_words_are_kept() {
        let body = br#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown","detail":{}}]}"#;
        assert_eq!(words_of(body), ": MANIFEST_UNKNOWN: manifest unknown");
        assert_eq!(words_of(b"<html>\n  no\x07</html>"), ": <html> no</html>");
        assert_eq!(words_of(b""), "");
        assert!(words_of(&[b'x'; 5000]).len() < 600);
    }

    #[test]
    fn ranges_are_read() {
        assert_eq!(range_start("bytes 5-9/10"), Some(5));
        assert_eq!(range_start("bytes */10"), None);
        assert_eq!(range_start("lines 5-9/10"), None);
    }
}
