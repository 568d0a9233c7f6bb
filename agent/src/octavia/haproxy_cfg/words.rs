//! A text's lines and their words: HAProxy's quoting, and under it the HTML escapes of Octavia's templates.
//!
//! The templates escape whatever they put in: `&`, `<`, `>`, `'` and `"` become `&amp;`, `&lt;`, `&gt;`, `&#39;` and `&#34;`. A
//! value of L7 rules has a backslash in front of spaces and backslashes besides. Nothing of a tenant's comes in quotes, and no
//! tenant's quote comes as one. So
//!
//! - an escape of HTML stands for its character, and for that character alone: it neither begins nor ends quotes. It is
//!   undone once. `&` that begins no such escape is refused.
//! - `#` is a letter like others, but for the first line, which is a comment. To HAProxy a comment begins at any `#` that is
//!   not quoted, so it cuts `&#34;` off, and the condition behind a URL with a fragment; Octavia's templates write no comment
//!   behind a statement.
//! - an empty line stands in front of a section only, and a control character nowhere: else a value has a line feed in it.
//! - between words is one space but in `acl`, `bind` and `cpu-map`, and at the end of a line none: else a value has one at its end.

use std::borrow::Cow;

use super::{super::html::escape_of, Fault};

pub(super) use super::super::fault::Place;

/// The longest text, in bytes. A member takes some 150.
pub const MAX_TEXT: usize = 16 * 1024 * 1024;

/// The longest line, in bytes. The longest that Octavia renders have lists of ciphers, at most 2 KiB each, or the status codes of a
/// health monitor, at most 4 KiB.
const MAX_LINE: usize = 16 * 1024;

/// The most words of a line, as in HAProxy (`MAX_LINE_ARGS`).
const MAX_WORDS: usize = 64;

/// Statements in which Octavia writes several spaces.
const SPACED: [&str; 3] = ["acl", "bind", "cpu-map"];

/// A line that has words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Line<'t> {
    /// Which one.
    pub(super) place: Place<'t>,
    /// Whether lines without words are above it.
    pub(super) apart: bool,
    /// At least one.
    pub(super) words: Vec<Word<'t>>,
}

/// A word as it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Word<'t> {
    /// With quotes, backslashes and HTML escapes.
    pub(super) raw: &'t str,
}

impl<'t> Word<'t> {
    /// What it stands for.
    pub(super) fn value(self) -> Result<Cow<'t, str>, String> {
        if !self.raw.bytes().any(|b| matches!(b, b'\\' | b'\'' | b'"' | b'&')) {
            return Ok(Cow::Borrowed(self.raw));
        }
        let mut value = String::with_capacity(self.raw.len());
        let mut rest = self.raw;
        let mut quoted = false;
        while let Some(c) = rest.chars().next() {
            let mut length = c.len_utf8();
            match c {
                '\\' => {
                    let escaped = rest[1..].chars().next();
                    match escaped {
                        Some(e @ (' ' | '\\' | '#' | '\'' | '"')) => value.push(e),
                        _ => return Err("has a backslash in front of what needs none".into()),
                    }
                    length += 1;
                }
                '"' => quoted = !quoted,
                '\'' if !quoted => {
                    // Nothing means anything in these; that they end is known.
                    let inner = rest[1..].split('\'').next().unwrap_or_default();
                    value.push_str(inner);
                    length += inner.len() + 1;
                }
                '$' if quoted => return Err("has a variable of the environment".into()),
                '&' => {
                    let (escape, plain) = escape_of(rest).ok_or("has & that begins no escape of HTML")?;
                    value.push(plain);
                    length = escape.len();
                }
                c => value.push(c),
            }
            rest = rest.get(length..).unwrap_or_default();
        }
        Ok(Cow::Owned(value))
    }

    /// What it stands for, where Octavia writes nothing that would need quotes or a backslash.
    pub(super) fn plain(self) -> Result<Cow<'t, str>, String> {
        if self.raw.bytes().any(|b| matches!(b, b'\\' | b'\'' | b'"')) {
            return Err("has a quote or a backslash where there is none".into());
        }
        self.value()
    }
}

/// The lines of a text that have words.
pub(super) fn lines(text: &[u8]) -> impl Iterator<Item = Result<Line<'_>, Fault>> {
    let mut apart = false;
    let mut first = true;
    text.strip_suffix(b"\n").unwrap_or(text).split(|b| *b == b'\n').zip(1..).filter_map(
        move |(bytes, number)| {
            let (text, words) = match words(bytes, number) {
                Ok(found) => found,
                Err(fault) => return Some(Err(fault)),
            };
            if words.is_empty() {
                apart = true;
                return None;
            }
            if text.starts_with('#') {
                // Of a line further down nobody knows whether it is a comment or the rest of a value.
                let reason = "is a comment, of which there is none but in the first line";
                return (!first).then(|| Err(Fault::new(number, text, reason)));
            }
            first = false;
            Some(Ok(Line { place: Place { number, text }, apart: std::mem::take(&mut apart), words }))
        },
    )
}

