//! The snapshot, laid out as rows that an exposition can stop at and go on from.

use std::collections::{HashMap, HashSet};

use amphora_ipc::{
    proxy::{
        Handshakes, HandshakesFailed, HistoryStats, Http2Refused, Http2Stats, ListenerStats, MemberStats,
        Peers, PoolStats, ProcessStats, RateLimitStats, RateLimiterStats, Responses, TimeStats, TimesStats,
    },
    usage::Usage,
};
use amphora_model::{AlpnProtocol, ListenerId, ListenerProtocol, PoolId, PoolTls};

use super::{MetricsInput, host::Host, sink::escape};
use crate::{snapshot::Expiry, state::MemberStatus};

/// All objects, with their labels as text.
#[derive(Debug)]
pub(super) struct Rows {
    pub(super) process: ProcessRow,
    pub(super) peers: Option<Peers>,
    pub(super) listeners: Vec<ListenerRow>,
    pub(super) rate_limits: Vec<RateLimitRow>,
    pub(super) pools: Vec<PoolRow>,
    pub(super) members: Vec<MemberRow>,
}

#[derive(Debug)]
pub(super) struct ProcessRow {
    pub(super) labels: String,
    pub(super) workers: u64,
    pub(super) uptime_ms: u64,
    pub(super) generation: u64,
    pub(super) host: Option<Host>,
    pub(super) usage: Usage,
    pub(super) listeners: u64,
    pub(super) connections: u64,
    pub(super) stats: ProcessStats,
    /// While there are rate limits.
    pub(super) rate_limiter: Option<RateLimiterStats>,
}

#[derive(Debug)]
pub(super) struct ListenerRow {
    pub(super) labels: String,
    pub(super) stats: ListenerStats,
    pub(super) connection_limit: Option<u32>,
    /// Of one that terminates TLS.
    pub(super) handshakes: Option<Handshakes>,
    /// Of one whose clients may speak HTTP/2.
    pub(super) http2: Option<Http2Stats>,
    /// Of one that terminates TLS.
    pub(super) expiry: Option<Expiry>,
}

#[derive(Debug)]
pub(super) struct RateLimitRow {
    pub(super) labels: String,
    pub(super) stats: RateLimitStats,
}

/// A pool: mostly the sums over its members.
#[derive(Debug, Default)]
pub(super) struct PoolRow {
    pub(super) labels: String,
    pub(super) up: bool,
    pub(super) active_members: u64,
    pub(super) backup_members: u64,
    pub(super) sessions: u64,
    pub(super) sessions_total: u64,
    pub(super) bytes_in: u64,
    pub(super) bytes_out: u64,
    pub(super) connection_errors: u64,
    pub(super) response_errors: u64,
    pub(super) retries: u64,
    pub(super) redispatches: u64,
    pub(super) selected: u64,
    pub(super) requests: u64,
    pub(super) client_aborts: u64,
    pub(super) server_aborts: u64,
    pub(super) connects: u64,
    pub(super) reuses: u64,
    pub(super) responses: Responses,
    /// Of one whose members are spoken to over TLS.
    pub(super) handshakes: Option<Handshakes>,
    /// Of one whose members are offered HTTP/2.
    pub(super) http2: Option<Http2Stats>,
    pub(super) max_sessions: u64,
    pub(super) times: TimesStats,
    pub(super) history: HistoryStats,
}

#[derive(Debug)]
pub(super) struct MemberRow {
    pub(super) labels: String,
    pub(super) stats: MemberStats,
}

impl Rows {
    pub(super) fn new(input: &MetricsInput<'_>) -> Self {
        let MetricsInput { info, stats, loadbalancer, expiry, peers, host, usage } = *input;
        let limits: HashMap<ListenerId, u32> = loadbalancer
            .into_iter()
            .flat_map(|lb| &lb.listeners)
            .filter_map(|listener| Some((listener.id, listener.connection_limit?)))
            .collect();
        let over_tls: HashSet<ListenerId> = loadbalancer
            .into_iter()
            .flat_map(|lb| &lb.listeners)
            .filter_map(|listener| listener.tls.as_ref().map(|_| listener.id))
            .collect();
        let of_http: HashSet<ListenerId> = loadbalancer
            .into_iter()
            .flat_map(|lb| &lb.listeners)
            .filter(|listener| {
                use ListenerProtocol::{Http, Prometheus, TerminatedHttps};
                matches!(listener.protocol, Http | TerminatedHttps | Prometheus)
            })
            .map(|listener| listener.id)
            .collect();
        let pools_over_tls: HashMap<PoolId, &PoolTls> = loadbalancer
            .into_iter()
            .flat_map(|lb| &lb.pools)
            .filter_map(|pool| Some((pool.id, pool.tls.as_ref()?)))
            .collect();
        let sum = |value: fn(&ListenerStats) -> u64| stats.listeners.values().map(value).sum();
        let process = ProcessRow {
            labels: format!("version=\"{}\",instance=\"{}\"", escape(&info.version), escape(&info.instance)),
            workers: info.workers as u64,
            uptime_ms: info.uptime_ms,
            generation: info.generation,
            host,
            usage,
            listeners: stats.listeners.len() as u64,
            connections: sum(|l| l.active_connections),
            stats: stats.process,
            rate_limiter: stats.rate_limiter,
        };
        let listeners = stats.listeners.iter().map(|(id, stats)| ListenerRow {
            labels: format!("listener=\"{id}\""),
            stats: *stats,
            connection_limit: limits.get(id).copied(),
            handshakes: over_tls.contains(id).then_some(stats.handshakes),
            http2: of_http.contains(id).then_some(stats.http2),
            expiry: expiry.get(id).cloned(),
        });
        let rate_limits = stats.rate_limits.iter().map(|(id, stats)| RateLimitRow {
            labels: format!("listener=\"{}\",policy=\"{id}\"", stats.listener),
            stats: *stats,
        });
        let pools = stats
            .pools
            .iter()
            .map(|(id, pool)| PoolRow::new(format!("pool=\"{id}\""), pool, pools_over_tls.get(id).copied()));
        let members = stats.pools.iter().flat_map(|(pool_id, pool)| {
            pool.members.iter().map(move |(id, stats)| MemberRow {
                labels: format!("pool=\"{pool_id}\",member=\"{id}\""),
                stats: stats.clone(),
            })
        });
        Self {
            process,
            peers: peers.cloned(),
            listeners: listeners.collect(),
            rate_limits: rate_limits.collect(),
            pools: pools.collect(),
            members: members.collect(),
        }
    }

