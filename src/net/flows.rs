//! UDP flows that the kernel already tracks. The port map is only asked for a flow's first packet,
//! so a client that never stops sending would go on to whatever was there before.

use super::error::NetError;
use super::netlink::{Netlink, Request, flags};
use super::nft::{attribute, attributes, header};
use nix::errno::Errno;
use std::collections::BTreeSet;

/// `NFNL_SUBSYS_CTNETLINK`, with `IPCTNL_MSG_CT_GET` and `IPCTNL_MSG_CT_DELETE`.
const GET: u16 = 0x101;
const DELETE: u16 = 0x102;
const IPV4: u8 = 2;
const UDP: u8 = 17;
const NESTED: u16 = 0x8000;
/// Of one flow: `CTA_TUPLE_ORIG`, what the client sent.
const ORIGINAL: u16 = 1;

/// Forgets the flows to these UDP ports of the host: their next packet is mapped anew.
pub(super) fn forget_udp(netlink: &mut Netlink, ports: &BTreeSet<u16>) -> Result<(), NetError> {
    if ports.is_empty() {
        return Ok(());
    }
    let failed = |e| NetError::netlink("forget tracked UDP flows", e);
    let flows = netlink.dump(Request { kind: GET, flags: 0, body: header(IPV4, 0) }).map_err(failed)?;
    let stale: Vec<Request> = flows
        .iter()
        .filter_map(|(_, body)| find(body.get(4..)?, ORIGINAL))
        .filter(|tuple| udp_port(tuple).is_some_and(|port| ports.contains(&port)))
        .map(|tuple| {
            let body = [header(IPV4, 0), attribute(ORIGINAL | NESTED, tuple)].concat();
            Request { kind: DELETE, flags: flags::ACK, body }
        })
        .collect();
    for some in stale.chunks(100) {
        for result in netlink.execute(some).map_err(failed)? {
            match result {
                Err(e) if e.raw_os_error() != Some(Errno::ENOENT as i32) => return Err(failed(e)),
                _ => {} // ended by itself
            }
        }
    }
    Ok(())
}

fn find(bytes: &[u8], wanted: u16) -> Option<&[u8]> {
    attributes(bytes).find(|(kind, _)| *kind == wanted).map(|(_, value)| value)
}

/// Destination port of a tuple; `None` where it isn't UDP.
fn udp_port(tuple: &[u8]) -> Option<u16> {
    let protocol = find(tuple, 2)?;
    let is_udp = find(protocol, 1)?.first() == Some(&UDP);
    let port = find(protocol, 3)?.first_chunk::<2>()?;
    is_udp.then(|| u16::from_be_bytes(*port))
}
