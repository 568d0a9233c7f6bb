//! Who waits for a turn, one behind the other.
//!
//! A turn is reserved in the [table](super::table) when somebody comes, each so long after the one before. So the last turn of a line is
//! always the last of its client's in the table. Who leaves gives it back: those behind move up by one, and what nobody has any more goes
//! back to the table, for who comes next. That is as if he had never come: turns are where they would have been, since his own was
//! still to come.
//!
//! The first of a line looks when its turn comes, and lets pass whoever else has one by then. The others look no later than when the
//! turn comes that they were promised, and are woken when they have become the first and have an earlier one.

#![expect(clippy::disallowed_types, reason = "held for a few steps, by those alone who wait or begin to")]

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Mutex, MutexGuard, PoisonError},
    task::Waker,
};

use super::{
    moment::Moment,
    table::{Key, Table, Turn},
};

/// The lines of a policy, one for each client that has somebody waiting.
#[derive(Debug, Default)]
pub(super) struct Lines(Mutex<All>);

#[derive(Debug, Default)]
struct All {
    /// The number of the next who comes: nobody else has had it, in whatever line.
    next: u64,
    lines: HashMap<Key, Line>,
}

/// A line. Moments and spans are as those of the table.
#[derive(Debug, Default)]
struct Line {
    /// The turn before that of the first.
    floor: u64,
    /// The last turn.
    last: u64,
    /// In their order.
    waiters: BTreeMap<u64, Waiter>,
    /// They wait no more.
    released: bool,
}

/// One who waits.
#[derive(Debug)]
struct Waiter {
    /// How long after the turn before its own is.
    each: u64,
    /// When it looks by itself.
    looks: u64,
    waker: Option<Waker>,
}

/// How somebody was lined up.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Entered {
    /// It is its turn.
    AtOnce,
    /// It has this number, and its turn comes after so long at the latest.
    Waits(u64, Moment),
    /// It would come later than may be waited for, after so long.
    TooLate(Moment),
}

impl Lines {
    /// Lines somebody up: see [`Table::turn`].
    pub(super) fn enter(
        &self,
        table: &Table,
        key: Key,
        now: Moment,
        each: u64,
        ahead: u64,
        patience: u64,
    ) -> Entered {
        let mut woken = Vec::new();
        let entered = {
            let mut all = self.lock();
            let wait = match table.turn(key, now, each, ahead, patience) {
                Turn::After(Moment(0)) => return Entered::AtOnce,
                Turn::After(wait) => wait,
                Turn::TooLate(wait) => return Entered::TooLate(wait),
            };
            let number = all.next;
            all.next += 1;
            let line = all.lines.entry(key).or_default();
            // Those whose turn has come have no part in what is reserved from now on, whenever they look.
            line.pass(now, &mut woken);
            if line.waiters.is_empty() {
                // The one before may be from before the clock began.
                line.floor = (now.0 + wait.0).wrapping_sub(each);
                line.last = line.floor;
            }
            line.last = line.last.wrapping_add(each);
            line.waiters.insert(number, Waiter { each, looks: line.last, waker: None });
            Entered::Waits(number, Moment(line.last.saturating_sub(now.0)))
        };
        woken.into_iter().for_each(Waker::wake);
        entered
    }

    /// When it is to be asked again; `None`: the turn of who has this number has come. Who asks is woken when that is to be earlier.
    pub(super) fn look(&self, key: Key, number: u64, now: Moment, waker: &Waker) -> Option<Moment> {
        let mut woken = Vec::new();
        // A waker may take what it wakes along, which may be in a line itself: none is dropped under the lock.
        let mut former = None;
        let looks = {
            let lines = &mut self.lock().lines;
            let line = lines.get_mut(&key).filter(|line| !line.released)?;
            line.pass(now, &mut woken);
            let first = line.first();
            let looks = line.waiters.get_mut(&number).map(|waiter| {
                if let Some((_, turn)) = first.filter(|(first, _)| *first == number) {
                    waiter.looks = turn;
                }
                if waiter.waker.as_ref().is_none_or(|known| !known.will_wake(waker)) {
                    former = waiter.waker.replace(waker.clone());
                }
                Moment(waiter.looks)
            });
            if line.waiters.is_empty() {
                lines.remove(&key);
            }
            looks
        };
        drop(former);
        woken.into_iter().for_each(Waker::wake);
        looks
    }

    /// Who has this number leaves, if its turn has not come.
    pub(super) fn leave(&self, table: &Table, key: Key, number: u64, ahead: u64) {
        let mut woken = Vec::new();
        let former;
        {
            let lines = &mut self.lock().lines;
            let Some(line) = lines.get_mut(&key) else { return };
            let Some(Waiter { each, waker, .. }) = line.waiters.remove(&number) else { return };
            former = waker;
            table.give_back(key, each, line.last.saturating_add(ahead));
            line.last = line.last.wrapping_sub(each);
            line.rouse(&mut woken);
            if line.waiters.is_empty() {
                lines.remove(&key);
            }
        }
        drop(former);
        woken.into_iter().for_each(Waker::wake);
    }

    /// Nobody has to wait any more who waits now; each gives back its turn as who leaves does.
    pub(super) fn release(&self) {
        let mut woken = Vec::new();
        for line in self.lock().lines.values_mut() {
            line.released = true;
            woken.extend(line.waiters.values_mut().filter_map(|waiter| waiter.waker.take()));
        }
        woken.into_iter().for_each(Waker::wake);
    }

    fn lock(&self) -> MutexGuard<'_, All> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Line {
    /// The first, and its turn.
    fn first(&self) -> Option<(u64, u64)> {
        let (number, waiter) = self.waiters.first_key_value()?;
        Some((*number, self.floor.wrapping_add(waiter.each)))
    }

    /// Lets pass whose turn has come.
    fn pass(&mut self, now: Moment, woken: &mut Vec<Waker>) {
        while let Some((number, turn)) = self.first().filter(|(_, turn)| *turn <= now.0) {
            self.floor = turn;
            woken.extend(self.waiters.remove(&number).and_then(|waiter| waiter.waker));
        }
        self.rouse(woken);
    }

    /// Wakes the first if it would look too late.
    fn rouse(&mut self, woken: &mut Vec<Waker>) {
        let Some((_, turn)) = self.first() else { return };
        if let Some(mut first) = self.waiters.first_entry()
            && turn < first.get().looks
        {
            first.get_mut().looks = turn;
            woken.extend(first.get_mut().waker.take());
        }
    }
}
