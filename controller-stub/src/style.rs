//! Colours for people: on a terminal, unless `NO_COLOR` says otherwise (<https://no-color.org>).

use std::{env, fmt, io::IsTerminal};

/// Whether output is painted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Style {
    colour: bool,
}

/// The few colours that are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Colour {
    Red,
    Green,
    Yellow,
    Cyan,
    Dim,
    Bold,
}

impl Colour {
    /// The SGR parameter (ECMA-48 8.3.117).
    fn code(self) -> u8 {
        match self {
            Self::Red => 31,
            Self::Green => 32,
            Self::Yellow => 33,
            Self::Cyan => 36,
            Self::Dim => 2,
            Self::Bold => 1,
        }
    }

    /// The colour of an Octavia operating status.
    pub fn of_status(status: &str) -> Self {
        match status {
            "ONLINE" => Self::Green,
            "DEGRADED" => Self::Yellow,
            "ERROR" => Self::Red,
            "DRAINING" => Self::Cyan,
            _ => Self::Dim,
        }
    }
}

impl Style {
    /// Never paints.
    pub const PLAIN: Self = Self { colour: false };
    /// Always paints.
    pub const COLOURED: Self = Self { colour: true };

    /// Paints when `stream` is a terminal that can, and `NO_COLOR` is unset or empty.
    pub fn of(stream: &impl IsTerminal) -> Self {
        let refused = env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty());
        let dumb = env::var_os("TERM").is_some_and(|v| v == "dumb");
        Self { colour: stream.is_terminal() && !refused && !dumb }
    }

    /// `text` in `colour`.
    pub fn paint<T: fmt::Display>(self, colour: Colour, text: T) -> Painted<T> {
        Painted { code: self.colour.then(|| colour.code()), text }
    }
}

/// See [`Style::paint`]. Width and alignment of the format string apply to the text alone.
#[derive(Debug)]
pub struct Painted<T> {
    code: Option<u8>,
    text: T,
}

impl<T: fmt::Display> fmt::Display for Painted<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(code) = self.code else { return self.text.fmt(f) };
        write!(f, "\x1b[{code}m")?;
        self.text.fmt(f)?;
        f.write_str("\x1b[0m")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paints_without_disturbing_the_width() {
        assert_eq!(format!("{:>4}|", Style::PLAIN.paint(Colour::Red, "ab")), "  ab|");
        assert_eq!(format!("{:>4}|", Style::COLOURED.paint(Colour::Red, "ab")), "\x1b[31m  ab\x1b[0m|");
    }
}
