//! The text of a line as it is put together: what fits, and what is left out where HAProxy's buffer ends.

use std::net::{IpAddr, SocketAddr};

use super::{escape::Escape, format::Flags, line::MAX_LINE};
use crate::conn::AddressText;

/// No more fits.
pub(super) struct Full;

pub(super) type Written = Result<(), Full>;

/// What a line takes while it is put together: more than it may have, so that what is short is copied as a whole.
pub(super) const ROOM: usize = MAX_LINE + 128;

/// The line so far.
pub(super) struct Line<'a> {
    text: &'a mut [u8; ROOM],
    length: usize,
}

impl<'a> Line<'a> {
    /// One that begins with nothing.
    pub(super) fn new(text: &'a mut [u8; ROOM]) -> Self {
        Self { text, length: 0 }
    }

    /// Its length.
    pub(super) fn len(&self) -> usize {
        self.length
    }

    /// How much of HAProxy's buffer is left, with the byte that ends its strings.
    fn room(&self) -> usize {
        MAX_LINE - self.length
    }

    pub(super) fn byte(&mut self, byte: u8) -> Written {
        if self.room() < 2 {
            return Err(Full);
        }
        self.text[self.length] = byte;
        self.length += 1;
        Ok(())
    }

    /// What is written as it is, as far as it fits.
    #[inline]
    pub(super) fn text(&mut self, text: &[u8]) -> Written {
        // Most are a space between two variables.
        if let [byte] = text {
            return self.byte(*byte);
        }
        let length = text.len().min(self.room() - 1);
        if length == 0 && !text.is_empty() {
            return Err(Full);
        }
        self.text[self.length..self.length + length].copy_from_slice(&text[..length]);
        self.length += length;
        Ok(())
    }

    /// What is written whole or not at all: dates.
    #[inline]
    pub(super) fn whole<const N: usize>(&mut self, text: &[u8; N]) -> Written {
        if N >= self.room() {
            return Err(Full);
        }
        self.text[self.length..self.length + N].copy_from_slice(text);
        self.length += N;
        Ok(())
    }

    /// The same of the first `length` bytes.
    #[inline]
    fn whole_of<const N: usize>(&mut self, text: &[u8; N], length: usize) -> Written {
        if length >= self.room() {
            return Err(Full);
        }
        self.text[self.length..self.length + N].copy_from_slice(text);
        self.length += length;
        Ok(())
    }

    pub(super) fn number(&mut self, number: i64) -> Written {
        let Ok(small) = u32::try_from(number) else { return self.large(number) };
        let digits = match small {
            0..=9 => return self.whole(&[b'0' + small as u8]),
            10..=99 => 2,
            100..=999 => 3,
            1000..=9999 => 4,
            10_000..=99_999 => 5,
            _ => small.ilog10() as usize + 1,
        };
        let mut text = [0; 10];
        let mut left = small;
        for place in text[..digits].iter_mut().rev() {
            *place = b'0' + (left % 10) as u8;
            left /= 10;
        }
        self.whole_of(&text, digits)
    }

    /// The same of one that is negative, or of many digits.
    fn large(&mut self, number: i64) -> Written {
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
        text.rotate_left(at);
        self.whole_of(&text, 20 - at)
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
        text.rotate_left(at);
        self.whole_of(&text, 8 - at)
    }

    /// A string by its flags: lf_text_len. One that does not fit between its quotation marks is left out.
    pub(super) fn string(&mut self, text: Option<&[u8]>, flags: Flags) -> Written {
        let text = text.unwrap_or_default();
        // The strings are C's.
        self.name(&text[..memchr::memchr(0, text).unwrap_or(text.len())], flags)
    }

    /// The same of one that has no zero in it.
    pub(super) fn name(&mut self, text: &[u8], flags: Flags) -> Written {
        let from = self.length;
        let result = self.try_string(text, flags);
        if result.is_err() {
            self.length = from;
        }
        result
    }

