//! What the library sees of a head.

use crate::http2::hpack::FieldList;

/// The longest: a frame's head, `:status` in letters, and the longest `content-length`.
const ROOM: usize = 48;

const HEADERS: u8 = 1;
const END_STREAM: u8 = 0x1;
const END_HEADERS: u8 = 0x4;

/// `CONNECT`, the request of the fewest fields, to be kept in the dynamic table. What else it might be is nothing to the library.
const FIRST_REQUEST: &[u8] = b"\x42\x07CONNECT";
/// The same from the table, in which nothing else is.
const REQUEST: &[u8] = &[0xbe];
const OK: &[u8] = &[0x88];
/// A path twice, which makes the library reset the stream.
const MALFORMED: &[u8] = &[0x84, 0x84];

/// A frame for the library.
#[derive(Debug)]
pub(in crate::http2) struct Skeleton {
    bytes: [u8; ROOM],
    start: u8,
    end: u8,
    /// There was a request.
    requested: bool,
}

impl Default for Skeleton {
    fn default() -> Self {
        Self { bytes: [0; ROOM], start: 0, end: 0, requested: false }
    }
}

impl Skeleton {
    /// What of it is to be read.
    #[inline]
    pub(in crate::http2) fn left(&self) -> &[u8] {
        &self.bytes[usize::from(self.start)..usize::from(self.end)]
    }

    /// So much of it was read.
    pub(in crate::http2) fn consume(&mut self, n: usize) {
        self.start += n as u8;
    }

    /// Of a request.
    pub(super) fn request(&mut self, stream: u32, ends: bool, fields: &FieldList) {
        let length = if ends { None } else { fields.content_length() };
        let again = std::mem::replace(&mut self.requested, true);
        self.frame(stream, ends, if again { REQUEST } else { FIRST_REQUEST }, length);
    }

    /// Of a response. One that is none has no status.
    pub(super) fn response(&mut self, stream: u32, ends: bool, status: Option<u16>, fields: &FieldList) {
        let status = status.unwrap_or(200);
        let length =
            if ends || matches!(status, 100..200 | 204 | 304) { None } else { fields.content_length() };
        if status == 200 {
            return self.frame(stream, ends, OK, length);
        }
        let [hundreds, tens, ones] =
            [status / 100, status / 10 % 10, status % 10].map(|digit| b'0' + digit as u8);
        self.frame(stream, ends, &[8, 3, hundreds, tens, ones], length);
    }

    /// Of trailers.
    pub(super) fn trailers(&mut self, stream: u32, ends: bool) {
        self.frame(stream, ends, &[], None);
    }

    /// Of what the library is to reset the stream for.
    pub(super) fn malformed(&mut self, stream: u32, ends: bool) {
        self.frame(stream, ends, MALFORMED, None);
    }

    fn frame(&mut self, stream: u32, ends: bool, block: &[u8], length: Option<u64>) {
        let mut digits = [0; 20];
        let digits = length.map_or(&[][..], |length| decimal(length, &mut digits));
        // `content-length` of the static table, not indexed.
        let field = [0x0f, 13, digits.len() as u8];
        let field = if digits.is_empty() { &[][..] } else { &field[..] };
        let payload = (block.len() + field.len() + digits.len()) as u8;
        let [s0, s1, s2, s3] = stream.to_be_bytes();
        let flags = END_HEADERS | if ends { END_STREAM } else { 0 };
        let head = [0, 0, payload, HEADERS, flags, s0, s1, s2, s3];
        (self.start, self.end) = (0, 0);
        for part in [&head[..], block, field, digits] {
            let at = usize::from(self.end);
            self.bytes[at..at + part.len()].copy_from_slice(part);
            self.end += part.len() as u8;
        }
    }
}

fn decimal(mut number: u64, digits: &mut [u8; 20]) -> &[u8] {
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            return &digits[at..];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_has_room() {
        let mut skeleton = Skeleton::default();
        skeleton.frame(0x7fff_ffff, true, FIRST_REQUEST, Some(u64::MAX));
        let expected = [
            &[0, 0, 32, 1, 5, 0x7f, 0xff, 0xff, 0xff, 0x42, 7][..],
            b"CONNECT",
            &[0x0f, 13, 20],
            b"18446744073709551615",
        ];
        assert_eq!(skeleton.left(), expected.concat());
        skeleton.trailers(1, false);
        assert_eq!(skeleton.left(), [0, 0, 0, 1, 4, 0, 0, 0, 1]);
        skeleton.consume(9);
        assert!(skeleton.left().is_empty());
    }
}