    /// About the memory that they take.
    pub(super) fn bytes(&self) -> usize {
        let labels = |labels: &String| labels.capacity() + size_of::<usize>();
        self.listeners.iter().map(|row| size_of_val(row) + labels(&row.labels)).sum::<usize>()
            + self.rate_limits.iter().map(|row| size_of_val(row) + labels(&row.labels)).sum::<usize>()
            + self.pools.iter().map(|row| size_of_val(row) + labels(&row.labels)).sum::<usize>()
            + self.members.iter().map(|row| size_of_val(row) + labels(&row.labels)).sum::<usize>()
    }
}

impl PoolRow {
    fn new(labels: String, pool: &PoolStats, tls: Option<&PoolTls>) -> Self {
        // HAProxy's view of a backend: one without servers is up, else one server has to be usable.
        let mut row = Self {
            labels,
            up: pool.members.is_empty(),
            max_sessions: pool.max_sessions,
            sessions_total: pool.total_sessions,
            connection_errors: pool.connect_errors,
            requests: pool.responses.total(),
            responses: pool.responses,
            handshakes: tls.map(|_| pool.handshakes),
            http2: tls.filter(|tls| tls.settings.alpn.contains(&AlpnProtocol::H2)).map(|_| pool.http2),
            history: pool.history,
            ..Self::default()
        };
        for member in pool.members.values() {
            if status(member) == MemberStatus::Up {
                row.up = true;
                row.active_members += u64::from(!member.backup);
                row.backup_members += u64::from(member.backup);
            }
        }
        for member in pool.members.values().chain([&pool.departed]) {
            row.sessions += member.active_sessions;
            row.bytes_in += member.bytes_in;
            row.bytes_out += member.bytes_out;
            row.connection_errors += member.connect_errors;
            row.response_errors += member.response_errors;
            row.retries += member.retries;
            row.redispatches += member.redispatches;
            row.selected += member.selected;
            row.client_aborts += member.client_aborts;
            row.server_aborts += member.server_aborts;
            row.connects += member.connects;
            row.reuses += member.reuses;
            row.times.weight += member.times.weight;
            join(&mut row.times.connect, member.times.connect);
            join(&mut row.times.response, member.times.response);
            join(&mut row.times.total, member.times.total);
        }
        row
    }
}

/// Sums have a common mean when their weights are summed, too.
fn join(pool: &mut TimeStats, member: TimeStats) {
    pool.sum_us += member.sum_us;
    pool.max_us = pool.max_us.max(member.max_us);
}

/// A member's status.
pub(super) fn status(member: &MemberStats) -> MemberStatus {
    MemberStatus::of(member.admin_state_up, member.weight, member.check)
}

/// The values of the label `code`, with what each counts.
pub(super) fn codes(responses: &Responses) -> [(&'static str, u64); 6] {
    [
        ("1xx", responses.informational),
        ("2xx", responses.success),
        ("3xx", responses.redirection),
        ("4xx", responses.client_error),
        ("5xx", responses.server_error),
        ("other", responses.other),
    ]
}

/// The values of the label `reason`, with what each counts.
pub(super) fn refusals(refused: &Http2Refused) -> [(&'static str, u64); 18] {
    [
        ("pings", refused.pings),
        ("settings", refused.settings),
        ("priorities", refused.priorities),
        ("window_updates", refused.window_updates),
        ("small_increments", refused.small_increments),
        ("resets", refused.resets),
        ("empty_data", refused.empty_data),
        ("small_data", refused.small_data),
        ("provoked_resets", refused.provoked_resets),
        ("header_block", refused.header_block),
        ("memory", refused.memory),
        ("library", refused.library),
        ("protocol", refused.protocol),
        ("flow_control", refused.flow_control),
        ("stream_closed", refused.stream_closed),
        ("frame_size", refused.frame_size),
        ("stray_heads", refused.stray_heads),
        ("compression", refused.compression),
    ]
}

/// The values of the label `reason`, with what each counts.
pub(super) fn reasons(failed: &HandshakesFailed) -> [(&'static str, u64); 7] {
    [
        ("closed", failed.closed),
        ("late", failed.late),
        ("alert", failed.alert),
        ("certificate", failed.certificate),
        ("incompatible", failed.incompatible),
        ("protocol", failed.protocol),
        ("other", failed.other),
    ]
}
