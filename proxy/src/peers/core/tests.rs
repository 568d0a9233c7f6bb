//! Two sides over a network that delivers in pieces of any size and breaks anywhere, in simulated time.
#![allow(clippy::unwrap_used)]

use std::{collections::HashMap, net::Ipv4Addr, sync::Arc};

use amphora_model::{LbAlgorithm, Member, MemberId, Pool, PoolId, PoolProtocol, SessionPersistence};
use proptest::prelude::*;

use super::*;
use crate::{
    balance::hash::mix,
    persist::{PersistState, Persistence, STICK_SIZE, Stick, StickKey},
};

mod opening;
mod times;

const KEY: &[u8] = b"sixteen bytes or more";

fn member_id(i: usize) -> MemberId {
    MemberId(Uuid::from_u128(100 + i as u128))
}

fn pool(number: usize, members: &[usize]) -> Pool {
    let member = |&i: &usize| Member {
        id: member_id(i),
        name: String::new(),
        admin_state_up: true,
        address: Ipv4Addr::LOCALHOST.into(),
        port: 80,
        weight: 1,
        backup: false,
        monitor_address: None,
        monitor_port: None,
    };
    Pool {
        id: PoolId(Uuid::from_u128(number as u128 + 1)),
        name: String::new(),
        admin_state_up: true,
        protocol: PoolProtocol::Http,
        lb_algorithm: LbAlgorithm::RoundRobin,
        tls: None,
        session_persistence: Some(match number % 2 {
            0 => SessionPersistence::SourceIp,
            _ => SessionPersistence::AppCookie { cookie_name: "JSESSIONID".into() },
        }),
        health_monitor: None,
        member_options: Default::default(),
        members: members.iter().map(member).collect(),
    }
}

/// One proxy: its tables, its clock, its end of the connection.
struct Side {
    config: Config,
    tables: Tables,
    sticks: Vec<Stick>,
    states: Vec<Arc<PersistState>>,
    session: Option<Session>,
    end: Option<End>,
    totals: Counters,
    highest_output: usize,
}

impl Side {
    fn new(number: u128, epoch: Instant, pools: usize) -> Self {
        let config = Config { key: KEY.into(), instance: Uuid::from_u128(number), epoch };
        let mut side = Self {
            config,
            tables: Tables::default(),
            sticks: Vec::new(),
            states: Vec::new(),
            session: None,
            end: None,
            totals: Counters::default(),
            highest_output: 0,
        };
        side.apply(pools, &[0, 1, 2, 3, 4], epoch);
        side
    }

    fn apply(&mut self, pools: usize, members: &[usize], now: Instant) {
        let pools: Vec<_> = (0..pools).map(|i| pool(i, members)).collect();
        let states = pools.iter().enumerate().map(|(i, pool)| {
            let before = self.states.get(i).cloned();
            PersistState::carry_over(before, pool.id, pool.session_persistence.as_ref()).unwrap()
        });
        self.states = states.collect();
        let stick = |(pool, state)| match Persistence::compile(pool, Some(state)).inspect(Persistence::adopt)
        {
            Some(Persistence::Source(stick) | Persistence::AppCookie { stick, .. }) => stick,
            _ => panic!("no table"),
        };
        self.sticks = pools.iter().zip(&self.states).map(stick).collect();
        self.tables.set(pools.iter().map(|pool| pool.id).zip(self.states.iter().cloned()));
        if let Some(session) = &mut self.session {
            session.handle_tables(now);
        }
    }

    fn seconds(&self, now: Instant) -> u32 {
        (now - self.config.epoch).as_secs() as u32
    }

    fn store(&self, pool: usize, key: u64, member: usize, now: Instant) {
        self.sticks[pool].store(StickKey::new(mix(key)), member, self.seconds(now));
    }

