//! `LEAST_CONNECTIONS`: HAProxy's `leastconn`. The lowest `(load + 1) / weight` wins; a member without a session
//! counts 0 whatever its weight, so that every member of an idle pool is used; among equals it is round
//! robin.
//!
//! The loads are those of all workers and change under our feet, so there is no order to keep: a pick scans, from
//! behind the member picked last, and stops at the first idle one.

use amphora_model::MemberId;

use super::{Balancer, Flow, MembersView, eligible::Eligible, hash::mix};

/// The position in the rotation.
#[derive(Debug)]
pub struct LeastConnections {
    seed: u64,
    eligible: Eligible,
    /// The place in `eligible` where the next scan starts.
    next: usize,
    /// The member picked last: where to go on once the list was rebuilt.
    last: Option<MemberId>,
}

impl LeastConnections {
    /// Starts the rotation at a place that depends on `seed`.
    pub fn new(seed: u64) -> Self {
        Self { seed, eligible: Eligible::default(), next: 0, last: None }
    }

    /// Goes on behind the member that `previous` picked last.
    pub fn carry_over(&mut self, previous: &Self) {
        self.last = previous.last;
    }

    #[cold]
    fn reposition(&mut self, view: &impl MembersView) {
        let members = self.eligible.members();
        let behind_last =
            self.last.and_then(|last| members.iter().position(|&i| view.id(i as usize) == last));
        self.next = match (behind_last, members.len()) {
            (_, 0) => 0,
            (Some(place), n) => (place + 1) % n,
            (None, n) => (mix(self.seed) % n as u64) as usize,
        };
    }

    /// The place in the list of the least loaded member that passes `allow`.
    fn least(&self, view: &impl MembersView, allow: impl Fn(usize) -> bool) -> Option<usize> {
        let members = self.eligible.members();
        let (before, from) = members.split_at(self.next);
        let mut best: Option<(usize, u64, u64)> = None;
        for (step, &member) in from.iter().chain(before).enumerate() {
            let member = member as usize;
            if !allow(member) {
                continue;
            }
            let load = u64::from(view.load(member));
            let place = (self.next + step) % members.len();
            if load == 0 {
                return Some(place);
            }
            let weight = u64::from(view.weight(member));
            // load / weight by cross-multiplication: exact.
            if best.is_none_or(|(_, least, of)| (load + 1) * of < least * weight) {
                best = Some((place, load + 1, weight));
            }
        }
        best.map(|(place, ..)| place)
    }
}

impl Balancer for LeastConnections {
    fn pick(
        &mut self,
        view: &impl MembersView,
        _flow: &Flow,
        avoid: impl Fn(usize) -> bool,
    ) -> Option<usize> {
        if self.eligible.refresh(view) {
            self.reposition(view);
        }
        let place = self.least(view, |i| !avoid(i)).or_else(|| self.least(view, |_| true))?;
        let member = self.eligible.members()[place] as usize;
        self.next = (place + 1) % self.eligible.members().len();
        self.last = Some(view.id(member));
        Some(member)
    }
}
