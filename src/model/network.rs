//! Networks and ports in model terms.

use std::net::Ipv4Addr;

/// The network mode of a task. An empty mode on the wire is `Bridge`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum NetworkMode {
    /// Each container in a network namespace of its own on the agent's bridge.
    #[default]
    Bridge,
    /// The host's network.
    Host,
    /// A namespace with a loopback only.
    None,
}

impl NetworkMode {
    /// The word in the task definition.
    pub fn word(self) -> &'static str {
        match self {
            Self::Bridge => "bridge",
            Self::Host => "host",
            Self::None => "none",
        }
    }
}

/// Transport protocol of a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Protocol {
    /// TCP.
    #[default]
    Tcp,
    /// UDP.
    Udp,
}

impl Protocol {
    /// `tcp` or `udp`, as on the wire.
    pub fn word(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

/// One port of the host that leads to one port of a container. A mapped range is one binding with
/// `count` ports, contiguous on both sides.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct NetworkBinding {
    /// Address on the host; `0.0.0.0` for every one.
    pub bind_ip: Ipv4Addr,
    /// First port in the container.
    pub container_port: u16,
    /// First port on the host.
    pub host_port: u16,
    /// How many contiguous ports; 1 unless the mapping was a range.
    pub count: u16,
    /// Written as a range to the control plane, even where it has one port.
    pub is_range: bool,
    /// Protocol.
    pub protocol: Protocol,
}

/// Where a container is on the network.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ContainerAddress {
    /// Its address on the bridge; `None` in host and none mode.
    pub ipv4: Option<Ipv4Addr>,
    /// The host's ports that lead to it.
    pub bindings: Vec<NetworkBinding>,
}
