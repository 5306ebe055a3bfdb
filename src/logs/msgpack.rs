//! As much of MessagePack as the forward protocol takes: writing of texts, arrays, maps, whole numbers
//! and event times, and finding one text in a map that is read.

/// A value that is being written.
#[derive(Debug, Default)]
pub struct Packer(pub Vec<u8>);

impl Packer {
    fn head(&mut self, byte: u8, rest: &[u8]) {
        self.0.push(byte);
        self.0.extend_from_slice(rest);
    }

    /// An array, whose `length` members come next.
    pub fn array(&mut self, length: u8) {
        match length {
            0..16 => self.head(0x90 | length, &[]),
            _ => self.head(0xdc, &u16::from(length).to_be_bytes()),
        }
    }

    /// A map, whose `length` names and values come next in turn.
    pub fn map(&mut self, length: usize) {
        match (u8::try_from(length), u16::try_from(length)) {
            (Ok(short @ 0..16), _) => self.head(0x80 | short, &[]),
            (_, Ok(middle)) => self.head(0xde, &middle.to_be_bytes()),
            _ => self.head(0xdf, &u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes()),
        }
    }

    /// A text, by the bytes it has: what is no UTF-8 is the reader's to bear, as with Docker.
    pub fn text(&mut self, text: &[u8]) {
        match (u8::try_from(text.len()), u16::try_from(text.len())) {
            (Ok(short @ 0..32), _) => self.head(0xa0 | short, text),
            (Ok(short), _) => self.head(0xd9, &[&[short], text].concat()),
            (_, Ok(middle)) => self.head(0xda, &[&middle.to_be_bytes(), text].concat()),
            _ => {
                let length = u32::try_from(text.len()).unwrap_or(u32::MAX);
                self.head(0xdb, &[&length.to_be_bytes(), text].concat());
            }
        }
    }

    /// A whole number.
    pub fn number(&mut self, number: u64) {
        match (u8::try_from(number), u32::try_from(number)) {
            (Ok(short @ 0..128), _) => self.head(short, &[]),
            (_, Ok(middle)) => self.head(0xce, &middle.to_be_bytes()),
            _ => self.head(0xcf, &number.to_be_bytes()),
        }
    }

    /// The forward protocol's EventTime: extension 0, seconds and nanoseconds.
    pub fn event_time(&mut self, seconds: u32, nanos: u32) {
        self.head(0xd7, &[0]);
        self.0.extend(seconds.to_be_bytes());
        self.0.extend(nanos.to_be_bytes());
    }
}

/// What came of looking into bytes that may not all be there yet.
#[derive(Debug, PartialEq, Eq)]
pub enum Found<'a> {
    /// The value of that name.
    Text(&'a [u8]),
    /// More has to come.
    Incomplete,
    /// It is no map of texts, or has no such name.
    Other,
}

/// The text `name` of a map whose names and values are all texts, such as `{"ack": "..."}`.
pub fn find_text<'a>(bytes: &'a [u8], name: &[u8]) -> Found<'a> {
    let Some((first, mut rest)) = bytes.split_first() else { return Found::Incomplete };
    let length = match first {
        0x80..=0x8f => usize::from(first & 0x0f),
        _ => return Found::Other,
    };
    let mut found = Found::Other;
    for _ in 0..length {
        let mut pair = [&[][..]; 2];
        for text in &mut pair {
            match read_text(rest) {
                Ok(Some((taken, after))) => (*text, rest) = (taken, after),
                Ok(None) => return Found::Incomplete,
                Err(()) => return Found::Other,
            }
        }
        if pair[0] == name {
            found = Found::Text(pair[1]);
        }
    }
    found
}

/// A text and what follows it; `None` where it is not all there.
type Text<'a> = Option<(&'a [u8], &'a [u8])>;

fn read_text(bytes: &[u8]) -> Result<Text<'_>, ()> {
    let Some((first, rest)) = bytes.split_first() else { return Ok(None) };
    let (length, rest) = match (first, rest) {
        (0xa0..=0xbf, rest) => (usize::from(first & 0x1f), rest),
        (0xd9 | 0xc4, [length, rest @ ..]) => (usize::from(*length), rest),
        (0xd9 | 0xc4, []) => return Ok(None),
        _ => return Err(()),
    };
    Ok(rest.split_at_checked(length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_choose_their_form() {
        let packed = |write: &dyn Fn(&mut Packer)| {
            let mut packer = Packer::default();
            write(&mut packer);
            packer.0
        };
        assert_eq!(packed(&|p| p.text(b"abc")), [0xa3, b'a', b'b', b'c']);
        assert_eq!(packed(&|p| p.text(&[b'x'; 32]))[..3], [0xd9, 32, b'x']);
        assert_eq!(packed(&|p| p.text(&[b'x'; 300]))[..4], [0xda, 1, 44, b'x']);
        assert_eq!(packed(&|p| p.text(&[b'x'; 70_000]))[..6], [0xdb, 0, 1, 0x11, 0x70, b'x']);
        assert_eq!(packed(&|p| p.number(7)), [7]);
        assert_eq!(packed(&|p| p.number(1_700_000_000)), [0xce, 0x65, 0x53, 0xf1, 0]);
        assert_eq!(packed(&|p| p.map(16)), [0xde, 0, 16]);
        assert_eq!(packed(&|p| p.event_time(1, 2)), [0xd7, 0, 0, 0, 0, 1, 0, 0, 0, 2]);
    }

    #[test]
    fn an_acknowledgement_is_found_once_it_is_whole() {
        let mut packer = Packer::default();
        packer.map(1);
        packer.text(b"ack");
        packer.text(&[b'c'; 40]);
        let whole = packer.0;
        for end in 0..whole.len() {
            assert_eq!(find_text(&whole[..end], b"ack"), Found::Incomplete, "{end}");
        }
        assert_eq!(find_text(&whole, b"ack"), Found::Text(&[b'c'; 40]));
        assert_eq!(find_text(&whole, b"other"), Found::Other);
        assert_eq!(find_text(b"\x93", b"ack"), Found::Other);
    }
}
