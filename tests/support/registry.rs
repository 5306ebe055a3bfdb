//! Registries on loopback: Debian's docker-registry, and a fake one that fails as it is told. Also
//! images to serve.

use super::containerd::{TempDir, wait_for_line};
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// `sha256:<hex>` of some bytes.
pub fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

/// Bytes that do not compress, different for each seed.
pub fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(length + 32);
    let mut block = Sha256::digest(seed.to_le_bytes()).to_vec();
    while bytes.len() < length {
        bytes.extend_from_slice(&block);
        // A cheap generator: hashing each block would take seconds unoptimised.
        let mut state = u64::from_le_bytes(block[..8].try_into().unwrap());
        for byte in &mut block {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            *byte = state as u8;
        }
    }
    bytes.truncate(length);
    bytes
}

/// A layer as a manifest tells of it; none of it need be true.
pub struct TestLayer {
    pub blob: Vec<u8>,
    pub kind: String,
    pub size: usize,
    pub diff_id: String,
}

impl TestLayer {
    /// A tar, gzipped.
    pub fn gzipped(tar: &[u8]) -> Self {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(tar).unwrap();
        let kind = "application/vnd.oci.image.layer.v1.tar+gzip";
        Self::of(gzip.finish().unwrap(), kind, digest(tar))
    }

    /// What it says it is.
    pub fn of(blob: Vec<u8>, kind: &str, diff_id: String) -> Self {
        Self { size: blob.len(), blob, kind: kind.to_owned(), diff_id }
    }
}

/// A tar of files.
pub fn tar_of(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (path, bytes) in files {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o755);
        header.set_size(bytes.len() as u64);
        tar.append_data(&mut header, path, *bytes).unwrap();
    }
    tar.into_inner().unwrap()
}

/// An image as a registry serves it.
pub struct TestImage {
    /// By digest.
    pub blobs: HashMap<String, Vec<u8>>,
    /// Digests of the layers, in order.
    pub layers: Vec<String>,
    pub manifest: Vec<u8>,
    /// Names the manifest for this machine.
    pub index: Vec<u8>,
    pub config_digest: String,
}

impl TestImage {
    /// One gzipped layer for each list of files.
    pub fn new(layers: &[&[(&str, &[u8])]]) -> Self {
        Self::of(layers.iter().map(|files| TestLayer::gzipped(&tar_of(files))).collect())
    }

    /// Of these layers.
    pub fn of(layers: Vec<TestLayer>) -> Self {
        let mut blobs = HashMap::new();
        let (mut diff_ids, mut digests, mut listed) = (Vec::new(), Vec::new(), Vec::new());
        for TestLayer { blob, kind, size, diff_id } in layers {
            diff_ids.push(diff_id);
            listed.push(serde_json::json!({"mediaType": kind, "digest": digest(&blob), "size": size}));
            digests.push(digest(&blob));
            blobs.insert(digest(&blob), blob);
        }
        let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
        let config = serde_json::json!({
            "architecture": architecture, "os": "linux",
            "config": {"Cmd": ["/bin/app"], "Env": ["A=b"]},
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        });
        let config = config.to_string().into_bytes();
        let config_digest = digest(&config);
        let manifest = serde_json::json!({
            "schemaVersion": 2, "mediaType": OCI_MANIFEST,
            "config": {"mediaType": "application/vnd.oci.image.config.v1+json",
                       "digest": config_digest, "size": config.len()},
            "layers": listed,
        });
        let manifest = manifest.to_string().into_bytes();
        let index = serde_json::json!({
            "schemaVersion": 2, "mediaType": OCI_INDEX,
            "manifests": [
                {"mediaType": OCI_MANIFEST, "digest": digest(&manifest), "size": manifest.len(),
                 "platform": {"os": "linux", "architecture": architecture}},
            ],
        });
        blobs.insert(config_digest.clone(), config);
        Self { blobs, layers: digests, manifest, index: index.to_string().into_bytes(), config_digest }
    }

    /// Digest of the index.
    pub fn digest(&self) -> String {
        digest(&self.index)
    }
}

