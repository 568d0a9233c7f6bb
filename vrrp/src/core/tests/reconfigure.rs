//! A new configuration for a router that runs.

use super::*;

#[test]
fn a_reconfigured_master_stays_master_and_says_what_is_new() {
    let mut bench = Bench::master(v2());
    let changed = with(v2(), |instance| instance.priority = 50);
    bench.router.reconfigure(bench.now, changed.clone(), ME);
    assert_eq!(bench.take(), (vec![50], vec![Event::Reconfigured]));
    assert_eq!(bench.router.state(), State::Master);
    bench.router.reconfigure(bench.now, changed, ME);
    assert_eq!(bench.take(), (vec![], vec![]));
}

const FAST: Duration = Duration::from_millis(100);

/// A backup at 100 ms that hears a master at 2 s.
fn backup_of_a_slow_master() -> Bench {
    let mut bench = Bench::backup(with(v3(), |instance| instance.interval = Interval::Centiseconds(10)));
    let slow = with(v3(), |instance| instance.interval = Interval::Centiseconds(200));
    bench.hear_from(&slow, HIGHER_ADDRESS, 200).unwrap();
    bench
}

fn reconfigure(bench: &mut Bench, change: impl FnOnce(&mut Instance)) {
    let instance = with(bench.router.instance().clone(), change);
    bench.router.reconfigure(bench.now, instance, ME);
}

fn exclude(instance: &mut Instance) {
    instance.excluded.push(VirtualAddress { net: "192.0.2.101/32".parse().unwrap(), interface: None });
}

#[test]
fn a_backup_keeps_the_learned_interval_and_waits_on() {
    let mut bench = backup_of_a_slow_master();
    bench.pass(SECOND);
    reconfigure(&mut bench, exclude);
    assert_eq!(bench.take(), (vec![], vec![Event::Reconfigured]));
    assert_eq!(bench.router.master_interval(), 2 * SECOND);
    // Six seconds and the skew from when the master was heard, one of which is over.
    assert_eq!(bench.expire(), 5 * SECOND + 2 * SECOND * 156 / 256);
}

#[test]
fn a_backup_with_another_interval_of_its_own_goes_by_the_masters() {
    let mut bench = backup_of_a_slow_master();
    bench.pass(SECOND);
    reconfigure(&mut bench, |instance| instance.interval = Interval::Centiseconds(1));
    assert_eq!(bench.router.master_interval(), 2 * SECOND);
    assert_eq!(bench.expire(), 5 * SECOND + 2 * SECOND * 156 / 256);
    // As a master it goes by its own.
    assert_eq!(bench.expire(), SECOND / 100);
}

#[test]
fn a_backup_that_has_heard_nobody_waits_anew_by_another_interval() {
    let mut bench = Bench::backup(v3());
    bench.pass(SECOND);
    reconfigure(&mut bench, |instance| instance.interval = Interval::Centiseconds(10));
    assert_eq!(bench.router.master_interval(), FAST);
    assert_eq!(bench.expire(), 3 * FAST + FAST * 156 / 256);
}

#[test]
fn a_backup_of_version_2_waits_anew_by_another_interval() {
    let mut bench = Bench::backup(v2());
    bench.hear(HIGHER_ADDRESS, 200).unwrap();
    bench.pass(SECOND);
    reconfigure(&mut bench, |instance| instance.interval = Interval::Seconds(2));
    assert_eq!(bench.router.master_interval(), 2 * SECOND);
    assert_eq!(bench.expire(), 6 * SECOND + SECOND * 156 / 256);
}

#[test]
fn another_priority_moves_the_end_of_the_wait_by_its_skew() {
    let mut bench = backup_of_a_slow_master();
    bench.pass(SECOND);
    reconfigure(&mut bench, |instance| instance.priority = 200);
    assert_eq!(bench.expire(), 5 * SECOND + 2 * SECOND * 56 / 256);

    let mut bench = backup_of_a_slow_master();
    bench.hear(HIGHER_ADDRESS, 0).unwrap();
    bench.pass(SECOND / 2);
    reconfigure(&mut bench, |instance| instance.priority = 156);
    assert_eq!(bench.expire(), 2 * SECOND * 100 / 256 - SECOND / 2);
    assert_eq!(bench.take().1[1], changed(State::Backup, State::Master, Reason::MasterStopped));
}

