#![allow(clippy::unwrap_used)]

use std::time::Duration;

use amphora_model::LoadBalancer;
use serde_json::{Value, json};

use super::*;
use crate::{
    balance::{Balance, Balancer as _, Flow, hash::mix},
    engine::drains::{self, Drains, Why},
    snapshot,
    state::{CheckState, Failed, Registry},
};

/// An engine's states and what runs.
struct Run {
    registry: Registry,
    present: Snapshot,
    drains: Drains,
    begun: Instant,
}

impl Run {
    fn new() -> Self {
        Self {
            registry: Registry::new(1),
            present: Snapshot::empty(0),
            drains: Drains::default(),
            begun: Instant::now(),
        }
    }

    fn at(&self, seconds: u64) -> Instant {
        self.begun + Duration::from_secs(seconds)
    }

    /// Members by number, with what is special of them.
    fn apply(&mut self, seconds: u64, pool: Value, members: &[(u32, Value)]) {
        let member = |(n, special): &(u32, Value)| {
            let mut member = json!({
                "id": format!("40000000-0000-4000-8000-{n:012}"), "address": "127.0.0.1", "protocol_port": n,
            });
            merge(&mut member, special);
            member
        };
        let mut document = json!({
            "id": "30000000-0000-4000-8000-000000000001", "protocol": "TCP", "lb_algorithm": "ROUND_ROBIN",
            "members": members.iter().map(member).collect::<Vec<_>>(),
        });
        merge(&mut document, &pool);
        let document = json!({ "loadbalancer": {
            "id": "10000000-0000-4000-8000-000000000001", "vip_address": "127.0.0.1", "pools": [document],
        }});
        let model = Arc::new(LoadBalancer::from_value(&document).unwrap());
        let source = snapshot::TlsSource::default();
        let snapshot = snapshot::compile_after(model, &self.present, &self.registry, &source).unwrap();
        begin(self.at(seconds), &self.present, &snapshot);
        announce(&snapshot);
        drains::resume(&snapshot);
        snapshot.hand_over(&mut self.registry);
        self.drains.follow(self.at(seconds), &self.present, &snapshot);
        self.drains.handle_timeout(self.at(seconds));
        self.present = snapshot;
    }

    /// What the members have of their weights after a look at that second.
    fn shares(&self, seconds: u64) -> Vec<u16> {
        advance(self.at(seconds), &self.present);
        let plan = &self.present.pools[0];
        plan.members.iter().map(|member| plan.present_weight(member)).collect()
    }
}

fn merge(object: &mut Value, more: &Value) {
    let more = more.as_object().into_iter().flatten();
    more.for_each(|(name, value)| object[name] = value.clone());
}

fn slow() -> Value {
    json!({ "amphora": { "slow_start": 4 } })
}

const PLAIN: Value = Value::Null;

#[test]
fn who_is_new_in_a_pool_that_runs_starts_slowly() {
    let mut run = Run::new();
    run.apply(0, slow(), &[(1, PLAIN), (2, PLAIN)]);
    assert_eq!(run.shares(0), [16, 16], "all are new");
    run.apply(10, slow(), &[(3, PLAIN), (1, PLAIN), (2, json!({ "weight": 3 }))]);
    assert_eq!(run.shares(10), [1, 16, 48]);
    let epoch = run.present.pools[0].state.epoch.load(Ordering::Relaxed);
    assert_eq!(run.shares(11), [5, 16, 48]);
    assert_ne!(run.present.pools[0].state.epoch.load(Ordering::Relaxed), epoch, "balancers are told");
    // A change of anything else lets it go on.
    run.apply(12, slow(), &[(3, PLAIN), (1, PLAIN)]);
    assert_eq!([run.shares(12), run.shares(13), run.shares(14)], [[9, 16], [13, 16], [16, 16]]);
    // One that moves is another.
    run.apply(20, slow(), &[(3, json!({ "protocol_port": 9 })), (1, PLAIN)]);
    assert_eq!(run.shares(20), [1, 16]);
    run.apply(21, PLAIN, &[(3, json!({ "protocol_port": 9 })), (1, PLAIN)]);
    assert_eq!(run.shares(21), [16, 16], "the pool has no slow start any more");
}

