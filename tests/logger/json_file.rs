//! Files: rotation, compression, a full disk; and the program itself.

use super::program::{LONG, Logger, read};
use ecsd::logs::LogStream;
use ecsd::logs::reader::follower;
use ecsd::logs::record::decode;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;
use std::fs;
use std::sync::mpsc;

#[test]
fn both_streams_are_written_and_the_last_words_too() {
    let mut logger = Logger::json_file("both", None, 1);
    logger.wait_ready();
    logger.say("one\ntwo\npart");
    logger.complain("oops\n");
    // The shim's SIGTERM at the deletion of the task, before the pipes are empty.
    kill(Pid::from_raw(logger.child.id().cast_signed()), Signal::SIGTERM).unwrap();
    logger.say("ial\nno newline");
    let (path, directory) = (logger.path(), logger.directory.clone());
    (logger.stdout, logger.stderr) = (None, None);
    assert!(logger.child.wait().unwrap().success());
    let raw = fs::read_to_string(&path).unwrap();
    let first = raw.lines().find(|l| l.contains("one")).unwrap();
    assert!(first.starts_with("{\"log\":\"one\\n\",\"stream\":\"stdout\",\"time\":\"2"), "{first}");
    assert!(first.ends_with("Z\"}"), "{first}");
    let lines = read(&path);
    let out: Vec<_> =
        lines.iter().filter(|l| l.stream == LogStream::Stdout).map(|l| l.text.as_str()).collect();
    assert_eq!(out, ["one\n", "two\n", "partial\n", "no newline"]);
    assert_eq!(lines.iter().filter(|l| l.stream == LogStream::Stderr).count(), 1);
    fs::remove_dir_all(directory).unwrap();
}

#[test]
fn long_lines_and_bytes_that_are_no_text_are_kept_whole() {
    let mut logger = Logger::json_file("long", None, 1);
    let long = "x".repeat(40_000);
    logger.say(format!("{long}\n"));
    logger.say(b"a\xff\x00b\n");
    let lines = logger.finish();
    assert_eq!(lines.iter().map(|l| l.1.len()).collect::<Vec<_>>()[..3], [16384, 16384, 7233]);
    assert_eq!(lines[..3].iter().map(|l| l.1.as_str()).collect::<String>(), format!("{long}\n"));
    assert_eq!(lines[3].1, "a\u{fffd}\0b\n");
}

#[test]
fn files_are_rotated_and_read_back_in_order() {
    let mut logger = Logger::json_file("rotate", Some(300), 3);
    for number in 0..40 {
        logger.say(format!("line {number}\n"));
    }
    let directory = logger.directory.clone();
    let path = logger.path();
    (logger.stdout, logger.stderr) = (None, None);
    logger.child.wait().unwrap();
    let mut names: Vec<_> = fs::read_dir(directory.join("log"))
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names, ["out.log", "out.log.1", "out.log.2"]);
    let lines: Vec<String> = read(&path).into_iter().map(|l| l.text).collect();
    let expected: Vec<String> = (40 - lines.len()..40).map(|n| format!("line {n}\n")).collect();
    assert!(lines.len() >= 9, "{lines:?}");
    assert_eq!(lines, expected);
    fs::remove_dir_all(directory).unwrap();
}

#[test]
fn one_file_alone_is_emptied_when_it_is_full() {
    let mut logger = Logger::json_file("single", Some(200), 1);
    for number in 0..10 {
        logger.say(format!("line {number}\n"));
    }
    let lines = logger.finish();
    assert!(lines.len() <= 4 && lines.last().unwrap().1 == "line 9\n", "{lines:?}");
}

