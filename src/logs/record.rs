//! Docker's json-file record: one JSON object a line, `{"log":"text\n","stream":"stdout","time":
//! "2026-01-02T03:04:05.000000006Z"}`, with `attrs` before `time` where the options choose some. Other programs read these files, so fields and their order
//! are fixed. A text without a newline at its end goes on in the next record of its stream.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The most bytes of a line in one record (spec/task-engine.md 7.2).
pub const RECORD_MAX: usize = 16 * 1024;

/// Which output of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogStream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// One record as it is written.
#[derive(Debug, Serialize)]
struct Written<'a> {
    log: &'a str,
    stream: LogStream,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    attrs: &'a BTreeMap<String, String>,
    time: &'a str,
}

/// One record as it is read; others' records may hold more.
#[derive(Debug, Deserialize)]
struct Read {
    log: String,
    stream: LogStream,
    time: String,
}

/// One line of a container's output, or a part of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    /// Where it came from.
    pub stream: LogStream,
    /// When, RFC 3339 with nanoseconds, UTC.
    pub time: String,
    /// With the newline where the line ended with one.
    pub text: String,
}

/// Appends a record to `out`; `attributes` may be none. Bytes that are no UTF-8 become U+FFFD.
///
/// # Errors
/// Only those of writing to memory: none.
pub fn encode(
    out: &mut Vec<u8>,
    stream: LogStream,
    time: SystemTime,
    line: &[u8],
    attrs: &BTreeMap<String, String>,
) -> io::Result<()> {
    let (log, time) = (String::from_utf8_lossy(line), timestamp(time));
    serde_json::to_writer(&mut *out, &Written { log: &log, stream, attrs, time: &time })?;
    out.write_all(b"\n")
}

/// Reads a record back; `None` where the line is none (cut off by a crash, say).
pub fn decode(line: &[u8]) -> Option<LogLine> {
    let Read { log, stream, time } = serde_json::from_slice(line).ok()?;
    Some(LogLine { stream, time, text: log })
}

/// RFC 3339 in UTC with all nine digits of nanoseconds, as Go's RFC3339Nano shows them where none
/// is zero at the end.
fn timestamp(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    // humantime panics beyond the year 9999.
    let since = since.min(Duration::from_secs(253_402_300_799));
    let text = humantime::format_rfc3339_nanos(UNIX_EPOCH + since).to_string();
    match text.strip_suffix('Z').map(|t| t.trim_end_matches('0')) {
        Some(short) => format!("{}Z", short.trim_end_matches('.')),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(nanos: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_nanos(nanos)
    }

    #[test]
    fn a_record_is_dockers_to_the_byte() {
        let mut out = Vec::new();
        let time = at(1_700_000_000_000_000_006);
        encode(&mut out, LogStream::Stdout, time, b"a \"b\" \t\xff\n", &BTreeMap::new()).unwrap();
        let expected = "{\"log\":\"a \\\"b\\\" \\t\u{fffd}\\n\",\"stream\":\"stdout\",\"time\":\"2023-11-14T22:13:20.000000006Z\"}\n";
        assert_eq!(String::from_utf8(out.clone()).unwrap(), expected);
        let back = decode(&out).unwrap();
        assert_eq!((back.stream, back.text.as_str()), (LogStream::Stdout, "a \"b\" \t\u{fffd}\n"));
        assert_eq!(decode(b"{\"log\":\"cut"), None);
        assert_eq!(decode(b""), None);
        let attributes = BTreeMap::from([("tag".to_owned(), "t".to_owned())]);
        out.clear();
        encode(&mut out, LogStream::Stderr, time, b"x\n", &attributes).unwrap();
        let expected = "{\"log\":\"x\\n\",\"stream\":\"stderr\",\"attrs\":{\"tag\":\"t\"},\"time\":\"2023-11-14T22:13:20.000000006Z\"}\n";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn times_drop_their_last_zeros_as_go_does() {
        assert_eq!(timestamp(at(1_700_000_000_500_000_000)), "2023-11-14T22:13:20.5Z");
        assert_eq!(timestamp(at(1_700_000_000_000_000_000)), "2023-11-14T22:13:20Z");
        assert_eq!(timestamp(UNIX_EPOCH - Duration::from_secs(1)), "1970-01-01T00:00:00Z");
        assert!(timestamp(at(u64::MAX)).ends_with('Z'));
    }
}
