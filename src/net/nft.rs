//! nftables: the table as a whole by the `nft` program (once at start, and when someone wiped it),
//! the elements of its port map by netlink (once a container, on the launch path).
//!
//! Owns the wanted content of the port map. Every method blocks.

use super::error::NetError;
use super::flows::forget_udp;
use super::netlink::{Netlink, Request, flags, messages};
use super::plan::PortMap;
use super::ruleset::{PORT_MAP, RulesetPlan};
use crate::model::Protocol;
use nix::errno::Errno;
use std::collections::BTreeSet;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// `NFNL_SUBSYS_NFTABLES`, the upper half of every message type.
const SUBSYSTEM: u16 = 10;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
/// `NFT_MSG_*`.
const GET_RULE: u8 = 7;
const NEW_ELEMENT: u8 = 12;
const GET_ELEMENT: u8 = 13;
const DELETE_ELEMENT: u8 = 14;
const DELETIONS: [u8; 4] = [2, 5, 8, 11]; // table, chain, rule, set
/// `NFPROTO_INET`, the family of our table.
const INET: u8 = 1;
/// Attributes nest: the flag tells the kernel so.
const NESTED: u16 = 0x8000;
/// Elements in one message: an attribute holds 64 KiB, an element takes 40 bytes.
const ELEMENTS_PER_MESSAGE: usize = 512;

/// The multicast group of nf_tables changes.
pub(super) const CHANGES: u32 = 7;

/// The table, as it should be and as the kernel has it.
#[derive(Debug)]
pub(super) struct Table {
    plan: RulesetPlan,
    program: PathBuf,
    netlink: Netlink,
    /// What the port map holds, or shall hold once the table is back.
    ports: PortMap,
}

impl Table {
    /// Touches nothing yet.
    pub(super) fn new(plan: RulesetPlan, program: &Path) -> Result<Self, NetError> {
        let netlink =
            Netlink::netfilter().map_err(|e| NetError::netlink("open a socket for nf_tables", e))?;
        Ok(Self { plan, program: program.to_owned(), netlink, ports: PortMap::new() })
    }

    /// Whether the kernel holds all of our rules and the wanted elements.
    pub(super) fn is_intact(&mut self) -> Result<bool, NetError> {
        let rules = self.count(GET_RULE, &[(1, name(&self.plan.table))])?;
        Ok(rules == self.plan.rule_count()
            && self.elements_in_kernel()? == self.ports.keys().copied().collect())
    }

    /// Whether the kernel holds all of our rules, whatever is mapped.
    pub(super) fn has_rules(&mut self) -> Result<bool, NetError> {
        Ok(self.count(GET_RULE, &[(1, name(&self.plan.table))])? == self.plan.rule_count())
    }

    /// Puts the whole table in place, in one transaction.
    pub(super) fn assert(&self) -> Result<(), NetError> {
        self.run(&self.plan.text(&self.ports))
    }

    /// Removes the table.
    pub(super) fn remove(&mut self) -> Result<(), NetError> {
        self.ports.clear();
        self.run(&self.plan.removal())
    }

    /// Sets what shall be mapped, all of it, and makes it so.
    pub(super) fn replace(&mut self, ports: PortMap) -> Result<(), NetError> {
        self.ports = ports;
        self.assert()
    }

    /// Maps more ports. Where the table is gone, it is put back.
    pub(super) fn map(&mut self, ports: &PortMap) -> Result<(), NetError> {
        self.ports.extend(ports);
        if ports.is_empty() {
            return Ok(());
        }
        match self.change(NEW_ELEMENT, ports) {
            Ok(()) => {}
            // ENOENT: wiped. EBUSY: a left-over element maps the port elsewhere.
            Err(_) => self.assert()?,
        }
        self.forget_flows(ports);
        Ok(())
    }

    /// Unmaps ports. What is not mapped is none to be unmapped.
    pub(super) fn unmap(&mut self, ports: &PortMap) -> Result<(), NetError> {
        self.ports.retain(|key, _| !ports.contains_key(key));
        if ports.is_empty() {
            return Ok(());
        }
        match self.change(DELETE_ELEMENT, ports) {
            Ok(()) => {}
            Err(_) => self.assert()?,
        }
        self.forget_flows(ports);
        Ok(())
    }

    /// A kernel without connection tracking over netlink can't; mapping ports works all the same.
    fn forget_flows(&mut self, ports: &PortMap) {
        if let Err(error) = forget_udp(&mut self.netlink, &udp(ports)) {
            tracing::warn!(error = error.chain(), "UDP clients may reach a former container for a while");
        }
    }

    /// One transaction over the elements of the port map.
    fn change(&mut self, message: u8, ports: &PortMap) -> io::Result<()> {
        let mut requests = vec![frame(BATCH_BEGIN)];
        let elements: Vec<Vec<u8>> = ports
            .iter()
            .map(|((protocol, port), to)| {
                let key = attribute(1 | NESTED, &attribute(1, &key_bytes(*protocol, *port)));
                let [high, low] = to.port.to_be_bytes();
                let mut data = to.address.octets().to_vec();
                data.extend([high, low, 0, 0]);
                let data = attribute(2 | NESTED, &attribute(1, &data));
                let element = if message == NEW_ELEMENT { [key, data].concat() } else { key };
                attribute(1 | NESTED, &element)
            })
            .collect();
        for chunk in elements.chunks(ELEMENTS_PER_MESSAGE) {
            let mut body = header(INET, 0);
            body.extend(attribute(1, &name(&self.plan.table)));
            body.extend(attribute(2, &name(PORT_MAP)));
            body.extend(attribute(3 | NESTED, &chunk.concat()));
            requests.push(Request { kind: kind(message), flags: flags::ACK | flags::CREATE, body });
        }
        requests.push(frame(BATCH_END));
        self.netlink.execute_all(&requests)
    }

