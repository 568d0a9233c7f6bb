#![allow(clippy::unwrap_used)]

use std::{
    cell::Cell,
    collections::{BTreeMap, HashSet},
    net::{IpAddr, Ipv4Addr},
};

use proptest::prelude::*;
use uuid::Uuid;

mod least_connections;
mod slow_start;

use super::{round_robin::gcd_of, *};

#[derive(Clone, Debug)]
struct Peer {
    id: MemberId,
    weight: u16,
    backup: bool,
    usable: Cell<bool>,
    load: Cell<u32>,
}

#[derive(Clone, Debug, Default)]
pub(super) struct View {
    peers: Vec<Peer>,
    epoch: Cell<u64>,
}

impl View {
    pub(super) fn weights(weights: &[u16]) -> Self {
        let mut view = Self::default();
        for (i, &weight) in weights.iter().enumerate() {
            view.push(i as u128 + 1, weight, false);
        }
        view
    }

    fn push(&mut self, id: u128, weight: u16, backup: bool) {
        let id = MemberId(Uuid::from_u128(id.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835)));
        self.peers.push(Peer { id, weight, backup, usable: Cell::new(true), load: Cell::new(0) });
    }

    pub(super) fn set_usable(&self, i: usize, usable: bool) {
        self.peers[i].usable.set(usable);
        self.epoch.set(self.epoch.get() + 1);
    }

    fn without(&self, i: usize) -> Self {
        let mut view = self.clone();
        view.peers.remove(i);
        view
    }

    fn expected(&self) -> HashSet<usize> {
        let able = |backup: bool| {
            let able = |&i: &usize| {
                let peer = &self.peers[i];
                peer.backup == backup && peer.weight > 0 && peer.usable.get()
            };
            (0..self.peers.len()).filter(able).collect::<HashSet<_>>()
        };
        let active = able(false);
        if active.is_empty() { able(true) } else { active }
    }
}

impl MembersView for View {
    fn len(&self) -> usize {
        self.peers.len()
    }
    fn id(&self, i: usize) -> MemberId {
        self.peers[i].id
    }
    fn weight(&self, i: usize) -> u16 {
        self.peers[i].weight
    }
    fn backup(&self, i: usize) -> bool {
        self.peers[i].backup
    }
    fn usable(&self, i: usize) -> bool {
        self.peers[i].usable.get()
    }
    fn load(&self, i: usize) -> u32 {
        self.peers[i].load.get()
    }
    fn epoch(&self) -> u64 {
        self.epoch.get()
    }
}

fn flow(i: u32) -> Flow {
    Flow {
        source: IpAddr::V4(Ipv4Addr::from(0x0a00_0000u32.wrapping_add(i))),
        source_port: 1024 + (i % 60_000) as u16,
    }
}

fn picks(balance: &mut Balance, view: &View, n: usize) -> Vec<usize> {
    (0..n).map(|i| balance.pick(view, &flow(i as u32), |_| false).unwrap()).collect()
}

fn counts(picks: &[usize]) -> BTreeMap<usize, u64> {
    let mut counts = BTreeMap::new();
    for &i in picks {
        *counts.entry(i).or_default() += 1;
    }
    counts
}

/// A round robin that starts at slot 0.
fn from_the_start(view: &View) -> Balance {
    let cycle: u64 = view.peers.iter().map(|p| u64::from(p.weight)).sum();
    let seed = (0..).find(|&seed| hash::mix(seed).is_multiple_of(cycle)).unwrap();
    Balance::new(LbAlgorithm::RoundRobin, seed)
}

/// Pearson's statistic over its degrees of freedom: about 1 when counts follow the weights.
fn chi_square(view: &View, picks: &[usize]) -> f64 {
    let total: f64 = view.peers.iter().map(|p| f64::from(p.weight)).sum();
    let counts = counts(picks);
    let term = |(i, peer): (usize, &Peer)| {
        let want = picks.len() as f64 * f64::from(peer.weight) / total;
        (counts.get(&i).copied().unwrap_or(0) as f64 - want).powi(2) / want
    };
    view.peers.iter().enumerate().map(term).sum::<f64>() / (view.peers.len() - 1) as f64
}

#[test]
fn round_robin_takes_turns_in_order() {
    let view = View::weights(&[1, 1, 1]);
    assert_eq!(picks(&mut from_the_start(&view), &view, 7), [0, 1, 2, 0, 1, 2, 0]);
    let view = View::weights(&[100, 100]);
    assert_eq!(picks(&mut from_the_start(&view), &view, 4), [0, 1, 0, 1], "weights are reduced");
}

