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

fn marked(table: &StickTable) -> Vec<(StickKey, u32)> {
    let mut list = Vec::new();
    assert_eq!(table.take_marked(0, usize::MAX, |key, handle, _| list.push((key, handle.0))), None);
    list.sort_unstable_by_key(|(key, _)| key.get());
    list
}

#[test]
fn what_is_new_or_changes_is_marked_once_and_what_is_used_once_in_a_while() {
    let table = StickTable::new(100);
    table.store(key(1), MemberHandle(1), 1000);
    assert_eq!(marked(&table), [], "nobody asked");
    assert!(!table.is_told());
    assert_eq!(table.bytes(), 13 * WAYS * 16);
    table.mark_all();
    assert_eq!(table.bytes(), 13 * WAYS * 16 + 4 * 8);
    assert_eq!(marked(&table), [(key(1), 1)]);
    for now in 1000..1000 + 10 * REFRESH {
        table.lookup(key(1), now);
        table.store(key(1), MemberHandle(1), now);
    }
    assert_eq!(marked(&table), [(key(1), 1)]);
    let told = (2000..2000 + 10 * REFRESH).filter(|&now| {
        table.lookup(key(1), now);
        !marked(&table).is_empty()
    });
    assert!((10..=11).contains(&told.count()));
    table.store(key(1), MemberHandle(2), 3000);
    table.store(key(1), MemberHandle(3), 3000);
    table.store(key(2), MemberHandle(4), 3000);
    let mut both = [(key(1), 3), (key(2), 4)];
    both.sort_unstable_by_key(|(key, _)| key.get());
    assert_eq!(marked(&table), both);
    assert_eq!(marked(&table), []);
}

#[test]
fn marks_are_taken_piece_by_piece() {
    let table = StickTable::new(1000);
    table.mark_all();
    (0..1000).for_each(|i| table.store(key(i), MemberHandle(1), 1));
    let mut place = Some(0);
    let mut seen = Vec::new();
    while let Some(from) = place {
        let before = seen.len();
        place = table.take_marked(from, 7, |key, _, _| seen.push(key));
        assert!(seen.len() - before <= 7);
    }
    let mut kept: Vec<_> = table.iter().map(|(key, _, _)| key).collect();
    seen.sort_unstable_by_key(|key| key.get());
    kept.sort_unstable_by_key(|key| key.get());
    assert_eq!(seen, kept);
}

#[test]
fn what_is_marked_again_behind_the_place_waits_for_the_next_round() {
    let table = StickTable::new(WAYS);
    table.mark_all();
    (0..8).for_each(|i| table.store(key(i), MemberHandle(1), 1));
    let take = |place, limit| {
        let mut taken = Vec::new();
        let next = table.take_marked(place, limit, |key, member, _| taken.push((key, member.0)));
        (taken, next)
    };
    let (first, next) = take(0, 1);
    let [(again, 1)] = first[..] else { panic!("{first:?}") };
    table.store(again, MemberHandle(2), 2);
    let (others, end) = take(next.expect("there are more"), usize::MAX);
    assert_eq!((others.len(), end), (7, None));
    assert!(others.iter().all(|(key, _)| *key != again));
    assert_eq!(take(0, usize::MAX), (vec![(again, 2)], None));
}

#[test]
fn of_two_tables_the_later_use_counts() {
    let table = StickTable::new(100);
    let merge = |handle, used, wins| table.merge(key(1), MemberHandle(handle), used, |_| wins);
    table.mark_all();
    assert!(merge(1, 10, false), "new");
    assert_eq!(marked(&table), [], "who told it has it");
    assert!(!merge(1, 13, true), "known");
    assert!(merge(1, 14, true), "used again");
    assert!(!merge(2, 13, true), "older");
    assert_eq!(marked(&table), [(key(1), 1)], "who told it does not know better");
    assert!(!merge(2, 14, false) && merge(2, 14, true), "the same moment");
    assert_eq!(table.lookup(key(1), 14), Some(MemberHandle(2)));
    table.store(key(1), MemberHandle(3), 20);
    assert!(!merge(3, 20, true), "both have it");
    assert_eq!(marked(&table), []);
    table.store(key(1), MemberHandle(4), 20);
    assert!(!merge(4, 10, true), "of an earlier use");
    assert_eq!(marked(&table), [(key(1), 4)]);
}

