//! One comparison: `compare_type` with its value.

use std::sync::Arc;

use memchr::{memchr2_iter, memmem::Finder};

use super::pcre::Expression;

/// Whether a sample satisfies a rule's `compare_type` and `value`.
#[derive(Clone, Debug)]
pub(super) struct Matcher {
    pub(super) compare: Compare,
    /// ASCII case does not count (HAProxy `-i`). A regular expression has this compiled in.
    pub(super) ignore_case: bool,
}

#[derive(Clone, Debug)]
pub(super) enum Compare {
    /// `-m str`
    Equal(Box<[u8]>),
    /// `-m beg`
    Prefix(Box<[u8]>),
    /// `-m end`
    Suffix(Box<[u8]>),
    /// `-m sub`
    Contains(Box<Finder<'static>>),
    /// `-m reg`
    Regex(Arc<Expression>),
}

impl Matcher {
    /// Whether the sample matches.
    #[inline]
    pub(super) fn matches(&self, sample: &[u8]) -> bool {
        match &self.compare {
            Compare::Equal(value) => self.same(sample, value),
            Compare::Prefix(value) => {
                sample.get(..value.len()).is_some_and(|beginning| self.same(beginning, value))
            }
            Compare::Suffix(value) => {
                sample.len().checked_sub(value.len()).is_some_and(|start| self.same(&sample[start..], value))
            }
            Compare::Contains(finder) if self.ignore_case => contains_ignoring_case(sample, finder.needle()),
            Compare::Contains(finder) => finder.find(sample).is_some(),
            Compare::Regex(expression) => expression.matches(sample),
        }
    }

    #[inline]
    fn same(&self, a: &[u8], b: &[u8]) -> bool {
        if self.ignore_case { a.eq_ignore_ascii_case(b) } else { a == b }
    }

    /// Roughly what a match costs, to try the cheap rules of a policy first.
    pub(super) fn cost(&self) -> u8 {
        match self.compare {
            Compare::Equal(_) | Compare::Prefix(_) | Compare::Suffix(_) => 0,
            Compare::Contains(_) => 1,
            Compare::Regex(_) => 2,
        }
    }
}

fn contains_ignoring_case(sample: &[u8], value: &[u8]) -> bool {
    let Some(first) = value.first() else { return true };
    memchr2_iter(first.to_ascii_lowercase(), first.to_ascii_uppercase(), sample)
        .any(|at| sample.get(at..at + value.len()).is_some_and(|part| part.eq_ignore_ascii_case(value)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matcher(compare: Compare, ignore_case: bool) -> Matcher {
        Matcher { compare, ignore_case }
    }

    #[test]
    fn compares_whole_values_and_their_ends() {
        let equal = matcher(Compare::Equal(Box::from(*b"ab")), false);
        assert!(equal.matches(b"ab") && !equal.matches(b"Ab") && !equal.matches(b"abc"));
        let prefix = matcher(Compare::Prefix(Box::from(*b"ab")), false);
        assert!(prefix.matches(b"abc") && !prefix.matches(b"a") && !prefix.matches(b""));
        let suffix = matcher(Compare::Suffix(Box::from(*b"bc")), true);
        assert!(suffix.matches(b"aBC") && suffix.matches(b"bc") && !suffix.matches(b"c"));
    }

    #[test]
    fn finds_substrings_with_and_without_case() {
        let folded = matcher(Compare::Contains(Box::new(Finder::new("aB").into_owned())), true);
        assert!(folded.matches(b"xxAb") && folded.matches(b"aab") && !folded.matches(b"a b"));
        let exact = matcher(Compare::Contains(Box::new(Finder::new("aB").into_owned())), false);
        assert!(exact.matches(b"xaBx") && !exact.matches(b"xab"));
    }
}
