//! A bounded table from clients to members that all workers share without a lock.
//!
//! It is set-associative: the hash of a key chooses one bucket of 16 entries, which are scanned. An
//! entry is two words, the hash and the member with the time of last use; what is stored when the bucket is full
//! replaces the entry that was unused for longest. HAProxy's `stick-table size 10k` without `expire` behaves the
//! same over the whole table: nothing ever expires, the oldest makes room.
//!
//! The table has twice the entries of its nominal capacity, so that (by the Poisson distribution) 0.4 % of
//! buckets at most overflow before the capacity is reached. Memory is fixed at [`StickTable::bytes`]: 320 KiB
//! for the default of 10,240.
//!
//! Keys are compared by 64-bit hashes alone: among a full table's, the chance that a given lookup meets a stranger's
//! is 16 in 2^64.

use std::sync::atomic::{AtomicU64, Ordering};

const WAYS: usize = 16;
/// `key` of an entry that is free.
const EMPTY: u64 = 0;
/// `key` of an entry that a worker is about to write.
const CLAIMED: u64 = 1;

/// The hash of what sticks: an address or a cookie's value. See [`super::PersistState::source_key`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct StickKey(u64);

impl StickKey {
    /// The key with this hash.
    pub fn new(hash: u64) -> Self {
        Self(if hash <= CLAIMED { hash + 2 } else { hash })
    }

    /// The hash; [`new`](Self::new) of it is this key.
    pub fn get(self) -> u64 {
        self.0
    }
}

/// What a table knows a member by: stays the same while the member is in its pool, whatever else changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MemberHandle(pub(super) u32);

/// The table. All methods may be called by any thread at any time.
#[derive(Debug)]
pub struct StickTable {
    buckets: Box<[[Entry; WAYS]]>,
}

/// Only [`StickTable::insert`] changes `key`, and only of an entry that it has claimed, which it then fills and
/// publishes without waiting for anybody.
#[derive(Debug)]
struct Entry {
    key: AtomicU64,
    /// The handle in the upper half, the time of last use in the lower.
    value: AtomicU64,
}

impl StickTable {
    /// A table that holds about `capacity` entries before the first is replaced.
    pub fn new(capacity: usize) -> Self {
        let empty = |_| Entry { key: AtomicU64::new(EMPTY), value: AtomicU64::new(0) };
        let buckets = (2 * capacity).div_ceil(WAYS).max(1);
        Self { buckets: (0..buckets).map(|_| std::array::from_fn(empty)).collect() }
    }

    /// The memory that the table takes, whatever is in it.
    pub fn bytes(&self) -> usize {
        size_of_val(&*self.buckets)
    }

    /// The member stored for `key`; the entry counts as used at `now`, in seconds of a clock that all callers
    /// share.
    pub fn lookup(&self, key: StickKey, now: u32) -> Option<MemberHandle> {
        let (entry, value) = self.find(key)?;
        let (handle, used) = unpack(value);
        if used < now {
            // Lost to another worker's write: then that one has set the time, too.
            let _ =
                entry.value.compare_exchange(value, pack(handle, now), Ordering::Relaxed, Ordering::Relaxed);
        }
        Some(handle)
    }

    /// Stores the member for `key`, in place of what was stored for it, or of what was unused for longest.
    ///
    /// When two workers write to one bucket at once, the loser may be dropped, and should the entry be given to
    /// another key in the same instant, that one's client may meet the wrong member of the pool: one session
    /// loses its persistence, nothing else.
    pub fn store(&self, key: StickKey, handle: MemberHandle, now: u32) {
        match self.find(key) {
            Some((_, value)) if unpack(value) == (handle, now) => {}
            Some((entry, value)) => {
                let new = pack(handle, now);
                let _ = entry.value.compare_exchange(value, new, Ordering::AcqRel, Ordering::Relaxed);
            }
            None => self.insert(key, handle, now),
        }
    }

    /// Every entry: key, member, time of last use. What is written meanwhile may be missing.
    pub fn iter(&self) -> impl Iterator<Item = (StickKey, MemberHandle, u32)> {
        self.buckets.iter().flatten().filter_map(|entry| {
            let key = entry.key.load(Ordering::Acquire);
            let (handle, used) = unpack(entry.value.load(Ordering::Acquire));
            let live = key > CLAIMED && entry.key.load(Ordering::Relaxed) == key;
            live.then_some((StickKey(key), handle, used))
        })
    }

    fn bucket(&self, key: StickKey) -> &[Entry; WAYS] {
        let index = (u128::from(key.0) * self.buckets.len() as u128) >> 64;
        &self.buckets[index as usize]
    }

