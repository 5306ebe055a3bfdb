//! From lines to events: with a pattern, lines belong to the event that the last fitting line began.
//! Pure but for the pattern's engine.

use super::batch::{EVENT_MAX, Event, pieces};
use regex_lite::Regex;

/// The lines of an unfinished event.
#[derive(Debug)]
pub struct Assembler {
    pattern: Option<Regex>,
    text: String,
    /// Time of the first line, in milliseconds.
    began: i64,
    /// The last piece of a line did not end it.
    within_line: bool,
}

impl Assembler {
    /// `pattern` fits the first line of each event; without one every line is an event.
    pub fn new(pattern: Option<Regex>) -> Self {
        Self { pattern, text: String::new(), began: 0, within_line: false }
    }

    /// Takes a line, or a piece of one (`ends` tells the last), without its newline.
    pub fn push(&mut self, at: i64, line: &[u8], ends: bool, mut give: impl FnMut(Event)) {
        let line = String::from_utf8_lossy(line);
        let Some(pattern) = &self.pattern else {
            return events(at, &line, give);
        };
        let begins = !self.within_line && pattern.is_match(&line);
        if begins || self.text.len() + line.len() + 1 > EVENT_MAX {
            self.finish(&mut give);
        }
        if self.text.is_empty() {
            self.began = at;
        }
        self.text.push_str(&line);
        if ends {
            self.text.push('\n');
        }
        self.within_line = !ends;
        // More than one event holds: none of it needs to wait.
        if self.text.len() >= EVENT_MAX {
            self.finish(give);
        }
    }

    /// Gives what has waited since `before` or longer; nothing shall wait for ever for the next event.
    pub fn expire(&mut self, before: i64, give: impl FnMut(Event)) {
        if self.began <= before {
            self.finish(give);
        }
    }

    /// Nothing waits.
    pub fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    /// Gives what is left.
    pub fn finish(&mut self, give: impl FnMut(Event)) {
        events(self.began, &self.text, give);
        self.text.clear();
    }
}

fn events(timestamp: i64, text: &str, give: impl FnMut(Event)) {
    pieces(text).map(|piece| Event { timestamp, message: piece.to_owned() }).for_each(give);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assembled(pattern: Option<&str>, lines: &[(i64, &[u8])]) -> Vec<(i64, String)> {
        let mut assembler = Assembler::new(pattern.map(|p| Regex::new(p).unwrap()));
        let mut events = Vec::new();
        for (at, line) in lines {
            assembler.push(*at, line, true, |event| events.push((event.timestamp, event.message)));
        }
        assembler.finish(|event| events.push((event.timestamp, event.message)));
        events
    }

    fn owned(events: &[(i64, &str)]) -> Vec<(i64, String)> {
        events.iter().map(|(at, text)| (*at, (*text).to_owned())).collect()
    }

    #[test]
    fn without_a_pattern_each_line_is_an_event() {
        let events = assembled(None, &[(1, b"one"), (2, b""), (3, b"b\xffd")]);
        assert_eq!(events, owned(&[(1, "one"), (3, "b\u{fffd}d")]));
    }

    #[test]
    fn lines_belong_to_the_last_that_fits() {
        let lines: &[(i64, &[u8])] =
            &[(1, b"  at before"), (2, b"ERROR a"), (3, b"  at x"), (4, b"  at y"), (5, b"ERROR b")];
        let expected = owned(&[(1, "  at before\n"), (2, "ERROR a\n  at x\n  at y\n"), (5, "ERROR b\n")]);
        assert_eq!(assembled(Some("^ERROR"), lines), expected);
    }

    #[test]
    fn what_is_too_long_for_one_event_becomes_several() {
        let line = "y".repeat(100_000);
        let lines: Vec<(i64, &[u8])> = (0..5).map(|at| (at, line.as_bytes())).collect();
        let events = assembled(Some("^x"), &lines);
        assert_eq!(
            events.iter().map(|(at, text)| (*at, text.len())).collect::<Vec<_>>(),
            [(0, 200_002), (2, 200_002), (4, 100_001)]
        );
        let long = "z".repeat(EVENT_MAX + 5);
        let events = assembled(Some("^x"), &[(1, long.as_bytes()), (2, b"n")]);
        let lengths: Vec<_> = events.iter().map(|(at, text)| (*at, text.len())).collect();
        assert_eq!(lengths, [(1, EVENT_MAX), (1, 6), (2, 2)]);
    }

    #[test]
    fn pieces_of_one_line_are_not_taken_for_lines() {
        let mut assembler = Assembler::new(Some(Regex::new("^a").unwrap()));
        let mut events = Vec::new();
        for (piece, ends) in [("ab", false), ("ac", false), ("ad", true), ("e", true)] {
            assembler.push(1, piece.as_bytes(), ends, |event| events.push(event.message));
        }
        assert_eq!(events, [""; 0]);
        assembler.expire(0, |event| events.push(event.message));
        assert_eq!(events, [""; 0], "it is younger");
        assembler.expire(1, |event| events.push(event.message));
        assert_eq!(events, ["abacad\ne\n"]);
    }
}
