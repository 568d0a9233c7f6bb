//! Expressions that are automata: one table, made when they are compiled, of which matching reads one entry for each
//! byte.

use regex_automata::{
    Anchored, Input, MatchKind, Span,
    dfa::{Automaton, StartKind, dense},
    nfa::thompson::{self, WhichCaptures},
    util::{prefilter::Prefilter, primitives::StateID, start},
};
use regex_syntax::hir::{Hir, Look};

use super::work::Work;

/// Bytes of the automaton that the table is made of.
const NFA_SIZE: usize = 24 * 1024;

/// Bytes of a table. Those of typical expressions have 1 to 8 KiB.
const TABLE_SIZE: usize = 32 * 1024;

/// Work for one table: [`Work`] counts each of its entries once for each state of the automaton.
const TABLE_WORK: usize = 1 << 20;

/// Work for each state of the automaton itself, and for looking at an expression at all.
const STATE_WORK: usize = 64;

/// Bytes of a state of an automaton, at least.
const STATE_SIZE: usize = 24;

/// Bytes of what is needed while a table is made.
const BUILDER_SIZE: usize = 64 * 1024;

/// An expression as a table.
#[derive(Debug)]
pub(super) struct Dfa {
    table: dense::DFA<Vec<u32>>,
    way: Way,
    /// Finds the first place where a match may begin.
    prefilter: Option<Prefilter>,
}

/// How a subject is read.
#[derive(Clone, Copy, Debug)]
enum Way {
    /// From its start to where a match ends.
    Forwards,
    /// The expression is anchored to the subject's start: mostly the first bytes decide. The table's first state.
    FromStart(StateID),
    /// It is anchored to the end alone: backwards from there.
    Backwards,
}

impl Dfa {
    /// The table of an expression; `None` when it would be too large, or make more work than is left.
    pub(super) fn compile(hir: &Hir, work: &mut Work) -> Option<Self> {
        let properties = hir.properties();
        let from_start = properties.look_set_prefix().contains(Look::Start);
        let backwards = properties.look_set_suffix().contains(Look::End) && !from_start;
        let nfa = thompson::Compiler::new()
            .configure(
                thompson::Config::new()
                    .utf8(false)
                    .reverse(backwards)
                    .which_captures(WhichCaptures::None)
                    .nfa_size_limit(Some(NFA_SIZE)),
            )
            .build_from_hir(hir);
        let states = nfa.as_ref().map_or(NFA_SIZE / STATE_SIZE, |nfa| nfa.states().len());
        work.spend(states * STATE_WORK);
        let nfa = nfa.ok()?;
        // Each entry of the table is found by following at most all states of the automaton.
        let entries = TABLE_WORK.min(work.left()) / states;
        let size = TABLE_SIZE.min(entries * size_of::<u32>());
        let prefilter = (!backwards && !from_start).then(|| prefilter(hir)).flatten();
        // An expression that is bound to an end is looked for nowhere else: the table has no states for other places.
        let kind = if backwards || from_start { StartKind::Anchored } else { StartKind::Unanchored };
        let table = dense::Builder::new()
            .configure(
                dense::Config::new()
                    .start_kind(kind)
                    .accelerate(kind == StartKind::Unanchored)
                    .specialize_start_states(prefilter.is_some())
                    .prefilter(prefilter.clone())
                    .dfa_size_limit(Some(size))
                    .determinize_size_limit(Some(BUILDER_SIZE)),
            )
            .build_from_nfa(&nfa);
        let made = table.as_ref().map_or(size, dense::DFA::memory_usage);
        work.spend(states * made / size_of::<u32>());
        let table = table.ok()?;
        let way = if backwards {
            Way::Backwards
        } else if from_start {
            let start = start::Config::new().anchored(Anchored::Yes);
            Way::FromStart(table.start_state(&start).ok()?)
        } else {
            Way::Forwards
        };
        Some(Self { table, way, prefilter })
    }

    /// Bytes of memory that it takes.
    pub(super) fn bytes(&self) -> usize {
        size_of::<Self>()
            + self.table.memory_usage()
            + self.prefilter.as_ref().map_or(0, Prefilter::memory_usage)
    }

    /// Whether the subject has a match.
    #[inline]
    pub(super) fn is_match(&self, subject: &[u8]) -> bool {
        // Most values of most requests have none of the literals.
        if let Some(prefilter) = &self.prefilter
            && prefilter.find(subject, Span { start: 0, end: subject.len() }).is_none()
        {
            return false;
        }
        // A table without quitting bytes and for this kind of search has no errors.
        let found = match self.way {
            Way::FromStart(first) => return self.is_match_from(first, subject),
            Way::Forwards => self.table.try_search_fwd(&Input::new(subject).earliest(true)),
            Way::Backwards => {
                self.table.try_search_rev(&Input::new(subject).earliest(true).anchored(Anchored::Yes))
            }
        };
        found.is_ok_and(|found| found.is_some())
    }

    #[inline]
    fn is_match_from(&self, first: StateID, subject: &[u8]) -> bool {
        let mut state = first;
        for byte in subject {
            state = self.table.next_state(state, *byte);
            if self.table.is_special_state(state) {
                if self.table.is_match_state(state) {
                    return true;
                }
                if self.table.is_dead_state(state) {
                    return false;
                }
            }
        }
        self.table.is_match_state(self.table.next_eoi_state(state))
    }
}

/// A search for the literals that a match begins with, when it is much faster than the table.
fn prefilter(hir: &Hir) -> Option<Prefilter> {
    Prefilter::from_hir_prefix(MatchKind::LeftmostFirst, hir).filter(Prefilter::is_fast)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_that_binds_is_begun_at_and_literals_are_looked_for_where_none_does() {
        for (expression, backwards, from_start, prefilter) in [
            ("/abc[0-9]+", false, false, true),
            ("^/abc[0-9]+", false, true, false),
            ("^/abc[0-9]+$", false, true, false),
            ("/abc[0-9]+$", true, false, false),
            ("[^a]+b", false, false, false),
        ] {
            let hir = super::super::parse(expression, false).expect("an expression");
            let mut work = Work::default();
            let before = work.left();
            let dfa = Dfa::compile(&hir, &mut work).expect("a small one");
            let way = (matches!(dfa.way, Way::Backwards), matches!(dfa.way, Way::FromStart(_)));
            assert_eq!((way, dfa.prefilter.is_some()), ((backwards, from_start), prefilter), "{expression}");
            assert!(before - work.left() > 3 * STATE_WORK, "{expression}: {}", before - work.left());
            let bytes = dfa.bytes();
            let table = dfa.table.memory_usage();
            assert!((1..=32 * 1024).contains(&table) && bytes >= size_of::<Dfa>() + table, "{expression}");
            let searched = dfa.prefilter.as_ref().map_or(0, Prefilter::memory_usage);
            assert_eq!(bytes, size_of::<Dfa>() + table + searched);
            assert!(dfa.is_match(b"/abc12") != (expression == "[^a]+b"), "{expression}");
            assert!(!dfa.is_match(b"/ab12"), "{expression}");
        }
    }
}
