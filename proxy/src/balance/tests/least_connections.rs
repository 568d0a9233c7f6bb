//! Tests of `LEAST_CONNECTIONS`.

use super::*;

#[test]
fn least_connections_weighs_loads() {
    let view = View::weights(&[1, 2, 1]);
    for (i, load) in [(0, 1), (1, 2), (2, 5)] {
        view.peers[i].load.set(load);
    }
    let mut balance = Balance::new(LbAlgorithm::LeastConnections, 0);
    // 2/1, 3/2, 6/1.
    assert_eq!(picks(&mut balance, &view, 2), [1, 1]);
    view.peers[2].load.set(0);
    assert_eq!(picks(&mut balance, &view, 1), [2]);
}

#[test]
fn least_connections_compares_what_a_member_would_have_then() {
    // (1 + 1) / 1 is more than (4 + 1) / 3, though 1 / 1 is less than 4 / 3; and the other way round.
    for (loads, least) in [([1, 4], 1), ([1, 6], 0), ([1, 5], 0), ([3, 10], 1), ([300, 902], 0)] {
        let view = View::weights(&[1, 3]);
        view.peers.iter().zip(loads).for_each(|(peer, load)| peer.load.set(load));
        // Where the scan starts decides between equals alone.
        let seed = (0..).find(|&seed| hash::mix(seed).is_multiple_of(2)).unwrap();
        let mut balance = Balance::new(LbAlgorithm::LeastConnections, seed);
        assert_eq!(picks(&mut balance, &view, 1), [least], "{loads:?}");
    }
}

#[test]
fn least_connections_goes_on_behind_the_last_one() {
    let view = View::weights(&[1; 5]);
    for had in 1..=5 {
        let seed = (0..).find(|&seed| hash::mix(seed).is_multiple_of(5)).unwrap();
        let mut balance = Balance::new(LbAlgorithm::LeastConnections, seed);
        assert_eq!(picks(&mut balance, &view, had), [0, 1, 2, 3, 4][..had]);
        let mut next = Balance::new(LbAlgorithm::LeastConnections, seed);
        next.carry_over(&balance);
        assert_eq!(picks(&mut next, &view, 2), [had % 5, (had + 1) % 5]);
        // Another epoch is another list, not another start.
        view.set_usable(had % 5, false);
        assert_eq!(picks(&mut balance, &view, 1), [(had + 1) % 5]);
        view.set_usable(had % 5, true);
    }
}

#[test]
fn least_connections_fills_by_weight() {
    let view = View::weights(&[10, 20, 70]);
    let mut balance = Balance::new(LbAlgorithm::LeastConnections, 0);
    for _ in 0..1000 {
        let i = balance.pick(&view, &flow(0), |_| false).unwrap();
        view.peers[i].load.set(view.peers[i].load.get() + 1);
    }
    let loads: Vec<u32> = view.peers.iter().map(|p| p.load.get()).collect();
    assert!(loads.iter().zip([100u32, 200, 700]).all(|(have, want)| have.abs_diff(want) <= 2), "{loads:?}");
}

#[test]
fn least_connections_rotates_among_equals() {
    let view = View::weights(&[1, 1, 1, 1]);
    let mut balance = Balance::new(LbAlgorithm::LeastConnections, 0);
    assert!(counts(&picks(&mut balance, &view, 40)).values().all(|&n| n == 10), "idle");
    view.peers.iter().for_each(|p| p.load.set(3));
    assert!(counts(&picks(&mut balance, &view, 40)).values().all(|&n| n == 10), "busy");
    let last = picks(&mut balance, &view, 1)[0];
    let mut next = Balance::new(LbAlgorithm::LeastConnections, 0);
    next.carry_over(&balance);
    assert_eq!(picks(&mut next, &view, 1)[0], (last + 1) % 4);
}

#[test]
fn least_connections_goes_by_where_a_session_has_begun_or_ended() {
    let view = View::weights(&[1; 3]);
    let balance = || {
        let seed = (0..).find(|&seed| hash::mix(seed).is_multiple_of(3)).unwrap();
        Balance::new(LbAlgorithm::LeastConnections, seed)
    };
    // One that persistence has sent there counts, before the first pick and behind it.
    let mut taken = balance();
    drop(taken.begin(&view, 0));
    assert_eq!(picks(&mut taken, &view, 1), [1]);
    drop(taken.begin(&view, 2));
    assert_eq!(picks(&mut taken, &view, 2), [0, 1]);
    // So does the end of one that began earlier.
    let mut overlapping = balance();
    let first = overlapping.begin(&view, 0);
    drop(overlapping.begin(&view, 1));
    drop(overlapping.begin(&view, 2));
    drop(first);
    assert_eq!(picks(&mut overlapping, &view, 3), [1, 2, 0]);
    // In the next snapshot, too; and who comes back is behind those who were there.
    let mut next = balance();
    next.carry_over(&overlapping);
    view.set_usable(1, false);
    assert_eq!(picks(&mut next, &view, 1), [2]);
    view.set_usable(1, true);
    assert_eq!(picks(&mut next, &view, 3), [0, 2, 1]);
    // What is not eligible is not put in by a session that persistence sent there.
    view.set_usable(1, false);
    drop(next.begin(&view, 1));
    assert_eq!(picks(&mut next, &view, 2), [0, 2]);
}

#[test]
fn least_connections_starts_anywhere_again_once_nobody_was_left() {
    let view = View::weights(&[1; 7]);
    let mut balance = Balance::new(LbAlgorithm::LeastConnections, 1);
    (0..7).for_each(|i| view.set_usable(i, false));
    assert_eq!(balance.pick(&view, &flow(0), |_| false), None);
    drop(balance.begin(&view, 3));
    (0..7).for_each(|i| view.set_usable(i, true));
    assert_eq!(picks(&mut balance, &view, 1), [6]);
}
