//! Byte classes of RFC 9110 section 5.6 and RFC 9112, and the scans that every parser here is made of.
//!
//! A scan looks at eight bytes at a time: the long parts of a head (targets, cookies, agents) are what a proxy
//! spends its parsing time in.

const TOKEN: u8 = 1;
const VALUE: u8 = 2;
const TARGET: u8 = 4;
const REG_NAME: u8 = 8;

const CLASS: [u8; 256] = {
    let mut table = [0u8; 256];
    let mut byte = 0usize;
    while byte < 256 {
        let b = byte as u8;
        let mut class = 0;
        if b.is_ascii_alphanumeric()
            || matches!(
                b,
                b'!' | b'#'
                    | b'$'
                    | b'%'
                    | b'&'
                    | b'\''
                    | b'*'
                    | b'+'
                    | b'-'
                    | b'.'
                    | b'^'
                    | b'_'
                    | b'`'
                    | b'|'
                    | b'~'
            )
        {
            class |= TOKEN;
        }
        if b == b'\t' || (b >= 0x20 && b != 0x7f) {
            class |= VALUE;
        }
        if b > 0x20 && b < 0x7f && b != b'#' {
            class |= TARGET;
        }
        if b.is_ascii_alphanumeric()
            || matches!(
                b,
                b'-' | b'.' | b'_' | b'~' | b'%' | b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+'
            )
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
pub(super) fn is_token_byte(byte: u8) -> bool {
    CLASS[byte as usize] & TOKEN != 0
}

/// Whether `byte` may stand in a field value: HTAB, SP, visible ASCII, obs-text.
#[inline]
pub(super) fn is_value_byte(byte: u8) -> bool {
    CLASS[byte as usize] & VALUE != 0
}

#[inline]
fn is_target_byte(byte: u8) -> bool {
    CLASS[byte as usize] & TARGET != 0
}

/// Whether `byte` may stand in a `reg-name` of RFC 3986; the comma may not, because it joins repeated fields.
#[inline]
pub(super) fn is_reg_name_byte(byte: u8) -> bool {
    CLASS[byte as usize] & REG_NAME != 0
}

/// Whether `byte` is SP or HTAB.
#[inline]
pub(super) fn is_blank(byte: u8) -> bool {
    byte == b' ' || byte == b'\t'
}

/// The index of the first byte from `at` on that is not a token byte, or the length.
#[inline]
pub(super) fn token_end(bytes: &[u8], at: usize) -> usize {
    match bytes[at..].iter().position(|&b| !is_token_byte(b)) {
        Some(n) => at + n,
        None => bytes.len(),
    }
}

/// The index of the colon behind the token that begins at `at`; `None` when it is not that simple.
#[inline]
pub(super) fn token_colon(bytes: &[u8], at: usize) -> Option<usize> {
    let mut end = at;
    loop {
        let colon = equal(word_at(bytes, end)?, b':');
        if colon != 0 {
            end += (colon.trailing_zeros() / 8) as usize;
            break;
        }
        end += 8;
    }
    let class = bytes[at..end].iter().fold(TOKEN, |class, &b| class & CLASS[b as usize]);
    (class != 0 && end > at).then_some(end)
}

const fn splat(byte: u8) -> u64 {
    u64::from_ne_bytes([byte; 8])
}

/// Marks (with the high bit) bytes of `word` below `limit`, 1 to 128. The lowest mark is exact; those above it may be
/// false, from the borrow.
#[inline]
fn below(word: u64, limit: u8) -> u64 {
    word.wrapping_sub(splat(limit)) & !word & splat(0x80)
}

/// Marks bytes of `word` equal to `byte`; the lowest mark is exact.
#[inline]
fn equal(word: u64, byte: u8) -> u64 {
    below(word ^ splat(byte), 1)
}

#[inline]
fn word_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..).and_then(|rest| rest.first_chunk::<8>()).map(|chunk| u64::from_le_bytes(*chunk))
}

/// The index of the first byte from `at` on that may not stand in a field value, or the length.
#[inline]
pub(super) fn value_end(bytes: &[u8], mut at: usize) -> usize {
    loop {
        while let Some(word) = word_at(bytes, at) {
            let stop = below(word, 0x20) | equal(word, 0x7f);
            if stop != 0 {
                at += (stop.trailing_zeros() / 8) as usize;
                break;
            }
            at += 8;
        }
        // Here `at` is on a control byte, perhaps a tab, or in the last seven bytes.
        match bytes.get(at) {
            Some(&byte) if is_value_byte(byte) => at += 1,
            Some(_) => return at,
            None => return bytes.len(),
        }
    }
}

/// The index of the first byte from `at` on that may not stand in a request target, or the length.
///
/// `#` is not a target byte: a fragment is never sent (RFC 9110 section 4.2.5), and peers differ in where they cut it.
#[inline]
pub(super) fn target_end(bytes: &[u8], mut at: usize) -> usize {
    while let Some(word) = word_at(bytes, at) {
        let stop = below(word, 0x21) | equal(word, b'#') | equal(word, 0x7f) | (word & splat(0x80));
        if stop != 0 {
            return at + (stop.trailing_zeros() / 8) as usize;
        }
        at += 8;
    }
    while at < bytes.len() && is_target_byte(bytes[at]) {
        at += 1;
    }
    at
}

/// `value` without SP and HTAB at both ends.
#[inline]
pub(super) fn trim(mut value: &[u8]) -> &[u8] {
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
pub(super) fn list(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|&b| b == b',').map(trim).filter(|element| !element.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fast_scans_agree_with_the_table() {
        for byte in 0..=255u8 {
            for place in 0..40 {
                let mut bytes = vec![b'a'; 40];
                bytes[place] = byte;
                let value = if is_value_byte(byte) { 40 } else { place };
                assert_eq!(value_end(&bytes, 0), value, "value {byte:#x} at {place}");
                let target = if is_target_byte(byte) { 40 } else { place };
                assert_eq!(target_end(&bytes, 0), target, "target {byte:#x} at {place}");
                let token = if is_token_byte(byte) { 40 } else { place };
                assert_eq!(token_end(&bytes, 0), token, "token {byte:#x} at {place}");
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
