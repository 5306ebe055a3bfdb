//! Makes messages of one stream's bytes: whole lines, and the numbered pieces of lines that are longer
//! than a message may be. The clock and the pieces' names are its only input besides.

use super::driver::{Message, Partial};
use super::record::LogStream;
use super::splitter::LineSplitter;
use std::hash::{BuildHasher, RandomState};
use std::time::SystemTime;

/// One stream on its way to be messages.
#[derive(Debug)]
pub struct Pieces {
    stream: LogStream,
    lines: LineSplitter,
    /// The line of which pieces were given: the next one's number, and when it began.
    open: Option<(Partial, SystemTime)>,
    /// Where names of split lines come from.
    names: RandomState,
    named: u64,
}

impl Pieces {
    /// Messages of at most `max` bytes.
    pub fn new(stream: LogStream, max: usize) -> Self {
        let lines = LineSplitter::new(max);
        Self { stream, lines, open: None, names: RandomState::new(), named: 0 }
    }

    /// Takes bytes, gives the messages that they end.
    pub fn push(&mut self, bytes: &[u8], mut take: impl FnMut(&Message<'_>)) {
        let Self { stream, lines, open, names, named } = self;
        let now = SystemTime::now();
        lines.push(bytes, |piece| {
            let (line, ends) = match piece.strip_suffix(b"\n") {
                Some(line) => (line, true),
                None => (piece, false),
            };
            if ends && open.is_none() {
                take(&Message { line, ends, stream: *stream, time: now, partial: None });
                return;
            }
            let (mut partial, time) = open.take().unwrap_or_else(|| {
                *named += 1;
                (Partial { id: names.hash_one(*named), ordinal: 1, last: false }, now)
            });
            partial.last = ends;
            take(&Message { line, ends, stream: *stream, time, partial: Some(partial) });
            if !ends {
                let next = Partial { ordinal: partial.ordinal.saturating_add(1), ..partial };
                *open = Some((next, time));
            }
        });
    }

    /// At the end of the stream: gives what is left. A last line without a newline is a line.
    pub fn finish(&mut self, mut take: impl FnMut(&Message<'_>)) {
        let (stream, open) = (self.stream, self.open.take());
        self.lines.finish(|line| {
            let (partial, time) = match open {
                Some((partial, time)) => (Some(Partial { last: true, ..partial }), time),
                None => (None, SystemTime::now()),
            };
            take(&Message { line, ends: false, stream, time, partial });
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Seen = (String, bool, Option<(u64, u32, bool)>);

    fn seen(chunks: &[&str], max: usize) -> Vec<Seen> {
        let mut all = Vec::new();
        let mut take = |m: &Message<'_>| {
            let partial = m.partial.map(|p| (p.id, p.ordinal, p.last));
            all.push((String::from_utf8(m.line.to_vec()).unwrap(), m.ends, partial));
        };
        let mut pieces = Pieces::new(LogStream::Stdout, max);
        for chunk in chunks {
            pieces.push(chunk.as_bytes(), &mut take);
        }
        pieces.finish(&mut take);
        all
    }

    #[test]
    fn whole_lines_are_not_numbered() {
        let of = seen(&["one\nt", "wo\n\nend"], 4);
        let want = [("one", true), ("two", true), ("", true), ("end", false)];
        assert_eq!(of, want.map(|(line, ends)| (line.to_owned(), ends, None)));
    }

    #[test]
    fn pieces_of_a_line_share_a_name_and_are_counted() {
        let of = seen(&["aaaabbbb", "cc\nddddee"], 4);
        let names: Vec<u64> = of.iter().map(|piece| piece.2.unwrap().0).collect();
        assert!(names[0] == names[1] && names[1] == names[2] && names[3] == names[4]);
        assert_ne!(names[2], names[3]);
        let shown: Vec<_> =
            of.iter().map(|(l, ends, p)| (l.as_str(), *ends, p.unwrap().1, p.unwrap().2)).collect();
        let want = [
            ("aaaa", false, 1, false),
            ("bbbb", false, 2, false),
            ("cc", true, 3, true),
            ("dddd", false, 1, false),
            ("ee", false, 2, true),
        ];
        assert_eq!(shown, want);
    }
}
