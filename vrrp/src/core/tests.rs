//! Every transition of RFC 9568 section 6.4, by name, and keepalived's.

#![allow(clippy::unwrap_used)]

use std::{
    net::{IpAddr, Ipv4Addr},
    time::{Duration, Instant},
};

use super::{Event, Reason, Router, State, Transmit};
use crate::{
    config::{Garp, Instance, Preempt, Unicast},
    fixture::{GROUP, VIP, instance, v2, v3},
    packet::{Auth, Envelope, Interval, Pseudo, Refusal},
};

const SECOND: Duration = Duration::from_secs(1);
const ME: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2));
const LOWER_ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
const HIGHER_ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 3));

/// A router with a clock.
struct Bench {
    router: Router,
    now: Instant,
}

impl Bench {
    fn new(instance: Instance) -> Self {
        Self { router: Router::new(instance, ME, GROUP), now: Instant::now() }
    }

    fn started(instance: Instance) -> Self {
        let mut bench = Self::new(instance);
        bench.router.start(bench.now, false);
        bench
    }

    /// A backup that has become master, with nothing left to do.
    fn master(instance: Instance) -> Self {
        let mut bench = Self::started(instance);
        bench.expire();
        assert_eq!(bench.router.state(), State::Master);
        bench.take();
        bench
    }

    fn backup(instance: Instance) -> Self {
        let mut bench = Self::started(instance);
        assert_eq!(bench.router.state(), State::Backup);
        bench.take();
        bench
    }

    /// Lets time pass until the next timeout, and says how long that was.
    fn expire(&mut self) -> Duration {
        let at = self.router.poll_timeout().expect("a timer runs");
        let waited = at - self.now;
        self.now = at;
        self.router.handle_timeout(at);
        waited
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.router.handle_timeout(self.now);
    }

    fn hear(&mut self, source: IpAddr, priority: u8) -> Result<(), Refusal> {
        let instance = self.router.instance().clone();
        self.hear_from(&instance, source, priority)
    }

    /// As a router configured so would say it.
    fn hear_from(&mut self, instance: &Instance, source: IpAddr, priority: u8) -> Result<(), Refusal> {
        let destination = if instance.unicast.is_some() { ME } else { GROUP };
        let sender = Router::new(instance.clone(), source, GROUP);
        let message = sender
            .advertisement(Transmit { priority, old_checksum: false })
            .encode(Pseudo { source, destination });
        let envelope = Envelope { source, destination, ttl: Some(255) };
        self.router.handle_packet(self.now, &envelope, &message)
    }

    /// Priorities sent and events, all that there are.
    fn take(&mut self) -> (Vec<u8>, Vec<Event>) {
        let sent = std::iter::from_fn(|| self.router.poll_transmit()).map(|sent| sent.priority).collect();
        (sent, std::iter::from_fn(|| self.router.poll_event()).collect())
    }
}

fn changed(from: State, to: State, reason: Reason) -> Event {
    Event::Changed { from, to, reason }
}

