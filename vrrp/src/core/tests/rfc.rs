//! Every transition of RFC 9568 section 6.4, by name.

use super::*;

#[test]
fn initialize_startup_of_an_owner_is_master_at_once() {
    let mut bench = Bench::started(with(v3(), |instance| instance.priority = 255));
    let (sent, events) = bench.take();
    assert_eq!(sent, [255]);
    assert_eq!(
        events,
        [changed(State::Initialize, State::Master, Reason::Owner), Event::Announce { repeat: 5 }]
    );
    assert_eq!(bench.expire(), SECOND);
}

#[test]
fn initialize_startup_of_another_is_backup_for_a_master_down_interval() {
    let mut bench = Bench::started(v3());
    assert_eq!(bench.take(), (vec![], vec![changed(State::Initialize, State::Backup, Reason::Started)]));
    assert_eq!(bench.expire(), 3 * SECOND + SECOND * 156 / 256);
    let (sent, events) = bench.take();
    assert_eq!(sent, [100]);
    assert_eq!(events[0], changed(State::Backup, State::Master, Reason::MasterDown));
}

#[test]
fn backup_shutdown() {
    let mut bench = Bench::backup(v3());
    bench.router.stop(bench.now);
    assert_eq!(bench.take(), (vec![], vec![changed(State::Backup, State::Initialize, Reason::Stopped)]));
    assert_eq!(bench.router.poll_timeout(), None);
}

#[test]
fn backup_hears_priority_0_and_takes_over_after_its_skew() {
    let mut bench = Bench::backup(v3());
    bench.hear(HIGHER_ADDRESS, 0).unwrap();
    assert_eq!(bench.expire(), SECOND * 156 / 256);
    assert_eq!(bench.take().1[0], changed(State::Backup, State::Master, Reason::MasterStopped));
}

#[test]
fn backup_hears_a_higher_or_equal_priority_and_goes_on_listening() {
    for priority in [100, 101, 255] {
        let mut bench = Bench::backup(v3());
        bench.pass(3 * SECOND);
        bench.hear(LOWER_ADDRESS, priority).unwrap();
        assert_eq!(bench.expire(), 3 * SECOND + SECOND * 156 / 256);
    }
}

#[test]
fn backup_hears_a_lower_priority_and_takes_over_when_its_timer_ends() {
    let mut bench = Bench::backup(v3());
    bench.pass(3 * SECOND);
    bench.hear(HIGHER_ADDRESS, 99).unwrap();
    assert_eq!(bench.expire(), SECOND * 156 / 256);
    assert_eq!(bench.router.state(), State::Master);
}

#[test]
fn backup_without_preemption_leaves_any_master_alone() {
    let mut bench = Bench::backup(with(v3(), |instance| instance.preempt = Preempt::Never));
    for _ in 0..10 {
        bench.pass(SECOND);
        bench.hear(LOWER_ADDRESS, 1).unwrap();
    }
    assert_eq!(bench.router.state(), State::Backup);
    assert_eq!(bench.expire(), 3 * SECOND + SECOND * 156 / 256);
}

#[test]
fn backup_learns_the_interval_of_a_version_3_master() {
    let mut bench = Bench::backup(v3());
    let fast = with(v3(), |instance| instance.interval = Interval::Centiseconds(10));
    bench.hear_from(&fast, HIGHER_ADDRESS, 200).unwrap();
    assert_eq!(bench.router.master_interval(), SECOND / 10);
    assert_eq!(bench.expire(), 3 * SECOND / 10 + SECOND * 156 / 2560);
    // As a master it goes by its own again.
    assert_eq!(bench.expire(), SECOND);
}

#[test]
fn master_shutdown_says_so_before_it_gives_up_the_addresses() {
    let mut bench = Bench::master(v3());
    bench.router.stop(bench.now);
    let (sent, events) = bench.take();
    assert_eq!(sent, [0]);
    assert_eq!(events, [changed(State::Master, State::Initialize, Reason::Stopped)]);
    assert_eq!(bench.router.poll_timeout(), None);
}

#[test]
fn master_advertises_at_its_interval() {
    let quiet = Garp { delay: Duration::ZERO, ..Garp::default() };
    let mut bench = Bench::master(with(v3(), |instance| instance.garp = quiet));
    for _ in 0..3 {
        assert_eq!(bench.expire(), SECOND);
        assert_eq!(bench.take(), (vec![100], vec![]));
    }
}

#[test]
fn master_hears_priority_0_and_advertises_at_once() {
    let mut bench = Bench::master(v3());
    bench.pass(SECOND / 2);
    bench.hear(HIGHER_ADDRESS, 0).unwrap();
    assert_eq!(bench.take(), (vec![100], vec![Event::Announce { repeat: 5 }]));
    assert_eq!(bench.expire(), SECOND);
}

#[test]
fn master_hears_a_higher_priority_and_becomes_backup() {
    let mut bench = Bench::master(v3());
    bench.hear(LOWER_ADDRESS, 101).unwrap();
    let to_backup = changed(State::Master, State::Backup, Reason::HigherPriority);
    assert_eq!(bench.take(), (vec![100], vec![to_backup]));
    assert_eq!(bench.expire(), 3 * SECOND + SECOND * 156 / 256);
}

#[test]
fn master_hears_its_own_priority_and_the_higher_address_wins() {
    let mut bench = Bench::master(v3());
    bench.hear(HIGHER_ADDRESS, 100).unwrap();
    assert_eq!(bench.router.state(), State::Backup);
    let mut bench = Bench::master(v3());
    bench.hear(LOWER_ADDRESS, 100).unwrap();
    assert_eq!(bench.router.state(), State::Master);
}

