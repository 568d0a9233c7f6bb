//! Which of many policies can apply to a request at all, without asking each.
//!
//! Of each policy one rule that compares a whole value, a prefix or a suffix is chosen as its *guard*. Guards with the
//! same subject and comparison share a sorted table, where a request's sample finds all that it satisfies in one
//! search. What comes out is a set of policies in evaluation order, so that the order's meaning is kept:
//! each candidate is then evaluated whole.

use std::{cmp::Ordering, collections::BTreeMap};

use super::{
    RequestFacts,
    matcher::{Compare, Matcher},
    program::{Policy, Source},
    samples::View,
};

/// Programs with fewer policies than this are evaluated one by one.
const WORTHWHILE: usize = 16;

/// Guard tables of a program.
#[derive(Debug)]
pub(super) struct Index {
    tables: Vec<Table>,
    /// One bit per policy: those without a guard.
    always: Vec<u64>,
}

/// What the guards of one table have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Kind {
    source: Source,
    comparison: Comparison,
    ignore_case: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Comparison {
    Equal,
    Prefix,
    Suffix,
}

impl Kind {
    /// How a key is stored and a sample read: folded, and reversed for suffixes.
    fn order(self, value: &[u8]) -> impl Iterator<Item = u8> {
        let length = value.len();
        (0..length).map(move |i| {
            let byte = value[if self.comparison == Comparison::Suffix { length - 1 - i } else { i }];
            if self.ignore_case { byte.to_ascii_lowercase() } else { byte }
        })
    }

    fn compare(self, key: &[u8], sample: &[u8]) -> Ordering {
        if self.ignore_case || self.comparison == Comparison::Suffix {
            key.iter().copied().cmp(self.order(sample))
        } else {
            key.cmp(sample)
        }
    }

    /// Whether a sample satisfies the guard with this key.
    fn satisfies(self, sample: &[u8], key: &[u8]) -> bool {
        match self.comparison {
            Comparison::Equal => self.compare(key, sample).is_eq(),
            Comparison::Prefix | Comparison::Suffix => {
                key.len() <= sample.len() && key.iter().copied().eq(self.order(sample).take(key.len()))
            }
        }
    }
}

#[derive(Debug)]
struct Table {
    kind: Kind,
    /// Sorted by their bytes.
    keys: Vec<Key>,
}

#[derive(Debug)]
struct Key {
    bytes: Box<[u8]>,
    policies: Vec<usize>,
    /// The longest other key that this one begins with.
    parent: Option<usize>,
}

fn guard(source: Source, invert: bool, matcher: &Matcher) -> Option<(Kind, Box<[u8]>)> {
    // Certificates are asked for once a connection, not looked up for each request.
    if invert || !matches!(source, Source::Path | Source::Named(_)) {
        return None;
    }
    let (comparison, value) = match &matcher.compare {
        Compare::Equal(value) => (Comparison::Equal, value),
        Compare::Prefix(value) => (Comparison::Prefix, value),
        Compare::Suffix(value) => (Comparison::Suffix, value),
        Compare::Contains(_) | Compare::Regex(_) => return None,
    };
    let kind = Kind { source, comparison, ignore_case: matcher.ignore_case };
    Some((kind, kind.order(value).collect()))
}

impl Index {
    /// The index of these policies, or `None` where evaluating them one by one is as good.
    pub(super) fn build(policies: &[Policy]) -> Option<Self> {
        if policies.len() < WORTHWHILE {
            return None;
        }
        let guards = |policy: &Policy| -> Vec<(Kind, Box<[u8]>)> {
            policy.rules.iter().filter_map(|r| guard(r.source, r.invert, &r.matcher)).collect()
        };
        let mut uses: BTreeMap<(Kind, Box<[u8]>), usize> = BTreeMap::new();
        for guard in policies.iter().flat_map(guards) {
            *uses.entry(guard).or_default() += 1;
        }

        let mut always = vec![0; policies.len().div_ceil(64)];
        let mut tables: BTreeMap<Kind, BTreeMap<Box<[u8]>, Vec<usize>>> = BTreeMap::new();
        for (position, policy) in policies.iter().enumerate() {
            // The rarest guard leaves the fewest candidates, and of equally rare ones the longest.
            match guards(policy).into_iter().min_by_key(|g| (uses[g], usize::MAX - g.1.len())) {
                Some((kind, key)) => {
                    tables.entry(kind).or_default().entry(key).or_default().push(position);
                }
                None => insert(&mut always, position),
            }
        }
        let tables: Vec<Table> = tables.into_iter().map(|(kind, keys)| Table::new(kind, keys)).collect();
        (!tables.is_empty()).then_some(Self { tables, always })
    }

