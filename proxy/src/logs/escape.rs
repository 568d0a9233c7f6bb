//! Bytes that a line must not have as they are: HAProxy's encode_string and escape_string, with where they stop.

const HEXADECIMAL: &[u8; 16] = b"0123456789ABCDEF";

/// Which bytes are written in another way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Escape {
    /// `"`, `#` and what is no printable ASCII become `#` and two hexadecimal digits (section 8.6).
    Hashes,
    /// The same; `\` and `]` behind a backslash (flag `E`).
    HashesAndBackslashes,
    /// `"`, `\` and `]` behind a backslash, and nothing else.
    Backslashes,
}

/// For each byte the ways that do not write it as it is, each a bit.
static SPECIAL: [u8; 256] = {
    let mut special = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut escape = 0;
        while escape < ALL.len() {
            let is = ALL[escape].is_hashed(byte as u8) || ALL[escape].has_backslash(byte as u8);
            special[byte] |= (is as u8) << escape;
            escape += 1;
        }
        byte += 1;
    }
    special
};

const ALL: [Escape; 3] = [Escape::Hashes, Escape::HashesAndBackslashes, Escape::Backslashes];

impl Escape {
    const fn is_hashed(self, byte: u8) -> bool {
        !matches!(self, Self::Backslashes) && !matches!(byte, b' ' | b'!' | b'$'..=b'~')
    }

    const fn has_backslash(self, byte: u8) -> bool {
        !matches!(self, Self::Hashes) && matches!(byte, b'"' | b'\\' | b']')
    }

    /// Writes `text`, as far as there is room for it, and says how many bytes that were. What takes several bytes is not begun unless
    /// one more than these fits.
    pub(super) fn write(self, room: &mut [u8], text: &[u8]) -> usize {
        let mut rest = text;
        let mut at = 0;
        while at < room.len() && !rest.is_empty() {
            let plain = self.plain(rest);
            let fits = plain.min(room.len() - at);
            room[at..at + fits].copy_from_slice(&rest[..fits]);
            at += fits;
            let Some(&byte) = rest.get(plain).filter(|_| fits == plain) else { break };
            let digit = |nibble: u8| HEXADECIMAL[usize::from(nibble)];
            let (hashed, escaped) = ([b'#', digit(byte >> 4), digit(byte & 15)], [b'\\', byte]);
            let written = if self.is_hashed(byte) { &hashed[..] } else { &escaped[..] };
            if at + written.len() >= room.len() {
                break;
            }
            room[at..at + written.len()].copy_from_slice(written);
            at += written.len();
            rest = &rest[plain + 1..];
        }
        at
    }

    /// How many bytes at the beginning are written as they are.
    fn plain(self, text: &[u8]) -> usize {
        let bit = 1 << self as u8;
        let of = |byte: &u8| SPECIAL[usize::from(*byte)];
        // Mostly all of them: eight are looked at together.
        let (eights, _) = text.as_chunks::<8>();
        let many =
            eights.iter().take_while(|eight| eight.iter().fold(0, |all, byte| all | of(byte)) & bit == 0);
        let from = many.count() * 8;
        let rest = &text[from..];
        from + rest.iter().position(|byte| of(byte) & bit != 0).unwrap_or(rest.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(escape: Escape, text: &[u8], end: usize) -> Vec<u8> {
        let mut room = vec![0; end];
        let length = escape.write(&mut room, text);
        room.truncate(length);
        room
    }

    #[test]
    fn bytes_that_do_not_belong_in_a_line_are_written_out() {
        let text = b"a \"b\\]#\x00\x7f\xc3\xa9~\x1f";
        assert_eq!(written(Escape::Hashes, text, 99), b"a #22b\\]#23#00#7F#C3#A9~#1F");
        assert_eq!(written(Escape::HashesAndBackslashes, text, 99), b"a #22b\\\\\\]#23#00#7F#C3#A9~#1F");
        assert_eq!(written(Escape::Backslashes, b"a\"b\\]#\xc3", 99), b"a\\\"b\\\\\\]#\xc3");
        for at in 0..40 {
            let text = [&[b'a'; 40][..at], b"#", &[b'b'; 40][at..]].concat();
            let expected = [&[b'a'; 40][..at], b"#23", &[b'b'; 40][at..]].concat();
            assert_eq!(written(Escape::Hashes, &text, 99), expected);
        }
    }

    #[test]
    fn nothing_is_cut_in_two() {
        assert_eq!(written(Escape::Hashes, b"abcdef", 4), b"abcd");
        assert_eq!(written(Escape::Hashes, b"ab#d", 6), b"ab#23d");
        assert_eq!(written(Escape::Hashes, b"ab#d", 5), b"ab");
        assert_eq!(written(Escape::Backslashes, b"ab]", 4), b"ab");
        assert_eq!(written(Escape::Backslashes, b"ab]", 5), b"ab\\]");
        assert_eq!(written(Escape::Hashes, b"#", 0), b"");
    }
}
