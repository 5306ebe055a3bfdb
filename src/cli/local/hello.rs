//! The image of the hello example, made on the spot from the host's static busybox as an OCI archive.

use super::process;
use crate::app::local_host::{RootfsConfig, RootfsContent, RootfsFile, oci_archive};
use anyhow::{Context, bail};
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

fn archive(image: &str, busybox: &[u8]) -> std::io::Result<Vec<u8>> {
    let name = if image == REPOSITORY { format!("{image}:latest") } else { image.to_owned() };
    let config = RootfsConfig {
        cmd: vec!["sh".to_owned()],
        env: vec!["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned()],
        working_dir: Some("/".to_owned()),
        ..RootfsConfig::default()
    };
    oci_archive(&name, &files(busybox), &config)
}

/// The root file system.
fn files(busybox: &[u8]) -> Vec<RootfsFile> {
    let file = |path: String, mode, content| RootfsFile { path, mode, content };
    let directories = [
        ("/bin", 0o755),
        ("/dev", 0o755),
        ("/etc", 0o755),
        ("/proc", 0o755),
        ("/root", 0o700),
        ("/sys", 0o755),
        ("/tmp", 0o1777),
        ("/www", 0o755),
    ];
    let texts = [
        ("/etc/passwd", "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\n"),
        ("/etc/group", "root:x:0:\nnogroup:x:65534:\n"),
        ("/www/index.html", INDEX_PAGE),
    ];
    let directories = directories.map(|(path, mode)| file(path.to_owned(), mode, RootfsContent::Directory));
    let program = file("/bin/busybox".to_owned(), 0o755, RootfsContent::Bytes(busybox.to_vec()));
    let link =
        |applet: &&str| file(format!("/bin/{applet}"), 0o777, RootfsContent::Symlink("busybox".to_owned()));
    let texts = texts.map(|(path, text)| file(path.to_owned(), 0o644, RootfsContent::Bytes(text.into())));
    directories.into_iter().chain([program]).chain(APPLETS.iter().map(link)).chain(texts).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn the_image_holds_the_program_and_its_page() {
        let files = files(b"program");
        for path in ["/bin/busybox", "/bin/httpd", "/www/index.html", "/etc/passwd"] {
            assert!(files.iter().any(|file| file.path == path), "{path}");
        }
        assert!(!archive("ecsd.local/hello:1", b"program").unwrap().is_empty());
    }
}
