//! What can go wrong with a network.

use crate::model::{NetworkBinding, Protocol, StopReason};
use std::io;
use std::net::Ipv4Addr;
use std::path::PathBuf;

/// A network operation failed.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// The kernel refused a netlink request.
    #[error("could not {action}")]
    Netlink {
        /// What was tried.
        action: String,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// A file, mount or kernel setting could not be changed.
    #[error("could not {action} {path}")]
    File {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// The nft program failed.
    #[error("nft program {program}: {message}")]
    Nft {
        /// The program.
        program: PathBuf,
        /// What it said.
        message: String,
    },
    /// Every candidate network overlaps one that the host already reaches.
    #[error("no free network for the bridge: each of {candidates} overlaps an address or route of this host")]
    NoSubnet {
        /// What was tried.
        candidates: String,
    },
    /// All addresses of the bridge are taken.
    #[error("no free address in the bridge's network {subnet}")]
    NoAddress {
        /// The network.
        subnet: String,
    },
    /// A recorded address is another container's now.
    #[error("address {0}, recorded for this container, is in use by another one")]
    AddressTaken(Ipv4Addr),
    /// A host port is in use.
    #[error("host port {port}/{protocol} is already in use on this host{hint}", protocol = .protocol.word())]
    PortInUse {
        /// The port.
        port: u16,
        /// Its protocol.
        protocol: Protocol,
        /// Who has it, where that is known; starts with a space or is empty.
        hint: String,
    },
    /// A mapping reaches beyond the last port.
    #[error("host port {port}/{protocol} can't be mapped: ports {port} to {last} do not all exist", protocol = .protocol.word())]
    NoSuchPort {
        /// The first port.
        port: u16,
        /// The last one.
        last: u32,
        /// Its protocol.
        protocol: Protocol,
    },
    /// A port could not be held for another reason.
    #[error("could not hold host port {port}/{protocol}", protocol = .protocol.word())]
    Port {
        /// The port.
        port: u16,
        /// Its protocol.
        protocol: Protocol,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// No block of free ports in the dynamic range.
    #[error("no {count} contiguous free {protocol} host port(s) in the dynamic range {low}-{high}", protocol = .protocol.word())]
    NoFreePort {
        /// How many were wanted.
        count: u16,
        /// For which protocol.
        protocol: Protocol,
        /// The range.
        low: u16,
        /// Its end.
        high: u16,
    },
    /// A name is no good for the kernel.
    #[error("{name:?} can't name the {what}: 1 to {most} characters [A-Za-z0-9_-], a letter first")]
    BadName {
        /// What it was to name.
        what: &'static str,
        /// The name.
        name: String,
        /// The most characters there may be.
        most: usize,
    },
    /// The service has not been started, or was taken down.
    #[error("the network service is not started")]
    NotStarted,
    /// The thread that did the work is gone.
    #[error("the thread that did the network's work ended unexpectedly")]
    Thread,
    /// Several steps of a removal failed; the rest was done.
    #[error("{0}")]
    Several(String),
}

impl NetError {
    pub(super) fn netlink(action: impl Into<String>, source: io::Error) -> Self {
        Self::Netlink { action: action.into(), source }
    }

    pub(super) fn file(action: &'static str, path: impl Into<PathBuf>, source: io::Error) -> Self {
        Self::File { action, path: path.into(), source }
    }

    /// The error and all that caused it, in one line.
    pub fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            text.push_str(": ");
            text.push_str(&error.to_string());
            cause = error.source();
        }
        text
    }

    /// As users see it. Ports and networks failed when the container was started under Docker, and
    /// its scripts look for that name.
    pub fn reason(&self) -> StopReason {
        let name = match self {
            Self::NoFreePort { .. } => "CannotCreateContainerError",
            _ => "CannotStartContainerError",
        };
        StopReason::new(name, self.chain())
    }

    /// One error of many; `Ok` where there are none.
    pub(super) fn collect(errors: Vec<NetError>) -> Result<(), NetError> {
        match errors.len() {
            0 => Ok(()),
            _ => Err(Self::Several(errors.iter().map(Self::chain).collect::<Vec<_>>().join("; "))),
        }
    }
}

/// The first and last port of a binding; an error where they don't all exist.
pub(super) fn check_ports(binding: &NetworkBinding) -> Result<(), NetError> {
    for port in [binding.host_port, binding.container_port] {
        let last = u32::from(port) + u32::from(binding.count.max(1)) - 1;
        if last > u32::from(u16::MAX) || port == 0 {
            return Err(NetError::NoSuchPort { port, last, protocol: binding.protocol });
        }
    }
    Ok(())
}