#[test]
fn master_hears_a_lower_priority_and_asserts_itself_and_its_addresses() {
    let mut bench = Bench::master(v3());
    bench.pass(SECOND / 2);
    bench.hear(HIGHER_ADDRESS, 99).unwrap();
    assert_eq!(bench.take(), (vec![100], vec![Event::Announce { repeat: 5 }]));
    // The next advertisement is due when it was.
    assert_eq!(bench.expire(), SECOND / 2);
}

#[test]
fn master_advertises_at_its_interval_though_its_timer_is_late() {
    let mut bench = Bench::master(with(v3(), |instance| {
        instance.interval = Interval::Centiseconds(1);
        instance.garp.delay = Duration::ZERO;
    }));
    let begun = bench.now;
    let mut sent = 0;
    while bench.now < begun + SECOND {
        bench.now = bench.router.poll_timeout().unwrap() + Duration::from_micros(1100);
        bench.router.handle_timeout(bench.now);
        sent += bench.take().0.len();
    }
    assert_eq!(sent, 100);
}

#[test]
fn master_that_was_late_by_an_interval_does_not_make_up_for_it() {
    for late in [SECOND, 10 * SECOND] {
        let mut bench = Bench::master(with(v3(), |instance| instance.garp.delay = Duration::ZERO));
        bench.pass(SECOND + late);
        assert_eq!(bench.take().0, [100]);
        assert_eq!(bench.expire(), SECOND);
    }
}

#[test]
fn initialize_is_not_left_by_a_shutdown() {
    let mut bench = Bench::new(v3());
    bench.router.stop(bench.now);
    assert_eq!(bench.take(), (vec![], vec![]));
    assert_eq!((bench.router.state(), bench.router.poll_timeout()), (State::Initialize, None));
}

#[test]
fn initialize_forgets_the_interval_of_the_master_before() {
    let mut bench = Bench::backup(v3());
    let slow = with(v3(), |instance| instance.interval = Interval::Centiseconds(200));
    bench.hear_from(&slow, HIGHER_ADDRESS, 200).unwrap();
    bench.router.stop(bench.now);
    bench.router.start(bench.now, false);
    assert_eq!(bench.router.master_interval(), SECOND);
    assert_eq!(bench.expire(), 3 * SECOND + SECOND * 156 / 256);
}

#[test]
fn backup_timer_fires_and_it_advertises_announces_and_is_master() {
    let mut bench = Bench::backup(with(v3(), |instance| instance.garp.delay = Duration::ZERO));
    bench.expire();
    let (sent, events) = bench.take();
    let to_master = changed(State::Backup, State::Master, Reason::MasterDown);
    assert_eq!((sent, events), (vec![100], vec![to_master, Event::Announce { repeat: 5 }]));
    assert_eq!(bench.expire(), SECOND);
}

#[test]
fn backup_hears_priority_0_and_its_skew_is_of_the_interval_that_it_learned() {
    let mut bench = Bench::backup(v3());
    let fast = with(v3(), |instance| instance.interval = Interval::Centiseconds(10));
    bench.hear_from(&fast, HIGHER_ADDRESS, 200).unwrap();
    // Whatever the one that stops says now.
    bench.hear(HIGHER_ADDRESS, 0).unwrap();
    assert_eq!(bench.expire(), SECOND * 156 / 2560);
}

#[test]
fn backup_without_preemption_learns_the_interval_of_a_lower_priority() {
    let mut bench = Bench::backup(with(v3(), |instance| instance.preempt = Preempt::Never));
    let slow = with(v3(), |instance| instance.interval = Interval::Centiseconds(200));
    bench.hear_from(&slow, LOWER_ADDRESS, 1).unwrap();
    assert_eq!(bench.expire(), 6 * SECOND + 2 * SECOND * 156 / 256);
}

#[test]
fn backup_discards_a_lower_priority_and_learns_nothing_of_it() {
    let mut bench = Bench::backup(v3());
    let slow = with(v3(), |instance| instance.interval = Interval::Centiseconds(200));
    bench.hear_from(&slow, HIGHER_ADDRESS, 99).unwrap();
    assert_eq!(bench.router.master_interval(), SECOND);
    assert_eq!(bench.expire(), 3 * SECOND + SECOND * 156 / 256);
}

#[test]
fn master_hears_a_higher_priority_learns_its_interval_and_advertises_no_more() {
    let mut bench = Bench::master(v3());
    let slow = with(v3(), |instance| instance.interval = Interval::Centiseconds(200));
    bench.hear_from(&slow, LOWER_ADDRESS, 101).unwrap();
    assert_eq!(bench.router.master_interval(), 2 * SECOND);
    bench.take();
    bench.pass(6 * SECOND);
    assert!(bench.take().0.is_empty());
    assert_eq!(bench.expire(), 2 * SECOND * 156 / 256);
}

#[test]
fn master_hears_its_own_priority_of_a_lower_address_and_asserts_itself() {
    let mut bench = Bench::master(v3());
    bench.pass(SECOND / 2);
    bench.hear(LOWER_ADDRESS, 100).unwrap();
    assert_eq!(bench.take(), (vec![100], vec![Event::Announce { repeat: 5 }]));
    assert_eq!(bench.expire(), SECOND / 2);
}
