//! A statement's words, read one after the other.

use std::{borrow::Cow, fmt::Display, ops::RangeInclusive, str::FromStr};

use super::{
    Fault,
    words::{Line, Word},
};

/// What is left of a line.
#[derive(Debug)]
pub(super) struct Args<'l, 't> {
    line: &'l Line<'t>,
    at: usize,
}

impl<'l, 't> Args<'l, 't> {
    /// All of a line.
    pub(super) fn new(line: &'l Line<'t>) -> Self {
        Self { line, at: 0 }
    }

    /// A fault of the line.
    pub(super) fn fault(&self, reason: impl Into<String>) -> Fault {
        self.line.place.fault(reason)
    }

    /// How many words are left.
    pub(super) fn left(&self) -> usize {
        self.line.words.len() - self.at
    }

    /// The next word, as it is written.
    pub(super) fn peek(&self) -> Option<Word<'t>> {
        self.line.words.get(self.at).copied()
    }

    /// Whether the next words are these. They are passed then.
    pub(super) fn take(&mut self, words: &str) -> bool {
        let wanted = words.split(' ');
        let found = self.line.words[self.at..].iter().map(|word| word.raw);
        let count = wanted.clone().count();
        let same = found.take(count).eq(wanted);
        if same {
            self.at += count;
        }
        same
    }

    /// The next words have to be these.
    pub(super) fn expect(&mut self, words: &str) -> Result<(), Fault> {
        if self.take(words) {
            return Ok(());
        }
        Err(match self.peek() {
            None => self.fault(format!("ends where {words} is expected")),
            Some(word) => self.fault(format!("has {} where {words} is expected", short(word.raw))),
        })
    }

    /// The next word: a value that may be quoted.
    pub(super) fn value(&mut self, what: &str) -> Result<Cow<'t, str>, Fault> {
        let word = self.word(what)?;
        word.value().map_err(|reason| self.fault(reason))
    }

    /// The next word: a value that is not quoted.
    pub(super) fn plain(&mut self, what: &str) -> Result<Cow<'t, str>, Fault> {
        let word = self.word(what)?;
        word.plain().map_err(|reason| self.fault(reason))
    }

    /// The next word as it is written, if there is one.
    pub(super) fn raw(&mut self) -> Option<&'t str> {
        let word = self.peek()?;
        self.at += 1;
        Some(word.raw)
    }

    fn word(&mut self, what: &str) -> Result<Word<'t>, Fault> {
        let word = self.peek().ok_or_else(|| self.fault(format!("ends where {what} is expected")))?;
        self.at += 1;
        Ok(word)
    }

    /// The next word: what it parses as.
    pub(super) fn parsed<T: FromStr>(&mut self, what: &str) -> Result<T, Fault> {
        let text = self.plain(what)?;
        text.parse().map_err(|_| self.fault(format!("has {} where {what} is expected", short(&text))))
    }

    /// The next word: a decimal number in the range, with `unit` behind it.
    pub(super) fn number<T>(&mut self, what: &str, range: RangeInclusive<T>, unit: &str) -> Result<T, Fault>
    where
        T: FromStr + PartialOrd + Display,
    {
        let text = self.plain(what)?;
        let digits =
            text.strip_suffix(unit).filter(|d| !d.is_empty() && d.bytes().all(|b| b.is_ascii_digit()));
        let number = digits.and_then(|digits| digits.parse().ok()).filter(|number| range.contains(number));
        number.ok_or_else(|| {
            let (low, high) = (range.start(), range.end());
            let found = short(&text);
            self.fault(format!("has {found} where {what} is expected, from {low}{unit} to {high}{unit}"))
        })
    }

    /// Nothing may be left.
    pub(super) fn end(&self) -> Result<(), Fault> {
        match self.peek() {
            None => Ok(()),
            Some(word) => Err(self.fault(format!("has an argument that is not known: {}", short(word.raw)))),
        }
    }

    /// `value`, when nothing is left.
    pub(super) fn last<T>(&self, value: T) -> Result<T, Fault> {
        self.end().map(|()| value)
    }
}

/// A part of a text for a reason.
pub(super) fn short(text: &str) -> String {
    amphora_model::excerpt(text)
}