fn words(bytes: &[u8], number: usize) -> Result<(&str, Vec<Word<'_>>), Fault> {
    let fault = |text: &str, reason: &str| Fault::new(number, text, reason);
    if bytes.len() > MAX_LINE {
        let shown = String::from_utf8_lossy(&bytes[..64]);
        return Err(fault(&shown, &format!("is longer than {MAX_LINE} bytes")));
    }
    let text =
        std::str::from_utf8(bytes).map_err(|_| fault(&String::from_utf8_lossy(bytes), "is not UTF-8"))?;
    if text.chars().any(char::is_control) {
        return Err(fault(text, "has a tab or another control character"));
    }
    let text = text.trim_start_matches(' ');
    let mut words = Vec::new();
    if text.starts_with('#') {
        words.push(Word { raw: text });
        return Ok((text, words));
    }
    let mut start = None;
    let mut bytes = text.bytes().enumerate();
    while let Some((at, byte)) = bytes.next() {
        if byte == b' ' {
            // The first word is what decides; a space is escaped in the values of `acl`.
            if start.is_none() && !words.first().is_some_and(|word| SPACED.contains(&word.raw)) {
                return Err(fault(text, "has two spaces in a row"));
            }
            words.extend(start.take().map(|start| Word { raw: &text[start..at] }));
            continue;
        }
        if start.is_none() && words.len() == MAX_WORDS {
            return Err(fault(text, &format!("has more than {MAX_WORDS} words")));
        }
        start = start.or(Some(at));
        let ended = match byte {
            b'\\' => bytes.next().is_some(),
            b'\'' => bytes.any(|(_, byte)| byte == b'\''),
            b'"' => loop {
                match bytes.next() {
                    Some((_, b'\\')) => drop(bytes.next()),
                    Some((_, b'"')) => break true,
                    Some(_) => {}
                    None => break false,
                }
            },
            _ => true,
        };
        if !ended {
            return Err(fault(text, "ends within quotes or behind a backslash"));
        }
    }
    if start.is_none() && !words.is_empty() {
        return Err(fault(text, "has a space at its end"));
    }
    words.extend(start.map(|start| Word { raw: &text[start..] }));
    Ok((text.trim_end_matches(' '), words))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn values(text: &str) -> Vec<String> {
        let mut lines = lines(text.as_bytes());
        let line = lines.next().unwrap().unwrap();
        assert!(lines.next().is_none());
        line.words.iter().map(|word| word.value().unwrap().into_owned()).collect()
    }

    fn refused(text: &str) -> String {
        lines(text.as_bytes())
            .find_map(|line| match line {
                Err(fault) => Some(fault.reason),
                Ok(line) => line.words.iter().find_map(|word| word.value().err()),
            })
            .unwrap()
    }

    #[test]
    fn a_value_of_octavias_comes_back() {
        assert_eq!(values(r"  acl  b\ c\\  d"), ["acl", r"b c\", "d"]);
        assert_eq!(values(r"&lt;&gt;&amp;amp;&#39;x&#34;"), [r#"<>&amp;'x""#]);
        // In the templates' order: backslashes, spaces, then HTML.
        assert_eq!(values(r"\\&#34;\ \\\\&#39;"), [r#"\" \\'"#]);
        assert_eq!(values(r"a #a b#c \ # &#34;#"), ["a", "#a", "b#c", " #", "\"#"]);
        assert_eq!(values("é ü\u{a0}x"), ["é", "ü\u{a0}x"]);
    }

    #[test]
    fn quotes_are_haproxys() {
        assert_eq!(
            values(r#"a "b c" 'd \ e&amp;' "f\" \\ g&amp;'h'""#),
            ["a", "b c", r"d \ e&amp;", r#"f" \ g&'h'"#]
        );
        assert_eq!(values(r#"a"b c"d'e'\'"#), ["ab cde'"]);
        for text in ["'a", "\"a", r#""a\""#, r"a\"] {
            assert_eq!(refused(text), "ends within quotes or behind a backslash", "{text}");
        }
        assert_eq!(refused("\"$HOME\""), "has a variable of the environment");
        assert_eq!(values("$HOME"), ["$HOME"]);
    }

    #[test]
    fn what_octavia_does_not_write_is_refused() {
        for text in ["a&b", "&AMP;", "&quot;", "&", "&amp"] {
            assert_eq!(refused(text), "has & that begins no escape of HTML", "{text}");
        }
        for text in [r"\d", r"a\n", r"\x41", r"\r"] {
            assert_eq!(refused(text), "has a backslash in front of what needs none", "{text}");
        }
        for text in ["a\tb", "a\r\nb", "a\0", "a\u{85}"] {
            assert_eq!(refused(text), "has a tab or another control character", "{text:?}");
        }
        assert_eq!(refused("# first\na\n # b"), "is a comment, of which there is none but in the first line");
        assert!(lines(b"\xff").next().unwrap().is_err());
        for text in [r"a\b", "a'b'", "a\"b\""] {
            let line = lines(text.as_bytes()).next().unwrap().unwrap();
            assert!(line.words[0].plain().is_err(), "{text}");
        }
    }

    #[test]
    fn lines_have_numbers_and_bounds() {
        let text = b"# c\n\na\n  \n\nb\nc";
        let seen: Vec<_> = lines(text)
            .map(|line| line.map(|line| (line.place.number, line.place.text, line.apart)).unwrap())
            .collect();
        assert_eq!(seen, [(3, "a", true), (6, "b", true), (7, "c", false)]);
        let line = |length: usize| [b"a".repeat(length), b"\n".to_vec()].concat();
        assert!(lines(&line(MAX_LINE)).next().unwrap().is_ok());
        assert_eq!(lines(&line(MAX_LINE + 1)).next().unwrap().unwrap_err().text.len(), 64);
        let words = |count: usize| vec!["a"; count].join(" ");
        assert!(lines(words(MAX_WORDS).as_bytes()).next().unwrap().is_ok());
        assert!(lines(words(MAX_WORDS + 1).as_bytes()).next().unwrap().is_err());
        for (text, reason) in [("a  b", "has two spaces in a row"), ("a b ", "has a space at its end")] {
            assert_eq!(refused(text), reason);
        }
    }
}
