//! Counters of all workers, summed into the documents of the control socket.

use std::{
    collections::HashSet,
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use amphora_ipc::proxy::{
    Handshakes, HandshakesFailed, HistoryStats, Http2Refused, Http2Stats, ListenerStats, ListenerSummary,
    MemberOptionsStats, MemberStats, MemberSummary, PoolStats, PoolSummary, RateLimitStats, RateLimiterStats,
    Responses, Stats, Summary, TimeStats, TimesStats,
};
use amphora_model::{ListenerId, PoolId};

use crate::{
    http2::guard::{Excess, Fault},
    limits::rate::{Limiter, PolicyState},
    snapshot::{MemberPlan, PoolPlan, Snapshot},
    state::{
        CheckState, Counter, FULL, HandshakeCounters, HandshakeFailure, Http2Counters, ListenerCounters,
        ListenerState, MemberCounters, Past, PerWorker, PoolState, Rate, ResponseClass, SessionTimes,
        SlidingTime,
    },
};

/// When the report is made.
pub(super) struct Moment {
    pub(super) now: Instant,
    /// Where the workers' clock began.
    pub(super) epoch: Instant,
    /// Idle connections that a worker keeps to all members together.
    pub(super) idle: usize,
}

impl Moment {
    /// Every counter of what the snapshot has.
    pub(super) fn of(&self, snapshot: &Snapshot, instance: &str) -> Stats {
        let mut stats =
            Stats { instance: instance.to_owned(), generation: snapshot.generation, ..Stats::default() };
        for plan in &snapshot.listeners {
            stats.listeners.insert(plan.state.id, listener(&plan.state));
        }
        for plan in &snapshot.pools {
            stats.pools.insert(plan.id(), self.pool(plan, snapshot.pool_index(plan.id()).is_some()));
        }
        for (pool, listener) in senders(snapshot) {
            if let Some(pool) = stats.pools.get_mut(&pool)
                && !pool.listeners.contains(&listener)
            {
                pool.listeners.push(listener);
            }
        }
        let limits = snapshot.limits();
        stats.rate_limits =
            limits.policies().map(|(listener, state)| (state.id, rate_limit(listener, state))).collect();
        stats.rate_limiter = limits.limiter().map(|limiter| RateLimiterStats {
            places: Limiter::PLACES as u64,
            used: limiter.used() as u64,
            forgotten: limiter.forgotten(),
        });
        stats
    }

    fn pool(&self, plan: &PoolPlan, enabled: bool) -> PoolStats {
        let PoolState { counters, rate, .. } = &*plan.state;
        let past = plan.state.history().past(self.now);
        PoolStats {
            listeners: Vec::new(),
            max_sessions: counters.sum(|c| &c.sessions_max),
            total_sessions: counters.sum(|c| &c.sessions_total),
            connect_errors: counters.sum(|c| &c.connect_errors),
            responses: responses(counters, |c| &c.responses),
            handshakes: handshakes(counters, |c| &c.handshakes),
            http2: http2(counters, |c| &c.http2),
            history: self.history(past, counters.max(|c| &c.last_session), rate),
            members: plan
                .members
                .iter()
                .map(|member| (member.state.id, self.member(plan, member, enabled)))
                .collect(),
            departed: counted(&plan.state.departed().sum()),
        }
    }

    fn member(&self, pool: &PoolPlan, plan: &MemberPlan, enabled: bool) -> MemberStats {
        let counters = &plan.state.counters;
        let past = plan.state.history().past(self.now);
        MemberStats {
            // Of one that is not probed because it is disabled, what was found last is nobody's present state.
            check: if enabled && plan.admin_state_up { plan.state.health.get() } else { CheckState::NoCheck },
            admin_state_up: plan.admin_state_up,
            weight: plan.weight,
            backup: plan.backup,
            active_sessions: u64::from(plan.state.sessions.load(Ordering::Relaxed)),
            max_sessions: counters.max(|c| &c.sessions_max),
            idle: counters.sum(|c| &c.idle),
            idle_limit: (self.idle * counters.workers()) as u64,
            times: TimesStats {
                weight: counters.iter().map(|c| c.times.weight()).sum(),
                connect: time(counters, |times| &times.connect),
                response: time(counters, |times| &times.response),
                total: time(counters, |times| &times.total),
            },
            history: self.history(past, counters.max(|c| &c.last_session), &plan.state.record.rate),
            member_options: (!pool.member_options.is_none()).then(|| member_options(pool, plan, enabled)),
            ..counted(counters)
        }
    }

    /// `last_session` as it is in [`MemberCounters`].
    fn history(&self, past: Past, last_session: u64, rate: &Rate) -> HistoryStats {
        let seconds = self.now.saturating_duration_since(self.epoch).as_secs();
        HistoryStats {
            check_failures: past.check_failures,
            went_down: past.went_down,
            unchanged_ms: millis(past.unchanged_for),
            downtime_ms: millis(past.downtime),
            last_session_s: last_session.checked_sub(1).map(|at| seconds.saturating_sub(at)),
            max_session_rate: rate.highest(),
        }
    }
}

fn rate_limit(listener: ListenerId, state: &PolicyState) -> RateLimitStats {
    RateLimitStats {
        listener,
        limited: state.counters.sum(|c| &c.limited),
        queued: state.counters.sum(|c| &c.queued),
        waited_ms: state.counters.sum(|c| &c.waited_ms),
        waiting: state.waiting(),
    }
}

fn member_options(pool: &PoolPlan, plan: &MemberPlan, enabled: bool) -> MemberOptionsStats {
    let state = &plan.state;
    let slow = !pool.member_options.slow_start.is_zero();
    let goes = !enabled || !plan.admin_state_up || plan.weight == 0;
    MemberOptionsStats {
        weight_share: if slow { state.slow_start.share() } else { FULL },
        ejections: state.record.ejections.get(),
        ejected: state.outlier.is_ejected(),
        draining: pool.member_options.drain_timeout.is_some() && goes && !state.is_drained(),
    }
}

/// What a heartbeat tells of.
pub(super) fn summary(snapshot: &Snapshot, instance: &str) -> Summary {
    let listeners = snapshot.listeners.iter().map(|plan| {
        let sum = |counter: fn(&ListenerCounters) -> &Counter| plan.state.counters.sum(counter);
        let summary = ListenerSummary {
            incarnation: plan.state.incarnation,
            bytes_in: sum(|c| &c.bytes_in),
            bytes_out: sum(|c| &c.bytes_out),
            active_connections: sum(|c| &c.connections),
            total_connections: sum(|c| &c.connections_total),
            request_errors: sum(|c| &c.request_errors),
        };
        (plan.state.id, summary)
    });
    let pools = snapshot.pools.iter().map(|plan| {
        let members = plan.members.iter().map(|plan| {
            let (check, weight) = (plan.state.health.get(), plan.weight);
            (plan.state.id, MemberSummary { check, admin_state_up: plan.admin_state_up, weight })
        });
        (plan.id(), PoolSummary { listeners: Vec::new(), members: members.collect() })
    });
    let mut summary =
        Summary { instance: instance.to_owned(), listeners: listeners.collect(), pools: pools.collect() };
    for (pool, listener) in senders(snapshot) {
        if let Some(pool) = summary.pools.get_mut(&pool)
            && !pool.listeners.contains(&listener)
        {
            pool.listeners.push(listener);
        }
    }
    summary
}

/// Which listeners can send to which pools, perhaps more than once.
fn senders(snapshot: &Snapshot) -> impl Iterator<Item = (PoolId, ListenerId)> {
    let present: HashSet<_> = snapshot.listeners.iter().map(|plan| plan.state.id).collect();
    let listeners = snapshot.model.iter().flat_map(|model| &model.listeners);
    listeners.filter(move |listener| present.contains(&listener.id)).flat_map(|listener| {
        let redirected = listener.l7policies.iter().flat_map(|policy| policy.action.pools());
        listener.default_pools().chain(redirected).map(|pool| (pool, listener.id))
    })
}

fn listener(state: &ListenerState) -> ListenerStats {
    let sum = |counter: fn(&ListenerCounters) -> &Counter| state.counters.sum(counter);
    ListenerStats {
        incarnation: state.incarnation,
        bytes_in: sum(|c| &c.bytes_in),
        bytes_out: sum(|c| &c.bytes_out),
        active_connections: sum(|c| &c.connections),
        max_connections: state.counters.max(|c| &c.connections_max),
        total_connections: sum(|c| &c.connections_total),
        denied_connections: sum(|c| &c.connections_denied),
        requests: sum(|c| &c.requests),
        request_errors: sum(|c| &c.request_errors),
        requests_denied: sum(|c| &c.requests_denied),
        requests_intercepted: sum(|c| &c.requests_intercepted),
        requests_regex_limited: sum(|c| &c.requests_regex_limited),
        responses: responses(&state.counters, |c| &c.responses),
        handshakes: handshakes(&state.counters, |c| &c.handshakes),
        http2: http2(&state.counters, |c| &c.http2),
        max_session_rate: state.rates.sessions.highest(),
        max_connection_rate: state.rates.connections.highest(),
        max_request_rate: state.rates.requests.highest(),
    }
}

/// What only ever grows.
fn counted(counters: &PerWorker<MemberCounters>) -> MemberStats {
    let sum = |counter: fn(&MemberCounters) -> &Counter| counters.sum(counter);
    MemberStats {
        bytes_in: sum(|c| &c.bytes_in),
        bytes_out: sum(|c| &c.bytes_out),
        total_sessions: sum(|c| &c.sessions_total),
        selected: sum(|c| &c.selected),
        connects: sum(|c| &c.connects),
        reuses: sum(|c| &c.reuses),
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
        ..MemberStats::default()
    }
}

fn time(counters: &PerWorker<MemberCounters>, of: fn(&SessionTimes) -> &SlidingTime) -> TimeStats {
    TimeStats { sum_us: counters.sum(|c| &of(&c.times).sum), max_us: counters.max(|c| &of(&c.times).max) }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
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

fn http2<T>(counters: &PerWorker<T>, of: fn(&T) -> &Http2Counters) -> Http2Stats {
    let sum = |counter: fn(&Http2Counters) -> &Counter| counters.sum(|c| counter(of(c)));
    let excess = |excess: Excess| counters.sum(|c| &of(c).excesses[excess as usize]);
    let fault = |fault: Fault| counters.sum(|c| &of(c).faults[fault as usize]);
    Http2Stats {
        connections: sum(|c| &c.connections),
        streams: sum(|c| &c.streams),
        resets_received: sum(|c| &c.resets_received),
        resets_sent: sum(|c| &c.resets_sent),
        refused: Http2Refused {
            pings: excess(Excess::Pings),
            settings: excess(Excess::Settings),
            priorities: excess(Excess::Priorities),
            window_updates: excess(Excess::WindowUpdates),
            small_increments: excess(Excess::SmallIncrements),
            resets: excess(Excess::Resets),
            empty_data: excess(Excess::EmptyData),
            small_data: excess(Excess::SmallData),
            provoked_resets: excess(Excess::ProvokedResets),
            header_block: excess(Excess::HeaderBlock),
            memory: excess(Excess::Memory),
            library: excess(Excess::Library),
            stray_heads: excess(Excess::StrayHeads),
            protocol: fault(Fault::Protocol),
            flow_control: fault(Fault::FlowControl),
            stream_closed: fault(Fault::StreamClosed),
            frame_size: fault(Fault::FrameSize),
            compression: fault(Fault::Compression),
        },
    }
}

fn handshakes<T>(counters: &PerWorker<T>, of: fn(&T) -> &HandshakeCounters) -> Handshakes {
    let sum = |counter: fn(&HandshakeCounters) -> &Counter| counters.sum(|c| counter(of(c)));
    let failed = |failure: HandshakeFailure| counters.sum(|c| &of(c).failed[failure as usize]);
    Handshakes {
        completed: sum(|c| &c.completed),
        resumed: sum(|c| &c.resumed),
        failed: HandshakesFailed {
            closed: failed(HandshakeFailure::Closed),
            late: failed(HandshakeFailure::Late),
            alert: failed(HandshakeFailure::Alert),
            certificate: failed(HandshakeFailure::Certificate),
            incompatible: failed(HandshakeFailure::Incompatible),
            protocol: failed(HandshakeFailure::Protocol),
            other: failed(HandshakeFailure::Other),
        },
    }
}
