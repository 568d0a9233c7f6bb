//! `GET /stats`: every counter.

use std::collections::BTreeMap;

use amphora_model::{CheckState, ListenerId, MemberId, PoolId, RateLimitPolicyId};
use serde::{Deserialize, Serialize};

/// Every counter.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Stats {
    /// See [`Info::instance`](super::Info::instance).
    pub instance: String,
    /// See [`Applied::generation`](super::Applied::generation).
    pub generation: u64,
    /// The process.
    #[serde(default)]
    pub process: ProcessStats,
    /// Enabled listeners, those of PROMETHEUS included.
    pub listeners: BTreeMap<ListenerId, ListenerStats>,
    /// Pools.
    pub pools: BTreeMap<PoolId, PoolStats>,
    /// Rate limit policies, disabled ones included.
    #[serde(default)]
    pub rate_limits: BTreeMap<RateLimitPolicyId, RateLimitStats>,
    /// What rate limits count in; `None` while there are none.
    #[serde(default)]
    pub rate_limiter: Option<RateLimiterStats>,
}

/// What is counted of a rate limit policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RateLimitStats {
    /// Its listener.
    pub listener: ListenerId,
    /// Requests, connections or packets that its action was taken on; of QUEUE those that were turned away.
    pub limited: u64,
    /// Those that had to wait for their turn.
    pub queued: u64,
    /// How long they had to, together, ms.
    pub waited_ms: u64,
    /// Gauge: those that wait.
    pub waiting: u32,
}

/// What rate limits count in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RateLimiterStats {
    /// Places that there are: one for each client and rule.
    pub places: u64,
    /// Gauge: those in use.
    pub used: u64,
    /// How often a client was forgotten that still counted, because all of its places were taken.
    pub forgotten: u64,
}

/// What is known of the process as a whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ProcessStats {
    /// Connections in the last second, those that `allowed_cidrs` refused included (HAProxy `ConnRate`).
    pub connection_rate: u64,
    /// The highest that it was (HAProxy `MaxConnRate`).
    pub max_connection_rate: u64,
    /// Connections let in in the last second (HAProxy `SessRate`).
    pub session_rate: u64,
    /// The highest that it was (HAProxy `MaxSessRate`).
    pub max_session_rate: u64,
    /// Connections let in, those of listeners that are gone included (HAProxy `CumConns`).
    pub total_connections: u64,
    /// Requests, likewise (HAProxy `CumReq`).
    pub requests: u64,
    /// Connections over TLS, with clients and with members, those that shake hands included (HAProxy `CurrSslConns`).
    pub tls_connections: u64,
    /// Those that there were, once their handshake had come to its end (HAProxy `CumSslConns`).
    pub total_tls_connections: u64,
    /// Handshakes with clients in the last second, those that failed included (HAProxy `SslRate`).
    pub tls_rate: u64,
    /// The most that there were (HAProxy `MaxSslRate`).
    pub max_tls_rate: u64,
    /// Handshakes with clients in the last second that resumed no session (HAProxy `SslFrontendKeyRate`).
    pub client_key_rate: u64,
    /// The most that there were (HAProxy `SslFrontendMaxKeyRate`).
    pub max_client_key_rate: u64,
    /// Handshakes with members in the last second that resumed no session (HAProxy `SslBackendKeyRate`).
    pub member_key_rate: u64,
    /// The most that there were (HAProxy `SslBackendMaxKeyRate`).
    pub max_member_key_rate: u64,
    /// More connections than this there cannot be (HAProxy `Hard_maxconn`): the sum of the `connection_limit`s if every
    /// listener has one, or the process's limit of descriptors if that is less.
    pub max_connections: u64,
    /// Lines of flow logs given to syslog.
    pub flow_log_lines: u64,
    /// Those that were dropped, because syslog was not there or too slow.
    pub flow_log_lines_dropped: u64,
}

