//! Holding host ports: an open socket a port, so that nobody else gets it while it is mapped.
//! NAT comes before the socket, so no packet ever reaches it.

use super::error::{NetError, check_ports};
use crate::model::{NetworkBinding, Protocol};
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrIn, SockaddrIn6, bind, listen, setsockopt, socket,
    sockopt,
};
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsRawFd, OwnedFd};

/// The ports of one container. Dropping it lets them go.
#[derive(Debug, Default)]
pub(super) struct HeldPorts {
    sockets: Vec<OwnedFd>,
}

impl HeldPorts {
    /// Takes all ports of a binding, or none.
    ///
    /// # Errors
    /// [`NetError::PortInUse`] names the port that someone else has.
    pub(super) fn add(&mut self, binding: &NetworkBinding) -> Result<(), NetError> {
        check_ports(binding)?;
        let mut taken = Vec::new();
        for port in (binding.host_port..=u16::MAX).take(usize::from(binding.count.max(1))) {
            hold(port, binding.protocol, &mut taken).map_err(|errno| match errno {
                Errno::EADDRINUSE => {
                    NetError::PortInUse { port, protocol: binding.protocol, hint: String::new() }
                }
                other => {
                    let source = io::Error::from_raw_os_error(other as i32);
                    NetError::Port { port, protocol: binding.protocol, source }
                }
            })?;
        }
        self.sockets.append(&mut taken);
        Ok(())
    }
}

fn hold(port: u16, protocol: Protocol, taken: &mut Vec<OwnedFd>) -> Result<(), Errno> {
    taken.push(hold_v4(port, protocol)?);
    match hold_v6(port, protocol) {
        Ok(socket) => taken.push(socket),
        Err(Errno::EAFNOSUPPORT | Errno::EADDRNOTAVAIL) => {} // a host without IPv6
        Err(other) => return Err(other),
    }
    Ok(())
}

/// Bound and, for TCP, listening. SO_REUSEADDR passes by the remains of closed connections
/// (TIME_WAIT); it is taken back at once, because between two sockets that both have
/// it the kernel sees no conflict.
fn hold_v4(port: u16, protocol: Protocol) -> Result<OwnedFd, Errno> {
    let fd = open(AddressFamily::Inet, protocol)?;
    let reuse = protocol == Protocol::Tcp;
    setsockopt(&fd, sockopt::ReuseAddr, &reuse)?;
    bind(fd.as_raw_fd(), &SockaddrIn::from(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, port)))?;
    if protocol == Protocol::Tcp {
        // Checks for conflicts once more.
        listen(&fd, Backlog::new(1)?)?;
    }
    setsockopt(&fd, sockopt::ReuseAddr, &false)?;
    Ok(fd)
}

/// IPv6 on its own, and for TCP not listening: nothing is mapped from IPv6, so whoever tries
/// `[::1]` first is refused at once and goes on to IPv4, instead of hanging in our backlog.
fn hold_v6(port: u16, protocol: Protocol) -> Result<OwnedFd, Errno> {
    let fd = open(AddressFamily::Inet6, protocol)?;
    setsockopt(&fd, sockopt::Ipv6V6Only, &true)?;
    setsockopt(&fd, sockopt::ReuseAddr, &(protocol == Protocol::Tcp))?;
    bind(fd.as_raw_fd(), &SockaddrIn6::from(SocketAddrV6::new(Ipv6Addr::UNSPECIFIED, port, 0, 0)))?;
    setsockopt(&fd, sockopt::ReuseAddr, &false)?;
    Ok(fd)
}

fn open(family: AddressFamily, protocol: Protocol) -> Result<OwnedFd, Errno> {
    let kind = match protocol {
        Protocol::Tcp => SockType::Stream,
        Protocol::Udp => SockType::Datagram,
    };
    socket(family, kind, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK, None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream, UdpSocket};

    fn binding(port: u16, count: u16, protocol: Protocol) -> NetworkBinding {
        let bind_ip = Ipv4Addr::UNSPECIFIED;
        NetworkBinding { bind_ip, container_port: 1, host_port: port, count, is_range: false, protocol }
    }

    fn free_port() -> u16 {
        TcpListener::bind("0.0.0.0:0").unwrap().local_addr().unwrap().port()
    }

    #[test]
    fn a_held_port_is_nobody_elses_until_it_is_let_go() {
        let port = free_port();
        let mut held = HeldPorts::default();
        held.add(&binding(port, 1, Protocol::Tcp)).unwrap();
        held.add(&binding(port, 1, Protocol::Udp)).unwrap();
        // The standard library's listener has SO_REUSEADDR.
        assert!(TcpListener::bind(("127.0.0.1", port)).is_err());
        assert!(TcpListener::bind(("::1", port)).is_err());
        assert!(UdpSocket::bind(("0.0.0.0", port)).is_err());
        assert!(UdpSocket::bind(("::1", port)).is_err());
        assert!(TcpStream::connect(("::1", port)).is_err(), "IPv6 is refused, not kept waiting");
        let error = HeldPorts::default().add(&binding(port, 1, Protocol::Tcp)).unwrap_err();
        assert_eq!(error.to_string(), format!("host port {port}/tcp is already in use on this host"));
        drop(held);
        TcpListener::bind(("0.0.0.0", port)).unwrap();
    }

    #[test]
    fn remains_of_closed_connections_are_no_conflict() {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = server.local_addr().unwrap();
        let client = TcpStream::connect(address).unwrap();
        let (accepted, _) = server.accept().unwrap();
        drop(accepted); // the server's side closes first and keeps TIME_WAIT
        drop(client);
        drop(server);
        HeldPorts::default().add(&binding(address.port(), 1, Protocol::Tcp)).unwrap();
    }

    #[test]
    fn ports_that_do_not_exist_are_named() {
        let error = HeldPorts::default().add(&binding(65535, 2, Protocol::Tcp)).unwrap_err();
        assert!(error.to_string().contains("65536"), "{error}");
        assert!(HeldPorts::default().add(&binding(0, 1, Protocol::Udp)).is_err());
    }
}
