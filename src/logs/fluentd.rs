//! The driver `fluentd`: the forward protocol's message mode, `[tag, time, record]`, over TCP, TLS or a
//! unix socket. The record's names are Docker's; FireLens filters rely on them.

use super::config::LoggerConfig;
use super::conn::Connection;
use super::driver::{Driver, Message, NotTaken};
use super::msgpack::{Found, Packer, find_text};
use super::record::LogStream;
use super::tls::TlsFiles;
use crate::model::logging::FluentdOptions;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::io::{self, ErrorKind};
use std::time::{Duration, UNIX_EPOCH};

/// The longest pause between tries: the server may be back any time.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// An acknowledgement that takes longer does not come.
const ACK_LIMIT: Duration = Duration::from_secs(60);
/// More than an acknowledgement takes.
const ACK_MAX: usize = 256;

/// The driver.
pub struct Fluentd {
    options: FluentdOptions,
    connection: Connection,
    tag: String,
    /// What is the same in every record.
    common: BTreeMap<String, String>,
    /// The record at hand: it stays the same while it is tried again.
    frame: Vec<u8>,
    pending: Option<Pending>,
    names: RandomState,
    named: u64,
}

/// A record that is on its way.
enum Pending {
    Unsent { chunk: Option<String> },
    Unacknowledged { chunk: String, seen: Vec<u8>, waited: Duration },
}

impl Fluentd {
    /// Connects, where it is not asynchronous.
    ///
    /// # Errors
    /// There is no server, in words.
    pub fn open(config: &LoggerConfig, options: &FluentdOptions) -> Result<Self, String> {
        let tls = TlsFiles::default();
        let mut connection = Connection::new(options.address.clone(), &tls, options.write_timeout)?;
        if !options.asynchronous {
            connection.connect().map_err(|error| error.to_string())?;
        }
        let mut common = BTreeMap::from([
            ("container_id".to_owned(), config.container.id.clone()),
            ("container_name".to_owned(), format!("/{}", config.container.name)),
        ]);
        common.extend(config.attributes.clone());
        Ok(Self {
            options: options.clone(),
            connection,
            tag: config.tag.clone(),
            common,
            frame: Vec::new(),
            pending: None,
            names: RandomState::new(),
            named: 0,
        })
    }

    fn pack(&mut self, message: &Message<'_>, chunk: Option<&str>) {
        self.frame.clear();
        let mut packer = Packer(std::mem::take(&mut self.frame));
        packer.array(if chunk.is_some() { 4 } else { 3 });
        packer.text(self.tag.as_bytes());
        let since = message.time.duration_since(UNIX_EPOCH).unwrap_or_default();
        match (self.options.sub_second_precision, u32::try_from(since.as_secs())) {
            (true, Ok(seconds)) => packer.event_time(seconds, since.subsec_nanos()),
            _ => packer.number(since.as_secs()),
        }
        let source = match message.stream {
            LogStream::Stdout => "stdout",
            LogStream::Stderr => "stderr",
        };
        // As in Docker, what is chosen may hide what is there anyway.
        let given = |name: &str| self.common.contains_key(name);
        let own: [(&str, &[u8]); 2] = [("source", source.as_bytes()), ("log", message.line)];
        let own: Vec<_> = own.into_iter().filter(|(name, _)| !given(name)).collect();
        packer.map(self.common.len() + own.len() + if message.partial.is_some() { 4 } else { 0 });
        for (name, value) in &self.common {
            packer.text(name.as_bytes());
            packer.text(value.as_bytes());
        }
        for (name, value) in own {
            packer.text(name.as_bytes());
            packer.text(value);
        }
        if let Some(partial) = message.partial {
            let pairs = [
                ("partial_message", "true".to_owned()),
                ("partial_id", format!("{:016x}", partial.id)),
                ("partial_ordinal", partial.ordinal.to_string()),
                ("partial_last", partial.last.to_string()),
            ];
            for (name, value) in pairs {
                packer.text(name.as_bytes());
                packer.text(value.as_bytes());
            }
        }
        if let Some(chunk) = chunk {
            packer.map(1);
            packer.text(b"chunk");
            packer.text(chunk.as_bytes());
        }
        self.frame = packer.0;
    }

    /// A name that no other record has.
    fn chunk(&mut self) -> String {
        self.named += 1;
        let halves = [self.names.hash_one(self.named), self.names.hash_one((self.named, "second"))];
        STANDARD.encode(halves.map(u64::to_be_bytes).concat())
    }

    fn attempt(&mut self) -> io::Result<()> {
        loop {
            match &mut self.pending {
                None => return Ok(()),
                Some(Pending::Unsent { chunk }) => {
                    self.connection.send(&self.frame)?;
                    let waited = Duration::ZERO;
                    let chunk = chunk.take();
                    self.pending =
                        chunk.map(|chunk| Pending::Unacknowledged { chunk, seen: Vec::new(), waited });
                }
                Some(Pending::Unacknowledged { chunk, seen, waited }) => {
                    let mut buffer = [0; ACK_MAX];
                    let count = match self.connection.receive(&mut buffer) {
                        Err(error) if error.kind() == ErrorKind::WouldBlock => {
                            *waited += Duration::from_secs(1);
                            let over = *waited >= ACK_LIMIT;
                            return Err(if over { ErrorKind::TimedOut.into() } else { error });
                        }
                        other => other?,
                    };
                    seen.extend_from_slice(buffer.get(..count).unwrap_or_default());
                    match find_text(seen, b"ack") {
                        Found::Text(ack) if ack == chunk.as_bytes() => self.pending = None,
                        Found::Incomplete if seen.len() < ACK_MAX => {}
                        _ => return Err(io::Error::other("the server acknowledged another record")),
                    }
                }
            }
        }
    }
}

impl Driver for Fluentd {
    fn write(&mut self, message: &Message<'_>) -> Result<(), NotTaken> {
        if self.pending.is_none() {
            let chunk = self.options.request_ack.then(|| self.chunk());
            self.pack(message, chunk.as_deref());
            self.pending = Some(Pending::Unsent { chunk });
        }
        let interval = self.options.reconnect_interval.filter(|_| self.options.asynchronous);
        let is_old = interval.is_some_and(|most| self.connection.age().is_some_and(|age| age > most));
        if is_old && matches!(self.pending, Some(Pending::Unsent { .. })) && !self.connection.is_amid() {
            self.connection.close();
        }
        self.attempt().map_err(|error| {
            if error.kind() == ErrorKind::WouldBlock {
                return NotTaken::Slow;
            }
            // On a new connection all is sent again.
            self.connection.close();
            if let Some(Pending::Unacknowledged { chunk, .. }) = &mut self.pending {
                self.pending = Some(Pending::Unsent { chunk: Some(std::mem::take(chunk)) });
            }
            NotTaken::Retry(error.to_string())
        })
    }

    fn pause(&self, failures: u32) -> Duration {
        let factor = 1.5_f64.powi(i32::try_from(failures.min(32)).unwrap_or(32));
        Duration::try_from_secs_f64(self.options.retry_wait.as_secs_f64() * factor)
            .map_or(LONGEST_PAUSE, |pause| pause.min(LONGEST_PAUSE))
    }

    fn gives_up_after(&self) -> Option<u32> {
        Some(self.options.max_retries).filter(|most| *most < u32::MAX)
    }

    fn given_up(&mut self) {
        self.pending = None;
        if self.connection.is_amid() {
            self.connection.close();
        }
    }
}
