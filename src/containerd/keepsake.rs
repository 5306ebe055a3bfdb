//! What a container carries of its task: an extension of its record in containerd. Labels have room for
//! 4 KiB only, and a task may be longer. Written with the record, read when the store has lost a task.
//!
//! Its format is stored state like the store's: a field may be added with a default, anything else is a
//! new version, and what does not read counts as missing. It holds what the store holds, so no credential.

use crate::model::{ContainerAddress, Keepsake, NetworkBinding, Protocol};
use prost_types::Any;
use serde::{Deserialize, Serialize};
use std::net::Ipv4Addr;

/// Name of the extension, and its type.
pub(super) const EXTENSION: &str = "com.ecsd.keepsake";
/// The one version so far.
const VERSION: u32 = 1;

#[derive(Serialize, Deserialize)]
struct KeepsakeRecord {
    version: u32,
    source: String,
    #[serde(default)]
    instance: String,
    #[serde(default)]
    ipv4: Option<Ipv4Addr>,
    #[serde(default)]
    bindings: Vec<BindingRecord>,
}

/// Address on the host, its first port, the container's, how many, whether it was a range, protocol.
type BindingRecord = (Ipv4Addr, u16, u16, u16, bool, String);

pub(super) fn write(keepsake: &Keepsake) -> Any {
    let binding = |b: &NetworkBinding| {
        (b.bind_ip, b.host_port, b.container_port, b.count, b.is_range, b.protocol.word().to_owned())
    };
    let record = KeepsakeRecord {
        version: VERSION,
        source: keepsake.source.to_string(),
        instance: keepsake.instance.clone(),
        ipv4: keepsake.address.ipv4,
        bindings: keepsake.address.bindings.iter().map(binding).collect(),
    };
    // Strings, numbers and lists of them always have a JSON form.
    let value = serde_json::to_vec(&record).unwrap_or_default();
    Any { type_url: EXTENSION.to_owned(), value }
}

pub(super) fn read(extension: &Any) -> Option<Keepsake> {
    let record: KeepsakeRecord = serde_json::from_slice(&extension.value).ok()?;
    let binding = |(bind_ip, host_port, container_port, count, is_range, protocol): BindingRecord| {
        let protocol = [Protocol::Tcp, Protocol::Udp].into_iter().find(|known| known.word() == protocol)?;
        Some(NetworkBinding { bind_ip, container_port, host_port, count, is_range, protocol })
    };
    let bindings = record.bindings.into_iter().map(binding).collect::<Option<_>>()?;
    (record.version == VERSION).then(|| Keepsake {
        source: record.source.into(),
        address: ContainerAddress { ipv4: record.ipv4, bindings },
        instance: record.instance,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keepsake() -> Keepsake {
        let binding = |protocol, is_range| NetworkBinding {
            bind_ip: Ipv4Addr::UNSPECIFIED,
            container_port: 80,
            host_port: 32774,
            count: 2,
            is_range,
            protocol,
        };
        let bindings = vec![binding(Protocol::Tcp, true), binding(Protocol::Udp, false)];
        Keepsake {
            source: "{\"version\":1}".into(),
            address: ContainerAddress { ipv4: Some(Ipv4Addr::new(172, 17, 0, 3)), bindings },
            instance: "arn:i".into(),
        }
    }

    #[test]
    fn what_was_written_reads() {
        assert_eq!(read(&write(&keepsake())), Some(keepsake()));
    }

    /// Written once, by the first version that wrote any: it must read for ever.
    #[test]
    fn the_first_versions_keepsake_reads() {
        let value = br#"{"version":1,"source":"{\"version\":1}","instance":"arn:i","ipv4":"172.17.0.3","bindings":[["0.0.0.0",32774,80,2,true,"tcp"],["0.0.0.0",32774,80,2,false,"udp"]]}"#;
        let extension = Any { type_url: EXTENSION.to_owned(), value: value.to_vec() };
        assert_eq!(read(&extension), Some(keepsake()));
    }

    #[test]
    fn what_does_not_read_is_missing() {
        for value in
            ["", "{}", r#"{"version":2,"source":""}"#, r#"{"version":1,"source":"","bindings":[[1]]}"#]
        {
            let extension = Any { type_url: EXTENSION.to_owned(), value: value.as_bytes().to_vec() };
            assert_eq!(read(&extension), None, "{value}");
        }
    }
}
