//! Shares while a member starts slowly: in simulated time, of each algorithm, over seeds.

use std::{collections::BTreeMap, time::Duration};

use amphora_model::LbAlgorithm;

use super::*;
use crate::state::{FULL, share};

/// For how long it starts.
const SECONDS: u64 = 30;
const SLOW_START: Duration = Duration::from_secs(SECONDS);

/// Members of these weights as they are so many seconds after the last has come, which starts slowly.
struct Starting<'a> {
    view: View,
    weights: &'a [u16],
}

impl<'a> Starting<'a> {
    fn new(weights: &'a [u16]) -> Self {
        let full: Vec<_> = weights.iter().map(|weight| weight * FULL).collect();
        Self { view: View::weights(&full), weights }
    }

    fn at(&mut self, second: u64) {
        let (Some(peer), Some(weight)) = (self.view.peers.last_mut(), self.weights.last()) else { return };
        peer.weight = weight * share(Duration::from_secs(second), SLOW_START);
        self.view.epoch.set(self.view.epoch.get() + 1);
    }

    /// The share of each member of so many sessions.
    fn expected(&self, sessions: usize) -> Vec<f64> {
        let total: f64 = self.view.peers.iter().map(|peer| f64::from(peer.weight)).sum();
        self.view.peers.iter().map(|peer| sessions as f64 * f64::from(peer.weight) / total).collect()
    }
}

const WEIGHTS: [&[u16]; 4] = [&[1, 1], &[1, 1, 1, 1, 1, 1, 1], &[5, 1, 1, 3], &[256, 100, 7, 200]];

#[test]
fn round_robin_gives_it_its_share_of_each_second() {
    for weights in WEIGHTS {
        for seed in 0..20 {
            let mut pool = Starting::new(weights);
            let mut balance = Balance::new(LbAlgorithm::RoundRobin, seed);
            for second in 0..=SECONDS {
                pool.at(second);
                let sessions = 50 + (hash::mix(seed + second) % 500) as usize;
                let had = counts(&picks(&mut balance, &pool.view, sessions));
                for (member, expected) in pool.expected(sessions).into_iter().enumerate() {
                    let had = had.get(&member).copied().unwrap_or(0) as f64;
                    // Rounded down or up where it begins, and where it ends.
                    assert!((had - expected).abs() < 2.0, "{weights:?} {second}: {had} of {expected}");
                }
            }
        }
    }
}

#[test]
fn source_hash_moves_clients_to_it_alone_and_more_with_each_step() {
    const CLIENTS: usize = 20_000;
    for weights in WEIGHTS {
        for algorithm in [LbAlgorithm::SourceIp, LbAlgorithm::SourceIpPort] {
            let mut pool = Starting::new(weights);
            let mut balance = Balance::new(algorithm, 1);
            let last = weights.len() - 1;
            let mut before: Option<Vec<usize>> = None;
            for second in 0..=SECONDS {
                pool.at(second);
                let now = picks(&mut balance, &pool.view, CLIENTS);
                let moved = before.iter().flatten().zip(&now).filter(|(before, now)| before != now);
                assert!(moved.map(|(_, now)| *now).all(|now| now == last), "{weights:?} {second}");
                let statistic = chi_square(&pool.view, &now);
                // The 99.99 % quantile for one degree of freedom is 15; for more it is less.
                assert!(statistic < 15.0, "{algorithm} {weights:?} {second}: {statistic}");
                before = Some(now);
            }
        }
    }
}

#[test]
fn least_connections_gives_it_its_share_of_the_sessions_at_once() {
    // So many sessions are under way, each of which ends at random, and another takes its place.
    const UNDER_WAY: usize = 400;
    for (seed, weights) in (0..).zip(WEIGHTS) {
        let mut pool = Starting::new(weights);
        let mut balance = Balance::new(LbAlgorithm::LeastConnections, seed);
        let mut sessions: Vec<(usize, Option<Turn>)> = Vec::new();
        let mut random = seed;
        for second in 0..=SECONDS {
            pool.at(second);
            for _ in 0..10 * UNDER_WAY {
                if sessions.len() == UNDER_WAY {
                    random += 1;
                    let (member, turn) =
                        sessions.swap_remove((hash::mix(random) % UNDER_WAY as u64) as usize);
                    let load = &pool.view.peers[member].load;
                    load.set(load.get() - 1);
                    drop(turn);
                }
                let member = balance.pick(&pool.view, &flow(0), |_| false).unwrap();
                let load = &pool.view.peers[member].load;
                load.set(load.get() + 1);
                sessions.push((member, balance.begin(&pool.view, member)));
            }
            let had: BTreeMap<usize, u64> = counts(&sessions.iter().map(|(m, _)| *m).collect::<Vec<_>>());
            for (member, expected) in pool.expected(UNDER_WAY).into_iter().enumerate() {
                let had = had.get(&member).copied().unwrap_or(0) as f64;
                assert!((had - expected).abs() <= 3.0, "{weights:?} {second}: {had} of {expected}");
            }
        }
    }
}

#[test]
fn who_starts_all_at_once_serves_as_if_nobody_did() {
    for algorithm in LbAlgorithm::ALL {
        let (few, full) = (View::weights(&[1, 2, 3]), View::weights(&[16, 32, 48]));
        let [few, full] = [few, full].map(|view| picks(&mut Balance::new(*algorithm, 3), &view, 100));
        assert_eq!(few, full, "{algorithm}");
    }
}
