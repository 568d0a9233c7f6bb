//! Rules by themselves, for an operator who wants to know why a policy does not apply.

use std::time::Duration;

use amphora_model::{L7Rule, Listener};

use super::{Compiler, L7Program, Rule};
use crate::{
    l7::{
        Budget, RequestFacts, Scratch,
        budget::Expressions,
        matcher::Compare,
        samples::{Subjects, View},
    },
    tls::PeerFacts,
};

/// CPU time for expressions all together. Each has as much as those of a request have together; once this is used up, those that are
/// left share what one of them has.
const MOST: Duration = Duration::from_millis(200);

/// Whether a rule holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It does.
    Holds,
    /// It does not.
    Fails,
    /// It counts as if its expression did not match, which takes too long to find out.
    TooLong,
    /// It was not compiled: all expressions together take too much memory. Those of policies that are disabled are not counted when a
    /// load balancer is taken.
    TooLarge,
}

impl L7Program {
    /// Tells of each enabled rule of a listener, in the document's order, as if it was the only one: with the policy's place. Takes time
    /// linear in their number. `known` are expressions that need not be compiled again.
    pub fn each_rule<R: RequestFacts + ?Sized>(
        listener: &Listener,
        known: &Expressions,
        request: &R,
        peer: Option<&PeerFacts>,
        scratch: &mut Scratch,
        mut tell: impl FnMut(usize, &L7Rule, Verdict),
    ) {
        let mut budget = Budget::new(known);
        let mut compiler =
            Compiler { budget: &mut budget, subjects: Subjects::default(), faults: Vec::new() };
        let policies = listener.l7policies.iter().enumerate();
        let rules = policies.flat_map(|(place, policy)| policy.rules.iter().map(move |rule| (place, rule)));
        let rules: Vec<(usize, &L7Rule, Option<Rule>)> = rules
            .filter(|(_, rule)| rule.admin_state_up)
            .map(|(place, rule)| (place, rule, compiler.rule(rule, "")))
            .collect();
        let subjects = std::mem::take(&mut compiler.subjects);
        let Scratch { samples, allowance, .. } = scratch;
        allowance.renew();
        let mut spent = Duration::ZERO;
        let mut view = View::new(request, peer, &subjects, samples);
        for (place, rule, compiled) in rules {
            let Some(compiled) = compiled else {
                tell(place, rule, Verdict::TooLarge);
                continue;
            };
            let is_expression = matches!(compiled.matcher.compare, Compare::Regex(_));
            if is_expression && spent < MOST {
                spent += allowance.spent();
                allowance.renew();
            }
            let holds = compiled.holds(&mut view, allowance);
            let verdict = match holds {
                _ if is_expression && holds == rule.invert && allowance.is_exceeded() => Verdict::TooLong,
                true => Verdict::Holds,
                false => Verdict::Fails,
            };
            tell(place, rule, verdict);
        }
    }
}
