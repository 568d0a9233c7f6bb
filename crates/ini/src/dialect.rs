//! oslo.config's ini dialect, as its `iniparser` reads it.
//!
//! A line is split at the first `=` or `:`; `#` and `;` start a comment in column 0 only; leading white space
//! continues the value above; a value in one pair of quotes loses them; the last assignment of a name wins.
//! Unlike in most dialects an assignment before the first section is an error.

use std::{fmt, path::Path, sync::Arc};

/// Parsed files: every assignment in order, by section.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ini {
    assignments: Vec<Assignment>,
}

/// One `name = value`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assignment {
    /// The section's name, lower-cased as oslo does, but for `DEFAULT`.
    pub section: String,
    /// The option's name.
    pub name: String,
    /// The value before substitution; lines of a continued value are joined by line feeds.
    pub value: String,
    /// Where it starts.
    pub place: Place,
}

/// A line of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The file; none of a text that is of no file.
    pub file: Option<Arc<Path>>,
    /// The line, from 1.
    pub line: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(file) = &self.file {
            write!(f, "{}: ", file.display())?;
        }
        write!(f, "line {}", self.line)
    }
}

/// Why a text is not in the dialect.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {reason}")]
pub struct IniError {
    /// The line.
    pub place: Place,
    /// What is wrong with it.
    pub reason: &'static str,
}

impl Ini {
    /// Reads a text that is of no file.
    ///
    /// # Errors
    /// The first line that oslo would refuse as well.
    pub fn parse(text: &str) -> Result<Self, IniError> {
        let mut this = Self::default();
        this.add(text, None)?;
        Ok(this)
    }

    /// Reads one more file, which has a beginning and an end of its own; where it says something again, it counts.
    ///
    /// # Errors
    /// The first line that oslo would refuse as well.
    pub fn add(&mut self, text: &str, file: Option<&Arc<Path>>) -> Result<(), IniError> {
        let mut parser = Parser { assignments: Vec::new(), section: None, open: None };
        for (at, line) in lines(text).enumerate() {
            let place = Place { file: file.cloned(), line: at + 1 };
            parser.line(line, &place).map_err(|reason| IniError { place, reason })?;
        }
        parser.flush();
        self.assignments.append(&mut parser.assignments);
        Ok(())
    }

    /// The last assignment of a name in a section.
    pub fn get(&self, section: &str, name: &str) -> Option<&Assignment> {
        self.assignments.iter().rev().find(|a| a.section == section && a.name == name)
    }

    /// Every assignment, in the order of the files.
    pub fn assignments(&self) -> &[Assignment] {
        &self.assignments
    }
}

/// Parses arbitrary bytes, for fuzzing: must neither panic nor take long.
pub fn fuzz(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data) {
        let _ = Ini::parse(text);
    }
}

struct Parser {
    assignments: Vec<Assignment>,
    section: Option<String>,
    open: Option<Assignment>,
}

impl Parser {
    fn line(&mut self, line: &str, place: &Place) -> Result<(), &'static str> {
        let line = line.trim_end_matches(is_space);
        if line.is_empty() {
            self.flush();
            return Ok(());
        }
        if line.starts_with([' ', '\t']) {
            let Some(open) = &mut self.open else { return Err("unexpected continuation line") };
            open.value.push('\n');
            open.value.push_str(line.trim_start_matches(is_space));
            return Ok(());
        }
        self.flush();
        if let Some(rest) = line.strip_prefix('[') {
            let Some(name) = rest.strip_suffix(']') else { return Err("a section must end with ]") };
            if name.is_empty() {
                return Err("empty section name");
            }
            self.section = Some(section_name(name));
            return Ok(());
        }
        if line.starts_with(['#', ';']) {
            return Ok(());
        }
        let Some((name, value)) = line.split_once(['=', ':']) else { return Err("no = or : found") };
        let name = name.trim_matches(is_space);
        if name.is_empty() {
            return Err("empty option name");
        }
        let Some(section) = self.section.clone() else { return Err("assignment before the first section") };
        let value = unquote(value.trim_matches(is_space)).to_owned();
        self.open = Some(Assignment { section, name: name.to_owned(), value, place: place.clone() });
        Ok(())
    }

    fn flush(&mut self) {
        self.assignments.extend(self.open.take());
    }
}

