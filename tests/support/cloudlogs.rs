//! CloudWatch Logs as its documents describe it: signatures, limits, groups and streams, and failures on
//! demand. It judges by itself and shares nothing with the driver. The same server answers for the
//! credentials endpoint of an agent and for IMDS.

use super::http::{Reply, Request, serve};
use super::sigv4;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

const PATIENCE: Duration = Duration::from_secs(60);
/// What the credentials endpoint and IMDS give as a session token.
pub const TOKEN: &str = "session-token";
/// The credentials id that the endpoint knows.
pub const CREDENTIALS_PATH: &str = "/v2/credentials/role-1";

/// A failure on demand.
#[derive(Debug, Clone)]
pub enum Trouble {
    Refuse(u16, &'static str, &'static str),
    /// The connection is cut after the request was read; nothing was done.
    Cut,
    /// Done, and then cut.
    DoneAndCut,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    pub operation: String,
    pub session_token: Option<String>,
    pub format: Option<String>,
}

#[derive(Default)]
struct State {
    groups: BTreeSet<String>,
    streams: BTreeMap<(String, String), Vec<(i64, String)>>,
    /// Numbers of events of each batch that was taken.
    batches: Vec<usize>,
    calls: Vec<Seen>,
    trouble: VecDeque<(Option<&'static str>, Trouble)>,
    /// All calls fail.
    down: bool,
    /// PutLogEvents wants this token.
    token: Option<u64>,
    /// The next batch's `rejectedLogEventsInfo`.
    reject: Option<Value>,
    violations: Vec<String>,
    credentials_asked: u32,
}

/// The server.
pub struct CloudLogs {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
}

impl CloudLogs {
    pub fn start() -> Self {
        let state: Arc<Mutex<State>> = Arc::default();
        let shared = Arc::clone(&state);
        let address = serve(None, move |request| shared.lock().unwrap().answer(request));
        Self { address, state }
    }

    pub fn with_group(group: &str) -> Self {
        let server = Self::start();
        server.state.lock().unwrap().groups.insert(group.to_owned());
        server
    }

    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The next call of the operation (any, where none is named) meets this.
    pub fn trouble(&self, operation: Option<&'static str>, trouble: Trouble) {
        self.state.lock().unwrap().trouble.push_back((operation, trouble));
    }

    pub fn set_down(&self, down: bool) {
        self.state.lock().unwrap().down = down;
    }

    pub fn want_tokens(&self) {
        self.state.lock().unwrap().token = Some(7);
    }

    pub fn reject(&self, info: Value) {
        self.state.lock().unwrap().reject = Some(info);
    }

    /// Someone removes a stream.
    pub fn remove_stream(&self, group: &str, stream: &str) {
        self.state.lock().unwrap().streams.remove(&(group.to_owned(), stream.to_owned()));
    }

    pub fn calls(&self) -> Vec<Seen> {
        self.state.lock().unwrap().calls.clone()
    }

    pub fn batches(&self) -> Vec<usize> {
        self.state.lock().unwrap().batches.clone()
    }

    pub fn credentials_asked(&self) -> u32 {
        self.state.lock().unwrap().credentials_asked
    }

    pub fn has_stream(&self, group: &str, stream: &str) -> bool {
        self.state.lock().unwrap().streams.contains_key(&(group.to_owned(), stream.to_owned()))
    }

    /// The texts of a stream, in the order in which they were taken.
    pub fn texts(&self, group: &str, stream: &str) -> Vec<String> {
        let state = self.state.lock().unwrap();
        let events = state.streams.get(&(group.to_owned(), stream.to_owned()));
        events.into_iter().flatten().map(|(_, text)| text.clone()).collect()
    }