#[test]
fn a_pending_mark_goes_when_the_other_side_has_told_of_nearly_the_same_use() {
    for (told, pending) in [(16, true), (17, false), (20, false), (23, false)] {
        let table = StickTable::new(100);
        table.mark_all();
        table.store(key(1), MemberHandle(3), 20);
        assert!(!table.merge(key(1), MemberHandle(3), told, |_| true), "{told}");
        assert_eq!(!marked(&table).is_empty(), pending, "{told}");
        assert_eq!(table.iter().collect::<Vec<_>>(), [(key(1), MemberHandle(3), 20)]);
    }
}

#[test]
fn a_use_makes_an_entry_younger_and_never_older() {
    let table = StickTable::new(100);
    table.store(key(1), MemberHandle(3), 20);
    for (now, used) in [(19, 20), (20, 20), (21, 21)] {
        assert_eq!(table.lookup(key(1), now), Some(MemberHandle(3)));
        assert_eq!(table.iter().collect::<Vec<_>>(), [(key(1), MemberHandle(3), used)]);
    }
    table.store(key(1), MemberHandle(4), 5);
    assert_eq!(table.iter().collect::<Vec<_>>(), [(key(1), MemberHandle(4), 5)]);
    assert_eq!(table.lookup(key(2), 5), None);
}

#[test]
fn a_use_is_told_at_64_seconds_of_the_keys_own() {
    let start = 1 << 31;
    for (key, phase) in [(64, 0), (69, 5), (0x8000_0045, 5), (u64::MAX, 63)] {
        for second in 0..200 {
            let told = refreshes(StickKey::new(key), start + second, start + second + 1);
            assert_eq!(told, (second + 1 + phase) % 64 == 0, "{key} {second}");
        }
        assert!(refreshes(StickKey::new(key), start, start + 64));
        assert!(!refreshes(StickKey::new(key), start, start));
    }
}

/// Nobody reads an entry between its claim and its publication, nor is it claimed twice.
#[test]
fn what_a_worker_is_about_to_write_is_not_there_yet() {
    let table = StickTable::new(WAYS / 2);
    table.mark_all();
    table.store(key(1), MemberHandle(1), 5);
    let place = table.bucket(key(1)).find(|place| table.entry(*place).key.load(Ordering::Relaxed) != EMPTY);
    let entry = table.entry(place.expect("it was stored"));
    entry.key.store(CLAIMED, Ordering::Relaxed);
    assert_eq!((table.iter().count(), table.lookup(key(1), 6)), (0, None));
    assert_eq!(marked(&table), []);
    table.buckets.iter().flatten().for_each(|entry| entry.key.store(CLAIMED, Ordering::Relaxed));
    table.store(key(2), MemberHandle(2), 7);
    assert!(!table.merge(key(2), MemberHandle(2), 7, |_| true));
    assert_eq!(table.iter().count(), 0);
    assert!(table.buckets.iter().flatten().all(|entry| entry.key.load(Ordering::Relaxed) == CLAIMED));
}

#[test]
fn keys_keep_their_hash_but_for_the_two_that_mark_entries() {
    for (hash, kept) in [(0, 2), (1, 3), (2, 2), (77, 77), (u64::MAX, u64::MAX)] {
        assert_eq!((StickKey::new(hash).get(), StickKey::new(kept)), (kept, StickKey::new(hash)));
    }
}

#[test]
fn what_is_older_than_all_that_a_full_bucket_has_stays_out() {
    let table = StickTable::new(WAYS / 2);
    (0..16).for_each(|i| table.store(key(i), MemberHandle(1), 10 + i as u32));
    assert!(!table.merge(key(20), MemberHandle(2), 9, |_| true));
    assert!(table.merge(key(21), MemberHandle(2), 11, |_| true));
    assert_eq!((table.lookup(key(0), 30), table.lookup(key(1), 30)), (None, Some(MemberHandle(1))));
}

#[test]
fn no_change_is_lost_between_workers_and_whoever_takes_the_marks() {
    let table = StickTable::new(100);
    table.mark_all();
    let (done, mut copy) = (std::sync::atomic::AtomicU64::new(0), HashMap::new());
    thread::scope(|scope| {
        for worker in 0..2u64 {
            let (table, done) = (&table, &done);
            scope.spawn(move || {
                for round in 0..20_000u32 {
                    let i = worker * 8 + mix(u64::from(round)) % 8;
                    table.store(key(i), MemberHandle(round), round);
                    table.lookup(key(i), round);
                }
                done.fetch_add(1, Ordering::Release);
            });
        }
        loop {
            let last = done.load(Ordering::Acquire) == 2;
            table.take_marked(0, usize::MAX, |key, handle, _| {
                copy.insert(key, handle);
            });
            if last {
                break;
            }
        }
    });
    let present: HashMap<_, _> = table.iter().map(|(key, handle, _)| (key, handle)).collect();
    assert_eq!(copy, present);
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
