//! What a router says of itself: words, counters, and what it is at present.

use super::*;
use crate::core::Peer;

#[test]
fn states_and_reasons_have_words_of_their_own() {
    let states = [State::Initialize, State::Backup, State::Master];
    assert_eq!(states.map(State::as_str), ["INIT", "BACKUP", "MASTER"]);
    for (reason, word) in [
        (Reason::Started, "started"),
        (Reason::Stopped, "stopped"),
        (Reason::Unfit, "unfit"),
        (Reason::Fit, "fit"),
        (Reason::Owner, "owner"),
        (Reason::MasterDown, "master_down"),
        (Reason::MasterStopped, "master_stopped"),
        (Reason::HigherPriority, "higher_priority"),
        (Reason::HandedOver, "handed_over"),
    ] {
        assert_eq!(reason.as_str(), word);
    }
}

/// Sent, of these with priority 0, taken, of these with priority 0, became master, ceased to be.
fn counted(bench: &Bench) -> [u64; 6] {
    let of = bench.router.counters();
    [
        of.sent,
        of.priority_zero_sent,
        of.received,
        of.priority_zero_received,
        of.became_master,
        of.released_master,
    ]
}

#[test]
fn each_advertisement_and_each_change_is_counted_once() {
    let mut bench = Bench::started(with(v3(), |instance| instance.garp.delay = Duration::ZERO));
    assert_eq!(counted(&bench), [0; 6]);
    bench.hear(HIGHER_ADDRESS, 200).unwrap();
    bench.hear(HIGHER_ADDRESS, 200).unwrap();
    assert_eq!(counted(&bench), [0, 0, 2, 0, 0, 0]);
    bench.hear(HIGHER_ADDRESS, 0).unwrap();
    assert_eq!(counted(&bench), [0, 0, 3, 1, 0, 0]);
    bench.expire();
    assert_eq!(counted(&bench), [1, 0, 3, 1, 1, 0]);
    bench.expire();
    bench.expire();
    assert_eq!(counted(&bench), [3, 0, 3, 1, 1, 0]);
    // It says that it is there, and yields.
    bench.hear(HIGHER_ADDRESS, 200).unwrap();
    assert_eq!(counted(&bench), [4, 0, 4, 1, 1, 1]);
    bench.expire();
    assert_eq!(counted(&bench), [5, 0, 4, 1, 2, 1]);
    bench.router.stop(bench.now);
    assert_eq!(counted(&bench), [6, 1, 4, 1, 2, 2]);
    // What is refused is counted by its reason alone.
    assert_eq!(bench.hear(HIGHER_ADDRESS, 0), Err(Refusal::Inactive));
    assert_eq!(counted(&bench), [6, 1, 4, 1, 2, 2]);
    assert_eq!(bench.router.counters().refused(Refusal::Inactive), 1);
    assert_eq!(bench.router.counters().refused(Refusal::Own), 0);
}

#[test]
fn a_backup_that_leaves_has_released_nothing() {
    let mut bench = Bench::backup(v3());
    bench.router.set_fit(bench.now, false);
    bench.router.set_fit(bench.now, true);
    bench.router.stop(bench.now);
    assert_eq!(counted(&bench), [0; 6]);
}

#[test]
fn its_state_is_told_with_its_age() {
    let mut bench = Bench::new(v3());
    assert_eq!(bench.router.since(), None);
    bench.router.start(bench.now, false);
    let started = bench.now;
    assert_eq!((bench.router.state(), bench.router.since()), (State::Backup, Some(started)));
    bench.pass(SECOND);
    bench.hear(HIGHER_ADDRESS, 200).unwrap();
    assert_eq!(bench.router.since(), Some(started));
    bench.expire();
    assert_eq!((bench.router.state(), bench.router.since()), (State::Master, Some(bench.now)));
}

#[test]
fn the_peer_is_the_one_that_was_heard_last() {
    let mut bench = Bench::backup(v3());
    assert_eq!(bench.router.peer(), None);
    bench.hear(LOWER_ADDRESS, 200).unwrap();
    bench.pass(SECOND);
    bench.hear(HIGHER_ADDRESS, 0).unwrap();
    let last = Some(Peer { address: HIGHER_ADDRESS, priority: 0, at: bench.now });
    assert_eq!(bench.router.peer(), last);
    bench.hear(ME, 90).unwrap_err();
    assert_eq!(bench.router.peer(), last);
}

#[test]
fn fitness_is_told_as_it_was_said_whether_started_or_not() {
    let mut bench = Bench::new(v3());
    assert!(bench.router.is_fit());
    bench.router.set_fit(bench.now, false);
    assert!(!bench.router.is_fit());
    bench.router.start(bench.now, false);
    assert!(!bench.router.is_fit());
    bench.router.set_fit(bench.now, true);
    assert!(bench.router.is_fit());
}

#[test]
fn a_hand_over_is_told_from_the_request_to_the_resumption() {
    let mut bench = Bench::master(v3());
    assert_eq!((bench.router.is_handing_over(), bench.router.has_handed_over()), (false, false));
    bench.router.hand_over(bench.now);
    assert_eq!((bench.router.is_handing_over(), bench.router.has_handed_over()), (true, true));
    bench.hear(LOWER_ADDRESS, 90).unwrap();
    assert_eq!((bench.router.is_handing_over(), bench.router.has_handed_over()), (false, true));
    bench.router.resume();
    assert_eq!((bench.router.is_handing_over(), bench.router.has_handed_over()), (false, false));
}

#[test]
fn another_source_is_the_one_that_ties_are_broken_by_and_its_own_are_known_by() {
    let mut bench = Bench::master(v3());
    bench.router.set_source(HIGHER_ADDRESS);
    assert_eq!(bench.hear(HIGHER_ADDRESS, 200), Err(Refusal::Own));
    bench.hear(ME, 100).unwrap();
    assert_eq!(bench.router.state(), State::Master);
    bench.router.set_source(LOWER_ADDRESS);
    bench.hear(ME, 100).unwrap();
    assert_eq!(bench.router.state(), State::Backup);
}

#[test]
fn started_twice_is_started_once() {
    let mut bench = Bench::backup(v3());
    bench.pass(SECOND);
    bench.router.start(bench.now, true);
    assert_eq!(bench.take(), (vec![], vec![]));
    assert_eq!(bench.expire(), 2 * SECOND + SECOND * 156 / 256);
}

#[test]
fn a_predecessor_that_left_its_addresses_is_followed_after_one_interval() {
    let mut bench = Bench::new(v3());
    bench.router.start(bench.now, true);
    assert_eq!(bench.expire(), SECOND + SECOND / 256);
    // Once: the next time it waits like any other.
    bench.router.set_fit(bench.now, false);
    bench.router.set_fit(bench.now, true);
    assert_eq!(bench.expire(), 3 * SECOND + SECOND * 156 / 256);
}

#[test]
fn what_is_due_is_named_and_too_early_is_harmless() {
    let mut bench = Bench::backup(v3());
    let due = bench.router.poll_timeout().unwrap();
    bench.router.handle_timeout(due - Duration::from_nanos(1));
    assert_eq!((bench.router.state(), bench.router.poll_timeout()), (State::Backup, Some(due)));
    assert_eq!(bench.take(), (vec![], vec![]));
    bench.router.handle_timeout(due);
    assert_eq!(bench.router.state(), State::Master);
}
