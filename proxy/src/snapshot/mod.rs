//! The snapshot: a load balancer compiled into what workers run on. Immutable once made; a request keeps the
//! snapshot that it started with, the next request takes the present one.
//!
//! Compiling does no I/O. It takes the state of each object from the [`Registry`], which
//! hands back the same state for the same id, and that is how counters and health outlive a change.

mod access;
mod compile;
mod split;
#[cfg(test)]
mod tests;
mod tls;

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, atomic::Ordering},
};

use amphora_ipc::proxy::Remark;
use amphora_model::{
    Binding, InsertHeaders, LbAlgorithm, ListenerId, ListenerProtocol, ListenerTimeouts, LoadBalancer,
    MemberId, MemberOptions, PoolId, Transport,
};

use self::tls::Contexts;
pub use self::tls::Expiry;
pub use self::{
    access::AccessList,
    compile::{compile, compile_after},
    split::{Chosen, Split, Splits},
    tls::TlsSource,
};
use crate::{
    balance::MembersView,
    conn::proxy_protocol::Version as ProxyVersion,
    http::Identification,
    l7::{Expressions, L7Program},
    limits::rate,
    logs::LogPlan,
    persist::{PersistState, Persistence},
    state::{FULL, ListenerState, MemberState, PoolState, Registry},
    tls::{ClientContext, ServerContext},
};

/// A compiled load balancer.
#[derive(Debug)]
pub struct Snapshot {
    /// Grows by one with every change.
    pub generation: u64,
    /// The model that this was compiled from; `None` is an amphora without a load balancer.
    pub model: Option<Arc<LoadBalancer>>,
    /// The listeners that are bound.
    pub listeners: Vec<Arc<ListenerPlan>>,
    /// Every pool, also those that no listener uses: their members are monitored all the same.
    pub pools: Vec<Arc<PoolPlan>>,
    /// The states of all listeners, disabled ones included: these keep their counters.
    listener_states: Vec<Arc<ListenerState>>,
    enabled_pools: HashMap<PoolId, usize>,
    /// So that they need not be compiled again for the next.
    expressions: Expressions,
    /// The same of TLS.
    contexts: Contexts,
    /// What of the document is honoured in part.
    remarks: Vec<Remark>,
    /// What rate limits have counted.
    limits: rate::Kept,
}

/// A listener that is bound: enabled, in an enabled load balancer.
#[derive(Debug)]
pub struct ListenerPlan {
    /// State that outlives snapshots, with the id.
    pub state: Arc<ListenerState>,
    /// `protocol`.
    pub protocol: ListenerProtocol,
    /// What it binds: each VIP with the listener's port.
    pub bindings: Vec<Binding>,
    /// `protocol_port` in decimal, for `X-Forwarded-Port`.
    pub port_text: Box<str>,
    /// `connection_limit`, over all workers.
    pub connection_limit: Option<u32>,
    /// Index into [`Snapshot::pools`] of `default_pool_id`, when that pool is enabled.
    pub default_pool: Option<usize>,
    /// Pools that share by weight, if there are any: in place of the default pool and of those of policies.
    pub splits: Option<Box<Splits>>,
    /// `l7policies`; its pools are indexes into [`Snapshot::pools`].
    pub l7: L7Program,
    /// What requests are to be known by, if anything is asked for.
    pub identification: Option<Box<Identification>>,
    /// `insert_headers`.
    pub insert_headers: InsertHeaders,
    /// `timeout_*`.
    pub timeouts: ListenerTimeouts,
    /// `allowed_cidrs`.
    pub access: AccessList,
    /// Its flow log, if there is one.
    pub log: Option<Arc<LogPlan>>,
    /// What TLS is terminated with, where it is.
    pub tls: Option<Arc<ServerContext>>,
    /// The value of `Strict-Transport-Security` (`hsts_*`).
    pub hsts: Option<Box<str>>,
    /// `rate_limit_policies`, if any is enabled.
    pub limits: Option<Arc<rate::RateLimits>>,
}

impl ListenerPlan {
    /// Whether the connections of a listener that ran by another plan may be its own: it is the same listener, and a connection is of
    /// one kind for its life. Whom `allowed_cidrs` do not let in any more is seen by each connection.
    pub(crate) fn continues(&self, other: &Self) -> bool {
        self.state.id == other.state.id && self.protocol == other.protocol
    }

    /// Whether it asks the same of who shakes hands.
    pub(crate) fn admits_as(&self, other: &Self) -> bool {
        let admission = |plan: &Self| plan.tls.as_ref().map(|tls| *tls.admission());
        admission(self) == admission(other)
    }
}

/// A pool.
#[derive(Debug)]
pub struct PoolPlan {
    /// State that outlives snapshots, with the id.
    pub state: Arc<PoolState>,
    /// `lb_algorithm`.
    pub algorithm: LbAlgorithm,
    /// `session_persistence`.
    pub persistence: Option<Persistence>,
    /// What the pool remembers of its clients; outlives snapshots.
    pub persist_state: Option<Arc<PersistState>>,
    /// The PROXY protocol header that each connection to a member starts with.
    pub proxy_protocol: Option<ProxyVersion>,
    /// Whether it is of protocol HTTP: to it, clients of a TCP listener speak HTTP, too.
    pub speaks_http: bool,
    /// `members`.
    pub members: Vec<MemberPlan>,
    /// What members are spoken to with over TLS (`tls_enabled`).
    pub tls: Option<Arc<ClientContext>>,
    /// `amphora`: what it grants its members.
    pub member_options: MemberOptions,
}