#[test]
fn who_was_disabled_starts_slowly_and_who_drained_does_not() {
    let mut run = Run::new();
    let disabled = json!({ "admin_state_up": false });
    run.apply(0, slow(), &[(1, disabled.clone()), (2, json!({ "weight": 0 })), (3, PLAIN)]);
    run.apply(1, slow(), &[(1, PLAIN), (2, PLAIN), (3, PLAIN)]);
    assert_eq!(run.shares(1), [1, 16, 16]);
    // The whole pool was: nobody is to be spared for the others' sake.
    run.apply(9, disabled, &[(1, PLAIN), (2, PLAIN), (3, PLAIN)]);
    run.apply(10, slow(), &[(1, PLAIN), (2, PLAIN), (3, PLAIN)]);
    assert_eq!(run.shares(10), [16, 16, 16]);
}

#[test]
fn who_was_down_starts_slowly() {
    let mut run = Run::new();
    run.apply(0, slow(), &[(1, PLAIN), (2, PLAIN)]);
    let state = Arc::clone(&run.present.pools[0].members[0].state);
    state.checked(run.at(1), CheckState::Down);
    state.checked(run.at(2), CheckState::DownRising { passed: 1, of: 2 });
    assert_eq!(run.shares(3), [16, 16]);
    state.checked(run.at(4), CheckState::Up);
    assert_eq!([run.shares(4), run.shares(5)], [[1, 16], [5, 16]]);
    state.checked(run.at(5), CheckState::UpFailing { passed: 1, of: 3 });
    state.checked(run.at(5), CheckState::Up);
    assert_eq!(run.shares(6), [9, 16], "it was not down meanwhile");
    state.checked(run.at(6), CheckState::Down);
    state.checked(run.at(7), CheckState::Up);
    assert_eq!([run.shares(7), run.shares(30)], [[1, 16], [16, 16]]);
}

fn watched(detection: Value) -> Value {
    json!({ "amphora": { "slow_start": 4, "outlier_detection": detection } })
}

/// So many failures in a row at the member.
fn fails(run: &Run, member: usize, times: usize) {
    let plan = &run.present.pools[0];
    let state = &plan.members[member].state;
    (0..times).for_each(|_| state.failed(Failed::Status(500), &plan.member_options));
}

impl Run {
    /// Who is out after a look at that second.
    fn out(&self, seconds: u64) -> Vec<usize> {
        judge(self.at(seconds), &self.present);
        let members = self.present.pools[0].members.iter().enumerate();
        members.filter(|(_, member)| member.state.outlier.is_ejected()).map(|(index, _)| index).collect()
    }
}

fn members(n: u32) -> Vec<(u32, Value)> {
    (1..=n).map(|n| (n, PLAIN)).collect()
}

#[test]
fn who_fails_is_taken_out_and_starts_slowly_when_it_is_back() {
    let mut run = Run::new();
    let detection = json!({ "consecutive_failures": 3, "ejection_time": 10, "max_ejection_time": 15, "max_ejected_percent": 50 });
    run.apply(0, watched(detection.clone()), &members(4));
    fails(&run, 2, 2);
    assert_eq!(run.out(1), [0; 0]);
    run.present.pools[0].members[2].state.passed(&run.present.pools[0].member_options);
    fails(&run, 2, 2);
    assert_eq!(run.out(2), [0; 0], "not in a row");
    let epoch = run.present.pools[0].state.epoch.load(Ordering::Relaxed);
    fails(&run, 2, 1);
    assert_eq!(run.out(3), [2]);
    assert_ne!(run.present.pools[0].state.epoch.load(Ordering::Relaxed), epoch, "balancers are told");
    assert!(!run.present.pools[0].members[2].is_usable());
    // Half of four may be out, and no more.
    fails(&run, 0, 9);
    fails(&run, 1, 9);
    assert_eq!([run.out(4), run.out(12)], [[0, 2], [0, 2]]);
    // Then there is room for another.
    assert_eq!(run.out(13), [0, 1]);
    assert_eq!(run.shares(13), [16, 16, 1, 16]);
    assert_eq!(run.out(14), [1]);
    fails(&run, 2, 3);
    assert_eq!(run.out(15), [1, 2]);
    let ejection = run.present.pools[0].members[2].state.ejections().present().unwrap();
    assert_eq!(
        (ejection.times, ejection.until),
        (2, run.at(30)),
        "twice as long, but no longer than the longest"
    );
    // Looked for no more, nobody stays out.
    run.apply(24, slow(), &members(4));
    settle(run.at(24), &run.present);
    assert_eq!(run.out(24), [0; 0]);
    let ejections = run.present.pools[0].members.iter().map(|member| member.state.record.ejections.get());
    assert_eq!(ejections.collect::<Vec<_>>(), [1, 1, 2, 0]);
}