    /// The same of names of objects, none of whose bytes is written in another way.
    #[inline]
    pub(super) fn id<const N: usize>(&mut self, text: &[u8; N], flags: Flags) -> Written {
        if flags.quote || N >= self.room() { self.name(text, flags) } else { self.whole(text) }
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
                self.byte(b'-')?;
            }
        } else if flags.escape {
            self.escaped(Escape::Backslashes, text, MAX_LINE - 2);
        } else {
            let length = text.len().min(self.room() - 1);
            self.text[self.length..self.length + length].copy_from_slice(&text[..length]);
            self.length += length;
        }
        if flags.quote { self.byte(b'"') } else { Ok(()) }
    }

    /// Text of a client with `#` before what a line must not have: lf_encode_chunk and lf_encode_string.
    pub(super) fn encoded(&mut self, text: &[u8], flags: Flags) -> Written {
        if flags.quote {
            self.byte(b'"')?;
        }
        let escape = if flags.escape { Escape::HashesAndBackslashes } else { Escape::Hashes };
        self.escaped(escape, text, MAX_LINE - 1);
        if flags.quote { self.byte(b'"') } else { Ok(()) }
    }

    fn escaped(&mut self, escape: Escape, text: &[u8], end: usize) {
        if self.length < end {
            self.length += escape.write(&mut self.text[self.length..end], text);
        }
    }

    pub(super) fn address(&mut self, address: Option<SocketAddr>, flags: Flags) -> Written {
        let Some(address) = address else { return self.string(None, flags) };
        let plain = !flags.quote && !flags.hexadecimal && self.room() > LONGEST_V4;
        match address.ip() {
            IpAddr::V4(v4) if plain => {
                self.v4(v4.octets());
                Ok(())
            }
            IpAddr::V4(v4) if flags.hexadecimal => self.whole(&upper_hexadecimal::<4, 8>(v4.octets())),
            IpAddr::V6(v6) if flags.hexadecimal => self.whole(&upper_hexadecimal::<16, 32>(v6.octets())),
            ip => self.name(AddressText::new(ip).bytes(), flags),
        }
    }

    /// There is room for it.
    fn v4(&mut self, octets: [u8; 4]) {
        for octet in octets {
            let (digits, length) = &OCTETS[usize::from(octet)];
            self.text[self.length..self.length + 4].copy_from_slice(digits);
            self.length += usize::from(*length);
        }
        self.length -= 1;
    }

    pub(super) fn port(&mut self, address: Option<SocketAddr>, flags: Flags) -> Written {
        match address {
            None => self.string(None, flags),
            Some(address) if flags.hexadecimal => self.hexadecimal(address.port().into(), 4),
            Some(address) => self.number(address.port().into()),
        }
    }
}

/// Bytes of an IPv4 address with the point behind it, at most.
const LONGEST_V4: usize = 16;

/// Of each octet its digits and a point, and how many bytes these are.
static OCTETS: [([u8; 4], u8); 256] = {
    let mut octets = [([b'.'; 4], 0); 256];
    let mut octet = 0;
    while octet < 256 {
        let (text, length) = &mut octets[octet];
        let mut at = 0;
        if octet >= 100 {
            text[at] = b'0' + (octet / 100) as u8;
            at += 1;
        }
        if octet >= 10 {
            text[at] = b'0' + (octet / 10 % 10) as u8;
            at += 1;
        }
        text[at] = b'0' + (octet % 10) as u8;
        *length = at as u8 + 2;
        octet += 1;
    }
    octets
};

/// An id as it is written everywhere: `xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx`. Eight digits at once, since a line has several.
pub(super) fn id_text(id: &[u8; 16]) -> [u8; 36] {
    let mut text = [b'-'; 36];
    let [a, b, c, d] = [0, 4, 8, 12].map(|at| digits([id[at], id[at + 1], id[at + 2], id[at + 3]]));
    text[..8].copy_from_slice(&a);
    text[9..13].copy_from_slice(&b[..4]);
    text[14..18].copy_from_slice(&b[4..]);
    text[19..23].copy_from_slice(&c[..4]);
    text[24..28].copy_from_slice(&c[4..]);
    text[28..].copy_from_slice(&d);
    text
}

/// Of four bytes their digits in lower case.
fn digits(bytes: [u8; 4]) -> [u8; 8] {
    // A digit in each byte, the first in the highest.
    let mut spread = u64::from(u32::from_be_bytes(bytes));
    spread = (spread | spread << 16) & 0x0000_ffff_0000_ffff;
    spread = (spread | spread << 8) & 0x00ff_00ff_00ff_00ff;
    spread = (spread | spread << 4) & 0x0f0f_0f0f_0f0f_0f0f;
    // 1 where it is a letter.
    let letters = (spread + 0x0606_0606_0606_0606) >> 4 & 0x0101_0101_0101_0101;
    (spread + 0x3030_3030_3030_3030 + letters * u64::from(b'a' - 10 - b'0')).to_be_bytes()
}

fn upper_hexadecimal<const N: usize, const DIGITS: usize>(octets: [u8; N]) -> [u8; DIGITS] {
    let mut text = [0; DIGITS];
    for (place, octet) in text.chunks_exact_mut(2).zip(octets) {
        place[0] = b"0123456789ABCDEF"[usize::from(octet >> 4)];
        place[1] = b"0123456789ABCDEF"[usize::from(octet & 15)];
    }
    text
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
        fn numbers_are_written_as_everywhere(number in prop_oneof![any::<i64>(), -20..1000i64, any::<u32>().prop_map(i64::from)]) {
            let mut text = [0; ROOM];
            let mut line = Line::new(&mut text);
            prop_assert!(line.number(number).is_ok());
            let length = line.len();
            prop_assert_eq!(text[..length].to_vec(), number.to_string().into_bytes());
        }

        #[test]
        fn addresses_are_written_as_everywhere(address: std::net::IpAddr) {
            let mut text = [0; ROOM];
            let mut line = Line::new(&mut text);
            prop_assert!(line.address(Some(SocketAddr::new(address, 0)), Flags::default()).is_ok());
            let length = line.len();
            prop_assert_eq!(text[..length].to_vec(), address.to_string().into_bytes());
        }
    }
}
