//! The image of the hello example, made on the spot from the host's static busybox: an image archive
//! that is an OCI layout and a docker archive at once, so that any loader takes it.

use super::process;
use anyhow::{Context, bail};
use serde_json::json;
use sha2::{Digest, Sha256};
use std::io::Write;
use std::path::{Path, PathBuf};

/// Repository of the image; any tag of it is made.
pub const REPOSITORY: &str = "ecsd.local/hello";
const MAX_BUSYBOX_BYTES: u64 = 64 * 1024 * 1024;
const APPLETS: &[&str] = &[
    "cat", "date", "df", "echo", "env", "free", "grep", "head", "hostname", "httpd", "id", "ifconfig", "ip",
    "kill", "ls", "mkdir", "mount", "nc", "netstat", "nslookup", "ping", "ps", "pwd", "rm", "sed", "sh",
    "sleep", "tail", "touch", "top", "true", "uname", "vi", "wc", "wget", "whoami",
];
const INDEX_PAGE: &str = "Hello from a task of ecsd local.\n";

/// Whether an image reference means the hello image.
pub fn is_hello(image: &str) -> bool {
    image == REPOSITORY || image.strip_prefix(REPOSITORY).is_some_and(|rest| rest.starts_with(':'))
}

/// Writes the archive of `image` into `dir`; answers its path. Blocking.
///
/// # Errors
/// Where there is no static busybox, or the file can't be written.
pub fn write_archive(image: &str, dir: &Path) -> anyhow::Result<PathBuf> {
    let busybox = static_busybox()?;
    let path = dir.join("hello.tar");
    let bytes = archive(image, &busybox).context("can't put the hello image together")?;
    std::fs::write(&path, bytes).with_context(|| format!("can't write {}", path.display()))?;
    Ok(path)
}

fn static_busybox() -> anyhow::Result<Vec<u8>> {
    let cure = "install a static one, for example: apt-get install busybox-static";
    let path = process::find("busybox").with_context(|| format!("busybox is not installed: {cure}"))?;
    let size = std::fs::metadata(&path)?.len();
    if size > MAX_BUSYBOX_BYTES {
        bail!("{} has {size} bytes: that is no busybox; {cure}", path.display());
    }
    let bytes = std::fs::read(&path).with_context(|| format!("can't read {}", path.display()))?;
    if !is_static_elf(&bytes) {
        bail!("{} is not statically linked and can't run alone in an image: {cure}", path.display());
    }
    Ok(bytes)
}

/// A 64-bit little-endian ELF program that asks for no interpreter (PT_INTERP, ELF specification).
fn is_static_elf(bytes: &[u8]) -> bool {
    let number = |at: usize, size: usize| -> Option<usize> {
        let field = bytes.get(at..at.checked_add(size)?)?;
        Some(field.iter().rev().fold(0, |sum, byte| (sum << 8) | usize::from(*byte)))
    };
    let check = || -> Option<bool> {
        if bytes.get(..6)? != b"\x7fELF\x02\x01" {
            return None;
        }
        let (table, size, count) = (number(32, 8)?, number(54, 2)?, number(56, 2)?);
        for i in 0..count {
            const PT_INTERP: usize = 3;
            if number(table.checked_add(i * size)?, 4)? == PT_INTERP {
                return Some(false);
            }
        }
        Some(true)
    };
    check().unwrap_or(false)
}

fn archive(image: &str, busybox: &[u8]) -> anyhow::Result<Vec<u8>> {
    let name = if image == REPOSITORY { format!("{image}:latest") } else { image.to_owned() };
    let layer = layer(busybox)?;
    let layer_digest = digest(&layer);
    let architecture = match std::env::consts::ARCH {
        "aarch64" => "arm64",
        _ => "amd64",
    };
    let config = json!({
        "created": "1970-01-01T00:00:00Z", "architecture": architecture, "os": "linux",
        "config": {
            "Cmd": ["sh"], "WorkingDir": "/",
            "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
        },
        "rootfs": {"type": "layers", "diff_ids": [layer_digest]},
        "history": [{"created": "1970-01-01T00:00:00Z", "created_by": "ecsd local"}],
    })
    .to_string();
    let descriptor = |kind: &str, bytes: &[u8]| json!({"mediaType": format!("application/vnd.oci.image.{kind}"), "digest": digest(bytes), "size": bytes.len()});
    let manifest = json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": descriptor("config.v1+json", config.as_bytes()),
        "layers": [descriptor("layer.v1.tar", &layer)],
    })
    .to_string();
    let mut entry = descriptor("manifest.v1+json", manifest.as_bytes());
    let tag = name.rsplit(':').next().unwrap_or_default();
    entry["annotations"] =
        json!({"io.containerd.image.name": name, "org.opencontainers.image.ref.name": tag});
    entry["platform"] = json!({"os": "linux", "architecture": architecture});
    let index = json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [entry]});
    let blob = |bytes: &[u8]| format!("blobs/sha256/{}", hex::encode(Sha256::digest(bytes)));
    let docker = json!([{"Config": blob(config.as_bytes()), "RepoTags": [name], "Layers": [blob(&layer)]}]);

    let mut tar = tar::Builder::new(Vec::new());
    add(&mut tar, "oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#, 0o644)?;
    add(&mut tar, "index.json", index.to_string().as_bytes(), 0o644)?;
    add(&mut tar, "manifest.json", docker.to_string().as_bytes(), 0o644)?;
    for bytes in [config.as_bytes(), manifest.as_bytes(), &layer] {
        add(&mut tar, &blob(bytes), bytes, 0o644)?;
    }
    Ok(tar.into_inner()?)
}