    /// What the table of a pool says, by ids.
    fn content(&self, pool: usize) -> HashMap<StickKey, MemberId> {
        let state = &self.states[pool];
        state.table().iter().map(|(key, handle, _)| (key, state.member(handle).unwrap())).collect()
    }

    fn input(&mut self, now: Instant, bytes: &[u8]) {
        let Some(session) = &mut self.session else { return };
        let was_open = session.parties().is_some();
        if let Err(end) = session.handle_input(now, bytes, &self.tables) {
            self.end = Some(end);
        }
        if !was_open && session.parties().is_some() {
            session.tell_all(&self.tables);
        }
    }

    /// What it sends, at most `limit` bytes.
    fn output(&mut self, now: Instant, limit: usize) -> Vec<u8> {
        let Some(session) = &mut self.session else { return Vec::new() };
        if now >= session.poll_timeout()
            && let Err(end) = session.handle_timeout(now)
        {
            self.end = Some(end);
        }
        let output = session.poll_output(now, &self.tables);
        let sent = output[..output.len().min(limit)].to_vec();
        session.sent(now, sent.len());
        self.highest_output = self.highest_output.max(session.output.len());
        let counters = session.take_counters();
        self.totals.entries_sent += counters.entries_sent;
        self.totals.entries_received += counters.entries_received;
        self.totals.entries_taken += counters.entries_taken;
        self.totals.entries_unknown += counters.entries_unknown;
        self.totals.full_syncs_sent += counters.full_syncs_sent;
        self.totals.full_syncs_received += counters.full_syncs_received;
        sent
    }
}

/// When, by which side, and which member.
type Store = (Instant, usize, usize);

/// Two proxies and the wire between them.
struct Pair {
    now: Instant,
    sides: [Side; 2],
    /// What is under way to each side.
    wire: [Vec<u8>; 2],
    random: u64,
}

impl Pair {
    /// Their clocks began at different times, not a whole number of seconds apart.
    fn new(seed: u64, pools: usize) -> Self {
        let start = Instant::now();
        let later = start + Duration::from_millis(100_000 + seed % 7919);
        let sides = [Side::new(1, start, pools), Side::new(2, later, pools)];
        Self { now: later, sides, wire: Default::default(), random: seed }
    }

