//! What was counted of whom: a table of a constant size that all workers write at once, without locks.
//!
//! Keys are chosen by attackers. So the table is never larger, and a key's places in it are by a hash under a secret: 16, in two
//! sets. Who finds none of them free takes that of the lightest: of the one who has used the least part of its threshold.
//! Somebody who was forgotten begins again from nothing. Whatever is done to the table, nobody is ever counted more than
//! has come of him.
//!
//! A count has the moment with it at which it counts for nothing any more, and that is how it is known which period it is of:
//! nothing has to be cleared when a period ends. Mixed into the moment is whose count it is, so that what a worker adds for
//! somebody whose place another worker gives away just then is not taken for the new owner's.

use std::sync::atomic::{AtomicU64, Ordering};

use super::moment::{Count, Moment, Period};

/// Places of a set.
const WAYS: usize = 8;

/// Sets of a table, a power of two.
const SETS: usize = 1 << 14;

/// A place that somebody takes just now.
const BUSY: u64 = 1;

/// Bits of a tag that say what is counted, and not whose.
const KIND_BITS: u32 = 6;

/// How often a place is looked for when others take those that were found.
const TRIES: usize = 4;

/// Whose count it is, and of what.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    tag: u64,
    sets: [usize; 2],
}

/// How the words of a place are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Counts of two periods, of a threshold.
    Count {
        /// `threshold`, at least 1.
        threshold: u32,
    },
    /// When the next has its turn.
    Turn {
        /// `interval`, in seconds, at least 1.
        interval: u32,
    },
}

impl Key {
    /// Whether a place with this tag is its owner's. The threshold is no part of it: it may change.
    #[inline]
    fn has(self, tag: u64) -> bool {
        (tag ^ self.tag) >> (KIND_BITS - 1) == 0
    }

    /// What a count of this owner has with it that is good until then.
    #[inline]
    fn stamp(self, expiry: u32) -> u32 {
        stamp(self.tag, expiry)
    }
}

/// The owner's part of a stamp, or by it the expiry of one.
#[inline]
fn stamp(tag: u64, expiry: u32) -> u32 {
    (tag >> 32) as u32 ^ expiry
}

impl Kind {
    fn bits(self) -> u64 {
        match self {
            Self::Count { threshold } => u64::from(threshold.max(1).ilog2()),
            Self::Turn { interval } => 1 << (KIND_BITS - 1) | u64::from(interval.max(1).ilog2()),
        }
    }
}

/// One set. What is looked for lies in one line of the cache, what was counted beside it.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Set {
    tags: [AtomicU64; WAYS],
    words: [[AtomicU64; 2]; WAYS],
}

/// The table.
#[derive(Debug)]
pub(super) struct Table {
    sets: Box<[Set]>,
    /// How often somebody was forgotten who still counted.
    forgotten: AtomicU64,
}

/// From when on the next has its turn if one is taken now, and what is said to who asks for it.
#[inline]
fn turn_after(next: u64, now: Moment, each: u64, ahead: u64, patience: u64) -> (u64, Turn) {
    let after = next.max(now.0).saturating_add(each);
    let wait = Moment((after - now.0).saturating_sub(ahead.max(each)));
    (after, if wait.0 > patience { Turn::TooLate(wait) } else { Turn::After(wait) })
}

/// A place, and how much of its threshold its owner has used.
struct Found<'a> {
    weight: u64,
    set: &'a Set,
    way: usize,
    tag: u64,
}

/// How a turn was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// It comes after so long: zero is at once.
    After(Moment),
    /// It would come later than may be waited for, after so long.
    TooLate(Moment),
}

impl Table {
    /// Bytes that a table takes.
    pub(super) const BYTES: usize = SETS * size_of::<Set>();

    /// How many have a place.
    pub(super) const PLACES: usize = SETS * WAYS;

    pub(super) fn new() -> Self {
        Self::with_sets(SETS)
    }

    /// A power of two of sets.
    pub(super) fn with_sets(sets: usize) -> Self {
        Self { sets: (0..sets).map(|_| Set::default()).collect(), forgotten: AtomicU64::new(0) }
    }

    /// The key of a hash that nobody can foresee.
    #[inline]
    pub(super) fn key(&self, hash: u64, kind: Kind) -> Key {
        let mask = self.sets.len() - 1;
        // No place without somebody, and none that is taken just now, looks like it.
        let id = (hash >> KIND_BITS).max(1) << KIND_BITS;
        let first = (hash >> 40) as usize & mask;
        let second = (hash >> 16) as usize & mask;
        let second = if first == second { (second + 1) & mask } else { second };
        Key { tag: id | kind.bits(), sets: [first, second] }
    }