#[test]
fn round_robin_interleaves_unequal_weights() {
    let view = View::weights(&[5, 1, 1]);
    assert_eq!(picks(&mut from_the_start(&view), &view, 7), [0, 0, 0, 1, 0, 0, 2]);
    let view = View::weights(&[2, 1]);
    assert_eq!(picks(&mut from_the_start(&view), &view, 6), [0, 0, 1, 0, 0, 1]);
}

#[test]
fn round_robin_is_exact_over_a_cycle_of_5000_members() {
    let weights: Vec<u16> = (0..5000).map(|i| 1 + (i * 7 % 5) as u16).collect();
    let view = View::weights(&weights);
    let cycle = weights.iter().map(|&w| usize::from(w)).sum();
    for (i, n) in counts(&picks(&mut Balance::new(LbAlgorithm::RoundRobin, 3), &view, cycle)) {
        assert_eq!(n, u64::from(weights[i]));
    }
}

#[test]
fn a_view_without_members_is_empty_and_has_nobody_to_pick() {
    let empty = View::default();
    assert!(empty.is_empty() && !View::weights(&[1]).is_empty());
    for algorithm in LbAlgorithm::ALL {
        assert_eq!(Balance::new(*algorithm, 1).pick(&empty, &flow(1), |_| false), None);
    }
}

#[test]
fn a_worker_starts_where_its_seed_says() {
    let view = View::weights(&[1; 7]);
    // What splitmix64 makes of these seeds, modulo 7.
    for (seed, place) in [(0, 0), (1, 6), (2, 1), (3, 4), (4, 6)] {
        for algorithm in [LbAlgorithm::RoundRobin, LbAlgorithm::LeastConnections] {
            let expected = [0, 1, 2].map(|step| (place + step) % 7);
            assert_eq!(picks(&mut Balance::new(algorithm, seed), &view, 3), expected, "{algorithm} {seed}");
        }
    }
    // The fourth slot of `a a a b a a c` is entered as if those before it had been filled.
    let view = View::weights(&[5, 1, 1]);
    let seed = (0..).find(|&seed| hash::mix(seed) % 7 == 3).unwrap();
    assert_eq!(picks(&mut Balance::new(LbAlgorithm::RoundRobin, seed), &view, 5), [1, 0, 0, 2, 0]);
}

#[test]
fn workers_start_at_different_members() {
    let view = View::weights(&[1; 100]);
    let firsts: HashSet<usize> =
        (0..8).map(|seed| picks(&mut Balance::new(LbAlgorithm::RoundRobin, seed), &view, 1)[0]).collect();
    assert!(firsts.len() >= 6, "{firsts:?}");
}

#[test]
fn round_robin_goes_on_in_the_next_snapshot() {
    let view = View::weights(&[1, 1, 1, 1]);
    let mut old = from_the_start(&view);
    assert_eq!(picks(&mut old, &view, 2), [0, 1]);
    let mut same = Balance::new(LbAlgorithm::RoundRobin, 9);
    same.carry_over(&old);
    assert_eq!(picks(&mut same, &view, 3), [2, 3, 0]);

    let mut grown = view.clone();
    grown.push(99, 1, false);
    let mut next = Balance::new(LbAlgorithm::RoundRobin, 9);
    next.carry_over(&old);
    assert_eq!(picks(&mut next, &grown, 3), [2, 3, 4]);

    // A balancer that never picked passes on what it was given.
    let mut unused = Balance::new(LbAlgorithm::RoundRobin, 9);
    unused.carry_over(&old);
    let mut after = Balance::new(LbAlgorithm::RoundRobin, 9);
    after.carry_over(&unused);
    assert_eq!(picks(&mut after, &view, 2), [2, 3]);
}

#[test]
fn round_robin_goes_on_by_who_had_a_turn_and_not_by_the_order_of_the_document() {
    let next = |old: &Balance, view: &View, n: usize| {
        let mut next = Balance::new(LbAlgorithm::RoundRobin, 9);
        next.carry_over(old);
        picks(&mut next, view, n)
    };
    let turned = |view: &View| {
        let mut turned = view.clone();
        turned.peers.reverse();
        turned
    };
    // The first two have had theirs, in this cycle and in the one before.
    let view = View::weights(&[1; 4]);
    for had in [2, 6] {
        let mut old = from_the_start(&view);
        picks(&mut old, &view, had);
        assert_eq!(next(&old, &view, 3), [2, 3, 0]);
        assert_eq!(next(&old, &turned(&view), 4), [0, 1, 0, 1]);
    }
    // One that another was preferred to is still to come.
    let mut old = from_the_start(&view);
    assert_eq!(old.pick(&view, &flow(0), |i| i == 0), Some(1));
    assert_eq!(next(&old, &view, 7), [0, 2, 3, 0, 1, 2, 3]);
    // 3:3:1 is `a b a b ...`: after three picks it is b's turn.
    let view = View::weights(&[3, 3, 1]);
    let mut old = from_the_start(&view);
    assert_eq!(picks(&mut old, &view, 3), [0, 1, 0]);
    assert_eq!(next(&old, &view, 1), [1]);
    assert_eq!(next(&old, &turned(&view), 1), [1]);
}

