//! A bounded table from clients to members that all workers share without a lock.
//!
//! It is set-associative: the hash of a key chooses one bucket of 16 entries, which are scanned. An
//! entry is two words, the hash and the member with the time of last use; what is stored when the bucket is full
//! replaces the entry that was unused for longest. HAProxy's `stick-table size 10k` without `expire` behaves the
//! same over the whole table: nothing ever expires, the oldest makes room.
//!
//! Who replicates the table ([`crate::peers`]) has every change marked: a bit per entry, set by the worker that wrote it
//! and taken by the control thread. However much is written between two looks, the marks take no more memory and
//! none is lost; a table that nobody replicates has none, and pays a branch where an entry is written.
//!
//! The table has twice the entries of its nominal capacity, so that (by the Poisson distribution) 0.4 % of
//! buckets at most overflow before the capacity is reached. Memory is fixed at [`StickTable::bytes`]: 320 KiB
//! for the default of 10,240.
//!
//! Keys are compared by 64-bit hashes alone: among a full table's, the chance that a given lookup meets a stranger's
//! is 16 in 2^64.

use std::sync::{
    OnceLock,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

const WAYS: usize = 16;
/// `key` of an entry that is free.
const EMPTY: u64 = 0;
/// `key` of an entry that a worker is about to write.
const CLAIMED: u64 = 1;
/// Entries per word of marks.
const MARKS: usize = u64::BITS as usize;

/// An entry that is used all the time is marked once in so many seconds.
const REFRESH: u32 = 64;

/// Times of last use that differ by no more than this many seconds are the same to [`StickTable::merge`]: an entry must not
/// grow younger by being told back and forth. Over one connection a time is wrong by less than 2 s
/// ([`crate::peers::core`]), there and back over two by less than 4.
const SLACK: u32 = 3;

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
    /// A bit per entry, by its place. A mark is set after what it speaks of was written, and taken before that is
    /// read.
    marks: OnceLock<Box<[AtomicU64]>>,
    /// There is a peer that is told what is marked.
    told: AtomicBool,
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
        let buckets = (0..buckets).map(|_| std::array::from_fn(empty)).collect();
        Self { buckets, marks: OnceLock::new(), told: AtomicBool::new(false) }
    }

    /// The memory that the table takes, whatever is in it.
    pub fn bytes(&self) -> usize {
        size_of_val(&*self.buckets) + self.marks.get().map_or(0, |marks| size_of_val(&**marks))
    }

    /// The member stored for `key`; the entry counts as used at `now`, in seconds of a clock that all callers
    /// share.
    pub fn lookup(&self, key: StickKey, now: u32) -> Option<MemberHandle> {
        let (place, value) = self.find(key)?;
        let (handle, used) = unpack(value);
        if used < now {
            let new = pack(handle, now);
            // Lost to another worker's write: then that one has set the time, too.
            let entry = self.entry(place);
            if entry.value.compare_exchange(value, new, Ordering::Relaxed, Ordering::Relaxed).is_ok()
                && refreshes(key, used, now)
            {
                self.mark(place);
            }
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
            Some((place, value)) => {
                let new = pack(handle, now);
                let entry = self.entry(place);
                let (held, used) = unpack(value);
                if entry.value.compare_exchange(value, new, Ordering::AcqRel, Ordering::Relaxed).is_ok()
                    && (held != handle || refreshes(key, used, now))
                {
                    self.mark(place);
                }
            }
            None => {
                if let Some(place) = self.insert(key, handle, now, |_, _| true) {
                    self.mark(place);
                }
            }
        }
    }

    /// Stores a use that was found out afterwards, unless a later one is known. It is marked in any case, for who asks seldom.
    pub fn renew(&self, key: StickKey, handle: MemberHandle, used: u32) {
        let place = match self.find(key) {
            Some((_, value)) if unpack(value).1 > used => return,
            Some((place, value)) => {
                let entry = self.entry(place);
                // Lost to another's write: that one is as new.
                let _ = entry.value.compare_exchange(
                    value,
                    pack(handle, used),
                    Ordering::AcqRel,
                    Ordering::Relaxed,
                );
                place
            }
            None => match self.insert(key, handle, used, |_, _| true) {
                Some(place) => place,
                None => return,
            },
        };
        self.mark(place);
    }

    /// Whether there is a peer that is told what is marked.
    pub fn is_told(&self) -> bool {
        self.told.load(Ordering::Relaxed)
    }

    /// Nobody is told any more, until everything is [marked](Self::mark_all) again.
    pub fn end_telling(&self) {
        self.told.store(false, Ordering::Relaxed);
    }

    /// Stores what another table has, unless this one knows of a later use; true when it was stored. At the same time
    /// of use `wins` decides, told the member that is held here. In a full bucket it takes the place of what was
    /// unused for longer. It is not marked: whoever it came from has it.
    pub fn merge(
        &self,
        key: StickKey,
        handle: MemberHandle,
        used: u32,
        wins: impl Fn(MemberHandle) -> bool,
    ) -> bool {
        // More than one round only when workers use the entry at the same time.
        for _ in 0..4 {
            let Some((place, value)) = self.find(key) else {
                return self.insert(key, handle, used, |held, at| (at, held) < (used, key.0)).is_some();
            };
            let entry = self.entry(place);
            let (held, at) = unpack(value);
            let known = held == handle && used <= at.saturating_add(SLACK);
            if !known && (used < at || used == at && !wins(held)) {
                // Of another member, then: a peer that says so cannot have heard of the later use.
                self.mark(place);
                return false;
            }
            if known && used.saturating_add(SLACK) < at {
                return false;
            }
            // Taken or known, there is nothing left to tell; but what a worker has written meanwhile is marked again.
            self.unmark(place);
            if known {
                if self.read(entry) != Some((key, value)) {
                    self.mark(place);
                }
                return false;
            }
            let new = pack(handle, used);
            if entry.value.compare_exchange(value, new, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
                return true;
            }
            self.mark(place);
        }
        false
    }

    /// Marks every entry, and every change from now on.
    pub fn mark_all(&self) {
        let words = (self.buckets.len() * WAYS).div_ceil(MARKS);
        self.marks.get_or_init(|| (0..words).map(|_| AtomicU64::new(0)).collect());
        self.told.store(true, Ordering::Relaxed);
        for (place, entry) in self.buckets.iter().flatten().enumerate() {
            if entry.key.load(Ordering::Relaxed) != EMPTY {
                self.mark(place);
            }
        }
    }

    /// Takes the marks of at most `limit` entries from `place` on, and hands over what they stand on. Where to go on;
    /// `None` at the end. What a worker is about to write is not handed over: it marks that afterwards.
    pub fn take_marked(
        &self,
        place: usize,
        limit: usize,
        mut each: impl FnMut(StickKey, MemberHandle, u32),
    ) -> Option<usize> {
        let marks = self.marks.get()?;
        let mut room = limit;
        for (index, word) in marks.iter().enumerate().skip(place / MARKS) {
            let mut left = word.load(Ordering::Relaxed);
            if index == place / MARKS {
                left &= u64::MAX << (place % MARKS);
            }
            while left != 0 {
                let bit = left.trailing_zeros() as usize;
                if room == 0 {
                    return Some(index * MARKS + bit);
                }
                room -= 1;
                left &= left - 1;
                word.fetch_and(!(1 << bit), Ordering::AcqRel);
                let place = index * MARKS + bit;
                if let Some((key, value)) = self.read(self.entry(place)) {
                    let (handle, used) = unpack(value);
                    each(key, handle, used);
                }
            }
        }
        None
    }

    fn mark(&self, place: usize) {
        if let Some(marks) = self.marks.get() {
            marks[place / MARKS].fetch_or(1 << (place % MARKS), Ordering::AcqRel);
        }
    }

    fn unmark(&self, place: usize) {
        if let Some(marks) = self.marks.get() {
            marks[place / MARKS].fetch_and(!(1 << (place % MARKS)), Ordering::AcqRel);
        }
    }

    /// Every entry: key, member, time of last use. What is written meanwhile may be missing.
    pub fn iter(&self) -> impl Iterator<Item = (StickKey, MemberHandle, u32)> {
        self.buckets.iter().flatten().filter_map(|entry| {
            let (key, value) = self.read(entry)?;
            let (handle, used) = unpack(value);
            Some((key, handle, used))
        })
    }

    fn read(&self, entry: &Entry) -> Option<(StickKey, u64)> {
        let key = entry.key.load(Ordering::Acquire);
        let value = entry.value.load(Ordering::Acquire);
        let live = key > CLAIMED && entry.key.load(Ordering::Relaxed) == key;
        live.then_some((StickKey(key), value))
    }

    fn entry(&self, place: usize) -> &Entry {
        &self.buckets[place / WAYS][place % WAYS]
    }

    /// The places of a key's bucket.
    fn bucket(&self, key: StickKey) -> std::ops::Range<usize> {
        let first = ((u128::from(key.0) * self.buckets.len() as u128) >> 64) as usize * WAYS;
        first..first + WAYS
    }

    fn find(&self, key: StickKey) -> Option<(usize, u64)> {
        let places = self.bucket(key);
        let bucket = &self.buckets[places.start / WAYS];
        places.zip(bucket).find_map(|(place, entry)| {
            if entry.key.load(Ordering::Acquire) != key.0 {
                return None;
            }
            let value = entry.value.load(Ordering::Acquire);
            // A writer claims the entry before it changes the value: still ours, so the value is ours.
            (entry.key.load(Ordering::Relaxed) == key.0).then_some((place, value))
        })
    }

    /// Where it was put: in a free entry, or in place of the one unused for longest if it `may` be replaced, told its key
    /// and time.
    fn insert(
        &self,
        key: StickKey,
        handle: MemberHandle,
        now: u32,
        may: impl Fn(u64, u32) -> bool,
    ) -> Option<usize> {
        // More than one round only when others write to this bucket at the same time.
        for _ in 0..4 {
            let age = |place: &usize| match self.entry(*place).key.load(Ordering::Relaxed) {
                EMPTY => (0, 0, 0),
                CLAIMED => (2, 0, 0),
                key => (1, unpack(self.entry(*place).value.load(Ordering::Relaxed)).1, key),
            };
            let place = self.bucket(key).min_by_key(age)?;
            let oldest = self.entry(place);
            let held = oldest.key.load(Ordering::Relaxed);
            let used = unpack(oldest.value.load(Ordering::Relaxed)).1;
            if held > CLAIMED && !may(held, used) {
                return None;
            }
            let claim =
                || oldest.key.compare_exchange(held, CLAIMED, Ordering::AcqRel, Ordering::Relaxed).is_ok();
            if held != CLAIMED && claim() {
                oldest.value.store(pack(handle, now), Ordering::Release);
                self.unmark(place);
                oldest.key.store(key.0, Ordering::Release);
                return Some(place);
            }
        }
        None
    }
}

/// Whether a use at `now` is worth telling when the one before was at `used`: once in [`REFRESH`] seconds, for each key
/// at another time.
fn refreshes(key: StickKey, used: u32, now: u32) -> bool {
    let phase = key.0 as u32 % REFRESH;
    used.saturating_add(phase) / REFRESH != now.saturating_add(phase) / REFRESH
}

fn pack(handle: MemberHandle, used: u32) -> u64 {
    u64::from(handle.0) << 32 | u64::from(used)
}

fn unpack(value: u64) -> (MemberHandle, u32) {
    (MemberHandle((value >> 32) as u32), value as u32)
}

#[cfg(test)]
#[path = "table_tests.rs"]
mod tests;
