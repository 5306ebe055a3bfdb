//! syslog, against sockets that take it apart by the RFCs, and rsyslog where it is installed.

use super::program::{LONG, Logger, config, until};
use super::tls::Authority;
use serde_json::json;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::{TcpListener, UdpSocket};
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::process::Command;
use std::sync::Arc;

/// `<PRI>` and what follows it.
fn priority(message: &str) -> (u8, &str) {
    let (number, rest) = message.strip_prefix('<').unwrap().split_once('>').unwrap();
    (number.parse().unwrap(), rest)
}

fn hostname() -> String {
    fs::read_to_string("/proc/sys/kernel/hostname").unwrap().trim().to_owned()
}

#[test]
fn rfc5424_over_tcp() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("tcp://{}", listener.local_addr().unwrap());
    let options =
        json!({"syslog-address": address, "syslog-format": "rfc5424micro", "syslog-facility": "local0"});
    let mut logger = Logger::driver("syslog-tcp", "syslog", options);
    let mut lines = BufReader::new(listener.accept().unwrap().0).lines();
    logger.say("to stdout\n");
    let line = lines.next().unwrap().unwrap();
    let (number, rest) = priority(&line);
    assert_eq!(number, 16 * 8 + 6);
    let fields: Vec<&str> = rest.splitn(8, ' ').collect();
    assert_eq!((fields[0], fields[2], fields[3]), ("1", hostname().as_str(), "the-tag"));
    humantime::parse_rfc3339(fields[1]).unwrap();
    assert_eq!(fields[1].len(), "2026-01-02T03:04:05.000006Z".len());
    assert_eq!(fields[4], logger.child.id().to_string());
    assert_eq!(fields[5..], ["the-tag", "-", "to stdout"]);
    logger.complain("to stderr\n");
    assert_eq!(priority(&lines.next().unwrap().unwrap()).0, 16 * 8 + 3);
    assert_eq!(logger.end(), 0);
}

#[test]
fn over_tls_the_length_comes_first() {
    let authority = Authority::new();
    let ca = std::env::temp_dir().join(format!("ecsd-syslog-ca-{}", std::process::id()));
    fs::write(&ca, authority.pem()).unwrap();
    let server = authority.server(&["localhost"]);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("tcp+tls://localhost:{}", listener.local_addr().unwrap().port());
    let reading = std::thread::spawn(move || {
        let connection = rustls::ServerConnection::new(Arc::clone(&server)).unwrap();
        let mut text = String::new();
        // Some end without the closing alert.
        let _ = rustls::StreamOwned::new(connection, listener.accept().unwrap().0).read_to_string(&mut text);
        text
    });
    let options = json!({"syslog-address": address, "syslog-format": "rfc5424", "syslog-tls-ca-cert": ca});
    let mut logger = Logger::driver("syslog-tls", "syslog", options);
    logger.say("one\nand two\n");
    assert_eq!(logger.end(), 0);
    let text = reading.join().unwrap();
    let mut rest = text.as_str();
    let mut messages = Vec::new();
    while let Some((length, after)) = rest.split_once(' ') {
        let (message, next) = after.split_at(length.parse().unwrap());
        messages.push(message.split_once(" - ").unwrap().1);
        rest = next;
    }
    assert_eq!((messages, rest), (vec!["one\n", "and two\n"], ""));
    fs::remove_file(ca).unwrap();
}

#[test]
fn rfc3164_over_udp() {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(LONG)).unwrap();
    let address = format!("udp://{}", socket.local_addr().unwrap());
    let options = json!({"syslog-address": address, "syslog-format": "rfc3164"});
    let mut logger = Logger::driver("syslog-udp", "syslog", options);
    logger.say("hello\n");
    let mut buffer = [0; 2000];
    let count = socket.recv(&mut buffer).unwrap();
    let text = std::str::from_utf8(&buffer[..count]).unwrap();
    let (number, rest) = priority(text);
    assert_eq!(number, 3 * 8 + 6);
    let (stamp, rest) = rest.split_at("Jan  2 03:04:05".len());
    assert!(stamp.chars().filter(|c| *c == ':').count() == 2 && stamp.is_ascii(), "{stamp}");
    assert_eq!(rest, format!(" {} the-tag[{}]: hello\n", hostname(), logger.child.id()));
    // Nobody listens any more: what UDP loses, nobody waits for.
    drop(socket);
    for _ in 0..100 {
        logger.say("x".repeat(1000) + "\n");
    }
    logger.end();
}

