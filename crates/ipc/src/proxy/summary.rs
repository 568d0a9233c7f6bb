//! `GET /summary`: what a heartbeat tells of.

use std::collections::BTreeMap;

use amphora_model::{CheckState, ListenerId, MemberId, PoolId};
use serde::{Deserialize, Serialize};

use super::{ListenerStats, MemberStats, PoolStats, Stats};

/// What a heartbeat tells of: the few of [`Stats`] that it needs, so that one costs little however many counters there are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// See [`Info::instance`](super::Info::instance).
    pub instance: String,
    /// Enabled listeners, those of PROMETHEUS included.
    pub listeners: BTreeMap<ListenerId, ListenerSummary>,
    /// Pools.
    pub pools: BTreeMap<PoolId, PoolSummary>,
}

/// Of [`ListenerStats`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListenerSummary {
    /// See [`ListenerStats::incarnation`].
    pub incarnation: u64,
    /// See [`ListenerStats::bytes_in`].
    pub bytes_in: u64,
    /// See [`ListenerStats::bytes_out`].
    pub bytes_out: u64,
    /// See [`ListenerStats::active_connections`].
    pub active_connections: u64,
    /// See [`ListenerStats::total_connections`].
    pub total_connections: u64,
    /// See [`ListenerStats::request_errors`].
    pub request_errors: u64,
}

/// Of [`PoolStats`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolSummary {
    /// See [`PoolStats::listeners`].
    pub listeners: Vec<ListenerId>,
    /// See [`PoolStats::members`].
    pub members: BTreeMap<MemberId, MemberSummary>,
}

/// Of [`MemberStats`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberSummary {
    /// See [`MemberStats::check`].
    pub check: CheckState,
    /// See [`MemberStats::admin_state_up`].
    pub admin_state_up: bool,
    /// See [`MemberStats::weight`].
    pub weight: u16,
}

impl From<&Stats> for Summary {
    fn from(stats: &Stats) -> Self {
        Self {
            instance: stats.instance.clone(),
            listeners: stats.listeners.iter().map(|(id, stats)| (*id, stats.into())).collect(),
            pools: stats.pools.iter().map(|(id, stats)| (*id, stats.into())).collect(),
        }
    }
}

impl From<&ListenerStats> for ListenerSummary {
    fn from(stats: &ListenerStats) -> Self {
        Self {
            incarnation: stats.incarnation,
            bytes_in: stats.bytes_in,
            bytes_out: stats.bytes_out,
            active_connections: stats.active_connections,
            total_connections: stats.total_connections,
            request_errors: stats.request_errors,
        }
    }
}

impl From<&PoolStats> for PoolSummary {
    fn from(stats: &PoolStats) -> Self {
        let members = stats.members.iter().map(|(id, stats)| (*id, stats.into())).collect();
        Self { listeners: stats.listeners.clone(), members }
    }
}

impl From<&MemberStats> for MemberSummary {
    fn from(stats: &MemberStats) -> Self {
        Self { check: stats.check, admin_state_up: stats.admin_state_up, weight: stats.weight }
    }
}
