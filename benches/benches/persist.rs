//! The table of session persistence: what a request pays for it, alone and with another amphora that it is kept alike
//! with.

use std::{
    cell::Cell,
    hint::black_box,
    net::{IpAddr, Ipv4Addr},
};

use amphora_benches::document;
use amphora_model::{LbAlgorithm, Member, MemberId, Pool, PoolId, PoolProtocol, SessionPersistence};
use amphora_proxy::{
    balance::MembersView,
    persist::{PersistState, Persistence, Stick},
};
use divan::{Bencher, counter::ItemsCount};

const CLIENTS: u32 = 8192;
const REPLICATED: [bool; 2] = [false, true];

fn main() {
    divan::main();
}

struct AllUp;

impl MembersView for AllUp {
    fn len(&self) -> usize {
        2
    }

    fn id(&self, member: usize) -> MemberId {
        MemberId(document::id(document::kind::MEMBER, member as u64))
    }

    fn weight(&self, _: usize) -> u16 {
        1
    }

    fn backup(&self, _: usize) -> bool {
        false
    }

    fn usable(&self, _: usize) -> bool {
        true
    }

    fn load(&self, _: usize) -> u32 {
        0
    }

    fn epoch(&self) -> u64 {
        0
    }
}

fn stick(replicated: bool) -> Stick {
    let member = |index| Member {
        id: AllUp.id(index),
        name: String::new(),
        admin_state_up: true,
        address: Ipv4Addr::LOCALHOST.into(),
        port: 80,
        weight: 1,
        backup: false,
        monitor_address: None,
        monitor_port: None,
    };
    let pool = Pool {
        id: PoolId(document::id(document::kind::POOL, 1)),
        name: String::new(),
        admin_state_up: true,
        protocol: PoolProtocol::Http,
        lb_algorithm: LbAlgorithm::RoundRobin,
        tls: None,
        session_persistence: Some(SessionPersistence::SourceIp),
        health_monitor: None,
        member_options: Default::default(),
        members: vec![member(0), member(1)],
    };
    let state = PersistState::carry_over(None, pool.id, pool.session_persistence.as_ref());
    let stick = match Persistence::compile(&pool, state.as_ref()) {
        Some(Persistence::Source(stick)) => stick,
        other => panic!("{other:?}"),
    };
    if replicated {
        stick.state().table().mark_all();
    }
    stick
}

fn client(i: u32) -> IpAddr {
    Ipv4Addr::from_bits(0x0a00_0000 + i).into()
}

/// Each of 8,192 known clients once, in the second `now`.
fn round(stick: &Stick, now: u32, member: usize) {
    for i in 0..CLIENTS {
        let key = stick.state().source_key(black_box(client(i)));
        black_box(stick.find(key, &AllUp, now));
        stick.store(key, member, now);
    }
}

/// Requests in one second.
#[divan::bench(args = REPLICATED)]
fn known(bencher: Bencher, replicated: bool) {
    let stick = stick(replicated);
    round(&stick, 1, 0);
    bencher.counter(ItemsCount::new(CLIENTS)).bench_local(|| round(&stick, 1, 0));
}

/// The first request of a client in each second.
#[divan::bench(args = REPLICATED)]
fn each_second(bencher: Bencher, replicated: bool) {
    let (stick, now) = (stick(replicated), Cell::new(1));
    bencher.counter(ItemsCount::new(CLIENTS)).bench_local(|| round(&stick, now.replace(now.get() + 1), 0));
}

/// Clients that go to another member.
#[divan::bench(args = REPLICATED)]
fn moved(bencher: Bencher, replicated: bool) {
    let (stick, now) = (stick(replicated), Cell::new(1));
    bencher.counter(ItemsCount::new(CLIENTS)).bench_local(|| {
        let at = now.replace(now.get() + 1);
        round(&stick, at, at as usize % 2);
    });
}
