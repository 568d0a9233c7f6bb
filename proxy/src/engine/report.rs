//! Counters of all workers, summed into the documents of the control socket.

use std::sync::atomic::Ordering;

use crate::{
    control::api::{ListenerStats, MemberStats, PoolStats, Responses, Stats},
    model::L7Action,
    snapshot::{MemberPlan, Snapshot},
    state::{Counter, ListenerCounters, ListenerState, MemberCounters, PerWorker, ResponseClass},
};

/// Every counter of what the snapshot has.
pub(super) fn stats(snapshot: &Snapshot, instance: &str) -> Stats {
    let mut stats =
        Stats { instance: instance.to_owned(), generation: snapshot.generation, ..Stats::default() };
    for plan in &snapshot.listeners {
        stats.listeners.insert(plan.state.id, listener(&plan.state));
    }
    for plan in &snapshot.pools {
        let members = plan.members.iter().map(|plan| (plan.state.id, member(plan))).collect();
        stats.pools.insert(plan.id(), PoolStats { listeners: Vec::new(), members });
    }
    let Some(model) = &snapshot.model else { return stats };
    for listener in model.listeners.iter().filter(|l| stats.listeners.contains_key(&l.id)) {
        let redirected = listener.l7policies.iter().filter_map(|policy| match policy.action {
            L7Action::RedirectToPool(pool) => Some(pool),
            _ => None,
        });
        for pool in listener.default_pool.into_iter().chain(redirected) {
            if let Some(pool) = stats.pools.get_mut(&pool)
                && !pool.listeners.contains(&listener.id)
            {
                pool.listeners.push(listener.id);
            }
        }
    }
    stats
}

fn listener(state: &ListenerState) -> ListenerStats {
    let sum = |counter: fn(&ListenerCounters) -> &Counter| state.counters.sum(counter);
    ListenerStats {
        bytes_in: sum(|c| &c.bytes_in),
        bytes_out: sum(|c| &c.bytes_out),
        active_connections: sum(|c| &c.connections),
        max_connections: state.counters.max(|c| &c.connections_max),
        total_connections: sum(|c| &c.connections_total),
        denied_connections: sum(|c| &c.connections_denied),
        requests: sum(|c| &c.requests),
        request_errors: sum(|c| &c.request_errors),
        requests_denied: sum(|c| &c.requests_denied),
        responses: responses(&state.counters, |c| &c.responses),
    }
}

fn member(plan: &MemberPlan) -> MemberStats {
    let counters = &plan.state.counters;
    let sum = |counter: fn(&MemberCounters) -> &Counter| counters.sum(counter);
    MemberStats {
        check: plan.state.health.get(),
        admin_state_up: plan.admin_state_up,
        weight: plan.weight,
        backup: plan.backup,
        bytes_in: sum(|c| &c.bytes_in),
        bytes_out: sum(|c| &c.bytes_out),
        active_sessions: u64::from(plan.state.sessions.load(Ordering::Relaxed)),
        max_sessions: counters.max(|c| &c.sessions_max),
        total_sessions: sum(|c| &c.sessions_total),
        selected: sum(|c| &c.selected),
        connects: sum(|c| &c.connects),
        reuses: sum(|c| &c.reuses),
        idle: sum(|c| &c.idle),
        requests: sum(|c| &c.requests),
        connect_errors: sum(|c| &c.connect_errors),
        response_errors: sum(|c| &c.response_errors),
        retries: sum(|c| &c.retries),
        redispatches: sum(|c| &c.redispatches),
        client_aborts: sum(|c| &c.client_aborts),
        server_aborts: sum(|c| &c.server_aborts),
        responses: responses(counters, |c| &c.responses),
        connect_time_us: sum(|c| &c.connect_time_us),
        response_time_us: sum(|c| &c.response_time_us),
        total_time_us: sum(|c| &c.total_time_us),
    }
}

fn responses<T>(counters: &PerWorker<T>, of: fn(&T) -> &[Counter; ResponseClass::COUNT]) -> Responses {
    let sum = |class: ResponseClass| counters.sum(|c| &of(c)[class as usize]);
    Responses {
        informational: sum(ResponseClass::Informational),
        success: sum(ResponseClass::Success),
        redirection: sum(ResponseClass::Redirection),
        client_error: sum(ResponseClass::ClientError),
        server_error: sum(ResponseClass::ServerError),
        other: sum(ResponseClass::Other),
    }
}