#[test]
fn who_is_enabled_again_is_not_out() {
    let mut run = Run::new();
    run.apply(0, watched(json!({})), &members(2));
    fails(&run, 1, 5);
    assert_eq!(run.out(1), [1]);
    run.apply(2, watched(json!({})), &[(1, PLAIN), (2, json!({ "admin_state_up": false }))]);
    assert_eq!(run.out(2), [1]);
    run.apply(3, watched(json!({})), &members(2));
    assert_eq!((run.out(3), run.shares(3)), (vec![], vec![16, 1]));
}

#[test]
fn the_last_that_is_left_is_never_taken_out() {
    let mut run = Run::new();
    let mut all = members(3);
    all[0].1 = json!({ "weight": 0 });
    run.apply(0, watched(json!({ "max_ejected_percent": 99 })), &all);
    run.present.pools[0].members[1].state.checked(run.at(0), CheckState::Down);
    (0..3).for_each(|member| fails(&run, member, 50));
    assert_eq!(run.out(1), [0; 0], "the second is down, and the first has no weight");
    run.present.pools[0].members[1].state.checked(run.at(2), CheckState::Up);
    assert_eq!(run.out(2), [1], "it had failed before, and another is left");
    // The others may still go down, and then it is used all the same.
    run.present.pools[0].members[2].state.checked(run.at(3), CheckState::Down);
    let plan = &*run.present.pools[0];
    let mut balance = Balance::new(plan.algorithm, 1);
    let flow = Flow { source: [192, 0, 2, 1].into(), source_port: 1 };
    assert_eq!(balance.pick(plan, &flow, |_| false), Some(1));
}

/// Traffic to pools of which some members fail for a time, second by second: whatever happens, no more are out than may be, no
/// pool is left without a member, and those that are well come back.
#[test]
fn over_many_seeds_nobody_goes_who_may_not() {
    for seed in 0..60 {
        let mut state = seed;
        let mut random = |below: u64| {
            state += 1;
            mix(state * 0x9e37_79b9) % below
        };
        let count = 1 + random(12) as u32;
        let (failures, percent) = (1 + random(8), 1 + random(99));
        let detection = json!({
            "consecutive_failures": failures, "max_ejected_percent": percent,
            "ejection_time": 1 + random(20), "max_ejection_time": 21 + random(60),
        });
        let mut run = Run::new();
        run.apply(0, watched(detection), &members(count));
        let plan = Arc::clone(&run.present.pools[0]);
        let detection = plan.member_options.outliers.unwrap();
        let mut balance = Balance::new(plan.algorithm, seed);
        let mut bad: Vec<u64> = vec![0; count as usize];
        for second in 0..400 {
            // Everybody is well in the end.
            if second < 250 {
                let member = random(count.into()) as usize;
                bad[member] = if random(10) == 0 { second + random(40) } else { bad[member] };
                let health = if random(20) == 0 { CheckState::Down } else { CheckState::Up };
                plan.members[random(count.into()) as usize].state.checked(run.at(second), health);
            } else {
                plan.members.iter().for_each(|member| member.state.checked(run.at(second), CheckState::Up));
            }
            for _ in 0..random(60) {
                let flow = Flow { source: [192, 0, 2, 1].into(), source_port: random(60_000) as u16 };
                let Some(member) = balance.pick(&*plan, &flow, |_| false) else { continue };
                let state = &plan.members[member].state;
                match bad[member] > second && random(20) > 0 {
                    true => state.failed(Failed::Unanswered, &plan.member_options),
                    false => state.passed(&plan.member_options),
                }
            }
            let before = run.present.pools[0].members.iter().filter(|m| m.state.outlier.is_ejected()).count();
            let out = run.out(second).len();
            let up = plan.members.iter().filter(|member| member.is_up()).count();
            let most = (up * usize::from(detection.max_ejected_percent) / 100).max(1);
            let out_and_up =
                plan.members.iter().filter(|m| m.is_up() && m.state.outlier.is_ejected()).count();
            assert!(out <= before || out_and_up <= most && out_and_up < up, "{seed} {second}: {out} of {up}");
            for member in &plan.members {
                let time = member.state.ejections().present().map(|e| e.until.duration_since(e.since));
                assert!(time.is_none_or(|time| time <= detection.max_ejection_time), "{seed} {second}");
            }
        }
        assert_eq!(run.out(400), [0; 0], "{seed}");
    }
}

