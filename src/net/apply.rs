//! Makes the plan so on one host. Every function blocks; the service gives them threads.

use super::NetworkOptions;
use super::allocate::Allocations;
use super::error::NetError;
use super::netlink::Netlink;
use super::nft::Table;
use super::plan::{PortMap, Subnet, choose_subnet, pin_name, port_map, veth_name};
use super::ruleset::{METADATA_ADDRESS, RulesetPlan};
use super::{link, pin};
use crate::model::{ContainerAddress, ContainerKey, PortMapping};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// One host's network, once it is set up.
#[derive(Debug)]
pub(super) struct HostNetwork {
    directory: PathBuf,
    bridge: u32,
    gateway: Ipv4Addr,
    subnet: Subnet,
    allocations: Mutex<Allocations>,
    /// Made in the host's namespace, and stays there.
    links: Mutex<Netlink>,
    table: Mutex<Table>,
}

/// What a container's attachment shall be.
pub(super) enum Wish<'a> {
    /// Loopback only.
    Nothing,
    /// On the bridge.
    Bridge {
        /// Ports asked for.
        mappings: &'a [PortMapping],
        /// What was recorded before.
        known: &'a ContainerAddress,
    },
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn open_links() -> Result<Netlink, NetError> {
    Netlink::route().map_err(|e| NetError::netlink("open a socket for links", e))
}

fn set(path: &str, value: &str) -> Result<(), NetError> {
    fs::write(path, value).map_err(|e| NetError::file("set", path, e))
}

impl HostNetwork {
    /// Bridge, kernel settings and rules: makes what is missing and takes what is there.
    pub(super) fn start(options: &NetworkOptions) -> Result<Self, NetError> {
        let directory = options.netns_dir.clone();
        fs::create_dir_all(&directory).map_err(|e| NetError::file("make", &directory, e))?;
        let mut links = open_links()?;
        let (gateway, subnet) = pick_network(&mut links, options)?;
        let name = &options.bridge_name;
        let bridge = link::make_bridge(&mut links, name, gateway, subnet)?;
        set("/proc/sys/net/ipv4/ip_forward", "1")?;
        set(&format!("/proc/sys/net/ipv4/conf/{name}/route_localnet"), "1")?;
        // A host may have no IPv6 at all.
        let _ = set(&format!("/proc/sys/net/ipv6/conf/{name}/disable_ipv6"), "1");
        if !link::routes(&mut links)?.iter().any(|r| r.prefix() == 0) {
            link::loopback_route(&mut links, metadata_address(), true)?;
        }
        let mut table = Table::new(ruleset(options, subnet), &options.nft_program)?;
        // Rules that are there serve live containers; `restore` puts them right.
        if !table.has_rules()? {
            table.assert()?;
        }
        let allocations = Allocations::new(
            subnet,
            gateway,
            options.dynamic_ports(),
            options.reserved_tcp.clone(),
            options.reserved_udp.clone(),
        );
        let (allocations, links, table) = (Mutex::new(allocations), Mutex::new(links), Mutex::new(table));
        Ok(Self { directory, bridge, gateway, subnet, allocations, links, table })
    }

    /// The bridge's address.
    pub(super) fn gateway(&self) -> Ipv4Addr {
        self.gateway
    }

    /// Attaches one container. Whatever failed, nothing is left of it.
    pub(super) fn attach(
        &self,
        key: &ContainerKey,
        wish: &Wish<'_>,
    ) -> Result<(PathBuf, ContainerAddress), NetError> {
        let pin = self.directory.join(pin_name(key));
        let (address, recorded) = match wish {
            Wish::Nothing => {
                lock(&self.allocations).take_nothing(key);
                (ContainerAddress::default(), true)
            }
            Wish::Bridge { mappings, known } => {
                let mut allocations = lock(&self.allocations);
                let recorded = allocations.of(key).is_some() || known.ipv4.is_some();
                let address = allocations.take(key, mappings, known)?;
                let kept = known.ipv4.is_none_or(|ip| address.ipv4 == Some(ip));
                (address, recorded && kept)
            }
        };
        match self.build(key, &pin, &address, recorded) {
            Ok(()) => Ok((pin, address)),
            Err(error) => {
                // Its own failures say less than the first one.
                let _ = self.detach(key);
                Err(error)
            }
        }
    }

    fn build(
        &self,
        key: &ContainerKey,
        pin: &Path,
        address: &ContainerAddress,
        recorded: bool,
    ) -> Result<(), NetError> {
        let veth = veth_name(key);
        if let Some(ipv4) = address.ipv4 {
            lock(&self.table).map(&port_map(ipv4, &address.bindings))?;
        }
        let has_veth = link::index_of(&veth).is_some();
        if recorded && pin::is_pinned(pin) && has_veth == address.ipv4.is_some() {
            return Ok(());
        }
        if has_veth {
            link::remove(&mut lock(&self.links), &veth)?;
        }
        pin::remove(pin)?;
        // A thread of its own, because it never comes back to the host's namespace.
        std::thread::scope(|scope| {
            let work = std::thread::Builder::new().name("netns".to_owned()).stack_size(256 * 1024);
            let work = work.spawn_scoped(scope, || self.build_namespace(pin, &veth, address.ipv4));
            let work = work.map_err(|e| NetError::netlink("start a thread for a network namespace", e))?;
            work.join().map_err(|_| NetError::Thread)?
        })
    }

