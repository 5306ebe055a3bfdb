//! What the network of a host and of its containers shall look like: names, addresses, the order in
//! which ports are tried. Pure: no socket, no file, no clock. [`super::apply`] makes it so.

use crate::model::{ContainerKey, NetworkBinding, PortMapping, Protocol};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::Ipv4Addr;

/// An IPv4 network: what is masked off the address is always zero.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Subnet {
    network: u32,
    prefix: u8,
}

impl Subnet {
    /// The network in which `address` lies; `None` where the prefix is over 32.
    pub fn new(address: Ipv4Addr, prefix: u8) -> Option<Self> {
        if prefix > 32 {
            return None;
        }
        Some(Self { network: u32::from(address) & mask(prefix), prefix })
    }

    /// Length of the prefix.
    pub fn prefix(self) -> u8 {
        self.prefix
    }

    /// The first host address, which the bridge takes.
    pub fn gateway(self) -> Ipv4Addr {
        Ipv4Addr::from(self.network.saturating_add(1))
    }

    /// Whether an address lies in it.
    pub fn contains(self, address: Ipv4Addr) -> bool {
        u32::from(address) & mask(self.prefix) == self.network
    }

    /// Whether any address lies in both.
    pub fn overlaps(self, other: Subnet) -> bool {
        let shared = mask(self.prefix.min(other.prefix));
        self.network & shared == other.network & shared
    }

    /// The network's last address: broadcast.
    fn last(self) -> u32 {
        self.network | !mask(self.prefix)
    }

    /// The networks that Docker would try for its bridge: 172.17.0.0/16 up to 172.31.0.0/16.
    pub fn defaults() -> Vec<Subnet> {
        (17..=31).filter_map(|second| Subnet::new(Ipv4Addr::new(172, second, 0, 0), 16)).collect()
    }
}

fn mask(prefix: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0)
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", Ipv4Addr::from(self.network), self.prefix)
    }
}

impl fmt::Debug for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The first candidate that overlaps nothing that the host already reaches. A default route
/// (prefix 0) reaches everything and doesn't count.
pub fn choose_subnet(candidates: &[Subnet], taken: &[Subnet]) -> Option<Subnet> {
    let free = |c: &&Subnet| !taken.iter().any(|t| t.prefix != 0 && t.overlaps(**c));
    candidates.iter().find(free).copied()
}

/// The hardware address that Docker derives from an IPv4 address. Always the same for the same
/// address, so that no neighbour's ARP entry is stale when an address is used again.
pub fn mac_address(address: Ipv4Addr) -> [u8; 6] {
    let [a, b, c, d] = address.octets();
    [0x02, 0x42, a, b, c, d]
}

/// Digits of a container's names below: derived from its key, because after a restart keys are all
/// that is known.
fn key_digest(key: &ContainerKey) -> String {
    let mut hash = Sha256::new();
    hash.update(key.task.as_str().as_bytes());
    hash.update([0]);
    hash.update(key.name.as_bytes());
    hex::encode(hash.finalize()).chars().take(12).collect()
}

/// Name of the file that pins a container's namespace. Container names may hold anything; the task
/// id was checked to be fit for a file name.
pub fn pin_name(key: &ContainerKey) -> String {
    format!("{}-{}", key.task, key_digest(key))
}

/// Name of the host's end of a container's veth pair: 15 characters, the most there may be.
pub fn veth_name(key: &ContainerKey) -> String {
    format!("{VETH_PREFIX}{}", key_digest(key))
}

/// What the names of all our veth ends start with.
pub const VETH_PREFIX: &str = "ecs";

/// The addresses of a bridge: which are taken, and which is next. Goes round, so that an address
/// that was just given back is the last to be used again.
#[derive(Debug)]
pub struct AddressPool {
    subnet: Subnet,
    taken: BTreeSet<u32>,
    next: u32,
}

impl AddressPool {
    /// All addresses of `subnet` but the network, the gateway (`reserved`) and the broadcast.
    pub fn new(subnet: Subnet, reserved: Ipv4Addr) -> Self {
        Self { subnet, taken: BTreeSet::from([u32::from(reserved)]), next: subnet.network }
    }

