//! The driver `awslogs`: CloudWatch Logs, with dockerd's options and words (spec/task-engine.md 7.2).
//!
//! ```text
//!   message ─ Assembler ─> ready ─ Batch ─ LogsApi: PutLogEvents
//!             (multiline)  (few)   (1 MiB)     └ CreateLogStream, CreateLogGroup at the start
//! ```
//!
//! Nothing is lost while CloudWatch throttles, fails or can't be reached: a batch stays until it was
//! taken or refused for good, and no message is taken meanwhile. What is refused for good, and events
//! that are too old or too new, are counted.

mod api;
mod assemble;
mod batch;
mod credentials;

use super::config::LoggerConfig;
use super::driver::{Driver, Message, NotTaken};
use super::http::Client;
use crate::model::Delivery;
use crate::model::logging::{AwsLogsOptions, LogHost};
use api::{CallError, LogsApi, Remedy};
use assemble::Assembler;
use batch::{Batch, Event};
use credentials::CredentialsSource;
use regex_lite::Regex;
use serde::Deserialize;
use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use url::Url;

/// Attempts to create the stream while the container's start waits for it.
const START_ATTEMPTS: u32 = 4;
/// First and longest pause after a failure.
const PAUSES: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(20));

/// One stream of CloudWatch Logs.
#[derive(Debug)]
pub struct AwsLogs {
    api: LogsApi,
    group: String,
    stream: String,
    create_group: bool,
    create_stream: bool,
    interval: Duration,
    assembler: Assembler,
    /// Events that did not fit into the batch; of one message at the most.
    ready: VecDeque<Event>,
    batch: Batch,
    /// Since when something has been kept.
    kept_since: Option<Instant>,
    /// The stream is there.
    created: bool,
    sequence_token: Option<String>,
    /// Lost, and not told yet.
    lost: u64,
    why: String,
}

/// Which events were not taken, by index; the ends are exclusive.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Rejected {
    too_new_log_event_start_index: Option<usize>,
    too_old_log_event_end_index: Option<usize>,
    expired_log_event_end_index: Option<usize>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Put {
    next_sequence_token: Option<String>,
    rejected_log_events_info: Option<Rejected>,
}

impl AwsLogs {
    /// Creates the stream, unless the delivery is non-blocking: then that waits for the first flush,
    /// as dockerd has it done in the background.
    ///
    /// # Errors
    /// In dockerd's words, for the container's start.
    pub fn open(options: &AwsLogsOptions, config: &LoggerConfig) -> Result<Self, String> {
        let LogHost { environment, credentials_endpoint, region, dual_stack } = &config.host;
        let region = options.region.clone().or_else(|| Some(region.clone()).filter(|r| !r.is_empty()));
        let region = region.ok_or("Cannot determine region for awslogs driver")?;
        let endpoint = options.endpoint.clone().unwrap_or_else(|| endpoint(&region, *dual_stack));
        let url = |text: &str, option| {
            Url::parse(text).map_err(|error| format!("awslogs: {option} is no URL: {error}"))
        };
        let client = Client::new(&url(&endpoint, "awslogs-endpoint")?, environment);
        let client = client.map_err(|error| format!("awslogs: {error}"))?;
        let credentials = match &options.credentials_path {
            Some(path) => {
                let base = url(credentials_endpoint, "the agent's credentials endpoint")?;
                CredentialsSource::endpoint(&base, path, environment)
                    .map_err(|error| format!("awslogs: {error}"))?
            }
            None => CredentialsSource::host(environment.clone()),
        };
        let pattern = options.multiline_pattern.as_deref().map(Regex::new).transpose();
        let pattern =
            pattern.map_err(|error| format!("awslogs could not parse multiline pattern key: {error}"))?;
        let format = options.emf.then_some("json/emf");
        let mut opened = Self {
            api: LogsApi::new(client, credentials, region, format),
            group: options.group.clone(),
            stream: options.stream.clone().unwrap_or_else(|| config.tag.clone()),
            create_group: options.create_group,
            create_stream: options.create_stream,
            interval: options.flush_interval,
            assembler: Assembler::new(pattern),
            ready: VecDeque::new(),
            batch: Batch::default(),
            kept_since: None,
            created: false,
            sequence_token: None,
            lost: 0,
            why: String::new(),
        };
        if config.settings.delivery == Delivery::Blocking {
            opened.create_within(START_ATTEMPTS)?;
        }
        Ok(opened)
    }

