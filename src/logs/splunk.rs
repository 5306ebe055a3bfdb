//! The driver `splunk`: an HTTP event collector, with dockerd's options, forms of events and limits
//! (spec/task-engine.md 7.2): batches of 1000 messages or 5 seconds. While Splunk takes none, up to ten
//! batches are kept, and the oldest is dropped, and counted, for a newer one. The token reaches no error.

use super::config::LoggerConfig;
use super::driver::{Driver, Message, NotTaken};
use super::http::{Client, Request};
use crate::model::logging::{SplunkFormat, SplunkOptions};
use crate::reach::tls::Trust;
use flate2::Compression;
use flate2::write::GzEncoder;
use serde::Serialize;
use serde::de::IgnoredAny;
use std::collections::{BTreeMap, VecDeque};
use std::io::Write;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Where a collector takes events.
const PATH: &str = "/services/collector/event/1.0";
/// Between batches that are not full.
const INTERVAL: Duration = Duration::from_secs(5);
/// Messages of a batch.
const BATCH_MESSAGES: u64 = 1000;
/// Bytes of a batch; long lines make smaller ones.
const BATCH_BYTES: usize = 1024 * 1024;
/// Full batches that are kept while none can be sent.
const BATCHES_KEPT: usize = 10;
/// Between two tries at the end.
const LAST_TRIES: Duration = Duration::from_millis(500);

/// Events that are sent together.
#[derive(Debug, Default)]
struct Batch {
    body: Vec<u8>,
    messages: u64,
}

impl Batch {
    fn is_full(&self) -> bool {
        self.messages >= BATCH_MESSAGES || self.body.len() >= BATCH_BYTES
    }
}

/// Why a batch was not taken.
enum Refusal {
    /// Time may heal it.
    Again(String),
    /// Splunk will never take it.
    Never(String),
}

/// A collector.
#[derive(Debug)]
pub struct Splunk {
    client: Client,
    options: SplunkOptions,
    /// What is the same in all events.
    common: Common,
    full: VecDeque<Batch>,
    open: Batch,
    /// When what is kept is to be sent.
    due: Option<Instant>,
    lost: u64,
    why: String,
}

#[derive(Debug)]
struct Common {
    host: String,
    tag: String,
    attributes: BTreeMap<String, String>,
    channel: String,
}

/// What stands behind the event itself.
#[derive(Serialize)]
struct Envelope<'a> {
    time: String,
    host: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sourcetype: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    index: Option<&'a str>,
}

/// What stands behind the line of an event that is an object.
#[derive(Serialize)]
struct Rest<'a> {
    source: super::record::LogStream,
    #[serde(skip_serializing_if = "str::is_empty")]
    tag: &'a str,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    attrs: &'a BTreeMap<String, String>,
}

impl Splunk {
    /// Asks the collector, unless the options say otherwise.
    ///
    /// # Errors
    /// In dockerd's words, for the container's start.
    pub fn open(options: &SplunkOptions, config: &LoggerConfig) -> Result<Self, String> {
        let environment = &config.host.environment;
        let pem = match &options.ca_path {
            Some(path) => Some(
                std::fs::read(path).map_err(|error| format!("splunk: open {}: {error}", path.display()))?,
            ),
            None => None,
        };
        let client = match (&pem, options.insecure) {
            (_, true) => Client::trusting(&options.url, Trust::Anyone, environment),
            (Some(pem), _) => Client::trusting(&options.url, Trust::Pem(pem), environment),
            (None, _) => Client::new(&options.url, environment),
        };
        let client = client.map_err(|error| format!("splunk: {error}"))?;
        let client = match &options.ca_name {
            Some(name) => client.named(name.clone()),
            None => client,
        };
        let host = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
        // A tag that is empty, and not just not there, is none.
        let untagged = config.settings.options.get("tag") == Some("");
        let common = Common {
            host: host.ok_or("splunk: cannot access hostname to set source field")?,
            tag: if untagged { String::new() } else { config.tag.clone() },
            attributes: config.attributes.clone(),
            channel: uuid::Uuid::new_v4().to_string(),
        };
        let mut opened = Self {
            client,
            options: options.clone(),
            common,
            full: VecDeque::new(),
            open: Batch::default(),
            due: None,
            lost: 0,
            why: String::new(),
        };
        if options.verify {
            opened.verify()?;
        }
        Ok(opened)
    }

    fn verify(&mut self) -> Result<(), String> {
        let request = Request { method: "OPTIONS", path: PATH, headers: &[], body: b"" };
        let answer = self.client.send(&request).map_err(|error| format!("splunk: {error}"))?;
        match answer.status {
            200 => Ok(()),
            status => {
                let words: String = String::from_utf8_lossy(&answer.body).chars().take(512).collect();
                Err(format!("splunk: failed to verify connection - {status} {} - {words}", answer.reason))
            }
        }
    }