/// oslo compares group names without case, but for its own `DEFAULT`.
fn section_name(name: &str) -> String {
    if name == "DEFAULT" { name.to_owned() } else { name.to_lowercase() }
}

fn unquote(value: &str) -> &str {
    match value.as_bytes() {
        [b'"'] | [b'\''] => "",
        [first @ (b'"' | b'\''), .., last] if first == last => &value[1..value.len() - 1],
        _ => value,
    }
}

/// Python's universal newlines.
fn lines(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let text = rest?;
        let Some(at) = text.find(['\n', '\r']) else {
            rest = None;
            return Some(text);
        };
        let after = if text[at..].starts_with("\r\n") { at + 2 } else { at + 1 };
        rest = Some(&text[after..]);
        Some(&text[..at])
    })
}

/// Python's `str.isspace`, which counts the four ASCII separators.
fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\x1c'..='\x1f').contains(&c)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    fn value(text: &str, section: &str, name: &str) -> Option<String> {
        Ini::parse(text).unwrap().get(section, name).map(|a| a.value.clone())
    }

    #[test]
    fn splits_at_the_first_separator() {
        assert_eq!(value("[a]\nx = 1:2=3", "a", "x").as_deref(), Some("1:2=3"));
        assert_eq!(value("[a]\nx: 1=2", "a", "x").as_deref(), Some("1=2"));
        assert_eq!(value("[a]\nx =", "a", "x").as_deref(), Some(""));
    }

    #[test]
    fn comments_are_in_column_0_only() {
        assert_eq!(value("[a]\n# c\n; d\nx = 1 # no\n", "a", "x").as_deref(), Some("1 # no"));
        assert_eq!(value("[a]\nx = 1\n  # more\n", "a", "x").as_deref(), Some("1\n# more"));
    }

    #[test]
    fn the_last_assignment_wins_and_sections_reopen() {
        assert_eq!(value("[a]\nx=1\n[b]\nx=2\n[A]\nx=3", "a", "x").as_deref(), Some("3"));
    }

    #[test]
    fn quotes_come_off_in_pairs() {
        assert_eq!(value("[a]\nx = \"a b \"", "a", "x").as_deref(), Some("a b "));
        assert_eq!(value("[a]\nx = 'a\"", "a", "x").as_deref(), Some("'a\""));
        assert_eq!(value("[a]\nx = \"", "a", "x").as_deref(), Some(""));
    }

    #[test]
    fn errors_name_the_line() {
        for (text, line) in [
            ("x = 1", 1),
            ("[a]\n\n  x", 3),
            ("[a]\n# c\n  x", 3),
            ("[a", 1),
            ("[]", 1),
            ("[a]\nx", 2),
            ("[a]\n= 1", 2),
        ] {
            assert_eq!(Ini::parse(text).unwrap_err().place.line, line, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(
            entries in prop::collection::vec(("[a-z_]{1,8}", "[a-z][a-z0-9_]{0,8}", "[!-~]([ -~]{0,20}[!-~])?"), 0..12),
            newline in prop::sample::select(vec!["\n", "\r\n", "\r"]),
        ) {
            let mut text = String::new();
            for (section, name, value) in &entries {
                text.push_str(&format!("[{section}]{newline}{name} = {value}{newline}"));
            }
            let ini = Ini::parse(&text).unwrap();
            prop_assert_eq!(ini.assignments().len(), entries.len());
            for (read, (section, name, value)) in ini.assignments().iter().zip(&entries) {
                prop_assert_eq!((&read.section, &read.name), (section, name));
                prop_assert_eq!(read.value.as_str(), unquote(value));
            }
        }

        #[test]
        fn no_text_makes_it_panic(text in "(?s).{0,200}") {
            let _ = Ini::parse(&text);
        }
    }
}
