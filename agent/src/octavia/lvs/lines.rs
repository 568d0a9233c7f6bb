//! A text's lines and their words, between which is one space.

use std::{borrow::Cow, fmt::Display, ops::RangeInclusive, str::FromStr};

use amphora_model::excerpt;

use super::{
    super::{fault::Place, html},
    Fault,
};

/// The longest text, in bytes. A member with the most status codes takes 60,000, one with another monitor 300.
pub const MAX_TEXT: usize = 16 * 1024 * 1024;

/// The longest line, in bytes: the path of a health monitor has at most 2048 characters, each of which an escape may stand for.
const MAX_LINE: usize = 16 * 1024;

/// A line that has words.
#[derive(Clone, Debug)]
pub(super) struct Line<'t> {
    /// Which one.
    pub(super) place: Place<'t>,
    words: Vec<&'t str>,
}

/// The lines of a text that have words.
pub(super) fn lines(text: &[u8]) -> impl Iterator<Item = Result<Line<'_>, Fault>> {
    text.split(|b| *b == b'\n').zip(1..).filter_map(|(bytes, number)| line(bytes, number).transpose())
}

fn line(bytes: &[u8], number: usize) -> Result<Option<Line<'_>>, Fault> {
    let fault = |text: &str, reason: &str| Err(Fault::new(number, text, reason));
    if bytes.len() > MAX_LINE {
        let shown = String::from_utf8_lossy(&bytes[..64]);
        return fault(&shown, &format!("is longer than {MAX_LINE} bytes"));
    }
    let Ok(text) = std::str::from_utf8(bytes) else {
        return fault(&String::from_utf8_lossy(bytes), "is not UTF-8");
    };
    if text.chars().any(char::is_control) {
        return fault(text, "has a tab or another control character");
    }
    let text = text.trim_start_matches(' ');
    if text.is_empty() {
        return Ok(None);
    }
    let words: Vec<_> = text.split(' ').collect();
    if words.contains(&"") {
        return fault(text, "has two spaces in a row, or one at its end");
    }
    Ok(Some(Line { place: Place { number, text }, words }))
}

/// What is left of a line.
#[derive(Debug)]
pub(super) struct Args<'l, 't> {
    place: Place<'t>,
    words: &'l [&'t str],
}

impl<'l, 't> Args<'l, 't> {
    /// All of a line.
    pub(super) fn new(line: &'l Line<'t>) -> Self {
        Self { place: line.place, words: &line.words }
    }

    /// A fault of the line.
    pub(super) fn fault(&self, reason: impl Into<String>) -> Fault {
        self.place.fault(reason)
    }

    /// The next word as it is written; empty at the end.
    pub(super) fn peek(&self) -> &'t str {
        self.words.first().copied().unwrap_or_default()
    }

    /// Whether the next words are these. They are passed then.
    pub(super) fn take(&mut self, words: &str) -> bool {
        let count = words.split(' ').count();
        let same = self.words.iter().copied().take(count).eq(words.split(' '));
        if same {
            self.words = &self.words[count..];
        }
        same
    }

    /// The next words have to be these.
    pub(super) fn expect(&mut self, words: &str) -> Result<(), Fault> {
        if self.take(words) {
            return Ok(());
        }
        Err(match self.words.first() {
            None => self.fault(format!("ends where {words} is expected")),
            Some(word) => self.fault(format!("has {} where {words} is expected", excerpt(word))),
        })
    }

    /// The next word, as it is written.
    pub(super) fn raw(&mut self, what: &str) -> Result<&'t str, Fault> {
        let (word, rest) =
            self.words.split_first().ok_or_else(|| self.fault(format!("ends where {what} is expected")))?;
        self.words = rest;
        Ok(word)
    }

    /// The next word: a value of a tenant's.
    pub(super) fn value(&mut self, what: &str) -> Result<Cow<'t, str>, Fault> {
        let word = self.raw(what)?;
        html::unescaped(word).ok_or_else(|| self.fault("has & that begins no escape of HTML"))
    }

    /// The next word: what it parses as.
    pub(super) fn parsed<T: FromStr>(&mut self, what: &str) -> Result<T, Fault> {
        let word = self.raw(what)?;
        word.parse().map_err(|_| self.unexpected(word, what))
    }

    /// The next word: a decimal number in the range.
    pub(super) fn number<T>(&mut self, what: &str, range: RangeInclusive<T>) -> Result<T, Fault>
    where
        T: FromStr + PartialOrd + Display,
    {
        let word = self.raw(what)?;
        let digits = Some(word).filter(|word| word.bytes().all(|b| b.is_ascii_digit()));
        let number = digits.and_then(|digits| digits.parse().ok()).filter(|number| range.contains(number));
        number.ok_or_else(|| {
            let (low, high) = (range.start(), range.end());
            self.unexpected(word, &format!("{what}, from {low} to {high},"))
        })
    }

    fn unexpected(&self, word: &str, what: &str) -> Fault {
        self.fault(format!("has {} where {what} is expected", excerpt(word)))
    }

    /// `value`, when nothing is left.
    pub(super) fn last<T>(&self, value: T) -> Result<T, Fault> {
        match self.words.first() {
            None => Ok(value),
            Some(word) => Err(self.fault(format!("has an argument that is not known: {}", excerpt(word)))),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn lines_have_numbers_and_bounds() {
        let seen: Vec<_> = lines(b"# c\n\n  a b\n \nc")
            .map(|line| line.map(|line| (line.place.number, line.words)).unwrap())
            .collect();
        assert_eq!(seen, [(1, vec!["#", "c"]), (3, vec!["a", "b"]), (5, vec!["c"])]);
        assert!(lines(&b"a".repeat(MAX_LINE)).next().unwrap().is_ok());
        for text in [&b"a  b"[..], b"a ", b"a\tb", b"a\r", b"\xff", &b"a".repeat(MAX_LINE + 1)] {
            assert!(lines(text).next().unwrap().is_err(), "{text:?}");
        }
    }

    #[test]
    fn values_come_out_of_their_escapes_once() {
        let value = |text: &'static str| {
            let line = line(text.as_bytes(), 1).unwrap().unwrap();
            Args::new(&line).value("it").map(Cow::into_owned).map_err(|fault| fault.reason)
        };
        assert_eq!(value("/a?b=1&amp;amp;c=&#34;&#39;&lt;&gt;").unwrap(), "/a?b=1&amp;c=\"'<>");
        assert_eq!(value("/a&b").unwrap_err(), "has & that begins no escape of HTML");
    }
}