    /// Waits until this holds.
    pub fn until(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        let start = Instant::now();
        while !holds(self) {
            assert!(start.elapsed() < PATIENCE, "not in time: {what}; calls: {:?}", self.calls());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// No rule was broken.
    pub fn assert_clean(&self) {
        assert_eq!(self.state.lock().unwrap().violations, [""; 0]);
    }
}

fn refusal(status: u16, code: &str, message: &str) -> Reply {
    let body = json!({ "__type": code, "message": message });
    let headers = vec![("x-amzn-RequestId", "request-1".to_owned())];
    Reply::Answer { status, headers, body: body.to_string().into_bytes() }
}

impl State {
    fn answer(&mut self, request: &Request) -> Reply {
        match (request.method.as_str(), request.path.as_str()) {
            ("POST", "/") => self.call(request),
            ("GET", CREDENTIALS_PATH) => self.credentials(),
            ("PUT", "/latest/api/token") => {
                Reply::Answer { status: 200, headers: Vec::new(), body: b"imds-token".to_vec() }
            }
            ("GET", path) if path.starts_with("/latest/meta-data/iam/security-credentials/") => {
                if request.headers.get("x-aws-ec2-metadata-token").is_none_or(|token| token != "imds-token") {
                    return Reply::json(401, &json!({}));
                }
                match path.ends_with('/') {
                    true => Reply::Answer { status: 200, headers: Vec::new(), body: b"my-role\n".to_vec() },
                    false => self.credentials(),
                }
            }
            _ => Reply::json(404, &json!({})),
        }
    }

    fn credentials(&mut self) -> Reply {
        self.credentials_asked += 1;
        let document = json!({
            "RoleArn": "arn:aws:iam::1:role/r", "AccessKeyId": sigv4::ACCESS_KEY, "SecretAccessKey": sigv4::SECRET,
            "Token": TOKEN, "Expiration": "2099-01-01T00:00:00Z",
        });
        Reply::Chunked { status: 200, body: document.to_string().into_bytes() }
    }

    fn call(&mut self, request: &Request) -> Reply {
        let header = |name: &str| request.headers.get(name).cloned();
        let target = header("x-amz-target").unwrap_or_default();
        let operation = target.strip_prefix("Logs_20140328.").unwrap_or("?").to_owned();
        self.calls.push(Seen {
            operation: operation.clone(),
            session_token: header("x-amz-security-token"),
            format: header("x-amzn-logs-format"),
        });
        if header("content-type").as_deref() != Some("application/x-amz-json-1.1") {
            self.violations.push(format!("content type of {operation}"));
        }
        if let Err(why) = sigv4::verify_for("logs", "POST", "/", "", &request.headers, &request.body) {
            self.violations.push(why);
            return refusal(400, "InvalidSignatureException", "the signature does not match");
        }
        if self.down {
            return refusal(503, "ServiceUnavailableException", "down");
        }
        let fits = |wanted: &Option<&str>| wanted.is_none_or(|wanted| wanted == operation);
        if let Some(at) = self.trouble.iter().position(|(wanted, _)| fits(wanted)) {
            match self.trouble.remove(at).unwrap().1 {
                Trouble::Refuse(status, code, message) => return refusal(status, code, message),
                Trouble::Cut => return Reply::Cut,
                Trouble::DoneAndCut => {
                    self.carry_out(&operation, request);
                    return Reply::Cut;
                }
            }
        }
        self.carry_out(&operation, request)
    }

    fn carry_out(&mut self, operation: &str, request: &Request) -> Reply {
        let body: Value = serde_json::from_slice(&request.body).unwrap();
        let group = body["logGroupName"].as_str().unwrap_or_default().to_owned();
        let no_group =
            || refusal(400, "ResourceNotFoundException", "The specified log group does not exist.");
        match operation {
            "CreateLogGroup" => match self.groups.insert(group) {
                true => Reply::json(200, &json!({})),
                false => {
                    refusal(400, "ResourceAlreadyExistsException", "The specified log group already exists")
                }
            },
            "CreateLogStream" => {
                let stream = body["logStreamName"].as_str().unwrap_or_default().to_owned();
                if !self.groups.contains(&group) {
                    return no_group();
                }
                if self.streams.contains_key(&(group.clone(), stream.clone())) {
                    let words = "The specified log stream already exists";
                    return refusal(400, "ResourceAlreadyExistsException", words);
                }
                self.streams.insert((group, stream), Vec::new());
                Reply::json(200, &json!({}))
            }
            "PutLogEvents" => self.put(&group, &body),
            other => {
                self.violations.push(format!("unknown operation {other}"));
                refusal(400, "UnknownOperationException", "?")
            }
        }
    }

    fn put(&mut self, group: &str, body: &Value) -> Reply {
        let stream = body["logStreamName"].as_str().unwrap_or_default().to_owned();
        if let Some(token) = self.token {
            let wanted = token.to_string();
            if body["sequenceToken"].as_str() != Some(&wanted) {
                let words = "The given sequenceToken is invalid.";
                let body = json!({
                    "__type": "InvalidSequenceTokenException", "message": words, "expectedSequenceToken": wanted,
                });
                return Reply::json(400, &body);
            }
        }
        let events = body["logEvents"].as_array().cloned().unwrap_or_default();
        let read = |event: &Value| {
            (
                event["timestamp"].as_i64().unwrap_or(-1),
                event["message"].as_str().unwrap_or_default().to_owned(),
            )
        };
        let events: Vec<(i64, String)> = events.iter().map(read).collect();
        if let Err(why) = judge(&events) {
            self.violations.push(why.clone());
            return Reply::json(400, &json!({ "__type": "InvalidParameterException", "message": why }));
        }
        let Some(taken) = self.streams.get_mut(&(group.to_owned(), stream)) else {
            return refusal(400, "ResourceNotFoundException", "The specified log stream does not exist.");
        };
        self.batches.push(events.len());
        taken.extend(events);
        if let Some(token) = &mut self.token {
            *token += 1;
        }
        let mut answer = json!({ "nextSequenceToken": self.token.map(|token| token.to_string()) });
        if let Some(info) = self.reject.take() {
            answer["rejectedLogEventsInfo"] = info;
        }
        Reply::json(200, &answer)
    }
}

/// The limits of PutLogEvents.
fn judge(events: &[(i64, String)]) -> Result<(), String> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64;
    let bytes: usize = events.iter().map(|(_, text)| text.len() + 26).sum();
    let (first, last) = (events.first().map_or(0, |e| e.0), events.last().map_or(0, |e| e.0));
    let rules = [
        (events.is_empty(), "a batch of nothing".to_owned()),
        (events.len() > 10_000, format!("{} events", events.len())),
        (bytes > 1_048_576, format!("{bytes} bytes")),
        (events.iter().any(|(_, text)| text.is_empty()), "an empty event".to_owned()),
        (events.iter().any(|(_, text)| text.len() + 26 > 262_144), "an event that is too long".to_owned()),
        (events.windows(2).any(|pair| pair[0].0 > pair[1].0), "not in the order of time".to_owned()),
        (last - first > 24 * 3_600_000, "more than 24 hours".to_owned()),
        (last > now + 7_200_000 || first < now - 14 * 24 * 3_600_000, "not of this time".to_owned()),
    ];
    match rules.into_iter().find(|(broken, _)| *broken) {
        Some((_, why)) => Err(why),
        None => Ok(()),
    }
}
