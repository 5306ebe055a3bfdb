//! Cuts a stream of bytes into lines of bounded length. Pure.

/// The unfinished line of one stream.
#[derive(Debug)]
pub struct LineSplitter {
    max: usize,
    pending: Vec<u8>,
}

impl LineSplitter {
    /// Parts are at most `max` bytes long.
    pub fn new(max: usize) -> Self {
        Self { max: max.max(4), pending: Vec::new() }
    }

    /// Takes bytes, gives every line that they end (with its newline), and parts of
    /// `max` bytes of lines that are longer (without). A part never ends within a
    /// character, where the text is UTF-8.
    pub fn push(&mut self, mut bytes: &[u8], mut line: impl FnMut(&[u8])) {
        while !bytes.is_empty() {
            let room = self.max.saturating_sub(self.pending.len());
            let window = bytes.get(..room).unwrap_or(bytes);
            if let Some(end) = window.iter().position(|b| *b == b'\n') {
                let (head, rest) = bytes.split_at(end + 1);
                if self.pending.is_empty() {
                    line(head);
                } else {
                    self.pending.extend_from_slice(head);
                    line(&self.pending);
                    self.pending.clear();
                }
                bytes = rest;
            } else {
                let (head, rest) = bytes.split_at(window.len());
                self.pending.extend_from_slice(head);
                bytes = rest;
                // A newline right behind a full part belongs to it.
                if self.pending.len() >= self.max && !bytes.is_empty() {
                    if bytes.first() == Some(&b'\n') {
                        self.pending.push(b'\n');
                        line(&self.pending);
                        self.pending.clear();
                        bytes = bytes.get(1..).unwrap_or_default();
                    } else {
                        let cut = character_boundary(&self.pending);
                        line(self.pending.get(..cut).unwrap_or_default());
                        self.pending.drain(..cut);
                    }
                }
            }
        }
    }

    /// At the end of the stream: gives what is left, without a newline.
    pub fn finish(&mut self, mut line: impl FnMut(&[u8])) {
        if !self.pending.is_empty() {
            line(&self.pending);
            self.pending.clear();
        }
    }
}

/// The most bytes of `text` that end with a whole character; all of them where it is no UTF-8.
fn character_boundary(text: &[u8]) -> usize {
    let from = text.len().saturating_sub(3);
    let start = (from..text.len()).rev().find(|at| text.get(*at).is_some_and(|b| *b >= 0xc0));
    match start.and_then(|at| Some((at, *text.get(at)?))) {
        Some((at, first)) => {
            let length = match first {
                0xf0.. => 4,
                0xe0.. => 3,
                _ => 2,
            };
            if text.len() - at < length { at } else { text.len() }
        }
        None => text.len(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logs::record::RECORD_MAX;

    fn split(chunks: &[&[u8]]) -> Vec<Vec<u8>> {
        let (mut splitter, mut lines) = (LineSplitter::new(RECORD_MAX), Vec::new());
        for chunk in chunks {
            splitter.push(chunk, |l| lines.push(l.to_vec()));
        }
        splitter.finish(|l| lines.push(l.to_vec()));
        lines
    }

    #[test]
    fn lines_are_whole_however_the_bytes_arrive() {
        let expected: [&[u8]; 4] = [b"one\n", b"\n", b"two\n", b"rest"];
        let all = b"one\n\ntwo\nrest";
        assert_eq!(split(&[all]), expected);
        let single: Vec<&[u8]> = all.chunks(1).collect();
        assert_eq!(split(&single), expected);
        assert_eq!(split(&[b""]), Vec::<Vec<u8>>::new());
    }

    #[test]
    fn a_long_line_comes_in_parts_that_add_up() {
        for length in [RECORD_MAX - 1, RECORD_MAX, RECORD_MAX + 1, 5 * RECORD_MAX + 7] {
            let mut line = vec![b'x'; length];
            line.push(b'\n');
            for chunk in [1000, 65536, RECORD_MAX] {
                let parts = split(&line.chunks(chunk).collect::<Vec<_>>());
                assert_eq!(parts.concat(), line);
                assert!(parts.iter().all(|p| p.len() <= RECORD_MAX + 1), "{length} by {chunk}");
                assert!(parts.iter().rev().skip(1).all(|p| !p.ends_with(b"\n")));
                assert!(parts.last().unwrap().ends_with(b"\n"));
            }
        }
    }

    #[test]
    fn no_character_is_torn() {
        let text = format!("a{}\n", "€".repeat(RECORD_MAX));
        let parts = split(&[text.as_bytes()]);
        assert!(parts.iter().all(|p| std::str::from_utf8(p).is_ok()));
        assert_eq!(parts.concat(), text.as_bytes());
        let binary = vec![0x80; RECORD_MAX * 2];
        assert_eq!(split(&[&binary]).concat(), binary);
    }
}