    /// The next free address; `None` where all are taken.
    pub fn take_any(&mut self) -> Option<Ipv4Addr> {
        let (first, last) = (self.subnet.network.saturating_add(1), self.subnet.last().saturating_sub(1));
        let from = self.next.clamp(first, last);
        let free = (from..=last).chain(first..from).find(|a| !self.taken.contains(a))?;
        self.taken.insert(free);
        self.next = if free == last { first } else { free + 1 };
        Some(Ipv4Addr::from(free))
    }

    /// Takes a certain address; `false` where it is taken or lies elsewhere.
    pub fn take(&mut self, address: Ipv4Addr) -> bool {
        let number = u32::from(address);
        let fit =
            self.subnet.contains(address) && number > self.subnet.network && number < self.subnet.last();
        fit && self.taken.insert(number)
    }

    /// Gives an address back.
    pub fn give_back(&mut self, address: Ipv4Addr) {
        self.taken.remove(&u32::from(address));
    }
}

/// The order in which dynamic host ports are tried: round and round from behind the last one that
/// was used, as the original does (spec/task-engine.md 5.1).
#[derive(Debug, Clone)]
pub struct PortRotation {
    low: u16,
    high: u16,
    next: u16,
}

impl PortRotation {
    /// Over `low..=high`.
    pub fn new(low: u16, high: u16) -> Self {
        let (low, high) = (low.min(high).max(1), high.max(low));
        Self { low, high, next: low }
    }

    /// First ports of every block of `count` contiguous ports that avoids `reserved`, in the order
    /// in which to try them.
    pub fn blocks<'a>(&self, count: u16, reserved: &'a BTreeSet<u16>) -> impl Iterator<Item = u16> + 'a {
        let (low, high, next, span) = (self.low, self.high, self.next, count.max(1) - 1);
        (next..=high).chain(low..next).filter(move |first| {
            first
                .checked_add(span)
                .is_some_and(|last| last <= high && reserved.range(*first..=last).next().is_none())
        })
    }

    /// `count` ports from `first` on were used: go on behind them.
    pub fn used(&mut self, first: u16, count: u16) {
        self.next = match first.checked_add(count) {
            Some(next) if next <= self.high => next,
            _ => self.low,
        };
    }
}

/// The binding of a mapping on the host port `host_port`.
pub fn binding(mapping: &PortMapping, host_port: u16) -> NetworkBinding {
    NetworkBinding {
        bind_ip: Ipv4Addr::UNSPECIFIED,
        container_port: mapping.container.first,
        host_port,
        count: mapping.container.count.max(1),
        is_range: mapping.container.is_range,
        protocol: mapping.protocol,
    }
}

/// Whether the host port of a mapping is ours to choose: port 0 and every range.
pub fn is_dynamic(mapping: &PortMapping) -> bool {
    mapping.host_port == 0 || mapping.container.is_range || mapping.container.count > 1
}

/// Where the packets to one host port go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct PortTarget {
    /// Address of the container.
    pub address: Ipv4Addr,
    /// Port in the container.
    pub port: u16,
}

/// Host port to container, as the kernel's map holds it.
pub type PortMap = BTreeMap<(Protocol, u16), PortTarget>;

