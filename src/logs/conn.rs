//! A connection to a log server: TCP, TLS or a unix socket, made when it is needed and again after it
//! broke. It blocks for [`STEP`] at the most; a frame that is half sent by then goes on when the same
//! frame is sent again, and is sent anew where the connection broke.

use super::tls::TlsFiles;
use crate::model::logging::ServerAddress;
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a write or a read waits before it is tried again by whoever has the message.
const STEP: Duration = Duration::from_secs(1);
/// How long a connection may take to be made.
const CONNECT: Duration = Duration::from_secs(3);

/// A connection that may be broken.
pub struct Connection {
    address: ServerAddress,
    tls: Option<Arc<ClientConfig>>,
    /// A connection on which nothing moves for so long is given up.
    stall_limit: Duration,
    open: Option<Open>,
}

struct Open {
    stream: Stream,
    since: Instant,
    /// Bytes of the frame at hand that are sent.
    sent: usize,
    moved: Instant,
}

enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Connection {
    /// Not connected yet.
    ///
    /// # Errors
    /// TLS files that can't be used, in words.
    pub fn new(
        address: ServerAddress,
        tls: &TlsFiles,
        stall_limit: Option<Duration>,
    ) -> Result<Self, String> {
        let tls = match &address {
            ServerAddress::Tls(..) => Some(tls.config()?),
            _ => None,
        };
        let stall_limit = stall_limit.unwrap_or(Duration::from_secs(60));
        Ok(Self { address, tls, stall_limit, open: None })
    }

    /// Connects, where it is not.
    ///
    /// # Errors
    /// The kernel's, with the address.
    pub fn connect(&mut self) -> io::Result<()> {
        self.opened().map(|_| ())
    }

    /// Closes it.
    pub fn close(&mut self) {
        let Some(mut open) = self.open.take() else { return };
        if let Stream::Tls(tls) = &mut open.stream {
            tls.conn.send_close_notify();
            let _ = tls.flush();
        }
    }

    /// For how long it has been connected.
    pub fn age(&self) -> Option<Duration> {
        self.open.as_ref().map(|open| open.since.elapsed())
    }

    /// Bytes of the frame at hand are on their way.
    pub fn is_amid(&self) -> bool {
        self.open.as_ref().is_some_and(|open| open.sent > 0)
    }

    /// Sends a frame. After `WouldBlock` the same frame must come again.
    ///
    /// # Errors
    /// `WouldBlock` where the server is slow; else the connection is closed, and the frame may or may
    /// not have arrived.
    pub fn send(&mut self, frame: &[u8]) -> io::Result<()> {
        let stall_limit = self.stall_limit;
        let open = self.opened()?;
        let result = open.send(frame, stall_limit);
        self.settle(result)
    }

    /// Reads what comes, at least a byte.
    ///
    /// # Errors
    /// `WouldBlock` where nothing came within a second; else the connection is closed.
    pub fn receive(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let open = self.open.as_mut().ok_or(ErrorKind::NotConnected)?;
        let result = match open.stream.read(buffer) {
            Ok(0) => Err(ErrorKind::UnexpectedEof.into()),
            other => other,
        };
        self.settle(result)
    }

    fn settle<T>(&mut self, result: io::Result<T>) -> io::Result<T> {
        if let Err(error) = &result
            && !is_slow(error)
        {
            self.open = None;
        }
        result.map_err(|error| if is_slow(&error) { ErrorKind::WouldBlock.into() } else { error })
    }

    fn opened(&mut self) -> io::Result<&mut Open> {
        // The server may have closed it since: what is written then is lost without a word.
        if self.open.as_mut().is_some_and(|open| open.sent == 0 && open.is_over()) {
            self.open = None;
        }
        let open = match self.open.take() {
            Some(open) => open,
            None => Open::new(&self.address, self.tls.as_ref())?,
        };
        Ok(self.open.insert(open))
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.close();
    }
}

