//! The links of the host, for those who wait for one: listed on request, watched by the kernel's
//! multicast group. Reads only.

use super::netlink::{Netlink, Request};
use crate::model::MacAddress;
use crate::ports::Links;
use futures_util::future::BoxFuture;
use futures_util::stream::{self, BoxStream};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use netlink_sys::{AsyncSocket, AsyncSocketExt, SocketAddr, TokioSocket, protocols};
use rtnetlink::packet_core::Parseable;
use std::collections::BTreeSet;
use std::io;

/// `RTMGRP_LINK` of linux/rtnetlink.h: the group of links, as a bit.
const LINK_GROUP: u32 = 1;

/// Links of the network namespace in which it is used.
#[derive(Debug, Clone, Copy, Default)]
pub struct HostLinks;

impl Links for HostLinks {
    fn list(&self) -> BoxFuture<'_, io::Result<BTreeSet<MacAddress>>> {
        // One exchange with the kernel, which answers at once.
        Box::pin(async { addresses(&mut Netlink::route()?) })
    }

    fn watch(&self) -> io::Result<BoxStream<'static, ()>> {
        let mut socket = TokioSocket::new(protocols::NETLINK_ROUTE)?;
        socket.socket_mut().bind(&SocketAddr::new(0, LINK_GROUP))?;
        Ok(Box::pin(stream::unfold(socket, |socket| async move {
            match socket.recv_from_full().await {
                Ok(_) => Some(((), socket)),
                // The kernel had more to tell than fits: something changed, and that is all we ask.
                Err(error) if error.raw_os_error() == Some(nix::errno::Errno::ENOBUFS as i32) => {
                    Some(((), socket))
                }
                Err(error) => {
                    tracing::warn!(%error, "links are not watched any more");
                    None
                }
            }
        })))
    }
}

fn addresses(netlink: &mut Netlink) -> io::Result<BTreeSet<MacAddress>> {
    let request = Request::route(&RouteNetlinkMessage::GetLink(LinkMessage::default()), 0);
    let links = netlink.dump(request)?;
    let links = links.iter().filter_map(|(_, body)| LinkMessage::parse(body.as_slice()).ok());
    let address = |link: LinkMessage| {
        link.attributes.into_iter().find_map(|a| match a {
            LinkAttribute::Address(bytes) => Some(MacAddress(bytes.try_into().ok()?)),
            _ => None,
        })
    };
    Ok(links.filter(|link| !link.header.flags.contains(LinkFlags::Loopback)).filter_map(address).collect())
}

#[cfg(test)]
#[path = "links_tests.rs"]
mod tests;