    fn post(&mut self, batch: &Batch) -> Result<(), Refusal> {
        let zipped = match self.options.gzip {
            Some(level) => Some(gzip(&batch.body, level).map_err(|error| Refusal::Never(error.to_string()))?),
            None => None,
        };
        let authorization = format!("Splunk {}", self.options.token.get());
        let mut headers = vec![("Authorization", authorization.as_str())];
        if zipped.is_some() {
            headers.push(("Content-Encoding", "gzip"));
        }
        if self.options.index_acknowledgment {
            headers.push(("X-Splunk-Request-Channel", self.common.channel.as_str()));
        }
        let body = zipped.as_ref().unwrap_or(&batch.body);
        let request = Request { method: "POST", path: PATH, headers: &headers, body };
        let answer = self.client.send(&request).map_err(|error| Refusal::Again(error.to_string()))?;
        if answer.status == 200 {
            return Ok(());
        }
        let words: String = String::from_utf8_lossy(&answer.body).chars().take(512).collect();
        let why = format!("splunk: failed to send event - {} {} - {words}", answer.status, answer.reason);
        match answer.status {
            408 | 429 | 500.. => Err(Refusal::Again(why)),
            _ => Err(Refusal::Never(why)),
        }
    }

    /// Sends full batches, the oldest first, until one is not taken.
    fn post_full(&mut self) {
        while let Some(batch) = self.full.pop_front() {
            match self.post(&batch) {
                Ok(()) => {}
                Err(Refusal::Never(why)) => self.lose(&batch, why),
                Err(Refusal::Again(why)) => {
                    self.full.push_front(batch);
                    while self.full.len() > BATCHES_KEPT
                        && let Some(oldest) = self.full.pop_front()
                    {
                        self.lose(&oldest, why.clone());
                    }
                    return;
                }
            }
        }
    }

    fn close_batch(&mut self) {
        if self.open.messages > 0 {
            self.full.push_back(std::mem::take(&mut self.open));
        }
    }

    fn lose(&mut self, batch: &Batch, why: String) {
        self.lost += batch.messages;
        self.why = why;
    }

    /// Tells what was lost since it was told last.
    fn tell(&mut self) -> Result<(), NotTaken> {
        match std::mem::take(&mut self.lost) {
            0 => Ok(()),
            messages => Err(NotTaken::Dropped { messages, why: std::mem::take(&mut self.why) }),
        }
    }

    /// Writes an event behind those of the batch.
    fn encode(&mut self, message: &Message<'_>) -> Result<(), serde_json::Error> {
        let (options, common, body) = (&self.options, &self.common, &mut self.open.body);
        body.extend_from_slice(b"{\"event\":");
        let line = String::from_utf8_lossy(message.line);
        if options.format == SplunkFormat::Raw {
            let mut text = String::new();
            let pairs = common.attributes.iter().map(|(name, value)| format!("{name}={value} "));
            let tag = Some(&common.tag).filter(|tag| !tag.is_empty()).map(|tag| format!("{tag} "));
            text.extend(tag.into_iter().chain(pairs));
            text.push_str(&line);
            serde_json::to_writer(&mut *body, &text)?;
        } else {
            body.extend_from_slice(b"{\"line\":");
            let is_json = options.format == SplunkFormat::Json
                && serde_json::from_slice::<IgnoredAny>(message.line).is_ok();
            match is_json {
                true => body.extend_from_slice(message.line),
                false => serde_json::to_writer(&mut *body, &line)?,
            }
            let rest = Rest { source: message.stream, tag: &common.tag, attrs: &common.attributes };
            splice(body, &rest)?;
        }
        splice(
            body,
            &Envelope {
                time: seconds(message.time),
                host: &common.host,
                source: options.source.as_deref(),
                sourcetype: options.source_type.as_deref(),
                index: options.index.as_deref(),
            },
        )
    }
}

/// Writes the members of an object behind those of one that is still open, and closes it.
fn splice(body: &mut Vec<u8>, members: &impl Serialize) -> Result<(), serde_json::Error> {
    let start = body.len();
    serde_json::to_writer(&mut *body, members)?;
    if let Some(brace) = body.get_mut(start) {
        *brace = b',';
    }
    Ok(())
}

/// Go's `%f`.
fn seconds(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    format!("{}.{:06}", since.as_secs(), since.subsec_micros())
}

fn gzip(body: &[u8], level: u32) -> std::io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::new(level));
    encoder.write_all(body)?;
    encoder.finish()
}

impl Driver for Splunk {
    fn write(&mut self, message: &Message<'_>) -> Result<(), NotTaken> {
        // The collector takes no raw event of nothing.
        if self.options.format == SplunkFormat::Raw && message.line.trim_ascii().is_empty() {
            return Ok(());
        }
        let before = self.open.body.len();
        if let Err(error) = self.encode(message) {
            self.open.body.truncate(before);
            return Err(NotTaken::dropped(error.to_string()));
        }
        self.open.messages += 1;
        self.due.get_or_insert_with(|| Instant::now() + INTERVAL);
        if self.open.is_full() {
            self.close_batch();
            self.post_full();
        }
        self.tell()
    }

    fn due(&self) -> Option<Instant> {
        self.due
    }

    fn flush(&mut self) -> Result<(), NotTaken> {
        self.close_batch();
        self.post_full();
        self.due = (!self.full.is_empty()).then(|| Instant::now() + INTERVAL);
        self.tell()
    }

    fn finish(&mut self, deadline: Instant) -> u64 {
        self.close_batch();
        loop {
            self.post_full();
            let left = deadline.saturating_duration_since(Instant::now());
            if self.full.is_empty() || left.is_zero() {
                return self.lost + self.kept();
            }
            std::thread::sleep(LAST_TRIES.min(left));
        }
    }

    fn kept(&self) -> u64 {
        self.open.messages + self.full.iter().map(|batch| batch.messages).sum::<u64>()
    }
}
