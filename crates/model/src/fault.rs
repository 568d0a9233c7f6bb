//! Why a document is refused: every fault with its path and its reason, collected so that several are reported
//! together.

use std::{
    cell::{Cell, RefCell},
    fmt,
};

use serde::{Deserialize, Serialize};

/// The most faults that one [`Refusal`] lists; a last one says how many there are beyond.
pub const MAX_FAULTS: usize = 100;

/// The longest excerpt of a document that a path or a reason repeats, in characters.
const MAX_EXCERPT: usize = 64;

/// Why a document was refused. What ran before runs on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub struct Refusal {
    /// One or more faults.
    pub faults: Vec<Fault>,
}

impl Refusal {
    /// A refusal for one fault.
    pub fn one(path: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { faults: vec![Fault { path: path.into(), reason: reason.into() }] }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, fault) in self.faults.iter().enumerate() {
            if i > 0 {
                f.write_str("; ")?;
            }
            fault.fmt(f)?;
        }
        Ok(())
    }
}

/// One reason, at one place of the document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// The JSON path of the offending field, such as `loadbalancer.listeners[0].protocol_port`. Between brackets is
    /// the index in the document; faults that are found after parsing (a regular expression that does not compile)
    /// have the id of the object there, because policies are sorted by then. In a text that is no JSON, a line, as
    /// `line 12`. Empty: the document as a whole.
    pub path: String,
    /// What is wrong, for a human.
    pub reason: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.reason)
    }
}

/// A collector of faults, shared by everything that looks at one document. Bounded by [`MAX_FAULTS`].
#[derive(Debug, Default)]
pub struct Faults {
    list: RefCell<Vec<Fault>>,
    beyond: Cell<usize>,
}

impl Faults {
    /// Notes a fault.
    pub fn push(&self, path: impl fmt::Display, reason: impl Into<String>) {
        let mut list = self.list.borrow_mut();
        if list.len() < MAX_FAULTS {
            list.push(Fault { path: path.to_string(), reason: reason.into() });
        } else {
            self.beyond.set(self.beyond.get() + 1);
        }
    }

    /// True while no fault was noted.
    pub fn is_empty(&self) -> bool {
        self.list.borrow().is_empty()
    }

    /// `value` when no fault was noted, the refusal otherwise.
    ///
    /// A reader that yields nothing has noted why; should one not have, that is a fault as well.
    pub fn into_result<T>(self, value: Option<T>) -> Result<T, Refusal> {
        let mut faults = self.list.into_inner();
        match value {
            Some(value) if faults.is_empty() => return Ok(value),
            None if faults.is_empty() => return Err(Refusal::one("", "cannot be understood")),
            _ => {}
        }
        match self.beyond.get() {
            0 => {}
            1 => faults.push(Fault { path: String::new(), reason: "and 1 more fault".into() }),
            n => faults.push(Fault { path: String::new(), reason: format!("and {n} more faults") }),
        }
        Err(Refusal { faults })
    }
}

/// Where in a document: a list of steps on the stack, spelled out only for a fault.
#[derive(Clone, Copy, Debug)]
pub enum Path<'p> {
    /// The document itself.
    Root,
    /// The field of this name.
    Field(&'p Path<'p>, &'p str),
    /// The element at this place of a list.
    Index(&'p Path<'p>, usize),
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Root => Ok(()),
            Self::Field(parent, name) => {
                parent.fmt(f)?;
                let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
                if name.is_empty() || name.len() > MAX_EXCERPT || !name.bytes().all(plain) {
                    write!(f, "[{}]", excerpt(name))
                } else if matches!(parent, Self::Root) {
                    f.write_str(name)
                } else {
                    write!(f, ".{name}")
                }
            }
            Self::Index(parent, index) => write!(f, "{parent}[{index}]"),
        }
    }
}

/// `text` in quotes, escaped, and cut when it is long.
pub fn excerpt(text: &str) -> String {
    match text.char_indices().nth(MAX_EXCERPT) {
        Some((end, _)) => format!("{:?}...", &text[..end]),
        None => format!("{text:?}"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn paths_read_like_json_paths() {
        let lb = Path::Field(&Path::Root, "loadbalancer");
        let listeners = Path::Field(&lb, "listeners");
        let first = Path::Index(&listeners, 0);
        assert_eq!(Path::Field(&first, "X-Real-IP").to_string(), "loadbalancer.listeners[0].X-Real-IP");
        assert_eq!(Path::Field(&first, "a \"b\"").to_string(), "loadbalancer.listeners[0][\"a \\\"b\\\"\"]");
        let long = "é".repeat(1000);
        assert_eq!(Path::Field(&lb, &long).to_string().chars().count(), "loadbalancer[\"\"...]".len() + 64);
    }

    #[test]
    fn the_list_is_bounded_and_says_so() {
        let faults = Faults::default();
        for i in 0..MAX_FAULTS + 3 {
            faults.push(Path::Index(&Path::Root, i), "no");
        }
        let refusal = faults.into_result(Some(())).unwrap_err();
        assert_eq!(refusal.faults.len(), MAX_FAULTS + 1);
        assert_eq!(refusal.faults.last().unwrap().to_string(), "and 3 more faults");
    }

    #[test]
    fn nothing_without_a_fault_is_a_fault() {
        assert_eq!(Faults::default().into_result(Some(1)), Ok(1));
        assert_eq!(
            Faults::default().into_result(None::<()>).unwrap_err().to_string(),
            "cannot be understood"
        );
    }

    #[test]
    fn an_excerpt_is_cut_between_characters() {
        assert_eq!(excerpt(&"é".repeat(1000)).chars().count(), MAX_EXCERPT + "\"\"...".len());
        assert_eq!(excerpt("a\n"), "\"a\\n\"");
    }

    #[test]
    fn a_refusal_reads_as_one_line() {
        let refusal = Refusal {
            faults: vec![
                Fault { path: "a.b".into(), reason: "is required".into() },
                Fault { path: String::new(), reason: "and 1 more fault".into() },
            ],
        };
        assert_eq!(refusal.to_string(), "a.b: is required; and 1 more fault");
    }
}
