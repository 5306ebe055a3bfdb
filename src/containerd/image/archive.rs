//! An image made on the spot from files in memory, as an OCI layout archive: for examples and tests
//! that must not need a registry. Pure.

use crate::containerd::image::document::{OCI_MANIFEST, this_machine};
use crate::containerd::image::registry::digest_of;
use crate::model::ImageDigest;
use serde_json::json;

/// A file of the image.
#[derive(Debug, Clone)]
pub struct RootfsFile {
    /// Path below `/`, without a leading slash.
    pub path: String,
    /// Permission bits, such as 0o755.
    pub mode: u32,
    /// What it is.
    pub content: RootfsContent,
}

/// What a file of the image is.
#[derive(Debug, Clone)]
pub enum RootfsContent {
    /// A regular file.
    Bytes(Vec<u8>),
    /// A symbolic link.
    Symlink(String),
    /// A directory.
    Directory,
}

/// How a container of the image runs.
#[derive(Debug, Clone, Default)]
pub struct RootfsConfig {
    /// `Cmd`.
    pub cmd: Vec<String>,
    /// `Entrypoint`.
    pub entry_point: Vec<String>,
    /// `Env`, as `NAME=value`.
    pub env: Vec<String>,
    /// `WorkingDir`.
    pub working_dir: Option<String>,
    /// `User`.
    pub user: Option<String>,
    /// `StopSignal`.
    pub stop_signal: Option<String>,
}

/// Puts an OCI layout archive together: one layer of `files`, owned by root, dated 1970, so that
/// the same files always give the same digest. `name` is written to it as the image's name.
///
/// # Errors
/// Where a path does not fit a tar header.
pub fn oci_archive(name: &str, files: &[RootfsFile], config: &RootfsConfig) -> std::io::Result<Vec<u8>> {
    let layer = layer_of(files)?;
    let diff_id = digest_of(&layer);
    let machine = this_machine();
    let mut settings = serde_json::Map::new();
    let mut set = |key: &str, value: serde_json::Value| settings.insert(key.to_owned(), value);
    set("Cmd", json!(config.cmd));
    set("Entrypoint", json!(config.entry_point));
    set("Env", json!(config.env));
    for (key, value) in
        [("WorkingDir", &config.working_dir), ("User", &config.user), ("StopSignal", &config.stop_signal)]
    {
        if let Some(value) = value {
            set(key, json!(value));
        }
    }
    let configuration = json!({
        "architecture": machine.architecture, "os": machine.os, "config": settings,
        "rootfs": { "type": "layers", "diff_ids": [diff_id.as_str()] },
    });
    let configuration = configuration.to_string().into_bytes();
    let descriptor = |media_type: &str, digest: &ImageDigest, size: usize| json!({ "mediaType": media_type, "digest": digest.as_str(), "size": size });
    let config_digest = digest_of(&configuration);
    let manifest = json!({
        "schemaVersion": 2, "mediaType": OCI_MANIFEST,
        "config": descriptor("application/vnd.oci.image.config.v1+json", &config_digest, configuration.len()),
        "layers": [descriptor("application/vnd.oci.image.layer.v1.tar", &diff_id, layer.len())],
    });
    let manifest = manifest.to_string().into_bytes();
    let manifest_digest = digest_of(&manifest);
    let mut listed = descriptor(OCI_MANIFEST, &manifest_digest, manifest.len());
    listed["annotations"] =
        json!({ "io.containerd.image.name": name, "org.opencontainers.image.ref.name": name });
    let index = json!({ "schemaVersion": 2, "manifests": [listed] }).to_string().into_bytes();
    let mut archive = tar::Builder::new(Vec::new());
    let blob = |digest: &ImageDigest| format!("blobs/{}", digest.as_str().replacen(':', "/", 1));
    put(&mut archive, "oci-layout", 0o644, br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    put(&mut archive, "index.json", 0o644, &index)?;
    put(&mut archive, &blob(&manifest_digest), 0o644, &manifest)?;
    put(&mut archive, &blob(&config_digest), 0o644, &configuration)?;
    put(&mut archive, &blob(&diff_id), 0o644, &layer)?;
    archive.into_inner()
}

fn layer_of(files: &[RootfsFile]) -> std::io::Result<Vec<u8>> {
    let mut layer = tar::Builder::new(Vec::new());
    for file in files {
        let path = file.path.trim_start_matches('/');
        match &file.content {
            RootfsContent::Bytes(bytes) => put(&mut layer, path, file.mode, bytes)?,
            RootfsContent::Symlink(target) => {
                let mut header = header(tar::EntryType::Symlink, file.mode, 0);
                layer.append_link(&mut header, path, target)?;
            }
            RootfsContent::Directory => {
                let mut header = header(tar::EntryType::Directory, file.mode, 0);
                layer.append_data(
                    &mut header,
                    format!("{}/", path.trim_end_matches('/')),
                    std::io::empty(),
                )?;
            }
        }
    }
    layer.into_inner()
}

fn put(archive: &mut tar::Builder<Vec<u8>>, path: &str, mode: u32, bytes: &[u8]) -> std::io::Result<()> {
    let mut header = header(tar::EntryType::Regular, mode, bytes.len() as u64);
    archive.append_data(&mut header, path, bytes)
}

fn header(kind: tar::EntryType, mode: u32, size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header
}
