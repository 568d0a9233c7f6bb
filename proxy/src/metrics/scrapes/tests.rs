#![allow(clippy::unwrap_used)]

use std::{
    cell::Cell,
    collections::HashMap,
    time::{Duration, Instant},
};

use amphora_ipc::{
    proxy::{Info, ListenerStats, Stats},
    usage::Usage,
};
use amphora_model::ListenerId;

use super::{
    desk::{Desk, UNDER_WAY},
    *,
};
use crate::metrics::{Exposition, MetricsInput};

/// Values that tell how often they were taken.
fn exposition(times: u64) -> Exposition {
    let mut stats = Stats::default();
    for listener in 0..2000 {
        let id = ListenerId(uuid::Uuid::from_u128(listener));
        stats.listeners.insert(id, ListenerStats { requests: times, ..ListenerStats::default() });
    }
    let info = Info {
        version: "1".into(),
        instance: "i".into(),
        pid: 1,
        workers: 1,
        uptime_ms: 0,
        loadbalancer: None,
        generation: 1,
        remarks: Vec::new(),
    };
    Exposition::new(&MetricsInput {
        info: &info,
        stats: &stats,
        loadbalancer: None,
        expiry: &HashMap::new(),
        peers: None,
        host: None,
        usage: Usage::default(),
    })
}

/// A desk whose clock is the test's.
struct Test {
    desk: Desk,
    now: Instant,
    made: Cell<u64>,
    generation: u64,
}

impl Test {
    fn new() -> Self {
        Self { desk: Desk::default(), now: Instant::now(), made: Cell::new(0), generation: 1 }
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.admit();
    }

    fn admit(&mut self) {
        let make = || {
            self.made.set(self.made.get() + 1);
            Some(exposition(self.made.get()))
        };
        self.desk.admit(self.now, self.generation, make);
        self.desk.tidy(self.now);
    }

    fn begin(&mut self) -> oneshot::Receiver<u64> {
        self.begin_from(1)
    }

    fn begin_from(&mut self, host: u8) -> oneshot::Receiver<u64> {
        let (who, begun) = oneshot::channel();
        self.desk.wait(Some([192, 0, 2, host].into()), who);
        self.admit();
        begun
    }

    fn read(&mut self, id: u64) -> Option<String> {
        let mut text = String::new();
        loop {
            let piece = self.desk.next(self.now, id)?;
            text.push_str(std::str::from_utf8(&piece.text()).unwrap());
            if piece.is_last() {
                self.desk.end(id);
                self.admit();
                return Some(text);
            }
        }
    }
}

#[test]
fn who_asks_within_a_second_reads_the_same_and_later_another() {
    let mut test = Test::new();
    let first = test.begin().try_recv().unwrap();
    test.pass(Duration::from_millis(900));
    let second = test.begin().try_recv().unwrap();
    let mut whole = String::new();
    crate::metrics::Exposition::write_piece(&mut exposition(1), &mut whole, usize::MAX);
    assert_eq!(test.read(first).unwrap(), whole);
    assert_eq!(test.read(second).unwrap(), whole);
    assert_eq!(test.made.get(), 1);
    test.pass(Duration::from_millis(100));
    let third = test.begin().try_recv().unwrap();
    assert_ne!(test.read(third).unwrap(), whole);
    // Nor is anything of before a change told after it.
    test.generation += 1;
    test.begin().try_recv().unwrap();
    assert_eq!(test.made.get(), 3);
}

#[test]
fn one_moment_is_told_however_long_it_takes() {
    let mut test = Test::new();
    let slow = test.begin().try_recv().unwrap();
    let begun = test.desk.next(test.now, slow).unwrap();
    for _ in 0..5 {
        test.pass(Duration::from_secs(2));
        let other = test.begin().try_recv().unwrap();
        test.read(other).unwrap();
    }
    let rest = test.read(slow).unwrap();
    let mut whole = String::new();
    exposition(1).write_piece(&mut whole, usize::MAX);
    assert!(begun.text().len() + rest.len() == whole.len() && whole.ends_with(&rest));
}

#[test]
fn more_wait_for_their_turn_and_nothing_is_made_for_who_is_gone() {
    let mut test = Test::new();
    let under_way: Vec<_> = (0..UNDER_WAY).map(|_| test.begin().try_recv().unwrap()).collect();
    let mut waiting: Vec<_> = (0..100).map(|_| test.begin()).collect();
    assert!(waiting.iter_mut().all(|begun| begun.try_recv().is_err()));
    waiting.drain(..99);
    test.pass(Duration::from_millis(1500));
    test.read(under_way[0]).unwrap();
    assert!(waiting[0].try_recv().is_ok(), "the first that is still there");
    assert_eq!(test.made.get(), 2);
    assert!(test.desk.poll_timeout().is_none(), "nobody waits");
}

#[test]
fn one_that_takes_nothing_gives_its_place_to_who_waits() {
    let mut test = Test::new();
    let stalled: Vec<_> = (0..UNDER_WAY).map(|_| test.begin().try_recv().unwrap()).collect();
    let mut waiting = test.begin();
    assert!(waiting.try_recv().is_err());
    let at = test.desk.poll_timeout().unwrap();
    test.pass(at - test.now);
    assert!(waiting.try_recv().is_ok());
    assert_eq!(stalled.iter().filter(|&&id| test.desk.next(test.now, id).is_none()).count(), 1);
}

#[test]
fn scrapes_of_one_address_do_not_keep_others_waiting() {
    let mut test = Test::new();
    let many: Vec<_> = (0..UNDER_WAY).map(|_| test.begin().try_recv().unwrap()).collect();
    let mut more: Vec<_> = (0..100).map(|_| test.begin()).collect();
    let mut other = test.begin_from(2);
    // They go on, and never end.
    for second in 0..10 {
        assert!(other.try_recv().is_err(), "{second} s");
        test.pass(Duration::from_secs(1));
        many.iter().for_each(|&id| drop(test.desk.next(test.now, id)));
    }
    test.admit();
    assert!(other.try_recv().is_ok(), "before those who came first");
    assert!(more.iter_mut().all(|begun| begun.try_recv().is_err()));
}

#[test]
fn nothing_is_due_at_once_while_others_wait_for_slow_readers() {
    let mut test = Test::new();
    let mut slow: Vec<_> = (0..2).map(|_| test.begin().try_recv().unwrap()).collect();
    test.pass(Duration::from_millis(1100));
    slow.extend((2..UNDER_WAY).map(|_| test.begin().try_recv().unwrap()));
    let _waiting = test.begin();
    for _ in 0..58 {
        let now = test.now;
        assert!(test.desk.poll_timeout().is_some_and(|at| at > now));
        test.pass(Duration::from_secs(1));
        slow.iter().for_each(|&id| drop(test.desk.next(test.now, id)));
    }
}
