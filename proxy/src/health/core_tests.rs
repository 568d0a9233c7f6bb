#![allow(clippy::unwrap_used)]

use std::{cmp::Reverse, collections::BinaryHeap, net::Ipv4Addr};

use super::*;

fn target(i: u32, delay: u64, rise: u8, fall: u8) -> Target {
    Target {
        address: Ipv4Addr::from(0x0a00_0000 + i).into(),
        port: 80,
        check: HealthCheck::Tcp.into(),
        delay: Duration::from_secs(delay),
        proxy_protocol: None,
        tls: None,
        timeout: Duration::from_secs(delay),
        rise,
        fall,
        first_check: false,
    }
}

/// Plays probes in simulated time.
struct Simulation {
    core: Scheduler,
    start: Instant,
    now: Instant,
    /// (end, nth, what).
    under_way: BinaryHeap<Reverse<(Instant, u64, TargetId)>>,
    verdicts: HashMap<u64, Verdict>,
    /// (start, address) of each probe.
    starts: Vec<(Duration, IpAddr)>,
    events: Vec<Event>,
}

impl Simulation {
    fn new(seed: u64, max_in_flight: usize) -> Self {
        let start = Instant::now();
        Self {
            core: Scheduler::new(seed, max_in_flight),
            start,
            now: start,
            under_way: BinaryHeap::new(),
            verdicts: HashMap::new(),
            starts: Vec::new(),
            events: Vec::new(),
        }
    }

    fn update(&mut self, targets: impl IntoIterator<Item = Target>) -> Vec<TargetId> {
        self.core.update(self.now, targets.into_iter().map(|target| (target, CheckState::NoCheck)))
    }

    /// Runs for `span`; `play` says how long each probe takes and what it says.
    fn run(&mut self, span: Duration, mut play: impl FnMut(Duration, &Target) -> (Duration, Verdict)) {
        let end = self.now + span;
        loop {
            self.core.handle_timeout(self.now);
            while let Some((id, target)) = self.core.poll_probe(self.now) {
                let at = self.now - self.start;
                let (takes, verdict) = play(at, &target);
                let nth = self.starts.len() as u64;
                self.starts.push((at, target.address));
                self.under_way.push(Reverse((self.now + takes, nth, id)));
                self.verdicts.insert(nth, verdict);
            }
            while let Some(event) = self.core.poll_event() {
                self.events.push(event);
            }
            self.check_invariants();
            let result = self.under_way.peek().map(|Reverse((at, ..))| *at);
            let next = [self.core.poll_timeout(), result].into_iter().flatten().min();
            match next.filter(|&next| next <= end) {
                None => break self.now = end,
                Some(next) => self.now = next.max(self.now),
            }
            if result == Some(self.now) {
                let Reverse((_, nth, id)) = self.under_way.pop().unwrap();
                let verdict = self.verdicts.remove(&nth).unwrap();
                self.core.handle_result(self.now, id, verdict);
            }
        }
    }

    fn check_invariants(&self) {
        assert_eq!(self.core.in_flight, self.under_way.len());
        assert!(self.core.in_flight <= self.core.max_in_flight);
        if self.core.len() > 100 {
            return; // The rest takes a look at every target.
        }
        let waiting = self.core.slots.iter().flat_map(|slot| &slot.entry).filter(|entry| entry.waiting);
        assert_eq!(waiting.count(), self.core.due.len());
        let live = self.core.slots.iter().filter(|slot| slot.entry.is_some()).count();
        assert_eq!(live, self.core.len());
        assert_eq!(live + self.core.free.len(), self.core.slots.len());
    }

    fn starts_of(&self, target: &Target) -> Vec<Duration> {
        self.starts.iter().filter(|(_, address)| *address == target.address).map(|(at, _)| *at).collect()
    }
}

const QUICK: Duration = Duration::from_millis(3);
const PASS: (Duration, Verdict) = (QUICK, Verdict::Passed);
const FAIL: (Duration, Verdict) = (QUICK, Verdict::Failed);

fn texts(rise: u8, fall: u8, results: &str) -> Vec<String> {
    let mut health = Health::new(CheckState::NoCheck, rise, fall);
    let mut texts = vec![health.state().to_string()];
    for result in results.bytes() {
        health.take(match result {
            b'+' => Verdict::Passed,
            b'-' => Verdict::Failed,
            _ => Verdict::Unknown,
        });
        texts.push(health.state().to_string());
    }
    texts
}

