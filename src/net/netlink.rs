//! A netlink socket for requests that the kernel answers before `send` returns: routing and
//! nf_tables. Synchronous on purpose: the sockets are used from short-lived threads that change
//! their network namespace, and a socket stays in the namespace where it was made.

use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::{Socket, SocketAddr, protocols};
use rtnetlink::packet_core::NetlinkSerializable;
use std::io;

/// `NLM_F_*` of linux/netlink.h.
pub(super) mod flags {
    pub(crate) const REQUEST: u16 = 0x1;
    pub(crate) const ACK: u16 = 0x4;
    pub(crate) const DUMP: u16 = 0x300;
    pub(crate) const EXCL: u16 = 0x200;
    pub(crate) const CREATE: u16 = 0x400;
}

const HEADER: usize = 16;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
/// Fits the largest datagram that the kernel makes of a dump.
const BUFFER: usize = 64 * 1024;

/// One request, without its header.
#[derive(Debug, Clone)]
pub(super) struct Request {
    /// `nlmsg_type`.
    pub(super) kind: u16,
    /// `nlmsg_flags`, besides REQUEST.
    pub(super) flags: u16,
    /// What follows the header.
    pub(super) body: Vec<u8>,
}

impl Request {
    /// A routing request.
    pub(super) fn route(message: &RouteNetlinkMessage, flags: u16) -> Self {
        let mut body = vec![0; message.buffer_len()];
        message.serialize(&mut body);
        Self { kind: message.message_type(), flags, body }
    }
}

/// One message that was received.
pub(super) struct Received<'a> {
    /// `nlmsg_type`.
    pub(super) kind: u16,
    sequence: u32,
    /// What follows the header.
    pub(super) body: &'a [u8],
}

/// The messages of one datagram. Ends at the first that is cut short.
pub(super) fn messages(mut datagram: &[u8]) -> impl Iterator<Item = Received<'_>> {
    std::iter::from_fn(move || {
        let length = usize::try_from(u32_at(datagram, 0)?).ok()?;
        let body = datagram.get(HEADER..length)?;
        let message = Received { kind: u16_at(datagram, 4)?, sequence: u32_at(datagram, 8)?, body };
        datagram = datagram.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(message)
    })
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

/// The socket.
#[derive(Debug)]
pub(super) struct Netlink {
    socket: Socket,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Netlink {
    /// For links, addresses and routes of the namespace in which the calling thread is.
    pub(super) fn route() -> io::Result<Self> {
        Self::open(protocols::NETLINK_ROUTE)
    }

    /// For nf_tables of the namespace in which the calling thread is.
    pub(super) fn netfilter() -> io::Result<Self> {
        Self::open(protocols::NETLINK_NETFILTER)
    }

    fn open(protocol: isize) -> io::Result<Self> {
        let mut socket = Socket::new(protocol)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Self { socket, sequence: 0, buffer: Vec::with_capacity(BUFFER) })
    }

    /// Sends all requests in one datagram, which the kernel works through in order, and answers
    /// how each that asked for an ACK went (in their order).
    ///
    /// # Errors
    /// Where the exchange as a whole failed.
    pub(super) fn execute(&mut self, requests: &[Request]) -> io::Result<Vec<io::Result<()>>> {
        let first = self.send(requests)?;
        let mut results: Vec<Option<io::Result<()>>> = requests.iter().map(|_| None).collect();
        let wanted = requests.iter().filter(|r| r.flags & flags::ACK != 0).count();
        let mut seen = 0;
        while seen < wanted {
            self.receive()?;
            for message in messages(&self.buffer) {
                let at = message.sequence.wrapping_sub(first) as usize;
                let (Some(request), Some(slot)) = (requests.get(at), results.get_mut(at)) else { continue };
                if message.kind != NLMSG_ERROR {
                    continue;
                }
                let outcome = outcome(message.body);
                if request.flags & flags::ACK == 0 {
                    // A frame of the batch: it is only answered where the batch as a whole failed.
                    outcome?;
                } else if slot.is_none() {
                    *slot = Some(outcome);
                    seen += 1;
                }
            }
        }
        Ok(results.into_iter().flatten().collect())
    }