fn looked_at(rise: u8) -> Value {
    let monitor = json!({
        "id": "50000000-0000-4000-8000-000000000001", "type": "TCP", "delay": 5, "timeout": 5, "max_retries": rise,
    });
    json!({ "healthmonitor": monitor, "amphora": { "first_check": true } })
}

#[test]
fn who_is_new_waits_for_its_first_good_check_and_nobody_else_does() {
    let states = |run: &Run| {
        let members = run.present.pools[0].members.iter();
        members.map(|member| member.state.health.get()).collect::<Vec<_>>()
    };
    let waits = CheckState::DownRising { passed: 2, of: 3 };
    let mut run = Run::new();
    run.apply(0, looked_at(3), &members(2));
    assert_eq!(states(&run), [waits, waits], "in a pool that is new, too");
    run.present.pools[0].members.iter().for_each(|m| m.state.checked(run.at(1), CheckState::Up));
    run.apply(2, looked_at(3), &members(3));
    assert_eq!(states(&run), [CheckState::Up, CheckState::Up, waits]);
    // Who was disabled is new; who was not looked at so far, but used, is not.
    run.apply(3, looked_at(1), &[(1, json!({ "admin_state_up": false })), (2, PLAIN)]);
    run.apply(4, looked_at(1), &members(2));
    assert_eq!(states(&run), [CheckState::Down, CheckState::Up]);
    run.apply(5, PLAIN, &members(2));
    run.present.pools[0].members[0].state.set_health(CheckState::NoCheck);
    run.apply(6, looked_at(3), &members(3));
    assert_eq!(states(&run), [CheckState::NoCheck, CheckState::Up, waits]);
    // A member that starts slowly does so when its check has passed.
    let mut both = looked_at(3);
    both["amphora"]["slow_start"] = json!(4);
    run.apply(7, both, &members(4));
    assert_eq!(run.shares(9), [16, 16, 16, 16]);
    run.present.pools[0].members[3].state.checked(run.at(9), CheckState::Up);
    assert_eq!(run.shares(9), [16, 16, 16, 1]);
}

fn drained(timeout: u64) -> Value {
    json!({ "amphora": { "drain_timeout": timeout } })
}

impl Run {
    fn state(&self, member: usize) -> Arc<MemberState> {
        Arc::clone(&self.present.pools[0].members[member].state)
    }

    /// Whether somebody's time was over at that second.
    fn over(&mut self, seconds: u64) -> bool {
        self.drains.handle_timeout(self.at(seconds))
    }

    fn draining(&self) -> Vec<(u16, Why)> {
        let mut all: Vec<_> = self.drains.all().map(|drain| (drain.state.port, drain.why)).collect();
        all.sort_unstable_by_key(|(port, _)| *port);
        all
    }
}

