//! `ROUND_ROBIN`: smooth and weighted, O(log n) a pick.
//!
//! With the sum of weights `W` as the cycle, the k-th pick of a member of weight `w` has the window of slots
//! `[floor((k-1)W/w), ceil(kW/w))`, and each slot goes to the pick with the earliest deadline among those whose
//! window is open. These are the windows of Pfair scheduling (Baruah et al., 1996): the earliest deadline
//! always meets them, which means that after any number of picks every member has had its exact share rounded
//! down or up, and after a cycle exactly its weight. nginx's smooth round robin has the same shares per
//! cycle, at O(n) a pick, with gaps that are no smaller: 5:1:1 is `a a b a c a a` there (four `a` in a row over
//! the cycle's end), `a a a b a a c` here.
//!
//! Any slot can be entered without walking there (`Schedule::enter`): workers start at different ones, and
//! a changed list of members goes on at the same fraction of its own cycle.

use std::{cmp::Reverse, collections::BinaryHeap};

use super::{Balancer, Flow, MembersView, eligible::Eligible, hash::mix};
use crate::model::MemberId;

/// A schedule over the eligible members and the slot that comes next.
#[derive(Debug)]
pub struct RoundRobin {
    seed: u64,
    eligible: Eligible,
    schedule: Schedule,
    position: Option<Position>,
}

/// Where in its cycle a schedule is, in terms that another schedule understands.
#[derive(Clone, Debug)]
struct Position {
    slot: u64,
    cycle: u64,
    /// Those that have had their share rounded up rather than down, sorted.
    ahead: Vec<MemberId>,
}

impl RoundRobin {
    /// Starts at a slot that depends on `seed`.
    pub fn new(seed: u64) -> Self {
        Self { seed, eligible: Eligible::default(), schedule: Schedule::default(), position: None }
    }

    /// Goes on where `previous` was.
    pub fn carry_over(&mut self, previous: &Self) {
        self.position = previous.position();
    }

    fn position(&self) -> Option<Position> {
        if self.schedule.turns.is_empty() {
            return self.position.clone();
        }
        let cycle = self.schedule.cycle;
        let slot = self.schedule.slot % cycle;
        let ahead = |turn: &&Turn| turn.taken * cycle > turn.weight * self.schedule.slot;
        let mut ahead: Vec<_> = self.schedule.turns.iter().filter(ahead).map(|turn| turn.id).collect();
        ahead.sort_unstable();
        Some(Position { slot, cycle, ahead })
    }

    #[cold]
    fn rebuild(&mut self, view: &impl MembersView) {
        let position = self.position();
        let members = self.eligible.members();
        let divisor =
            members.iter().fold(0, |gcd, &i| gcd_of(gcd, u64::from(view.weight(i as usize)))).max(1);
        let turn = |&member: &u32| Turn {
            id: view.id(member as usize),
            member,
            weight: u64::from(view.weight(member as usize)) / divisor,
            taken: 0,
        };
        let turns: Vec<Turn> = members.iter().map(turn).collect();
        self.schedule = Schedule::new(turns);
        let cycle = self.schedule.cycle;
        if cycle > 0 {
            match &position {
                Some(p) => self
                    .schedule
                    .enter(p.slot * cycle / p.cycle, |turn| p.ahead.binary_search(&turn.id).is_ok()),
                None => self.schedule.enter(mix(self.seed) % cycle, |_| false),
            }
        }
        // Kept for when there is nobody left: the next list goes on here.
        self.position = position;
    }
}

impl Balancer for RoundRobin {
    fn pick(
        &mut self,
        view: &impl MembersView,
        _flow: &Flow,
        avoid: impl Fn(usize) -> bool,
    ) -> Option<usize> {
        if self.eligible.refresh(view) {
            self.rebuild(view);
        }
        self.schedule.next(avoid)
    }
}

/// One member in the schedule.
#[derive(Debug)]
struct Turn {
    id: MemberId,
    member: u32,
    weight: u64,
    /// Picks so far, since slot 0.
    taken: u64,
}

impl Turn {
    /// The slot before which the next pick is due.
    fn deadline(&self, cycle: u64) -> u64 {
        ((self.taken + 1) * cycle).div_ceil(self.weight)
    }
}

/// The earliest-deadline-first queue. Invariant: each turn is in exactly one of `open` and `waiting`, with its
/// next pick.
#[derive(Debug, Default)]
struct Schedule {
    turns: Vec<Turn>,
    /// The sum of weights.
    cycle: u64,
    /// The slot that the next pick fills.
    slot: u64,
    /// (deadline, turn) of picks whose window is open.
    open: BinaryHeap<Reverse<(u64, u32)>>,
    /// (first slot, turn) of picks whose window is still to come.
    waiting: BinaryHeap<Reverse<(u64, u32)>>,
}