#[test]
fn states_are_those_that_haproxy_shows() {
    assert_eq!(texts(2, 3, "+"), ["UP 1/3", "UP"]);
    assert_eq!(texts(2, 3, "-"), ["UP 1/3", "DOWN"], "one failure at the start is enough");
    assert_eq!(texts(2, 3, "+---"), ["UP 1/3", "UP", "UP 2/3", "UP 1/3", "DOWN"]);
    assert_eq!(texts(2, 3, "+--+"), ["UP 1/3", "UP", "UP 2/3", "UP 1/3", "UP"]);
    assert_eq!(
        texts(3, 1, "-++-+++"),
        ["UP", "DOWN", "DOWN 1/3", "DOWN 2/3", "DOWN", "DOWN 1/3", "DOWN 2/3", "UP"]
    );
    assert_eq!(texts(1, 1, "+-+"), ["UP", "UP", "DOWN", "UP"]);
    assert_eq!(texts(2, 2, "?+?-?-"), ["UP 1/2", "UP 1/2", "UP", "UP", "UP 1/2", "UP 1/2", "DOWN"]);
}

#[test]
fn a_changed_check_keeps_the_state() {
    for state in [CheckState::Up, CheckState::Down] {
        assert_eq!(Health::new(state, 4, 7).state(), state);
    }
    let failing = CheckState::UpFailing { passed: 5, of: 9 };
    assert_eq!(Health::new(failing, 2, 3).state(), CheckState::Up);
    assert_eq!(Health::new(failing, 2, 9).state(), failing);
    let rising = CheckState::DownRising { passed: 5, of: 9 };
    assert_eq!(Health::new(rising, 3, 3).state(), CheckState::DownRising { passed: 2, of: 3 });
    assert_eq!(Health::new(rising, 1, 3).state(), CheckState::Down);
}

#[test]
fn one_target_is_probed_at_once_and_then_by_its_delay() {
    let mut sim = Simulation::new(1, 10);
    let a = target(1, 5, 1, 3);
    sim.update([a.clone()]);
    sim.run(Duration::from_secs(21), |_, _| PASS);
    assert_eq!(sim.starts_of(&a), [0, 5, 10, 15, 20].map(Duration::from_secs));
}

/// The starts of the first and the second probe of so many targets that come together, in their order.
fn first_two_starts(count: u32, delay: u64) -> Vec<[Duration; 2]> {
    let mut sim = Simulation::new(5, 1 << 20);
    sim.update((0..count).map(|i| target(i, delay, 1, 3)));
    sim.run(Duration::from_secs(2 * delay), |_, _| (Duration::ZERO, Verdict::Passed));
    let mut starts = HashMap::<IpAddr, Vec<Duration>>::new();
    sim.starts.iter().for_each(|(at, address)| starts.entry(*address).or_default().push(*at));
    (0..count).map(|i| starts[&target(i, delay, 1, 3).address][..2].try_into().unwrap()).collect()
}

#[test]
fn first_starts_have_equal_shares_of_a_window_that_grows_with_their_number() {
    for (count, delay, window) in [
        (1, 60, 0),
        (2, 60, 40),
        (10, 60, 200),
        (49, 60, 980),
        (200, 60, 1000),
        (1500, 60, 1500),
        (1500, 1, 1000),
    ] {
        let starts = first_two_starts(count, delay);
        let share = f64::from(window) / 1000.0 / f64::from(count);
        let places = starts.iter().zip(0..).map(|([first, _], i)| first.as_secs_f64() / share - f64::from(i));
        let places: Vec<f64> = if window == 0 { vec![starts[0][0].as_secs_f64()] } else { places.collect() };
        // Starts are rounded to nanoseconds.
        assert!(places.iter().all(|place| (-0.001..1.001).contains(place)), "{count}: {places:?}");
        if count > 100 {
            assert!(places.iter().any(|place| *place < 0.1) && places.iter().any(|place| *place > 0.9));
        }
    }
}

#[test]
fn second_starts_come_up_to_half_a_delay_early() {
    let starts = first_two_starts(1500, 60);
    let intervals: Vec<f64> = starts.iter().map(|[first, second]| (*second - *first).as_secs_f64()).collect();
    // A place on the grid is up to its step earlier: 60 s / 32.
    assert!(intervals.iter().all(|interval| (30.0 - 1.875..=60.0).contains(interval)));
    let within = |from: f64, to: f64| intervals.iter().filter(|at| (from..to).contains(*at)).count();
    let quarters = [within(28.0, 37.5), within(37.5, 45.0), within(45.0, 52.5), within(52.5, 61.0)];
    assert!(quarters.iter().all(|n| (300..450).contains(n)), "{quarters:?}");
}