/// The map elements of a container's bindings. Ports beyond 65535 do not exist and are left out.
pub fn port_map(address: Ipv4Addr, bindings: &[NetworkBinding]) -> PortMap {
    let mut map = PortMap::new();
    for b in bindings {
        for offset in 0..b.count {
            if let (Some(host), Some(port)) =
                (b.host_port.checked_add(offset), b.container_port.checked_add(offset))
            {
                map.insert((b.protocol, host), PortTarget { address, port });
            }
        }
    }
    map
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{PortRange, TaskArn};

    fn net(text: &str) -> Subnet {
        let (address, prefix) = text.split_once('/').unwrap();
        Subnet::new(address.parse().unwrap(), prefix.parse().unwrap()).unwrap()
    }

    #[test]
    fn the_first_free_candidate_wins_and_a_default_route_takes_nothing() {
        let candidates = Subnet::defaults();
        assert_eq!(candidates.len(), 15);
        let taken = [net("0.0.0.0/0"), net("172.17.5.0/24"), net("172.18.0.0/15")];
        assert_eq!(choose_subnet(&candidates, &taken).unwrap().to_string(), "172.20.0.0/16");
        assert_eq!(
            choose_subnet(&candidates, &[net("0.0.0.0/0")]).unwrap().gateway(),
            Ipv4Addr::new(172, 17, 0, 1)
        );
        assert_eq!(choose_subnet(&candidates, &[net("172.16.0.0/12")]), None);
        assert_eq!(Subnet::new(Ipv4Addr::LOCALHOST, 33), None);
    }

    #[test]
    fn addresses_go_round_and_end() {
        let mut pool = AddressPool::new(net("10.0.0.0/29"), Ipv4Addr::new(10, 0, 0, 1));
        let all: Vec<_> = std::iter::from_fn(|| pool.take_any()).map(|a| a.octets()[3]).collect();
        assert_eq!(all, [2, 3, 4, 5, 6]);
        pool.give_back(Ipv4Addr::new(10, 0, 0, 4));
        assert!(!pool.take(Ipv4Addr::new(10, 0, 0, 5)), "taken");
        assert!(!pool.take(Ipv4Addr::new(10, 0, 0, 7)), "broadcast");
        assert!(!pool.take(Ipv4Addr::new(10, 0, 1, 4)), "elsewhere");
        assert!(pool.take(Ipv4Addr::new(10, 0, 0, 4)));
    }

    #[test]
    fn a_released_address_is_the_last_to_come_again() {
        let mut pool = AddressPool::new(net("10.0.0.0/24"), Ipv4Addr::new(10, 0, 0, 1));
        let first = pool.take_any().unwrap();
        pool.give_back(first);
        assert_ne!(pool.take_any().unwrap(), first);
    }

    #[test]
    fn ports_go_round_in_blocks_and_avoid_reserved_ones() {
        let mut rotation = PortRotation::new(100, 109);
        let reserved = BTreeSet::from([103]);
        assert_eq!(rotation.blocks(4, &reserved).collect::<Vec<_>>(), [104, 105, 106]);
        rotation.used(104, 4);
        assert_eq!(rotation.blocks(1, &reserved).take(4).collect::<Vec<_>>(), [108, 109, 100, 101]);
        rotation.used(109, 1);
        assert_eq!(rotation.blocks(1, &reserved).next(), Some(100));
        assert_eq!(rotation.blocks(11, &reserved).next(), None);
        assert_eq!(PortRotation::new(65000, 65535).blocks(u16::MAX, &reserved).next(), None);
    }

    #[test]
    fn names_fit_the_kernel_and_tell_containers_apart() {
        let arn = TaskArn::parse("arn:aws:ecs:r:1:task/c/0a").unwrap();
        let key = |name: &str| ContainerKey { task: arn.id(), name: name.to_owned() };
        assert_eq!(veth_name(&key("web")).len(), 15);
        assert_ne!(veth_name(&key("web")), veth_name(&key("../x")));
        assert!(!pin_name(&key("../x")).contains('/'));
        assert_eq!(mac_address(Ipv4Addr::new(172, 17, 0, 2)), [2, 0x42, 172, 17, 0, 2]);
    }

    #[test]
    fn a_range_maps_port_by_port() {
        let range = PortRange { first: 9000, count: 3, is_range: true };
        let mapping = PortMapping { container: range, host_port: 0, protocol: Protocol::Tcp };
        assert!(is_dynamic(&mapping));
        let map = port_map(Ipv4Addr::new(10, 0, 0, 2), &[binding(&mapping, 32770)]);
        let pairs: Vec<_> = map.iter().map(|(k, v)| (k.1, v.port)).collect();
        assert_eq!(pairs, [(32770, 9000), (32771, 9001), (32772, 9002)]);
    }
}
