//! `GET /members`: what there is to tell of members beyond counters.

use std::{collections::BTreeMap, net::SocketAddr};

use amphora_model::{MemberId, PoolId};
use serde::{Deserialize, Serialize};

/// What there is to tell of members; those of which there is nothing are left out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Members {
    /// By pool and id.
    pub pools: BTreeMap<PoolId, BTreeMap<MemberId, MemberReport>>,
    /// Members that their pools have no more, or pools that are gone, with what they may still finish.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub leaving: Vec<LeavingMember>,
}

/// Of one member.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberReport {
    /// How much of its weight it has while it starts slowly, in percent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight_percent: Option<u8>,
    /// What its last health check found, in HAProxy's words, of one that is down.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub check: Option<String>,
    /// It is taken out because of what it does with real traffic.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ejected: Option<Ejected>,
    /// It drains, in a pool with a `drain_timeout`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub draining: Option<Draining>,
    /// What has failed last, the latest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failures: Vec<MemberFailure>,
}

impl MemberReport {
    /// Whether there is nothing to tell.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// For how long a member is taken out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ejected {
    /// Seconds since.
    pub since_s: u64,
    /// Seconds that are left.
    pub left_s: u64,
    /// The how manyeth time in a row it is.
    pub times: u32,
}

/// How far a drain is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Draining {
    /// `weight 0`, `disabled`, `removed`.
    pub why: String,
    /// Seconds since.
    pub since_s: u64,
    /// Seconds that are left; 0 when the time is over.
    pub left_s: u64,
    /// Sessions, or requests under way.
    pub connections: u64,
}

/// A failure, or several alike one after another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberFailure {
    /// When the last was, as in RFC 3339, UTC.
    pub at: String,
    /// How many there were.
    pub times: u32,
    /// Where it has failed, and why: `connect: Connection refused`.
    pub what: String,
}

/// A member that is known no more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeavingMember {
    /// Its pool's id.
    pub pool_id: PoolId,
    /// Its id.
    pub id: MemberId,
    /// Where it listens.
    pub address: SocketAddr,
    /// How far it is.
    pub draining: Draining,
}
