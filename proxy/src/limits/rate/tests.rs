//! Rate limits beside a model that remembers every request, and what 1,000,000 addresses can do to them.
#![allow(clippy::unwrap_used)]

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

use amphora_model::{
    Listener, RateLimitAction, RateLimitMetric, RateLimitPolicy, RateLimitPolicyId, RateLimitQueue,
    RateLimitRule, RateLimitRuleId, arbitrary::Generator,
};
use uuid::Uuid;

use super::*;

pub(crate) fn rule(number: u128, metric: RateLimitMetric, threshold: u32, interval: u64) -> RateLimitRule {
    RateLimitRule {
        id: RateLimitRuleId(Uuid::from_u128(number)),
        name: String::new(),
        metric,
        threshold,
        interval: Duration::from_secs(interval),
        urls: Vec::new(),
    }
}

pub(crate) fn policy(number: u128, action: RateLimitAction, rules: Vec<RateLimitRule>) -> RateLimitPolicy {
    let id = RateLimitPolicyId(Uuid::from_u128(number));
    RateLimitPolicy { id, name: String::new(), enabled: true, action, rules }
}

fn a_listener() -> Listener {
    let mut listeners = (1..).flat_map(|seed| amphora_model::arbitrary::load_balancer(seed).listeners);
    Listener { trusted_proxies: None, ..listeners.next().unwrap() }
}

pub(crate) fn limits(policies: Vec<RateLimitPolicy>) -> (Kept, RateLimits) {
    let listener = Listener { rate_limit_policies: policies, ..a_listener() };
    let nothing = Kept::default();
    let mut successor = Kept::after(&nothing);
    let limits = RateLimits::compile(&listener, None, &mut successor, 1).unwrap();
    (successor.into_kept(), limits)
}

pub(crate) fn address(number: u32) -> IpAddr {
    Ipv4Addr::from_bits(0x0a00_0000 + number).into()
}

fn at(millis: u64) -> Moment {
    Moment::after(Duration::from_millis(millis))
}

/// Remembers when each request came.
#[derive(Default)]
struct Model {
    came: HashMap<(usize, u32, u8), Vec<u64>>,
}

impl Model {
    /// Counts one, and says how many of a window there are: HAProxy's arithmetic on what was remembered, in ms.
    fn add(&mut self, rule: usize, client: u32, url: u8, now: u64, interval: u64) -> u64 {
        let came = self.came.entry((rule, client, url)).or_default();
        came.push(now);
        let period = now / interval;
        let of = |wanted: u64| came.iter().filter(|at| **at / interval == wanted).count() as u64;
        let before = period.checked_sub(1).map_or(0, of);
        of(period) + before * (interval - now % interval) / interval
    }
}

/// Before anything is counted it is known what will be done with it, and asking changes nothing.
#[test]
fn what_is_foreseen_is_what_is_done() {
    let mut done = [0; 5];
    for seed in 0..200 {
        let mut random = Generator::new(seed);
        let policies: Vec<RateLimitPolicy> = (0..random.within(1..=4) as u128)
            .map(|number| {
                let queue = RateLimitQueue { size: 2, timeout: Duration::from_secs(3) };
                let action = random.pick(&[
                    RateLimitAction::Deny,
                    RateLimitAction::Reject,
                    RateLimitAction::SilentDrop,
                    RateLimitAction::Queue(queue),
                ]);
                let most = if matches!(action, RateLimitAction::Queue(_)) { 1 } else { 2 };
                let rules = (0..random.within(1..=most) as u128).map(|at| {
                    let metric = random.pick(&[RateLimitMetric::Requests, RateLimitMetric::RequestsPerUrl]);
                    let mut rule = rule(
                        number * 10 + at,
                        metric,
                        random.within(1..=20) as u32,
                        random.pick(&[1, 2, 10, 30]),
                    );
                    if metric == RateLimitMetric::RequestsPerUrl && random.one_in(2) {
                        rule.urls = vec!["/1".into(), "/0".into()];
                    }
                    rule
                });
                policy(number, action, rules.collect())
            })
            .collect();
        let (_kept, limits) = limits(policies);
        let mut clock = 0;
        let mut places = Vec::new();
        for _ in 0..300 {
            clock += random.pick(&[0, 0, 1, 20, 100, 400, 3000]);
            if random.one_in(3) {
                places.pop();
            }
            let client = address(random.within(0..=2) as u32);
            let path = format!("/{}", random.within(0..=2));
            let asked = Asked { client, peer: client, request: Some((path.as_bytes(), 100)), now: at(clock) };
            let look = limits.look(&asked);
            assert_eq!(look.policies.len(), limits.look(&asked).policies.len());
            let of = limits.client(client);
            let broken = limits.request(of, of, path.as_bytes(), at(clock));
            let foreseen = look.decides.map(|at| (look.policies[at].id, look.policies[at].foreseen.unwrap()));
            let Some(broken) = broken else {
                assert_eq!(foreseen, None, "seed {seed}");
                done[0] += 1;
                continue;
            };
            let id = broken.policy.id;
            let (happened, kind) = match broken.done {
                Done::Deny(wait) => (Foreseen::Deny(wait), 1),
                Done::Reject => (Foreseen::Reject, 2),
                Done::SilentDrop => (Foreseen::SilentDrop, 3),
                Done::Wait(wait, place) => {
                    places.push(place);
                    (Foreseen::Wait(wait), 4)
                }
            };
            done[kind] += 1;
            assert_eq!(foreseen, Some((id, happened)), "seed {seed}");
        }
    }
    assert!(done.iter().all(|times| *times > 100), "each has happened: {done:?}");
}