#[test]
fn the_grid_is_a_sixteenth_of_the_delay_and_finer_for_many() {
    let origin = Instant::now();
    let place = |at: u64, delay: u64, targets: usize| {
        let at = origin + Duration::from_micros(at);
        (on_grid(origin, at, Duration::from_micros(delay), targets) - origin).as_micros()
    };
    assert_eq!(place(1_300_000, 1_600_000, 0), 1_300_000);
    assert_eq!(place(1_399_999, 1_600_000, 1), 1_300_000);
    // 48 on each point at the most: 16 points up to 815 targets, 32 up to 1583, and so on.
    assert_eq!(place(1_399_999, 1_600_000, 815), 1_300_000);
    assert_eq!(place(1_399_999, 1_600_000, 816), 1_350_000);
    assert_eq!(place(1_399_999, 1_600_000, 1583), 1_350_000);
    assert_eq!(place(1_399_999, 1_600_000, 1584), 1_375_000);
    assert_eq!(place(99_999_999, 6_553_600, 10_000_000), 99_999_900);
    assert_eq!(place(7, 0, 5), 7, "no delay, no grid");
}

#[test]
fn the_lateness_is_the_most_that_any_start_was_late() {
    let start = Instant::now();
    let at = |ms| start + Duration::from_millis(ms);
    let mut core = Scheduler::new(1, 1);
    assert!(core.is_empty());
    core.update(
        start,
        [(target(1, 5, 1, 1), CheckState::NoCheck), (target(2, 5, 1, 1), CheckState::NoCheck)],
    );
    assert_eq!((core.len(), core.is_empty(), core.in_flight()), (2, false, 0));
    core.handle_timeout(at(5000));
    let (first, _) = core.poll_probe(at(45)).unwrap();
    let late = core.max_lateness();
    assert!(late > Duration::from_millis(24) && late <= Duration::from_millis(45), "{late:?}");
    assert!(core.poll_probe(at(45)).is_none(), "as many as allowed are under way");
    assert_eq!(core.in_flight(), 1);
    core.handle_result(at(50), first, Verdict::Passed);
    assert_eq!(core.in_flight(), 0);
    core.poll_probe(at(45)).unwrap();
    assert!(core.max_lateness() >= late, "one that was less late changes nothing");
    core.update(at(60), []);
    assert_eq!((core.len(), core.is_empty(), core.poll_timeout()), (0, true, None));
}

#[test]
fn a_probe_that_takes_whole_delays_is_followed_at_the_next_start() {
    for (takes, next) in [(4_999, 5_000), (5_000, 5_000), (5_001, 10_000), (10_000, 10_000), (10_001, 15_000)]
    {
        let start = Instant::now();
        let mut core = Scheduler::new(1, 1);
        core.update(start, [(target(1, 5, 1, 1), CheckState::NoCheck)]);
        assert_eq!(core.poll_timeout(), Some(start));
        core.handle_timeout(start);
        let (id, _) = core.poll_probe(start).unwrap();
        assert_eq!(core.poll_timeout(), None);
        core.handle_result(start + Duration::from_millis(takes), id, Verdict::Passed);
        assert_eq!(core.poll_timeout(), Some(start + Duration::from_millis(next)), "{takes}");
    }
}

#[test]
fn a_first_probe_that_outlives_the_shortened_interval_is_followed_within_the_whole_one() {
    for seed in 0..20 {
        let mut sim = Simulation::new(seed, 1000);
        let targets: Vec<Target> = (0..64).map(|i| target(i, 5, 1, 1)).collect();
        sim.update(targets.clone());
        sim.run(Duration::from_secs(12), |at, _| {
            let takes = if at < Duration::from_secs(2) { 4000 } else { 1 };
            (Duration::from_millis(takes), Verdict::Passed)
        });
        for target in &targets {
            let starts = sim.starts_of(target);
            let interval = (starts[1] - starts[0]).as_secs_f64();
            assert!((4.0..=5.0).contains(&interval), "{interval}");
        }
    }
}