    fn create_within(&mut self, attempts: u32) -> Result<(), String> {
        for attempt in 1.. {
            let Err((doing, error)) = self.create() else { break };
            let heals = matches!(error.remedy(), Remedy::Again | Remedy::OtherCredentials);
            if attempt >= attempts || !heals {
                return Err(format!("failed to create Cloudwatch log {doing}: {error}"));
            }
            std::thread::sleep(self.pause(attempt));
        }
        Ok(())
    }

    /// Creates the stream, and the group where that is missing and wanted. What is there is fine.
    fn create(&mut self) -> Result<(), (&'static str, Box<CallError>)> {
        if self.create_stream {
            let stream = serde_json::json!({ "logGroupName": self.group, "logStreamName": self.stream });
            match self.ensure("CreateLogStream", &stream) {
                Err(error) if self.create_group && error.remedy() == Remedy::Create => {
                    let group = serde_json::json!({ "logGroupName": self.group });
                    self.ensure("CreateLogGroup", &group).map_err(|error| ("group", Box::new(error)))?;
                    self.ensure("CreateLogStream", &stream)
                }
                answer => answer,
            }
            .map_err(|error| ("stream", Box::new(error)))?;
        }
        self.created = true;
        Ok(())
    }

    fn ensure(&mut self, operation: &'static str, request: &serde_json::Value) -> Result<(), CallError> {
        match self.api.call(operation, request.to_string().as_bytes()) {
            Err(error) if error.remedy() != Remedy::Done => Err(error),
            _ => Ok(()),
        }
    }

    /// Brings what is ready into the batch, and sends that whenever it is full.
    fn settle(&mut self) -> Result<(), NotTaken> {
        while let Some(event) = self.ready.pop_front() {
            if let Err(event) = self.batch.put(event) {
                self.ready.push_front(event);
                self.send()?;
            }
        }
        Ok(())
    }

    /// Sends the batch; `Retry` keeps it.
    fn send(&mut self) -> Result<(), NotTaken> {
        if self.batch.is_empty() {
            return Ok(());
        }
        if !self.created {
            self.create().map_err(|(doing, error)| {
                NotTaken::Retry(format!("failed to create Cloudwatch log {doing}: {error}"))
            })?;
        }
        let token = self.sequence_token.as_deref();
        let request = match self.batch.request(&self.group, &self.stream, token) {
            Ok(request) => request,
            Err(error) => {
                self.lose(error.to_string());
                return Ok(());
            }
        };
        let error = match self.api.call("PutLogEvents", &request) {
            Ok(body) => {
                self.taken(&body);
                return Ok(());
            }
            Err(error) => error,
        };
        match (error.remedy(), error) {
            (Remedy::Done, _) => {
                self.batch.clear();
                Ok(())
            }
            (Remedy::Token, CallError::Refused { expected_token, .. }) => {
                self.sequence_token = expected_token;
                Err(NotTaken::Retry("the stream wants another sequence token".to_owned()))
            }
            // Removed behind our back. Where it may not be created it is not waited for.
            (Remedy::Create, _) if self.create_stream => {
                self.created = false;
                Err(NotTaken::Retry("the log stream is gone".to_owned()))
            }
            (Remedy::Again | Remedy::OtherCredentials, error) => Err(NotTaken::Retry(error.to_string())),
            (_, error) => {
                self.lose(error.to_string());
                Ok(())
            }
        }
    }

    fn taken(&mut self, body: &[u8]) {
        // Any success is one: an answer that can't be read rejects nothing.
        let put: Put = serde_json::from_slice(body).unwrap_or_default();
        self.sequence_token = put.next_sequence_token;
        if let Some(rejected) = put.rejected_log_events_info {
            let count = self.batch.len();
            let old = rejected.too_old_log_event_end_index.max(rejected.expired_log_event_end_index);
            let new = rejected.too_new_log_event_start_index.unwrap_or(count);
            let lost = old.unwrap_or(0).min(count) + count.saturating_sub(new);
            self.lost += lost.min(count) as u64;
            self.why = "CloudWatch Logs rejected events as too old or too new".to_owned();
        }
        self.batch.clear();
    }

