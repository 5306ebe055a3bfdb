//! The driver `splunk` in the logger program, against an HTTP event collector.

use crate::http::{Reply, Request, serve};
use crate::program::Logger;
use crate::tls::Authority;
use flate2::read::GzDecoder;
use serde_json::{Value, json};
use std::fs;
use std::io::Read;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const TOKEN: &str = "token-CANARY";

#[derive(Default)]
struct State {
    requests: Vec<Request>,
    events: Vec<Value>,
    /// Numbers of events in each request that was taken.
    batches: Vec<usize>,
    /// What the next requests are answered with instead.
    refusals: Vec<u16>,
}

/// A collector.
struct Collector {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
}

impl Collector {
    fn start(tls: Option<Arc<rustls::ServerConfig>>) -> Self {
        let state: Arc<Mutex<State>> = Arc::default();
        let shared = Arc::clone(&state);
        let address = serve(tls, move |request| shared.lock().unwrap().answer(request));
        Self { address, state }
    }

    fn refuse(&self, statuses: &[u16]) {
        self.state.lock().unwrap().refusals = statuses.to_vec();
    }

    fn events(&self) -> Vec<Value> {
        self.state.lock().unwrap().events.clone()
    }

    fn until(&self, what: &str, holds: impl Fn(&State) -> bool) {
        let start = Instant::now();
        while !holds(&self.state.lock().unwrap()) {
            assert!(start.elapsed() < Duration::from_secs(60), "not in time: {what}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl State {
    fn answer(&mut self, request: &Request) -> Reply {
        self.requests.push(request.clone());
        if !self.refusals.is_empty() {
            return Reply::json(self.refusals.remove(0), &json!({"text": "not now"}));
        }
        assert_eq!(request.path, "/services/collector/event/1.0");
        match request.method.as_str() {
            "OPTIONS" => Reply::json(200, &json!({})),
            "POST" if request.headers["authorization"] != format!("Splunk {TOKEN}") => {
                Reply::json(403, &json!({"text": "Invalid token", "code": 4}))
            }
            "POST" => {
                let mut body = request.body.clone();
                if request.headers.get("content-encoding").is_some_and(|coding| coding == "gzip") {
                    body.clear();
                    GzDecoder::new(&request.body[..]).read_to_end(&mut body).unwrap();
                }
                let events = serde_json::Deserializer::from_slice(&body).into_iter();
                let events: Vec<Value> = events.map(Result::unwrap).collect();
                self.batches.push(events.len());
                self.events.extend(events);
                Reply::json(200, &json!({"text": "Success", "code": 0}))
            }
            _ => Reply::json(405, &json!({})),
        }
    }
}

fn started(name: &str, url: &str, options: Value) -> Logger {
    let mut all = json!({"splunk-url": url, "splunk-token": TOKEN});
    for (key, value) in options.as_object().unwrap() {
        all[key] = value.clone();
    }
    let config = json!({
        "driver": "splunk", "options": all, "tag": "the-tag", "attributes": {"team": "core"},
    });
    let mut logger = Logger::start(name, move |_| config.to_string());
    logger.wait_ready();
    logger
}

/// The container ends, and so does the logger, which has told nobody the token; answers how many messages
/// it says were lost.
fn end(mut logger: Logger) -> u64 {
    (logger.stdout, logger.stderr) = (None, None);
    assert!(logger.child.wait().unwrap().success());
    let complaints = fs::read_to_string(logger.directory.join("complaints")).unwrap();
    assert!(!complaints.contains("CANARY"), "{complaints}");
    logger.end()
}

#[test]
fn events_have_dockers_forms() {
    let collector = Collector::start(None);
    let url = format!("http://{}", collector.address);
    let attrs = json!({"team": "core"});
    let line = |line: Value| json!({"line": line, "source": "stdout", "tag": "the-tag", "attrs": attrs});
    for (name, options, expected) in [
        ("splunk-inline", json!({}), [line(json!("{\"a\": 1}")), line(json!("text"))]),
        ("splunk-json", json!({"splunk-format": "json"}), [line(json!({"a": 1})), line(json!("text"))]),
        (
            "splunk-raw",
            json!({"splunk-format": "raw", "splunk-gzip": "true"}),
            [json!("the-tag team=core {\"a\": 1}"), json!("the-tag team=core text")],
        ),
        (
            "splunk-no-tag",
            json!({"splunk-format": "raw", "tag": "", "splunk-index-acknowledgment": "true"}),
            [json!("team=core {\"a\": 1}"), json!("team=core text")],
        ),
    ] {
        collector.state.lock().unwrap().events.clear();
        let mut options = options;
        options["splunk-source"] = json!("the-source");
        options["splunk-sourcetype"] = json!("the-type");
        options["splunk-index"] = json!("the-index");
        let mut logger = started(name, &url, options);
        logger.say("{\"a\": 1}\ntext\n");
        assert_eq!(end(logger), 0);
        let events = collector.events();
        assert_eq!(events.iter().map(|event| event["event"].clone()).collect::<Vec<_>>(), expected, "{name}");
        let first = &events[0];
        assert_eq!((&first["source"], &first["sourcetype"]), (&json!("the-source"), &json!("the-type")));
        assert_eq!(first["index"], "the-index");
        assert!(first["time"].as_str().unwrap().split_once('.').unwrap().1.len() == 6, "{first}");
        assert!(!first["host"].as_str().unwrap().is_empty());
    }
    let last = collector.state.lock().unwrap().requests.pop().unwrap();
    assert!(last.headers.contains_key("x-splunk-request-channel"));
}

#[test]
fn batches_are_of_a_thousand_and_what_is_short_goes_by_time() {
    let collector = Collector::start(None);
    let url = format!("http://{}", collector.address);
    let mut logger = started("splunk-batches", &url, json!({}));
    let lines: String = (0..2500).map(|number| format!("{number}\n")).collect();
    logger.say(lines);
    collector.until("all of them", |state| state.events.len() == 2500);
    assert_eq!(collector.state.lock().unwrap().batches[..2], [1000, 1000]);
    assert_eq!(end(logger), 0);
    let seen: Vec<_> = collector.events().iter().map(|event| event["event"]["line"].clone()).collect();
    assert!(
        seen.iter().enumerate().all(|(at, line)| line.as_str().is_some_and(|line| line.parse() == Ok(at)))
    );
}

#[test]
fn what_is_refused_for_a_time_is_sent_again_and_what_is_refused_for_good_is_counted() {
    let collector = Collector::start(None);
    let url = format!("http://{}", collector.address);
    let mut logger = started("splunk-refused", &url, json!({}));
    collector.refuse(&[503, 400]);
    // The first is refused by 503, comes again with the second, is refused by 400; the second is taken.
    for batch in 0..2 {
        let lines: String = (0..1000).map(|number| format!("{batch}-{number}\n")).collect();
        logger.say(lines);
        collector.until("it was sent", |state| state.requests.len() > batch + 1);
    }
    collector.until("the second batch", |state| state.events.len() == 1000);
    assert_eq!(end(logger), 1000);
    assert_eq!(collector.events()[0]["event"]["line"], "1-0");
}

#[test]
fn what_is_kept_is_bounded_and_the_oldest_goes_first() {
    let collector = Collector::start(None);
    let url = format!("http://{}", collector.address);
    let mut logger = started("splunk-bounded", &url, json!({}));
    collector.refuse(&[503; 13]);
    let lines: String = (0..13_000).map(|number| format!("{number}\n")).collect();
    logger.say(lines);
    collector.until("all batches were tried", |state| state.requests.len() > 13);
    assert_eq!(end(logger), 3000);
    let events = collector.events();
    assert_eq!((events.len(), &events[0]["event"]["line"]), (10_000, &json!("3000")));
}

#[test]
fn the_collector_is_asked_before_the_start_unless_that_is_not_wanted() {
    let collector = Collector::start(None);
    let url = format!("http://{}", collector.address);
    collector.refuse(&[403]);
    let logger = started("splunk-verify", &url, json!({}));
    let why = logger.failure().unwrap();
    assert_eq!(why, r#"splunk: failed to verify connection - 403 Because - {"text":"not now"}"#);
    end(logger);
    let logger = started("splunk-unreachable", "http://127.0.0.1:1", json!({}));
    let why = logger.failure().unwrap();
    assert!(why.starts_with("splunk: connect to 127.0.0.1:1: ") && !why.contains("CANARY"), "{why}");
    end(logger);
    let logger =
        started("splunk-unverified", "http://127.0.0.1:1", json!({"splunk-verify-connection": "false"}));
    assert_eq!(logger.failure(), None);
    end(logger);
}

#[test]
fn a_private_ca_its_name_and_no_check_at_all() {
    let authority = Authority::new();
    let collector = Collector::start(Some(authority.server(&["splunk.example"])));
    let url = format!("https://127.0.0.1:{}", collector.address.port());
    let pem = std::env::temp_dir().join(format!("ecsd-splunk-ca-{}.pem", std::process::id()));
    fs::write(&pem, authority.pem()).unwrap();
    let ca = json!({"splunk-capath": pem});
    for (name, options, works) in [
        ("splunk-tls-other", json!({}), false),
        ("splunk-tls-name", ca.clone(), false),
        ("splunk-tls-ca", json!({"splunk-capath": pem, "splunk-caname": "splunk.example"}), true),
        ("splunk-tls-any", json!({"splunk-insecureskipverify": "true"}), true),
    ] {
        let mut logger = started(name, &url, options);
        let failed = logger.failure();
        assert_eq!(failed.is_none(), works, "{name}: {failed:?}");
        logger.say(format!("{name}\n"));
        end(logger);
    }
    fs::remove_file(pem).unwrap();
    let lines: Vec<_> = collector.events().iter().map(|event| event["event"]["line"].clone()).collect();
    assert_eq!(lines, ["splunk-tls-ca", "splunk-tls-any"]);
}
