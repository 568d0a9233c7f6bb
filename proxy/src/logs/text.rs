//! The text of a line as it is put together: what fits, and what is left out where HAProxy's buffer ends.

use std::net::{IpAddr, SocketAddr};

use super::{escape::Escape, format::Flags, line::MAX_LINE};
use crate::conn::AddressText;

/// No more fits.
pub(super) struct Full;

pub(super) type Written = Result<(), Full>;

/// The line so far.
pub(super) struct Line<'a> {
    out: &'a mut Vec<u8>,
    start: usize,
    /// Nothing but spaces was written since the last space, or since the beginning.
    pub(super) after_space: bool,
}

impl<'a> Line<'a> {
    /// One that begins behind what is in `out`.
    pub(super) fn new(out: &'a mut Vec<u8>) -> Self {
        let start = out.len();
        Self { out, start, after_space: true }
    }

    /// How much of HAProxy's buffer is left, with the byte that ends its strings.
    fn room(&self) -> usize {
        MAX_LINE - (self.out.len() - self.start)
    }

    pub(super) fn byte(&mut self, byte: u8) -> Written {
        if self.room() < 2 {
            return Err(Full);
        }
        self.out.push(byte);
        Ok(())
    }

    /// What is written as it is, as far as it fits.
    pub(super) fn text(&mut self, text: &[u8]) -> Written {
        let length = text.len().min(self.room() - 1);
        if length == 0 && !text.is_empty() {
            return Err(Full);
        }
        self.out.extend_from_slice(&text[..length]);
        self.after_space = false;
        Ok(())
    }

    /// What is written whole or not at all: numbers and dates.
    pub(super) fn whole(&mut self, text: &[u8]) -> Written {
        if text.len() >= self.room() {
            return Err(Full);
        }
        self.out.extend_from_slice(text);
        self.after_space = false;
        Ok(())
    }

    pub(super) fn number(&mut self, number: i64) -> Written {
        if let 0..=9 = number {
            return self.whole(&[b'0' + number as u8]);
        }
        let mut text = [0; 20];
        let mut at = text.len();
        let mut left = number.unsigned_abs();
        loop {
            at -= 1;
            text[at] = b'0' + (left % 10) as u8;
            left /= 10;
            if left == 0 {
                break;
            }
        }
        if number < 0 {
            at -= 1;
            text[at] = b'-';
        }
        self.whole(&text[at..])
    }

    /// At least so many digits in upper case.
    pub(super) fn hexadecimal(&mut self, number: u32, digits: usize) -> Written {
        let mut text = [0; 8];
        let mut at = text.len();
        let mut left = number;
        while left > 0 || text.len() - at < digits {
            at -= 1;
            text[at] = b"0123456789ABCDEF"[(left & 15) as usize];
            left >>= 4;
        }
        self.whole(&text[at..])
    }

    /// A string by its flags: lf_text_len. One that does not fit between its quotation marks is left out.
    pub(super) fn string(&mut self, text: Option<&[u8]>, flags: Flags) -> Written {
        let text = text.unwrap_or_default();
        // The strings are C's.
        self.name(&text[..memchr::memchr(0, text).unwrap_or(text.len())], flags)
    }

    /// The same of one that has no zero in it.
    pub(super) fn name(&mut self, text: &[u8], flags: Flags) -> Written {
        let from = self.out.len();
        let result = self.try_string(text, flags);
        if result.is_err() {
            self.out.truncate(from);
        }
        self.after_space = false;
        result
    }

    fn try_string(&mut self, text: &[u8], flags: Flags) -> Written {
        if flags.quote {
            self.byte(b'"')?;
        }
        if self.room() < 2 {
            return Err(Full);
        }
        if text.is_empty() {
            if flags.mandatory && !flags.quote {
                self.out.push(b'-');
            }
        } else if flags.escape {
            let end = self.out.len() + self.room() - 2;
            Escape::Backslashes.write(self.out, text, end);
        } else {
            let length = text.len().min(self.room() - 1);
            self.out.extend_from_slice(&text[..length]);
        }
        if flags.quote { self.byte(b'"') } else { Ok(()) }
    }

    /// Text of a client with `#` before what a line must not have: lf_encode_chunk and lf_encode_string.
    pub(super) fn encoded(&mut self, text: &[u8], flags: Flags) -> Written {
        if flags.quote {
            self.byte(b'"')?;
        }
        let end = self.start + MAX_LINE - 1;
        let escape = if flags.escape { Escape::HashesAndBackslashes } else { Escape::Hashes };
        escape.write(self.out, text, end);
        if flags.quote {
            self.byte(b'"')?;
        }
        self.after_space = false;
        Ok(())
    }

    pub(super) fn address(&mut self, address: Option<SocketAddr>, flags: Flags) -> Written {
        let Some(address) = address else { return self.string(None, flags) };
        if flags.hexadecimal {
            let mut text = [0; 32];
            let octets = match address.ip() {
                IpAddr::V4(v4) => upper_hexadecimal(&mut text, &v4.octets()),
                IpAddr::V6(v6) => upper_hexadecimal(&mut text, &v6.octets()),
            };
            return self.whole(octets);
        }
        self.name(AddressText::new(address.ip()).bytes(), flags)
    }

    pub(super) fn port(&mut self, address: Option<SocketAddr>, flags: Flags) -> Written {
        match address {
            None => self.string(None, flags),
            Some(address) if flags.hexadecimal => self.hexadecimal(address.port().into(), 4),
            Some(address) => self.number(address.port().into()),
        }
    }
}

/// For each byte its two digits in lower case.
static DIGITS: [[u8; 2]; 256] = {
    let digits = b"0123456789abcdef";
    let mut pairs = [[0; 2]; 256];
    let mut byte = 0;
    while byte < 256 {
        pairs[byte] = [digits[byte >> 4], digits[byte & 15]];
        byte += 1;
    }
    pairs
};

/// An id as it is written everywhere: `xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx`. By a table, since a line has several.
pub(super) fn id_text(id: &[u8; 16]) -> [u8; 36] {
    const PLACES: [usize; 16] = [0, 2, 4, 6, 9, 11, 14, 16, 19, 21, 24, 26, 28, 30, 32, 34];
    let mut text = [b'-'; 36];
    for (byte, place) in id.iter().zip(PLACES) {
        text[place..place + 2].copy_from_slice(&DIGITS[usize::from(*byte)]);
    }
    text
}

fn upper_hexadecimal<'a>(text: &'a mut [u8; 32], octets: &[u8]) -> &'a [u8] {
    for (place, octet) in text.chunks_exact_mut(2).zip(octets) {
        place[0] = b"0123456789ABCDEF"[usize::from(octet >> 4)];
        place[1] = b"0123456789ABCDEF"[usize::from(octet & 15)];
    }
    &text[..octets.len() * 2]
}

#[cfg(test)]
mod tests {
    use amphora_model::PoolId;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn ids_are_written_as_everywhere(id: [u8; 16]) {
            let text = uuid::Uuid::from_bytes(id).to_string();
            prop_assert_eq!(&id_text(&id)[..], text.as_bytes());
            prop_assert_eq!(text.parse::<PoolId>().ok().map(|parsed| *parsed.0.as_bytes()), Some(id));
        }

        #[test]
        fn numbers_are_written_as_everywhere(number in prop_oneof![any::<i64>(), -20..1000i64]) {
            let mut out = Vec::new();
            prop_assert!(Line::new(&mut out).number(number).is_ok());
            prop_assert_eq!(out, number.to_string().into_bytes());
        }
    }
}
