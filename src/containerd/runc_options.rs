//! Messages of containerd's runc shim that `containerd-client` lacks, generated from `proto/`.
//! Only the numbers on the wire are containerd's; nothing here decides anything.

#![allow(missing_docs)] // generated

include!(concat!(env!("OUT_DIR"), "/containerd.runc.v1.rs"));

#[cfg(test)]
mod tests {
    use super::Options;
    use prost::{Message, Name};

    #[test]
    fn the_wire_numbers_are_containerds() {
        let options = Options { binary_name: "crun".into(), systemd_cgroup: true };
        assert_eq!(options.encode_to_vec(), [0x32, 4, b'c', b'r', b'u', b'n', 0x48, 1]);
        assert_eq!(Options::full_name(), "containerd.runc.v1.Options");
    }
}
