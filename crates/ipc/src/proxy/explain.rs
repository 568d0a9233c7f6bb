//! `POST /explain`: what a request would meet, without sending it.

use std::net::{IpAddr, SocketAddr};

use amphora_model::{L7PolicyId, ListenerId, MemberId, PoolId, RateLimitPolicyId};
use serde::{Deserialize, Serialize};

use super::MemberReport;

/// What is asked: a request to a listener, or of one that is not of HTTP, a connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Question {
    /// The listener's id.
    pub listener: ListenerId,
    /// `GET` if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// The target: `/` if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// Names and values of header fields; without `Host` it is the listener's address.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<(String, String)>,
    /// The client's address: 192.0.2.1 if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<IpAddr>,
    /// The client's certificate in PEM, and behind it those of authorities between: what it would show if it was asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<String>,
}

/// What it would meet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// The listener's id.
    pub listener: ListenerId,
    /// What becomes of it, in words.
    pub outcome: String,
    /// Rate limits that would count it; here nothing is counted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rate_limits: Vec<LimitVerdict>,
    /// The listener's policies, in the order in which they are looked at.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub policies: Vec<PolicyVerdict>,
    /// What `pool_persistence` says that is not gone by: the pools share the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool_not_followed: Option<PoolNotFollowed>,
    /// The pools that it may go to; more than one where they share by weight.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pools: Vec<PoolVerdict>,
}

/// A rate limit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LimitVerdict {
    /// The policy's id.
    pub id: RateLimitPolicyId,
    /// Its name.
    pub name: String,
    /// What it does with what is too much.
    pub action: String,
    /// What its rules allow.
    pub rules: Vec<String>,
    /// What each of them has counted; none where it was not asked.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub counts: Vec<LimitCount>,
    /// What would be done with this one; absent if it would pass.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdict: Option<String>,
}

/// What a rule of a rate limit has counted of a client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LimitCount {
    /// `metric`.
    pub metric: String,
    /// Of which address, or with IPv6 of which /64.
    pub client: String,
    /// How many in the interval up to now, without this one; of a queue, turns that were taken in advance. Absent if this one would not
    /// be counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
    /// `threshold`.
    pub threshold: u64,
    /// `interval`, in seconds.
    pub interval_s: u64,
    /// Whether this one would be too much for it.
    pub broken: bool,
}

/// A policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyVerdict {
    /// Its id.
    pub id: L7PolicyId,
    /// Its name.
    pub name: String,
    /// `position`.
    pub position: u32,
    /// What it does.
    pub action: String,
    /// Whether all of its rules hold.
    pub matches: bool,
    /// Why it does not apply: each rule that does not hold, or what keeps it from being looked at.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub why_not: Vec<String>,
}

/// A pool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolVerdict {
    /// Its id.
    pub id: PoolId,
    /// Its name.
    pub name: String,
    /// Its share, where several share.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<u16>,
    /// `lb_algorithm`.
    pub algorithm: String,
    /// The member that session persistence names, if that may be used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub persistent: Option<MemberId>,
    /// What session persistence says that is not gone by: the request is balanced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_followed: Option<NotFollowed>,
    /// Its members.
    pub members: Vec<MemberVerdict>,
}

/// What of a request belongs to a member that does not get it, or to none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotFollowed {
    /// `cookie SRV`, `address 192.0.2.7`.
    pub by: String,
    /// The member that it names, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub member: Option<MemberId>,
    /// Why that one does not get the request.
    pub why: String,
}

/// A member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberVerdict {
    /// Its id.
    pub id: MemberId,
    /// Its name.
    pub name: String,
    /// Where it listens.
    pub address: SocketAddr,
    /// Its weight.
    pub weight: u16,
    /// Sessions, or requests under way.
    pub connections: u64,
    /// Whether it is among those that are chosen from, or the one that is.
    pub may_get_it: bool,
    /// Why it may not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why_not: Option<String>,
    /// What else there is to tell of it.
    #[serde(default, skip_serializing_if = "MemberReport::is_empty")]
    pub amphora: MemberReport,
}

/// What of a request belongs to a pool that does not get it, or to none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolNotFollowed {
    /// `cookie version`.
    pub by: String,
    /// The pool that it names, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<PoolId>,
    /// That one's name.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Why that one does not get the request.
    pub why: String,
}
