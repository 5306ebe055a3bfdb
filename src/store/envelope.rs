//! The wrapping of every stored value: `{"v":1,"sum":"<16 hex digits>","body":<record>}`.
//!
//! redb's own page checksums guard against torn writes; the sum in here guards each record against
//! whatever else happens to a file (bit rot, an editor, a bug), so that one bad record costs one
//! record. It covers the table and the key as well: a value under a foreign key does not check.

use serde::Deserialize;
use sha2::{Digest, Sha256};

/// The version that this program writes, and the only one so far.
pub(crate) const VERSION: u32 = 1;

/// Why a stored value was not taken.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RecordError {
    /// Not our wrapping at all.
    #[error("it is not a record of this program")]
    NotARecord,
    /// Written by a later version of this program.
    #[error("it has version {0}, and this program reads version {VERSION}")]
    Version(u32),
    /// Changed since it was written.
    #[error("its checksum does not match: the file was damaged or edited")]
    Sum,
    /// The wrapping is fine, the record in it is not.
    #[error("it does not read: {0}")]
    Body(String),
}

/// Wraps a record's JSON.
pub(crate) fn seal(table: &str, key: &str, body: &str) -> String {
    format!("{{\"v\":{VERSION},\"sum\":\"{}\",\"body\":{body}}}", sum(table, key, body))
}

/// Checks the wrapping and gives the record's JSON.
pub(crate) fn open<'a>(table: &str, key: &str, value: &'a [u8]) -> Result<&'a str, RecordError> {
    #[derive(Deserialize)]
    struct Head {
        v: u32,
    }
    let text = std::str::from_utf8(value).map_err(|_| RecordError::NotARecord)?;
    let parts = || {
        let rest = text.strip_prefix("{\"v\":1,\"sum\":\"")?;
        let (sum, rest) = rest.split_at_checked(16)?;
        Some((sum, rest.strip_prefix("\",\"body\":")?.strip_suffix('}')?))
    };
    match parts() {
        Some((claimed, body)) if claimed == sum(table, key, body) => Ok(body),
        Some(_) => Err(RecordError::Sum),
        None => match serde_json::from_str::<Head>(text) {
            Ok(head) if head.v != VERSION => Err(RecordError::Version(head.v)),
            _ => Err(RecordError::NotARecord),
        },
    }
}

/// 64 bits over table, key and record.
fn sum(table: &str, key: &str, body: &str) -> String {
    let mut hash = Sha256::new();
    for part in [table, key, body] {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part.as_bytes());
    }
    hex::encode(&hash.finalize()[..8])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_sealed_opens_under_its_own_key_only() {
        let sealed = seal("tasks", "a", r#"{"x":1}"#);
        assert_eq!(open("tasks", "a", sealed.as_bytes()), Ok(r#"{"x":1}"#));
        assert_eq!(open("tasks", "b", sealed.as_bytes()), Err(RecordError::Sum));
        assert_eq!(open("meta", "a", sealed.as_bytes()), Err(RecordError::Sum));
    }

    #[test]
    fn every_flipped_bit_is_seen() {
        let sealed = seal("tasks", "a", r#"{"x":1}"#).into_bytes();
        for at in 0..sealed.len() * 8 {
            let mut bad = sealed.clone();
            bad[at / 8] ^= 1 << (at % 8);
            assert!(open("tasks", "a", &bad).is_err(), "bit {at}");
        }
    }

    #[test]
    fn a_later_version_is_named() {
        assert_eq!(open("tasks", "a", br#"{"v":7,"new":true}"#), Err(RecordError::Version(7)));
        assert_eq!(open("tasks", "a", b"\xff"), Err(RecordError::NotARecord));
    }
}
