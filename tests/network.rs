//! Container networks on a real kernel: each test is a "host" in a network namespace of its own,
//! with a veth pair to an "outside" namespace. Needs root and the `ip` and `nft` programs.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use ecsd::model::*;
use ecsd::net::{NetError, NetworkOptions, NetworkService};
use ecsd::ports::{NetworkAttachment, Networks};
use nix::sched::{CloneFlags, setns, unshare};
use std::fs::File;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

const HOST: &str = "198.51.100.1";
const OUTSIDE: &str = "198.51.100.2";
/// A connection, or an answer, that takes longer is none.
const WAIT: Duration = Duration::from_secs(5);

struct Host {
    outside: File,
    directory: PathBuf,
}

fn run(command: &str) -> String {
    let mut words = command.split_whitespace();
    let output = Command::new(words.next().unwrap()).args(words).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    text
}

fn own_netns() -> File {
    File::open("/proc/thread-self/ns/net").unwrap()
}

/// Runs `work` on a thread in the namespace `netns`; what it opens stays there.
fn within<T: Send>(netns: &File, work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let entered = scope.spawn(|| {
            setns(netns, CloneFlags::CLONE_NEWNET).unwrap();
            work()
        });
        entered.join().unwrap()
    })
}

/// Runs a test as the host of a fresh pair of namespaces.
fn on_a_host<F: Future<Output = ()>>(name: &str, test: impl FnOnce(Host) -> F + Send) {
    let directory = std::env::temp_dir().join(format!("ecsd-net-{}-{name}", std::process::id()));
    std::thread::scope(|scope| {
        let body = || {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            let outside = std::thread::spawn(|| {
                unshare(CloneFlags::CLONE_NEWNET).unwrap();
                run("ip link set lo up");
                own_netns()
            });
            let outside = outside.join().unwrap();
            let path = format!("/proc/{}/fd/{}", std::process::id(), outside.as_raw_fd());
            run("ip link set lo up");
            run("ip link add up0 type veth peer name out0");
            run(&format!("ip link set out0 netns {path}"));
            run(&format!("ip addr add {HOST}/24 dev up0"));
            run("ip link set up0 up");
            within(&outside, || {
                run(&format!("ip addr add {OUTSIDE}/24 dev out0"));
                run("ip link set out0 up");
                run(&format!("ip route add default via {HOST}"));
            });
            // One thread: those that it starts for blocking work inherit its namespace.
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(test(Host { outside, directory: directory.clone() }));
        };
        let outcome = scope.spawn(body).join();
        for pin in std::fs::read_dir(&directory).into_iter().flatten().flatten() {
            let _ = nix::mount::umount2(&pin.path(), nix::mount::MntFlags::MNT_DETACH);
        }
        let _ = std::fs::remove_dir_all(&directory);
        outcome.unwrap();
    });
}

impl Host {
    fn options(&self) -> NetworkOptions {
        NetworkOptions {
            netns_dir: self.directory.clone(),
            dynamic_port_range: Some((33000, 33999)),
            ..NetworkOptions::default()
        }
    }

    async fn service(&self) -> Arc<NetworkService> {
        let service = NetworkService::new(self.options()).unwrap();
        service.start().await.unwrap();
        Arc::new(service)
    }
}

fn port(container: u16, host_port: u16, protocol: Protocol) -> PortMapping {
    PortMapping { container: PortRange { first: container, count: 1, is_range: false }, host_port, protocol }
}

fn task(id: &str, mode: NetworkMode, containers: &[(&str, Vec<PortMapping>)]) -> TaskSpec {
    let container = |(name, ports): &(&str, Vec<PortMapping>)| ContainerSpec {
        image: "busybox".to_owned(),
        ports: ports.clone(),
        ..ContainerSpec::empty(name)
    };
    TaskSpec {
        family: "f".to_owned(),
        version: "1".to_owned(),
        network_mode: mode,
        containers: containers.iter().map(container).collect(),
        volumes: vec![],
        ..TaskSpec::empty(TaskArn::parse(&format!("arn:aws:ecs:r:1:task/c/{id}")).unwrap())
    }
}

fn pin_of(attachment: &NetworkAttachment) -> &Path {
    match attachment {
        NetworkAttachment::Namespace { path, .. } => path,
        other => panic!("{other:?}"),
    }
}

fn none() -> ContainerAddress {
    ContainerAddress::default()
}

