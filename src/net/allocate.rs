//! Who has which address and which host ports. In memory only: after a restart it is told by
//! `restore`, from what the store recorded.

use super::error::NetError;
use super::hold::HeldPorts;
use super::plan::{AddressPool, PortMap, PortRotation, Subnet, binding, is_dynamic, port_map};
use crate::model::{ContainerAddress, ContainerKey, NetworkBinding, PortMapping, Protocol};
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

/// What one container has.
#[derive(Debug)]
struct Allocation {
    address: ContainerAddress,
    _held: HeldPorts,
}

/// All that is given out.
#[derive(Debug)]
pub(super) struct Allocations {
    pool: AddressPool,
    subnet: Subnet,
    rotation: PortRotation,
    range: (u16, u16),
    reserved_tcp: BTreeSet<u16>,
    reserved_udp: BTreeSet<u16>,
    given: BTreeMap<ContainerKey, Allocation>,
}

impl Allocations {
    /// Nothing given out yet.
    pub(super) fn new(
        subnet: Subnet,
        gateway: Ipv4Addr,
        range: (u16, u16),
        reserved_tcp: BTreeSet<u16>,
        reserved_udp: BTreeSet<u16>,
    ) -> Self {
        let pool = AddressPool::new(subnet, gateway);
        let rotation = PortRotation::new(range.0, range.1);
        Self { pool, subnet, rotation, range, reserved_tcp, reserved_udp, given: BTreeMap::new() }
    }

    /// What a container has.
    pub(super) fn of(&self, key: &ContainerKey) -> Option<&ContainerAddress> {
        self.given.get(key).map(|a| &a.address)
    }

    /// Everyone who has something.
    pub(super) fn keys(&self) -> BTreeSet<ContainerKey> {
        self.given.keys().cloned().collect()
    }

    /// All ports that are mapped.
    pub(super) fn port_map(&self) -> PortMap {
        let maps = self.given.values().filter_map(|a| Some(port_map(a.address.ipv4?, &a.address.bindings)));
        maps.flatten().collect()
    }

    /// Notes a container that needs neither address nor port.
    pub(super) fn take_nothing(&mut self, key: &ContainerKey) {
        let nothing = Allocation { address: ContainerAddress::default(), _held: HeldPorts::default() };
        self.given.entry(key.clone()).or_insert(nothing);
    }

    /// Address and ports for a container on the bridge; what was `known` is kept. All or nothing.
    pub(super) fn take(
        &mut self,
        key: &ContainerKey,
        mappings: &[PortMapping],
        known: &ContainerAddress,
    ) -> Result<ContainerAddress, NetError> {
        if let Some(given) = self.given.get(key) {
            return Ok(given.address.clone());
        }
        // The recorded address is kept unless the bridge moved to another network since.
        let ipv4 = match known.ipv4.filter(|a| self.subnet.contains(*a)) {
            Some(address) if self.pool.take(address) => address,
            Some(address) => return Err(NetError::AddressTaken(address)),
            None => self.pool.take_any().ok_or(NetError::NoAddress { subnet: self.subnet.to_string() })?,
        };
        let mut held = HeldPorts::default();
        match self.hold_all(mappings, known, &mut held) {
            Ok(bindings) => {
                let address = ContainerAddress { ipv4: Some(ipv4), bindings };
                self.given.insert(key.clone(), Allocation { address: address.clone(), _held: held });
                Ok(address)
            }
            Err(error) => {
                self.pool.give_back(ipv4);
                Err(self.say_who(error))
            }
        }
    }

    fn hold_all(
        &mut self,
        mappings: &[PortMapping],
        known: &ContainerAddress,
        held: &mut HeldPorts,
    ) -> Result<Vec<NetworkBinding>, NetError> {
        if !known.bindings.is_empty() {
            known.bindings.iter().try_for_each(|b| held.add(b))?;
            return Ok(known.bindings.clone());
        }
        let mut bindings = Vec::new();
        // Fixed ones first, so that no dynamic one takes a port that this container names.
        for mapping in mappings.iter().filter(|m| !is_dynamic(m)) {
            held.add(&binding(mapping, mapping.host_port))?;
        }
        for mapping in mappings {
            bindings.push(match is_dynamic(mapping) {
                false => binding(mapping, mapping.host_port),
                true => self.hold_any(mapping, held)?,
            });
        }
        Ok(bindings)
    }

    fn hold_any(&mut self, mapping: &PortMapping, held: &mut HeldPorts) -> Result<NetworkBinding, NetError> {
        let reserved = match mapping.protocol {
            Protocol::Tcp => &self.reserved_tcp,
            Protocol::Udp => &self.reserved_udp,
        };
        let count = mapping.container.count.max(1);
        for first in self.rotation.blocks(count, reserved) {
            let candidate = binding(mapping, first);
            match held.add(&candidate) {
                Ok(()) => {
                    self.rotation.used(first, count);
                    return Ok(candidate);
                }
                Err(NetError::PortInUse { .. }) => {}
                Err(other) => return Err(other),
            }
        }
        let (low, high) = self.range;
        Err(NetError::NoFreePort { count, protocol: mapping.protocol, low, high })
    }