    fn below(&mut self, n: u64) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.random) % n
    }

    fn cut(&mut self) {
        for side in &mut self.sides {
            (side.session, side.end) = (None, None);
        }
        self.wire = Default::default();
    }

    fn connect(&mut self) {
        self.cut();
        let connects = self.below(2) as usize;
        for i in 0..2 {
            let nonce = [self.below(256) as u8; NONCE];
            let config = self.sides[i].config.clone();
            let make = if i == connects { Session::connect } else { Session::accept };
            self.sides[i].session = Some(make(config, nonce, self.now));
        }
    }

    /// Some bytes move.
    fn step(&mut self) {
        for i in 0..2 {
            let limit = self.below(40_000) as usize;
            let sent = self.sides[i].output(self.now, limit);
            self.wire[1 - i].extend(sent);
            let arrive = self.below(self.wire[i].len() as u64 + 1) as usize;
            let bytes: Vec<_> = self.wire[i].drain(..arrive).collect();
            self.sides[i].input(self.now, &bytes);
        }
    }

    /// Time passes and everything arrives.
    fn settle(&mut self) {
        for _ in 0..40 {
            self.now += LOOK;
            for i in 0..2 {
                let sent = self.sides[i].output(self.now, usize::MAX);
                self.sides[1 - i].input(self.now, &sent);
            }
        }
    }

    fn ends(&self) -> [Option<End>; 2] {
        [self.sides[0].end, self.sides[1].end]
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn tables_converge_whatever_breaks_and_the_later_use_wins(seed: u64) {
        let mut pair = Pair::new(seed, 2);
        pair.connect();
        // By pool and key.
        let mut history: HashMap<(usize, u64), Vec<Store>> = HashMap::new();
        for _ in 0..300 {
            match pair.below(20) {
                0 => pair.cut(),
                1 | 2 => pair.connect(),
                3..=6 => {
                    let pause = Duration::from_millis(pair.below(1500));
                    pair.now += pause;
                }
                7..=12 => {
                    let (side, pool) = (pair.below(2) as usize, pair.below(2) as usize);
                    let (key, member) = (pair.below(30), pair.below(5) as usize);
                    pair.sides[side].store(pool, key, member, pair.now);
                    history.entry((pool, key)).or_default().push((pair.now, side, member));
                }
                _ => pair.step(),
            }
            // A session that has ended is no surprise only when its peer is gone for long.
            for end in pair.ends().into_iter().flatten() {
                prop_assert_eq!(end, End::Silent);
            }
            if pair.ends() != [None, None] {
                pair.cut();
            }
        }
        pair.connect();
        pair.settle();
        prop_assert_eq!(pair.ends(), [None, None]);
        for pool in 0..2 {
            let [a, b] = [pair.sides[0].content(pool), pair.sides[1].content(pool)];
            prop_assert_eq!(&a, &b);
            for ((_, key), stores) in history.iter().filter(|((of, _), _)| *of == pool) {
                let (last, _, member) = *stores.last().unwrap();
                // Two connections in a row tell no more about the order.
                let told = |&(at, _, other): &Store| other == member || last - at > Duration::from_secs(4);
                if stores.iter().all(told) {
                    prop_assert_eq!(a[&StickKey::new(mix(*key))], member_id(member));
                }
            }
        }
        // Nothing is told back: it is quiet now.
        let sent = pair.sides.each_ref().map(|side| side.totals.entries_sent);
        pair.settle();
        prop_assert_eq!(pair.sides.each_ref().map(|side| side.totals.entries_sent), sent);
    }

    #[test]
    fn a_bit_that_is_turned_ends_the_connection_before_anything_is_taken(at: prop::sample::Index, bit in 0u8..8) {
        let mut pair = Pair::new(3, 1);
        pair.sides[0].store(0, 1, 1, pair.now);
        pair.connect();
        let (mut sent, mut spoiled) = (0, false);
        // Hello and Auth of the side that connects, and its first entries.
        let target = at.index(61 + 35 + 2 + 19 + 28 + 32);
        for _ in 0..40 {
            pair.now += LOOK;
            let mut bytes = pair.sides[0].output(pair.now, usize::MAX);
            if (sent..sent + bytes.len()).contains(&target) {
                bytes[target - sent] ^= 1 << bit;
                spoiled = true;
            }
            sent += bytes.len();
            pair.sides[1].input(pair.now, &bytes);
            if spoiled && pair.sides[1].end.is_some() {
                break;
            }
            let bytes = pair.sides[1].output(pair.now, usize::MAX);
            pair.sides[0].input(pair.now, &bytes);
            if pair.sides[0].end.is_some() {
                break;
            }
        }
        prop_assert!(spoiled);
        // A length that grew makes the receiver wait for what does not come.
        let waits = pair.ends() == [None, None] && pair.sides[1].totals.entries_received == 0;
        prop_assert!(waits || pair.ends() != [None, None], "{}", target);
        prop_assert!(pair.sides[1].content(0).is_empty());
    }
}

#[test]
fn everything_is_told_on_connect_and_then_what_changes() {
    let mut pair = Pair::new(11, 2);
    for key in 0..3000 {
        pair.sides[0].store(0, key, 1, pair.now);
        pair.sides[1].store(1, key, 2, pair.now);
    }
    pair.connect();
    pair.settle();
    let [a, b] = &pair.sides;
    assert!(a.content(0).len() >= 2999);
    assert_eq!((a.content(0), a.content(1)), (b.content(0), b.content(1)));
    assert_eq!((a.totals.full_syncs_sent, a.totals.full_syncs_received), (1, 1));
    assert_eq!(
        (b.totals.entries_taken, b.totals.entries_received),
        (a.totals.entries_sent, a.totals.entries_sent)
    );
    let before = pair.sides.each_ref().map(|side| side.totals.entries_sent);
    for member in 0..5 {
        pair.sides[0].store(0, 7, member, pair.now);
    }
    pair.settle();
    let after = pair.sides.each_ref().map(|side| side.totals.entries_sent);
    assert_eq!([after[0] - before[0], after[1] - before[1]], [1, 0], "once, and not back");
    assert_eq!(pair.sides[1].content(0)[&StickKey::new(mix(7))], member_id(4));
}

