//! Rotated files in gzip, `<path>.1.gz`. The comment in the head names the inode that the file had
//! before, so that who had read it knows it again.

use super::counters::with_suffix;
use flate2::bufread::GzDecoder;
use flate2::{Compression, GzBuilder};
use std::fs::{self, File};
use std::io::{self, BufReader, Read, Seek};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Before the inode's number, in the comment.
const COMMENT: &str = "inode:";
const MAGIC: [u8; 2] = [0x1f, 0x8b];

/// The name of a file once it is compressed.
pub(super) fn compressed(path: &Path) -> PathBuf {
    with_suffix(path, ".gz")
}

/// Puts a compressed file in the place of one that is written no more. Where that can't be done the
/// file stays as it is.
pub(super) fn compress(path: &Path) {
    let new = with_suffix(path, ".gz.new");
    let write = || {
        let mut file = File::open(path)?;
        let metadata = file.metadata()?;
        let mut options = File::options();
        let out = options.write(true).create(true).truncate(true).mode(metadata.mode() & 0o777).open(&new)?;
        let comment = format!("{COMMENT}{}", metadata.ino());
        let mut encoder = GzBuilder::new().comment(comment).write(out, Compression::default());
        io::copy(&mut file, &mut encoder)?;
        encoder.finish()?;
        fs::rename(&new, compressed(path))?;
        fs::remove_file(path)
    };
    if write().is_err() {
        let _ = fs::remove_file(&new);
    }
}

/// The text of a compressed file; `None` where it is not compressed.
pub(super) fn open(mut file: File) -> io::Result<Option<GzDecoder<BufReader<File>>>> {
    let mut magic = [0; 2];
    let count = file.read(&mut magic)?;
    file.rewind()?;
    let is_compressed = count == magic.len() && magic == MAGIC;
    Ok(is_compressed.then(|| GzDecoder::new(BufReader::new(file))))
}

/// The inode that a compressed file had before. By now another file may have it.
pub(super) fn former_inode(path: &Path) -> Option<u64> {
    let decoder = open(File::open(path).ok()?).ok()??;
    let comment = std::str::from_utf8(decoder.header()?.comment()?).ok()?;
    comment.strip_prefix(COMMENT)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_compressed_file_is_the_same_text_and_known_again() {
        let path = std::env::temp_dir().join(format!("ecsd-gzip-{}", std::process::id()));
        let text = "{\"log\":\"x\"}\n".repeat(1000);
        fs::write(&path, &text).unwrap();
        let before = path.metadata().unwrap().ino();
        assert!(open(File::open(&path).unwrap()).unwrap().is_none());
        compress(&path);
        let file = compressed(&path);
        assert!(!path.exists() && file.metadata().unwrap().len() < 1000);
        assert_eq!(former_inode(&file), Some(before));
        let mut reader = open(File::open(&file).unwrap()).unwrap().unwrap();
        let mut read = String::new();
        reader.read_to_string(&mut read).unwrap();
        assert_eq!(read, text);
        fs::remove_file(&file).unwrap();
        compress(&path);
        assert!(!file.exists(), "there was nothing");
    }
}