/// The root file system.
fn layer(busybox: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut tar = tar::Builder::new(Vec::new());
    for (dir, mode) in [
        ("bin/", 0o755),
        ("dev/", 0o755),
        ("etc/", 0o755),
        ("proc/", 0o755),
        ("root/", 0o700),
        ("sys/", 0o755),
        ("tmp/", 0o1777),
        ("www/", 0o755),
    ] {
        let mut header = header(0, mode);
        header.set_entry_type(tar::EntryType::Directory);
        tar.append_data(&mut header, dir, std::io::empty())?;
    }
    add(&mut tar, "bin/busybox", busybox, 0o755)?;
    for applet in APPLETS {
        let mut header = header(0, 0o777);
        header.set_entry_type(tar::EntryType::Symlink);
        tar.append_link(&mut header, format!("bin/{applet}"), "busybox")?;
    }
    add(
        &mut tar,
        "etc/passwd",
        b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\n",
        0o644,
    )?;
    add(&mut tar, "etc/group", b"root:x:0:\nnogroup:x:65534:\n", 0o644)?;
    add(&mut tar, "www/index.html", INDEX_PAGE.as_bytes(), 0o644)?;
    tar.into_inner()
}

fn header(size: u64, mode: u32) -> tar::Header {
    let mut header = tar::Header::new_ustar();
    header.set_size(size);
    header.set_mode(mode);
    header
}

fn add(tar: &mut tar::Builder<impl Write>, path: &str, bytes: &[u8], mode: u32) -> std::io::Result<()> {
    tar.append_data(&mut header(bytes.len() as u64, mode), path, bytes)
}

fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use std::io::Read;

    #[test]
    fn only_the_hello_repository_is_made() {
        assert!(is_hello("ecsd.local/hello") && is_hello("ecsd.local/hello:1"));
        assert!(!is_hello("ecsd.local/hello2:1") && !is_hello("ecsd.local/hello@sha256:0"));
    }

    #[test]
    fn programs_with_an_interpreter_are_not_static() {
        assert!(!is_static_elf(b"") && !is_static_elf(b"\x7fELF\x02\x01") && !is_static_elf(&[0; 100]));
        assert!(!is_static_elf(&std::fs::read("/proc/self/exe").unwrap()));
        assert!(is_static_elf(&static_busybox().unwrap()));
    }

    #[test]
    fn every_blob_has_its_digest() {
        let bytes = archive("ecsd.local/hello:1", b"program").unwrap();
        let mut files = BTreeMap::new();
        for entry in tar::Archive::new(bytes.as_slice()).entries().unwrap() {
            let mut entry = entry.unwrap();
            let mut content = Vec::new();
            entry.read_to_end(&mut content).unwrap();
            files.insert(entry.path().unwrap().display().to_string(), content);
        }
        for (path, content) in &files {
            if let Some(hex_digest) = path.strip_prefix("blobs/sha256/") {
                assert_eq!(hex_digest, hex::encode(Sha256::digest(content)));
            }
        }
        let index: serde_json::Value = serde_json::from_slice(&files["index.json"]).unwrap();
        let entry = &index["manifests"][0];
        assert_eq!(entry["annotations"]["io.containerd.image.name"], "ecsd.local/hello:1");
        let manifest = entry["digest"].as_str().unwrap().replace("sha256:", "blobs/sha256/");
        let manifest: serde_json::Value = serde_json::from_slice(&files[&manifest]).unwrap();
        let layer = manifest["layers"][0]["digest"].as_str().unwrap().replace("sha256:", "blobs/sha256/");
        let mut layer = tar::Archive::new(files[&layer].as_slice());
        let names: Vec<_> =
            layer.entries().unwrap().map(|e| e.unwrap().path().unwrap().display().to_string()).collect();
        assert!(names.contains(&"bin/httpd".to_owned()) && names.contains(&"www/index.html".to_owned()));
    }
}
