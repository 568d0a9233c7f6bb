//! The documents on the control socket, HTTP/1.1 over a unix socket with JSON bodies. Peers: the agent, and an
//! operator with `curl --unix-socket`.
//!
//! | request | answer |
//! | --- | --- |
//! | `PUT /loadbalancer` with a load-balancer document | 200 [`Applied`] once every worker runs it; 400 or 409 [`Refusal`] and nothing changed |
//! | `GET /loadbalancer` | 200 the document that runs; 404 when there is none |
//! | `DELETE /loadbalancer` | 200 [`Applied`]; listeners are closed, sessions drain |
//! | `PUT /check` with a load-balancer document | 200 [`Checked`] or 400 [`Refusal`], as `PUT /loadbalancer` would say at this moment; nothing changes |
//! | `PUT /peers` with `{"peers": {"listen", "peer", "key"}}` ([`crate::PeersConfig`]) | 200 [`Peers`]; 400 or 409 [`Refusal`] and nothing changed |
//! | `GET /peers` | 200 [`Peers`] |
//! | `DELETE /peers` | 200 [`Peers`]; the connection is closed |
//! | `GET /stats` | 200 [`Stats`] |
//! | `GET /summary` | 200 [`Summary`] |
//! | `GET /members` | 200 [`Members`] |
//! | `POST /explain` with a [`Question`] | 200 [`Explanation`]; 400 or 404 [`Refusal`]. Nothing is sent or counted |
//! | `GET /info` | 200 [`Info`] |
//! | `GET /metrics` | 200 Prometheus text |

mod explain;
mod members;
mod peers;
mod stats;
mod summary;

use amphora_model::LoadBalancerId;
use serde::{Deserialize, Serialize};

pub use self::{
    explain::{
        Explanation, LimitCount, LimitVerdict, MemberVerdict, NotFollowed, PolicyVerdict, PoolNotFollowed,
        PoolVerdict, Question,
    },
    members::{Draining, Ejected, LeavingMember, MemberFailure, MemberReport, Members},
    peers::{Peers, PeersRejected, PeersState},
    stats::{
        Handshakes, HandshakesFailed, HistoryStats, Http2Refused, Http2Stats, ListenerStats,
        MemberOptionsStats, MemberStats, PoolStats, ProcessStats, RateLimitStats, RateLimiterStats,
        Responses, Stats, TimeStats, TimesStats,
    },
    summary::{ListenerSummary, MemberSummary, PoolSummary, Summary},
};
pub use amphora_model::{Fault, Refusal};

/// What runs after a change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Applied {
    /// Grows by one with every change that was applied; an identical document changes nothing.
    pub generation: u64,
    /// False when the document was the one that ran already.
    pub changed: bool,
    /// What of the document is honoured in part.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub remarks: Vec<Remark>,
}

/// What would run after a change. Whether its addresses can be bound is another matter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checked {
    /// What of the document is honoured in part.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub remarks: Vec<Remark>,
}

/// Something in a document that is honoured in part.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Remark {
    /// Where it stands, as in a [`Fault`].
    pub path: String,
    /// What is left out, for a human.
    pub text: String,
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
    /// See [`Applied::remarks`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub remarks: Vec<Remark>,
}
