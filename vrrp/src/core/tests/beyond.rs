//! What is not in RFC 9568: keepalived's, and hand-overs.

use super::*;

#[test]
fn backup_hears_priority_0_of_its_only_peer_and_takes_over_at_once() {
    let mut bench = Bench::backup(unicast(v2(), &[HIGHER_ADDRESS]));
    bench.hear(HIGHER_ADDRESS, 0).unwrap();
    assert_eq!(bench.expire(), Duration::ZERO);
    assert_eq!(bench.router.state(), State::Master);

    let mut bench = Bench::backup(unicast(v2(), &[HIGHER_ADDRESS, LOWER_ADDRESS]));
    bench.hear(HIGHER_ADDRESS, 0).unwrap();
    assert_eq!(bench.expire(), SECOND * 156 / 256);
}

#[test]
fn backup_with_a_preempt_delay_leaves_a_lower_master_alone_for_so_long() {
    let delay = Preempt::After(5 * SECOND);
    let mut bench = Bench::backup(with(v3(), |instance| instance.preempt = delay));
    let mut waited = 0;
    while bench.router.state() == State::Backup {
        bench.pass(SECOND);
        bench.hear(LOWER_ADDRESS, 50).unwrap();
        waited += 1;
        assert!(waited < 30);
    }
    // Five seconds of grace from the first advertisement on, and then the timer that the last one before started.
    assert_eq!(waited, 9);
}

#[test]
fn two_owners_settle_it_by_their_addresses() {
    let mut bench = Bench::started(with(v3(), |instance| instance.priority = 255));
    bench.take();
    bench.hear(HIGHER_ADDRESS, 255).unwrap();
    let (sent, events) = bench.take();
    assert_eq!((sent, events[0]), (vec![255], Event::OwnerConflict(HIGHER_ADDRESS)));
    assert_eq!((bench.router.priority(), bench.router.state()), (254, State::Backup));
    for _ in 0..10 {
        bench.pass(SECOND);
        bench.hear(HIGHER_ADDRESS, 255).unwrap();
        assert_eq!((bench.router.priority(), bench.router.state()), (254, State::Backup));
    }
}

#[test]
fn a_forged_owner_does_not_make_an_owner_yield_for_good() {
    // Nobody else is there.
    let mut bench = Bench::started(with(v3(), |instance| instance.priority = 255));
    bench.hear(HIGHER_ADDRESS, 255).unwrap();
    assert_eq!(bench.router.state(), State::Backup);
    bench.expire();
    assert_eq!((bench.router.priority(), bench.router.state()), (255, State::Master));
    bench.take();
    // The other amphora was faster, and has 254 by its configuration.
    for other in [90, 254] {
        bench.hear(HIGHER_ADDRESS, 255).unwrap();
        for _ in 0..5 {
            bench.pass(SECOND);
            bench.hear(LOWER_ADDRESS, other).unwrap();
        }
        assert_eq!((bench.router.priority(), bench.router.state()), (255, State::Master), "{other}");
    }
    // And it is one when it starts again.
    bench.router.set_fit(bench.now, false);
    bench.take();
    bench.router.set_fit(bench.now, true);
    assert_eq!(bench.router.state(), State::Master);
}

/// How often the addresses are announced within so long from now on.
fn announced(bench: &mut Bench, time: Duration) -> Vec<(Duration, u32)> {
    let begun = bench.now;
    let mut announced = vec![];
    loop {
        for event in bench.take().1 {
            if let Event::Announce { repeat } = event {
                announced.push((bench.now - begun, repeat));
            }
        }
        if bench.router.poll_timeout().is_none_or(|at| at > begun + time) {
            return announced;
        }
        bench.expire();
    }
}

#[test]
fn who_yields_says_so_and_who_stays_announces_again() {
    // Both have been masters, and the network has learned the one that yields last. That the other is there it
    // hears by its regular advertisement, and the other has not heard of it.
    for instance in [v2(), v3(), unicast(v3(), &[HIGHER_ADDRESS])] {
        let quiet = Garp { delay: Duration::ZERO, ..Garp::default() };
        let mut yields = Bench::master(with(instance.clone(), |instance| instance.garp = quiet));
        yields.hear(HIGHER_ADDRESS, 100).unwrap();
        let (said, events) = yields.take();
        assert_eq!(said, [100]);
        assert_eq!(events, [changed(State::Master, State::Backup, Reason::HigherPriority)]);

        let mut stays = Bench::master(with(instance, |instance| instance.garp = quiet));
        announced(&mut stays, Duration::ZERO);
        stays.hear(LOWER_ADDRESS, said[0]).unwrap();
        let lower = Garp::default();
        let twice = [(Duration::ZERO, lower.lower_repeat), (lower.lower_delay, lower.lower_repeat)];
        assert_eq!(announced(&mut stays, 20 * SECOND), twice);
    }
}

