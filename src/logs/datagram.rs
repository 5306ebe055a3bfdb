//! Datagrams to a log server: UDP, or a unix socket. Nobody knows whether a datagram over UDP arrived;
//! what the kernel knows (nobody listens on this host) is an error of the datagram after it.

use std::io::{self, ErrorKind};
use std::net::{ToSocketAddrs, UdpSocket};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A unix socket whose reader is slow is waited for so long at a time.
const STEP: Duration = Duration::from_secs(1);

/// A socket that sends.
#[derive(Debug)]
pub enum Datagrams {
    /// UDP.
    Udp(UdpSocket),
    /// A unix socket; not connected where its server went away.
    Unix {
        /// Where it listens.
        path: PathBuf,
        /// The socket.
        socket: UnixDatagram,
    },
}

impl Datagrams {
    /// To a host.
    ///
    /// # Errors
    /// There is no such host, in words.
    pub fn udp(host: &str, port: u16) -> Result<Self, String> {
        let named = |error: io::Error| format!("dial udp {host}:{port}: {error}");
        let address = (host, port).to_socket_addrs().map_err(named)?.next();
        let address = address.ok_or_else(|| named(ErrorKind::NotFound.into()))?;
        let any = if address.is_ipv6() { "[::]:0" } else { "0.0.0.0:0" };
        let socket = UdpSocket::bind(any).and_then(|socket| socket.connect(address).map(|()| socket));
        socket.map(Self::Udp).map_err(named)
    }

    /// To a socket of this host.
    ///
    /// # Errors
    /// Nobody listens there, in words.
    pub fn unix(path: &Path) -> Result<Self, String> {
        let connect = || {
            let socket = UnixDatagram::unbound()?;
            socket.set_write_timeout(Some(STEP))?;
            socket.connect(path)?;
            Ok(socket)
        };
        let socket =
            connect().map_err(|error: io::Error| format!("dial unixgram {}: {error}", path.display()))?;
        Ok(Self::Unix { path: path.to_owned(), socket })
    }

    /// Sends one.
    ///
    /// # Errors
    /// `WouldBlock` where the reader is slow; else the kernel's.
    pub fn send(&mut self, datagram: &[u8]) -> io::Result<()> {
        match self {
            Self::Udp(socket) => match socket.send(datagram) {
                // It was the one before that found nobody. This one may.
                Err(error) if error.kind() == ErrorKind::ConnectionRefused => socket.send(datagram).map(drop),
                other => other.map(drop),
            },
            Self::Unix { path, socket } => match socket.send(datagram) {
                Ok(_) => Ok(()),
                Err(error) if is_gone(&error) => {
                    // A new server has a new socket by the same name.
                    socket.connect(path)?;
                    socket.send(datagram).map(drop)
                }
                Err(error) => Err(error),
            },
        }
    }

    /// The datagram is longer than any can be.
    pub fn is_too_long(error: &io::Error) -> bool {
        error.raw_os_error() == Some(nix::errno::Errno::EMSGSIZE as i32)
    }
}

fn is_gone(error: &io::Error) -> bool {
    use ErrorKind::{BrokenPipe, ConnectionRefused, ConnectionReset, NotConnected, NotFound};
    matches!(error.kind(), BrokenPipe | ConnectionRefused | ConnectionReset | NotConnected | NotFound)
}
