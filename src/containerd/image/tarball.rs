//! Reads the entries of an archive that somebody made, perhaps with intent. Nothing is ever written
//! to the file system under a name from the archive; every size is bounded before it is believed.
//! Blocks: runs on a thread of its own and hands on through a short queue.

use crate::containerd::image::import::ImportError;
use std::io::{BufReader, Read};
use tokio::sync::mpsc::Sender;

/// Bytes of a document.
const DOCUMENT: u64 = 4 << 20;
/// Bytes of one entry.
const ENTRY: u64 = 64 << 30;
/// Entries.
const ENTRIES: usize = 20_000;
/// Bytes of an extended header: a long name.
const EXTENSION: u64 = 64 << 10;
/// Bytes handed on at once.
const PIECE: usize = 512 << 10;

/// What an archive holds, in its order.
#[derive(Debug)]
pub enum Entry {
    /// A JSON document outside of `blobs/`.
    Document(String, Vec<u8>),
    /// A file begins: name and bytes.
    Begin(String, u64),
    /// Some of it.
    Data(Vec<u8>),
    /// It is whole.
    End,
    /// A link to another entry.
    Link(String, String),
}

/// Reads all entries. Ends early where nobody takes them.
///
/// # Errors
/// [`ImportError`] naming the entry.
pub fn read(source: impl Read, to: &Sender<Entry>) -> Result<(), ImportError> {
    let mut source = BufReader::new(source);
    let magic =
        std::io::BufRead::fill_buf(&mut source).map_err(ImportError::Read)?.get(..2) == Some(&[0x1f, 0x8b]);
    match magic {
        true => read_tar(flate2::bufread::MultiGzDecoder::new(source), to),
        false => read_tar(source, to),
    }
}

fn read_tar(source: impl Read, to: &Sender<Entry>) -> Result<(), ImportError> {
    let mut archive = tar::Archive::new(source);
    let mut long_name: Option<String> = None;
    let mut long_link: Option<String> = None;
    let mut count = 0;
    // Raw: the tar crate would read a long name of any length into memory.
    for entry in archive.entries().map_err(ImportError::Read)?.raw(true) {
        let mut entry = entry.map_err(ImportError::Read)?;
        count += 1;
        if count > ENTRIES {
            return Err(ImportError::Archive(format!("more than {ENTRIES} entries")));
        }
        let kind = entry.header().entry_type();
        let size = entry.header().entry_size().map_err(ImportError::Read)?;
        if kind.is_gnu_longname() || kind.is_gnu_longlink() {
            let text =
                String::from_utf8_lossy(&extension(&mut entry, size)?).trim_end_matches('\0').to_owned();
            *(if kind.is_gnu_longname() { &mut long_name } else { &mut long_link }) = Some(text);
            continue;
        }
        if kind.is_pax_global_extensions() {
            continue;
        }
        if kind.is_pax_local_extensions() {
            let bytes = extension(&mut entry, size)?;
            for extension in tar::PaxExtensions::new(&bytes) {
                let extension = extension.map_err(ImportError::Read)?;
                let value = String::from_utf8_lossy(extension.value_bytes()).into_owned();
                match extension.key_bytes() {
                    b"path" => long_name = Some(value),
                    b"linkpath" => long_link = Some(value),
                    b"size" => return Err(ImportError::Archive("an entry of more than 8 GiB".to_owned())),
                    _ => {}
                }
            }
            continue;
        }
        let written = long_name.take();
        let written = written.unwrap_or_else(|| String::from_utf8_lossy(&entry.path_bytes()).into_owned());
        let link = long_link.take();
        if kind.is_dir() {
            continue;
        }
        let name = inside("", &written)?;
        let refused = |problem: &str| ImportError::Entry { name: name.clone(), problem: problem.to_owned() };
        let taken = if kind.is_symlink() || kind.is_hard_link() {
            let target = entry.link_name_bytes().map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
            let target = link.or(target).ok_or_else(|| refused("a link to nothing"))?;
            let base =
                if kind.is_hard_link() { "" } else { name.rsplit_once('/').map_or("", |(base, _)| base) };
            let target = inside(base, &target)?;
            to.blocking_send(Entry::Link(name, target)).is_ok()
        } else if kind.is_file() {
            if size > ENTRY {
                return Err(refused(&format!("{size} bytes: {ENTRY} is the most")));
            }
            hand_on(&mut entry, name, size, to)?
        } else {
            return Err(refused("neither a file, a directory nor a link"));
        };
        if !taken {
            return Ok(());
        }
    }
    Ok(())
}

/// Hands on one file. Answers whether somebody takes it.
fn hand_on(entry: &mut impl Read, name: String, size: u64, to: &Sender<Entry>) -> Result<bool, ImportError> {
    let cut = |name: &str| ImportError::Entry {
        name: name.to_owned(),
        problem: "the archive ends within it".to_owned(),
    };
    if !name.starts_with("blobs/") && (name.ends_with(".json") || name == "oci-layout") {
        if size > DOCUMENT {
            return Err(ImportError::Entry {
                name,
                problem: format!("{size} bytes: {DOCUMENT} is the most"),
            });
        }
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).map_err(ImportError::Read)?;
        if bytes.len() as u64 != size {
            return Err(cut(&name));
        }
        return Ok(to.blocking_send(Entry::Document(name, bytes)).is_ok());
    }
    // Left over from formats that nobody reads any more.
    if matches!(name.rsplit('/').next(), Some("VERSION" | "json" | "repositories")) {
        return Ok(true);
    }
    let mut left = size;
    let mut taken = to.blocking_send(Entry::Begin(name.clone(), size)).is_ok();
    while left > 0 && taken {
        let mut piece = vec![0; usize::try_from(left).unwrap_or(PIECE).min(PIECE)];
        let got = entry.read(&mut piece).map_err(ImportError::Read)?;
        if got == 0 {
            return Err(cut(&name));
        }
        piece.truncate(got);
        left -= got as u64;
        taken = to.blocking_send(Entry::Data(piece)).is_ok();
    }
    Ok(taken && to.blocking_send(Entry::End).is_ok())
}

