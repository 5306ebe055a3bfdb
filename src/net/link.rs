//! Links, addresses and routes: the bridge, and a container's veth pair. Messages are made by
//! rtnetlink's builders; each function is one exchange with the kernel, or two.

use super::error::NetError;
use super::netlink::{Netlink, Request, flags};
use super::plan::{Subnet, VETH_PREFIX, mac_address};
use netlink_packet_route::address::AddressAttribute;
use netlink_packet_route::link::{
    AfSpecInet6, AfSpecUnspec, In6AddrGenMode, InfoBridgePort, InfoData, InfoKind, InfoPortData,
    InfoPortKind, InfoVeth, LinkAttribute, LinkMessage,
};
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteScope};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use nix::errno::Errno;
use nix::net::if_::if_nametoindex;
use rtnetlink::packet_core::Parseable;
use rtnetlink::{
    AddressMessageBuilder, LinkBridge, LinkMessageBuilder, LinkUnspec, LinkVeth, RouteMessageBuilder,
};
use std::fs::File;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsRawFd;

/// A new namespace numbers its links from its loopback on.
const LOOPBACK: u32 = 1;
/// `RT_TABLE_LOCAL`: the addresses of the host itself, which are listed on their own.
const TABLE_LOCAL: u8 = 255;
/// The container's end, as under Docker.
pub(super) const CONTAINER_LINK: &str = "eth0";

/// Index of a link of the calling thread's namespace; `None` where there is none of that name.
pub(super) fn index_of(name: &str) -> Option<u32> {
    if_nametoindex(name).ok()
}

/// The IPv4 addresses of a link, with their networks.
pub(super) fn addresses(netlink: &mut Netlink) -> Result<Vec<(u32, Ipv4Addr, Subnet)>, NetError> {
    let mut wanted = netlink_packet_route::address::AddressMessage::default();
    wanted.header.family = AddressFamily::Inet;
    let request = Request::route(&RouteNetlinkMessage::GetAddress(wanted), 0);
    let answers = netlink.dump(request).map_err(|e| NetError::netlink("list the host's addresses", e))?;
    let mut found = Vec::new();
    for (_, body) in answers {
        let Ok(message) = netlink_packet_route::address::AddressMessage::parse(body.as_slice()) else {
            continue;
        };
        let local = message.attributes.iter().find_map(|a| match a {
            AddressAttribute::Local(IpAddr::V4(address)) => Some(*address),
            _ => None,
        });
        if let Some((address, subnet)) =
            local.and_then(|a| Some((a, Subnet::new(a, message.header.prefix_len)?)))
        {
            found.push((message.header.index, address, subnet));
        }
    }
    Ok(found)
}

/// The destinations of the host's IPv4 routes; a default route is 0.0.0.0/0.
pub(super) fn routes(netlink: &mut Netlink) -> Result<Vec<Subnet>, NetError> {
    let wanted = RouteMessageBuilder::<Ipv4Addr>::new().build();
    let request = Request::route(&RouteNetlinkMessage::GetRoute(wanted), 0);
    let answers = netlink.dump(request).map_err(|e| NetError::netlink("list the host's routes", e))?;
    let mut found = Vec::new();
    for (_, body) in answers {
        let Ok(message) = netlink_packet_route::route::RouteMessage::parse(body.as_slice()) else { continue };
        if message.header.table == TABLE_LOCAL {
            continue;
        }
        let destination = message.attributes.iter().find_map(|a| match a {
            RouteAttribute::Destination(RouteAddress::Inet(address)) => Some(*address),
            _ => None,
        });
        let destination = destination.unwrap_or(Ipv4Addr::UNSPECIFIED);
        found.extend(Subnet::new(destination, message.header.destination_prefix_length));
    }
    Ok(found)
}

/// Makes the bridge, up, with its address, taking what is there already. Answers its index.
pub(super) fn make_bridge(
    netlink: &mut Netlink,
    name: &str,
    gateway: Ipv4Addr,
    subnet: Subnet,
) -> Result<u32, NetError> {
    let failed = |e: io::Error| NetError::netlink(format!("make the bridge {name} with {gateway}"), e);
    if index_of(name).is_none() {
        // Its own hardware address: otherwise it changes with the ports that come and go.
        let bridge = LinkBridge::new(name).address(mac_address(gateway).to_vec()).build();
        let create = flags::ACK | flags::CREATE | flags::EXCL;
        let request = Request::route(&RouteNetlinkMessage::NewLink(bridge), create);
        netlink.execute_all(&[request]).or_else(fine(Errno::EEXIST)).map_err(failed)?;
    }
    let index = index_of(name).ok_or_else(|| failed(Errno::ENODEV.into()))?;
    let address =
        AddressMessageBuilder::<Ipv4Addr>::new().index(index).address(gateway, subnet.prefix()).build();
    let up = LinkUnspec::new_with_index(index).up().build();
    let create = flags::ACK | flags::CREATE | flags::EXCL;
    let requests = [
        Request::route(&RouteNetlinkMessage::SetLink(up), flags::ACK),
        Request::route(&RouteNetlinkMessage::NewAddress(address), create),
    ];
    for result in netlink.execute(&requests).map_err(failed)? {
        result.or_else(fine(Errno::EEXIST)).map_err(failed)?;
    }
    Ok(index)
}

