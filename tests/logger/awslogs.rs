//! The driver `awslogs` in the logger program, against a CloudWatch Logs that judges signatures and limits.

use crate::cloudlogs::{CREDENTIALS_PATH, CloudLogs, TOKEN, Trouble};
use crate::program::Logger;
use crate::sigv4;
use serde_json::{Value, json};

const GROUP: &str = "my-group";
const STREAM: &str = "my-stream";

/// A configuration file; `options` over those that every test needs.
fn config(server: &CloudLogs, options: Value) -> String {
    let mut all = json!({
        "awslogs-group": GROUP, "awslogs-stream": STREAM, "awslogs-region": sigv4::REGION,
        "awslogs-endpoint": server.endpoint(), "awslogs-force-flush-interval-seconds": "1",
    });
    for (name, value) in options.as_object().unwrap() {
        all[name] = value.clone();
    }
    let environment = json!({
        "AWS_ACCESS_KEY_ID": sigv4::ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": sigv4::SECRET,
    });
    let host = json!({ "environment": environment, "credentials_endpoint": server.endpoint() });
    json!({ "driver": "awslogs", "options": all, "tag": "the-tag", "host": host }).to_string()
}

fn started(name: &str, server: &CloudLogs, options: Value) -> Logger {
    let config = config(server, options);
    let mut logger = Logger::start(name, move |_| config);
    logger.wait_ready();
    logger
}

fn numbered(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("line {number}")).collect()
}

#[test]
fn lines_of_both_outputs_arrive_in_order_and_the_last_at_the_end() {
    let server = CloudLogs::with_group(GROUP);
    let mut logger = started("cw-both", &server, json!({}));
    assert!(server.has_stream(GROUP, STREAM), "before the container starts");
    logger.say("one\n\ntwo\nb\u{0}ad ");
    logger.say(b"\xff\n");
    server.until("a flush by time", |server| server.texts(GROUP, STREAM).len() == 3);
    logger.complain("oops\n");
    logger.say("no newline");
    assert_eq!(logger.end(), 0);
    let texts = server.texts(GROUP, STREAM);
    assert_eq!(texts[..3], ["one", "two", "b\u{0}ad \u{fffd}"]);
    let mut rest = texts[3..].to_vec();
    rest.sort();
    assert_eq!(rest, ["no newline", "oops"]);
    server.assert_clean();
}

#[test]
fn many_and_long_lines_are_sent_within_the_limits() {
    let server = CloudLogs::with_group(GROUP);
    let mut logger = started("cw-limits", &server, json!({"awslogs-force-flush-interval-seconds": "60"}));
    let short = numbered(25_000);
    logger.say(short.join("\n") + "\n");
    let long = format!("{}é{}", "x".repeat(262_117), "€".repeat(200_000));
    logger.say(format!("{long}\n"));
    assert_eq!(logger.end(), 0);
    let texts = server.texts(GROUP, STREAM);
    assert_eq!(texts[..25_000], short[..]);
    assert_eq!(texts[25_000..].concat(), long);
    assert_eq!(server.batches()[..2], [10_000, 10_000]);
    server.assert_clean();
}

#[test]
fn without_its_group_the_start_fails_in_cloudwatchs_words() {
    let server = CloudLogs::start();
    let mut logger = started("cw-no-group", &server, json!({}));
    let why = logger.failure().unwrap();
    let words = "failed to create Cloudwatch log stream: operation error CloudWatch Logs: CreateLogStream, https \
                 response error StatusCode: 400, RequestID: request-1, ResourceNotFoundException: The specified log \
                 group does not exist.";
    assert_eq!(why, words);
    // It reads on, until the agent takes the container away.
    logger.say("x".repeat(200_000));
    logger.end();
}

#[test]
fn a_group_is_created_where_it_may_be_and_what_is_there_is_fine() {
    let server = CloudLogs::start();
    for round in 0..2 {
        let mut logger = started("cw-group", &server, json!({"awslogs-create-group": "true"}));
        assert_eq!(logger.failure(), None);
        logger.say(format!("round {round}\n"));
        assert_eq!(logger.end(), 0);
    }
    assert_eq!(server.texts(GROUP, STREAM), ["round 0", "round 1"]);
    let operations: Vec<_> = server.calls().into_iter().map(|call| call.operation).collect();
    assert_eq!(operations[..3], ["CreateLogStream", "CreateLogGroup", "CreateLogStream"]);
    server.assert_clean();
}

