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

    /// Appends `text`, as far as `out` may grow to `end`. What takes several bytes is not begun unless one more than these
    /// fits.
    pub(super) fn write(self, out: &mut Vec<u8>, text: &[u8], end: usize) {
        let bit = 1 << self as u8;
        let mut rest = text;
        while out.len() < end && !rest.is_empty() {
            let special = |byte: &u8| SPECIAL[usize::from(*byte)] & bit != 0;
            let plain = rest.iter().position(special).unwrap_or(rest.len());
            let fits = plain.min(end - out.len());
            out.extend_from_slice(&rest[..fits]);
            let Some(&byte) = rest.get(plain).filter(|_| fits == plain) else { return };
            if self.is_hashed(byte) {
                if out.len() + 3 >= end {
                    return;
                }
                let digit = |nibble: u8| HEXADECIMAL[usize::from(nibble)];
                out.extend_from_slice(&[b'#', digit(byte >> 4), digit(byte & 15)]);
            } else {
                if out.len() + 2 >= end {
                    return;
                }
                out.extend_from_slice(&[b'\\', byte]);
            }
            rest = &rest[plain + 1..];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(escape: Escape, text: &[u8], end: usize) -> Vec<u8> {
        let mut out = Vec::new();
        escape.write(&mut out, text, end);
        out
    }

    #[test]
    fn bytes_that_do_not_belong_in_a_line_are_written_out() {
        let text = b"a \"b\\]#\x00\x7f\xc3\xa9~\x1f";
        assert_eq!(written(Escape::Hashes, text, 99), b"a #22b\\]#23#00#7F#C3#A9~#1F");
        assert_eq!(written(Escape::HashesAndBackslashes, text, 99), b"a #22b\\\\\\]#23#00#7F#C3#A9~#1F");
        assert_eq!(written(Escape::Backslashes, b"a\"b\\]#\xc3", 99), b"a\\\"b\\\\\\]#\xc3");
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