#[test]
fn a_target_of_many_members_is_probed_once() {
    let mut sim = Simulation::new(1, 10);
    let a = target(1, 5, 1, 3);
    let ids = sim.update([a.clone(), a.clone(), a.clone()]);
    assert!(ids.iter().all(|id| *id == ids[0]));
    sim.run(Duration::from_secs(6), |_, _| PASS);
    assert_eq!(sim.starts.len(), 2);
    // Another rise is another target.
    let ids = sim.update([a.clone(), Target { rise: 2, ..a }]);
    assert_ne!(ids[0], ids[1]);
}

#[test]
fn a_slow_probe_leaves_out_starts_and_keeps_the_timetable() {
    let mut sim = Simulation::new(1, 10);
    let a = target(1, 5, 1, 3);
    sim.update([a.clone()]);
    sim.run(Duration::from_secs(31), |at, _| match at.as_secs() {
        5 => (Duration::from_secs(12), Verdict::Failed),
        _ => PASS,
    });
    assert_eq!(sim.starts_of(&a), [0, 5, 20, 25, 30].map(Duration::from_secs));
}

#[test]
fn a_failing_target_goes_down_and_comes_back_in_the_time_it_says() {
    let mut sim = Simulation::new(1, 10);
    let ids = sim.update([target(1, 5, 2, 3)]);
    sim.run(Duration::from_secs(60), |at, _| if (8..30).contains(&at.as_secs()) { FAIL } else { PASS });
    // UP; failures at 10, 15, 20, 25; successes from 30.
    let states: Vec<String> = sim.events.iter().map(|event| event.state.to_string()).collect();
    assert_eq!(states, ["UP", "UP 2/3", "UP 1/3", "DOWN", "DOWN 1/2", "UP"]);
    assert_eq!(sim.core.state(ids[0]), CheckState::Up);
}

#[test]
fn an_update_keeps_what_stays() {
    let mut sim = Simulation::new(1, 10);
    let (a, b, c) = (target(1, 5, 1, 2), target(2, 5, 1, 2), target(3, 5, 1, 2));
    let before = sim.update([a.clone(), b.clone()]);
    sim.run(Duration::from_secs(12), |_, target| if target.address == a.address { FAIL } else { PASS });
    assert_eq!(sim.core.state(before[0]), CheckState::Down);
    let timetable = sim.starts_of(&a);
    let after = sim.update([c.clone(), a.clone()]);
    assert_eq!(after[1], before[0]);
    assert_eq!(sim.core.state(before[0]), CheckState::Down);
    assert_eq!(sim.core.state(before[1]), CheckState::NoCheck, "gone");
    let probes_of_b = sim.starts_of(&b).len();
    sim.run(Duration::from_secs(12), |_, _| PASS);
    assert_eq!(sim.starts_of(&b).len(), probes_of_b);
    let times = sim.starts_of(&a);
    assert_eq!(times[timetable.len()], timetable[timetable.len() - 1] + Duration::from_secs(5));
    assert_eq!(sim.core.state(before[0]), CheckState::Up);
}

#[test]
fn a_result_of_a_target_that_is_gone_changes_nothing() {
    let mut core = Scheduler::new(1, 10);
    let now = Instant::now();
    core.update(now, [(target(1, 5, 1, 1), CheckState::Up)]);
    core.handle_timeout(now);
    let (id, _) = core.poll_probe(now).unwrap();
    core.update(now, []);
    let new = core.update(now, [(target(2, 5, 1, 1), CheckState::Up)])[0];
    assert_eq!(new.slot, id.slot, "the slot is used again");
    core.handle_result(now, id, Verdict::Failed);
    assert_eq!((core.state(new), core.in_flight(), core.poll_event()), (CheckState::Up, 0, None));
}

#[test]
fn five_thousand_targets_are_spread_and_on_time() {
    let mut sim = Simulation::new(7, 4096);
    sim.update((0..5000).map(|i| target(i, 5, 1, 3)));
    // Half of them hang until their time is out.
    let hanging = (Duration::from_secs(3), Verdict::Failed);
    sim.run(Duration::from_secs(60), |_, t| if t.address.is_ipv4() && odd(t) { hanging } else { PASS });
    assert_eq!(sim.core.max_lateness(), Duration::ZERO);
    let mut per_100_ms = HashMap::<u128, u32>::new();
    sim.starts.iter().for_each(|(at, _)| *per_100_ms.entry(at.as_millis() / 100).or_default() += 1);
    // Even would be 100.
    let peak = per_100_ms.values().max().unwrap();
    assert!(*peak < 200, "{peak}");
    for i in [0, 1, 2500, 4999] {
        let starts = sim.starts_of(&target(i, 5, 1, 3));
        assert!(starts[0] <= Duration::from_secs(5));
        assert!(starts.windows(2).all(|pair| pair[1] - pair[0] <= Duration::from_secs(5)));
        assert!(starts.windows(2).skip(1).all(|pair| pair[1] - pair[0] == Duration::from_secs(5)));
    }
}