#[test]
fn a_peer_that_has_started_anew_gets_everything_with_its_age() {
    let mut pair = Pair::new(12, 1);
    pair.sides[0].store(0, 1, 1, pair.now);
    pair.sides[0].store(0, 2, 2, pair.now);
    pair.now += Duration::from_secs(500);
    pair.sides[1] = Side::new(9, pair.now, 1);
    pair.connect();
    pair.settle();
    assert_eq!(pair.sides[1].content(0), pair.sides[0].content(0));
    // It was used 500 s ago, before that process was: what the other side hears of an hour later is news.
    pair.cut();
    pair.now += Duration::from_secs(100);
    pair.sides[0].store(0, 1, 3, pair.now);
    pair.now += Duration::from_secs(100);
    pair.connect();
    pair.settle();
    assert_eq!(pair.sides[1].content(0)[&StickKey::new(mix(1))], member_id(3));
    assert_eq!(pair.sides[1].content(0), pair.sides[0].content(0));
}

#[test]
fn memory_is_bounded_and_full_tables_come_to_hold_the_same() {
    let mut pair = Pair::new(13, 1);
    for i in 0..30_000 {
        pair.sides[(i % 2) as usize].store(0, i, 1, pair.now + Duration::from_secs(i / 100));
    }
    pair.now += Duration::from_secs(301);
    pair.connect();
    pair.settle();
    let [a, b] = &pair.sides;
    let (a_keys, b_keys) = (a.content(0), b.content(0));
    assert!(a_keys.len() > STICK_SIZE && a_keys.len() <= 2 * STICK_SIZE);
    let differ = a_keys.keys().filter(|key| !b_keys.contains_key(key)).count();
    assert!(differ <= a_keys.len() / 100, "{differ} of {}", a_keys.len());
    assert!(a.highest_output.max(b.highest_output) <= OUTPUT + wire::MAX_FRAME + 100);
    assert_eq!(a.states[0].table().bytes(), 16 * 2 * STICK_SIZE + 2 * STICK_SIZE / 8);
}

#[test]
fn a_silent_peer_is_given_up_and_an_idle_one_is_not() {
    let mut pair = Pair::new(5, 1);
    pair.connect();
    pair.now += HANDSHAKE;
    pair.sides[0].output(pair.now, 0);
    assert_eq!(pair.sides[0].end, Some(End::Silent));
    pair.connect();
    for _ in 0..50 {
        pair.settle();
        assert_eq!(pair.ends(), [None, None]);
    }
    pair.now += SILENCE;
    pair.sides[0].output(pair.now, usize::MAX);
    assert_eq!(pair.sides[0].end, Some(End::Silent));
}

