//! Network interfaces that the control plane announced and waits to hear of
//! (spec/control-plane.md 3.4, 5.6).

use crate::model::ids::TaskArn;
use crate::model::time::Wall;
use std::fmt;

/// A hardware address of Ethernet.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MacAddress(pub [u8; 6]);

impl MacAddress {
    /// Reads `0a:1b:2c:3d:4e:5f`, in either case; `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        let mut bytes = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut bytes {
            let part = parts.next().filter(|p| p.len() == 2 && p.bytes().all(|c| c.is_ascii_hexdigit()))?;
            *byte = u8::from_str_radix(part, 16).ok()?;
        }
        parts.next().is_none().then_some(Self(bytes))
    }
}

impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// An announced network interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attachment {
    /// What the control plane calls it.
    pub arn: String,
    /// By which it is recognised on the host.
    pub mac: MacAddress,
    /// The task that it is for; `None` where it is the instance's own (trunk).
    pub task: Option<TaskArn>,
    /// After this nothing is told of it any more.
    pub expires_at: Wall,
    /// The control plane was told that it is here.
    pub sent: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_in_either_case_and_nothing_else_is() {
        let mac = MacAddress::parse("0A:1b:2c:3d:4e:5F").unwrap();
        assert_eq!(mac.to_string(), "0a:1b:2c:3d:4e:5f");
        for bad in
            ["", "0a:1b:2c:3d:4e", "0a:1b:2c:3d:4e:5f:60", "0a:1b:2c:3d:4e:+f", "a:1b:2c:3d:4e:5f", "é"]
        {
            assert!(MacAddress::parse(bad).is_none(), "{bad}");
        }
    }
}
