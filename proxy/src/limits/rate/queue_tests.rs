//! Who waits for turns, and who leaves.
#![allow(clippy::unwrap_used)]

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Wake, Waker},
    time::Duration,
};

use amphora_model::{
    RateLimitAction, RateLimitMetric, RateLimitPolicy, RateLimitQueue, arbitrary::Generator,
};

use super::{
    tests::{address, limits, policy, rule},
    *,
};

const SECOND: u64 = 1 << 32;

fn queue(number: u128, timeout: u64, threshold: u32, interval: u64) -> RateLimitPolicy {
    let queue = RateLimitQueue { timeout: Duration::from_secs(timeout), size: 100_000 };
    let rules = vec![rule(number, RateLimitMetric::Requests, threshold, interval)];
    policy(number, RateLimitAction::Queue(queue), rules)
}

/// Several queues at once: it passes when it has a turn of each, and a refusal by one gives back those of the others.
#[test]
fn who_waits_in_several_queues_has_a_turn_of_each() {
    let (_kept, limits) = limits(vec![queue(1, 60, 2, 10), queue(2, 7, 2, 6)]);
    let client = limits.client(address(1));
    let ask = |now| limits.request(client, client, b"/", Moment(now * SECOND)).map(|broken| broken.done);
    assert!(ask(1).is_none() && ask(1).is_none());
    let Some(Done::Wait(wait, turns)) = ask(1) else { panic!() };
    assert_eq!((wait.as_secs(), turns.len()), (5, 2));
    let Some(Done::Wait(wait, second)) = ask(1) else { panic!() };
    assert_eq!((wait.as_secs(), second.len()), (10, 2));
    // The other queue would have it wait for nine seconds.
    assert!(matches!(ask(1), Some(Done::Deny(_))));
    assert_eq!((limits.requests_state(0).waiting(), limits.requests_state(1).waiting()), (2, 2));
    drop(second);
    let waker = Waker::noop();
    assert_eq!(turns[0].look(Moment(5 * SECOND), waker), Some(Moment(6 * SECOND)));
    assert_eq!(turns[0].look(Moment(6 * SECOND), waker), None);
    assert_eq!(turns[1].look(Moment(6 * SECOND), waker), None);
    drop(turns);
    // What has passed is not given back, and what nobody has had is.
    let Some(Done::Wait(wait, _)) = ask(6) else { panic!() };
    assert_eq!(wait.as_secs(), 5);
}

/// Who has been let pass by another is in no line any more, also in that of who comes next.
#[test]
fn who_has_passed_is_nobody_who_waits() {
    let (_kept, limits) = limits(vec![queue(1, 60, 1, 1)]);
    let client = limits.client(address(1));
    let ask = |now| limits.request(client, client, b"/", Moment(now * SECOND)).map(|broken| broken.done);
    let waits = |now| match ask(now) {
        Some(Done::Wait(wait, turns)) => (wait.as_secs(), turns),
        other => panic!("{other:?}"),
    };
    assert!(ask(1).is_none());
    let [(1, first), (2, second)] = [waits(1), waits(1)] else { panic!() };
    assert_eq!(first[0].look(Moment(3 * SECOND), Waker::noop()), None);
    let (1, third) = waits(3) else { panic!() };
    assert_eq!(second[0].look(Moment(3 * SECOND), Waker::noop()), None);
    drop((first, second));
    let (2, _fourth) = waits(3) else { panic!("the third has lost its turn") };
    assert_eq!(third[0].look(Moment(3 * SECOND), Waker::noop()), Some(Moment(4 * SECOND)));
    assert_eq!(third[0].look(Moment(4 * SECOND), Waker::noop()), None);
}

/// Who comes when, and after how long it leaves if it still waits.
type Visit = (u64, Option<u64>);

/// One who waits.
struct Client {
    number: usize,
    turns: Vec<Waiting>,
    looks: u64,
    leaves: u64,
    told: Arc<Told>,
}

#[derive(Default)]
struct Told(AtomicBool);

