//! What pools grant their members (`pool.amphora`): who waits for a check, who starts slowly and how that goes on, who is taken out
//! for a while.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, atomic::Ordering},
    time::Instant,
};

use amphora_model::{Pool, PoolId};

use crate::{
    health::Target,
    snapshot::{MemberPlan, PoolPlan, Snapshot},
    state::{MemberState, may_go},
};

/// Prepares members that come into use: they start slowly in a pool that runs, or get nothing before their first good check, where it
/// says so. `snapshot` is about to go live; members that do not get anything so far are all that this touches. Looks closer only at pools
/// that have changed.
pub(super) fn begin(now: Instant, before: &Snapshot, snapshot: &Snapshot) {
    let mut known: Option<HashMap<PoolId, (&Pool, &Arc<PoolPlan>)>> = None;
    for (pool, plan) in pools(snapshot) {
        if plan.member_options.is_none() || !pool.admin_state_up {
            continue;
        }
        let known =
            known.get_or_insert_with(|| pools(before).map(|(pool, plan)| (pool.id, (pool, plan))).collect());
        let ran = known.get(&pool.id).filter(|(pool, _)| pool.admin_state_up).map(|(_, plan)| *plan);
        if ran.is_some_and(|old| Arc::ptr_eq(old, plan)) {
            continue;
        }
        let enabled = |plan: &&MemberPlan| plan.admin_state_up;
        let old = ran.iter().flat_map(|plan| &plan.members);
        let used: HashSet<_> = old.filter(enabled).map(state).collect();
        let first_check = Target::monitor(pool).filter(|_| plan.member_options.first_check);
        for member in plan.members.iter().filter(enabled).filter(|member| !used.contains(&state(member))) {
            let state = &member.state;
            restore(now, state);
            if let Some(monitor) = first_check {
                state.set_health(Target::held_back(monitor));
            } else if ran.is_some() && !plan.member_options.slow_start.is_zero() {
                state.slow_start.begin(now);
            }
        }
    }
}

/// Tells states what pools grant in a snapshot that goes live.
pub(super) fn announce(snapshot: &Snapshot) {
    for plan in &snapshot.pools {
        plan.state.slow_start.store(plan.member_options.slow_start.as_secs() as u32, Ordering::Relaxed);
    }
}

fn state(member: &MemberPlan) -> *const MemberState {
    Arc::as_ptr(&member.state)
}

/// Lets members go on that were taken out in a pool that looks for outliers no more.
pub(super) fn settle(now: Instant, snapshot: &Snapshot) {
    for plan in snapshot.pools.iter().filter(|plan| plan.member_options.outliers.is_none()) {
        let out = plan.members.iter().filter(|member| member.state.outlier.is_ejected());
        if out.map(|member| restore(now, &member.state)).count() > 0 {
            plan.state.epoch.fetch_add(1, Ordering::Release);
        }
    }
}

fn restore(now: Instant, member: &MemberState) {
    member.ejections().end(now);
    member.outlier.set_ejected(false);
}

/// Takes members out that real traffic fails at, and lets those back whose time is over; to be called when that may be, and about
/// once a second.
pub(super) fn judge(now: Instant, snapshot: &Snapshot) {
    for plan in &snapshot.pools {
        let Some(detection) = &plan.member_options.outliers else { continue };
        let mut changed = false;
        for state in plan.members.iter().map(|member| &member.state) {
            if state.outlier.is_ejected() && state.ejections().handle_timeout(now) {
                state.comes_back(now);
                state.outlier.set_ejected(false);
                changed = true;
                tracing::info!(target: amphora_logging::EACH, pool = %plan.id(), member = %state.id, "outlier is back");
            }
        }
        let in_use = |member: &&MemberPlan| member.weight > 0 && member.is_up();
        let ejected = |member: &&MemberPlan| member.state.outlier.is_ejected();
        let all = plan.members.iter().filter(in_use).count();
        let mut out = plan.members.iter().filter(in_use).filter(ejected).count();
        for member in plan.members.iter().filter(in_use).filter(|member| !ejected(member)) {
            let (state, run) = (&member.state, member.state.outlier.run());
            if run < detection.consecutive_failures.into() || !may_go(out, all - out, detection) {
                continue;
            }
            let ejection = state.ejections().eject(now, detection);
            state.outlier.set_ejected(true);
            state.record.ejections.add(1);
            (out, changed) = (out + 1, true);
            let seconds = ejection.until.duration_since(now).as_secs();
            tracing::info!(
                target: amphora_logging::EACH, pool = %plan.id(), member = %state.id, failures = run, seconds,
                times = ejection.times, "outlier is taken out"
            );
        }
        if changed {
            plan.state.epoch.fetch_add(1, Ordering::Release);
        }
    }
}

/// Lets shares grow; to be called about once a second.
pub(super) fn advance(now: Instant, snapshot: &Snapshot) {
    for plan in snapshot.pools.iter().filter(|plan| !plan.member_options.slow_start.is_zero()) {
        let slow_start = plan.member_options.slow_start;
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
#[path = "member_options_tests.rs"]
mod tests;