/// Answers each connection (or datagram) with `name` and who asked.
fn serve(netns: &File, name: &'static str, address: &'static str) {
    let (tcp, udp) =
        within(netns, || (TcpListener::bind(address).unwrap(), UdpSocket::bind(address).unwrap()));
    std::thread::spawn(move || {
        for mut stream in tcp.incoming().flatten() {
            let peer = stream.peer_addr().unwrap().ip();
            let _ = write!(stream, "{name} {peer}");
        }
    });
    std::thread::spawn(move || {
        let mut buffer = [0; 64];
        while let Ok((_, peer)) = udp.recv_from(&mut buffer) {
            let _ = udp.send_to(format!("{name} {}", peer.ip()).as_bytes(), peer);
        }
    });
}

fn ask(address: &str, port: u16) -> String {
    let to: SocketAddr = format!("{address}:{port}").parse().unwrap();
    let Ok(mut stream) = TcpStream::connect_timeout(&to, Duration::from_secs(2)) else {
        return String::new();
    };
    stream.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    let mut text = String::new();
    let _ = stream.read_to_string(&mut text);
    text
}

fn ask_udp(address: &str, port: u16) -> String {
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    socket.send_to(b"?", format!("{address}:{port}")).unwrap();
    let mut buffer = [0; 64];
    socket.recv(&mut buffer).map(|n| String::from_utf8_lossy(&buffer[..n]).into_owned()).unwrap_or_default()
}

#[test]
fn a_mapped_port_is_reached_from_everywhere() {
    on_a_host("everywhere", |host| async move {
        let service = host.service().await;
        let ports = vec![port(80, 8099, Protocol::Tcp), port(80, 0, Protocol::Udp)];
        let spec = task("0a", NetworkMode::Bridge, &[("web", ports), ("other", vec![])]);
        let begun = Instant::now();
        let (web, address) = service.attach(&spec, "web", &none()).await.unwrap();
        let first = begun.elapsed();
        let begun = Instant::now();
        let (other, other_address) = service.attach(&spec, "other", &none()).await.unwrap();
        println!("attached in {first:?} and {:?}", begun.elapsed());
        assert_eq!(address.ipv4, Some(Ipv4Addr::new(172, 17, 0, 2)));
        assert_eq!(other_address.ipv4, Some(Ipv4Addr::new(172, 17, 0, 3)));
        assert_eq!((address.bindings[0].host_port, address.bindings[1].host_port), (8099, 33000));
        let (web, other) = (File::open(pin_of(&web)).unwrap(), File::open(pin_of(&other)).unwrap());
        let link = within(&web, || run("ip -br addr show dev eth0") + &run("ip -br link show dev eth0"));
        assert!(link.contains("172.17.0.2/16") && link.contains("02:42:ac:11:00:02"), "{link}");
        assert!(!link.contains("fe80"), "no IPv6 to wait for: {link}");
        serve(&web, "web", "0.0.0.0:80");

        assert_eq!(within(&host.outside, || ask(HOST, 8099)), format!("web {OUTSIDE}"));
        assert_eq!(within(&host.outside, || ask_udp(HOST, 33000)), format!("web {OUTSIDE}"));
        assert_eq!(ask("127.0.0.1", 8099), "web 172.17.0.1");
        assert_eq!(ask_udp("127.0.0.1", 33000), "web 172.17.0.1");
        assert!(ask(HOST, 8099).starts_with("web "), "the host by its own address");
        assert!(ask("172.17.0.1", 8099).starts_with("web "), "the host by the bridge's address");
        assert_eq!(ask("172.17.0.2", 80), "web 172.17.0.1");
        // With and without bridged packets passing netfilter: both are found on real hosts.
        for bridged in ["1", "0"] {
            let _ = std::fs::write("/proc/sys/net/bridge/bridge-nf-call-iptables", bridged);
            for address in [HOST, "172.17.0.1", HOST] {
                let from = format!("by {address}, bridged {bridged}");
                assert!(within(&other, || ask(address, 8099)).starts_with("web "), "another {from}");
                assert!(within(&web, || ask(address, 8099)).starts_with("web "), "itself {from}");
                assert!(within(&other, || ask_udp(address, 33000)).starts_with("web "), "UDP {from}");
                assert!(within(&web, || ask_udp(address, 33000)).starts_with("web "), "itself, UDP {from}");
            }
        }
        assert_eq!(within(&other, || ask("172.17.0.2", 80)), "web 172.17.0.3", "containers reach each other");

        // Out of the bridge with the host's address; not in, but by a mapped port.
        serve(&host.outside, "outside", "0.0.0.0:9");
        assert_eq!(within(&web, || ask(OUTSIDE, 9)), format!("outside {HOST}"));
        assert_eq!(within(&host.outside, || ask("172.17.0.2", 80)), "");
    });
}