/// Makes a container's veth pair, its far end in the namespace `netns` already as `eth0`.
pub(super) fn make_veth(
    netlink: &mut Netlink,
    name: &str,
    bridge: u32,
    address: Ipv4Addr,
    netns: &File,
) -> Result<(), NetError> {
    let far = LinkMessageBuilder::<LinkUnspec>::new()
        .name(CONTAINER_LINK)
        .address(mac_address(address).to_vec())
        .setns_by_fd(netns.as_raw_fd())
        .append_extra_attribute(LinkAttribute::TxQueueLen(0)) // as Docker's
        .build(); // not up: its other end does not exist before it does
    let pair = LinkMessageBuilder::<LinkVeth>::new_with_info_kind(InfoKind::Veth)
        .name(name)
        .set_info_data(InfoData::Veth(InfoVeth::Peer(far)))
        .build();
    // A link-local address on a bridge port serves nobody.
    let no_ipv6 = LinkAttribute::AfSpecUnspec(vec![AfSpecUnspec::Inet6(vec![AfSpecInet6::AddrGenMode(
        In6AddrGenMode::None,
    )])]);
    let near =
        LinkUnspec::new_with_name(name).controller(bridge).append_extra_attribute(no_ipv6).up().build();
    // Where br_netfilter is on, a container that asks for its own mapped port is answered on the
    // bridge itself, out of the port that it came in.
    let hairpin = LinkUnspec::new_with_name(name)
        .set_port_kind(InfoPortKind::Bridge)
        .set_port_data(InfoPortData::BridgePort(vec![InfoBridgePort::HairpinMode(true)]))
        .build();
    let requests = [
        Request::route(&RouteNetlinkMessage::NewLink(pair), flags::ACK | flags::CREATE | flags::EXCL),
        Request::route(&RouteNetlinkMessage::SetLink(near), flags::ACK),
        Request::route(&RouteNetlinkMessage::NewLink(hairpin), flags::ACK),
    ];
    netlink.execute_all(&requests).map_err(|e| NetError::netlink(format!("make the veth pair {name}"), e))
}

/// Inside the container's namespace: loopback up, address and default route on `eth0`.
pub(super) fn configure_container(address: Option<(Ipv4Addr, Ipv4Addr, Subnet)>) -> Result<(), NetError> {
    let failed = |e: io::Error| NetError::netlink("set up the links of a container", e);
    let mut netlink = Netlink::route().map_err(failed)?;
    let loopback = LinkUnspec::new_with_index(LOOPBACK).up().build();
    let mut requests = vec![Request::route(&RouteNetlinkMessage::SetLink(loopback), flags::ACK)];
    if let Some((address, gateway, subnet)) = address {
        let index = if_nametoindex(CONTAINER_LINK).map_err(|e| failed(e.into()))?;
        let address = AddressMessageBuilder::<Ipv4Addr>::new().index(index).address(address, subnet.prefix());
        let route = RouteMessageBuilder::<Ipv4Addr>::new().gateway(gateway).output_interface(index);
        let create = flags::ACK | flags::CREATE | flags::EXCL;
        let up = LinkUnspec::new_with_index(index).up().build();
        requests.push(Request::route(&RouteNetlinkMessage::SetLink(up), flags::ACK));
        requests.push(Request::route(&RouteNetlinkMessage::NewAddress(address.build()), create));
        requests.push(Request::route(&RouteNetlinkMessage::NewRoute(route.build()), create));
    }
    netlink.execute_all(&requests).map_err(failed)
}

/// Removes a link. One that isn't there is fine.
pub(super) fn remove(netlink: &mut Netlink, name: &str) -> Result<(), NetError> {
    let message = RouteNetlinkMessage::DelLink(LinkUnspec::new_with_name(name).build());
    netlink
        .execute_all(&[Request::route(&message, flags::ACK)])
        .or_else(fine(Errno::ENODEV))
        .map_err(|e| NetError::netlink(format!("remove the link {name}"), e))
}

/// Names of the veth ends of ours on the bridge.
pub(super) fn veths_on(netlink: &mut Netlink, bridge: u32) -> Result<Vec<String>, NetError> {
    let request = Request::route(&RouteNetlinkMessage::GetLink(LinkMessage::default()), 0);
    let answers = netlink.dump(request).map_err(|e| NetError::netlink("list the host's links", e))?;
    let mut found = Vec::new();
    for (_, body) in answers {
        let Ok(link) = LinkMessage::parse(body.as_slice()) else { continue };
        let on_bridge = link.attributes.contains(&LinkAttribute::Controller(bridge));
        let name = link.attributes.into_iter().find_map(|a| match a {
            LinkAttribute::IfName(name) => Some(name),
            _ => None,
        });
        found.extend(name.filter(|n| on_bridge && n.starts_with(VETH_PREFIX)));
    }
    Ok(found)
}

/// A route to one address over the loopback: without any route the kernel refuses a packet before
/// the output rules could redirect it.
pub(super) fn loopback_route(netlink: &mut Netlink, to: Ipv4Addr, add: bool) -> Result<(), NetError> {
    let index = index_of("lo").unwrap_or(LOOPBACK);
    let route = RouteMessageBuilder::<Ipv4Addr>::new()
        .destination_prefix(to, 32)
        .output_interface(index)
        .scope(RouteScope::Link)
        .build();
    let (request, tolerated) = if add {
        let create = flags::ACK | flags::CREATE | flags::EXCL;
        (Request::route(&RouteNetlinkMessage::NewRoute(route), create), Errno::EEXIST)
    } else {
        (Request::route(&RouteNetlinkMessage::DelRoute(route), flags::ACK), Errno::ESRCH)
    };
    netlink
        .execute_all(&[request])
        .or_else(fine(tolerated))
        .map_err(|e| NetError::netlink(format!("change the route to {to}"), e))
}

fn fine(errno: Errno) -> impl Fn(io::Error) -> io::Result<()> {
    move |e| if e.raw_os_error() == Some(errno as i32) { Ok(()) } else { Err(e) }
}