#[test]
fn hundred_configuration_changes_in_a_row_stay_even() {
    // One pick per snapshot: without carrying over, all of them would be the same member.
    let view = View::weights(&[1; 10]);
    let mut balance = Balance::new(LbAlgorithm::RoundRobin, 1);
    let mut all = Vec::new();
    for _ in 0..100 {
        all.extend(picks(&mut balance, &view, 1));
        let mut next = Balance::new(LbAlgorithm::RoundRobin, 1);
        next.carry_over(&balance);
        balance = next;
    }
    assert!(counts(&all).values().all(|&n| n == 10));
}

#[test]
fn hashes_follow_weights() {
    for weights in [&[1u16; 10][..], &[1; 200], &[1, 2, 3, 4, 256], &[256, 128, 64, 1], &[100; 40]] {
        let view = View::weights(weights);
        for algorithm in [LbAlgorithm::SourceIp, LbAlgorithm::SourceIpPort] {
            let picks = picks(&mut Balance::new(algorithm, 0), &view, 50_000);
            let statistic = chi_square(&view, &picks);
            // The 99.99 % quantile for three degrees of freedom is 7; for more it is less.
            assert!(statistic < 7.0, "{algorithm} {weights:?}: {statistic}");
        }
    }
}

#[test]
fn source_hash_is_pinned() {
    // The answers may never change: a mixed pair and a restart must agree. Another machine must agree, too.
    let view = View::weights(&[1, 1, 2, 5, 3]);
    let have = picks(&mut Balance::new(LbAlgorithm::SourceIp, 0), &view, 12);
    assert_eq!(have, PINNED_BY_ADDRESS);
    let have = picks(&mut Balance::new(LbAlgorithm::SourceIpPort, 0), &View::weights(&[1; 8]), 12);
    assert_eq!(have, PINNED_BY_PORT);
}

const PINNED_BY_ADDRESS: [usize; 12] = [3, 3, 3, 3, 3, 1, 3, 4, 2, 1, 3, 2];
const PINNED_BY_PORT: [usize; 12] = [4, 5, 0, 4, 6, 6, 1, 4, 7, 0, 2, 0];

#[test]
fn source_hash_sees_through_mapped_addresses_and_order() {
    let view = View::weights(&[1; 50]);
    let mut turned = view.clone();
    turned.peers.reverse();
    let (mut a, mut b) = (Balance::new(LbAlgorithm::SourceIp, 0), Balance::new(LbAlgorithm::SourceIp, 77));
    for i in 0..500 {
        let flow = flow(i);
        let IpAddr::V4(v4) = flow.source else { unreachable!() };
        let mapped = Flow { source: IpAddr::V6(v4.to_ipv6_mapped()), source_port: 9 };
        let one = a.pick(&view, &flow, |_| false).unwrap();
        let other = b.pick(&turned, &mapped, |_| false).unwrap();
        assert_eq!(view.id(one), turned.id(other));
    }
}

fn views() -> impl Strategy<Value = View> {
    let peer = (0u16..=256, prop::bool::weighted(0.3), prop::bool::weighted(0.7), 0u32..9);
    let weight = |w: u16| if w > 200 { 0 } else { w };
    prop::collection::vec(peer, 0..40).prop_map(move |peers| {
        let mut view = View::default();
        for (i, (w, backup, usable, load)) in peers.into_iter().enumerate() {
            view.push(i as u128 + 1, weight(w), backup);
            view.peers[i].usable.set(usable);
            view.peers[i].load.set(load);
        }
        view
    })
}

fn algorithms() -> impl Strategy<Value = LbAlgorithm> {
    prop::sample::select(LbAlgorithm::ALL)
}

