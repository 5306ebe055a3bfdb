//! What a container notices of a sink that takes nothing.

use super::program::{Logger, until};
use serde_json::json;
use std::io::Read;
use std::net::TcpListener;

/// A server that accepts and reads nothing yet.
fn dead_server() -> (TcpListener, serde_json::Value) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("tcp://{}", listener.local_addr().unwrap());
    (listener, json!({"syslog-address": address, "syslog-format": "rfc5424"}))
}

#[test]
fn non_blocking_never_waits_and_counts_what_it_drops() {
    let (listener, mut options) = dead_server();
    options["mode"] = json!("non-blocking");
    options["max-buffer-size"] = json!("100k");
    let mut logger = Logger::driver("ring", "syslog", options);
    let (mut stream, _) = listener.accept().unwrap();
    // Far more than pipe, ring and sockets hold. Where it waited, this test would hang.
    let total: u64 = 100_000;
    for number in 0..total / 100 {
        let lines: String = (0..100).map(|n| format!("{} {}\n", number * 100 + n, "x".repeat(500))).collect();
        logger.say(lines);
    }
    until("the losses are told", || logger.dropped() > total / 4);
    let reading = std::thread::spawn(move || {
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text.lines().count() as u64
    });
    let dropped = logger.end();
    let delivered = reading.join().unwrap();
    assert_eq!(delivered + dropped, total, "{delivered} delivered, {dropped} dropped");
}

#[test]
fn blocking_waits_and_then_all_arrives() {
    let (listener, options) = dead_server();
    let mut logger = Logger::driver("wait", "syslog", options);
    let (mut stream, _) = listener.accept().unwrap();
    let total = 20_000;
    let mut writer = logger.stdout.take().unwrap();
    let writing = std::thread::spawn(move || {
        for number in 0..total {
            std::io::Write::write_all(&mut writer, format!("{number} {}\n", "x".repeat(500)).as_bytes())
                .unwrap();
        }
    });
    let reading = std::thread::spawn(move || {
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text
    });
    writing.join().unwrap();
    assert_eq!(logger.end(), 0);
    let text = reading.join().unwrap();
    let numbers: Vec<i32> = text
        .lines()
        .map(|line| line.split_once(" - ").unwrap().1.split(' ').next().unwrap().parse().unwrap())
        .collect();
    assert_eq!(numbers, (0..total).collect::<Vec<_>>());
}

#[test]
fn a_json_file_costs_little_memory() {
    let mut logger = Logger::json_file("memory", Some(100_000), 3);
    logger.wait_ready();
    for _ in 0..200 {
        logger.say(format!("{}\n", "x".repeat(20_000)));
    }
    let status = std::fs::read_to_string(format!("/proc/{}/status", logger.child.id())).unwrap();
    let resident = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    let kib: u64 = resident.trim().trim_end_matches(" kB").parse().unwrap();
    assert!(kib < 4 * 1024, "{kib} KiB of its own");
    logger.end();
}