impl Wake for Told {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Those look who want to at this moment, or were told to; who passes goes.
fn look(waiting: &mut Vec<Client>, now: u64, passed: &mut HashMap<usize, u64>) {
    loop {
        let wants = |client: &Client| client.looks <= now || client.told.0.load(Ordering::Relaxed);
        let Some(at) = waiting.iter().position(wants) else { return };
        let client = &mut waiting[at];
        client.told.0.store(false, Ordering::Relaxed);
        match client.turns[0].look(Moment(now), &Arc::clone(&client.told).into()) {
            Some(next) => client.looks = next.0,
            None => {
                passed.insert(client.number, now);
                waiting.remove(at);
            }
        }
    }
}

/// When each has passed of those who come, by its place in `visits`. Whose turn has come passes before anybody leaves, and that before
/// anybody comes.
fn passes(
    visits: &[Visit],
    comes: impl Fn(usize) -> bool,
    threshold: u32,
    interval: u64,
) -> HashMap<usize, u64> {
    let (_kept, limits) = limits(vec![queue(1, 60, threshold, interval)]);
    let client = limits.client(address(1));
    let mut come = visits.iter().copied().enumerate().filter(|(number, _)| comes(*number)).peekable();
    let mut waiting: Vec<Client> = Vec::new();
    let mut passed = HashMap::new();
    loop {
        let next = waiting.iter().map(|client| client.looks.min(client.leaves)).min();
        let Some(now) = next.into_iter().chain(come.peek().map(|(_, (at, _))| *at)).min() else { break };
        look(&mut waiting, now, &mut passed);
        waiting.retain(|client| client.leaves > now);
        look(&mut waiting, now, &mut passed);
        while let Some((number, (_, leaves))) = come.next_if(|(_, (at, _))| *at == now) {
            match limits.request(client, client, b"/", Moment(now)).map(|broken| broken.done) {
                None => drop(passed.insert(number, now)),
                Some(Done::Wait(_, turns)) => {
                    let leaves = leaves.map_or(u64::MAX, |after| now + after);
                    waiting.push(Client { number, turns, looks: now, leaves, told: Arc::default() });
                }
                Some(other) => panic!("{other:?}"),
            }
            look(&mut waiting, now, &mut passed);
        }
    }
    assert_eq!(limits.requests_state(0).waiting(), 0);
    passed
}

/// Everybody passes when he would have without those who leave, and never are there more than the threshold allows.
#[test]
fn who_leaves_is_as_if_he_had_never_come() {
    let mut left = 0;
    for seed in 0..500 {
        let mut random = Generator::new(seed);
        let (threshold, interval) = random.pick(&[(1, 1), (2, 1), (3, 2), (7, 3), (20, 1)]);
        let mut at = random.within(0..=3000) as u64 * SECOND / 1000;
        let visits: Vec<Visit> = (0..40)
            .map(|_| {
                at += random.pick(&[0, 0, 1, 50, 300, 900]) * SECOND / 1000;
                let leaves = random.one_in(2).then(|| random.within(1..=4000) as u64 * SECOND / 1000);
                (at, leaves)
            })
            .collect();
        let with = passes(&visits, |_| true, threshold, interval);
        let stays = |number| with.contains_key(&number);
        left += visits.len() - with.len();
        assert_eq!(with, passes(&visits, stays, threshold, interval), "seed {seed}");
        // The bucket that leaks exactly.
        let mut times: Vec<u64> = with.into_values().collect();
        times.sort_unstable();
        let (ahead, mut full) = (interval * SECOND, 0);
        for now in times {
            full = now.max(full) + ahead / u64::from(threshold);
            assert!(full - now <= ahead, "seed {seed}: more than {threshold} in {interval} s");
        }
    }
    assert!(left > 1000, "{left}");
}

/// Two threads come and leave at once: in the end nothing is lost and nobody is there.
#[test]
fn turns_that_are_given_back_at_once_are_all_there() {
    for _ in 0..50 {
        let (_kept, limits) = limits(vec![queue(1, 60, 1, 1)]);
        let client = limits.client(address(1));
        let ask = || limits.request(client, client, b"/", Moment(SECOND)).map(|broken| broken.done);
        assert!(ask().is_none());
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    for _ in 0..20 {
                        let turns: Vec<_> = (0..5).map(|_| ask().unwrap()).collect();
                        drop(turns);
                    }
                });
            }
        });
        let Some(Done::Wait(wait, _)) = ask() else { panic!() };
        assert_eq!((wait.as_secs(), limits.requests_state(0).waiting()), (1, 0));
    }
}