    /// On a thread of its own.
    fn build_namespace(&self, pin: &Path, veth: &str, ipv4: Option<Ipv4Addr>) -> Result<(), NetError> {
        pin::enter_new(pin)?;
        let Some(address) = ipv4 else { return link::configure_container(None) };
        // No IPv6 but on the loopback, as on Docker's bridge: no address to wait for. A host may
        // have no IPv6 at all.
        let _ = set("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1");
        let netns = File::open(pin).map_err(|e| NetError::file("open", pin, e))?;
        link::make_veth(&mut lock(&self.links), veth, self.bridge, address, &netns)?;
        link::configure_container(Some((address, self.gateway, self.subnet)))
    }

    /// Removes what a container has here, going on where a step fails.
    pub(super) fn detach(&self, key: &ContainerKey) -> Result<(), NetError> {
        let address = lock(&self.allocations).of(key).cloned();
        let ports = match address {
            Some(ContainerAddress { ipv4: Some(ipv4), bindings }) => port_map(ipv4, &bindings),
            _ => PortMap::new(),
        };
        let mut errors = Vec::new();
        errors.extend(lock(&self.table).unmap(&ports).err());
        errors.extend(self.remove_namespace(&self.directory.join(pin_name(key)), &veth_name(key)).err());
        lock(&self.allocations).give_back(key);
        NetError::collect(errors)
    }

    fn remove_namespace(&self, pin: &Path, veth: &str) -> Result<(), NetError> {
        let mut errors = Vec::new();
        if link::index_of(veth).is_some() {
            errors.extend(link::remove(&mut lock(&self.links), veth).err());
        }
        errors.extend(pin::remove(pin).err());
        NetError::collect(errors)
    }

    /// Takes the live containers' addresses and ports, removes what is nobody's.
    pub(super) fn restore(&self, live: &[(ContainerKey, ContainerAddress)]) -> Result<(), NetError> {
        let mut errors = Vec::new();
        let (ports, keys) = {
            let mut allocations = lock(&self.allocations);
            for (key, address) in live {
                errors.extend(allocations.adopt(key, address));
            }
            (allocations.port_map(), allocations.keys())
        };
        errors.extend(lock(&self.table).replace(ports).err());
        let veths: BTreeSet<String> = keys.iter().map(veth_name).collect();
        let pins: BTreeSet<String> = keys.iter().map(pin_name).collect();
        let mut links = lock(&self.links);
        match link::veths_on(&mut links, self.bridge) {
            Ok(found) => {
                for name in found.iter().filter(|n| !veths.contains(*n)) {
                    errors.extend(link::remove(&mut links, name).err());
                }
            }
            Err(error) => errors.push(error),
        }
        drop(links);
        for name in pin::list(&self.directory)?.iter().filter(|n| !pins.contains(*n)) {
            errors.extend(pin::remove(&self.directory.join(name)).err());
        }
        NetError::collect(errors)
    }

    /// Puts the table back where it isn't whole; answers whether it had to.
    pub(super) fn repair_rules(&self) -> Result<bool, NetError> {
        let mut table = lock(&self.table);
        if table.is_intact()? {
            return Ok(false);
        }
        table.assert().map(|()| true)
    }
}

/// An existing bridge keeps its network; a new one gets the first that is free.
fn pick_network(links: &mut Netlink, options: &NetworkOptions) -> Result<(Ipv4Addr, Subnet), NetError> {
    let own = link::index_of(&options.bridge_name);
    let addresses = link::addresses(links)?;
    if let Some((_, gateway, subnet)) = addresses.iter().find(|(index, ..)| Some(*index) == own) {
        return Ok((*gateway, *subnet));
    }
    let mut taken: Vec<Subnet> = addresses.iter().map(|(_, _, subnet)| *subnet).collect();
    taken.extend(link::routes(links)?);
    let subnet = choose_subnet(&options.subnets, &taken).ok_or_else(|| {
        let candidates: Vec<String> = options.subnets.iter().map(ToString::to_string).collect();
        NetError::NoSubnet { candidates: candidates.join(", ") }
    })?;
    Ok((subnet.gateway(), subnet))
}

fn metadata_address() -> Ipv4Addr {
    METADATA_ADDRESS.parse().unwrap_or(Ipv4Addr::new(169, 254, 170, 2))
}

fn ruleset(options: &NetworkOptions, subnet: Subnet) -> RulesetPlan {
    RulesetPlan {
        table: options.table.clone(),
        bridge: options.bridge_name.clone(),
        subnet,
        metadata_port: options.metadata_port,
    }
}

/// Removes everything of ours, whether it was this process that made it or not.
pub(super) fn remove_all(options: &NetworkOptions) -> Result<(), NetError> {
    let mut errors = Vec::new();
    let mut links = open_links()?;
    if let Some(bridge) = link::index_of(&options.bridge_name) {
        for name in link::veths_on(&mut links, bridge)? {
            errors.extend(link::remove(&mut links, &name).err());
        }
        errors.extend(link::remove(&mut links, &options.bridge_name).err());
    }
    for name in pin::list(&options.netns_dir)? {
        errors.extend(pin::remove(&options.netns_dir.join(name)).err());
    }
    let _ = fs::remove_dir(&options.netns_dir);
    errors.extend(link::loopback_route(&mut links, metadata_address(), false).err());
    // Any network will do: the rules are only named.
    let anywhere = Subnet::defaults().first().copied().or_else(|| Subnet::new(Ipv4Addr::UNSPECIFIED, 0));
    if let Some(subnet) = anywhere {
        errors.extend(Table::new(ruleset(options, subnet), &options.nft_program)?.remove().err());
    }
    NetError::collect(errors)
}