/// Who is asked about is told how much of what was counted, in which of his networks.
#[test]
fn it_is_told_how_many_of_how_many() {
    let kbytes = rule(2, RateLimitMetric::Kbytes, 4, 30);
    let (_kept, limits) = limits(vec![
        policy(1, RateLimitAction::Deny, vec![rule(1, RateLimitMetric::Requests, 5, 30)]),
        policy(2, RateLimitAction::Reject, vec![kbytes]),
        policy(3, RateLimitAction::Reject, vec![rule(3, RateLimitMetric::Connections, 2, 30)]),
    ]);
    let client: IpAddr = "2001:db8:1:2:3::4".parse().unwrap();
    let asked = |request| Asked { client, peer: client, request, now: at(60_000) };
    let of = limits.client(client);
    for _ in 0..5 {
        assert!(limits.request(of, of, b"/", at(60_000)).is_none());
    }
    limits.bytes(of, 3 * 1024, at(60_000));
    for _ in 0..2 {
        assert!(limits.connection(of, at(60_000)).is_none());
    }
    let told = |look: &Look| {
        let told = look.policies.iter().map(|seen| (seen.rules[0].count, seen.foreseen.is_some()));
        told.collect::<Vec<_>>()
    };
    let look = limits.look(&asked(Some((b"/", 100))));
    assert_eq!(
        told(&look),
        [(Some(2), true), (Some(5), true), (Some(3), false)],
        "those of connections first"
    );
    assert_eq!(look.decides, Some(0));
    assert_eq!(look.policies[1].rules[0].of.to_string(), "2001:db8:1:2::");
    let larger = limits.look(&asked(Some((b"/", 2000))));
    assert_eq!(told(&larger)[2], (Some(3), true), "its own head counts");
    // Bytes end sessions that carry no requests.
    limits.bytes(of, 3 * 1024, at(60_000));
    let session = limits.look(&asked(None));
    assert_eq!(session.policies[1].foreseen, None);
    assert_eq!(session.policies[2].foreseen, Some(Foreseen::Cut));
}

/// Over one worker and over two, whose clocks differ by what a batch of events takes, whatever comes: the same answer as from the model
/// that has all of it.
#[test]
fn it_judges_as_a_model_that_counts_exactly() {
    for seed in 0..300 {
        let mut random = Generator::new(seed);
        let intervals = [1, 2, 10, 30];
        let policies: Vec<RateLimitPolicy> = (0..random.within(1..=4) as u128)
            .map(|number| {
                let action = random.pick(&[
                    RateLimitAction::Deny,
                    RateLimitAction::Reject,
                    RateLimitAction::SilentDrop,
                ]);
                let rules = (0..random.within(1..=3) as u128).map(|at| {
                    let metric = random.pick(&[RateLimitMetric::Requests, RateLimitMetric::RequestsPerUrl]);
                    let mut rule =
                        rule(number * 10 + at, metric, random.within(1..=20) as u32, random.pick(&intervals));
                    if metric == RateLimitMetric::RequestsPerUrl && random.one_in(2) {
                        rule.urls = vec!["/1".into(), "/0".into()];
                    }
                    rule
                });
                policy(number, action, rules.collect())
            })
            .collect();
        let (_kept, limits) = limits(policies.clone());
        let mut model = Model::default();
        let mut clock = 0;
        for _ in 0..600 {
            clock += random.pick(&[0, 0, 1, 20, 100, 400, 3000]);
            // Two workers, of whom one has looked at the clock a little earlier, but not in another period.
            let late = if random.one_in(2) { clock % 1000 % 7 } else { 0 };
            let now = clock - late;
            let client = random.within(0..=3) as u32;
            let url = random.within(0..=2) as u8;
            let mut expected = None;
            let mut number = 0;
            for (at, policy) in policies.iter().enumerate() {
                let mut all = true;
                for rule in &policy.rules {
                    number += 1;
                    let counts = rule.urls.is_empty() || url < 2;
                    let url = if rule.metric == RateLimitMetric::RequestsPerUrl { url } else { 9 };
                    let interval = rule.interval.as_millis() as u64;
                    let broken =
                        counts && model.add(number, client, url, now, interval) > u64::from(rule.threshold);
                    all &= broken;
                }
                if all && expected.is_none() {
                    expected = Some(at);
                }
            }
            let hash = limits.client(address(client));
            let found = limits.request(hash, hash, format!("/{url}").as_bytes(), at(now));
            let expected = expected.map(|at| policies[at].id);
            assert_eq!(found.map(|broken| broken.policy.id), expected, "seed {seed}, {now} ms");
        }
    }
}

