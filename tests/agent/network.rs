//! Networks of containers, from every side that can reach them.

use crate::support::host::{Host, container, family, run, with_agent};
use crate::support::inspect::{Elsewhere, ON_THE_WIRE, inside};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::time::Duration;

const WEB: &str = "httpd -f -p 80 -h /www";

/// Host port of a container's port, as reported.
fn host_port(task: &ecsd::local::Task, container_port: u16, protocol: &str) -> u16 {
    let bindings = task.containers[0].network_bindings.as_array().unwrap();
    let found = bindings.iter().find(|b| {
        b["containerPort"] == container_port && b["protocol"].as_str().unwrap_or("tcp") == protocol
    });
    let found = found.unwrap_or_else(|| panic!("{container_port}/{protocol}: {bindings:#?}"));
    assert_eq!(found["bindIP"], "0.0.0.0");
    u16::try_from(found["hostPort"].as_u64().unwrap()).unwrap()
}

fn get(address: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(5))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

fn ask(address: SocketAddr) -> std::io::Result<String> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.set_read_timeout(Some(Duration::from_secs(5)))?;
    socket.send_to(b"ping", address)?;
    let mut buffer = [0; 64];
    let (count, from) = socket.recv_from(&mut buffer)?;
    assert_eq!(from, address, "the answer comes from where it was asked");
    Ok(String::from_utf8_lossy(&buffer[..count]).into_owned())
}

/// Answers one datagram in a container's network.
fn answer_datagrams(host: &Host, arn: &str, port: u16, count: usize) -> std::thread::JoinHandle<()> {
    let pid = host.container_pid(arn, "main").unwrap();
    let (bound, is_bound) = std::sync::mpsc::channel();
    let thread = inside(PathBuf::from(format!("/proc/{pid}/ns/net")), move || {
        let socket = UdpSocket::bind(("0.0.0.0", port)).unwrap();
        bound.send(()).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        for _ in 0..count {
            let (_, from) = socket.recv_from(&mut [0; 64]).unwrap();
            socket.send_to(b"pong", from).unwrap();
        }
    });
    is_bound.recv().unwrap();
    thread
}

fn web(ports: Value) -> Value {
    container("main", WEB, json!({"portMappings": ports}))
}

fn serves(host: &str, port: u16) -> bool {
    get(format!("{host}:{port}").parse().unwrap()).is_ok_and(|text| text.contains("hello"))
}

async fn until_served(host: &Host, port: u16) {
    host.until("the container serves", |_| serves("127.0.0.1", port)).await;
}

#[test]
fn mapped_ports_are_reached_from_everywhere_held_and_given_back() {
    with_agent(|host| async move {
        let elsewhere = Elsewhere::new();
        let arn = host.run_task(family(
            "ports",
            [web(json!([
                {"containerPort": 80, "hostPort": 8080},
                {"containerPort": 80, "hostPort": 0},
                {"containerPort": 53, "hostPort": 5353, "protocol": "udp"},
                {"containerPort": 54, "protocol": "udp"},
            ]))],
        ));
        let client = host.run_task(family("client", [container("main", "sleep 3600", json!({}))]));
        let task = host.until_status(&arn, "RUNNING").await;
        host.until_status(&client, "RUNNING").await;
        until_served(&host, 8080).await;
        let bindings = task.containers[0].network_bindings.as_array().unwrap();
        let dynamic =
            bindings.iter().map(|b| b["hostPort"].as_u64().unwrap()).find(|p| ![8080, 5353].contains(p));
        let dynamic = u16::try_from(dynamic.unwrap()).unwrap();
        assert_eq!(host_port(&task, 53, "udp"), 5353);
        let udp = host_port(&task, 54, "udp");
        let gateway = gateway(&host, &client);
        for port in [8080, dynamic] {
            for address in ["127.0.0.1", ON_THE_WIRE, gateway.as_str()] {
                assert!(serves(address, port), "{address}:{port}");
                let url = format!("http://{address}:{port}/");
                if address != "127.0.0.1" {
                    assert_eq!(host.exec(&client, "main", &["wget", "-qO-", &url]), "hello\n", "{url}");
                }
            }
            assert!(inside(elsewhere.namespace(), move || serves(ON_THE_WIRE, port)).join().unwrap());
            // Its own, by the host's address.
            assert_eq!(
                host.exec(&arn, "main", &["wget", "-qO-", &format!("http://{gateway}:{port}/")]),
                "hello\n"
            );
            assert!(TcpListener::bind(("0.0.0.0", port)).is_err(), "{port} is held");
        }
        for (port, inner) in [(5353, 53), (udp, 54)] {
            let server = answer_datagrams(&host, &arn, inner, 3);
            for address in ["127.0.0.1", ON_THE_WIRE] {
                assert_eq!(ask(format!("{address}:{port}").parse().unwrap()).unwrap(), "pong");
            }
            let there =
                inside(elsewhere.namespace(), move || ask(format!("{ON_THE_WIRE}:{port}").parse().unwrap()));
            assert_eq!(there.join().unwrap().unwrap(), "pong");
            server.join().unwrap();
            assert!(UdpSocket::bind(("0.0.0.0", port)).is_err(), "{port} is held");
        }
        assert_eq!(host.port_map().len(), 4);
        host.control.stop_task(&arn, "test").unwrap();
        host.until_status(&arn, "STOPPED").await;
        host.until("the ports are given back", |host| {
            host.port_map().is_empty() && host.links().len() == 1 && host.pins().len() == 1
        })
        .await;
        for port in [8080, dynamic] {
            TcpListener::bind(("0.0.0.0", port)).unwrap();
        }
        UdpSocket::bind(("0.0.0.0", 5353)).unwrap();
        host.control.stop_task(&client, "test").unwrap();
        host.until_nothing_is_left().await;
    });
}

