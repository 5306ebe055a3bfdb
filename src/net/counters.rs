//! Traffic of containers on the bridge, counted by the kernel. Read from the host's ends of their veth
//! pairs, all in one exchange: what one end sends the other receives, so no namespace is entered.

use super::error::NetError;
use super::link::{CONTAINER_LINK, index_of};
use super::netlink::{Netlink, Request};
use super::plan::veth_name;
use crate::model::{ContainerKey, InterfaceCounters, InterfaceUsage};
use std::collections::BTreeMap;

/// `RTM_GETSTATS` of linux/rtnetlink.h.
const GET_STATS: u16 = 94;
/// `IFLA_STATS_LINK_64` of linux/if_link.h, and the filter for nothing else.
const LINK_64: u16 = 1;
const ONLY_LINK_64: u32 = 1 << (LINK_64 - 1);
/// `struct if_stats_msg`: family, padding, the link's index, the filter.
const HEADER: usize = 12;

/// Reads the counters of all containers at once.
#[derive(Debug)]
pub struct TrafficMeter {
    netlink: Netlink,
    /// Index of the host's end, by container.
    indexes: BTreeMap<ContainerKey, u32>,
    /// By index, as of the last refresh, from the container's side.
    counters: BTreeMap<u32, InterfaceCounters>,
}

impl TrafficMeter {
    /// For the network namespace of the calling thread.
    ///
    /// # Errors
    /// Where there is no netlink socket.
    pub fn open() -> Result<Self, NetError> {
        let netlink =
            Netlink::route().map_err(|e| NetError::netlink("count the traffic of containers", e))?;
        Ok(Self { netlink, indexes: BTreeMap::new(), counters: BTreeMap::new() })
    }

    /// Asks the kernel for the counters of all links. Blocks for a moment.
    ///
    /// # Errors
    /// Where the kernel does not tell.
    pub fn refresh(&mut self) -> Result<(), NetError> {
        self.counters.clear();
        let mut body = vec![0; HEADER];
        body[HEADER - 4..].copy_from_slice(&ONLY_LINK_64.to_ne_bytes());
        let answers = self.netlink.dump(Request { kind: GET_STATS, flags: 0, body });
        let answers = answers.map_err(|e| NetError::netlink("count the traffic of containers", e))?;
        self.counters.extend(answers.iter().filter_map(|(_, body)| parse(body)));
        Ok(())
    }

    /// A container's interfaces as of the last refresh; `None` where it has none on the bridge.
    pub fn of(&mut self, container: &ContainerKey) -> Option<Vec<InterfaceUsage>> {
        let known = self.indexes.get(container).filter(|index| self.counters.contains_key(index)).copied();
        let index = match known {
            Some(index) => index,
            None => {
                let index = index_of(&veth_name(container))?;
                self.indexes.insert(container.clone(), index);
                index
            }
        };
        let counters = *self.counters.get(&index)?;
        Some(vec![InterfaceUsage { name: CONTAINER_LINK, counters }])
    }

    /// Forgets containers that are not wanted any more.
    pub fn retain(&mut self, mut wanted: impl FnMut(&ContainerKey) -> bool) {
        self.indexes.retain(|container, _| wanted(container));
    }
}

/// Index of a link and its counters, seen from the other end. Drops in the middle are counted by the
/// end that sends.
fn parse(body: &[u8]) -> Option<(u32, InterfaceCounters)> {
    let index = u32::from_ne_bytes(body.get(4..8)?.try_into().ok()?);
    let mut attributes = body.get(HEADER..)?;
    loop {
        let length = usize::from(u16::from_ne_bytes(attributes.get(..2)?.try_into().ok()?));
        let kind = u16::from_ne_bytes(attributes.get(2..4)?.try_into().ok()?);
        let content = attributes.get(4..length)?;
        if kind == LINK_64 {
            // `struct rtnl_link_stats64`
            let at = |n: usize| Some(u64::from_ne_bytes(content.get(n * 8..n * 8 + 8)?.try_into().ok()?));
            let counters = InterfaceCounters {
                tx_packets: at(0)?,
                rx_packets: at(1)?,
                tx_bytes: at(2)?,
                rx_bytes: at(3)?,
                tx_errors: at(4)?,
                rx_errors: at(5)?,
                tx_dropped: at(6)?,
                rx_dropped: at(7)?,
            };
            return Some((index, counters));
        }
        attributes = attributes.get(length.next_multiple_of(4)..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(attributes: &[(u16, Vec<u8>)]) -> Vec<u8> {
        let mut body = vec![0; HEADER];
        body[4..8].copy_from_slice(&7u32.to_ne_bytes());
        for (kind, content) in attributes {
            body.extend(u16::try_from(content.len() + 4).unwrap().to_ne_bytes());
            body.extend(kind.to_ne_bytes());
            body.extend(content);
            body.resize(body.len().next_multiple_of(4), 0);
        }
        body
    }

    #[test]
    fn what_the_host_sends_the_container_receives() {
        let numbers: Vec<u8> = (1u64..=24).flat_map(u64::to_ne_bytes).collect();
        let (index, counters) = parse(&message(&[(9, vec![1, 2, 3]), (LINK_64, numbers.clone())])).unwrap();
        assert_eq!(index, 7);
        assert_eq!((counters.tx_packets, counters.rx_packets), (1, 2));
        assert_eq!((counters.tx_bytes, counters.rx_bytes), (3, 4));
        assert_eq!((counters.tx_errors, counters.rx_errors), (5, 6));
        assert_eq!((counters.tx_dropped, counters.rx_dropped), (7, 8));
        for cut in 0..message(&[(LINK_64, numbers[..64].to_vec())]).len() {
            assert_eq!(parse(&message(&[(LINK_64, numbers[..64].to_vec())])[..cut]), None);
        }
        assert_eq!(parse(&message(&[(9, Vec::new())])), None);
        // A length that leads nowhere.
        let mut lying = message(&[]);
        lying.extend([0, 0, 9, 0]);
        assert_eq!(parse(&lying), None);
    }

    #[test]
    fn the_kernel_counts_links_and_unknown_containers_have_none() {
        let mut meter = TrafficMeter::open().unwrap();
        meter.refresh().unwrap();
        assert!(!meter.counters.is_empty());
        let task = crate::model::TaskArn::parse("arn:aws:ecs:r:1:task/c/none").unwrap().id();
        assert_eq!(meter.of(&ContainerKey { task, name: "x".into() }), None);
    }
}
