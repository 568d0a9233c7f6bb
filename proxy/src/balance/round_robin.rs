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

use amphora_model::MemberId;

use super::{Balancer, Flow, MembersView, eligible::Eligible, hash::mix};

/// From so many members on, all of which may be waiting for one slot, they are queued at once.
const MANY: usize = 64;

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
        // At the end of a cycle only the pick that has ended it is queued already.
        if self.open.len() <= 1 && self.waiting.len() >= MANY {
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

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn schedule(weights: impl IntoIterator<Item = u64>) -> Schedule {
        let turn = |(member, weight)| Turn { id: MemberId(Uuid::nil()), member, weight, taken: 0 };
        let mut schedule = Schedule::new((0..).zip(weights).map(turn).collect());
        schedule.enter(0, |_| false);
        schedule
    }

    #[test]
    fn windows_that_open_in_the_same_slot_are_queued_at_once() {
        let mut schedule = schedule([1; 100]);
        (0..100).for_each(|i| assert_eq!(schedule.next(|_| false), Some(i)));
        assert_eq!((schedule.open.len(), schedule.waiting.len()), (1, 99));
        schedule.reopen();
        assert_eq!((schedule.open.len(), schedule.waiting.len()), (100, 0));
        (0..100).for_each(|i| assert_eq!(schedule.next(|_| false), Some(i)));
    }

    #[test]
    fn those_whose_window_is_to_come_stay_where_they_are() {
        // Of 12 slots the first has windows of 4, the others of 6: after 3 slots none of those that were filled is open.
        let mut schedule = schedule([3, 2, 2, 2, 2, 1]);
        (0..3).for_each(|i| assert_eq!(schedule.next(|_| false), Some(i)));
        let waiting: Vec<_> = schedule.waiting.clone().into_sorted_vec();
        assert_eq!(waiting, [(6, 2), (6, 1), (4, 0)].map(Reverse));
        schedule.reopen();
        assert_eq!(schedule.waiting.clone().into_sorted_vec(), waiting);
        schedule.slot = 4;
        schedule.reopen();
        assert_eq!(schedule.waiting.clone().into_sorted_vec(), [(6, 2), (6, 1)].map(Reverse));
        let open: Vec<_> = schedule.open.into_sorted_vec();
        assert_eq!(open, [(12, 5), (8, 0), (6, 4), (6, 3)].map(Reverse));
    }

    #[test]
    fn many_members_have_the_turns_that_few_would_have() {
        // A pool of all weights three times over, and its picks written out by whoever has the earliest deadline.
        let weights: Vec<u64> = (0..3 * MANY as u64).map(|i| 1 + i % 5).collect();
        let cycle: u64 = weights.iter().sum();
        let mut taken = vec![0u64; weights.len()];
        let mut schedule = schedule(weights.clone());
        for slot in 0..3 * cycle {
            let open = (0..weights.len()).filter(|i| taken[*i] * cycle / weights[*i] <= slot);
            let first = open.min_by_key(|i| (((taken[*i] + 1) * cycle).div_ceil(weights[*i]), *i));
            assert_eq!(schedule.next(|_| false), first, "{slot}");
            first.into_iter().for_each(|i| taken[i] += 1);
        }
    }
}