/// Debian's docker-registry.
pub struct DockerRegistry {
    child: Child,
    address: SocketAddr,
    credentials: Option<(String, String)>,
    _directory: TempDir,
}

impl DockerRegistry {
    /// Starts it on a free port, with basic auth where credentials are given.
    pub fn start(credentials: Option<(&str, &str)>) -> Self {
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        Self::start_at(address, credentials)
    }

    /// Starts it on that address.
    pub fn start_at(address: SocketAddr, credentials: Option<(&str, &str)>) -> Self {
        let directory = TempDir::new("registry");
        let dir = directory.path().display().to_string();
        let auth = credentials.map_or(String::new(), |(user, password)| {
            let made = Command::new("htpasswd").args(["-Bbn", user, password]).output().unwrap();
            std::fs::write(format!("{dir}/htpasswd"), made.stdout).unwrap();
            format!("auth:\n  htpasswd:\n    realm: test\n    path: {dir}/htpasswd\n")
        });
        let config = format!(
            "version: 0.1\nlog:\n  level: info\nstorage:\n  filesystem:\n    rootdirectory: {dir}/data\n\
             http:\n  addr: {address}\n{auth}"
        );
        std::fs::write(format!("{dir}/config.yml"), config).unwrap();
        let mut child = Command::new("docker-registry")
            .args(["serve", &format!("{dir}/config.yml")])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("docker-registry is installed");
        wait_for_line(child.stderr.take().unwrap(), "listening on", "docker-registry");
        let credentials = credentials.map(|(user, password)| (user.to_owned(), password.to_owned()));
        Self { child, address, credentials, _directory: directory }
    }

    /// Host and port.
    pub fn host(&self) -> String {
        self.address.to_string()
    }

    /// Stores an image under a tag.
    pub fn push(&self, repository: &str, tag: &str, image: &TestImage) {
        for (digest, bytes) in &image.blobs {
            let place = format!("/v2/{repository}/blobs/uploads/?digest={digest}");
            let (status, headers) = self.request("POST", &place, "application/octet-stream", &[]);
            assert_eq!(status, 202);
            let location = headers.lines().find_map(|line| line.strip_prefix("Location: ")).unwrap();
            let path = location.splitn(4, '/').nth(3).unwrap();
            let path = format!("/{path}&digest={digest}");
            assert_eq!(self.request("PUT", &path, "application/octet-stream", bytes).0, 201);
        }
        let path = format!("/v2/{repository}/manifests/{}", digest(&image.manifest));
        assert_eq!(self.request("PUT", &path, OCI_MANIFEST, &image.manifest).0, 201);
        let path = format!("/v2/{repository}/manifests/{tag}");
        assert_eq!(self.request("PUT", &path, OCI_INDEX, &image.index).0, 201);
    }

    fn request(&self, method: &str, path: &str, kind: &str, body: &[u8]) -> (u16, String) {
        let mut stream = TcpStream::connect(self.address).unwrap();
        let auth = self.credentials.as_ref().map_or(String::new(), |(user, password)| {
            let pair = base64::Engine::encode(
                &base64::engine::general_purpose::STANDARD,
                format!("{user}:{password}"),
            );
            format!("Authorization: Basic {pair}\r\n")
        });
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nContent-Type: {kind}\r\n{auth}Content-Length: {}\r\n\r\n",
            self.address,
            body.len()
        )
        .unwrap();
        stream.write_all(body).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        let text = String::from_utf8_lossy(&answer).replace("\r\n", "\n");
        let head = text.split("\n\n").next().unwrap().to_owned();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), head)
    }
}

impl Drop for DockerRegistry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What the fake does instead of answering.
#[derive(Clone)]
pub enum Fault {
    /// A status, headers (each with its line end) and a body.
    Answer(u16, String, String),
    /// So many bytes of the body, then the connection is closed.
    CloseAfter(usize),
    /// So many bytes of the body, then nothing.
    HangAfter(usize),
    /// A body of the right length with the wrong bytes.
    WrongBytes,
    /// Ranges are ignored.
    NoRanges,
}

