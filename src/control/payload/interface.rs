//! What a network interface must hold (spec/control-plane.md 3.4), in payloads and announcements alike.

use crate::control::acs::wire::ElasticNetworkInterface;
use crate::model::MacAddress;

/// Why an interface can't be used; the words are the original agent's, but for the hardware address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InterfaceError {
    /// No address.
    #[error("eni message validation: no ipv4 addresses in the message")]
    NoAddress,
    /// No gateway.
    #[error("eni message validation: no subnet gateway {0} address in the message")]
    NoGateway(&'static str),
    /// Not `address/prefix`.
    #[error("eni message validation: invalid subnet gateway {version} address {value}")]
    Gateway {
        /// `ipv4` or `ipv6`.
        version: &'static str,
        /// What it is, cut to a sensible length.
        value: String,
    },
    /// No hardware address.
    #[error("eni message validation: empty eni mac address in the message")]
    NoMac,
    /// Not a hardware address.
    #[error("eni message validation: {0:?} is no mac address such as 0a:1b:2c:3d:4e:5f")]
    Mac(String),
    /// No id.
    #[error("eni message validation: empty eni id in the message")]
    NoId,
    /// Neither `default` nor `vlan`.
    #[error("invalid interface association protocol: {0}")]
    Protocol(String),
    /// `vlan` without its VLAN or its trunk.
    #[error("vlan interface properties missing")]
    Vlan,
}

/// Checks an interface; answers its hardware address.
///
/// # Errors
/// [`InterfaceError`]
pub fn check(interface: &ElasticNetworkInterface) -> Result<MacAddress, InterfaceError> {
    let ipv6_only = interface.ipv4_addresses.is_empty() && !interface.ipv6_addresses.is_empty();
    if ipv6_only {
        gateway("ipv6", &interface.subnet_gateway_ipv6_address)?;
    } else {
        if interface.ipv4_addresses.is_empty() {
            return Err(InterfaceError::NoAddress);
        }
        gateway("ipv4", &interface.subnet_gateway_ipv4_address)?;
    }
    if interface.mac_address.is_empty() {
        return Err(InterfaceError::NoMac);
    }
    let mac = MacAddress::parse(&interface.mac_address);
    let mac = mac.ok_or_else(|| InterfaceError::Mac(short(&interface.mac_address)))?;
    if interface.ec2_id.is_empty() {
        return Err(InterfaceError::NoId);
    }
    match interface.interface_association_protocol.as_str() {
        "" | "default" => Ok(mac),
        "vlan" => match &interface.interface_vlan_properties {
            Some(v) if !v.vlan_id.is_empty() && !v.trunk_interface_mac_address.is_empty() => Ok(mac),
            _ => Err(InterfaceError::Vlan),
        },
        other => Err(InterfaceError::Protocol(short(other))),
    }
}

fn gateway(version: &'static str, value: &str) -> Result<(), InterfaceError> {
    match (value.is_empty(), value.split('/').count()) {
        (true, _) => Err(InterfaceError::NoGateway(version)),
        (false, 2) => Ok(()),
        _ => Err(InterfaceError::Gateway { version, value: short(value) }),
    }
}

fn short(value: &str) -> String {
    value.chars().take(64).collect()
}
