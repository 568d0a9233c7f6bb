//! What pools grant their members (`pool.amphora`): who starts slowly, and how that goes on.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, atomic::Ordering},
    time::Instant,
};

use amphora_model::{Pool, PoolId};

use crate::{
    snapshot::{MemberPlan, PoolPlan, Snapshot},
    state::MemberState,
};

/// Lets members start slowly that are new in a pool that runs, or were disabled in it. `snapshot` is about to go live; members that
/// do not get anything so far are all that this touches. Looks closer only at pools that have changed.
pub(super) fn begin(now: Instant, before: &Snapshot, snapshot: &Snapshot) {
    let mut known: Option<HashMap<PoolId, (&Pool, &Arc<PoolPlan>)>> = None;
    for (pool, plan) in pools(snapshot) {
        if plan.kindness.slow_start.is_zero() || !pool.admin_state_up {
            continue;
        }
        let known =
            known.get_or_insert_with(|| pools(before).map(|(pool, plan)| (pool.id, (pool, plan))).collect());
        let Some((old_pool, old)) = known.get(&pool.id) else { continue };
        if Arc::ptr_eq(old, plan) || !old_pool.admin_state_up {
            continue;
        }
        let enabled = |plan: &&MemberPlan| plan.admin_state_up;
        let used: HashSet<_> = old.members.iter().filter(enabled).map(state).collect();
        for member in plan.members.iter().filter(enabled).filter(|member| !used.contains(&state(member))) {
            member.state.slow_start.begin(now);
        }
    }
}

/// Tells states what pools grant in a snapshot that goes live.
pub(super) fn announce(snapshot: &Snapshot) {
    for plan in &snapshot.pools {
        plan.state.slow_start.store(plan.kindness.slow_start.as_secs() as u32, Ordering::Relaxed);
    }
}

fn state(member: &MemberPlan) -> *const MemberState {
    Arc::as_ptr(&member.state)
}

/// Lets shares grow; to be called about once a second.
pub(super) fn advance(now: Instant, snapshot: &Snapshot) {
    for plan in snapshot.pools.iter().filter(|plan| !plan.kindness.slow_start.is_zero()) {
        let slow_start = plan.kindness.slow_start;
        let grown =
            plan.members.iter().filter(|member| member.state.slow_start.advance(now, slow_start)).count();
        if grown > 0 {
            plan.state.epoch.fetch_add(1, Ordering::Release);
        }
    }
}

fn pools(snapshot: &Snapshot) -> impl Iterator<Item = (&Pool, &Arc<PoolPlan>)> {
    snapshot.model.iter().flat_map(|model| model.pools.iter().zip(&snapshot.pools))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::time::Duration;

    use amphora_model::LoadBalancer;
    use serde_json::{Value, json};

    use super::*;
    use crate::{
        snapshot,
        state::{CheckState, Registry},
    };

    /// An engine's states and what runs.
    struct Run {
        registry: Registry,
        present: Snapshot,
        begun: Instant,
    }

    impl Run {
        fn new() -> Self {
            Self { registry: Registry::new(1), present: Snapshot::empty(0), begun: Instant::now() }
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
            snapshot.hand_over(&mut self.registry);
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
}
