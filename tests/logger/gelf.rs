//! GELF, against sockets that put chunks together and unpack them on their own.

use super::program::{ID, LONG, Logger};
use flate2::read::{GzDecoder, ZlibDecoder};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read};
use std::net::{TcpListener, UdpSocket};

/// One message: a datagram, or the chunks of one in their order.
fn receive(socket: &UdpSocket) -> (Vec<u8>, usize) {
    let mut chunks: Vec<Option<Vec<u8>>> = Vec::new();
    let mut id = None;
    loop {
        let mut buffer = [0; 65536];
        let count = socket.recv(&mut buffer).unwrap();
        let datagram = &buffer[..count];
        assert!(count <= 1420);
        if !datagram.starts_with(&[0x1e, 0x0f]) {
            return (datagram.to_vec(), 1);
        }
        assert_eq!(*id.get_or_insert(datagram[2..10].to_vec()), datagram[2..10]);
        chunks.resize(usize::from(datagram[11]), None);
        chunks[usize::from(datagram[10])] = Some(datagram[12..].to_vec());
        if chunks.iter().all(Option::is_some) {
            let count = chunks.len();
            return (chunks.into_iter().flatten().flatten().collect(), count);
        }
    }
}

fn server() -> (UdpSocket, String) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(LONG)).unwrap();
    let address = format!("udp://{}", socket.local_addr().unwrap());
    (socket, address)
}

#[test]
fn datagrams_are_compressed_and_have_dockers_names() {
    let (socket, address) = server();
    let mut logger = Logger::driver("gelf", "gelf", json!({"gelf-address": address}));
    logger.complain("\noops\n");
    let (packed, _) = receive(&socket);
    let message: Value = serde_json::from_reader(GzDecoder::new(packed.as_slice())).unwrap();
    let hostname = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    assert!(message["timestamp"].as_f64().unwrap() > 1_700_000_000.0);
    let mut rest = message.clone();
    rest.as_object_mut().unwrap().remove("timestamp");
    assert_eq!(
        rest,
        json!({
            "version": "1.1", "host": hostname.trim(), "short_message": "oops", "level": 3,
            "_container_id": ID, "_container_name": "ecs-web-3-app-00", "_image_id": "sha256:fe",
            "_image_name": "web:1", "_command": "sh -c x", "_tag": "the-tag",
            "_created": "2023-11-14T22:13:20.123Z", "_STAGE": "prod", "_com.example.team": "core",
        })
    );
    assert_eq!(logger.end(), 0);
}

#[test]
fn long_messages_come_in_chunks() {
    let (socket, address) = server();
    let options = json!({"gelf-address": address, "gelf-compression-type": "none"});
    let mut logger = Logger::driver("gelf-chunks", "gelf", options);
    logger.say(format!("{}\n", "x".repeat(10_000)));
    let (text, chunks) = receive(&socket);
    let message: Value = serde_json::from_slice(&text).unwrap();
    assert_eq!(
        (message["short_message"].as_str().unwrap().len(), message["level"].as_u64()),
        (10_000, Some(6))
    );
    assert!(chunks > 7, "{chunks}");
    assert_eq!(logger.end(), 0);
}

#[test]
fn zlib_is_another_compression() {
    let (socket, address) = server();
    let options =
        json!({"gelf-address": address, "gelf-compression-type": "zlib", "gelf-compression-level": "9"});
    let mut logger = Logger::driver("gelf-zlib", "gelf", options);
    logger.say("small\n");
    let mut text = String::new();
    ZlibDecoder::new(receive(&socket).0.as_slice()).read_to_string(&mut text).unwrap();
    assert_eq!(serde_json::from_str::<Value>(&text).unwrap()["short_message"], "small");
    assert_eq!(logger.end(), 0);
}

#[test]
fn over_tcp_messages_end_with_a_zero_and_outlive_the_server() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let server = listener.local_addr().unwrap();
    let options = json!({"gelf-address": format!("tcp://{server}"), "gelf-tcp-reconnect-delay": "0"});
    let mut logger = Logger::driver("gelf-tcp", "gelf", options);
    let take = |from: &mut dyn BufRead| {
        let mut text = Vec::new();
        from.read_until(0, &mut text).unwrap();
        assert_eq!(text.pop(), Some(0));
        let message: Value = serde_json::from_slice(&text).unwrap();
        message["short_message"].as_str().unwrap().to_owned()
    };
    let mut stream = BufReader::new(listener.accept().unwrap().0);
    logger.say("one\n");
    assert_eq!(take(&mut stream), "one");
    drop((stream, listener));
    logger.say("two\nthree\n");
    let listener = TcpListener::bind(server).unwrap();
    let mut stream = BufReader::new(listener.accept().unwrap().0);
    assert_eq!((take(&mut stream), take(&mut stream)), ("two".to_owned(), "three".to_owned()));
    assert_eq!(logger.end(), 0);
}
