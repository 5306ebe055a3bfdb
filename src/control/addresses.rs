//! Which of a host's addresses answers: an endpoint with IPv6 and IPv4 must be reached from a host on
//! which one of the two leads nowhere. As Go, and with it the original agent, does it (RFC 8305): the
//! family that the resolver names first has a head start, then the other is tried beside it.

use std::io::{Error, ErrorKind, Result};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

/// Of the first family.
const HEAD_START: Duration = Duration::from_millis(300);

/// A connection to the first address that takes one. Addresses of one family share `limit`; the last
/// of them may take longer, so whoever calls has a limit of its own.
///
/// # Errors
/// What the first family's first address said.
pub(super) async fn connect(addresses: &[SocketAddr], limit: Duration) -> Result<TcpStream> {
    let Some(first) = addresses.first() else {
        return Err(Error::new(ErrorKind::NotFound, "the name has no address"));
    };
    let (first, other): (Vec<SocketAddr>, Vec<SocketAddr>) =
        addresses.iter().partition(|address| address.is_ipv6() == first.is_ipv6());
    let first = in_turn(&first, limit);
    if other.is_empty() {
        return first.await;
    }
    let other = in_turn(&other, limit);
    tokio::pin!(first, other);
    match timeout(HEAD_START, &mut first).await {
        Ok(Ok(stream)) => return Ok(stream),
        Ok(Err(error)) => return other.await.map_err(|_| error),
        Err(_) => {}
    }
    // Whoever loses is dropped, and its connection with it.
    tokio::select! {
        one = &mut first => match one {
            Ok(stream) => Ok(stream),
            Err(error) => other.await.map_err(|_| error),
        },
        one = &mut other => match one {
            Ok(stream) => Ok(stream),
            Err(_) => first.await,
        },
    }
}

/// One after the other, each with its share of the time that is left.
async fn in_turn(addresses: &[SocketAddr], limit: Duration) -> Result<TcpStream> {
    let end = Instant::now() + limit;
    let mut failed = None;
    for (at, address) in addresses.iter().enumerate() {
        let connecting = TcpStream::connect(address);
        // With it, those that are left.
        let left = u32::try_from(addresses.len() - at).unwrap_or(u32::MAX);
        let connected = if left == 1 {
            connecting.await
        } else {
            let share = end.saturating_duration_since(Instant::now()) / left;
            let late = || Error::new(ErrorKind::TimedOut, format!("{address} does not answer"));
            timeout(share, connecting).await.unwrap_or_else(|_| Err(late()))
        };
        match connected {
            Ok(stream) => return Ok(stream),
            Err(error) => failed = failed.or(Some(error)),
        }
    }
    Err(failed.unwrap_or_else(|| Error::new(ErrorKind::NotFound, "no address")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::{TcpListener, TcpSocket};

    /// Longer than a test has patience.
    const LONG: Duration = Duration::from_secs(3600);

    fn bound(address: &str) -> (SocketAddr, TcpSocket) {
        let address: SocketAddr = address.parse().unwrap();
        let socket = if address.is_ipv6() { TcpSocket::new_v6() } else { TcpSocket::new_v4() }.unwrap();
        socket.bind(address).unwrap();
        (socket.local_addr().unwrap(), socket)
    }

    fn well(address: &str) -> (SocketAddr, TcpListener) {
        let (address, socket) = bound(address);
        (address, socket.listen(16).unwrap())
    }

    /// An address that answers nobody: its listener's queue is full, and stays so while this is held.
    async fn silent(address: &str) -> (SocketAddr, TcpListener, TcpStream) {
        let (address, socket) = bound(address);
        let listener = socket.listen(0).unwrap();
        let queued = TcpStream::connect(address).await.unwrap();
        (address, listener, queued)
    }

    async fn reached(addresses: &[SocketAddr], limit: Duration) -> SocketAddr {
        let connected = timeout(Duration::from_secs(20), connect(addresses, limit)).await;
        connected.expect("no address was reached").unwrap().peer_addr().unwrap()
    }

    #[tokio::test]
    async fn a_family_that_leads_nowhere_is_passed_by() {
        for (nowhere, somewhere) in [("[::1]:0", "127.0.0.1:0"), ("127.0.0.1:0", "[::1]:0")] {
            let (there, _well) = well(somewhere);
            let (nobody, _listener, _queued) = silent(nowhere).await;
            // A port that is taken and on which nobody listens refuses.
            let (closed, _held) = bound(nowhere);
            let (closed_there, _held_there) = bound(somewhere);
            assert_eq!(reached(&[nobody, there], LONG).await, there, "it does not answer");
            assert_eq!(reached(&[closed, there], LONG).await, there, "it refuses");
            assert_eq!(reached(&[there, nobody], LONG).await, there, "the first will do");
            assert_eq!(
                reached(&[closed_there, nobody, there], LONG).await,
                there,
                "the second of its family"
            );
        }
    }

    #[tokio::test]
    async fn addresses_of_one_family_are_tried_in_turn() {
        let (there, _well) = well("127.0.0.1:0");
        let (nobody, _listener, _queued) = silent("127.0.0.1:0").await;
        let (closed, _held) = bound("127.0.0.1:0");
        assert_eq!(reached(&[closed, nobody, there], Duration::from_millis(300)).await, there);
    }

    #[tokio::test]
    async fn the_first_refusal_is_what_is_told() {
        let [(one, _held), (other, _held_too)] = [bound("[::1]:0"), bound("127.0.0.1:0")];
        assert_eq!(connect(&[one, other], LONG).await.unwrap_err().kind(), ErrorKind::ConnectionRefused);
        assert_eq!(connect(&[], LONG).await.unwrap_err().kind(), ErrorKind::NotFound);
    }
}
