//! The journal's native protocol, against a socket that takes entries apart, also those in sealed files.

use super::program::{ID, LONG, Logger, config};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, UnixAddr, recvmsg};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::io::{IoSliceMut, Read, Seek};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;

struct Journal {
    directory: PathBuf,
    socket: UnixDatagram,
}

impl Journal {
    fn new(name: &str) -> Self {
        let directory = std::env::temp_dir().join(format!("ecsd-journal-{name}-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let socket = UnixDatagram::bind(directory.join("socket")).unwrap();
        socket.set_read_timeout(Some(LONG)).unwrap();
        Self { directory, socket }
    }

    fn config(&self) -> Value {
        let mut config = config("journald", json!({}));
        config["journal"] = json!(self.directory.join("socket"));
        config
    }

    /// An entry, and whether it came as a file.
    fn entry(&self) -> (BTreeMap<String, Vec<u8>>, bool) {
        let mut buffer = vec![0; 400_000];
        let mut space = nix::cmsg_space!([RawFd; 1]);
        let mut slices = [IoSliceMut::new(&mut buffer)];
        let received =
            recvmsg::<UnixAddr>(self.socket.as_raw_fd(), &mut slices, Some(&mut space), MsgFlags::empty())
                .unwrap();
        let fd = received.cmsgs().unwrap().find_map(|message| match message {
            ControlMessageOwned::ScmRights(fds) => Some(fds[0]),
            _ => None,
        });
        let count = received.bytes;
        let bytes = match fd {
            None => buffer[..count].to_vec(),
            Some(fd) => {
                let mut file =
                    fs::File::options().read(true).write(true).open(format!("/proc/self/fd/{fd}")).unwrap();
                assert!(std::io::Write::write(&mut file, b"x").is_err(), "it is sealed");
                file.rewind().unwrap();
                let mut bytes = Vec::new();
                file.read_to_end(&mut bytes).unwrap();
                nix::unistd::close(fd).unwrap();
                bytes
            }
        };
        (fields(&bytes), fd.is_some())
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.directory);
    }
}

fn fields(mut bytes: &[u8]) -> BTreeMap<String, Vec<u8>> {
    let mut fields = BTreeMap::new();
    while !bytes.is_empty() {
        let end = bytes.iter().position(|b| matches!(b, b'=' | b'\n')).unwrap();
        let name = String::from_utf8(bytes[..end].to_vec()).unwrap();
        let (value, rest) = if bytes[end] == b'=' {
            let length = bytes[end..].iter().position(|b| *b == b'\n').unwrap();
            (&bytes[end + 1..end + length], &bytes[end + length..])
        } else {
            let length = u64::from_le_bytes(bytes[end + 1..end + 9].try_into().unwrap()) as usize;
            bytes[end + 9..].split_at(length)
        };
        assert_eq!(rest[0], b'\n');
        fields.insert(name, value.to_vec());
        bytes = &rest[1..];
    }
    fields
}

#[test]
fn entries_have_dockers_fields() {
    let journal = Journal::new("fields");
    let mut logger = Logger::start("journald", |_| journal.config().to_string());
    logger.wait_ready();
    assert_eq!(logger.failure(), None);
    logger.complain("oops\n");
    let (entry, _) = journal.entry();
    let of = |name: &str| String::from_utf8(entry[name].clone()).unwrap();
    for (name, want) in [
        ("MESSAGE", "oops"),
        ("PRIORITY", "3"),
        ("CONTAINER_ID", &ID[..12]),
        ("CONTAINER_ID_FULL", ID),
        ("CONTAINER_NAME", "ecs-web-3-app-00"),
        ("CONTAINER_TAG", "the-tag"),
        ("SYSLOG_IDENTIFIER", "the-tag"),
        ("IMAGE_NAME", "web:1"),
        ("STAGE", "prod"),
        ("COM_EXAMPLE_TEAM", "core"),
    ] {
        assert_eq!(of(name), want, "{name}");
    }
    assert!(!entry.contains_key("CONTAINER_PARTIAL_MESSAGE"));
    humantime::parse_rfc3339(&of("SYSLOG_TIMESTAMP")).unwrap();
    logger.say(format!("{}\n", "x".repeat(20_000)));
    let (first, last) = (journal.entry().0, journal.entry().0);
    assert_eq!(
        (first["CONTAINER_PARTIAL_MESSAGE"].as_slice(), first["PRIORITY"].as_slice()),
        (&b"true"[..], &b"6"[..])
    );
    assert!(!last.contains_key("CONTAINER_PARTIAL_MESSAGE"));
    assert_eq!(first["CONTAINER_PARTIAL_ID"], last["CONTAINER_PARTIAL_ID"]);
    assert_eq!(last["CONTAINER_PARTIAL_LAST"], b"true");
    assert_eq!(logger.end(), 0);
}

#[test]
fn what_is_too_long_for_a_datagram_comes_as_a_sealed_file() {
    let journal = Journal::new("long");
    let mut config = journal.config();
    config["attributes"] = json!({"large": format!("{}\nend", "y".repeat(400_000))});
    let mut logger = Logger::start("journald-long", |_| config.to_string());
    logger.wait_ready();
    logger.say("short\n");
    let (entry, is_file) = journal.entry();
    assert!(is_file);
    assert_eq!((entry["MESSAGE"].as_slice(), entry["LARGE"].len()), (&b"short"[..], 400_004));
    assert_eq!(logger.end(), 0);
}

#[test]
fn without_a_journal_the_start_fails() {
    let journal = Journal::new("none");
    let mut config = journal.config();
    config["journal"] = json!("/nonexistent/socket");
    let mut logger = Logger::start("journald-none", |_| config.to_string());
    logger.wait_ready();
    assert_eq!(logger.failure().unwrap(), "journald is not enabled on this host");
    logger.end();
}