    /// Adds to "in use" which container of ours it is.
    fn say_who(&self, error: NetError) -> NetError {
        let NetError::PortInUse { port, protocol, .. } = error else { return error };
        let has = |b: &NetworkBinding| {
            b.protocol == protocol && (b.host_port..).take(b.count.into()).any(|p| p == port)
        };
        let owner = self.given.iter().find(|(_, a)| a.address.bindings.iter().any(has));
        let hint = owner.map(|(key, _)| format!(", by container {key}")).unwrap_or_default();
        NetError::PortInUse { port, protocol, hint }
    }

    /// Takes what a live container is recorded to have. It lives, so it keeps all of it even where
    /// a port could not be held again; those errors are answered.
    pub(super) fn adopt(&mut self, key: &ContainerKey, address: &ContainerAddress) -> Vec<NetError> {
        if self.given.contains_key(key) {
            return Vec::new();
        }
        let mut errors = Vec::new();
        if let Some(ipv4) = address.ipv4.filter(|a| !self.pool.take(*a)) {
            errors.push(NetError::AddressTaken(ipv4));
        }
        let mut held = HeldPorts::default();
        errors.extend(address.bindings.iter().filter_map(|b| held.add(b).err()));
        self.given.insert(key.clone(), Allocation { address: address.clone(), _held: held });
        errors
    }

    /// Gives back what a container has.
    pub(super) fn give_back(&mut self, key: &ContainerKey) {
        if let Some(address) = self.given.remove(key).and_then(|a| a.address.ipv4) {
            self.pool.give_back(address);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{PortRange, TaskArn};

    fn allocations(range: (u16, u16)) -> Allocations {
        let subnet = Subnet::new(Ipv4Addr::new(10, 9, 0, 0), 16).unwrap();
        Allocations::new(subnet, subnet.gateway(), range, BTreeSet::new(), BTreeSet::new())
    }

    fn key(name: &str) -> ContainerKey {
        ContainerKey {
            task: TaskArn::parse("arn:aws:ecs:r:1:task/c/0a").unwrap().id(),
            name: name.to_owned(),
        }
    }

    fn mapping(first: u16, count: u16, host_port: u16) -> PortMapping {
        let container = PortRange { first, count, is_range: count > 1 };
        PortMapping { container, host_port, protocol: Protocol::Tcp }
    }

    #[test]
    fn a_fixed_port_is_refused_by_name_of_its_owner_and_nothing_is_kept() {
        let mut all = allocations((21000, 21100));
        let known = ContainerAddress::default();
        all.take(&key("a"), &[mapping(80, 1, 21500)], &known).unwrap();
        let error = all.take(&key("b"), &[mapping(80, 1, 0), mapping(80, 1, 21500)], &known).unwrap_err();
        assert_eq!(
            error.reason().to_string(),
            "CannotStartContainerError: host port 21500/tcp is already in use on this host, by container 0a/a"
        );
        assert_eq!(all.of(&key("b")), None);
        all.give_back(&key("a"));
        all.take(&key("b"), &[mapping(80, 1, 21500)], &known).unwrap();
    }

    #[test]
    fn ranges_and_single_ports_are_chosen_and_recorded_ones_are_kept() {
        let mut all = allocations((21200, 21260));
        let known = ContainerAddress::default();
        let a = all.take(&key("a"), &[mapping(80, 1, 0), mapping(9000, 4, 0)], &known).unwrap();
        assert_eq!((a.bindings[0].count, a.bindings[1].count), (1, 4));
        assert_eq!(all.port_map().len(), 5);
        assert_eq!(all.take(&key("a"), &[], &known).unwrap(), a, "asking again changes nothing");
        all.give_back(&key("a"));
        assert_eq!(all.take(&key("a"), &[mapping(80, 1, 0)], &a).unwrap(), a);
        let taken = all.take(&key("b"), &[], &ContainerAddress { ipv4: a.ipv4, bindings: vec![] });
        assert!(matches!(taken, Err(NetError::AddressTaken(_))));
        let elsewhere = ContainerAddress { ipv4: Some(Ipv4Addr::new(10, 1, 0, 7)), bindings: vec![] };
        assert_ne!(all.take(&key("b"), &[], &elsewhere).unwrap().ipv4, elsewhere.ipv4);
    }

    #[test]
    fn an_exhausted_range_says_so() {
        let mut all = allocations((21300, 21301));
        let error = all.take(&key("a"), &[mapping(1, 3, 0)], &ContainerAddress::default()).unwrap_err();
        let text = "CannotCreateContainerError: no 3 contiguous free tcp host port(s) in the dynamic range 21300-21301";
        assert_eq!(error.reason().to_string(), text);
    }
}
