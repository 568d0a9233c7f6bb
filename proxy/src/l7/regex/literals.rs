//! Expressions that are a few words, perhaps bound to the ends of the subject: these need no table.

use memchr::memmem::Finder;
use regex_automata::{MatchKind, util::prefilter::Prefilter};
use regex_syntax::hir::{Hir, HirKind, Look, literal::Extractor};

/// Words that are compared one by one; more of them are better read as a table.
const FEW: usize = 8;

/// An expression that matches where one of some words stands, and nowhere else.
#[derive(Debug)]
pub(super) enum Literals {
    /// `^(?:a|b)$`
    Whole(Box<[Box<[u8]>]>),
    /// `^(?:a|b)`
    Beginning(Box<[Box<[u8]>]>),
    /// `(?:a|b)$`
    End(Box<[Box<[u8]>]>),
    /// `a`
    Anywhere(Box<Finder<'static>>),
    /// `a|b`, where they are looked for all at once.
    Any(Prefilter),
}

impl Literals {
    /// `None` when the expression is something else, or has so many words that a table is better.
    pub(super) fn of(hir: &Hir) -> Option<Self> {
        let (inside, start, end) = without_anchors(hir);
        if !inside.properties().look_set().is_empty() {
            return None;
        }
        let words = Extractor::new().extract(&inside);
        if !words.is_exact() {
            return None;
        }
        let words: Vec<Box<[u8]>> = words.literals()?.iter().map(|word| word.as_bytes().into()).collect();
        if (start || end) && words.len() > FEW {
            return None;
        }
        match (start, end, &words[..]) {
            (true, true, _) => Some(Self::Whole(words.into())),
            (true, false, _) => Some(Self::Beginning(words.into())),
            (false, true, _) => Some(Self::End(words.into())),
            (false, false, [word]) => Some(Self::Anywhere(Box::new(Finder::new(word).into_owned()))),
            (false, false, words) => {
                Prefilter::new(MatchKind::LeftmostFirst, words).filter(Prefilter::is_fast).map(Self::Any)
            }
        }
    }

    /// Bytes of memory that they take.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Whole(words) | Self::Beginning(words) | Self::End(words) => {
                words.iter().map(|word| size_of_val(word) + word.len()).sum()
            }
            Self::Anywhere(finder) => size_of_val(&**finder) + finder.needle().len(),
            Self::Any(words) => words.memory_usage(),
        }
    }

    /// Whether the subject has a match.
    #[inline]
    pub(super) fn is_match(&self, subject: &[u8]) -> bool {
        match self {
            Self::Whole(words) => words.iter().any(|word| **word == *subject),
            Self::Beginning(words) => words.iter().any(|word| subject.starts_with(word)),
            Self::End(words) => words.iter().any(|word| subject.ends_with(word)),
            Self::Anywhere(finder) => finder.find(subject).is_some(),
            Self::Any(words) => words.find(subject, (0..subject.len()).into()).is_some(),
        }
    }
}

/// What is between `^` and `$`, and whether they are there.
fn without_anchors(hir: &Hir) -> (Hir, bool, bool) {
    let look = |hir: &Hir, look| matches!(hir.kind(), HirKind::Look(l) if *l == look);
    let mut items = match hir.kind() {
        HirKind::Concat(items) => items.as_slice(),
        _ => std::slice::from_ref(hir),
    };
    let start = items.first().is_some_and(|first| look(first, Look::Start));
    items = &items[usize::from(start)..];
    let end = items.last().is_some_and(|last| look(last, Look::End));
    items = &items[..items.len() - usize::from(end)];
    (Hir::concat(items.to_vec()), start, end)
}