/// Whoever is told when to come again passes then, and would not have a second sooner.
#[test]
fn who_comes_again_when_told_passes() {
    for seed in 0..200 {
        let mut random = Generator::new(seed);
        let interval = random.pick(&[1, 10, 30]);
        let threshold = random.within(1..=20) as u32;
        let (_kept, limits) = limits(vec![policy(
            1,
            RateLimitAction::Deny,
            vec![rule(1, RateLimitMetric::Requests, threshold, interval)],
        )]);
        let client = limits.client(address(1));
        let mut now = random.within(0..=60_000) as u64;
        let mut denied = 0;
        for _ in 0..200 {
            now += random.within(0..=1000 * interval as usize / 10) as u64;
            let Some(Broken { done: Done::Deny(wait), .. }) = limits.request(client, client, b"/", at(now))
            else {
                continue;
            };
            denied += 1;
            now += wait.as_millis() as u64 + 2;
            assert!(limits.request(client, client, b"/", at(now)).is_none(), "seed {seed}: after {wait:?}");
        }
        assert!(denied > 0 || threshold > 5);
    }
}

#[test]
fn what_is_too_fast_waits_for_its_turn() {
    let queue = RateLimitQueue { timeout: Duration::from_secs(2), size: 3 };
    let (_kept, limits) = limits(vec![policy(
        1,
        RateLimitAction::Queue(queue),
        vec![rule(1, RateLimitMetric::Requests, 10, 10)],
    )]);
    let client = limits.client(address(1));
    for _ in 0..10 {
        assert!(limits.request(client, client, b"/", at(0)).is_none());
    }
    let waits = |now| match limits.request(client, client, b"/", at(now)).unwrap().done {
        Done::Wait(wait, waiting) => Some((wait.as_secs(), waiting)),
        _ => None,
    };
    let first = waits(0).unwrap();
    let second = waits(0).unwrap();
    assert_eq!((first.0, second.0), (1, 2));
    assert!(waits(0).is_none(), "it would wait for three seconds");
    let third = waits(1000).unwrap();
    assert_eq!(third.0, 2);
    let state = &limits.requests_state(0);
    assert_eq!(state.waiting(), 3);
    assert!(waits(2000).is_none(), "there is no place any more");
    drop((first, second, third));
    assert_eq!(state.waiting(), 0);
    // The turn of the first had come when the third came; the others have left theirs.
    assert_eq!(waits(1000).unwrap().0, 1);
    assert!(limits.request(client, client, b"/", at(60_000)).is_none());
}

/// Whatever the threshold, what passes is as much as it says, and little more.
#[test]
fn bytes_are_counted_in_units_that_fit() {
    for (threshold, piece) in [(1, 100), (1000, 1500), (100_000, 60_000), (i32::MAX as u32, 1 << 30)] {
        let (_kept, limits) = limits(vec![policy(
            1,
            RateLimitAction::Reject,
            vec![rule(1, RateLimitMetric::Kbytes, threshold, 86_400)],
        )]);
        assert!(limits.counts_bytes());
        let client = limits.client(address(1));
        let mut passed = 0_u64;
        while limits.bytes(client, piece, Moment::after(Duration::from_nanos(passed))).is_none() {
            assert!(limits.request(client, client, b"/", at(1)).is_none());
            passed += piece;
        }
        let allowed = u64::from(threshold) * 1024;
        assert!(
            passed + piece > allowed - allowed / 1000 && passed <= allowed + allowed / 1000,
            "{threshold}: {passed}"
        );
        // The next request meets it.
        assert!(limits.request(client, client, b"/", at(1)).is_some());
        let other = limits.client(address(2));
        assert!(limits.request(other, other, b"/", at(1)).is_none());
    }
}

