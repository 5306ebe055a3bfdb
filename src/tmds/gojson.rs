//! JSON as Go's encoding/json writes it, which clients have come to compare byte for byte:
//! `<`, `>`, `&` and the two Unicode line separators escaped, whole floats without a fraction, and
//! times in RFC 3339 with the nanoseconds' trailing zeros trimmed.

use crate::model::Wall;
use serde::{Serialize, Serializer};
use serde_json::ser::Formatter;
use std::io::{Result, Write};

/// Serialises in Go's manner.
///
/// # Errors
/// Where a map has keys that are no strings; none of ours has.
pub(crate) fn to_vec(value: &impl Serialize) -> serde_json::Result<Vec<u8>> {
    let mut out = Vec::with_capacity(1024);
    value.serialize(&mut serde_json::Serializer::with_formatter(&mut out, GoFormatter))?;
    Ok(out)
}

/// A moment as Go marshals a UTC `time.Time`.
pub(crate) fn rfc3339(at: Wall) -> String {
    let text = humantime::format_rfc3339_nanos(at.to_system_time()).to_string();
    let digits = text.trim_end_matches('Z').trim_end_matches('0').trim_end_matches('.');
    format!("{digits}Z")
}

/// For `#[serde(serialize_with)]` on optional moments.
pub(crate) fn opt_time<S: Serializer>(at: &Option<Wall>, out: S) -> std::result::Result<S::Ok, S::Error> {
    match at {
        Some(at) => out.serialize_str(&rfc3339(*at)),
        None => out.serialize_none(),
    }
}

struct GoFormatter;

impl Formatter for GoFormatter {
    fn write_string_fragment<W: ?Sized + Write>(&mut self, out: &mut W, fragment: &str) -> Result<()> {
        let special = |c| matches!(c, '<' | '>' | '&' | '\u{2028}' | '\u{2029}');
        let mut rest = fragment;
        while let Some(at) = rest.find(special) {
            let (plain, from) = rest.split_at(at);
            out.write_all(plain.as_bytes())?;
            let mut chars = from.chars();
            if let Some(c) = chars.next() {
                write!(out, "\\u{:04x}", u32::from(c))?;
            }
            rest = chars.as_str();
        }
        out.write_all(rest.as_bytes())
    }

    fn write_f64<W: ?Sized + Write>(&mut self, out: &mut W, value: f64) -> Result<()> {
        // Go switches to exponents below 1e-6 and from 1e21: CPU units and rates never get there.
        write!(out, "{value}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(value: impl Serialize) -> String {
        String::from_utf8(to_vec(&value).unwrap()).unwrap()
    }

    #[test]
    fn strings_are_escaped_as_go_does() {
        assert_eq!(
            text("a<b>&c\u{2028}\"\\\n\u{1b}\u{7f}é"),
            r#""a\u003cb\u003e\u0026c\u2028\"\\\n\u001b"#.to_owned() + "\u{7f}é\""
        );
    }

    #[test]
    fn floats_are_written_short() {
        assert_eq!(text([10.0, 0.25, 0.0]), "[10,0.25,0]");
    }

    #[test]
    fn times_are_trimmed() {
        assert_eq!(rfc3339(Wall(1_795_467_514_295_408_930)), "2026-11-23T20:58:34.29540893Z");
        assert_eq!(rfc3339(Wall(1_795_467_500_000_000_000)), "2026-11-23T20:58:20Z");
        assert_eq!(rfc3339(Wall(0)), "1970-01-01T00:00:00Z");
        assert_eq!(rfc3339(Wall(u64::MAX)), "2554-07-21T23:34:33.709551615Z");
    }
}