fn extension(entry: &mut impl Read, size: u64) -> Result<Vec<u8>, ImportError> {
    if size > EXTENSION {
        return Err(ImportError::Archive(format!(
            "an extended header of {size} bytes: {EXTENSION} is the most"
        )));
    }
    let mut bytes = Vec::new();
    entry.read_to_end(&mut bytes).map_err(ImportError::Read)?;
    Ok(bytes)
}

/// A name within the archive, from a directory of it; never above its top.
fn inside(base: &str, name: &str) -> Result<String, ImportError> {
    let refused = |problem: &str| {
        Err(ImportError::Entry { name: name.chars().take(200).collect(), problem: problem.to_owned() })
    };
    if name.starts_with('/') {
        return refused("an absolute name");
    }
    if name.len() > 1024 || name.chars().any(char::is_control) {
        return refused("a name that is too long or has control characters");
    }
    let mut parts: Vec<&str> = base.split('/').filter(|part| !part.is_empty()).collect();
    for part in name.split('/') {
        match part {
            "" | "." => {}
            ".." if base.is_empty() => return refused("a name with '..'"),
            ".." if parts.pop().is_none() => return refused("a link out of the archive"),
            ".." => {}
            part => parts.push(part),
        }
    }
    if parts.is_empty() {
        return refused("an empty name");
    }
    Ok(parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(archive: &[u8]) -> Result<Vec<String>, ImportError> {
        let (to, mut from) = tokio::sync::mpsc::channel(10_000);
        read(archive, &to)?;
        drop(to);
        let mut seen = Vec::new();
        while let Some(entry) = from.blocking_recv() {
            seen.push(match entry {
                Entry::Document(name, bytes) => format!("document {name} {}", bytes.len()),
                Entry::Begin(name, size) => format!("file {name} {size}"),
                Entry::Link(name, target) => format!("link {name} {target}"),
                Entry::Data(_) | Entry::End => continue,
            });
        }
        Ok(seen)
    }

    fn raw(name: &str, kind: u8, size: u64, link: &str, body: &[u8]) -> Vec<u8> {
        let mut header = tar::Header::new_old();
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.as_old_mut().linkflag = [kind];
        header.set_size(size);
        header.set_mode(0o644);
        header.set_cksum();
        let mut bytes = header.as_bytes().to_vec();
        bytes.extend_from_slice(body);
        bytes.resize(bytes.len().div_ceil(512) * 512, 0);
        bytes
    }

    #[test]
    fn files_documents_and_links_are_told_apart() {
        let mut archive = raw("./index.json", b'0', 2, "", b"{}");
        archive.extend(raw("blobs/sha256/a", b'0', 3, "", b"abc"));
        archive.extend(raw("x/layer.tar", b'2', 0, "../y/layer.tar", b""));
        archive.extend(raw("d/", b'5', 0, "", b""));
        archive.extend(raw("L", b'L', 110, "", "n".repeat(110).as_bytes()));
        archive.extend(raw("short", b'0', 0, "", b""));
        let long = format!("file {} 0", "n".repeat(110));
        let seen = entries(&archive).unwrap();
        let wanted =
            ["document index.json 2", "file blobs/sha256/a 3", "link x/layer.tar y/layer.tar", &long];
        assert_eq!(seen, wanted);
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        std::io::Write::write_all(&mut gzip, &archive).unwrap();
        assert_eq!(entries(&gzip.finish().unwrap()).unwrap(), seen);
    }

    #[test]
    fn hostile_entries_are_refused() {
        for (archive, word) in [
            (raw("../x", b'0', 0, "", b""), "'..'"),
            (raw("a/../../x", b'0', 0, "", b""), "'..'"),
            (raw("/etc/passwd", b'0', 0, "", b""), "absolute"),
            (raw("a/l", b'2', 0, "../../etc/passwd", b""), "out of the archive"),
            (raw("a/l", b'2', 0, "/etc/passwd", b""), "absolute"),
            (raw("dev", b'3', 0, "", b""), "neither"),
            (raw("blobs/big", b'0', 4 << 30, "", b"x"), "ends within"),
            (raw("index.json", b'0', 1 << 30, "", b"x"), "the most"),
            (raw("index.json", b'0', 100, "", b""), "ends within"),
            (raw("L", b'L', 1 << 30, "", b""), "extended header"),
            (raw("S", b'S', 0, "", b""), "neither"),
        ] {
            let error = entries(&archive).unwrap_err().to_string();
            assert!(error.contains(word), "{word}: {error}");
        }
        assert!(entries(&[0x42; 4096]).is_err());
        assert!(entries(b"\x1f\x8bgarbage").is_err());
    }
}