/// What became of a pool or a member since it is known; no change of the configuration resets it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HistoryStats {
    /// Checks that failed, apart from those of a member that was down already (HAProxy `chkfail`); 0 for a pool.
    pub check_failures: u64,
    /// Times that failed checks took the member down, or that the pool lost its last usable member (HAProxy `chkdown`).
    pub went_down: u64,
    /// Since the state changed, ms (HAProxy `lastchg`).
    pub unchanged_ms: u64,
    /// Time spent down, or in maintenance, all together, ms (HAProxy `downtime`).
    pub downtime_ms: u64,
    /// Since a session was last given to it, s; `None` before the first (HAProxy `lastsess`).
    pub last_session_s: Option<u64>,
    /// The most sessions in one second (HAProxy `rate_max`).
    pub max_session_rate: u64,
}

/// A time of sessions that have ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TimeStats {
    /// Its sum over the [`TimesStats::weight`] sessions, µs.
    pub sum_us: u64,
    /// The longest, µs.
    pub max_us: u64,
}

/// The times of the last sessions, about 1024 per worker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TimesStats {
    /// Sessions that the sums stand for.
    pub weight: u64,
    /// From the request to the connection, 0 where it was open already (HAProxy `ctime`, `ct_max`).
    pub connect: TimeStats,
    /// From the connection to the head of the response, 0 for TCP (HAProxy `rtime`, `rt_max`).
    pub response: TimeStats,
    /// From the request to the end (HAProxy `ttime`, `tt_max`).
    pub total: TimeStats,
}

/// Responses by class of status code.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the names say it")]
pub struct Responses {
    #[serde(rename = "1xx")]
    pub informational: u64,
    #[serde(rename = "2xx")]
    pub success: u64,
    #[serde(rename = "3xx")]
    pub redirection: u64,
    #[serde(rename = "4xx")]
    pub client_error: u64,
    #[serde(rename = "5xx")]
    pub server_error: u64,
    pub other: u64,
}

impl Responses {
    /// All of them.
    pub fn total(&self) -> u64 {
        let Self { informational, success, redirection, client_error, server_error, other } = *self;
        informational + success + redirection + client_error + server_error + other
    }
}

/// TLS handshakes; see the proxy's `state::HandshakeCounters` for each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "documented on HandshakeCounters")]
pub struct Handshakes {
    pub completed: u64,
    pub resumed: u64,
    pub failed: HandshakesFailed,
}

/// Those that were not completed, by reason; see the proxy's `state::HandshakeFailure` for each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "documented on HandshakeFailure")]
pub struct HandshakesFailed {
    pub closed: u64,
    pub late: u64,
    pub alert: u64,
    pub certificate: u64,
    pub incompatible: u64,
    pub protocol: u64,
    pub other: u64,
}

impl HandshakesFailed {
    /// All of them.
    pub fn total(&self) -> u64 {
        let Self { closed, late, alert, certificate, incompatible, protocol, other } = *self;
        closed + late + alert + certificate + incompatible + protocol + other
    }
}