    /// Sends all, and answers the first thing that failed.
    pub(super) fn execute_all(&mut self, requests: &[Request]) -> io::Result<()> {
        self.execute(requests)?.into_iter().collect()
    }

    /// All answers to a request for a dump.
    pub(super) fn dump(&mut self, request: Request) -> io::Result<Vec<(u16, Vec<u8>)>> {
        let first = self.send(&[Request { flags: request.flags | flags::DUMP, ..request }])?;
        let mut answers = Vec::new();
        loop {
            self.receive()?;
            for message in messages(&self.buffer).filter(|m| m.sequence == first) {
                match message.kind {
                    NLMSG_DONE => return Ok(answers),
                    NLMSG_ERROR => {
                        outcome(message.body)?;
                        return Ok(answers);
                    }
                    kind => answers.push((kind, message.body.to_vec())),
                }
            }
        }
    }

    /// Answers the sequence number of the first.
    fn send(&mut self, requests: &[Request]) -> io::Result<u32> {
        let first = self.sequence.wrapping_add(1);
        let mut datagram = Vec::new();
        for request in requests {
            self.sequence = self.sequence.wrapping_add(1);
            let length = u32::try_from(HEADER + request.body.len()).map_err(io::Error::other)?;
            datagram.extend(length.to_ne_bytes());
            datagram.extend(request.kind.to_ne_bytes());
            datagram.extend((request.flags | flags::REQUEST).to_ne_bytes());
            datagram.extend(self.sequence.to_ne_bytes());
            datagram.extend(0u32.to_ne_bytes());
            datagram.extend(&request.body);
            datagram.resize(datagram.len().next_multiple_of(4), 0);
        }
        self.socket.send(&datagram, 0)?;
        Ok(first)
    }

    fn receive(&mut self) -> io::Result<()> {
        loop {
            self.buffer.clear();
            match self.socket.recv(&mut self.buffer, 0) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => return other.map(drop),
            }
        }
    }
}

/// What an NLMSG_ERROR says: 0 is an acknowledgement.
fn outcome(body: &[u8]) -> io::Result<()> {
    match u32_at(body, 0).map(u32::cast_signed) {
        Some(0) => Ok(()),
        Some(code) => Err(io::Error::from_raw_os_error(code.saturating_neg())),
        None => Err(io::Error::other("netlink: an answer was cut short")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_or_lying_datagram_ends_the_iteration() {
        assert_eq!(messages(&[]).count(), 0);
        assert_eq!(messages(&[1, 0, 0, 0, 9, 9, 9, 9]).count(), 0);
        let mut whole = Vec::new();
        whole.extend(20u32.to_ne_bytes());
        whole.extend([2, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0]);
        whole.extend((-2i32).to_ne_bytes());
        let mut lying = whole.clone();
        lying.extend(4000u32.to_ne_bytes());
        lying.extend([0; 12]);
        assert_eq!(messages(&lying).count(), 1);
        let message = messages(&whole).next().unwrap();
        assert_eq!((message.kind, message.sequence), (NLMSG_ERROR, 7));
        assert_eq!(outcome(message.body).unwrap_err().kind(), io::ErrorKind::NotFound);
        assert!(outcome(&[]).is_err());
    }

    #[test]
    fn the_kernel_answers_dumps_and_errors() {
        let mut netlink = Netlink::route().unwrap();
        let links = RouteNetlinkMessage::GetLink(Default::default());
        assert!(!netlink.dump(Request::route(&links, 0)).unwrap().is_empty());
        let missing = rtnetlink::LinkUnspec::new_with_name("no-such-link0").build();
        let delete = Request::route(&RouteNetlinkMessage::DelLink(missing), flags::ACK);
        let error = netlink.execute_all(&[delete]).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(nix::errno::Errno::ENODEV as i32));
    }
}