    fn lose(&mut self, why: String) {
        self.lost += self.batch.len() as u64;
        self.why = why;
        self.batch.clear();
    }

    /// Tells what was lost since it was told last.
    fn tell(&mut self) -> Result<(), NotTaken> {
        match std::mem::take(&mut self.lost) {
            0 => Ok(()),
            messages => Err(NotTaken::Dropped { messages, why: std::mem::take(&mut self.why) }),
        }
    }

    fn send_all(&mut self) -> Result<(), NotTaken> {
        self.settle()?;
        self.send()?;
        self.kept_since = (!self.assembler.is_empty()).then(Instant::now);
        self.tell()
    }
}

impl Driver for AwsLogs {
    fn write(&mut self, message: &Message<'_>) -> Result<(), NotTaken> {
        self.settle()?;
        let at = milliseconds(message.time);
        let ready = &mut self.ready;
        self.assembler.push(at, message.line, message.ends, |event| ready.push_back(event));
        self.kept_since.get_or_insert_with(Instant::now);
        // The message is taken, whether or not there is room for more.
        let _ = self.settle();
        self.tell()
    }

    fn due(&self) -> Option<Instant> {
        self.kept_since.map(|since| since + self.interval)
    }

    fn flush(&mut self) -> Result<(), NotTaken> {
        let ready = &mut self.ready;
        let before =
            milliseconds(SystemTime::now()).saturating_sub_unsigned(self.interval.as_millis() as u64);
        self.assembler.expire(before, |event| ready.push_back(event));
        self.send_all()
    }

    fn pause(&self, failures: u32) -> Duration {
        let doubled = PAUSES.0.saturating_mul(1 << failures.min(16)).min(PAUSES.1);
        // Loggers that failed together do not come back together.
        let chance = RandomState::new().hash_one(()) % 1000;
        doubled.mul_f64(0.5 + chance as f64 / 2000.0)
    }

    fn finish(&mut self, deadline: Instant) -> u64 {
        let ready = &mut self.ready;
        self.assembler.finish(|event| ready.push_back(event));
        let mut lost = 0;
        for failures in 0.. {
            match self.send_all() {
                Ok(()) => return lost,
                Err(NotTaken::Dropped { messages, .. }) => lost += messages,
                Err(NotTaken::Slow | NotTaken::Retry(_)) => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        break;
                    }
                    std::thread::sleep(self.pause(failures).min(left));
                }
            }
        }
        lost + self.lost + self.kept()
    }

    fn kept(&self) -> u64 {
        (self.batch.len() + self.ready.len() + usize::from(!self.assembler.is_empty())) as u64
    }
}

fn milliseconds(time: SystemTime) -> i64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// CloudWatch Logs of a region, in the partition that its name tells.
fn endpoint(region: &str, dual_stack: bool) -> String {
    let (suffix, dual_suffix) = match region.split('-').next() {
        Some("cn") => ("amazonaws.com.cn", "api.amazonwebservices.com.cn"),
        _ if region.starts_with("us-isob-") => ("sc2s.sgov.gov", "sc2s.sgov.gov"),
        _ if region.starts_with("us-isof-") => ("csp.hci.ic.gov", "csp.hci.ic.gov"),
        _ if region.starts_with("eu-isoe-") => ("cloud.adc-e.uk", "cloud.adc-e.uk"),
        _ if region.starts_with("us-iso-") => ("c2s.ic.gov", "c2s.ic.gov"),
        _ => ("amazonaws.com", "api.aws"),
    };
    format!("https://logs.{region}.{}", if dual_stack { dual_suffix } else { suffix })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_partition_has_its_endpoint() {
        assert_eq!(endpoint("us-west-2", false), "https://logs.us-west-2.amazonaws.com");
        assert_eq!(endpoint("us-west-2", true), "https://logs.us-west-2.api.aws");
        assert_eq!(endpoint("cn-north-1", false), "https://logs.cn-north-1.amazonaws.com.cn");
        assert_eq!(endpoint("us-isob-east-1", false), "https://logs.us-isob-east-1.sc2s.sgov.gov");
    }
}
