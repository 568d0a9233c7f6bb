//! What there is to tell of members beyond counters: why one gets less than its share, or nothing, and what has failed last.

use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    sync::Arc,
    time::Instant,
};

use amphora_ipc::proxy::{Draining, Ejected, LeavingMember, MemberFailure, MemberReport, Members};

use super::drains::{Drain, Why};
use crate::{
    health::Assignments,
    logs::calendar::Wall,
    snapshot::{MemberPlan, PoolPlan, Snapshot},
    state::{FULL, Failure, MemberState},
};

/// When the report is made.
pub(super) struct Moment<'a> {
    pub(super) now: Instant,
    wall: Wall,
    /// By where their states are.
    drains: HashMap<*const MemberState, &'a Drain>,
    health: &'a Assignments,
}

impl<'a> Moment<'a> {
    /// One of both clocks.
    pub(super) fn new(now: Instant, wall: Wall, drains: &'a [Drain], health: &'a Assignments) -> Self {
        let drains = drains.iter().map(|drain| (Arc::as_ptr(&drain.state), drain)).collect();
        Self { now, wall, drains, health }
    }

    /// Of all members.
    pub(super) fn of(&self, snapshot: &Snapshot) -> Members {
        let mut members = Members::default();
        for plan in &snapshot.pools {
            let reports = plan.members.iter().map(|member| (member.state.id, self.member(plan, member)));
            let reports: BTreeMap<_, _> = reports.filter(|(_, report)| !report.is_empty()).collect();
            if !reports.is_empty() {
                members.pools.insert(plan.id(), reports);
            }
        }
        let leaves = |drain: &&&Drain| drain.why == Why::Removed && drain.sessions() > 0;
        let leaving = self.drains.values().filter(leaves);
        members.leaving = leaving
            .map(|drain| LeavingMember {
                pool_id: drain.state.pool.id,
                id: drain.state.id,
                address: SocketAddr::new(drain.state.address, drain.state.port),
                draining: self.draining(drain),
            })
            .collect();
        members.leaving.sort_by_key(|member| (member.pool_id, member.id));
        members
    }

    /// Of one.
    pub(super) fn member(&self, plan: &PoolPlan, member: &MemberPlan) -> MemberReport {
        let state = &member.state;
        let share = state.slow_start.share();
        let slow = share < FULL && !plan.member_options.slow_start.is_zero() && member.is_up();
        let check = (member.admin_state_up && !state.health.get().is_up()).then(|| self.health.report(state));
        let drain = self.drains.get(&Arc::as_ptr(state));
        let ejection = state.ejections().present().filter(|_| state.outlier.is_ejected());
        MemberReport {
            weight_percent: slow.then_some((100 * share / FULL) as u8),
            check: check.flatten().map(|report| report.outcome.to_string()),
            ejected: ejection.map(|ejection| Ejected {
                since_s: self.now.saturating_duration_since(ejection.since).as_secs(),
                left_s: left(self.now, ejection.until),
                times: ejection.times,
            }),
            draining: drain.map(|drain| self.draining(drain)),
            failures: state.record.failures.recent(self.wall).iter().map(failure).collect(),
        }
    }

    fn draining(&self, drain: &Drain) -> Draining {
        Draining {
            why: drain.why.as_str().to_owned(),
            since_s: self.now.saturating_duration_since(drain.since).as_secs(),
            left_s: left(self.now, drain.until()),
            connections: drain.sessions().into(),
        }
    }
}

fn failure(failure: &Failure) -> MemberFailure {
    MemberFailure { at: failure.at.rfc3339(), times: failure.times, what: failure.what.to_string() }
}

/// In whole seconds, begun ones included.
fn left(now: Instant, until: Instant) -> u64 {
    let left = until.saturating_duration_since(now);
    left.as_secs() + u64::from(left.subsec_nanos() > 0)
}