impl Handshakes {
    /// Whether there were none.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

/// Connections of HTTP/2; see the proxy's `state::Http2Counters` for each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "documented on Http2Counters")]
pub struct Http2Stats {
    pub connections: u64,
    pub streams: u64,
    pub resets_received: u64,
    pub resets_sent: u64,
    pub refused: Http2Refused,
}

/// Connections of HTTP/2 that were ended for what the peer did, by reason: each is one of the proxy's
/// `http2::guard::Excess` or of its `Fault`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "documented on Excess and Fault")]
pub struct Http2Refused {
    pub pings: u64,
    pub settings: u64,
    pub priorities: u64,
    pub window_updates: u64,
    pub small_increments: u64,
    pub resets: u64,
    pub empty_data: u64,
    pub small_data: u64,
    pub provoked_resets: u64,
    pub header_block: u64,
    pub memory: u64,
    pub library: u64,
    pub protocol: u64,
    pub flow_control: u64,
    pub stream_closed: u64,
    pub frame_size: u64,
    #[serde(default)]
    pub stray_heads: u64,
    #[serde(default)]
    pub compression: u64,
}

impl Http2Stats {
    /// Whether there was none.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

/// A listener's counters; see the proxy's `state::ListenerCounters` for each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "documented on ListenerCounters")]
pub struct ListenerStats {
    /// Differs between a listener and one that is made under its id after it was deleted: counters start at zero
    /// with it.
    #[serde(default)]
    pub incarnation: u64,
    pub bytes_in: u64,
    pub bytes_out: u64,
    pub active_connections: u64,
    pub max_connections: u64,
    pub total_connections: u64,
    pub denied_connections: u64,
    pub requests: u64,
    pub request_errors: u64,
    pub requests_denied: u64,
    #[serde(default)]
    pub requests_intercepted: u64,
    #[serde(default)]
    pub requests_regex_limited: u64,
    pub responses: Responses,
    /// TLS handshakes with clients; absent is none.
    #[serde(default, skip_serializing_if = "Handshakes::is_none")]
    pub handshakes: Handshakes,
    /// Clients' connections of HTTP/2; absent is none.
    #[serde(default, skip_serializing_if = "Http2Stats::is_none")]
    pub http2: Http2Stats,
    /// The most connections let in in one second (HAProxy `rate_max`).
    #[serde(default)]
    pub max_session_rate: u64,
    /// The most connections in one second, refused ones included (HAProxy `conn_rate_max`).
    #[serde(default)]
    pub max_connection_rate: u64,
    /// The most requests in one second (HAProxy `req_rate_max`).
    #[serde(default)]
    pub max_request_rate: u64,
}

/// A pool and its members.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PoolStats {
    /// The listeners that can send to it, by default pool or policy.
    pub listeners: Vec<ListenerId>,
    /// High-water mark of sessions at once (HAProxy `smax`): the sum of what each worker has seen.
    #[serde(default)]
    pub max_sessions: u64,
    /// Sessions or requests given to it, once each however often they were tried (HAProxy `stot`).
    #[serde(default)]
    pub total_sessions: u64,
    /// Those of them for which there was no member to try (HAProxy `econ`, beside that of the members).
    #[serde(default)]
    pub connect_errors: u64,
    /// What its requests came to, one for each (HAProxy `hrsp_*`, `req_tot`).
    #[serde(default)]
    pub responses: Responses,
    /// TLS handshakes with members; absent is none.
    #[serde(default, skip_serializing_if = "Handshakes::is_none")]
    pub handshakes: Handshakes,
    /// Connections of HTTP/2 to members; absent is none.
    #[serde(default, skip_serializing_if = "Http2Stats::is_none")]
    pub http2: Http2Stats,
    /// What became of it.
    #[serde(default)]
    pub history: HistoryStats,
    /// Its members.
    pub members: BTreeMap<MemberId, MemberStats>,
    /// What members counted that the pool does not have any more: its own totals are the sums over these and `members`.
    /// Counts alone; the rest says nothing.
    #[serde(default)]
    pub departed: MemberStats,
}

/// A member's counters; see the proxy's `state::MemberCounters` for each.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "documented on MemberCounters")]
pub struct MemberStats {
    /// What health checks say.
    pub check: CheckState,
    /// `admin_state_up`.
    pub admin_state_up: bool,
    /// `weight`.
    pub weight: u16,
    /// `backup`.
    pub backup: bool,
    pub bytes_in: u64,
    pub bytes_out: u64,
    pub active_sessions: u64,
    pub max_sessions: u64,
    pub total_sessions: u64,
    pub selected: u64,
    pub connects: u64,
    pub reuses: u64,
    pub idle: u64,
    /// Idle connections that are kept at most, over all workers (HAProxy `idle_conn_lim`).
    #[serde(default)]
    pub idle_limit: u64,
    pub requests: u64,
    pub connect_errors: u64,
    pub response_errors: u64,
    pub retries: u64,
    pub redispatches: u64,
    pub client_aborts: u64,
    pub server_aborts: u64,
    pub responses: Responses,
    pub connect_time_us: u64,
    pub response_time_us: u64,
    pub total_time_us: u64,
    /// The last sessions.
    #[serde(default)]
    pub times: TimesStats,
    /// What became of it.
    #[serde(default)]
    pub history: HistoryStats,
    /// Of one of a pool that grants its members something (`pool.amphora`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub member_options: Option<MemberOptionsStats>,
}

/// What becomes of what a pool grants a member.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberOptionsStats {
    /// Sixteenths of its weight that it has: 16 but for a slow start.
    pub weight_share: u16,
    /// Times that it was taken out as an outlier.
    pub ejections: u64,
    /// Whether it is out.
    pub ejected: bool,
    /// Whether it drains, and its time is not over.
    pub draining: bool,
}
