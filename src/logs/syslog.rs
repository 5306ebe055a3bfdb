//! The driver `syslog`: one message a line, of severity info for stdout and error for stderr, to a
//! server or to the host's own. Formats and frames are those of dockerd.

use super::config::LoggerConfig;
use super::conn::Connection;
use super::datagram::Datagrams;
use super::driver::{Driver, Message, NotTaken};
use super::record::LogStream;
use super::times::{LocalTime, rfc3339};
use super::tls::TlsFiles;
use crate::model::logging::{ServerAddress, SyslogAddress, SyslogFormat, SyslogOptions};
use std::io::ErrorKind;
use std::path::Path;

/// Where the host's own syslog listens, in the order in which they are tried.
const LOCAL: [&str; 3] = ["/dev/log", "/var/run/syslog", "/var/run/log"];

/// The driver.
pub struct Syslog {
    options: SyslogOptions,
    transport: Transport,
    hostname: String,
    tag: String,
    zone: LocalTime,
    /// The message at hand: it stays the same while it is tried again.
    frame: Vec<u8>,
    at_hand: bool,
}

enum Transport {
    Stream(Connection),
    Datagrams(Datagrams),
}

impl Syslog {
    /// Connects.
    ///
    /// # Errors
    /// There is no server, in words.
    pub fn open(config: &LoggerConfig, options: &SyslogOptions) -> Result<Self, String> {
        let tls = TlsFiles {
            ca: options.ca.clone(),
            client: options.client.clone(),
            skip_verify: options.skip_verify,
        };
        let stream = |address: &ServerAddress| {
            let mut connection = Connection::new(address.clone(), &tls, None)?;
            connection.connect().map_err(|error| error.to_string())?;
            Ok::<_, String>(Transport::Stream(connection))
        };
        let datagrams = |path: &Path| Datagrams::unix(path).map(Transport::Datagrams);
        let transport = match &options.address {
            SyslogAddress::Stream(address) => stream(address)?,
            SyslogAddress::Unixgram(path) => datagrams(path)?,
            SyslogAddress::Udp(host, port) => Transport::Datagrams(Datagrams::udp(host, *port)?),
            SyslogAddress::Local => {
                let try_one = |path: &&str| {
                    let path = Path::new(path);
                    datagrams(path).or_else(|_| stream(&ServerAddress::Unix(path.to_owned())))
                };
                let found = LOCAL.iter().find_map(|path| try_one(path).ok());
                found.ok_or("Unix syslog delivery error: this host has no syslog")?
            }
        };
        let hostname = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
        Ok(Self {
            options: options.clone(),
            transport,
            hostname: hostname.unwrap_or_else(|| "localhost".to_owned()),
            tag: config.tag.clone(),
            zone: LocalTime::of_host(),
            frame: Vec::new(),
            at_hand: false,
        })
    }

    fn format(&mut self, message: &Message<'_>) {
        let severity = match message.stream {
            LogStream::Stdout => 6,
            LogStream::Stderr => 3,
        };
        let priority = self.options.facility * 8 + severity;
        let (tag, hostname, pid) = (&self.tag, &self.hostname, std::process::id());
        let stamp = || self.zone.stamp(message.time);
        let rfc5424 = |time: String| format!("<{priority}>1 {time} {hostname} {tag} {pid} {tag} - ");
        let head = match self.options.format {
            SyslogFormat::Unix => format!("<{priority}>{} {tag}[{pid}]: ", stamp()),
            SyslogFormat::Rfc3164 => format!("<{priority}>{} {hostname} {tag}[{pid}]: ", stamp()),
            SyslogFormat::Rfc5424 => rfc5424(rfc3339(message.time, 0)),
            SyslogFormat::Rfc5424Micro => rfc5424(rfc3339(message.time, 6)),
        };
        self.frame.clear();
        // RFC 5425: over TLS the length comes first. Elsewhere a newline is the end.
        let is_counted = matches!(self.options.format, SyslogFormat::Rfc5424 | SyslogFormat::Rfc5424Micro)
            && matches!(self.options.address, SyslogAddress::Stream(ServerAddress::Tls(..)));
        if is_counted {
            let length = head.len() + message.line.len() + 1;
            self.frame.extend_from_slice(format!("{length} ").as_bytes());
        }
        self.frame.extend_from_slice(head.as_bytes());
        self.frame.extend_from_slice(message.line);
        self.frame.push(b'\n');
    }
}

impl Driver for Syslog {
    fn write(&mut self, message: &Message<'_>) -> Result<(), NotTaken> {
        if !self.at_hand {
            self.format(message);
            self.at_hand = true;
        }
        let sent = match &mut self.transport {
            Transport::Stream(connection) => connection.send(&self.frame),
            Transport::Datagrams(datagrams) => datagrams.send(&self.frame),
        };
        match sent {
            Ok(()) => {
                self.at_hand = false;
                Ok(())
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => Err(NotTaken::Slow),
            Err(error) if Datagrams::is_too_long(&error) => {
                self.at_hand = false;
                Err(NotTaken::dropped(error.to_string()))
            }
            Err(error) => Err(NotTaken::Retry(error.to_string())),
        }
    }

    fn gives_up_after(&self) -> Option<u32> {
        // Who cares for every message takes TCP. This one must not hold up the next.
        matches!(self.options.address, SyslogAddress::Udp(..)).then_some(1)
    }

    fn given_up(&mut self) {
        self.at_hand = false;
        if let Transport::Stream(connection) = &mut self.transport
            && connection.is_amid()
        {
            connection.close();
        }
    }
}