#[test]
fn a_stream_that_may_not_be_created_is_not() {
    let server = CloudLogs::with_group(GROUP);
    let mut logger = started("cw-no-create", &server, json!({"awslogs-create-stream": "false"}));
    logger.say("lost\n");
    assert_eq!(logger.end(), 1, "there is none, and none may be made");
    assert!(server.calls().iter().all(|call| call.operation == "PutLogEvents"));
    server.assert_clean();
}

#[test]
fn without_a_stream_the_tag_is_its_name() {
    let server = CloudLogs::with_group(GROUP);
    let mut logger = started("cw-tag", &server, json!({"awslogs-stream": ""}));
    logger.say("x\n");
    logger.end();
    assert_eq!(server.texts(GROUP, "the-tag"), ["x"]);
}

#[test]
fn nothing_is_lost_to_throttling_errors_and_cut_connections() {
    let server = CloudLogs::with_group(GROUP);
    let refuse = |status, code| Trouble::Refuse(status, code, "slow down");
    server.trouble(Some("CreateLogStream"), refuse(400, "ThrottlingException"));
    server.trouble(Some("CreateLogStream"), Trouble::Cut);
    let mut logger = started("cw-trouble", &server, json!({}));
    assert_eq!(logger.failure(), None);
    for trouble in [
        refuse(400, "ThrottlingException"),
        refuse(503, "ServiceUnavailableException"),
        Trouble::Cut,
        refuse(500, "InternalFailure"),
        refuse(400, "ExpiredTokenException"),
        refuse(400, "DataAlreadyAcceptedException"),
    ] {
        server.trouble(Some("PutLogEvents"), trouble);
    }
    // The last of these is said to have been taken before: the first batch is not sent again.
    logger.say("first\n");
    server.until("the troubles are over", |server| {
        server.calls().iter().filter(|call| call.operation == "PutLogEvents").count() >= 6
    });
    let lines = numbered(500);
    logger.say(lines.join("\n") + "\n");
    assert_eq!(logger.end(), 0);
    assert_eq!(server.texts(GROUP, STREAM), lines);
    server.assert_clean();
}

#[test]
fn while_cloudwatch_is_down_a_blocking_container_waits_and_loses_nothing() {
    let server = CloudLogs::with_group(GROUP);
    let mut logger = started("cw-down", &server, json!({}));
    server.set_down(true);
    // More than a batch, the queue and the pipe hold.
    let lines: Vec<String> = (0..4000).map(|number| format!("{number} {}", "y".repeat(1000))).collect();
    let text = lines.join("\n") + "\n";
    let stdout = logger.stdout.take().unwrap();
    let writer = std::thread::spawn(move || {
        let mut stdout = stdout;
        std::io::Write::write_all(&mut stdout, text.as_bytes()).unwrap();
    });
    server.until("it has tried several times", |server| server.calls().len() > 4);
    assert!(!writer.is_finished(), "the container waits");
    server.set_down(false);
    writer.join().unwrap();
    assert_eq!(logger.end(), 0);
    assert_eq!(server.texts(GROUP, STREAM), lines);
    server.assert_clean();
}

#[test]
fn while_cloudwatch_is_down_a_non_blocking_container_goes_on_and_losses_are_counted() {
    let server = CloudLogs::start();
    server.set_down(true);
    let options = json!({
        "mode": "non-blocking", "max-buffer-size": "64k", "awslogs-create-group": "true",
    });
    let mut logger = started("cw-ring", &server, options);
    assert_eq!(logger.failure(), None, "the stream is made in the background");
    let lines: Vec<String> = (0..8000).map(|number| format!("{number} {}", "y".repeat(1000))).collect();
    logger.say(lines.join("\n") + "\n");
    server.until("it has tried", |server| server.calls().len() > 2);
    server.set_down(false);
    server.until("what was kept arrives", |server| !server.texts(GROUP, STREAM).is_empty());
    let directory = logger.directory.clone();
    let lost = logger.end();
    assert!(!directory.exists());
    let texts = server.texts(GROUP, STREAM);
    assert_eq!(texts.len() as u64 + lost, 8000);
    assert!(lost > 1000, "{lost}");
    assert_eq!(texts[0], lines[0]);
    server.assert_clean();
}

