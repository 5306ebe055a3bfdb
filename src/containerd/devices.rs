//! Device nodes of the host, as a container is to get them: those asked for by path, or all of
//! /dev for a privileged one. Blocking; called by `groundwork.rs`.

use crate::containerd::docker_config::DeviceRequest;
use crate::containerd::spec::linux::HostDevice;
use std::fs::Metadata;
use std::io::{Error, ErrorKind};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

/// What of /dev a container has its own of.
const OWN: [&str; 7] = ["pts", "shm", "fd", "mqueue", "console", ".lxc", ".udev"];
/// More than any host has; a directory that yields more is not one of devices.
const MOST: usize = 4096;

/// The devices that were asked for by path; a directory stands for all below it.
///
/// # Errors
/// What can't be read, and paths that are neither device nor directory.
pub fn requested(requests: &[DeviceRequest]) -> std::io::Result<Vec<HostDevice>> {
    let mut devices = Vec::new();
    for request in requests {
        let host = Path::new(&request.host_path);
        // Through links: /dev/disk/by-id/... names devices.
        let about = std::fs::metadata(host)?;
        if about.is_dir() {
            walk(host, Path::new(&request.container_path), &request.permissions, &mut devices)?;
        } else {
            let node = node(&about, Path::new(&request.container_path), &request.permissions);
            let wrong = || Error::new(ErrorKind::InvalidInput, "not a device node");
            devices.push(node.ok_or_else(wrong)?);
        }
    }
    Ok(devices)
}

/// All devices of the host, and those that are asked for under another path.
///
/// # Errors
/// As for [`requested`]; /dev can't be read.
pub fn all_and(requests: &[DeviceRequest]) -> std::io::Result<Vec<HostDevice>> {
    let mut devices = all()?;
    let elsewhere = requests.iter().filter(|request| request.host_path != request.container_path);
    let elsewhere: Vec<DeviceRequest> =
        elsewhere.map(|request| DeviceRequest { permissions: "rwm".to_owned(), ..request.clone() }).collect();
    devices.extend(requested(&elsewhere)?);
    Ok(devices)
}

/// All devices of the host.
fn all() -> std::io::Result<Vec<HostDevice>> {
    let mut devices = Vec::new();
    let dev = Path::new("/dev");
    for entry in std::fs::read_dir(dev)?.flatten() {
        if OWN.iter().any(|own| entry.file_name() == *own) {
            continue;
        }
        let path = entry.path();
        let Ok(about) = entry.metadata() else { continue };
        if about.is_dir() {
            walk(&path, &path, "rwm", &mut devices)?;
        } else {
            devices.extend(node(&about, &path, "rwm"));
        }
    }
    Ok(devices)
}

fn walk(host: &Path, inside: &Path, permissions: &str, into: &mut Vec<HostDevice>) -> std::io::Result<()> {
    for entry in std::fs::read_dir(host)?.flatten() {
        let Ok(about) = entry.metadata() else { continue };
        let inside = inside.join(entry.file_name());
        if about.is_dir() {
            walk(&entry.path(), &inside, permissions, into)?;
        } else {
            into.extend(node(&about, &inside, permissions));
        }
        if into.len() > MOST {
            return Err(Error::new(ErrorKind::InvalidInput, format!("more than {MOST} devices")));
        }
    }
    Ok(())
}

fn node(about: &Metadata, path: &Path, permissions: &str) -> Option<HostDevice> {
    let kind = about.file_type();
    if !kind.is_block_device() && !kind.is_char_device() {
        return None;
    }
    Some(HostDevice {
        path: path.to_str()?.to_owned(),
        block: kind.is_block_device(),
        major: nix::sys::stat::major(about.rdev()),
        minor: nix::sys::stat::minor(about.rdev()),
        mode: about.mode() & 0o7777,
        uid: about.uid(),
        gid: about.gid(),
        permissions: permissions.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(path: &str) -> DeviceRequest {
        DeviceRequest { host_path: path.into(), container_path: "/dev/mine".into(), permissions: "r".into() }
    }

    #[test]
    fn devices_are_found_by_path() {
        let found = requested(&[request("/dev/null")]).unwrap();
        assert_eq!((found[0].major, found[0].minor, found[0].block), (1, 3, false));
        assert_eq!((found[0].path.as_str(), found[0].permissions.as_str()), ("/dev/mine", "r"));
        assert!(requested(&[request("/etc/passwd")]).is_err());
        assert!(requested(&[request("/dev/absent")]).is_err());
    }

    #[test]
    fn a_privileged_container_gets_the_hosts() {
        let all = all().unwrap();
        assert!(all.iter().any(|d| d.path == "/dev/null"));
        assert!(!all.iter().any(|d| d.path.starts_with("/dev/pts/")));
        let more = all_and(&[
            request("/dev/null"),
            DeviceRequest { container_path: "/dev/null".into(), ..request("/dev/null") },
        ]);
        let more = more.unwrap();
        assert_eq!(more.len(), all.len() + 1);
        let mine = more.iter().find(|d| d.path == "/dev/mine").unwrap();
        assert_eq!((mine.major, mine.minor, mine.permissions.as_str()), (1, 3, "rwm"));
    }
}