#[test]
fn unix_sockets_of_both_kinds() {
    let directory = std::env::temp_dir().join(format!("ecsd-syslog-{}", std::process::id()));
    fs::create_dir_all(&directory).unwrap();
    let path = directory.join("datagrams");
    let socket = UnixDatagram::bind(&path).unwrap();
    let options = json!({"syslog-address": format!("unixgram://{}", path.display())});
    let mut logger = Logger::driver("syslog-unixgram", "syslog", options);
    let receive = |socket: &UnixDatagram| {
        socket.set_read_timeout(Some(LONG)).unwrap();
        let mut buffer = [0; 2000];
        let count = socket.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..count].to_vec()).unwrap()
    };
    logger.say("local\n");
    let text = receive(&socket);
    assert!(text.ends_with(&format!(" the-tag[{}]: local\n", logger.child.id())), "{text}");
    // The server starts anew, by the same name.
    drop(socket);
    fs::remove_file(&path).unwrap();
    logger.say("meanwhile\n");
    let socket = UnixDatagram::bind(&path).unwrap();
    assert!(receive(&socket).ends_with("meanwhile\n"));
    assert_eq!(logger.end(), 0);

    let path = directory.join("stream");
    let listener = UnixListener::bind(&path).unwrap();
    let options = json!({"syslog-address": format!("unix://{}", path.display())});
    let mut logger = Logger::driver("syslog-unix", "syslog", options);
    logger.say("streamed\n");
    let mut line = String::new();
    BufReader::new(listener.accept().unwrap().0).read_line(&mut line).unwrap();
    assert!(line.ends_with(": streamed\n"), "{line}");
    assert_eq!(logger.end(), 0);
    fs::remove_dir_all(directory).unwrap();
}

#[test]
fn blocking_loses_nothing_while_a_server_is_away() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let server = listener.local_addr().unwrap();
    let mut logger =
        Logger::driver("syslog-restart", "syslog", json!({"syslog-address": format!("tcp://{server}")}));
    let mut lines = BufReader::new(listener.accept().unwrap().0);
    let mut line = String::new();
    logger.say("before\n");
    lines.read_line(&mut line).unwrap();
    assert!(line.ends_with(": before\n"), "{line}");
    drop((lines, listener));
    for number in 0..50 {
        logger.say(format!("{number}\n"));
    }
    until("it is told that the server is gone", || {
        fs::read_to_string(logger.directory.join("complaints")).unwrap().contains("refused")
    });
    let listener = TcpListener::bind(server).unwrap();
    let lines = BufReader::new(listener.accept().unwrap().0).lines();
    let seen: Vec<String> =
        lines.take(50).map(|line| line.unwrap().rsplit(' ').next().unwrap().to_owned()).collect();
    assert_eq!(seen, (0..50).map(|number| number.to_string()).collect::<Vec<_>>());
    assert_eq!(logger.end(), 0);
}

#[test]
fn without_a_server_the_start_fails() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("tcp://{}", listener.local_addr().unwrap());
    drop(listener);
    let mut logger =
        Logger::start("syslog-none", |_| config("syslog", json!({"syslog-address": address})).to_string());
    logger.wait_ready();
    assert!(logger.failure().unwrap().contains("refused"));
    logger.end();
}

/// The field's own server, started privately.
#[test]
fn rsyslog_understands_all_formats() {
    if !Command::new("rsyslogd").arg("-v").output().is_ok_and(|output| output.status.success()) {
        println!("skipped: rsyslogd is not installed (apt-get install rsyslog)");
        return;
    }
    let directory = std::env::temp_dir().join(format!("ecsd-rsyslog-{}", std::process::id()));
    fs::create_dir_all(&directory).unwrap();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let (out, file) = (directory.join("out"), directory.join("rsyslog.conf"));
    let text = format!(
        "global(workDirectory=\"{0}\")\nmodule(load=\"imtcp\")\ninput(type=\"imtcp\" port=\"{port}\" address=\"127.0.0.1\")\n\
         template(name=\"t\" type=\"string\" string=\"%syslogfacility-text%.%syslogseverity-text% %programname% %msg%\\n\")\n\
         *.* action(type=\"omfile\" file=\"{1}\" template=\"t\")\n",
        directory.display(),
        out.display(),
    );
    fs::write(&file, text).unwrap();
    let mut server = Command::new("rsyslogd")
        .args(["-n", "-f"])
        .arg(&file)
        .arg("-i")
        .arg(directory.join("pid"))
        .spawn()
        .unwrap();
    until("it listens", || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
    for format in ["rfc3164", "rfc5424", "rfc5424micro"] {
        let options = json!({
            "syslog-address": format!("tcp://127.0.0.1:{port}"), "syslog-format": format, "syslog-facility": "mail",
        });
        let mut logger = Logger::driver(&format!("rsyslog-{format}"), "syslog", options);
        logger.say(format!("in {format}\n"));
        assert_eq!(logger.end(), 0);
        let want = format!("in {format}");
        until("it is written", || fs::read_to_string(&out).is_ok_and(|text| text.contains(&want)));
        let text = fs::read_to_string(&out).unwrap();
        let line = text.lines().find(|line| line.contains(&want)).unwrap();
        assert_eq!(line.split_whitespace().collect::<Vec<_>>(), ["mail.info", "the-tag", "in", format]);
    }
    server.kill().unwrap();
    server.wait().unwrap();
    fs::remove_dir_all(directory).unwrap();
}