    /// Counts `n` more, and says what was counted with it.
    #[inline]
    pub(super) fn add(&self, key: Key, n: u32, now: Moment, period: Period) -> Count {
        let mut count = Count { now: n, before: 0 };
        for _ in 0..TRIES {
            let Some((set, way)) = self.find(key).or_else(|| self.take(key, now)) else { break };
            let words = &set.words[way];
            let place = period.place();
            count.now =
                add(&words[place], key.stamp(period.expiry()), key.stamp(period.expiry_after_next()), n);
            count.before = counted(&words[1 - place], key.stamp(period.expiry_before()));
            // The place may have been given away meanwhile.
            let stamp = key.stamp(period.expiry());
            if key.has(set.tags[way].load(Ordering::Acquire)) || !take_back(&words[place], stamp, n) {
                break;
            }
        }
        count
    }

    /// What was counted so far.
    #[inline]
    pub(super) fn get(&self, key: Key, period: Period) -> Count {
        let Some((set, way)) = self.find(key) else { return Count::default() };
        let place = period.place();
        Count {
            now: counted(&set.words[way][place], key.stamp(period.expiry())),
            before: counted(&set.words[way][1 - place], key.stamp(period.expiry_before())),
        }
    }

    /// Asks for a turn, `each` after the one before, but that turns are taken at once while no more than `ahead` of them has gathered.
    /// It is not taken if it comes later than `patience`.
    pub(super) fn turn(&self, key: Key, now: Moment, each: u64, ahead: u64, patience: u64) -> Turn {
        let Some((set, way)) = self.find(key).or_else(|| self.take(key, now)) else {
            return Turn::After(Moment(0));
        };
        let word = &set.words[way][0];
        let mut next = word.load(Ordering::Relaxed);
        loop {
            let (after, turn) = turn_after(next, now, each, ahead, patience);
            if matches!(turn, Turn::TooLate(_)) {
                return turn;
            }
            match word.compare_exchange_weak(next, after, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => {
                    if !key.has(set.tags[way].load(Ordering::Acquire)) {
                        // Somebody else's by now, who has no turn to lose by it.
                        word.compare_exchange(after, next, Ordering::Relaxed, Ordering::Relaxed).ok();
                    }
                    return turn;
                }
                Err(other) => next = other,
            }
        }
    }

    /// What would be said to who asked for a [turn](Self::turn), and how much of them has gathered; none is taken.
    pub(super) fn look(&self, key: Key, now: Moment, each: u64, ahead: u64, patience: u64) -> (u64, Turn) {
        let next = self.find(key).map_or(0, |(set, way)| set.words[way][0].load(Ordering::Relaxed));
        let (_, turn) = turn_after(next, now, each, ahead, patience);
        (next.saturating_sub(now.0), turn)
    }

    /// Takes back the last turn, which was `each` after the one before, if all those are still there that were asked for: nobody can have
    /// one before `at_least`.
    pub(super) fn give_back(&self, key: Key, each: u64, at_least: u64) {
        let Some((set, way)) = self.find(key) else { return };
        let word = &set.words[way][0];
        let less = |next: u64| (next >= at_least).then(|| next.saturating_sub(each));
        if word.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_ok()
            && !key.has(set.tags[way].load(Ordering::Acquire))
        {
            // Somebody else's by now.
            word.fetch_add(each, Ordering::Relaxed);
        }
    }

    /// How many places are in use, whether or not what is in them still counts.
    pub(super) fn used(&self) -> usize {
        let is_used = |tag: &&AtomicU64| tag.load(Ordering::Relaxed) > BUSY;
        self.sets.iter().map(|set| set.tags.iter().filter(is_used).count()).sum()
    }

    /// How often somebody was forgotten who still counted.
    pub(super) fn forgotten(&self) -> u64 {
        self.forgotten.load(Ordering::Relaxed)
    }

    #[inline]
    fn find(&self, key: Key) -> Option<(&Set, usize)> {
        key.sets.iter().find_map(|set| {
            let set = &self.sets[*set];
            set.tags.iter().position(|tag| key.has(tag.load(Ordering::Acquire))).map(|way| (set, way))
        })
    }