#[test]
fn rejected_events_and_refused_batches_are_counted_as_lost() {
    let server = CloudLogs::with_group(GROUP);
    let mut logger = started("cw-rejected", &server, json!({}));
    server.reject(
        json!({"tooOldLogEventEndIndex": 2, "expiredLogEventEndIndex": 1, "tooNewLogEventStartIndex": 4}),
    );
    logger.say("1\n2\n3\n4\n5\n");
    server.until("the first batch", |server| server.batches().len() == 1);
    server.trouble(None, Trouble::Refuse(400, "InvalidParameterException", "no"));
    logger.say("6\n7\n");
    server.until("the refusal", |server| server.calls().len() == 3);
    logger.say("8\n");
    assert_eq!(logger.end(), 3 + 2);
    assert_eq!(server.texts(GROUP, STREAM).last().map(String::as_str), Some("8"));
}

#[test]
fn sequence_tokens_are_learned_and_a_removed_stream_is_made_again() {
    let server = CloudLogs::with_group(GROUP);
    server.want_tokens();
    let mut logger = started("cw-tokens", &server, json!({}));
    for round in 0..3 {
        logger.say(format!("{round}\n"));
        server.until("it arrives", |server| server.batches().len() == round + 1);
    }
    let puts = server.calls().iter().filter(|call| call.operation == "PutLogEvents").count();
    assert_eq!(puts, 4, "one was refused");
    server.remove_stream(GROUP, STREAM);
    logger.say("again\n");
    assert_eq!(logger.end(), 0);
    assert_eq!(server.texts(GROUP, STREAM), ["again"]);
    server.assert_clean();
}

#[test]
fn lines_are_joined_by_a_pattern_and_by_a_format_of_times() {
    let server = CloudLogs::with_group(GROUP);
    for (name, options, expected) in [
        ("cw-pattern", json!({"awslogs-multiline-pattern": "^ERROR"}), ["ERROR a\n at x\n", "ERROR b\n"]),
        (
            "cw-times",
            json!({"awslogs-datetime-format": "%Y-%m-%d"}),
            ["2026-01-02 a\n at x\n", "2026-01-03 b\n"],
        ),
    ] {
        server.remove_stream(GROUP, STREAM);
        let mut logger = started(name, &server, options);
        logger.say(expected[0]);
        logger.say(expected[1]);
        // Nothing more comes: the unfinished event is not kept for ever.
        server.until("both events", |server| server.texts(GROUP, STREAM).len() == 2);
        assert_eq!(server.texts(GROUP, STREAM), expected);
        assert_eq!(logger.end(), 0);
    }
    server.assert_clean();
}

#[test]
fn credentials_come_from_the_agents_endpoint_or_the_instance() {
    let server = CloudLogs::with_group(GROUP);
    let mut logger = started("cw-role", &server, json!({"awslogs-credentials-endpoint": CREDENTIALS_PATH}));
    logger.say("by role\n");
    assert_eq!(logger.end(), 0);
    assert_eq!(server.credentials_asked(), 1, "they are kept");
    let host = json!({"environment": {
        "AWS_SHARED_CREDENTIALS_FILE": "/absent", "AWS_EC2_METADATA_SERVICE_ENDPOINT": server.endpoint(),
    }});
    let mut file: Value =
        serde_json::from_str(&config(&server, json!({"awslogs-format": "json/emf"}))).unwrap();
    file["host"] = host;
    let mut logger = Logger::start("cw-imds", move |_| file.to_string());
    logger.wait_ready();
    logger.say("by instance\n");
    assert_eq!(logger.end(), 0);
    assert_eq!(server.texts(GROUP, STREAM), ["by role", "by instance"]);
    assert!(server.calls().iter().all(|call| call.session_token.as_deref() == Some(TOKEN)));
    assert_eq!(server.calls().last().unwrap().format.as_deref(), Some("json/emf"));
    server.assert_clean();
}

#[test]
fn without_credentials_the_start_fails_and_says_what_was_tried() {
    let server = CloudLogs::with_group(GROUP);
    let path = json!({"awslogs-credentials-endpoint": "/v2/credentials/unknown"});
    let mut logger = Logger::start("cw-unknown-role", |_| config(&server, path));
    logger.wait_ready();
    let why = logger.failure().unwrap();
    assert!(why.contains("get credentials: the agent's credentials endpoint answered 404"), "{why}");
    assert!(!why.contains("unknown"), "the path is a secret: {why}");
    logger.end();
}
