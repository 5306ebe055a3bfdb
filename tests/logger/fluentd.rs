//! The forward protocol, against a server that decodes MessagePack on its own.

use super::program::{ID, LONG, Logger, config, until};
use super::tls::Authority;
use serde_json::{Value, json};
use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixListener;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};

/// Reads one MessagePack value; bytes and event times become texts. Panics on what the protocol has not.
fn decode(from: &mut impl Read) -> std::io::Result<Value> {
    let mut bytes = |count: usize| {
        let mut buffer = vec![0; count];
        from.read_exact(&mut buffer).map(|()| buffer)
    };
    let first = bytes(1)?[0];
    let number = |bytes: Vec<u8>| bytes.iter().fold(0_u64, |sum, byte| sum << 8 | u64::from(*byte));
    let (kind, count) = match first {
        0x00..=0x7f => return Ok(json!(first)),
        0x80..=0x8f => ("map", usize::from(first & 15)),
        0x90..=0x9f => ("array", usize::from(first & 15)),
        0xa0..=0xbf => ("text", usize::from(first & 31)),
        0xcc => return Ok(json!(number(bytes(1)?))),
        0xcd => return Ok(json!(number(bytes(2)?))),
        0xce => return Ok(json!(number(bytes(4)?))),
        0xcf => return Ok(json!(number(bytes(8)?))),
        0xd7 => {
            let time = bytes(9)?;
            assert_eq!(time[0], 0, "EventTime");
            let (seconds, nanos) = (number(time[1..5].to_vec()), number(time[5..].to_vec()));
            return Ok(json!({"seconds": seconds, "nanos": nanos}));
        }
        0xd9 => ("text", number(bytes(1)?) as usize),
        0xda => ("text", number(bytes(2)?) as usize),
        0xdb => ("text", number(bytes(4)?) as usize),
        0xdc => ("array", number(bytes(2)?) as usize),
        0xde => ("map", number(bytes(2)?) as usize),
        other => panic!("not in the protocol: {other:#x}"),
    };
    match kind {
        "text" => Ok(json!(String::from_utf8_lossy(&bytes(count)?))),
        "array" => (0..count).map(|_| decode(from)).collect(),
        _ => {
            let mut map = serde_json::Map::new();
            for _ in 0..count {
                let name = decode(from)?.as_str().unwrap().to_owned();
                map.insert(name, decode(from)?);
            }
            Ok(Value::Object(map))
        }
    }
}

/// What a server makes of an acknowledgement that is asked for.
#[derive(Clone, Copy, PartialEq)]
enum Acks {
    Given,
    /// The first of all is not: the connection is closed in its place.
    FirstLost,
}

fn serve(mut stream: impl Read + Write, acks: Acks, messages: &Sender<Value>, seen: &Mutex<u32>) {
    while let Ok(message) = decode(&mut stream) {
        let chunk = message[3]["chunk"].as_str().map(str::to_owned);
        let is_first = {
            let mut seen = seen.lock().unwrap();
            *seen += 1;
            *seen == 1
        };
        if messages.send(message).is_err() || (acks == Acks::FirstLost && is_first) {
            return;
        }
        if let Some(chunk) = chunk {
            let mut answer = vec![0x81, 0xa3, b'a', b'c', b'k', 0xa0 + chunk.len() as u8];
            answer.extend(chunk.as_bytes());
            stream.write_all(&answer).unwrap();
        }
    }
}

fn tcp_server(listener: TcpListener, acks: Acks) -> Receiver<Value> {
    let (sender, messages) = channel();
    let seen = Arc::new(Mutex::new(0));
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (sender, seen) = (sender.clone(), Arc::clone(&seen));
            std::thread::spawn(move || serve(stream.unwrap(), acks, &sender, &seen));
        }
    });
    messages
}

fn address(listener: &TcpListener) -> String {
    format!("tcp://{}", listener.local_addr().unwrap())
}

