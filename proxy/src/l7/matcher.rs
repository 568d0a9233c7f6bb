//! One comparison: `compare_type` with its value.

use std::sync::Arc;

use memchr::{memchr2_iter, memmem::Finder};

use super::regex::{Allowance, Expression};

/// Whether a sample satisfies a rule's `compare_type` and `value`.
#[derive(Debug)]
pub(super) struct Matcher {
    pub(super) compare: Compare,
    /// ASCII case does not count (HAProxy `-i`). A regular expression has this compiled in.
    pub(super) ignore_case: bool,
}

#[derive(Debug)]
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
    /// Whether the sample matches; a regular expression within what the request's allowance has left.
    #[inline]
    pub(super) fn matches(&self, sample: &[u8], allowance: &mut Allowance) -> bool {
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
            Compare::Regex(regex) => regex.is_match(sample, allowance),
        }
    }

    /// Whether no sample matches any more in this request, because its regular expressions have used up their time.
    #[inline]
    pub(super) fn is_exhausted(&self, allowance: &mut Allowance) -> bool {
        matches!(&self.compare, Compare::Regex(regex) if regex.is_exhausted(allowance))
    }

    #[inline]
    fn same(&self, a: &[u8], b: &[u8]) -> bool {
        if self.ignore_case { a.eq_ignore_ascii_case(b) } else { a == b }
    }

    /// Roughly what a match costs, to try the cheap rules of a policy first.
    pub(super) fn cost(&self) -> u8 {
        match &self.compare {
            Compare::Equal(_) | Compare::Prefix(_) | Compare::Suffix(_) => 0,
            Compare::Contains(_) => 1,
            Compare::Regex(regex) => 2 + u8::from(regex.backtracks()),
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

    fn matches(matcher: &Matcher, sample: &[u8]) -> bool {
        matcher.matches(sample, &mut Allowance::default())
    }

    #[test]
    fn compares_whole_values_and_their_ends() {
        let equal = matcher(Compare::Equal(Box::from(*b"ab")), false);
        assert!(matches(&equal, b"ab") && !matches(&equal, b"Ab") && !matches(&equal, b"abc"));
        let prefix = matcher(Compare::Prefix(Box::from(*b"ab")), false);
        assert!(matches(&prefix, b"abc") && !matches(&prefix, b"a") && !matches(&prefix, b""));
        let suffix = matcher(Compare::Suffix(Box::from(*b"bc")), true);
        assert!(matches(&suffix, b"aBC") && matches(&suffix, b"bc") && !matches(&suffix, b"c"));
    }

    #[test]
    fn finds_substrings_with_and_without_case() {
        let folded = matcher(Compare::Contains(Box::new(Finder::new("aB").into_owned())), true);
        assert!(matches(&folded, b"xxAb") && matches(&folded, b"aab") && !matches(&folded, b"a b"));
        let exact = matcher(Compare::Contains(Box::new(Finder::new("aB").into_owned())), false);
        assert!(matches(&exact, b"xaBx") && !matches(&exact, b"xab"));
    }

    #[test]
    fn what_looks_at_more_costs_more() {
        let regex = |expression| {
            let work = &mut super::super::regex::Work::default();
            Compare::Regex(Arc::new(Expression::compile(expression, false, work).expect("is one")))
        };
        let contains = Compare::Contains(Box::new(Finder::new("a").into_owned()));
        let costs = [
            Compare::Equal(Box::from(*b"a")),
            Compare::Prefix(Box::from(*b"a")),
            Compare::Suffix(Box::from(*b"a")),
            contains,
            regex("^a[0-9]+b"),
            regex("a(?=b)"),
        ]
        .map(|compare| matcher(compare, false).cost());
        assert_eq!(costs, [0, 0, 0, 1, 2, 3]);
    }
}
