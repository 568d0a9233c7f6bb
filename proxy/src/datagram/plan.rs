//! What is forwarded where, as the helper is told it.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    sync::atomic::Ordering,
};

use amphora_model::{LbAlgorithm, Pool, RateLimitPolicy, SessionPersistence, Transport as Carried};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::snapshot::{ListenerPlan, PoolPlan, Snapshot};

/// Every listener of datagrams.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// One for each listener.
    pub services: Vec<Service>,
    /// Where members listen that are connected to from the addresses of clients.
    pub transparent: Vec<SocketAddr>,
}

/// A listener, and the members that it forwards to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// The listener's id.
    pub listener: Uuid,
    /// What its clients come by.
    pub transport: Transport,
    /// Where it is reached.
    pub addresses: Vec<SocketAddr>,
    /// `connection_limit`: flows at once.
    pub limit: Option<u32>,
    /// `member_connection_limit`: flows of one member at once.
    pub member_limit: Option<u32>,
    /// `allowed_cidrs`: networks and the lengths of their prefixes; empty allows everyone.
    pub allowed: Vec<(IpAddr, u8)>,
    /// `rate_limit_policies`: what is beyond is dropped.
    pub rates: Vec<Rate>,
    /// `lb_algorithm`.
    pub algorithm: Algorithm,
    /// `session_persistence`.
    pub persistence: Option<Persistence>,
    /// Those that are up, in the order of the document.
    pub members: Vec<Target>,
}

/// What carries flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Transport {
    /// UDP (RFC 768): a flow is what goes between two addresses and ports.
    Udp,
    /// SCTP (RFC 9260): a flow is an association, as far as it goes between two addresses.
    Sctp,
}

impl Transport {
    /// Its number in IP.
    pub fn number(self) -> u8 {
        match self {
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }
}

/// How many packets one client may send.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rate {
    /// The policy's id.
    pub policy: Uuid,
    /// The rule's id.
    pub rule: Uuid,
    /// `threshold`.
    pub packets: u32,
    /// `interval`, in seconds.
    pub seconds: u32,
}

/// How a member is chosen for a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Algorithm {
    /// In turn, by weight.
    RoundRobin,
    /// The one with the fewest flows for its weight.
    LeastConnections,
    /// By a hash of the client's address.
    SourceIp,
}

/// For how long flows of a client's network go to one member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Persistence {
    /// Seconds after the last new flow.
    pub timeout: u64,
    /// The length of the prefix of IPv4 clients.
    pub v4: u8,
    /// The same of IPv6.
    pub v6: u8,
}

/// A member that is up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// The member's id.
    pub member: Uuid,
    /// Where it listens.
    pub address: SocketAddr,
    /// Its weight at this moment, in sixteenths; 0 keeps what it has, and gets nothing new but by persistence.
    pub weight: u16,
    /// `backup`.
    pub backup: bool,
}

impl Plan {
    /// Whether the kernel has nothing to do.
    pub(super) fn is_empty(&self) -> bool {
        self.services.is_empty() && self.transparent.is_empty()
    }

    /// What a snapshot says, with the health that its members have now.
    pub fn of(snapshot: &Snapshot) -> Self {
        Self {
            services: services(snapshot).map(|(listener, pool)| service(snapshot, listener, pool)).collect(),
            transparent: transparent(snapshot).collect::<BTreeSet<_>>().into_iter().collect(),
        }
    }
}

/// The listeners of datagrams, each with its pool.
pub(super) fn services(snapshot: &Snapshot) -> impl Iterator<Item = (&ListenerPlan, Option<usize>)> {
    let forwarded = |listener: &&ListenerPlan| listener.protocol.is_forwarded();
    snapshot.listeners.iter().map(|plan| &**plan).filter(forwarded).map(|plan| (plan, plan.default_pool))
}

/// Whether a load balancer has any.
pub(super) fn has_services(snapshot: &Snapshot) -> bool {
    services(snapshot).next().is_some()
}

/// Where members listen that are connected to from the addresses of clients.
pub(super) fn transparent(snapshot: &Snapshot) -> impl Iterator<Item = SocketAddr> {
    let pools = snapshot.pools.iter().filter(|pool| pool.member_options.transparent);
    pools.flat_map(|pool| pool.members.iter().map(|member| member.address()))
}

/// Another whenever a member of a pool of a service has gone up or down.
pub(super) fn epoch(snapshot: &Snapshot) -> u64 {
    let pools = services(snapshot).filter_map(|(_, pool)| snapshot.pools.get(pool?));
    pools.fold(0, |sum, pool| sum.wrapping_add(pool.state.epoch.load(Ordering::Acquire)))
}

fn service(snapshot: &Snapshot, listener: &ListenerPlan, pool: Option<usize>) -> Service {
    let model = snapshot.model.as_deref();
    let id = listener.state.id;
    let configured = model.and_then(|model| model.listeners.iter().find(|listener| listener.id == id));
    let allowed = configured.into_iter().flat_map(|listener| &listener.allowed_cidrs);
    let policies = configured.into_iter().flat_map(|listener| &listener.rate_limit_policies);
    let rates = policies.filter(|policy| policy.enabled).flat_map(rates).collect();
    let member_limit = configured.and_then(|listener| listener.member_connection_limit);
    let plan = pool.and_then(|index| snapshot.pools.get(index));
    let configured: Option<&Pool> = pool.zip(model).and_then(|(index, model)| model.pools.get(index));
    Service {
        listener: id.0,
        transport: match listener.protocol.transport() {
            Carried::Sctp => Transport::Sctp,
            Carried::Udp | Carried::Tcp => Transport::Udp,
        },
        addresses: listener.bindings.iter().map(|binding| binding.address).collect(),
        limit: listener.connection_limit,
        member_limit,
        allowed: allowed.map(|network| (network.network(), network.prefix_len())).collect(),
        rates,
        algorithm: match plan.map(|plan| plan.algorithm) {
            Some(LbAlgorithm::LeastConnections) => Algorithm::LeastConnections,
            Some(LbAlgorithm::SourceIp | LbAlgorithm::SourceIpPort) => Algorithm::SourceIp,
            Some(LbAlgorithm::RoundRobin) | None => Algorithm::RoundRobin,
        },
        persistence: match configured.and_then(|pool| pool.session_persistence.as_ref()) {
            Some(SessionPersistence::SourceNetwork(network)) => Some(Persistence {
                timeout: network.timeout.as_secs(),
                v4: network.v4_prefix,
                v6: network.v6_prefix,
            }),
            _ => None,
        },
        members: plan.map(|plan| targets(plan)).unwrap_or_default(),
    }
}

fn rates(policy: &RateLimitPolicy) -> impl Iterator<Item = Rate> {
    policy.rules.iter().map(|rule| Rate {
        policy: policy.id.0,
        rule: rule.id.0,
        packets: rule.threshold,
        seconds: u32::try_from(rule.interval.as_secs()).unwrap_or(u32::MAX),
    })
}

fn targets(pool: &PoolPlan) -> Vec<Target> {
    let usable = pool.members.iter().filter(|member| member.is_usable());
    usable
        .map(|member| Target {
            member: member.state.id.0,
            address: member.address(),
            weight: pool.present_weight(member),
            backup: member.backup,
        })
        .collect()
}
