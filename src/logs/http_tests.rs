use super::*;
use std::net::{SocketAddr, TcpListener};
use std::sync::mpsc::{Receiver, channel};

/// A server that answers each connection with these bytes, one after the other request, and then closes
/// it; what was asked comes out of the channel.
fn server(connections: Vec<Vec<&'static [u8]>>) -> (SocketAddr, Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (said, heard) = channel();
    std::thread::spawn(move || {
        for answers in connections {
            let (mut stream, _) = listener.accept().unwrap();
            for answer in answers {
                let mut seen = Vec::new();
                while !seen.ends_with(b"\r\n\r\nbody") && !seen.ends_with(b"0\r\n\r\n") && !is_connect(&seen)
                {
                    let mut chunk = [0; 1024];
                    let count = stream.read(&mut chunk).unwrap();
                    assert!(count > 0, "{}", String::from_utf8_lossy(&seen));
                    seen.extend_from_slice(&chunk[..count]);
                }
                said.send(String::from_utf8(seen).unwrap()).unwrap();
                // Who was sent too much does not read it all.
                let _ = stream.write_all(answer);
            }
        }
    });
    (address, heard)
}

fn is_connect(seen: &[u8]) -> bool {
    seen.starts_with(b"CONNECT ") && seen.ends_with(b"\r\n\r\n")
}

fn client(address: SocketAddr, variables: &[(&str, &str)]) -> Client {
    let url = Url::parse(&format!("http://{address}")).unwrap();
    Client::new(&url, &variables.iter().copied().collect()).unwrap()
}

fn get(client: &mut Client) -> Result<Answer, HttpError> {
    client.send(&Request { method: "GET", path: "/x?y", headers: &[("A", "b")], body: b"" })
}

#[test]
fn requests_are_plain_and_a_connection_is_kept() {
    let (address, heard) = server(vec![vec![
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-Some: Thing\r\n\r\nhi",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 201 Made\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 204 None\r\n\r\n",
    ]]);
    let mut client = client(address, &[]);
    let answer = get(&mut client).unwrap();
    assert_eq!((answer.status, answer.reason.as_str(), answer.body.as_slice()), (200, "OK", &b"hi"[..]));
    assert_eq!(answer.header("x-some"), Some("Thing"));
    let expected = format!("GET /x?y HTTP/1.1\r\nHost: {address}\r\nA: b\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(heard.recv().unwrap(), expected);
    let post = Request { method: "POST", path: "/", headers: &[], body: b"body" };
    assert_eq!(client.send(&post).unwrap().status, 201);
    assert!(heard.recv().unwrap().ends_with("Content-Length: 4\r\n\r\nbody"));
    assert_eq!(get(&mut client).unwrap().status, 204);
}

#[test]
fn a_kept_connection_that_was_closed_is_replaced_once() {
    let ok: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
    let (address, heard) = server(vec![vec![ok], vec![ok], vec![]]);
    let mut client = client(address, &[]);
    get(&mut client).unwrap();
    get(&mut client).unwrap();
    assert_eq!(heard.iter().take(2).count(), 2);
    let error = get(&mut client).unwrap_err().to_string();
    assert!(error.contains(&address.to_string()), "{error}");
}

#[test]
fn bodies_come_in_chunks_or_to_the_end_of_the_connection() {
    let (address, _heard) = server(vec![
        vec![b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n"],
        vec![b"HTTP/1.1 200 OK\r\n\r\nto the end"],
        vec![b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 1\r\n\r\nx"],
        vec![b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"],
    ]);
    let mut client = client(address, &[]);
    let texts: Vec<_> = (0..4).map(|_| String::from_utf8(get(&mut client).unwrap().body).unwrap()).collect();
    assert_eq!(texts, ["abcde", "to the end", "x", ""]);
}

#[test]
fn what_is_no_answer_is_an_error_and_nothing_is_read_without_end() {
    let long: &'static [u8] = Vec::leak([b"HTTP/1.1 200 OK\r\nX: ".to_vec(), vec![b'x'; 1 << 20]].concat());
    let body: &'static [u8] = Vec::leak(
        [b"HTTP/1.1 500 No\r\nContent-Length: 1048576\r\n\r\n".to_vec(), vec![b'x'; 1 << 20]].concat(),
    );
    let (address, _heard) = server(vec![
        vec![b"SSH-2.0-OpenSSH\r\n\r\n"],
        vec![b"HTTP/1.1 200 OK\r\nContent-Le"],
        vec![b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"],
        vec![b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n"],
        vec![long],
        vec![body],
    ]);
    let mut client = client(address, &[]);
    for _ in 0..5 {
        assert!(get(&mut client).is_err());
    }
    let answer = get(&mut client).unwrap();
    assert_eq!((answer.status, answer.body.len()), (500, BODY_MAX));
}

#[test]
fn a_proxy_is_asked_for_plain_hosts_and_tunnels_to_others() {
    let (address, heard) = server(vec![
        vec![b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"],
        vec![b"HTTP/1.1 407 Authenticate\r\n\r\n"],
    ]);
    let proxy = format!("http://user:CANARY@{address}");
    let environment: Environment =
        [("HTTP_PROXY", proxy.as_str()), ("HTTPS_PROXY", proxy.as_str())].into_iter().collect();
    let to = |url: &str| Client::new(&Url::parse(url).unwrap(), &environment).unwrap();
    get(&mut to("http://logs.example")).unwrap();
    let asked = heard.recv().unwrap();
    assert!(asked.starts_with("GET http://logs.example/x?y HTTP/1.1\r\nHost: logs.example\r\n"), "{asked}");
    assert!(asked.contains("Proxy-Authorization: Basic dXNlcjpDQU5BUlk="), "{asked}");
    let error = get(&mut to("https://logs.example")).unwrap_err().to_string();
    assert!(heard.recv().unwrap().starts_with("CONNECT logs.example:443 HTTP/1.1\r\n"));
    assert!(error.contains("refused to reach logs.example:443: status 407"), "{error}");
    assert!(!error.contains("CANARY"));
}

#[test]
fn nothing_can_be_slipped_into_a_request() {
    let (address, _heard) = server(vec![vec![]]);
    let headers = [("A", "b\r\nX-Other: c")];
    let sent = client(address, &[]).send(&Request { method: "GET", path: "/", headers: &headers, body: b"" });
    assert!(sent.is_err());
    assert!(Client::new(&Url::parse("ftp://x").unwrap(), &Environment::default()).is_err());
}