impl PoolPlan {
    /// The member's weight at this moment, in sixteenths: less than all of it while it starts slowly.
    #[inline]
    pub(crate) fn present_weight(&self, member: &MemberPlan) -> u16 {
        let share =
            if self.member_options.slow_start.is_zero() { FULL } else { member.state.slow_start.share() };
        member.weight * share
    }

    /// Whether there is a member that the algorithm could choose.
    pub fn is_able(&self) -> bool {
        self.members.iter().any(|member| member.weight > 0 && member.is_usable())
    }

    /// The pool's id.
    pub fn id(&self) -> PoolId {
        self.state.id
    }
}

impl MembersView for PoolPlan {
    fn len(&self) -> usize {
        self.members.len()
    }

    fn id(&self, member: usize) -> MemberId {
        self.members[member].state.id
    }

    fn weight(&self, member: usize) -> u16 {
        self.present_weight(&self.members[member])
    }

    fn backup(&self, member: usize) -> bool {
        self.members[member].backup
    }

    fn usable(&self, member: usize) -> bool {
        self.members[member].is_usable()
    }

    fn last_resort(&self, member: usize) -> bool {
        self.members[member].is_up()
    }

    fn load(&self, member: usize) -> u32 {
        self.members[member].state.sessions.load(Ordering::Relaxed)
    }

    fn epoch(&self) -> u64 {
        self.state.epoch.load(Ordering::Acquire)
    }
}

/// A member.
#[derive(Debug)]
pub struct MemberPlan {
    /// State that outlives snapshots, with the id and the address.
    pub state: Arc<MemberState>,
    /// `weight`.
    pub weight: u16,
    /// `backup`.
    pub backup: bool,
    /// `admin_state_up`.
    pub admin_state_up: bool,
}

impl MemberPlan {
    /// Where the member listens.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::new(self.state.address, self.state.port)
    }

    /// Whether the member may be given traffic: enabled, not down, and not taken out as an outlier.
    #[inline]
    pub fn is_usable(&self) -> bool {
        self.is_up() && !self.state.outlier.is_ejected()
    }

    /// Whether it is enabled, not down, and not at the end of a drain.
    #[inline]
    pub fn is_up(&self) -> bool {
        self.admin_state_up && self.state.health.get().is_up() && !self.state.is_drained()
    }
}

impl Snapshot {
    /// The snapshot of an amphora without a load balancer.
    pub fn empty(generation: u64) -> Self {
        Self {
            generation,
            model: None,
            listeners: Vec::new(),
            pools: Vec::new(),
            listener_states: Vec::new(),
            enabled_pools: HashMap::new(),
            expressions: Expressions::default(),
            contexts: Contexts::default(),
            remarks: Vec::new(),
            limits: rate::Kept::default(),
        }
    }

    /// The compiled expressions of its policies.
    pub fn expressions(&self) -> &Expressions {
        &self.expressions
    }

    /// Makes known what workers are about to write in terms of this snapshot. To be called once nothing can keep it from
    /// going live, and before a worker has it.
    pub fn announce(&self) {
        self.pools.iter().filter_map(|pool| pool.persistence.as_ref()).for_each(Persistence::adopt);
    }

    /// Makes the states of this snapshot the ones that the next is compiled over.
    pub fn hand_over(&self, registry: &mut Registry) {
        registry.adopt(
            self.listener_states.iter().cloned(),
            self.pools.iter().map(|pool| (pool.state.clone(), pool.persist_state.clone())),
            self.pools.iter().flat_map(|pool| &pool.members).map(|member| &member.state),
        );
    }

    /// The states of all listeners, also of those that are not bound.
    pub fn listener_states(&self) -> &[Arc<ListenerState>] {
        &self.listener_states
    }

    /// What rate limits have counted.
    pub fn limits(&self) -> &rate::Kept {
        &self.limits
    }

    /// What of the document is honoured in part.
    pub fn remarks(&self) -> &[Remark] {
        &self.remarks
    }

    /// Until when that is good which clients of each listener are shown, disabled ones included.
    pub(crate) fn expiry(&self) -> HashMap<ListenerId, Expiry> {
        self.contexts.expiry()
    }

    /// Whether all of it is the same as in another, plans and contexts alike.
    pub fn is_same(&self, other: &Self) -> bool {
        let listeners = self.listeners.iter().map(Arc::as_ptr).eq(other.listeners.iter().map(Arc::as_ptr));
        let pools = self.pools.iter().map(Arc::as_ptr).eq(other.pools.iter().map(Arc::as_ptr));
        self.model == other.model && listeners && pools
    }

    /// Where an enabled pool stands in [`pools`](Self::pools).
    #[inline]
    pub fn pool_index(&self, id: PoolId) -> Option<usize> {
        self.enabled_pools.get(&id).copied()
    }

    /// Everything that sockets are bound to, with the index of its listener: what the workers take clients at.
    pub fn bindings(&self) -> impl Iterator<Item = (Binding, usize)> + '_ {
        self.listeners
            .iter()
            .enumerate()
            .flat_map(|(index, listener)| listener.bindings.iter().map(move |binding| (*binding, index)))
            .filter(|(binding, _)| binding.transport == Transport::Tcp)
    }
}