#[test]
fn who_goes_has_its_time_and_then_is_drained() {
    let mut run = Run::new();
    run.apply(0, drained(10), &members(4));
    assert!(!run.over(100) && run.draining().is_empty());
    let mut all: Vec<_> = (0..3).map(|member| run.state(member)).collect();
    all[2].sessions.store(1, Ordering::Relaxed);
    let (weightless, disabled) = (json!({ "weight": 0 }), json!({ "admin_state_up": false }));
    run.apply(100, drained(10), &[(1, weightless.clone()), (2, disabled.clone())]);
    // The fourth has nothing that anybody waits for: it is forgotten at the next look.
    assert!(!run.over(101));
    assert_eq!(run.draining(), [(1, Why::Weight), (2, Why::Disabled), (3, Why::Removed)]);
    let plan = Arc::clone(&run.present.pools[0]);
    assert!(plan.members[0].is_usable(), "persistence");
    assert!(!run.over(109) && run.over(110) && !run.over(111));
    assert_eq!(all.iter().map(|state| state.is_drained()).collect::<Vec<_>>(), [true, true, true]);
    assert!(!plan.members[0].is_usable(), "that ends with it");
    all[2].sessions.store(0, Ordering::Relaxed);
    all.truncate(2);
    assert!(!run.over(112));
    assert_eq!(run.draining(), [(1, Why::Weight), (2, Why::Disabled)]);
    // In use again, and with more time again.
    run.apply(113, drained(50), &[(1, weightless), (2, PLAIN)]);
    assert_eq!(
        (run.draining(), all[0].is_drained(), all[1].is_drained()),
        (vec![(1, Why::Weight)], false, false)
    );
    assert!(!run.over(149) && run.over(150), "since it began");
    // For as long as it takes.
    run.apply(151, PLAIN, &[(1, json!({ "weight": 0 })), (2, PLAIN)]);
    assert!(run.draining().is_empty() && !all[0].is_drained());
}

/// What began before the change may come to it only now: asked again, or between two attempts.
#[test]
fn who_is_gone_and_has_nothing_yet_is_drained_all_the_same() {
    let mut run = Run::new();
    run.apply(0, drained(10), &members(2));
    let state = run.state(1);
    run.apply(100, drained(10), &members(1));
    assert!(!run.over(105));
    state.sessions.store(1, Ordering::Relaxed);
    assert!(run.over(110) && state.is_drained());
    // Nobody knows it any more.
    drop(state);
    run.drains.all().for_each(|drain| drain.state.sessions.store(0, Ordering::Relaxed));
    assert!(!run.over(111) && run.draining().is_empty());
}

/// Whoever has removed a member may still hurry what it has, or let it be.
#[test]
fn a_changed_time_is_also_theirs_who_are_gone() {
    let mut run = Run::new();
    run.apply(0, drained(3600), &members(3));
    let (hurried, later) = (run.state(1), run.state(2));
    hurried.sessions.store(1, Ordering::Relaxed);
    later.sessions.store(1, Ordering::Relaxed);
    run.apply(100, drained(3600), &members(1));
    run.apply(101, drained(10), &members(1));
    assert!(!run.over(109) && run.over(110) && hurried.is_drained() && later.is_drained());
    run.apply(111, drained(50), &members(1));
    assert!(!hurried.is_drained() && !run.over(149) && run.over(150) && hurried.is_drained());
    run.apply(151, PLAIN, &members(1));
    assert!(!hurried.is_drained() && run.draining().is_empty());
}

#[test]
fn a_pool_that_goes_gives_its_members_the_time_that_it_had() {
    let mut run = Run::new();
    run.apply(0, drained(0), &members(1));
    let state = run.state(0);
    state.sessions.store(1, Ordering::Relaxed);
    let nothing = Snapshot::empty(9);
    let present = std::mem::replace(&mut run.present, Snapshot::empty(0));
    run.drains.follow(run.at(5), &present, &nothing);
    assert_eq!(run.draining(), [(1, Why::Removed)]);
    assert!(run.over(5) && state.is_drained(), "no time at all");
}
