//! Why a configuration is refused: every fault with its place, collected so that several are reported together.

use std::{
    cell::{Cell, RefCell},
    fmt,
};

/// The most faults that are listed; a last one says how many there are beyond.
pub const MAX_FAULTS: usize = 100;

/// The longest piece of a configuration that a place or a reason repeats, in characters.
const MAX_EXCERPT: usize = 80;

/// One fault of a configuration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Invalid {
    /// Where: `line 12` of keepalived.conf, or a path in the native document such as `instances[0].vrid`. Empty for
    /// the text as a whole.
    pub place: String,
    /// What is wrong.
    pub reason: String,
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.place.is_empty() {
            write!(f, "{}: ", self.place)?;
        }
        f.write_str(&self.reason)
    }
}

/// A collector of faults, shared by everything that looks at one text. Bounded by [`MAX_FAULTS`].
#[derive(Debug, Default)]
pub(super) struct Faults {
    list: RefCell<Vec<Invalid>>,
    beyond: Cell<usize>,
}

impl Faults {
    /// Notes a fault.
    pub(super) fn push(&self, place: impl fmt::Display, reason: impl Into<String>) {
        let mut list = self.list.borrow_mut();
        if list.len() < MAX_FAULTS {
            list.push(Invalid { place: place.to_string(), reason: reason.into() });
        } else {
            self.beyond.set(self.beyond.get().saturating_add(1));
        }
    }

    /// `value` when no fault was noted; the faults otherwise, those without a place last.
    ///
    /// A reader that yields nothing has noted why; should one not have, that is a fault as well.
    pub(super) fn into_result<T>(self, value: Option<T>) -> Result<T, Vec<Invalid>> {
        let mut faults = self.list.into_inner();
        match value {
            Some(value) if faults.is_empty() => return Ok(value),
            None if faults.is_empty() => {
                faults.push(Invalid { place: String::new(), reason: "cannot be understood".to_owned() });
            }
            _ => {}
        }
        match self.beyond.get() {
            0 => {}
            1 => faults.push(Invalid { place: String::new(), reason: "and 1 more fault".to_owned() }),
            n => faults.push(Invalid { place: String::new(), reason: format!("and {n} more faults") }),
        }
        Err(faults)
    }
}

/// `text` in quotes, escaped, and cut when it is long.
pub(super) fn excerpt(text: &str) -> String {
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
    fn the_list_is_bounded_and_says_so() {
        let faults = Faults::default();
        for n in 0..MAX_FAULTS + 3 {
            faults.push(format_args!("line {n}"), "no");
        }
        let list = faults.into_result(Some(())).unwrap_err();
        assert_eq!(list.len(), MAX_FAULTS + 1);
        assert_eq!(list[1].to_string(), "line 1: no");
        assert_eq!(list.last().unwrap().to_string(), "and 3 more faults");
    }

    #[test]
    fn nothing_without_a_fault_is_a_fault() {
        assert_eq!(Faults::default().into_result(Some(1)), Ok(1));
        assert_eq!(Faults::default().into_result(None::<()>).unwrap_err().len(), 1);
    }

    #[test]
    fn an_excerpt_is_cut_between_characters() {
        assert_eq!(excerpt(&"é".repeat(1000)).chars().count(), MAX_EXCERPT + "\"\"...".len());
        assert_eq!(excerpt("a\n"), "\"a\\n\"");
    }
}