#[test]
fn records_have_dockers_names() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let options = json!({"fluentd-address": address(&listener), "fluentd-sub-second-precision": "true"});
    let messages = tcp_server(listener, Acks::Given);
    let mut logger = Logger::driver("fluentd", "fluentd", options);
    logger.say("one\n");
    let message = messages.recv_timeout(LONG).unwrap();
    assert_eq!(message[0], "the-tag");
    assert!(message[1]["seconds"].as_u64().unwrap() > 1_700_000_000, "{message}");
    assert_eq!(
        message[2],
        json!({
            "container_id": ID, "container_name": "/ecs-web-3-app-00", "source": "stdout", "log": "one",
            "STAGE": "prod", "com.example.team": "core",
        })
    );
    logger.complain("two\n");
    assert_eq!(messages.recv_timeout(LONG).unwrap()[2]["source"], "stderr");
    logger.say(format!("{}\n", "x".repeat(40_000)));
    let parts: Vec<Value> = (0..3).map(|_| messages.recv_timeout(LONG).unwrap()[2].clone()).collect();
    let of = |name: &str| parts.iter().map(|part| part[name].as_str().unwrap()).collect::<Vec<_>>();
    assert_eq!(of("partial_message"), ["true"; 3]);
    assert_eq!(
        (of("partial_ordinal"), of("partial_last")),
        (vec!["1", "2", "3"], vec!["false", "false", "true"])
    );
    assert!(of("partial_id").windows(2).all(|pair| pair[0] == pair[1]));
    assert_eq!(of("log").concat(), "x".repeat(40_000));
    assert_eq!(logger.end(), 0);
}

#[test]
fn unix_sockets_and_tls_carry_the_same() {
    let directory = std::env::temp_dir().join(format!("ecsd-fluentd-{}", std::process::id()));
    fs::create_dir_all(&directory).unwrap();
    let path = directory.join("socket");
    let listener = UnixListener::bind(&path).unwrap();
    let (sender, messages) = channel();
    std::thread::spawn(move || serve(listener.accept().unwrap().0, Acks::Given, &sender, &Mutex::new(0)));
    let options = json!({"fluentd-address": format!("unix://{}", path.display())});
    let mut logger = Logger::driver("fluentd-unix", "fluentd", options);
    logger.say("by unix\n");
    let message = messages.recv_timeout(LONG).unwrap();
    assert!(message[1].is_u64(), "whole seconds: {message}");
    assert_eq!(message[2]["log"], "by unix");
    assert_eq!(logger.end(), 0);

    let authority = Authority::new();
    let ca = directory.join("ca.pem");
    fs::write(&ca, authority.pem()).unwrap();
    let server = authority.server(&["localhost"]);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (sender, messages) = channel();
    std::thread::spawn(move || {
        while let Ok((stream, _)) = listener.accept() {
            let connection = rustls::ServerConnection::new(Arc::clone(&server)).unwrap();
            serve(rustls::StreamOwned::new(connection, stream), Acks::Given, &sender, &Mutex::new(0));
        }
    });
    let options =
        json!({"fluentd-address": format!("tls://localhost:{port}"), "fluentd-request-ack": "true"});
    let text = config("fluentd", options).to_string();
    let mut untrusting = Logger::start("fluentd-untrusting", |_| text.clone());
    untrusting.wait_ready();
    assert!(untrusting.failure().unwrap().contains("certificate"), "{:?}", untrusting.failure());
    untrusting.end();
    let trusted = [("SSL_CERT_FILE", ca.to_str().unwrap())];
    let mut logger = Logger::start_with("fluentd-tls", &trusted, |_| text);
    logger.wait_ready();
    assert_eq!(logger.failure(), None);
    logger.say("by tls\nand more\n");
    assert_eq!(messages.recv_timeout(LONG).unwrap()[2]["log"], "by tls");
    assert_eq!(messages.recv_timeout(LONG).unwrap()[2]["log"], "and more");
    assert_eq!(logger.end(), 0);
    fs::remove_dir_all(directory).unwrap();
}