/// What is counted lives on while a rule keeps its id, and what a policy has done while it keeps its own.
#[test]
fn counts_outlive_a_change() {
    let deny =
        |threshold| policy(1, RateLimitAction::Deny, vec![rule(1, RateLimitMetric::Requests, threshold, 10)]);
    let (kept, limits) = limits(vec![deny(5)]);
    let client = limits.client(address(1));
    for _ in 0..5 {
        assert!(limits.request(client, client, b"/", at(0)).is_none());
    }
    let mut listener = a_listener();
    listener.rate_limit_policies =
        vec![policy(2, RateLimitAction::Reject, vec![rule(2, RateLimitMetric::Requests, 100, 10)]), deny(6)];
    let mut successor = Kept::after(&kept);
    let after = RateLimits::compile(&listener, None, &mut successor, 1).unwrap();
    assert!(after.request(client, client, b"/", at(0)).is_none(), "the sixth");
    let broken = after.request(client, client, b"/", at(0)).unwrap();
    assert!(Arc::ptr_eq(broken.policy, kept.policy(RateLimitPolicyId(Uuid::from_u128(1))).unwrap()));
}

/// Nobody has had more because it is counted in other units, and what was counted is known as long as these are fine enough.
#[test]
fn another_threshold_of_bytes_makes_nobody_guilty() {
    const MIB: u32 = 1024;
    let kbytes = |threshold| {
        vec![policy(1, RateLimitAction::Deny, vec![rule(1, RateLimitMetric::Kbytes, threshold, 60)])]
    };
    let mut listener = a_listener();
    let (mut kept, mut limits) = limits(kbytes(2000 * MIB));
    let client = limits.client(address(1));
    limits.bytes(client, 1200 << 20, at(0));
    let is_denied = |limits: &RateLimits| limits.request(client, client, b"/", at(0)).is_some();
    for (threshold, more, denied) in [
        (2000, 0, false),
        // Which takes units of two bytes: counts begin anew.
        (2200, 1500, false),
        // And back: 1,500 MiB are known.
        (1600, 0, false),
        (1400, 0, true),
        (100, 0, true),
        (4_000, 0, false),
        // Such units are not fine enough for less; what was counted in the first ones has come of it, too.
        (1, 0, true),
    ] {
        listener.rate_limit_policies = kbytes(threshold * MIB);
        let mut successor = Kept::after(&kept);
        let after = RateLimits::compile(&listener, Some(&limits), &mut successor, 1).unwrap();
        let next = successor.into_kept();
        (kept, limits) = (next, after);
        limits.bytes(client, more << 20, at(0));
        assert_eq!(is_denied(&limits), denied, "{threshold} MiB");
    }
}

/// What comes of `attackers` addresses that ask `each` times as often as they may (0: once each), while 100 ask as often as they may
/// and are never refused: the part of what was too much that has passed.
fn attack(threshold: u32, attackers: u32, each: u32) -> f64 {
    let deny = policy(1, RateLimitAction::Deny, vec![rule(1, RateLimitMetric::Requests, threshold, 30)]);
    let (kept, limits) = limits(vec![deny]);
    let innocents: Vec<ClientHash> = (0..100).map(|n| limits.client(address(0x00ff_0000 + n))).collect();
    let rounds = (each * threshold).max(1);
    let (mut sent, mut passed) = (0_u64, 0_u64);
    for round in 0..rounds {
        let now = at(30_000 + u64::from(round) * 29_000 / u64::from(rounds));
        for attacker in 0..attackers {
            let client = limits.client(address(attacker));
            sent += 1;
            passed += u64::from(limits.request(client, client, b"/", now).is_none());
            let turn = round % each.max(1) == 0 && attacker % (attackers / 100) == 0;
            if turn {
                let innocent = innocents[(attacker / (attackers / 100)) as usize % 100];
                assert!(
                    limits.request(innocent, innocent, b"/", now).is_none(),
                    "an innocent client is refused"
                );
            }
        }
    }
    let allowed = u64::from(attackers) * u64::from(rounds.min(threshold));
    let share = (passed - allowed) as f64 / (sent - allowed).max(1) as f64;
    let limiter = kept.limiter().unwrap();
    println!(
        "{attackers} addresses, {rounds} requests each of {threshold}: {:.3}% of what was too much passed; {} places used, {} \
         forgotten",
        share * 100.0,
        limiter.used(),
        limiter.forgotten()
    );
    share
}

/// As many as there are places for are held to what they may, and of a million nobody takes anything from others.
#[test]
fn a_million_addresses_take_nothing_from_others() {
    assert_eq!(attack(5, 50_000, 3), 0.0);
    assert!(attack(5, 100_000, 3) < 0.02);
    attack(5, 1_000_000, 0);
}

/// `cargo test --release -p amphora-proxy --lib limits::rate -- --ignored --nocapture`
#[test]
#[ignore = "measures, and takes minutes without optimization"]
fn how_much_passes_of_how_many() {
    for attackers in [50_000, 100_000, 120_000, 150_000, 200_000, 1_000_000] {
        attack(20, attackers, 3);
    }
    attack(100, 100_000, 3);
}