    fn dump(&mut self, message: u8, attributes: &[(u16, Vec<u8>)]) -> Result<Vec<(u16, Vec<u8>)>, NetError> {
        let mut body = header(INET, 0);
        for (kind, value) in attributes {
            body.extend(attribute(*kind, value));
        }
        match self.netlink.dump(Request { kind: kind(message), flags: 0, body }) {
            Err(e) if e.raw_os_error() == Some(Errno::ENOENT as i32) => Ok(Vec::new()),
            other => other.map_err(|e| NetError::netlink("read our nftables table", e)),
        }
    }

    fn count(&mut self, message: u8, attributes: &[(u16, Vec<u8>)]) -> Result<usize, NetError> {
        // Kernels before 5.x ignore the filter by table: compare it ourselves.
        let table = attribute(1, &name(&self.plan.table));
        let answers = self.dump(message, attributes)?;
        Ok(answers.iter().filter(|(_, body)| body.get(4..).is_some_and(|b| b.starts_with(&table))).count())
    }

    fn elements_in_kernel(&mut self) -> Result<BTreeSet<(Protocol, u16)>, NetError> {
        let set = [(1, name(&self.plan.table)), (2, name(PORT_MAP))];
        let mut found = BTreeSet::new();
        for (_, body) in self.dump(GET_ELEMENT, &set)? {
            let list = attributes(body.get(4..).unwrap_or_default()).find(|(kind, _)| *kind == 3);
            for (_, element) in list.into_iter().flat_map(|(_, value)| attributes(value)) {
                let key = attributes(element).find(|(kind, _)| *kind == 1);
                let value = key.and_then(|(_, value)| attributes(value).find(|(kind, _)| *kind == 1));
                if let Some((_, [protocol, _, _, _, high, low, ..])) = value {
                    let protocol = if *protocol == UDP { Protocol::Udp } else { Protocol::Tcp };
                    found.insert((protocol, u16::from_be_bytes([*high, *low])));
                }
            }
        }
        Ok(found)
    }

    fn run(&self, text: &str) -> Result<(), NetError> {
        let failed = |message: String| NetError::Nft { program: self.program.clone(), message };
        let spawned = Command::new(&self.program)
            .args(["-f", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn();
        let mut child = spawned.map_err(|e| failed(format!("can't be run ({e}); install nftables")))?;
        // A program that ends early has more to say than EPIPE.
        let written = child.stdin.take().map(|mut pipe| pipe.write_all(text.as_bytes()));
        let output = child.wait_with_output().map_err(|e| failed(e.to_string()))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            return Err(failed(format!(
                "{}: {}",
                output.status,
                said.trim().chars().take(500).collect::<String>()
            )));
        }
        written.unwrap_or(Ok(())).map_err(|e| failed(e.to_string()))
    }
}

/// The UDP ports among these.
fn udp(ports: &PortMap) -> BTreeSet<u16> {
    ports.keys().filter(|(protocol, _)| *protocol == Protocol::Udp).map(|(_, port)| *port).collect()
}

const TCP: u8 = 6;
const UDP: u8 = 17;

/// Concatenated keys: each part takes whole 4-byte registers.
fn key_bytes(protocol: Protocol, port: u16) -> [u8; 8] {
    let [high, low] = port.to_be_bytes();
    let number = match protocol {
        Protocol::Tcp => TCP,
        Protocol::Udp => UDP,
    };
    [number, 0, 0, 0, high, low, 0, 0]
}

fn kind(message: u8) -> u16 {
    SUBSYSTEM << 8 | u16::from(message)
}

/// `struct nfgenmsg`.
pub(super) fn header(family: u8, resource: u16) -> Vec<u8> {
    let [high, low] = resource.to_be_bytes();
    vec![family, 0, high, low]
}

fn frame(kind: u16) -> Request {
    Request { kind, flags: 0, body: header(0, SUBSYSTEM) }
}

fn name(text: &str) -> Vec<u8> {
    let mut bytes = text.as_bytes().to_vec();
    bytes.push(0);
    bytes
}

/// One attribute, padded. Values are ours and short; one that could not be said is cut.
pub(super) fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(value.len() + 4).unwrap_or(u16::MAX);
    let mut bytes = Vec::with_capacity(usize::from(length).next_multiple_of(4));
    bytes.extend(length.to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// The attributes in a run of bytes, without their flags. Ends at the first that is cut short.
pub(super) fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let [a, b, c, d, ..] = *bytes else { return None };
        let length = usize::from(u16::from_ne_bytes([a, b]));
        let value = bytes.get(4..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((u16::from_ne_bytes([c, d]) & 0x3fff, value))
    })
}

/// Whether a datagram of the change group tells that something of `table` was deleted (as a flush
/// of the whole ruleset, or of one chain, does).
pub(super) fn tells_of_deletion(datagram: &[u8], table: &str) -> bool {
    let table = name(table);
    messages(datagram).any(|m| {
        let [high, low] = m.kind.to_be_bytes();
        u16::from(high) == SUBSYSTEM
            && DELETIONS.contains(&low)
            // In each of these messages attribute 1 is the table.
            && attributes(m.body.get(4..).unwrap_or_default()).any(|(kind, value)| kind == 1 && value == table)
    })
}