#[test]
fn who_is_to_announce_no_times_does_not_announce() {
    let garp = Garp { delay: Duration::ZERO, lower_repeat: 0, ..Garp::default() };
    let mut bench = Bench::master(with(v3(), |instance| instance.garp = garp));
    bench.hear(LOWER_ADDRESS, 90).unwrap();
    assert_eq!(bench.take(), (vec![100], vec![]));
    assert_eq!(announced(&mut bench, 20 * SECOND), []);
}

#[test]
fn a_master_that_hears_a_rival_stop_announces_again() {
    let quiet = Garp { delay: Duration::ZERO, ..Garp::default() };
    let mut bench = Bench::master(with(v3(), |instance| instance.garp = quiet));
    bench.hear(HIGHER_ADDRESS, 0).unwrap();
    assert_eq!(announced(&mut bench, 20 * SECOND), [(Duration::ZERO, 5), (5 * SECOND, 5)]);
}

#[test]
fn who_hands_over_announces_nothing_until_it_has_failed() {
    let garp = Garp { repeat: 3, delay: 2 * SECOND, refresh: SECOND, refresh_repeat: 2, ..Garp::default() };
    let mut bench = Bench::master(with(v2(), |instance| instance.garp = garp));
    assert!(bench.router.hand_over(bench.now));
    let slow = with(bench.router.instance().clone(), |instance| instance.garp.refresh = SECOND / 2);
    bench.router.reconfigure(bench.now, slow, ME);
    let announced = announced(&mut bench, 6 * SECOND + SECOND / 4);
    // After three intervals and a skew it is master again; what it was before is not known to everybody any more.
    let half = |n: u32| (4 * SECOND + n * SECOND / 2, 2);
    assert_eq!(announced, [(4 * SECOND, 3), half(1), half(2), half(3), (6 * SECOND, 3), half(4)]);
}

#[test]
fn an_unfit_master_stops_and_a_fit_one_starts_as_backup() {
    let mut bench = Bench::master(v2());
    bench.router.set_fit(bench.now, false);
    assert_eq!(bench.take(), (vec![0], vec![changed(State::Master, State::Initialize, Reason::Unfit)]));
    bench.router.set_fit(bench.now, true);
    assert_eq!(bench.take(), (vec![], vec![changed(State::Initialize, State::Backup, Reason::Fit)]));
    assert_eq!(bench.expire(), 3 * SECOND + SECOND * 156 / 256);
}

#[test]
fn what_is_unfit_when_it_is_started_waits() {
    let mut bench = Bench::new(v2());
    bench.router.set_fit(bench.now, false);
    bench.router.start(bench.now, false);
    assert_eq!(bench.take(), (vec![], vec![]));
    bench.router.set_fit(bench.now, true);
    assert_eq!(bench.router.state(), State::Backup);
}

#[test]
fn a_hand_over_goes_on_serving_until_the_successor_is_heard() {
    let mut bench = Bench::master(unicast(v2(), &[LOWER_ADDRESS]));
    assert!(bench.router.hand_over(bench.now));
    assert_eq!(bench.take(), (vec![0], vec![]));
    assert_eq!(bench.router.state(), State::Master);
    bench.hear(LOWER_ADDRESS, 90).unwrap();
    let to_backup = changed(State::Master, State::Backup, Reason::HandedOver);
    assert_eq!(bench.take(), (vec![], vec![to_backup]));
    // Though it has the higher priority it does not take over again, until it is told to.
    for _ in 0..10 {
        bench.pass(SECOND);
        bench.hear(LOWER_ADDRESS, 90).unwrap();
    }
    assert_eq!(bench.router.state(), State::Backup);
    bench.router.resume();
    for _ in 0..4 {
        bench.pass(SECOND);
        bench.hear(LOWER_ADDRESS, 90).unwrap();
    }
    assert_eq!(bench.router.state(), State::Master);
}