#[test]
fn the_metadata_address_leads_to_the_agent_from_containers_and_host() {
    on_a_host("metadata", |host| async move {
        let service = host.service().await;
        let spec = task("0a", NetworkMode::Bridge, &[("a", vec![])]);
        let (attachment, address) = service.attach(&spec, "a", &none()).await.unwrap();
        let netns = File::open(pin_of(&attachment)).unwrap();
        serve(&own_netns(), "agent", "127.0.0.1:51679");
        let container = address.ipv4.unwrap();
        assert_eq!(within(&netns, || ask("169.254.170.2", 80)), format!("agent {container}"));
        assert!(ask("169.254.170.2", 80).starts_with("agent "), "host mode");
        // route_localnet must not open the loopback to a container that forges a route.
        within(&netns, || {
            run("ip link set lo down");
            run("ip route add 127.0.0.0/8 via 172.17.0.1");
            std::fs::write("/proc/sys/net/ipv4/conf/eth0/route_localnet", "1").unwrap();
            assert_eq!(ask("127.0.0.1", 51679), "");
        });
    });
}

#[test]
fn a_port_in_use_is_named_and_nothing_is_left_of_the_attempt() {
    on_a_host("conflict", |host| async move {
        let service = host.service().await;
        let _someone = TcpListener::bind("0.0.0.0:8080").unwrap();
        let spec = task("0a", NetworkMode::Bridge, &[("a", vec![port(80, 8080, Protocol::Tcp)])]);
        let error = service.attach(&spec, "a", &none()).await.unwrap_err();
        let text = "CannotStartContainerError: host port 8080/tcp is already in use on this host";
        assert_eq!(error.to_string(), text);
        assert_eq!(std::fs::read_dir(&host.directory).unwrap().count(), 0);
        let spec = task("0b", NetworkMode::Bridge, &[("a", vec![port(80, 8081, Protocol::Tcp)])]);
        service.attach(&spec, "a", &none()).await.unwrap();
        assert!(TcpListener::bind("0.0.0.0:8081").is_err(), "held while mapped");
        let again = task("0c", NetworkMode::Bridge, &[("b", vec![port(80, 8081, Protocol::Tcp)])]);
        let error = service.attach(&again, "b", &none()).await.unwrap_err();
        assert!(error.message.ends_with("in use on this host, by container 0b/a"), "{error}");
        service.detach(&spec, "a").await.unwrap();
        service.attach(&again, "b", &none()).await.unwrap();
    });
}

#[test]
fn a_range_gets_contiguous_ports_and_all_of_them_work() {
    on_a_host("range", |host| async move {
        let service = host.service().await;
        let _someone = TcpListener::bind("0.0.0.0:33002").unwrap();
        let range = PortRange { first: 9000, count: 4, is_range: true };
        let mapping = PortMapping { container: range, host_port: 0, protocol: Protocol::Tcp };
        let spec = task("0a", NetworkMode::Bridge, &[("a", vec![mapping])]);
        let (attachment, address) = service.attach(&spec, "a", &none()).await.unwrap();
        assert_eq!((address.bindings[0].host_port, address.bindings[0].count), (33003, 4));
        let netns = File::open(pin_of(&attachment)).unwrap();
        for (server, host_port) in ["0.0.0.0:9000", "0.0.0.0:9003"].into_iter().zip([33003, 33006]) {
            serve(&netns, server, server);
            assert!(ask("127.0.0.1", host_port).starts_with(server));
        }
    });
}