fn with(instance: Instance, change: impl FnOnce(&mut Instance)) -> Instance {
    let mut instance = instance;
    change(&mut instance);
    instance
}

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
fn initialize_refuses_what_comes() {
    let mut bench = Bench::new(v3());
    assert_eq!(bench.hear(HIGHER_ADDRESS, 200), Err(Refusal::Inactive));
    assert_eq!(bench.router.counters().refused(Refusal::Inactive), 1);
    assert_eq!(bench.router.counters().received, 0);
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
fn backup_refuses_another_interval_in_version_2() {
    let mut bench = Bench::backup(v2());
    let other = with(v2(), |instance| instance.interval = Interval::Seconds(2));
    assert_eq!(bench.hear_from(&other, HIGHER_ADDRESS, 200), Err(Refusal::Interval));
}

#[test]
fn an_interval_of_nothing_is_refused() {
    let mut bench = Bench::backup(v3());
    let none = with(v3(), |instance| instance.interval = Interval::Centiseconds(0));
    assert_eq!(bench.hear_from(&none, HIGHER_ADDRESS, 200), Err(Refusal::Interval));
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
    assert_eq!(bench.take(), (vec![100], vec![]));
    assert_eq!(bench.expire(), SECOND);
}

#[test]
fn master_hears_a_higher_priority_and_becomes_backup() {
    let mut bench = Bench::master(v3());
    bench.hear(LOWER_ADDRESS, 101).unwrap();
    let to_backup = changed(State::Master, State::Backup, Reason::HigherPriority);
    assert_eq!(bench.take(), (vec![], vec![to_backup]));
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
fn two_owners_settle_it_by_their_addresses() {
    let mut bench = Bench::started(with(v3(), |instance| instance.priority = 255));
    bench.take();
    bench.hear(HIGHER_ADDRESS, 255).unwrap();
    let (_, events) = bench.take();
    assert_eq!(events[0], Event::OwnerConflict(HIGHER_ADDRESS));
    assert_eq!((bench.router.priority(), bench.router.state()), (254, State::Backup));
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
    assert_eq!(bench.take(), (vec![100], vec![Event::HandOverFailed]));
    assert!(!bench.router.has_abdicated());
    assert_eq!(bench.expire(), SECOND);
}

#[test]
fn only_a_master_hands_over() {
    let mut bench = Bench::backup(v2());
    assert!(!bench.router.hand_over(bench.now));
    assert!(!bench.router.has_abdicated());
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
fn a_reconfigured_master_stays_master_and_says_what_is_new() {
    let mut bench = Bench::master(v2());
    let changed = with(v2(), |instance| instance.priority = 50);
    bench.router.reconfigure(bench.now, changed.clone(), ME);
    assert_eq!(bench.take(), (vec![50], vec![Event::Reconfigured]));
    assert_eq!(bench.router.state(), State::Master);
    bench.router.reconfigure(bench.now, changed, ME);
    assert_eq!(bench.take(), (vec![], vec![]));
}

#[test]
fn what_is_not_for_this_router_is_refused_and_counted_by_its_reason() {
    let cases: [(Refusal, Instance); 6] = [
        (Refusal::Version, with(v3(), |instance| instance.vrid = 7)),
        (Refusal::Vrid, with(v2(), |instance| instance.vrid = 8)),
        (Refusal::AuthMismatch, with(v2(), |instance| instance.auth = Auth::None)),
        (Refusal::AuthFailure, with(v2(), |instance| instance.auth = Auth::Password(*b"wrong\0\0\0"))),
        (Refusal::Addresses, with(v2(), |instance| instance.addresses.clear())),
        (Refusal::Destination, unicast(v2(), &[HIGHER_ADDRESS])),
    ];
    for (reason, sender) in cases {
        for state in [State::Backup, State::Master] {
            let mut bench = if state == State::Backup { Bench::backup(v2()) } else { Bench::master(v2()) };
            assert_eq!(bench.hear_from(&sender, HIGHER_ADDRESS, 200), Err(reason));
            assert_eq!(bench.router.state(), state);
            assert_eq!(bench.router.counters().refused(reason), 1);
            assert_eq!(bench.take(), (vec![], vec![]));
        }
    }
    let mut bench = Bench::backup(v2());
    assert_eq!(bench.hear(ME, 200), Err(Refusal::Own));
    let other = with(v2(), |instance| {
        instance.addresses[0].net = "192.0.2.78/32".parse().unwrap();
    });
    assert_eq!(bench.hear_from(&other, HIGHER_ADDRESS, 200), Err(Refusal::Addresses));
}

#[test]
fn a_ttl_below_255_is_refused_of_multicast_alone() {
    for (instance, outcome) in [(v2(), Err(Refusal::Ttl)), (unicast(v2(), &[HIGHER_ADDRESS]), Ok(()))] {
        let mut bench = Bench::backup(instance.clone());
        let destination = if instance.unicast.is_some() { ME } else { GROUP };
        let sender = Router::new(instance, HIGHER_ADDRESS, GROUP);
        let message = sender
            .advertisement(Transmit { priority: 200, old_checksum: false })
            .encode(Pseudo { source: HIGHER_ADDRESS, destination });
        let envelope = Envelope { source: HIGHER_ADDRESS, destination, ttl: Some(64) };
        assert_eq!(bench.router.handle_packet(bench.now, &envelope, &message), outcome);
    }
}

#[test]
fn a_stranger_is_refused_where_that_is_asked_for() {
    for (check, outcome) in [(true, Err(Refusal::Peer)), (false, Ok(()))] {
        let mut instance = unicast(v2(), &[HIGHER_ADDRESS]);
        if let Some(unicast) = &mut instance.unicast {
            unicast.check_source = check;
        }
        assert_eq!(Bench::backup(instance).hear(LOWER_ADDRESS, 200), outcome);
    }
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

fn unicast(mut instance: Instance, peers: &[IpAddr]) -> Instance {
    instance.unicast = Some(Unicast { source: ME, peers: peers.to_vec(), check_source: false });
    instance
}
