//! The program that is PID 1 where one of ours has to be: with initProcessEnabled, and to hold the
//! namespaces that a task's containers share. It is compiled from `src/init`, carried in the agent, and
//! written out at each start, so that nothing has to be installed beside.

use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The program: static, without libc.
pub const PROGRAM: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/ecsd-init"));

const NAME: &str = "ecsd-init";
const MODE: u32 = 0o755;

/// Writes it into a directory, unless it is there, and answers its path, which stays the same: containers
/// are started again by it. One that an earlier agent wrote is replaced; who has it mounted keeps it.
///
/// # Errors
/// Where it can't be written, or not be run there (`noexec`).
pub fn install(directory: &Path) -> io::Result<PathBuf> {
    let path = directory.join(NAME);
    if !is_whole(&path) {
        let new = directory.join(format!(".{NAME}.{}", std::process::id()));
        let written = write(&new).and_then(|()| std::fs::rename(&new, &path));
        if written.is_err() {
            let _ = std::fs::remove_file(&new);
        }
        written?;
    }
    let run = Command::new(&path).arg("--version").stdin(Stdio::null()).stderr(Stdio::null()).status();
    match run {
        Ok(status) if status.success() => Ok(path),
        Ok(status) => Err(io::Error::other(format!("{}: {status}", path.display()))),
        // A process that was forked while it was written has it open for a moment more.
        Err(error) if error.kind() == ErrorKind::ExecutableFileBusy => Ok(path),
        Err(error) => Err(error),
    }
}

fn is_whole(path: &Path) -> bool {
    let mode = std::fs::symlink_metadata(path).map(|about| about.permissions().mode() & 0o7777);
    mode.is_ok_and(|mode| mode == MODE) && std::fs::read(path).is_ok_and(|content| content == PROGRAM)
}

fn write(path: &Path) -> io::Result<()> {
    let mut file =
        std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(MODE).open(path)?;
    file.write_all(PROGRAM)?;
    // Whatever the umask is.
    file.set_permissions(std::fs::Permissions::from_mode(MODE))?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_written_once_and_mended() {
        let directory = std::env::temp_dir().join(format!("ecsd-init-{}", std::process::id()));
        assert!(install(&directory).is_err(), "the directory is the caller's");
        std::fs::create_dir_all(&directory).unwrap();
        let path = install(&directory).unwrap();
        let inode = |path: &Path| std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(path).unwrap());
        let first = inode(&path);
        assert_eq!((install(&directory).unwrap(), inode(&path)), (path.clone(), first));
        for damage in [&b""[..], b"another", &[PROGRAM, b"x"].concat()] {
            std::fs::write(&path, damage).unwrap();
            assert_eq!(install(&directory).unwrap(), path);
            assert_eq!(std::fs::read(&path).unwrap(), PROGRAM);
        }
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        install(&directory).unwrap();
        assert!(is_whole(&path));
        let left: Vec<_> = std::fs::read_dir(&directory).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(left, [NAME], "no temporary file stays");
        std::fs::remove_dir_all(&directory).unwrap();
    }

    #[test]
    fn it_is_small_and_needs_no_interpreter() {
        assert!(PROGRAM.len() < 20 * 1024, "{} bytes", PROGRAM.len());
        let headers = usize::from(u16::from_le_bytes([PROGRAM[56], PROGRAM[57]]));
        for at in (0..headers).map(|index| 64 + 56 * index) {
            assert_ne!(PROGRAM[at..at + 4], 3_u32.to_le_bytes(), "PT_INTERP");
        }
    }
}