/// One request, as the fake got it.
#[derive(Debug, Clone)]
pub struct Seen {
    pub method: String,
    pub path: String,
    pub range: Option<String>,
    pub authorization: Option<String>,
}

#[derive(Default)]
struct State {
    manifests: HashMap<String, (String, Vec<u8>)>,
    blobs: HashMap<String, Vec<u8>>,
    faults: Vec<(String, Fault, usize)>,
    seen: Vec<Seen>,
    hung_up: usize,
    /// `Authorization` that `/v2/` requests must carry, and the challenge without it.
    guard: Option<(String, String)>,
    /// Answers to `GET` of exactly these paths.
    pages: HashMap<String, (u16, String, String)>,
}

/// An in-process registry over real sockets.
pub struct FakeRegistry {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    ended: Arc<AtomicBool>,
}

impl FakeRegistry {
    /// Starts an empty one.
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(Mutex::new(State::default()));
        let ended = Arc::new(AtomicBool::new(false));
        let (served, stop) = (state.clone(), ended.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if stop.load(Ordering::SeqCst) {
                    break;
                }
                let (state, stop) = (served.clone(), stop.clone());
                std::thread::spawn(move || serve(stream, &state, &stop));
            }
        });
        Self { address, state, ended }
    }

    /// Host and port.
    pub fn host(&self) -> String {
        self.address.to_string()
    }

    /// Serves an image under a tag.
    pub fn put(&self, repository: &str, tag: &str, image: &TestImage) {
        let mut state = self.state.lock().unwrap();
        let index = (OCI_INDEX.to_owned(), image.index.clone());
        let path = |version: &str| format!("/v2/{repository}/manifests/{version}");
        state.manifests.insert(path(tag), index.clone());
        state.manifests.insert(path(&image.digest()), index);
        let manifest = (OCI_MANIFEST.to_owned(), image.manifest.clone());
        state.manifests.insert(path(&digest(&image.manifest)), manifest);
        state.blobs.extend(image.blobs.clone());
    }

    /// Serves a document under a tag, and under its digest.
    pub fn put_document(&self, repository: &str, tag: &str, kind: &str, bytes: &[u8]) {
        let mut state = self.state.lock().unwrap();
        for version in [tag, &digest(bytes)] {
            let document = (kind.to_owned(), bytes.to_vec());
            state.manifests.insert(format!("/v2/{repository}/manifests/{version}"), document);
        }
    }

    /// Connections that hung and that the other side closed.
    pub fn hung_up(&self) -> usize {
        self.state.lock().unwrap().hung_up
    }

    /// The next `times` requests whose `METHOD path` contains `part` fail so.
    pub fn fault(&self, part: &str, fault: Fault, times: usize) {
        self.state.lock().unwrap().faults.push((part.to_owned(), fault, times));
    }

    /// Everything is well again.
    pub fn heal(&self) {
        self.state.lock().unwrap().faults.clear();
    }

    /// Only this `Authorization` passes; others get the challenge.
    pub fn guard(&self, authorization: &str, challenge: &str) {
        self.state.lock().unwrap().guard = Some((authorization.to_owned(), challenge.to_owned()));
    }

    /// Answers `GET path` (without its query) with a status, headers and a body.
    pub fn page(&self, path: &str, status: u16, headers: &str, body: &str) {
        let page = (status, headers.to_owned(), body.to_owned());
        self.state.lock().unwrap().pages.insert(path.to_owned(), page);
    }

    /// Requests so far whose `METHOD path` contains `part`.
    pub fn seen(&self, part: &str) -> Vec<Seen> {
        let state = self.state.lock().unwrap();
        let fits = |seen: &&Seen| format!("{} {}", seen.method, seen.path).contains(part);
        state.seen.iter().filter(fits).cloned().collect()
    }
}

impl Drop for FakeRegistry {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
    }
}