/// The host's address on the containers' network.
fn gateway(host: &Host, arn: &str) -> String {
    let routes = host.exec(arn, "main", &["ip", "route"]);
    let line = routes.lines().find(|line| line.starts_with("default via ")).unwrap();
    line.split(' ').nth(2).unwrap().to_owned()
}

#[test]
fn a_range_of_ports_is_mapped_to_a_range() {
    with_agent(|host| async move {
        let script = "httpd -p 9000 -h /www; httpd -p 9001 -h /www; httpd -f -p 9002 -h /www";
        let mapped =
            container("main", script, json!({"portMappings": [{"containerPortRange": "9000-9002"}]}));
        let arn = host.run_task(family("range", [mapped]));
        let task = host.until_status(&arn, "RUNNING").await;
        let binding = &task.containers[0].network_bindings[0];
        assert_eq!(binding["containerPortRange"], "9000-9002");
        let range = binding["hostPortRange"].as_str().unwrap();
        let (first, last) = range.split_once('-').unwrap();
        let (first, last): (u16, u16) = (first.parse().unwrap(), last.parse().unwrap());
        assert_eq!(last - first, 2);
        for port in first..=last {
            until_served(&host, port).await;
        }
    });
}

#[test]
fn host_mode_uses_the_hosts_network_and_none_has_no_network() {
    with_agent(|host| async move {
        let mut in_host = family(
            "host",
            [container(
                "main",
                "httpd -f -p 8099 -h /www",
                json!({
            "portMappings": [{"containerPort": 8099, "hostPort": 8099}]}),
            )],
        );
        in_host["networkMode"] = "host".into();
        let mut alone = family(
            "none",
            [container("main", "ip -o link; echo; ip route; echo ready; sleep 3600", json!({}))],
        );
        alone["networkMode"] = "none".into();
        let (in_host, alone) = (host.run_task(in_host), host.run_task(alone));
        host.until_status(&in_host, "RUNNING").await;
        until_served(&host, 8099).await;
        let pid = host.container_pid(&in_host, "main").unwrap();
        let (its, ours) = (format!("/proc/{pid}/ns/net"), "/proc/thread-self/ns/net");
        assert_eq!(std::fs::read_link(its).unwrap(), std::fs::read_link(ours).unwrap());
        assert!(host.port_map().is_empty());
        host.until_status(&alone, "RUNNING").await;
        host.until("it has looked", |host| host.logs(&alone, "main").contains("ready")).await;
        let seen = host.logs(&alone, "main");
        let (links, routes) = seen.split_once("\n\n").unwrap();
        assert_eq!(links.lines().count(), 1, "{seen}");
        assert!(links.contains("lo:") && routes.trim() == "ready", "{seen}");
        for arn in [&in_host, &alone] {
            host.control.stop_task(arn, "test").unwrap();
        }
        host.until_nothing_is_left().await;
    });
}

#[test]
fn rules_that_someone_wipes_are_put_back() {
    with_agent(|host| async move {
        let arn = host.run_task(family("wiped", [web(json!([{"containerPort": 80, "hostPort": 8080}]))]));
        host.until_status(&arn, "RUNNING").await;
        until_served(&host, 8080).await;
        run("nft", &["flush", "ruleset"]);
        until_served(&host, 8080).await;
    });
}
