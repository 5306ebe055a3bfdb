//! Docker's json-file format: one JSON object a line.

use serde::{Deserialize, Serialize};
use std::borrow::Cow;

/// Which of a container's two streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// One line of a log file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLine<'a> {
    /// The text; without its newline where a longer line was cut here.
    #[serde(borrow)]
    pub log: Cow<'a, str>,
    /// The stream.
    pub stream: Stream,
    /// RFC 3339 with nanoseconds.
    #[serde(borrow)]
    pub time: Cow<'a, str>,
}

/// Docker cuts lines at that many bytes.
pub const LONGEST: usize = 16 * 1024;

/// Cuts what a pipe gave into records: whole lines, and parts of lines that are too long.
#[derive(Debug, Default)]
pub struct Lines {
    kept: Vec<u8>,
}

impl Lines {
    /// Takes bytes, and hands on every record that is complete now.
    pub fn push(&mut self, mut bytes: &[u8], mut record: impl FnMut(&[u8])) {
        while !bytes.is_empty() {
            let room = LONGEST - self.kept.len();
            let window = bytes.get(..room.min(bytes.len())).unwrap_or(bytes);
            let (take, complete) = match window.iter().position(|b| *b == b'\n') {
                Some(newline) => (newline + 1, true),
                None => (window.len(), window.len() == room),
            };
            let (head, rest) = bytes.split_at(take);
            if self.kept.is_empty() && complete {
                record(head);
            } else {
                self.kept.extend_from_slice(head);
                if complete {
                    record(&self.kept);
                    self.kept.clear();
                }
            }
            bytes = rest;
        }
    }

    /// The stream ended: what is left is a record too.
    pub fn finish(&mut self, mut record: impl FnMut(&[u8])) {
        if !self.kept.is_empty() {
            record(&self.kept);
            self.kept.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(parts: &[&[u8]]) -> Vec<Vec<u8>> {
        let (mut lines, mut out) = (Lines::default(), Vec::new());
        for part in parts {
            lines.push(part, |r| out.push(r.to_vec()));
        }
        lines.finish(|r| out.push(r.to_vec()));
        out
    }

    #[test]
    fn lines_are_kept_whole_across_reads() {
        assert_eq!(cut(&[b"a", b"b\nc\n\nd"]), [&b"ab\n"[..], b"c\n", b"\n", b"d"]);
    }

    #[test]
    fn long_lines_are_cut_and_nothing_is_lost() {
        let long = [vec![b'x'; LONGEST * 2 + 5], b"\n".to_vec()].concat();
        for step in [1, 7, 4096, LONGEST, LONGEST + 1, long.len()] {
            let parts: Vec<&[u8]> = long.chunks(step).collect();
            let records = cut(&parts);
            assert_eq!(records.concat(), long, "{step}");
            assert_eq!(records.iter().map(Vec::len).collect::<Vec<_>>(), [LONGEST, LONGEST, 6], "{step}");
        }
    }
}
