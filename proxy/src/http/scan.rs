//! Byte classes of RFC 9110 section 5.6 and RFC 9112, and the scans that every parser here is made of.
//!
//! A scan looks at eight bytes at a time: the long parts of a head (targets, cookies, agents) are what a proxy
//! spends its parsing time in.

const TOKEN: u8 = 1;
const VALUE: u8 = 2;
const TARGET: u8 = 4;
const REG_NAME: u8 = 8;
const LOWER_TOKEN: u8 = 16;

const CLASS: [u8; 256] = {
    let mut table = [0u8; 256];
    let mut byte = 0usize;
    while byte < 256 {
        let b = byte as u8;
        let mut class = 0;
        if amphora_model::is_token_byte(b) {
            class |= TOKEN;
            if !b.is_ascii_uppercase() {
                class |= LOWER_TOKEN;
            }
        }
        if b == b'\t' || (b >= 0x20 && b != 0x7f) {
            class |= VALUE;
        }
        if b > 0x20 && b < 0x7f && b != b'#' {
            class |= TARGET;
        }
        if b.is_ascii_alphanumeric()
            || matches!(b, b'-' | b'.' | b'_' | b'~' | b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+')
            || matches!(b, b';' | b'=')
        {
            class |= REG_NAME;
        }
        table[byte] = class;
        byte += 1;
    }
    table
};

/// Whether `byte` may stand in a token (RFC 9110 section 5.6.2).
#[inline]
pub(crate) fn is_token_byte(byte: u8) -> bool {
    CLASS[byte as usize] & TOKEN != 0
}

/// Whether `byte` may stand in a field value: HTAB, SP, visible ASCII, obs-text.
#[inline]
pub(crate) fn is_value_byte(byte: u8) -> bool {
    CLASS[byte as usize] & VALUE != 0
}

/// Whether `byte` may stand in a host name: `reg-name` of RFC 3986 without the comma, which joins repeated fields, and
/// without percent-encoding, which some decode and some do not.
#[inline]
pub(crate) fn is_reg_name_byte(byte: u8) -> bool {
    CLASS[byte as usize] & REG_NAME != 0
}

/// Whether `byte` is SP or HTAB.
#[inline]
pub(crate) fn is_blank(byte: u8) -> bool {
    byte == b' ' || byte == b'\t'
}

/// The index of the first byte from `at` on that is not a token byte, or the length.
#[inline]
pub(crate) fn token_end(bytes: &[u8], at: usize) -> usize {
    match bytes[at..].iter().position(|&b| !is_token_byte(b)) {
        Some(n) => at + n,
        None => bytes.len(),
    }
}

/// The index of the first colon from `at` on, when it is followed by seven bytes at least.
#[inline]
pub(crate) fn colon(bytes: &[u8], at: usize) -> Option<usize> {
    let mut end = at;
    loop {
        let colon = equal(word_at(bytes, end)?, b':');
        if colon != 0 {
            return Some(end + (colon.trailing_zeros() / 8) as usize);
        }
        end += 8;
    }
}

/// Whether `bytes` are a token.
#[inline]
pub(crate) fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().fold(TOKEN, |class, &b| class & CLASS[b as usize]) != 0
}

/// Whether `bytes` are a token without a letter in upper case.
#[inline]
pub(crate) fn is_lower_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().fold(LOWER_TOKEN, |class, &b| class & CLASS[b as usize]) != 0
}

const fn splat(byte: u8) -> u64 {
    u64::from_ne_bytes([byte; 8])
}

/// Marks, with the high bit, bytes of `word` equal to `byte`. The lowest mark is exact; those above it may be false, from
/// the borrow.
#[inline]
fn equal(word: u64, byte: u8) -> u64 {
    let word = word ^ splat(byte);
    word.wrapping_sub(splat(1)) & !word & splat(0x80)
}

#[inline]
fn word_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..).and_then(|rest| rest.first_chunk::<8>()).map(|chunk| u64::from_le_bytes(*chunk))
}