fn odd(target: &Target) -> bool {
    matches!(target.address, IpAddr::V4(ip) if ip.to_bits() % 2 == 1)
}

#[test]
fn probes_beyond_the_bound_wait_their_turn() {
    let mut sim = Simulation::new(7, 10);
    sim.update((0..100).map(|i| target(i, 10, 1, 3)));
    sim.run(Duration::from_secs(120), |_, _| (Duration::from_millis(500), Verdict::Passed));
    // 10 at once, 0.5 s each: 20 a second, enough for 100 in 10 s.
    assert!(sim.core.max_lateness() < Duration::from_secs(5), "{:?}", sim.core.max_lateness());
    for i in 0..100 {
        assert!(sim.starts_of(&target(i, 10, 1, 3)).len() >= 12);
    }
}

#[test]
fn the_timetable_depends_on_the_seed_alone() {
    let starts = |seed| {
        let mut sim = Simulation::new(seed, 100);
        sim.update((0..50).map(|i| target(i, 5, 1, 3)));
        sim.run(Duration::from_secs(30), |_, _| PASS);
        sim.starts
    };
    assert_eq!(starts(3), starts(3));
    assert_ne!(starts(3), starts(4));
}

/// Random updates, results and times, replayed by seed; the invariants are checked after every step, and at
/// the end every target's state is what its results say.
#[test]
fn anything_may_happen_in_any_order() {
    for seed in 0..256u64 {
        let mut random = seed;
        let mut roll = move |n: u64| {
            random = random.wrapping_add(0x9e37_79b9_7f4a_7c15);
            mix(random) % n
        };
        let mut sim = Simulation::new(seed, 1 + roll(20) as usize);
        for _ in 0..20 {
            let present: Vec<u32> = (0..30).filter(|_| roll(2) == 0).collect();
            let fall = 1 + roll(2) as u8;
            let ids = sim.update(present.iter().map(|&i| target(i, 1 + u64::from(i % 5), 1, fall)));
            assert_eq!((ids.len(), sim.core.len()), (present.len(), present.len()));
            let span = Duration::from_millis(roll(9000));
            sim.run(span, |_, target| {
                let takes = Duration::from_millis(roll(target.timeout.as_millis() as u64 + 1));
                (takes, [Verdict::Passed, Verdict::Failed, Verdict::Unknown][roll(3) as usize])
            });
        }
        let last = sim.update((0..30).map(|i| target(i, 1, 2, 2)));
        sim.run(Duration::from_secs(20), |_, target| if odd(target) { FAIL } else { PASS });
        for (i, id) in last.iter().enumerate() {
            let want = if i % 2 == 1 { CheckState::Down } else { CheckState::Up };
            assert_eq!(sim.core.state(*id), want, "seed {seed}");
        }
    }
}

#[test]
fn a_target_that_is_to_be_looked_at_first_is_down_until_a_probe_has_passed() {
    for (rise, state) in [(1, CheckState::Down), (3, CheckState::DownRising { passed: 2, of: 3 })] {
        let begun = Instant::now();
        let mut scheduler = Scheduler::new(1, 10);
        let target = Target { first_check: true, ..target(1, 5, rise, 3) };
        let id = scheduler.update(begun, [(target.clone(), CheckState::NoCheck)])[0];
        assert_eq!(scheduler.state(id), state);
        scheduler.handle_timeout(begun);
        assert!(scheduler.poll_probe(begun).is_some());
        scheduler.handle_result(begun, id, Verdict::Passed);
        assert_eq!(scheduler.state(id), CheckState::Up);
        // One that is known is not looked at anew.
        let other = Target { fall: 9, ..target };
        let id = scheduler.update(begun, [(other, CheckState::Up)])[0];
        assert_eq!(scheduler.state(id), CheckState::Up);
    }
}