#[test]
fn wiped_rules_come_back_by_themselves_and_with_the_next_container() {
    on_a_host("wipe", |host| async move {
        let service = host.service().await;
        let spec = task(
            "0a",
            NetworkMode::Bridge,
            &[("a", vec![port(80, 8081, Protocol::Tcp)]), ("b", vec![port(80, 8082, Protocol::Tcp)])],
        );
        let (attachment, _) = service.attach(&spec, "a", &none()).await.unwrap();
        serve(&File::open(pin_of(&attachment)).unwrap(), "a", "0.0.0.0:80");
        run("nft flush ruleset");
        assert_ne!(ask("127.0.0.1", 8081), "a 172.17.0.1");
        service.attach(&spec, "b", &none()).await.unwrap();
        assert_eq!(ask("127.0.0.1", 8081), "a 172.17.0.1", "put back by the next container");

        let keeper = tokio::spawn({
            let service = service.clone();
            async move { service.keep_rules().await }
        });
        for wipe in ["nft flush ruleset", "nft flush table inet ecsd", "nft delete table inet ecsd"] {
            tokio::time::sleep(Duration::from_millis(50)).await;
            run(wipe);
            let begun = Instant::now();
            while !run("nft list ruleset").contains("8082") || !run("nft list ruleset").contains("masquerade")
            {
                assert!(begun.elapsed() < WAIT, "{wipe}: the rules did not come back");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            assert_eq!(ask("127.0.0.1", 8081), "a 172.17.0.1", "{wipe}");
        }
        keeper.abort();
    });
}

#[test]
fn a_new_agent_takes_over_what_lives_and_removes_what_does_not() {
    on_a_host("restore", |host| async move {
        let spec = task(
            "0a",
            NetworkMode::Bridge,
            &[("live", vec![port(80, 0, Protocol::Tcp)]), ("dead", vec![port(80, 8082, Protocol::Tcp)])],
        );
        let lone = task("0b", NetworkMode::None, &[("lone", vec![])]);
        let before = host.service().await;
        before.attach(&spec, "dead", &none()).await.unwrap();
        let (attachment, address) = before.attach(&spec, "live", &none()).await.unwrap();
        let (alone, _) = before.attach(&lone, "lone", &none()).await.unwrap();
        let netns = File::open(pin_of(&attachment)).unwrap();
        serve(&netns, "live", "0.0.0.0:80");
        drop(before); // a crash: the sockets close, the kernel's state stays

        let after = host.service().await;
        let host_port = address.bindings[0].host_port;
        assert_eq!(ask("127.0.0.1", host_port), "live 172.17.0.1", "the start interrupts nothing");
        let live = vec![(spec.key("live"), address.clone()), (lone.key("lone"), none())];
        after.restore(live.clone()).await.unwrap();
        assert_eq!(ask("127.0.0.1", host_port), "live 172.17.0.1");
        assert!(TcpListener::bind(("0.0.0.0", host_port)).is_err(), "held again");
        TcpListener::bind("0.0.0.0:8082").expect("let go");
        assert_eq!(run("ip -br link show master ecs-br0").lines().count(), 1);
        assert_eq!(std::fs::read_dir(&host.directory).unwrap().count(), 2);
        assert!(!run("nft list ruleset").contains("8082"));
        after.restore(live).await.unwrap();

        // Attached again with what is known: the same namespace, not a new one.
        let (again, same) = after.attach(&spec, "live", &address).await.unwrap();
        assert_eq!((again, same), (attachment, address));
        assert_eq!(after.attach(&lone, "lone", &none()).await.unwrap().0, alone);
        assert_eq!(ask("127.0.0.1", host_port), "live 172.17.0.1");
        let (_, fresh) = after.attach(&spec, "dead", &none()).await.unwrap();
        assert_eq!(fresh.bindings[0].host_port, 8082);
    });
}

#[test]
fn without_a_restore_known_containers_are_adopted_and_rebuilt_where_they_are_gone() {
    on_a_host("known", |host| async move {
        let spec = task("0a", NetworkMode::Bridge, &[("a", vec![port(80, 0, Protocol::Tcp)])]);
        let before = host.service().await;
        let (attachment, address) = before.attach(&spec, "a", &none()).await.unwrap();
        serve(&File::open(pin_of(&attachment)).unwrap(), "a", "0.0.0.0:80");
        drop(before);
        let after = host.service().await;
        assert_eq!(after.attach(&spec, "a", &address).await.unwrap(), (attachment, address.clone()));
        assert_eq!(ask("127.0.0.1", address.bindings[0].host_port), "a 172.17.0.1");
        after.detach(&spec, "a").await.unwrap();
        // As after a reboot: the record is all there is.
        let (rebuilt, same) = after.attach(&spec, "a", &address).await.unwrap();
        assert_eq!(same, address);
        serve(&File::open(pin_of(&rebuilt)).unwrap(), "again", "0.0.0.0:80");
        assert_eq!(ask("127.0.0.1", address.bindings[0].host_port), "again 172.17.0.1");
    });
}

#[test]
fn nothing_is_left_after_detaching_and_taking_down() {
    on_a_host("nothing", |host| async move {
        let service = host.service().await;
        let bridge = task("0a", NetworkMode::Bridge, &[("a", vec![port(80, 8081, Protocol::Tcp)])]);
        let lone = task("0b", NetworkMode::None, &[("a", vec![])]);
        let shared = task("0c", NetworkMode::Host, &[("a", vec![port(80, 80, Protocol::Tcp)])]);
        service.attach(&bridge, "a", &none()).await.unwrap();
        let (attachment, address) = service.attach(&lone, "a", &none()).await.unwrap();
        assert_eq!(address, none());
        let netns = File::open(pin_of(&attachment)).unwrap();
        assert_eq!(within(&netns, || run("ip -br link")).lines().count(), 1, "loopback only");
        within(&netns, || {
            TcpListener::bind("127.0.0.1:0").map(|l| TcpStream::connect(l.local_addr().unwrap()).unwrap())
        })
        .unwrap();
        drop(netns);
        assert_eq!(service.attach(&shared, "a", &none()).await.unwrap(), (NetworkAttachment::Host, none()));
        for _ in 0..2 {
            for spec in [&bridge, &lone, &shared] {
                service.detach(spec, "a").await.unwrap();
            }
        }
        assert_eq!(std::fs::read_dir(&host.directory).unwrap().count(), 0);
        assert_eq!(run("ip -br link show master ecs-br0"), "");
        assert!(!run("nft list ruleset").contains("8081"));
        TcpListener::bind("0.0.0.0:8081").expect("let go");

        service.attach(&bridge, "a", &none()).await.unwrap();
        service.remove_all().await.unwrap();
        assert_eq!(run("nft list ruleset"), "");
        assert!(!run("ip -br link").contains("ecs"));
        assert!(!host.directory.exists());
        assert_eq!(run("ip route show 169.254.170.2"), "");
        TcpListener::bind("0.0.0.0:8081").expect("let go");
        service.remove_all().await.unwrap();
        let error = service.attach(&bridge, "a", &none()).await.unwrap_err();
        assert!(error.message.contains("not started"), "{error}");
    });
}

#[test]
fn the_bridge_avoids_networks_of_the_host_and_keeps_its_own() {
    on_a_host("subnet", |host| async move {
        run("ip route add 172.17.3.0/24 via 198.51.100.2");
        run("ip addr add 172.18.0.9/16 dev up0");
        let service = host.service().await;
        assert_eq!(service.gateway(), Some(Ipv4Addr::new(172, 19, 0, 1)));
        run("ip route del 172.17.3.0/24");
        drop(service);
        assert_eq!(host.service().await.gateway(), Some(Ipv4Addr::new(172, 19, 0, 1)));
        for (bridge, table) in [("way-too-long-a-name", "ecsd"), ("ecs-br0", "x { drop"), ("", "ecsd")] {
            let options =
                NetworkOptions { bridge_name: bridge.into(), table: table.into(), ..host.options() };
            assert!(matches!(NetworkService::new(options), Err(NetError::BadName { .. })));
        }
        let missing =
            NetworkOptions { nft_program: "/no/such/nft".into(), table: "t2".into(), ..host.options() };
        let error = NetworkService::new(missing).unwrap().start().await.unwrap_err();
        assert!(error.to_string().contains("/no/such/nft") && error.to_string().contains("install nftables"));
    });
}

#[test]
fn a_udp_client_that_never_stops_reaches_the_next_container() {
    on_a_host("flows", |host| async move {
        let service = host.service().await;
        let first = task("0a", NetworkMode::Bridge, &[("a", vec![port(53, 5353, Protocol::Udp)])]);
        let second = task("0b", NetworkMode::Bridge, &[("b", vec![port(53, 5353, Protocol::Udp)])]);
        // One socket throughout: one flow, as the kernel sees it.
        let client = within(&host.outside, || UdpSocket::bind("0.0.0.0:0").unwrap());
        client.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
        let mut buffer = [0; 64];
        let mut ask = || {
            client.send_to(b"?", (HOST, 5353)).unwrap();
            client
                .recv(&mut buffer)
                .map(|n| String::from_utf8_lossy(&buffer[..n]).into_owned())
                .unwrap_or_default()
        };
        assert_eq!(ask(), "");
        // A datagram may be lost while the server binds; a flow that is held wrongly never gets one through.
        let mut answer = || (0..10).map(|_| ask()).find(|text| !text.is_empty()).unwrap_or_default();
        let (attachment, _) = service.attach(&first, "a", &none()).await.unwrap();
        serve(&File::open(pin_of(&attachment)).unwrap(), "first", "0.0.0.0:53");
        assert_eq!(answer(), format!("first {OUTSIDE}"));
        service.detach(&first, "a").await.unwrap();
        let (attachment, _) = service.attach(&second, "b", &none()).await.unwrap();
        serve(&File::open(pin_of(&attachment)).unwrap(), "second", "0.0.0.0:53");
        assert_eq!(answer(), format!("second {OUTSIDE}"));
    });
}
