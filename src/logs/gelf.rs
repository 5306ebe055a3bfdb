//! The driver `gelf`: GELF 1.1 in chunked, compressed datagrams, or over TCP with a zero byte behind
//! each message.

use super::config::LoggerConfig;
use super::conn::Connection;
use super::datagram::Datagrams;
use super::driver::{Driver, Message, NotTaken};
use super::record::LogStream;
use super::times::rfc3339;
use super::tls::TlsFiles;
use crate::model::logging::{GelfCompression, GelfOptions, GelfTransport, ServerAddress};
use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};
use serde_json::{Map, Value, json};
use std::hash::{BuildHasher, RandomState};
use std::io::{self, ErrorKind, Write};
use std::time::{Duration, UNIX_EPOCH};

/// What Docker puts into one datagram, with the chunk's head.
const DATAGRAM_MAX: usize = 1420;
const CHUNK_HEAD: usize = 12;
/// The protocol's own limit.
const CHUNKS_MAX: usize = 128;

/// The driver.
pub struct Gelf {
    transport: Transport,
    /// What is the same in every message.
    common: Map<String, Value>,
    frame: Vec<u8>,
    at_hand: bool,
    names: RandomState,
    named: u64,
}

enum Transport {
    Udp { datagrams: Datagrams, compression: GelfCompression, level: u32 },
    Tcp { connection: Connection, max_reconnect: Option<u32>, delay: Duration },
}

impl Gelf {
    /// Connects.
    ///
    /// # Errors
    /// There is no server, in words.
    pub fn open(config: &LoggerConfig, options: &GelfOptions) -> Result<Self, String> {
        let (host, port) = (&options.host, options.port);
        let named = |error: &dyn std::fmt::Display| {
            format!("gelf: cannot connect to GELF endpoint: {host}:{port} {error}")
        };
        let transport = match &options.transport {
            GelfTransport::Udp { compression, level } => Transport::Udp {
                datagrams: Datagrams::udp(host, port).map_err(|error| named(&error))?,
                compression: *compression,
                level: *level,
            },
            GelfTransport::Tcp { max_reconnect, reconnect_delay } => {
                let address = ServerAddress::Tcp(host.clone(), port);
                let mut connection = Connection::new(address, &TlsFiles::default(), None)?;
                connection.connect().map_err(|error| named(&error))?;
                Transport::Tcp { connection, max_reconnect: *max_reconnect, delay: *reconnect_delay }
            }
        };
        Ok(Self {
            transport,
            common: common(config),
            frame: Vec::new(),
            at_hand: false,
            names: RandomState::new(),
            named: 0,
        })
    }

    fn format(&mut self, message: &Message<'_>) -> io::Result<()> {
        let since = message.time.duration_since(UNIX_EPOCH).unwrap_or_default();
        let level = match message.stream {
            LogStream::Stdout => 6,
            LogStream::Stderr => 3,
        };
        let mut all = self.common.clone();
        all.insert("short_message".to_owned(), json!(String::from_utf8_lossy(message.line)));
        // To the millisecond, as Docker.
        all.insert("timestamp".to_owned(), json!(since.as_millis() as f64 / 1000.0));
        all.insert("level".to_owned(), json!(level));
        let text = serde_json::to_vec(&all)?;
        self.frame.clear();
        match &self.transport {
            Transport::Tcp { .. } => {
                self.frame.extend_from_slice(&text);
                self.frame.push(0);
            }
            Transport::Udp { compression, level, .. } => {
                let (out, level) = (std::mem::take(&mut self.frame), Compression::new(*level));
                self.frame = match compression {
                    GelfCompression::Gzip => {
                        let mut encoder = GzEncoder::new(out, level);
                        encoder.write_all(&text)?;
                        encoder.finish()?
                    }
                    GelfCompression::Zlib => {
                        let mut encoder = ZlibEncoder::new(out, level);
                        encoder.write_all(&text)?;
                        encoder.finish()?
                    }
                    GelfCompression::None => text,
                };
            }
        }
        Ok(())
    }

    fn send(&mut self) -> Result<(), NotTaken> {
        let sent = match &mut self.transport {
            Transport::Tcp { connection, .. } => connection.send(&self.frame),
            Transport::Udp { datagrams, .. } if self.frame.len() <= DATAGRAM_MAX => {
                datagrams.send(&self.frame)
            }
            Transport::Udp { datagrams, .. } => {
                self.named += 1;
                let id = self.names.hash_one(self.named).to_be_bytes();
                send_chunks(datagrams, id, &self.frame)?
            }
        };
        sent.map_err(|error| match error.kind() {
            ErrorKind::WouldBlock => NotTaken::Slow,
            _ => NotTaken::Retry(error.to_string()),
        })
    }
}

fn send_chunks(datagrams: &mut Datagrams, id: [u8; 8], frame: &[u8]) -> Result<io::Result<()>, NotTaken> {
    let chunks = frame.chunks(DATAGRAM_MAX - CHUNK_HEAD);
    let count = u8::try_from(chunks.len()).ok().filter(|count| usize::from(*count) <= CHUNKS_MAX);
    let Some(count) = count else {
        return Err(NotTaken::dropped(format!("{} bytes are more than {CHUNKS_MAX} chunks", frame.len())));
    };
    for (number, chunk) in (0..count).zip(chunks) {
        let mut datagram = vec![0x1e, 0x0f];
        datagram.extend(id);
        datagram.extend([number, count]);
        datagram.extend_from_slice(chunk);
        if let Err(error) = datagrams.send(&datagram) {
            return Ok(Err(error));
        }
    }
    Ok(Ok(()))
}

fn common(config: &LoggerConfig) -> Map<String, Value> {
    let container = &config.container;
    let hostname = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
    let created = UNIX_EPOCH + Duration::from_millis(container.created_ms);
    let mut all = Map::new();
    let mut put = |name: &str, value: &str| all.insert(name.to_owned(), json!(value));
    put("version", "1.1");
    put("host", hostname.as_deref().unwrap_or("localhost"));
    put("_container_id", &container.id);
    put("_container_name", &container.name);
    put("_image_id", &container.image_id);
    put("_image_name", &container.image_name);
    put("_command", &container.command);
    put("_tag", &config.tag);
    put("_created", &rfc3339(created, 3));
    for (name, value) in &config.attributes {
        match name.starts_with('_') {
            true => put(name, value),
            false => put(&format!("_{name}"), value),
        };
    }
    all
}

impl Driver for Gelf {
    fn write(&mut self, message: &Message<'_>) -> Result<(), NotTaken> {
        // A message without a text is none to GELF.
        if message.line.is_empty() {
            return Ok(());
        }
        if !self.at_hand {
            self.format(message).map_err(|error| NotTaken::dropped(error.to_string()))?;
            self.at_hand = true;
        }
        let sent = self.send();
        self.at_hand = matches!(sent, Err(NotTaken::Slow | NotTaken::Retry(_)));
        sent
    }

    fn pause(&self, failures: u32) -> Duration {
        match &self.transport {
            Transport::Tcp { delay, .. } => *delay,
            Transport::Udp { .. } => Duration::from_millis(100 << failures.min(6)),
        }
    }

    fn gives_up_after(&self) -> Option<u32> {
        match &self.transport {
            Transport::Tcp { max_reconnect, .. } => *max_reconnect,
            // Who cares for every message takes TCP. This one must not hold up the next.
            Transport::Udp { .. } => Some(1),
        }
    }

    fn given_up(&mut self) {
        self.at_hand = false;
        if let Transport::Tcp { connection, .. } = &mut self.transport
            && connection.is_amid()
        {
            connection.close();
        }
    }
}