#[test]
fn a_hand_over_to_nobody_ends_and_the_master_goes_on() {
    let mut bench = Bench::master(with(v2(), |instance| instance.garp.delay = Duration::ZERO));
    assert!(bench.router.hand_over(bench.now));
    assert!(bench.router.hand_over(bench.now), "twice is once");
    assert_eq!(bench.take().0, [0]);
    assert_eq!(bench.expire(), 4 * SECOND);
    let announced = Event::Announce { repeat: 5 };
    assert_eq!(bench.take(), (vec![100], vec![Event::HandOverFailed, announced]));
    assert!(!bench.router.has_handed_over());
    assert_eq!(bench.expire(), SECOND);
}

#[test]
fn only_a_master_hands_over() {
    let mut bench = Bench::backup(v2());
    assert!(!bench.router.hand_over(bench.now));
    assert!(!bench.router.has_handed_over());
}

#[test]
fn addresses_are_announced_again_after_the_delay_and_at_each_refresh() {
    let garp =
        Garp { repeat: 3, delay: 2 * SECOND, refresh: 5 * SECOND, refresh_repeat: 2, ..Garp::default() };
    let mut bench = Bench::started(with(v2(), |instance| instance.garp = garp));
    bench.expire();
    let became = bench.now;
    let mut announced = vec![];
    while bench.now < became + 11 * SECOND {
        for event in bench.take().1 {
            if let Event::Announce { repeat } = event {
                announced.push(((bench.now - became).as_secs(), repeat));
            }
        }
        bench.expire();
    }
    assert_eq!(announced, [(0, 3), (2, 3), (5, 2), (10, 2)]);
}

#[test]
fn an_old_checksum_is_answered_with_old_checksums() {
    let mut bench = Bench::backup(unicast(v3(), &[HIGHER_ADDRESS]));
    let sender = Router::new(bench.router.instance().clone(), HIGHER_ADDRESS, GROUP);
    let message = sender
        .advertisement(Transmit { priority: 0, old_checksum: false })
        .encode(Pseudo { source: HIGHER_ADDRESS, destination: GROUP });
    let envelope = Envelope { source: HIGHER_ADDRESS, destination: ME, ttl: Some(255) };
    bench.router.handle_packet(bench.now, &envelope, &message).unwrap();
    bench.expire();
    assert_eq!(bench.router.poll_transmit(), Some(Transmit { priority: 100, old_checksum: true }));
}

#[test]
fn initially_master_waits_for_one_interval_alone() {
    let mut bench = Bench::started(with(v2(), |instance| instance.initially_master = true));
    assert_eq!(bench.expire(), SECOND + SECOND / 256);
    assert_eq!(bench.router.state(), State::Master);
}

#[test]
fn advertises_its_addresses_in_order() {
    let bench = Bench::master(instance(Interval::Seconds(1), Auth::None));
    let sent = bench.router.advertisement(Transmit { priority: 9, old_checksum: false });
    assert_eq!((sent.addresses, sent.priority), (vec![VIP], 9));
}

#[test]
fn an_owner_that_becomes_fit_is_master_at_once() {
    let mut bench = Bench::new(with(v3(), |instance| instance.priority = 255));
    bench.router.set_fit(bench.now, false);
    bench.router.start(bench.now, false);
    bench.router.set_fit(bench.now, true);
    let to_master = changed(State::Initialize, State::Master, Reason::Owner);
    assert_eq!(bench.take(), (vec![255], vec![to_master, Event::Announce { repeat: 5 }]));
}

#[test]
fn an_owner_that_has_handed_over_does_not_take_it_back_when_it_is_fit_again() {
    let mut bench = Bench::started(with(v3(), |instance| instance.priority = 255));
    assert!(bench.router.hand_over(bench.now));
    bench.hear(LOWER_ADDRESS, 90).unwrap();
    bench.router.set_fit(bench.now, false);
    bench.router.set_fit(bench.now, true);
    assert_eq!(bench.router.state(), State::Backup);
    // When nobody is there, it does.
    bench.expire();
    assert_eq!(bench.router.state(), State::Master);
}

#[test]
fn two_owners_whose_advertisements_cross_do_not_both_yield() {
    let mut bench = Bench::started(with(v3(), |instance| instance.priority = 255));
    bench.take();
    bench.hear(LOWER_ADDRESS, 255).unwrap();
    assert_eq!(bench.take(), (vec![255], vec![Event::Announce { repeat: 5 }]));
    assert_eq!((bench.router.priority(), bench.router.state()), (255, State::Master));
}