impl Schedule {
    fn new(turns: Vec<Turn>) -> Self {
        let cycle = turns.iter().map(|turn| turn.weight).sum();
        let (open, waiting) =
            (BinaryHeap::with_capacity(turns.len()), BinaryHeap::with_capacity(turns.len()));
        Self { turns, cycle, slot: 0, open, waiting }
    }

    /// Jumps to `slot`, less than a cycle, in a state that picking from slot 0 could have led to.
    ///
    /// Everybody has had what is due by then: the share rounded down. What is left of the `slot` picks is one more
    /// for some of those whose window is open; they must be those with the earliest deadlines, or one could be
    /// missed later. Among equal deadlines, those that `ahead` names come first.
    fn enter(&mut self, slot: u64, ahead: impl Fn(&Turn) -> bool) {
        self.slot = slot;
        let mut rest = slot;
        let mut candidates = Vec::new();
        for (i, turn) in self.turns.iter_mut().enumerate() {
            let share = turn.weight * slot;
            turn.taken = share / self.cycle;
            rest -= turn.taken;
            if !share.is_multiple_of(self.cycle) {
                candidates.push((turn.deadline(self.cycle), !ahead(turn), i));
            }
        }
        candidates.sort_unstable();
        for &(_, _, i) in candidates.iter().take(rest as usize) {
            self.turns[i].taken += 1;
        }
        for i in 0..self.turns.len() as u32 {
            self.queue(i);
        }
    }

    /// Queues a turn's next pick.
    fn queue(&mut self, i: u32) {
        let turn = &self.turns[i as usize];
        let first = turn.taken * self.cycle / turn.weight;
        if first > self.slot {
            self.waiting.push(Reverse((first, i)));
        } else {
            self.open.push(Reverse((turn.deadline(self.cycle), i)));
        }
    }

    /// Fills the slot.
    fn next(&mut self, avoid: impl Fn(usize) -> bool) -> Option<usize> {
        if self.open.is_empty() {
            self.reopen();
        }
        while let Some(&Reverse((first, i))) = self.waiting.peek()
            && first <= self.slot
        {
            self.waiting.pop();
            self.queue(i);
        }
        // Windows that are met leave no slot without an open one; only slots filled out of turn, by `next_but`, do.
        let &Reverse((_, i)) = self.open.peek().or_else(|| self.waiting.peek())?;
        if avoid(self.turns[i as usize].member as usize) {
            return Some(self.next_but(avoid).unwrap_or_else(|| self.take(i)));
        }
        Some(self.take(i))
    }

    /// Does at once what `next` does one by one: at the end of a cycle every window opens in the same slot.
    fn reopen(&mut self) {
        let mut open = std::mem::take(&mut self.open).into_vec();
        let mut waiting = std::mem::take(&mut self.waiting).into_vec();
        waiting.retain(|&Reverse((first, i))| {
            let opens = first <= self.slot;
            if opens {
                open.push(Reverse((self.turns[i as usize].deadline(self.cycle), i)));
            }
            !opens
        });
        (self.open, self.waiting) = (open.into(), waiting.into());
    }

    /// Fills the slot with the first that `avoid` does not name. Its turn is moved forward, and the others keep
    /// theirs, so that shares stay exact over time.
    #[cold]
    fn next_but(&mut self, avoid: impl Fn(usize) -> bool) -> Option<usize> {
        let allowed = |i: u32| !avoid(self.turns[i as usize].member as usize);
        let first = |queue: &BinaryHeap<Reverse<(u64, u32)>>| {
            queue.iter().filter(|Reverse((_, i))| allowed(*i)).map(|Reverse(key)| *key).min()
        };
        let (_, i) = first(&self.open).or_else(|| first(&self.waiting))?;
        Some(self.take(i))
    }

    fn take(&mut self, i: u32) -> usize {
        if matches!(self.open.peek(), Some(&Reverse((_, first))) if first == i) {
            self.open.pop();
        } else {
            self.open.retain(|Reverse((_, other))| *other != i);
            self.waiting.retain(|Reverse((_, other))| *other != i);
        }
        self.turns[i as usize].taken += 1;
        self.slot += 1;
        self.queue(i);
        self.turns[i as usize].member as usize
    }
}

pub(super) fn gcd_of(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd_of(b, a % b) }
}
