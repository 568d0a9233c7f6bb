//! Why a text is refused, and where.

use std::fmt;

/// Why a text is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Fault {
    /// The line, from 1; 0: the text as a whole.
    pub line: usize,
    /// What stands there, without white space around it and cut when it is long.
    pub text: String,
    /// What is wrong with it.
    pub reason: String,
}

impl Fault {
    /// The longest excerpt of a line, in characters.
    const MAX_TEXT: usize = 160;

    /// Of a line.
    pub(super) fn new(line: usize, text: &str, reason: impl Into<String>) -> Self {
        let mut shown: String = text.chars().take(Self::MAX_TEXT).flat_map(visible).collect();
        if text.chars().nth(Self::MAX_TEXT).is_some() {
            shown.push_str("...");
        }
        Self { line, text: shown, reason: reason.into() }
    }

    /// Of the text as a whole.
    pub(super) fn whole(reason: impl Into<String>) -> Self {
        Self::new(0, "", reason)
    }
}

/// A character for people to read, who shall not be shown another line.
fn visible(c: char) -> impl Iterator<Item = char> {
    let escaped = c.is_control().then(|| c.escape_default());
    let plain = escaped.is_none().then_some(c);
    escaped.into_iter().flatten().chain(plain)
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line > 0 {
            write!(f, "line {}: ", self.line)?;
        }
        if !self.text.is_empty() {
            write!(f, "{}: ", self.text)?;
        }
        f.write_str(&self.reason)
    }
}

/// Where something stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place<'t> {
    /// The line, from 1.
    pub(super) number: usize,
    /// It, without white space around it.
    pub(super) text: &'t str,
}

impl Place<'_> {
    /// A fault of this line.
    pub(super) fn fault(self, reason: impl Into<String>) -> Fault {
        Fault::new(self.number, self.text, reason)
    }
}