    fn find(&self, key: StickKey) -> Option<(&Entry, u64)> {
        self.bucket(key).iter().find_map(|entry| {
            if entry.key.load(Ordering::Acquire) != key.0 {
                return None;
            }
            let value = entry.value.load(Ordering::Acquire);
            // A writer claims the entry before it changes the value: still ours, so the value is ours.
            (entry.key.load(Ordering::Relaxed) == key.0).then_some((entry, value))
        })
    }

    fn insert(&self, key: StickKey, handle: MemberHandle, now: u32) {
        // More than one round only when others write to this bucket at the same time.
        for _ in 0..4 {
            let age = |entry: &&Entry| match entry.key.load(Ordering::Relaxed) {
                EMPTY => (0, 0),
                CLAIMED => (2, 0),
                _ => (1, unpack(entry.value.load(Ordering::Relaxed)).1),
            };
            let Some(oldest) = self.bucket(key).iter().min_by_key(age) else { return };
            let held = oldest.key.load(Ordering::Relaxed);
            let claim =
                || oldest.key.compare_exchange(held, CLAIMED, Ordering::AcqRel, Ordering::Relaxed).is_ok();
            if held != CLAIMED && claim() {
                oldest.value.store(pack(handle, now), Ordering::Release);
                oldest.key.store(key.0, Ordering::Release);
                return;
            }
        }
    }
}

fn pack(handle: MemberHandle, used: u32) -> u64 {
    u64::from(handle.0) << 32 | u64::from(used)
}

fn unpack(value: u64) -> (MemberHandle, u32) {
    (MemberHandle((value >> 32) as u32), value as u32)
}

#[cfg(test)]
mod tests {
    use std::{collections::HashMap, thread};

    use proptest::prelude::*;

    use super::*;
    use crate::balance::hash::mix;

    fn key(i: u64) -> StickKey {
        StickKey::new(mix(i + 1))
    }

    #[test]
    fn holds_its_capacity_nearly_whole_and_no_more_than_its_memory() {
        let table = StickTable::new(10_240);
        assert_eq!(table.bytes(), 320 * 1024);
        for i in 0..10_240 {
            table.store(key(i), MemberHandle(i as u32), 1);
        }
        let kept = (0..10_240).filter(|&i| table.lookup(key(i), 1) == Some(MemberHandle(i as u32))).count();
        assert!(kept > 10_240 * 999 / 1000, "{kept}");
        for i in 0..200_000 {
            table.store(key(i), MemberHandle(1), 2);
        }
        assert!(table.iter().count() <= 20_480);
    }

    #[test]
    fn the_entry_unused_for_longest_makes_room() {
        let table = StickTable::new(WAYS / 2);
        for i in 0..16 {
            table.store(key(i), MemberHandle(7), 10 + i as u32);
        }
        assert_eq!(table.lookup(key(0), 50), Some(MemberHandle(7)), "used again");
        table.store(key(16), MemberHandle(8), 51);
        assert_eq!(table.lookup(key(1), 52), None);
        assert_eq!(table.lookup(key(0), 52), Some(MemberHandle(7)));
        assert_eq!(table.lookup(key(16), 52), Some(MemberHandle(8)));
    }

    #[test]
    fn the_hashes_that_mark_entries_are_keys_too() {
        let table = StickTable::new(100);
        for hash in [0, 1] {
            table.store(StickKey::new(hash), MemberHandle(5), 0);
            assert_eq!(table.lookup(StickKey::new(hash), 0), Some(MemberHandle(5)));
        }
    }

    #[test]
    fn no_reader_sees_what_nobody_wrote() {
        // Every key's member is a function of the key; a torn entry would show another. 4 threads in 2 buckets.
        let table = StickTable::new(WAYS);
        let member = |i: u64| MemberHandle(i as u32 + 1000);
        thread::scope(|scope| {
            for worker in 0..4u64 {
                let table = &table;
                scope.spawn(move || {
                    for round in 0..50_000u64 {
                        let i = mix(worker << 32 | round) % 64;
                        match table.lookup(key(i), round as u32) {
                            Some(handle) => assert_eq!(handle, member(i)),
                            None => table.store(key(i), member(i), round as u32),
                        }
                    }
                });
            }
        });
        assert!(table.iter().count() <= 2 * WAYS);
        assert!(table.iter().all(|(_, handle, _)| (1000..1064).contains(&handle.0)));
    }

    proptest! {
        #[test]
        fn is_a_map_while_nothing_overflows(ops in prop::collection::vec((0u64..40, 1u32..9), 0..200)) {
            let table = StickTable::new(1000);
            let mut model = HashMap::new();
            for (now, (i, handle)) in ops.into_iter().enumerate() {
                table.store(key(i), MemberHandle(handle), now as u32);
                model.insert(i, MemberHandle(handle));
            }
            for i in 0..40 {
                prop_assert_eq!(table.lookup(key(i), 999), model.get(&i).copied());
            }
            prop_assert_eq!(table.iter().count(), model.len());
        }
    }
}