#[test]
fn what_is_not_acknowledged_is_sent_again_under_the_same_name() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let options = json!({
        "fluentd-address": address(&listener), "fluentd-request-ack": "true", "fluentd-retry-wait": "10ms",
    });
    let messages = tcp_server(listener, Acks::FirstLost);
    let mut logger = Logger::driver("fluentd-ack", "fluentd", options);
    logger.say("one\ntwo\n");
    let seen: Vec<Value> = (0..3).map(|_| messages.recv_timeout(LONG).unwrap()).collect();
    let logs: Vec<_> = seen.iter().map(|message| message[2]["log"].as_str().unwrap()).collect();
    assert_eq!(logs, ["one", "one", "two"]);
    assert_eq!(seen[0][3]["chunk"], seen[1][3]["chunk"]);
    assert_ne!(seen[1][3]["chunk"], seen[2][3]["chunk"]);
    assert_eq!(logger.end(), 0);
}

#[test]
fn blocking_loses_nothing_over_a_servers_restart() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let server = listener.local_addr().unwrap();
    let options = json!({
        "fluentd-address": address(&listener), "fluentd-request-ack": "true", "fluentd-retry-wait": "10ms",
    });
    let mut logger = Logger::driver("fluentd-restart", "fluentd", options);
    let total = 2000;
    let mut writer = logger.stdout.take().unwrap();
    let writing = std::thread::spawn(move || {
        for number in 0..total {
            // Longer, all together, than what logger and pipe hold.
            writeln!(writer, "{number} {}", "x".repeat(500)).unwrap();
        }
    });
    let mut logs = Vec::new();
    let mut take = |stream: &mut TcpStream, most: usize| {
        while logs.len() < most && logs.last().is_none_or(|last| *last != total - 1) {
            let message = decode(stream).unwrap();
            let chunk = message[3]["chunk"].as_str().unwrap();
            let log = message[2]["log"].as_str().unwrap();
            logs.push(log.split_once(' ').unwrap().0.parse::<i32>().unwrap());
            let mut answer = vec![0x81, 0xa3, b'a', b'c', b'k', 0xa0 + chunk.len() as u8];
            answer.extend(chunk.as_bytes());
            stream.write_all(&answer).unwrap();
        }
    };
    take(&mut listener.accept().unwrap().0, 100);
    drop(listener);
    until("it is told that the server is gone", || {
        fs::read_to_string(logger.directory.join("complaints")).unwrap().contains("the log is not taken")
    });
    let listener = TcpListener::bind(server).unwrap();
    take(&mut listener.accept().unwrap().0, usize::MAX);
    writing.join().unwrap();
    logs.dedup();
    assert_eq!(logs, (0..total).collect::<Vec<_>>());
    assert_eq!(logger.end(), 0);
}

#[test]
fn without_a_server_the_start_fails_unless_it_is_asynchronous() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = address(&listener);
    drop(listener);
    let start = |name: &str, options: Value| {
        let mut logger = Logger::start(name, |_| config("fluentd", options).to_string());
        logger.wait_ready();
        logger
    };
    let mut failed = start("fluentd-none", json!({"fluentd-address": address}));
    let why = failed.failure().unwrap();
    assert!(why.contains(address.trim_start_matches("tcp://")) && why.contains("refused"), "{why}");
    failed.say("z".repeat(200_000)); // its output is read until it is taken away
    failed.end();
    let options = json!({"fluentd-address": address, "fluentd-async": "true", "fluentd-retry-wait": "10ms"});
    let mut logger = start("fluentd-async", options);
    assert_eq!(logger.failure(), None);
    logger.say("early\n");
    let listener = TcpListener::bind(address.trim_start_matches("tcp://")).unwrap();
    let messages = tcp_server(listener, Acks::Given);
    assert_eq!(messages.recv_timeout(LONG).unwrap()[2]["log"], "early");
    assert_eq!(logger.end(), 0);
}