proptest! {
    #[test]
    fn only_eligible_members_are_picked(
        view in views(),
        algorithm in algorithms(),
        seed: u64,
        steps in prop::collection::vec((any::<prop::sample::Index>(), any::<bool>(), any::<u64>()), 1..40),
    ) {
        let mut balance = Balance::new(algorithm, seed);
        for (which, usable, avoided) in steps {
            if !view.peers.is_empty() && avoided & 3 == 0 {
                view.set_usable(which.index(view.peers.len()), usable);
            }
            let expected = view.expected();
            let avoid = |i: usize| avoided >> (i % 64) & 1 == 1;
            let wanted: HashSet<_> = expected.iter().copied().filter(|&i| !avoid(i)).collect();
            match balance.pick(&view, &flow(avoided as u32), avoid) {
                None => prop_assert!(expected.is_empty()),
                Some(i) if wanted.is_empty() => prop_assert!(expected.contains(&i)),
                Some(i) => prop_assert!(wanted.contains(&i)),
            }
        }
    }

    /// After any number of picks from any start, every member has had its share rounded down or up.
    #[test]
    fn round_robin_never_strays_from_the_share(
        weights in prop::collection::vec(1u16..=20, 1..30),
        seed: u64,
    ) {
        let view = View::weights(&weights);
        let total: u64 = weights.iter().map(|&w| u64::from(w)).sum();
        let mut balance = Balance::new(LbAlgorithm::RoundRobin, seed);
        let all = picks(&mut balance, &view, 3 * total as usize);
        let divisor = weights.iter().fold(0, |gcd, &w| gcd_of(gcd, u64::from(w)));
        let cycle = total / divisor;
        let start_of_cycle = ((cycle - hash::mix(seed) % cycle) % cycle) as usize;
        for (i, &weight) in weights.iter().enumerate() {
            let mut taken = 0i64;
            let (mut low, mut high) = (0i64, 0i64);
            for (t, &pick) in all.iter().enumerate() {
                taken += i64::from(pick == i);
                let lag = taken * total as i64 - i64::from(weight) * (t as i64 + 1);
                (low, high) = (low.min(lag), high.max(lag));
            }
            // Each state is less than one pick from the ideal line: any two are less than two apart.
            prop_assert!(high - low < 2 * total as i64, "{i}: {low}..{high} of {total}");
            for turn in all[start_of_cycle..].chunks_exact(cycle as usize) {
                let share = u64::from(weight) / divisor;
                prop_assert_eq!(turn.iter().filter(|&&p| p == i).count() as u64, share);
            }
        }
    }

    #[test]
    fn round_robin_stays_exact_when_some_picks_are_redirected(
        weights in prop::collection::vec(1u16..=9, 2..12),
        redirected in prop::collection::vec(any::<bool>(), 50),
    ) {
        let view = View::weights(&weights);
        let total: usize = weights.iter().map(|&w| usize::from(w)).sum();
        let mut balance = Balance::new(LbAlgorithm::RoundRobin, 1);
        for (i, &redirected) in redirected.iter().enumerate() {
            let first = balance.pick(&view, &flow(i as u32), |_| false).unwrap();
            if redirected {
                let second = balance.pick(&view, &flow(i as u32), |m| m == first).unwrap();
                prop_assert_ne!(first, second);
            }
        }
        // Once nothing is redirected any more, the shares are those of the weights again.
        picks(&mut balance, &view, total * 60);
        for (i, n) in counts(&picks(&mut balance, &view, total)) {
            prop_assert_eq!(n, u64::from(weights[i]));
        }
    }

    #[test]
    fn a_member_that_leaves_moves_only_its_own_clients(
        weights in prop::collection::vec(1u16..=256, 2..40),
        gone: prop::sample::Index,
        with_port: bool,
    ) {
        let view = View::weights(&weights);
        let gone = gone.index(weights.len());
        let rest = view.without(gone);
        let algorithm = if with_port { LbAlgorithm::SourceIpPort } else { LbAlgorithm::SourceIp };
        let mut before = Balance::new(algorithm, 1);
        let mut removed = Balance::new(algorithm, 2);
        let owners: Vec<usize> = picks(&mut before, &view, 300);
        for (i, &owner) in owners.iter().enumerate() {
            let now = removed.pick(&rest, &flow(i as u32), |_| false).unwrap();
            if owner != gone {
                prop_assert_eq!(view.id(owner), rest.id(now));
            }
        }
        // Down instead of removed, and avoided instead of down, are the same to the others, and to its own.
        view.set_usable(gone, false);
        let down = picks(&mut before, &view, 300);
        view.set_usable(gone, true);
        for (i, (&owner, &now)) in owners.iter().zip(&down).enumerate() {
            let avoided = before.pick(&view, &flow(i as u32), |m| m == gone).unwrap();
            prop_assert_eq!(now, avoided);
            prop_assert_eq!(before.pick(&view, &flow(i as u32), |_| false).unwrap(), owner);
        }
    }
}