#[test]
fn a_master_that_is_not_understood_before_it_changes_too_is_given_the_time() {
    let changes: [fn(&mut Instance); 3] = [
        |instance| instance.addresses[0].net = "192.0.2.78/32".parse().unwrap(),
        |instance| instance.auth = Auth::None,
        |instance| *instance = unicast(instance.clone(), &[HIGHER_ADDRESS]),
    ];
    for change in changes {
        let mut bench = Bench::backup(v2());
        bench.pass(SECOND);
        reconfigure(&mut bench, change);
        assert_eq!(bench.expire(), 3 * SECOND + SECOND * 156 / 256);
    }
}

#[test]
fn a_delay_before_it_preempts_goes_on_unless_that_is_changed() {
    for (change, expected) in [(false, 4), (true, 8)] {
        let delay = Preempt::After(5 * SECOND);
        let mut bench = Bench::backup(with(v3(), |instance| instance.preempt = delay));
        let mut kept_quiet = 0;
        for second in 0..20 {
            bench.hear(LOWER_ADDRESS, 50).unwrap();
            let down = bench.router.poll_timeout().unwrap() - bench.now;
            if down < 3 * SECOND {
                break;
            }
            kept_quiet = second;
            if second == 2 {
                reconfigure(&mut bench, |instance| {
                    exclude(instance);
                    if change {
                        instance.preempt = Preempt::After(6 * SECOND);
                    }
                });
            }
            bench.pass(SECOND);
        }
        assert_eq!(kept_quiet, expected);
    }
}

#[test]
fn a_backup_that_becomes_the_owner_is_master_at_once() {
    let mut bench = backup_of_a_slow_master();
    bench.pass(SECOND);
    reconfigure(&mut bench, |instance| instance.priority = 255);
    let (sent, events) = bench.take();
    assert_eq!(sent, [255]);
    let to_master = changed(State::Backup, State::Master, Reason::Owner);
    assert_eq!(events, [Event::Reconfigured, to_master, Event::Announce { repeat: 5 }]);
    // At its own interval, and no wait is left.
    assert_eq!(bench.expire(), FAST);
    assert_eq!(bench.take(), (vec![255], vec![]));
}

#[test]
fn an_owner_that_has_handed_over_is_not_master_by_a_new_configuration() {
    let mut bench = Bench::master(v2());
    assert!(bench.router.hand_over(bench.now));
    bench.hear(LOWER_ADDRESS, 90).unwrap();
    reconfigure(&mut bench, |instance| instance.priority = 255);
    assert_eq!(bench.router.state(), State::Backup);
}

#[test]
fn the_priority_that_an_owner_was_left_with_stays_until_it_is_given_another() {
    let mut bench = Bench::started(with(v3(), |instance| instance.priority = 255));
    bench.hear(HIGHER_ADDRESS, 255).unwrap();
    reconfigure(&mut bench, exclude);
    assert_eq!((bench.router.priority(), bench.router.state()), (254, State::Backup));
    reconfigure(&mut bench, |instance| instance.priority = 200);
    assert_eq!(bench.router.priority(), 200);
}

#[test]
fn a_router_without_a_part_is_reconfigured_quietly() {
    let mut bench = Bench::new(v3());
    reconfigure(&mut bench, |instance| instance.priority = 255);
    assert_eq!(bench.take(), (vec![], vec![Event::Reconfigured]));
    assert_eq!((bench.router.state(), bench.router.poll_timeout()), (State::Initialize, None));
}

#[test]
fn a_refresh_goes_on_unless_its_time_is_changed() {
    let garp = Garp { delay: Duration::ZERO, refresh: 5 * SECOND, ..Garp::default() };
    let mut bench = Bench::master(with(v2(), |instance| instance.garp = garp));
    for (change, due) in [(5, 5), (3, 7)] {
        let begun = bench.now;
        for _ in 0..4 {
            bench.expire();
        }
        reconfigure(&mut bench, |instance| {
            exclude(instance);
            instance.garp.refresh = change * SECOND;
        });
        bench.take();
        while !bench.take().1.contains(&Event::Announce { repeat: 1 }) {
            bench.expire();
        }
        assert_eq!(bench.now - begun, due * SECOND);
    }
}
