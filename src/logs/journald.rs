//! The driver `journald`: the journal's native protocol, one datagram an entry. An entry that is longer
//! than a datagram goes as a sealed file in memory, whose descriptor is sent.

use super::config::LoggerConfig;
use super::driver::{Driver, Message, NotTaken};
use super::record::LogStream;
use super::times::rfc3339;
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::socket::{ControlMessage, MsgFlags, UnixAddr, sendmsg};
use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::time::Duration;

/// Where the journal listens.
pub const SOCKET: &str = "/run/systemd/journal/socket";
/// A journal that is slow is waited for so long at a time.
const STEP: Duration = Duration::from_secs(1);

/// The driver.
pub struct Journald {
    path: PathBuf,
    socket: UnixDatagram,
    /// The fields that are the same in every entry.
    common: Vec<u8>,
    entry: Vec<u8>,
    at_hand: bool,
}

impl Journald {
    /// Finds the journal.
    ///
    /// # Errors
    /// In dockerd's words, where there is none.
    pub fn open(config: &LoggerConfig) -> Result<Self, String> {
        let path = config.journal.clone().unwrap_or_else(|| PathBuf::from(SOCKET));
        let socket = UnixDatagram::unbound().map_err(|error| error.to_string())?;
        socket.set_write_timeout(Some(STEP)).map_err(|error| error.to_string())?;
        if socket.connect(&path).is_err() {
            return Err("journald is not enabled on this host".to_owned());
        }
        Ok(Self { path, socket, common: common(config), entry: Vec::new(), at_hand: false })
    }

    fn format(&mut self, message: &Message<'_>) {
        self.entry.clear();
        let priority = match message.stream {
            LogStream::Stdout => "6",
            LogStream::Stderr => "3",
        };
        field(&mut self.entry, "MESSAGE", message.line);
        field(&mut self.entry, "PRIORITY", priority.as_bytes());
        field(&mut self.entry, "SYSLOG_TIMESTAMP", rfc3339(message.time, 9).as_bytes());
        if let Some(partial) = message.partial {
            let mut put = |name: &str, value: String| field(&mut self.entry, name, value.as_bytes());
            if !partial.last {
                put("CONTAINER_PARTIAL_MESSAGE", "true".to_owned());
            }
            put("CONTAINER_PARTIAL_ID", format!("{:016x}", partial.id));
            put("CONTAINER_PARTIAL_ORDINAL", partial.ordinal.to_string());
            put("CONTAINER_PARTIAL_LAST", partial.last.to_string());
        }
        self.entry.extend_from_slice(&self.common);
    }

    fn send(&self) -> io::Result<()> {
        match self.socket.send(&self.entry) {
            Ok(_) => Ok(()),
            Err(error) if is(&error, nix::errno::Errno::EMSGSIZE) => self.send_file(),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Err(error),
            Err(_) => {
                // The journal was started anew.
                self.socket.connect(&self.path)?;
                self.socket.send(&self.entry).map(drop)
            }
        }
    }

    fn send_file(&self) -> io::Result<()> {
        let file = memfd_create(c"ecsd-journal", MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING)?;
        let mut file = File::from(file);
        file.write_all(&self.entry)?;
        let seals =
            SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_WRITE | SealFlag::F_SEAL_SEAL;
        fcntl(&file, FcntlArg::F_ADD_SEALS(seals))?;
        let fds = [file.as_raw_fd()];
        let control = [ControlMessage::ScmRights(&fds)];
        sendmsg::<UnixAddr>(self.socket.as_raw_fd(), &[], &control, MsgFlags::empty(), None)?;
        Ok(())
    }
}

fn is(error: &io::Error, errno: nix::errno::Errno) -> bool {
    error.raw_os_error() == Some(errno as i32)
}

/// `NAME=value`, or with the value's length where it has lines of its own.
fn field(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    out.extend_from_slice(name.as_bytes());
    if value.contains(&b'\n') {
        out.push(b'\n');
        out.extend((value.len() as u64).to_le_bytes());
    } else {
        out.push(b'=');
    }
    out.extend_from_slice(value);
    out.push(b'\n');
}

/// A name as the journal takes it: capitals, digits and underscores, which it does not begin with.
fn name(text: &str) -> String {
    let fit = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' };
    let name: String = text.chars().map(fit).collect();
    name.trim_start_matches('_').to_owned()
}

fn common(config: &LoggerConfig) -> Vec<u8> {
    let container = &config.container;
    let short: String = container.id.chars().take(12).collect();
    let mut out = Vec::new();
    for (name, value) in [
        ("CONTAINER_ID", short.as_str()),
        ("CONTAINER_ID_FULL", &container.id),
        ("CONTAINER_NAME", &container.name),
        ("CONTAINER_TAG", &config.tag),
        ("IMAGE_NAME", &container.image_name),
        ("SYSLOG_IDENTIFIER", &config.tag),
    ] {
        field(&mut out, name, value.as_bytes());
    }
    for (key, value) in &config.attributes {
        let name = name(key);
        // What is chosen does not stand for what is known.
        let taken =
            ["MESSAGE", "PRIORITY", "CONTAINER_ID", "CONTAINER_ID_FULL", "CONTAINER_NAME", "CONTAINER_TAG"];
        if !name.is_empty() && !taken.contains(&name.as_str()) {
            field(&mut out, &name, value.as_bytes());
        }
    }
    out
}

impl Driver for Journald {
    fn write(&mut self, message: &Message<'_>) -> Result<(), NotTaken> {
        if !self.at_hand {
            self.format(message);
        }
        let sent = self.send();
        self.at_hand = sent.is_err();
        sent.map_err(|error| match error.kind() {
            ErrorKind::WouldBlock => NotTaken::Slow,
            _ => NotTaken::Retry(error.to_string()),
        })
    }

    fn given_up(&mut self) {
        self.at_hand = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_the_native_protocols() {
        let mut out = Vec::new();
        field(&mut out, "A", b"b c");
        field(&mut out, "B", b"x\ny");
        assert_eq!(out, b"A=b c\nB\n\x03\0\0\0\0\0\0\0x\ny\n");
        assert_eq!(name("com.example-x1"), "COM_EXAMPLE_X1");
        assert_eq!(name("__a"), "A");
        assert_eq!(name("---"), "");
    }
}