#[test]
fn rotated_files_are_compressed_and_read_back() {
    let mut logger = Logger::start("compress", |path| {
        let options = json!({"max-size": "2k", "max-file": "4", "compress": "true"});
        json!({"driver": "json-file", "options": options, "path": path, "tag": "t"}).to_string()
    });
    let (mut files, follower) = follower().unwrap();
    files.add_rotated("log", logger.path());
    let (sender, followed) = mpsc::channel();
    let thread = std::thread::spawn(move || {
        follower.run(|line| sender.send(decode(line.text.as_bytes()).unwrap().text).is_ok())
    });
    let expected: Vec<String> = (0..100).map(|n| format!("line {n}\n")).collect();
    for line in &expected {
        logger.say(line);
        assert_eq!(&followed.recv_timeout(LONG).unwrap(), line);
    }
    let (path, directory) = (logger.path(), logger.directory.clone());
    (logger.stdout, logger.stderr) = (None, None);
    assert!(logger.child.wait().unwrap().success());
    drop(files);
    thread.join().unwrap().unwrap();
    assert_eq!(followed.try_iter().count(), 0, "a compressed file is known again");
    assert!(fs::read_to_string(&path).unwrap().contains(r#""attrs":{"tag":"t"}"#));
    let mut names: Vec<_> = fs::read_dir(directory.join("log"))
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names, ["out.log", "out.log.1.gz", "out.log.2.gz", "out.log.3.gz"]);
    let lines: Vec<String> = read(&path).into_iter().map(|l| l.text).collect();
    assert!(lines.len() > 40);
    assert_eq!(lines, expected[100 - lines.len()..]);
    fs::remove_dir_all(directory).unwrap();
}

#[test]
fn a_full_disk_drops_lines_and_counts_them() {
    let mut logger = Logger::start("full", |path| {
        std::os::unix::fs::symlink("/dev/full", &path).unwrap();
        json!({"driver": "json-file", "path": path}).to_string()
    });
    logger.wait_ready();
    for _ in 0..50 {
        logger.say("y".repeat(10_000) + "\n");
    }
    assert!(logger.child.try_wait().unwrap().is_none(), "it goes on");
    (logger.stdout, logger.stderr) = (None, None);
    assert!(logger.child.wait().unwrap().success());
    let lost = fs::read_to_string(logger.directory.join("config.counters")).unwrap();
    assert_eq!(lost, r#"{"dropped":50}"#);
    fs::remove_dir_all(&logger.directory).unwrap();
}

#[test]
fn without_a_usable_configuration_the_pipes_are_drained() {
    for (name, text) in
        [("none", r#"{"driver":"none"}"#), ("bad", "{"), ("unknown", r#"{"driver":"papyrus"}"#)]
    {
        let mut logger = Logger::start(name, |_| text.to_owned());
        logger.wait_ready();
        for _ in 0..50 {
            logger.say("z".repeat(10_000) + "\n"); // more than a pipe holds
        }
        let failed = fs::read_to_string(logger.directory.join("config.failed"));
        assert_eq!(failed.is_ok(), name != "none", "the start fails");
        let complaints = logger.directory.join("complaints");
        (logger.stdout, logger.stderr) = (None, None);
        assert!(logger.child.wait().unwrap().success());
        let said = fs::read_to_string(complaints).unwrap();
        assert_eq!(said.contains("ecsd-logger c1: logger configuration"), name != "none", "{said}");
        assert!(!logger.path().exists());
        fs::remove_dir_all(&logger.directory).unwrap();
    }
}

#[test]
fn a_follower_sees_every_line_across_rotations() {
    let mut logger = Logger::json_file("follow", Some(2000), 4);
    let (mut files, follower) = follower().unwrap();
    files.add_rotated("log", logger.path());
    let (sender, lines) = mpsc::channel();
    let thread = std::thread::spawn(move || {
        follower.run(|line| sender.send(decode(line.text.as_bytes()).unwrap().text).is_ok())
    });
    let mut seen = Vec::new();
    for number in 0..200 {
        logger.say(format!("line {number}\n"));
        while number % 10 == 9 && seen.len() <= number {
            seen.push(lines.recv_timeout(LONG).unwrap());
        }
    }
    let expected: Vec<String> = (0..200).map(|n| format!("line {n}\n")).collect();
    assert_eq!(seen, expected);
    drop(files);
    assert!(lines.recv().is_err(), "no more lines");
    thread.join().unwrap().unwrap();
    logger.finish();
}