fn is_slow(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

impl Open {
    fn new(address: &ServerAddress, tls: Option<&Arc<ClientConfig>>) -> io::Result<Self> {
        // That nobody answered yet is no slowness of a frame.
        let named = |error: io::Error| {
            let kind = if is_slow(&error) { ErrorKind::TimedOut } else { error.kind() };
            io::Error::new(kind, format!("dial {address}: {error}"))
        };
        let stream = match address {
            ServerAddress::Unix(path) => {
                let stream = UnixStream::connect(path).map_err(named)?;
                stream.set_write_timeout(Some(STEP))?;
                stream.set_read_timeout(Some(STEP))?;
                Stream::Unix(stream)
            }
            ServerAddress::Tcp(host, port) => Stream::Tcp(dial(host, *port).map_err(named)?),
            ServerAddress::Tls(host, port) => {
                let config = tls.ok_or(ErrorKind::Unsupported)?;
                let stream = dial(host, *port).map_err(named)?;
                stream.set_read_timeout(Some(CONNECT))?;
                let name = ServerName::try_from(host.clone()).map_err(io::Error::other)?;
                let connection = ClientConnection::new(Arc::clone(config), name).map_err(io::Error::other)?;
                let mut tls = StreamOwned::new(connection, stream);
                // A certificate that is not trusted is known now, and not with the first message.
                while tls.conn.is_handshaking() {
                    tls.conn.complete_io(&mut tls.sock).map_err(named)?;
                }
                tls.sock.set_read_timeout(Some(STEP))?;
                Stream::Tls(Box::new(tls))
            }
        };
        Ok(Self { stream, since: Instant::now(), sent: 0, moved: Instant::now() })
    }

    fn send(&mut self, frame: &[u8], stall_limit: Duration) -> io::Result<()> {
        if self.sent == 0 {
            self.moved = Instant::now();
        }
        loop {
            let rest = frame.get(self.sent..).unwrap_or_default();
            let done =
                if rest.is_empty() { self.stream.flush().map(|()| 0) } else { self.stream.write(rest) };
            match done {
                Ok(_) if rest.is_empty() => {
                    self.sent = 0;
                    return Ok(());
                }
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(count) => {
                    self.sent += count;
                    self.moved = Instant::now();
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if is_slow(&error) && self.moved.elapsed() > stall_limit => {
                    return Err(ErrorKind::TimedOut.into());
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// The other end has closed it. What it said unasked is nothing to us.
    fn is_over(&mut self) -> bool {
        match &mut self.stream {
            Stream::Tcp(stream) => is_over(stream.as_raw_fd()),
            Stream::Unix(stream) => is_over(stream.as_raw_fd()),
            Stream::Tls(tls) => {
                let StreamOwned { conn, sock } = tls.as_mut();
                let over = sock.set_nonblocking(true).is_err() || tls_is_over(conn, sock);
                over || sock.set_nonblocking(false).is_err()
            }
        }
    }
}

fn is_over(fd: i32) -> bool {
    loop {
        match recv(fd, &mut [0; 512], MsgFlags::MSG_DONTWAIT) {
            Ok(1..) | Err(Errno::EINTR) => {}
            Ok(0) => return true,
            Err(error) => return error != Errno::EAGAIN,
        }
    }
}

/// Session tickets come unasked, and in front of the end.
fn tls_is_over(conn: &mut ClientConnection, sock: &mut TcpStream) -> bool {
    loop {
        match conn.read_tls(sock) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) => return !is_slow(&error),
        }
        if conn.process_new_packets().map_or(true, |state| state.peer_has_closed()) {
            return true;
        }
    }
}

/// The first address of a host that answers.
fn dial(host: &str, port: u16) -> io::Result<TcpStream> {
    let mut last = io::Error::new(ErrorKind::NotFound, "no such host");
    for address in (host, port).to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, CONNECT) {
            Ok(stream) => {
                stream.set_write_timeout(Some(STEP))?;
                stream.set_read_timeout(Some(STEP))?;
                let _ = stream.set_nodelay(true);
                return Ok(stream);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.read(buffer),
            Self::Unix(stream) => stream.read(buffer),
            Self::Tls(stream) => stream.read(buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.write(bytes),
            Self::Unix(stream) => stream.write(bytes),
            Self::Tls(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.flush(),
            Self::Unix(stream) => stream.flush(),
            Self::Tls(stream) => stream.flush(),
        }
    }
}