#[test]
fn what_is_not_known_is_kept_out_until_it_is_there() {
    let mut pair = Pair::new(6, 1);
    let now = pair.now;
    pair.sides[0].apply(2, &[0, 1, 2, 3, 4, 5], now);
    pair.sides[0].store(0, 1, 5, now);
    pair.sides[0].store(0, 2, 0, now);
    pair.sides[0].store(1, 3, 1, now);
    pair.connect();
    pair.settle();
    let b = &pair.sides[1];
    assert_eq!((b.content(0).len(), b.totals.entries_taken, b.totals.entries_unknown), (1, 1, 2));
    let now = pair.now;
    pair.sides[1].apply(2, &[0, 1, 2, 3, 4, 5], now);
    pair.settle();
    assert_eq!(pair.ends(), [None, None]);
    for pool in 0..2 {
        assert_eq!(pair.sides[0].content(pool), pair.sides[1].content(pool));
    }
    assert_eq!(pair.sides[1].totals.full_syncs_received, 2);
    // A pool that has begun to remember by another cookie is another table.
    let table = |name: Option<&str>| wire::Table { pool: pool(1, &[]).id, cookie_name: name.map(Into::into) };
    let entry = wire::Entry { key: StickKey::new(99), member: member_id(0), used: 0 };
    for (name, unknown) in [(Some("JSESSIONID"), 0), (Some("PHPSESSID"), 1), (None, 1)] {
        let entries = wire::Entries { table: table(name), list: vec![entry] };
        assert_eq!(pair.sides[1].tables.merge(&entries, 0, 9).unknown, unknown);
    }
}

#[test]
fn a_table_that_has_been_told_waits_for_the_next_round() {
    let pair = Pair::new(1, 2);
    let (side, now) = (&pair.sides[0], pair.now);
    side.tables.mark_all();
    (0..2).for_each(|table| side.store(table, 1, 0, now));
    let told = |cursor| {
        let (entries, next) = side.tables.take(cursor, 0);
        (entries.map(|entries| entries.table.pool), next)
    };
    let (first, next) = told(Cursor::default());
    let told_first = first.unwrap();
    let again = (0..2).find(|&number| pool(number, &[]).id == told_first).unwrap();
    side.store(again, 1, 1, now);
    let (second, next) = told(next.unwrap());
    assert_ne!(second.unwrap(), told_first);
    assert_eq!(told(next.unwrap()), (None, None));
    assert_eq!(told(Cursor::default()).0, Some(told_first));
}

#[test]
fn without_a_peer_nobody_is_told() {
    let now = Instant::now();
    let mut side = Side::new(1, now, 2);
    (0..2).for_each(|table| side.store(table, 1, 0, now));
    let are_told = |side: &Side| side.states.iter().map(|state| state.table().is_told()).collect::<Vec<_>>();
    assert_eq!(are_told(&side), [true, true]);
    side.tables.end();
    assert_eq!((are_told(&side), side.tables.len()), (vec![false, false], 0));
    assert_eq!(side.tables.take(Cursor::default(), 0), (None, None));
    // The next one is told everything.
    let states: Vec<_> = side.states.iter().cloned().enumerate().collect();
    side.tables.set(states.into_iter().map(|(number, state)| (pool(number, &[]).id, state)));
    assert_eq!(are_told(&side), [true, true]);
    assert!(side.tables.take(Cursor::default(), 0).0.is_some_and(|entries| entries.list.len() == 1));
}

#[test]
fn tables_that_stay_are_not_told_again() {
    let mut pair = Pair::new(4, 2);
    (0..50).for_each(|key| pair.sides[0].store((key % 2) as usize, key, 1, pair.now));
    assert_eq!((pair.sides[0].tables.len(), pair.sides[0].tables.is_empty()), (2, false));
    assert_eq!((Tables::default().len(), Tables::default().is_empty()), (0, true));
    pair.connect();
    pair.settle();
    for _ in 0..3 {
        let now = pair.now;
        pair.sides.iter_mut().for_each(|side| side.apply(2, &[0, 1, 2, 3, 4], now));
        pair.settle();
    }
    let [a, b] = &pair.sides;
    assert_eq!((a.totals.entries_sent, b.totals.entries_received, b.totals.entries_taken), (50, 50, 50));
    assert_eq!(
        [a, b].map(|side| (side.totals.full_syncs_sent, side.totals.full_syncs_received)),
        [(1, 1); 2]
    );
    assert_eq!([a, b].map(|side| side.totals.entries_unknown), [0, 0]);
}
