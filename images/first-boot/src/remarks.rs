//! What is said about what was read. Never a file's content, and never a key.

use std::fmt;

/// How bad it is, as syslog's priorities.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Something that was asked for is not done.
    Error = 3,
    /// Something is left out, or odd.
    Warning = 4,
    /// What was done.
    Info = 6,
}

/// One line of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remark {
    /// How bad it is.
    pub severity: Severity,
    /// The line.
    pub text: String,
}

/// Lines in their order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Remarks {
    lines: Vec<Remark>,
    told: usize,
}

impl Remarks {
    /// Notes that something is not done.
    pub fn error(&mut self, text: impl fmt::Display) {
        self.add(Severity::Error, text);
    }

    /// Notes that something is left out, or odd.
    pub fn warning(&mut self, text: impl fmt::Display) {
        self.add(Severity::Warning, text);
    }

    /// Notes what was done.
    pub fn info(&mut self, text: impl fmt::Display) {
        self.add(Severity::Info, text);
    }

    /// Adds those of another.
    pub fn append(&mut self, mut other: Self) {
        self.lines.append(&mut other.lines);
    }

    /// The lines.
    pub fn iter(&self) -> impl Iterator<Item = &Remark> {
        self.lines.iter()
    }

    /// Those that have come since this was asked last.
    pub fn untold(&mut self) -> &[Remark] {
        let told = std::mem::replace(&mut self.told, self.lines.len());
        &self.lines[told..]
    }

    fn add(&mut self, severity: Severity, text: impl fmt::Display) {
        let text = text.to_string().chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        self.lines.push(Remark { severity, text });
    }
}

/// A name from outside, short enough for a line.
pub(crate) fn named(text: &str) -> String {
    const MOST: usize = 80;
    let mut short: String = text.chars().take(MOST).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    format!("{short:?}")
}
