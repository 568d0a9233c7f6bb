//! The documents on the control socket, HTTP/1.1 over a unix socket with JSON bodies. Peers: the agent, and an
//! operator with `curl --unix-socket`.
//!
//! | request | answer |
//! | --- | --- |
//! | `PUT /loadbalancer` with a load-balancer document | 200 [`Applied`] once every worker runs it; 400 or 409 [`Refusal`] and nothing changed |
//! | `GET /loadbalancer` | 200 the document that runs; 404 when there is none |
//! | `DELETE /loadbalancer` | 200 [`Applied`]; listeners are closed, sessions drain |
//! | `GET /stats` | 200 [`Stats`] |
//! | `GET /info` | 200 [`Info`] |
//! | `GET /metrics` | 200 Prometheus text |

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use crate::model::{Fault, Refusal};
use crate::{
    model::{ListenerId, LoadBalancerId, MemberId, PoolId},
    state::CheckState,
};

/// What runs after a change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Applied {
    /// Grows by one with every change that was applied; an identical document changes nothing.
    pub generation: u64,
    /// False when the document was the one that ran already.
    pub changed: bool,
}

/// The process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Info {
    /// Crate version.
    pub version: String,
    /// Differs each time the process starts: counters start at zero with it.
    pub instance: String,
    /// Process id.
    pub pid: u32,
    /// Worker threads.
    pub workers: usize,
    /// Milliseconds since start.
    pub uptime_ms: u64,
    /// The load balancer that runs.
    pub loadbalancer: Option<LoadBalancerId>,
    /// See [`Applied::generation`].
    pub generation: u64,
}

/// Every counter.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Stats {
    /// See [`Info::instance`].
    pub instance: String,
    /// See [`Applied::generation`].
    pub generation: u64,
    /// Enabled listeners, those of PROMETHEUS included.
    pub listeners: BTreeMap<ListenerId, ListenerStats>,
    /// Pools.
    pub pools: BTreeMap<PoolId, PoolStats>,
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

/// A listener's counters; see [`crate::state::ListenerCounters`] for each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "documented on ListenerCounters")]
pub struct ListenerStats {
    pub bytes_in: u64,
    pub bytes_out: u64,
    pub active_connections: u64,
    pub max_connections: u64,
    pub total_connections: u64,
    pub denied_connections: u64,
    pub requests: u64,
    pub request_errors: u64,
    pub requests_denied: u64,
    pub responses: Responses,
}

/// A pool and its members.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PoolStats {
    /// The listeners that can send to it, by default pool or policy.
    pub listeners: Vec<ListenerId>,
    /// Its members.
    pub members: BTreeMap<MemberId, MemberStats>,
}

/// A member's counters; see [`crate::state::MemberCounters`] for each.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
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
}
