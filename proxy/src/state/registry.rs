//! The states of all objects that exist, by id.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::Instant,
};

use super::{HealthCell, ListenerCounters, MemberCounters, PerWorker};
use crate::model::{ListenerId, MemberId, PoolId};

/// State of a listener.
#[derive(Debug)]
pub struct ListenerState {
    /// The listener's id.
    pub id: ListenerId,
    /// Connections open on all workers; compared with `connection_limit`.
    pub connections: AtomicU32,
    /// Counters, a cell per worker.
    pub counters: PerWorker<ListenerCounters>,
}

/// State of a pool.
#[derive(Debug)]
pub struct PoolState {
    /// The pool's id.
    pub id: PoolId,
    /// Grows whenever a member of the pool goes up or down; balancers rebuild what they derived when it differs.
    pub epoch: AtomicU64,
}

/// State of a member in its pool. A member whose address or port changes under the same id keeps its counters
/// but gets a fresh state of health.
#[derive(Debug)]
pub struct MemberState {
    /// The member's id.
    pub id: MemberId,
    /// The member's address.
    pub address: IpAddr,
    /// The member's port.
    pub port: u16,
    /// The pool that it belongs to.
    pub pool: Arc<PoolState>,
    /// What health checks say.
    pub health: HealthCell,
    /// Sessions or requests under way on all workers (HAProxy `scur`); what LEAST_CONNECTIONS compares.
    pub sessions: AtomicU32,
    /// Counters, a cell per worker. Shared by successive states of one id.
    pub counters: Arc<PerWorker<MemberCounters>>,
}

impl MemberState {
    /// Records what a check says, and tells balancers when that changes who is up.
    pub fn set_health(&self, state: super::CheckState) {
        if self.health.set(state) {
            self.pool.epoch.fetch_add(1, Ordering::Release);
        }
    }
}

/// All states by id. Owned by the control thread; nothing on the request path looks in here.
#[derive(Debug)]
pub struct Registry {
    workers: usize,
    started: Instant,
    listeners: HashMap<ListenerId, Arc<ListenerState>>,
    pools: HashMap<PoolId, Arc<PoolState>>,
    members: HashMap<(PoolId, MemberId), Arc<MemberState>>,
}

impl Registry {
    /// A registry for a process with this many workers.
    pub fn new(workers: usize) -> Self {
        Self {
            workers,
            started: Instant::now(),
            listeners: HashMap::new(),
            pools: HashMap::new(),
            members: HashMap::new(),
        }
    }

    /// How many workers the process has.
    pub fn workers(&self) -> usize {
        self.workers
    }

    /// When the process started.
    pub fn started(&self) -> Instant {
        self.started
    }

    /// The listener's state, made when it is new.
    pub fn listener(&mut self, id: ListenerId) -> Arc<ListenerState> {
        let workers = self.workers;
        let make = || {
            Arc::new(ListenerState { id, connections: AtomicU32::new(0), counters: PerWorker::new(workers) })
        };
        self.listeners.entry(id).or_insert_with(make).clone()
    }

    /// The pool's state, made when it is new.
    pub fn pool(&mut self, id: PoolId) -> Arc<PoolState> {
        self.pools.entry(id).or_insert_with(|| Arc::new(PoolState { id, epoch: AtomicU64::new(1) })).clone()
    }

    /// The member's state, made when it is new or has moved to another address.
    pub fn member(
        &mut self,
        pool: &Arc<PoolState>,
        id: MemberId,
        address: IpAddr,
        port: u16,
    ) -> Arc<MemberState> {
        let key = (pool.id, id);
        let counters = match self.members.get(&key) {
            Some(state) if state.address == address && state.port == port => return state.clone(),
            Some(state) => state.counters.clone(),
            None => Arc::new(PerWorker::new(self.workers)),
        };
        let state = Arc::new(MemberState {
            id,
            address,
            port,
            pool: pool.clone(),
            health: HealthCell::default(),
            sessions: AtomicU32::new(0),
            counters,
        });
        self.members.insert(key, state.clone());
        state
    }

    /// Forgets every object that `keep_*` do not name.
    pub fn retain(
        &mut self,
        keep_listener: impl Fn(ListenerId) -> bool,
        keep_pool: impl Fn(PoolId) -> bool,
        keep_member: impl Fn(PoolId, MemberId) -> bool,
    ) {
        self.listeners.retain(|id, _| keep_listener(*id));
        self.pools.retain(|id, _| keep_pool(*id));
        self.members.retain(|(pool, member), _| keep_member(*pool, *member));
    }
}