    /// Takes a place for somebody who has none.
    #[cold]
    fn take(&self, key: Key, now: Moment) -> Option<(&Set, usize)> {
        for _ in 0..TRIES {
            let Found { weight, set, way, tag: before } = self.lightest(key, now)?;
            let (tag, words) = (&set.tags[way], &set.words[way]);
            if tag.compare_exchange(before, BUSY, Ordering::SeqCst, Ordering::Relaxed).is_err() {
                continue;
            }
            words.iter().for_each(|word| word.store(0, Ordering::Relaxed));
            tag.store(key.tag, Ordering::SeqCst);
            if weight > 0 {
                self.forgotten.fetch_add(1, Ordering::Relaxed);
            }
            return Some(self.without_twin(key, set, way));
        }
        None
    }

    /// The place whose owner has used the least, with that; of those that count for nothing, one in the set that has more of them.
    fn lightest(&self, key: Key, now: Moment) -> Option<Found<'_>> {
        let mut best: Option<(usize, Found<'_>)> = None;
        for set in key.sets.iter().map(|set| &self.sets[*set]) {
            let mut free = 0;
            let mut least: Option<Found<'_>> = None;
            for (way, tag) in set.tags.iter().enumerate() {
                let tag = tag.load(Ordering::Relaxed);
                let weight = match tag {
                    BUSY => continue,
                    0 => 0,
                    tag => weight(tag, &set.words[way], now),
                };
                free += usize::from(weight == 0);
                if least.as_ref().is_none_or(|least| weight < least.weight) {
                    least = Some(Found { weight, set, way, tag });
                }
            }
            let Some(least) = least else { continue };
            let is_better = |(other_free, other): &(usize, Found<'_>)| {
                free > *other_free || free == 0 && *other_free == 0 && least.weight < other.weight
            };
            if best.as_ref().is_none_or(is_better) {
                best = Some((free, least));
            }
        }
        best.map(|(_, least)| least)
    }

    /// Two workers may have taken a place each for the same. The one that is found first stays, and has what the other has.
    fn without_twin<'a>(&'a self, key: Key, set: &'a Set, way: usize) -> (&'a Set, usize) {
        let places = key.sets.iter().flat_map(|set| (0..WAYS).map(|way| (&self.sets[*set], way)));
        let mut twins = places.filter(|(set, way)| key.has(set.tags[*way].load(Ordering::SeqCst)));
        let Some((stays, stays_way)) = twins.next() else { return (set, way) };
        for (twin, twin_way) in twins {
            let tag = &twin.tags[twin_way];
            let there = tag.load(Ordering::SeqCst);
            let taken = key.has(there)
                && tag.compare_exchange(there, BUSY, Ordering::SeqCst, Ordering::Relaxed).is_ok();
            if !taken {
                continue;
            }
            for (from, to) in twin.words[twin_way].iter().zip(&stays.words[stays_way]) {
                let word = from.swap(0, Ordering::Relaxed);
                if word != 0 {
                    // It is as new as what the other may have.
                    add(to, (word >> 32) as u32, u32::MAX, word as u32);
                }
            }
            tag.store(0, Ordering::SeqCst);
        }
        (stays, stays_way)
    }
}

/// How much of its threshold the owner of a place has used, in 256th parts; 0 if nothing counts any more.
fn weight(tag: u64, words: &[AtomicU64; 2], now: Moment) -> u64 {
    let bits = tag & ((1 << KIND_BITS) - 1);
    let shift = bits & !(1 << (KIND_BITS - 1));
    let [first, second] = [0, 1].map(|at: usize| words[at].load(Ordering::Relaxed));
    if bits != shift {
        return first.saturating_sub(now.0) >> (24 + shift);
    }
    let is_good = |word: u64| word != 0 && stamp(tag, (word >> 32) as u32) > now.seconds();
    let count = |word: u64| if is_good(word) { u64::from(word as u32) } else { 0 };
    let count = count(first) + count(second);
    // Whoever still counts is not as good as nobody.
    ((count << 8) >> shift).max(u64::from(count > 0))
}

/// What a word counts under this stamp.
#[inline]
fn counted(word: &AtomicU64, stamp: u32) -> u32 {
    let word = word.load(Ordering::Relaxed);
    if (word >> 32) as u32 == stamp { word as u32 } else { 0 }
}

/// Adds to what a word counts under this stamp; says what that is with it. Others may have `later` there already.
#[inline]
fn add(word: &AtomicU64, stamp: u32, later: u32, n: u32) -> u32 {
    let mut before = word.load(Ordering::Relaxed);
    loop {
        let there = (before >> 32) as u32;
        let count = if there == stamp {
            (before as u32).saturating_add(n)
        } else if there == later {
            return n;
        } else {
            n
        };
        let after = u64::from(stamp) << 32 | u64::from(count);
        match word.compare_exchange_weak(before, after, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => return count,
            Err(other) => before = other,
        }
    }
}