    /// Sets the request's candidates.
    pub(super) fn find<R: RequestFacts + ?Sized>(&self, view: &mut View<'_, R>) {
        let mut candidates = std::mem::take(view.candidates());
        candidates.clear();
        candidates.extend_from_slice(&self.always);
        for table in &self.tables {
            match table.kind.source {
                Source::Path => {
                    if let Some(path) = view.path {
                        table.find(path, &mut candidates);
                    }
                }
                Source::Named(subject) => {
                    view.samples(subject).for_each(|sample| table.find(sample, &mut candidates));
                }
                // Not in any table.
                Source::HasCertificate | Source::VerifyResult | Source::SubjectField(_) => {}
            }
        }
        *view.candidates() = candidates;
    }
}

impl Table {
    fn new(kind: Kind, sorted: BTreeMap<Box<[u8]>, Vec<usize>>) -> Self {
        let mut keys: Vec<Key> = Vec::with_capacity(sorted.len());
        let mut open: Vec<usize> = Vec::new();
        for (bytes, policies) in sorted {
            while open.last().is_some_and(|top| !bytes.starts_with(&keys[*top].bytes)) {
                open.pop();
            }
            let parent = open.last().copied();
            open.push(keys.len());
            keys.push(Key { bytes, policies, parent });
        }
        Self { kind, keys }
    }

    /// Adds the policies whose guard the sample satisfies.
    fn find(&self, sample: &[u8], candidates: &mut [u64]) {
        // Every key that the sample begins with is at or before the sample in the order, and is a beginning of the
        // last key that is: so all of them are that key or its ancestors.
        let after = self.keys.partition_point(|key| self.kind.compare(&key.bytes, sample).is_le());
        let mut at = after.checked_sub(1);
        while let Some(key) = at.map(|at| &self.keys[at]) {
            if self.kind.satisfies(sample, &key.bytes) {
                key.policies.iter().for_each(|position| insert(candidates, *position));
            }
            at = match self.kind.comparison {
                Comparison::Equal => None,
                Comparison::Prefix | Comparison::Suffix => key.parent,
            };
        }
    }
}

fn insert(set: &mut [u64], position: usize) {
    set[position / 64] |= 1 << (position % 64);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The numbers of the keys that a sample satisfies.
    fn found(comparison: Comparison, ignore_case: bool, keys: &[&str], sample: &str) -> Vec<usize> {
        let kind = Kind { source: Source::Path, comparison, ignore_case };
        let mut sorted: BTreeMap<Box<[u8]>, Vec<usize>> = BTreeMap::new();
        for (position, key) in keys.iter().enumerate() {
            sorted.entry(kind.order(key.as_bytes()).collect()).or_default().push(position);
        }
        let mut set = vec![0; keys.len().div_ceil(64)];
        Table::new(kind, sorted).find(sample.as_bytes(), &mut set);
        (0..keys.len()).filter(|position| set[position / 64] >> (position % 64) & 1 == 1).collect()
    }

    #[test]
    fn a_table_finds_the_keys_that_a_sample_satisfies_and_no_others() {
        let keys = ["/a", "/ab", "/b", "/abc", "/A", "/ab", "c", ""];
        use Comparison::*;
        for (comparison, ignore_case, sample, expected) in [
            (Equal, false, "/ab", &[1, 5][..]),
            (Equal, false, "/AB", &[]),
            (Equal, true, "/AB", &[1, 5]),
            (Equal, false, "/aa", &[]),
            (Equal, false, "", &[7]),
            (Prefix, false, "/abd", &[0, 1, 5, 7]),
            (Prefix, false, "/b", &[2, 7]),
            (Prefix, false, "/", &[7]),
            (Prefix, true, "/ABC", &[0, 1, 3, 4, 5, 7]),
            (Suffix, false, "x/ab", &[1, 5, 7]),
            (Suffix, false, "abc", &[6, 7]),
            (Suffix, false, "/abc", &[3, 6, 7]),
            (Suffix, true, "X/A", &[0, 4, 7]),
        ] {
            assert_eq!(found(comparison, ignore_case, &keys, sample), expected, "{comparison:?} {sample}");
        }
        let many: Vec<String> = (0..200).map(|n| format!("/{n:03}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        for n in [0, 63, 64, 127, 128, 199] {
            assert_eq!(found(Equal, false, &many, many[n]), [n]);
        }
    }
}
