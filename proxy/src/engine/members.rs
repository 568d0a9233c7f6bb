//! What a configuration says of the health of its members: who is probed, and who is used without a check.

use std::{collections::HashSet, sync::Arc, time::Instant};

use amphora_model::{Member, Pool};

use crate::{
    health::{Monitored, Target, TargetTls},
    snapshot::{PoolPlan, Snapshot},
    state::{CheckState, MemberState},
};

/// The members that are probed, and how.
pub(super) fn monitored(snapshot: &Snapshot) -> Vec<Monitored> {
    pools(snapshot)
        .flat_map(|(pool, plan)| {
            let tls = plan.tls.as_deref().map(TargetTls::new);
            Target::of_members(pool, tls).zip(&plan.members).filter_map(|(target, plan)| {
                Some(Monitored { member: Arc::clone(&plan.state), target: target? })
            })
        })
        .collect()
}

/// The members that are used without being probed: enabled, in an enabled pool without an enabled monitor. A member that
/// left or was disabled is none of them, so that sessions that began before are not sent to one that was down.
pub(super) fn unchecked(snapshot: &Snapshot) -> impl Iterator<Item = &MemberState> {
    pools(snapshot).filter(|(pool, _)| Target::monitor(pool).is_none()).flat_map(|(pool, plan)| {
        let members = pool.members.iter().zip(&plan.members);
        members.filter(|(member, _)| is_used(pool, member)).map(|(_, plan)| &*plan.state)
    })
}

/// Takes members for up that `before` had found down, or had left so, and that no check of the `present` configuration has
/// looked at: those that are not probed any more, and those that were not. They serve with the change and not with the first
/// result. Looks closer only at members that are down, and at pools that have changed.
pub(super) fn revive(now: Instant, before: &Snapshot, present: &Snapshot) {
    let mut probed = None;
    for (index, (pool, plan)) in pools(present).enumerate() {
        let waits = plan.member_options.first_check && Target::monitor(pool).is_some();
        if waits || before.pools.get(index).is_some_and(|old| Arc::ptr_eq(old, plan)) {
            continue;
        }
        for (member, plan) in pool.members.iter().zip(&plan.members) {
            if plan.state.health.get().is_up() || !is_used(pool, member) {
                continue;
            }
            let probed = probed.get_or_insert_with(|| probed_states(before));
            if Target::monitor(pool).is_none() || !probed.contains(&Arc::as_ptr(&plan.state)) {
                plan.state.comes_back(now);
                plan.state.set_health(CheckState::NoCheck);
            }
        }
    }
}

fn probed_states(snapshot: &Snapshot) -> HashSet<*const MemberState> {
    pools(snapshot)
        .filter(|(pool, _)| Target::monitor(pool).is_some())
        .flat_map(|(pool, plan)| {
            let members = pool.members.iter().zip(&plan.members);
            members.filter(|(member, _)| is_used(pool, member)).map(|(_, plan)| Arc::as_ptr(&plan.state))
        })
        .collect()
}

fn pools(snapshot: &Snapshot) -> impl Iterator<Item = (&Pool, &Arc<PoolPlan>)> {
    snapshot.model.iter().flat_map(|model| model.pools.iter().zip(&snapshot.pools))
}

fn is_used(pool: &Pool, member: &Member) -> bool {
    pool.admin_state_up && member.admin_state_up
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use amphora_model::LoadBalancer;

    use super::*;
    use crate::{snapshot, state::Registry};

    const PROBED: &str = r#", "healthmonitor": {"id": "50000000-0000-4000-8000-000000000001", "type": "TCP",
        "delay": 5, "timeout": 5, "max_retries": 1}"#;
    const PAUSED: &str = r#", "healthmonitor": {"id": "50000000-0000-4000-8000-000000000001", "type": "TCP",
        "delay": 5, "timeout": 5, "max_retries": 1, "admin_state_up": false}"#;
    const ENABLED: &str = "true";
    const DISABLED: &str = "false";

    fn follow(
        before: &Snapshot,
        registry: &mut Registry,
        monitor: &str,
        member: &str,
        weight: u8,
    ) -> Snapshot {
        let document = format!(
            r#"{{"loadbalancer": {{"id": "10000000-0000-4000-8000-000000000001", "vip_address": "127.0.0.1", "listeners": [
                {{"id": "20000000-0000-4000-8000-000000000001", "protocol": "TCP", "protocol_port": 1,
                  "default_pool": {{"id": "30000000-0000-4000-8000-000000000001", "protocol": "TCP",
                    "lb_algorithm": "ROUND_ROBIN" {monitor}, "members": [
                      {{"id": "40000000-0000-4000-8000-000000000001", "address": "127.0.0.1", "protocol_port": 9,
                        "weight": {weight}, "admin_state_up": {member}}}]}}}}]}}}}"#
        );
        let model = Arc::new(LoadBalancer::from_json(document.as_bytes()).unwrap());
        let snapshot =
            snapshot::compile_after(model, before, registry, &snapshot::TlsSource::default()).unwrap();
        snapshot.hand_over(registry);
        snapshot
    }

    #[test]
    fn who_is_down_and_checked_no_more_serves_with_the_change() {
        for (was, is, up) in [
            ((PROBED, ENABLED), (PROBED, ENABLED), false),
            ((PROBED, ENABLED), (PROBED, DISABLED), false),
            ((PROBED, ENABLED), ("", DISABLED), false),
            ((PROBED, ENABLED), ("", ENABLED), true),
            ((PROBED, ENABLED), (PAUSED, ENABLED), true),
            // Found down at some time before, and not looked at since.
            ((PROBED, DISABLED), (PROBED, ENABLED), true),
            ((PAUSED, DISABLED), (PROBED, ENABLED), true),
        ] {
            let mut registry = Registry::new(1);
            let before = follow(&Snapshot::empty(0), &mut registry, was.0, was.1, 1);
            let state = Arc::clone(&before.pools[0].members[0].state);
            state.set_health(CheckState::Down);
            let present = follow(&before, &mut registry, is.0, is.1, 2);
            revive(Instant::now(), &before, &present);
            assert_eq!(state.health.get().is_up(), up, "{was:?} then {is:?}");
        }
    }
}