fn serve(stream: TcpStream, state: &Mutex<State>, stop: &AtomicBool) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut writer = stream;
    loop {
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).unwrap_or(0) == 0 {
                return;
            }
            let line = line.trim_end().to_owned();
            if line.is_empty() {
                break;
            }
            lines.push(line);
        }
        let header = |name: &str| {
            let find = |line: &String| {
                let (key, value) = line.split_once(": ")?;
                key.eq_ignore_ascii_case(name).then(|| value.to_owned())
            };
            lines.iter().find_map(find)
        };
        let mut words = lines[0].split(' ');
        let seen = Seen {
            method: words.next().unwrap().to_owned(),
            path: words.next().unwrap().to_owned(),
            range: header("range"),
            authorization: header("authorization"),
        };
        if stop.load(Ordering::SeqCst) || !respond(&mut writer, state, stop, &seen) {
            return;
        }
    }
}

/// Answers one request; `false` where the connection ends.
fn respond(writer: &mut TcpStream, state: &Mutex<State>, stop: &AtomicBool, seen: &Seen) -> bool {
    let (fault, page, manifest, blob, challenge) = {
        let mut state = state.lock().unwrap();
        state.seen.push(seen.clone());
        let line = format!("{} {}", seen.method, seen.path);
        let fault =
            state.faults.iter_mut().find(|(part, _, times)| *times > 0 && line.contains(part.as_str()));
        let fault = fault.map(|(_, fault, times)| {
            *times -= 1;
            fault.clone()
        });
        let path = seen.path.split('?').next().unwrap();
        let guard = state.guard.clone().filter(|(wanted, _)| {
            path.starts_with("/v2/") && seen.authorization.as_deref() != Some(wanted.as_str())
        });
        let blob = path.rsplit('/').next().and_then(|digest| state.blobs.get(digest)).cloned();
        (fault, state.pages.get(path).cloned(), state.manifests.get(path).cloned(), blob, guard.map(|g| g.1))
    };
    let (mut status, mut headers, mut body) = match (challenge, page, manifest, blob) {
        (Some(challenge), ..) => {
            let body =
                br#"{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}"#.to_vec();
            (401, format!("WWW-Authenticate: {challenge}\r\n"), body)
        }
        (_, Some((status, headers, body)), ..) => (status, headers, body.into_bytes()),
        (_, _, Some((kind, bytes)), _) => {
            (200, format!("Content-Type: {kind}\r\nDocker-Content-Digest: {}\r\n", digest(&bytes)), bytes)
        }
        (.., Some(bytes)) => (200, "Content-Type: application/octet-stream\r\n".to_owned(), bytes),
        _ => {
            let body = br#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}"#.to_vec();
            (404, "Content-Type: application/json\r\n".to_owned(), body)
        }
    };
    if let Some(Fault::Answer(code, lines, text)) = &fault {
        (status, headers, body) = (*code, lines.clone(), text.clone().into_bytes());
    }
    if let (200, Some(range), false) = (status, &seen.range, matches!(fault, Some(Fault::NoRanges))) {
        let (first, last) = range.strip_prefix("bytes=").unwrap().split_once('-').unwrap();
        let first: usize = first.parse().unwrap();
        let first = first.min(body.len());
        let last = last.parse().unwrap_or(usize::MAX).min(body.len() - 1);
        headers.push_str(&format!("Content-Range: bytes {first}-{last}/{}\r\n", body.len()));
        (status, body) = (206, body[first..=last].to_vec());
    }
    if let Some(Fault::WrongBytes) = fault {
        body.iter_mut().for_each(|byte| *byte ^= 0xff);
    }
    let length = body.len();
    let limit = match fault {
        Some(Fault::CloseAfter(limit) | Fault::HangAfter(limit)) => limit.min(length),
        _ => length,
    };
    let head = format!("HTTP/1.1 {status} X\r\n{headers}Content-Length: {length}\r\n\r\n");
    if writer.write_all(head.as_bytes()).is_err() {
        return false;
    }
    if seen.method == "HEAD" {
        return true;
    }
    let sent = writer.write_all(&body[..limit]).is_ok();
    if let Some(Fault::HangAfter(_)) = fault {
        // Until the test is over, or nobody waits any more.
        writer.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        while !stop.load(Ordering::SeqCst) {
            if matches!(writer.peek(&mut [0]), Ok(0)) {
                state.lock().unwrap().hung_up += 1;
                return false;
            }
        }
    }
    sent && limit == length
}