/// The index of the first byte from `at` on that is not of `class`, or the length. `suspects` marks, with the high bit,
/// at least those bytes of a word; the table decides about them.
#[inline]
fn class_end(bytes: &[u8], mut at: usize, class: u8, suspects: impl Fn(u64) -> u64) -> usize {
    loop {
        while let Some(word) = word_at(bytes, at) {
            let marks = suspects(word) & splat(0x80);
            if marks != 0 {
                at += (marks.trailing_zeros() / 8) as usize;
                break;
            }
            at += 8;
        }
        // Here `at` is on a suspect or in the last seven bytes.
        match bytes.get(at) {
            Some(&byte) if CLASS[byte as usize] & class != 0 => at += 1,
            Some(_) => return at,
            None => return bytes.len(),
        }
    }
}

/// The index of the first byte from `at` on that may not stand in a field value, or the length.
#[inline]
pub(crate) fn value_end(bytes: &[u8], at: usize) -> usize {
    class_end(bytes, at, VALUE, |word| (word.wrapping_sub(splat(0x20)) | word.wrapping_add(splat(1))) & !word)
}

/// The index of the first byte from `at` on that may not stand in a request target, or the length.
///
/// `#` is not a target byte: a fragment is never sent (RFC 9110 section 4.2.5), and peers differ in where they cut it.
#[inline]
pub(crate) fn target_end(bytes: &[u8], at: usize) -> usize {
    class_end(bytes, at, TARGET, |word| {
        let hash = word ^ splat(b'#');
        word.wrapping_sub(splat(0x21))
            | word.wrapping_add(splat(1))
            | word
            | (hash.wrapping_sub(splat(1)) & !hash)
    })
}

/// `value` without SP and HTAB at both ends.
#[inline]
pub(crate) fn trim(mut value: &[u8]) -> &[u8] {
    while let [first, rest @ ..] = value {
        if !is_blank(*first) {
            break;
        }
        value = rest;
    }
    while let [rest @ .., last] = value {
        if !is_blank(*last) {
            break;
        }
        value = rest;
    }
    value
}

/// The elements of a comma-separated list (RFC 9110 section 5.6.1), trimmed; empty ones are left out.
///
/// For lists of tokens only: a comma within a quoted string separates here too.
pub(crate) fn list(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|&b| b == b',').map(trim).filter(|element| !element.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fast_scans_agree_with_the_table() {
        let slow = |bytes: &[u8], class: u8| {
            bytes.iter().position(|&b| CLASS[b as usize] & class == 0).unwrap_or(bytes.len())
        };
        // The neighbours are those from which a carry or a borrow comes.
        for (byte, around) in (0..=255u8).flat_map(|byte| b"a~! \t\xff".map(|around| (byte, around))) {
            for place in 0..40 {
                let mut bytes = [around; 40];
                bytes[place] = byte;
                assert_eq!(
                    value_end(&bytes, 0),
                    slow(&bytes, VALUE),
                    "value {byte:#x} at {place} in {around:#x}"
                );
                assert_eq!(
                    target_end(&bytes, 0),
                    slow(&bytes, TARGET),
                    "target {byte:#x} at {place} in {around:#x}"
                );
                assert_eq!(
                    token_end(&bytes, 0),
                    slow(&bytes, TOKEN),
                    "token {byte:#x} at {place} in {around:#x}"
                );
                assert_eq!(
                    is_token(&bytes),
                    slow(&bytes, TOKEN) == bytes.len(),
                    "token {byte:#x} in {around:#x}"
                );
                bytes[39] = b':';
                let first = bytes.iter().position(|&b| b == b':').filter(|&colon| colon < 32);
                assert_eq!(
                    colon(&bytes, 0).filter(|&colon| colon < 32),
                    first,
                    "colon {byte:#x} at {place} in {around:#x}"
                );
            }
        }
    }

    #[test]
    fn tabs_do_not_end_a_value() {
        assert_eq!(value_end(b"a\tb\tccccccccccccccc\t\t\tddddddddddd\r\n", 0), 33);
    }

    #[test]
    fn lists_are_split_and_trimmed() {
        let elements: Vec<&[u8]> = list(b" a, ,b\t,,c d ").collect();
        assert_eq!(elements, [b"a".as_slice(), b"b", b"c d"]);
        assert_eq!(list(b"").count(), 0);
    }
}