/// Takes back what was added; whether it was still there.
#[cold]
fn take_back(word: &AtomicU64, stamp: u32, n: u32) -> bool {
    let less = |word: u64| ((word >> 32) as u32 == stamp && word as u32 >= n).then(|| word - u64::from(n));
    word.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::{thread, time::Duration};

    use super::*;

    const COUNT: Kind = Kind::Count { threshold: 100 };

    fn at(millis: u64) -> Moment {
        Moment::after(Duration::from_millis(millis))
    }

    fn spread(number: u64) -> u64 {
        let mixed = (number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (mixed ^ mixed >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9)
    }

    #[test]
    fn it_is_as_large_as_the_manual_says() {
        assert_eq!((Table::BYTES, Table::PLACES), (3 << 20, 131_072));
        let manual = include_str!("../../../../docs/limits.md");
        assert!(manual.contains("3 MiB") && manual.contains("131,072"));
    }

    /// From two threads nothing is lost and nothing is counted twice, though both are the first to count.
    #[test]
    fn two_at_once_count_what_one_would() {
        for round in 0..200 {
            let table = Table::with_sets(2);
            let key = table.key(spread(round), COUNT);
            let (now, period) = (at(1000), Period::of(at(1000), 10));
            thread::scope(|scope| {
                for _ in 0..2 {
                    scope.spawn(|| {
                        (0..100).for_each(|_| {
                            table.add(key, 1, now, period);
                        })
                    });
                }
            });
            assert_eq!((table.get(key, period), table.used()), (Count { now: 200, before: 0 }, 1), "{round}");
        }
    }

    /// While many fight for few places, from two threads, nobody has more than came of him.
    #[test]
    fn nobody_has_more_than_came_of_him() {
        let table = Table::with_sets(2);
        let (now, period) = (at(1000), Period::of(at(1000), 10));
        thread::scope(|scope| {
            for worker in 0..2 {
                let table = &table;
                scope.spawn(move || {
                    for turn in 0..20_000u64 {
                        let who = turn % 64;
                        let key = table.key(spread(who * 2 + worker), COUNT);
                        let sent = turn / 64 + 1;
                        let count = table.add(key, 1, now, period).now;
                        assert!(u64::from(count) <= sent, "{who} has sent {sent} and is told {count}");
                    }
                });
            }
        });
        assert!(table.used() <= 16 && table.forgotten() > 0);
    }

    #[test]
    fn the_lightest_goes_and_who_counts_no_more_before_him() {
        let table = Table::with_sets(2);
        let period = Period::of(at(1000), 10);
        let keys: Vec<Key> = (0..16).map(|n| table.key(spread(n), COUNT)).collect();
        for (n, key) in keys.iter().enumerate() {
            table.add(*key, 10 + n as u32, at(1000), period);
        }
        let other = table.key(spread(99), COUNT);
        table.add(other, 50, at(1000), period);
        assert_eq!((table.get(keys[0], period).now, table.forgotten()), (0, 1));
        assert_eq!(table.get(keys[15], period).now, 25);
        // Two periods on, nobody is in the way.
        let later = Period::of(at(21_000), 10);
        table.add(keys[0], 1, at(21_000), later);
        assert_eq!((table.get(keys[0], later), table.forgotten()), (Count { now: 1, before: 0 }, 1));
    }

    #[test]
    fn turns_come_one_after_the_other_behind_what_may_gather() {
        let table = Table::new();
        let key = table.key(spread(1), Kind::Turn { interval: 10 });
        let second = 1 << 32;
        let wait = |now| match table.turn(key, at(now), second, 10 * second, 5 * second) {
            Turn::After(wait) => Some(wait.span().as_secs_f64()),
            Turn::TooLate(_) => None,
        };
        let first: Vec<_> = (0..10).map(|_| wait(1000).unwrap()).collect();
        assert_eq!(first, vec![0.0; 10]);
        let next: Vec<_> = (0..7).map(|_| wait(1000)).collect();
        assert_eq!(next, [Some(1.0), Some(2.0), Some(3.0), Some(4.0), Some(5.0), None, None]);
        // Who was turned away has taken no turn.
        assert_eq!(wait(2000), Some(5.0));
        assert_eq!(wait(100_000), Some(0.0));
    }
}
