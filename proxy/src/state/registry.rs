//! The states of all objects that exist, by id.

#![expect(
    clippy::disallowed_types,
    reason = "for the control thread, which shares what it locks with nobody"
)]

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use amphora_model::{ListenerId, MemberId, MemberOptions, PoolId};

use super::{
    Alarm, CheckState, Counter, Departed, Ejections, Failed, Failures, HealthCell, ListenerCounters,
    MemberCounters, MemberHistory, Outlier, PerWorker, PoolCounters, PoolHistory, Rate, SlowStart,
};
use crate::{limits::Places, logs::calendar::Wall, persist::PersistState};

/// For how long it counts that clients of a member are answered by ICMP. A host sends one such error a second at least while they ask,
/// and what has come is looked at once a second.
const REFUSED: Duration = Duration::from_secs(3);

/// State of a listener.
#[derive(Debug)]
pub struct ListenerState {
    /// The listener's id.
    pub id: ListenerId,
    /// Another for each state of the process: one that was deleted and made again under its id counts from zero.
    pub incarnation: u64,
    /// Connections open on all workers; compared with `connection_limit`.
    pub places: Places,
    /// Counters, a cell per worker.
    pub counters: PerWorker<ListenerCounters>,
    /// Rates of these counters.
    pub rates: ListenerRates,
}

/// How fast a listener's counters grow.
#[derive(Debug, Default)]
pub struct ListenerRates {
    /// Connections let in (HAProxy `rate`, `rate_max`).
    pub sessions: Rate,
    /// Connections refused by `allowed_cidrs`.
    pub denied: Rate,
    /// TLS handshakes with clients that were not completed.
    pub failed: Rate,
    /// Those that were.
    pub handshakes: HandshakeRates,
    /// Connections, refused ones included (HAProxy `conn_rate`, `conn_rate_max`).
    pub connections: Rate,
    /// Requests (HAProxy `req_rate`, `req_rate_max`).
    pub requests: Rate,
}

/// How fast what is counted of TLS handshakes grows.
#[derive(Debug, Default)]
pub struct HandshakeRates {
    completed: Rate,
    resumed: Rate,
}

impl HandshakeRates {
    /// Takes what is counted, `elapsed` after it was last taken; says how many handshakes were completed since, and how many of them
    /// needed new keys.
    pub fn sample(&self, completed: u64, resumed: u64, elapsed: Duration) -> (u64, u64) {
        let completed = self.completed.sample(completed, elapsed);
        (completed, completed.saturating_sub(self.resumed.sample(resumed, elapsed)))
    }
}

/// State of a pool.
#[derive(Debug)]
pub struct PoolState {
    /// The pool's id.
    pub id: PoolId,
    /// Grows whenever a member of the pool goes up or down, or its share changes; balancers rebuild what they derived when it differs.
    pub epoch: AtomicU64,
    /// `amphora.slow_start` of the configuration that is live, in seconds.
    pub slow_start: AtomicU32,
    /// Counters, a cell per worker.
    pub counters: PerWorker<PoolCounters>,
    /// Sessions given to its members (HAProxy `rate`, `rate_max`).
    pub rate: Rate,
    /// TLS handshakes with its members.
    pub handshakes: HandshakeRates,
    /// Wakes who watches the members.
    alarm: Arc<Alarm>,
    /// The control thread's alone.
    history: Mutex<PoolHistory>,
    /// The control thread's alone.
    departed: Mutex<Departed<PerWorker<MemberCounters>>>,
}

impl PoolState {
    /// What members counted that it does not have any more.
    pub fn departed(&self) -> MutexGuard<'_, Departed<PerWorker<MemberCounters>>> {
        self.departed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `amphora.slow_start` of the configuration that is live.
    pub fn slow_start(&self) -> Duration {
        Duration::from_secs(self.slow_start.load(Ordering::Relaxed).into())
    }

    /// What became of the pool.
    pub fn history(&self) -> MutexGuard<'_, PoolHistory> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the control thread keeps of a member.
#[derive(Debug, Default)]
pub struct MemberRecord {
    /// Sessions given to the member (HAProxy `rate`, `rate_max`).
    pub rate: Rate,
    /// What of it has failed last.
    pub failures: Failures,
    /// Times that it was taken out because of what it does with real traffic.
    pub ejections: Counter,
    history: Mutex<MemberHistory>,
}

/// State of a member in its pool. A member whose address or port changes under the same id keeps its counters
/// but gets a fresh state of health.
#[derive(Debug)]
pub struct MemberState {
    /// The member's id.
    pub id: MemberId,
    /// Its text, the value of the proxy's own persistence cookie.
    pub id_text: [u8; 36],
    /// The member's address.
    pub address: IpAddr,
    /// The member's port.
    pub port: u16,
    /// The pool that it belongs to.
    pub pool: Arc<PoolState>,
    /// What health checks say.
    pub health: HealthCell,
    /// How much of its weight it has.
    pub slow_start: SlowStart,
    /// What real traffic says.
    pub outlier: Outlier,
    /// The time is over in which it may finish what it has.
    drained: AtomicBool,
    /// The control thread's alone.
    ejections: Mutex<Ejections>,
    /// When clients' datagrams were last answered by ICMP alone: that nobody listens on the port.
    refused: Mutex<Option<Instant>>,
    /// Sessions or requests under way on all workers (HAProxy `scur`); what LEAST_CONNECTIONS compares.
    pub sessions: AtomicU32,
    /// Counters, a cell per worker. Shared by successive states of one id.
    pub counters: Arc<PerWorker<MemberCounters>>,
    /// The control thread's alone. Shared by successive states of one id.
    pub record: Arc<MemberRecord>,
}

impl MemberState {
    /// Records what a check says, and tells balancers when that changes who is up.
    pub fn set_health(&self, state: CheckState) {
        if self.health.set(state) {
            self.pool.epoch.fetch_add(1, Ordering::Release);
        }
    }

    /// Something has failed at the member. In a pool that looks for outliers that may take it out.
    #[cold]
    pub fn failed(&self, what: Failed, member_options: &MemberOptions) {
        self.record.failures.add(Wall::now(), what);
        if let Some(detection) = &member_options.outliers
            && what.says_something_of_the_member(member_options.transparent)
            && self.outlier.failed(detection.consecutive_failures)
        {
            self.pool.alarm.raise();
        }
    }

    /// The member has done what it was asked for.
    #[inline]
    pub fn passed(&self, member_options: &MemberOptions) {
        if member_options.outliers.is_some() {
            self.outlier.passed();
        }
    }

    /// Whether the time is over in which it may finish what it has.
    #[inline]
    pub fn is_drained(&self) -> bool {
        self.drained.load(Ordering::Relaxed)
    }

    /// That time is over; or the member is in use again. Who has something of it is still to be told.
    pub fn set_drained(&self, drained: bool) {
        if self.drained.swap(drained, Ordering::Relaxed) != drained {
            self.pool.epoch.fetch_add(1, Ordering::Release);
        }
    }

    /// When it was taken out because of what it does with real traffic.
    pub fn ejections(&self) -> MutexGuard<'_, Ejections> {
        self.ejections.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The member is about to be used that was not until now: where its pool says so it starts slowly. True when it does.
    pub fn comes_back(&self, now: Instant) -> bool {
        let slowly = self.pool.slow_start() > Duration::ZERO;
        if slowly {
            self.slow_start.begin(now);
        }
        slowly
    }

    /// As [`set_health`](Self::set_health), and remembers when. For what a check found out; what a change of the
    /// configuration makes of a member is remembered once that is live.
    pub fn checked(&self, now: Instant, state: CheckState) {
        if state.is_up() && !self.health.get().is_up() {
            self.comes_back(now);
        }
        self.set_health(state);
        let (before, after) = {
            let mut history = self.history();
            let before = history.status();
            history.checked(now, state);
            (before, history.status())
        };
        if before != after {
            self.pool.history().member_changed(now, before, after);
        }
    }

    /// Clients' datagrams were answered: by ICMP errors of the member's alone, which say that nobody listens on its port, or
    /// otherwise.
    pub fn answered(&self, now: Instant, refused: bool) {
        *self.refused.lock().unwrap_or_else(PoisonError::into_inner) = refused.then_some(now);
    }

    /// Whether clients' datagrams were answered so less than 3 s ago, and not otherwise since.
    pub fn is_refused(&self, now: Instant) -> bool {
        let refused = *self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        refused.is_some_and(|at| now.saturating_duration_since(at) < REFUSED)
    }

    /// What became of the member.
    pub fn history(&self) -> MutexGuard<'_, MemberHistory> {
        self.record.history.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// All states by id. Owned by the control thread; nothing on the request path looks in here.
///
/// Looking a state up never changes the registry: a new one belongs to the snapshot that asked for it, and becomes
/// known by [`adopt`](Self::adopt), once that snapshot is live. A change that is refused leaves no trace.
#[derive(Debug, Default)]
pub struct Registry {
    workers: usize,
    alarm: Arc<Alarm>,
    listeners: HashMap<ListenerId, Arc<ListenerState>>,
    pools: HashMap<PoolId, (Arc<PoolState>, Option<Arc<PersistState>>)>,
    members: HashMap<(PoolId, MemberId), Arc<MemberState>>,
    /// The same in the order of the document, which tells what a change has left alone.
    listed: Vec<Arc<MemberState>>,
    departed: Departed<ListenerState>,
    departed_pools: Departed<PoolState>,
}

impl Registry {
    /// A registry for a process with this many workers.
    pub fn new(workers: usize) -> Self {
        Self::with_alarm(workers, Arc::default())
    }

    /// The same, whose pools raise this alarm.
    pub fn with_alarm(workers: usize, alarm: Arc<Alarm>) -> Self {
        Self {
            workers,
            alarm,
            listeners: HashMap::new(),
            pools: HashMap::new(),
            members: HashMap::new(),
            listed: Vec::new(),
            departed: Departed::default(),
            departed_pools: Departed::default(),
        }
    }

    /// How many workers there are.
    pub fn workers(&self) -> usize {
        self.workers
    }

    /// The listener's state, or a new one.
    pub fn listener(&self, id: ListenerId) -> Arc<ListenerState> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        self.listeners.get(&id).cloned().unwrap_or_else(|| {
            Arc::new(ListenerState {
                id,
                incarnation: NEXT.fetch_add(1, Ordering::Relaxed),
                places: Places::default(),
                counters: PerWorker::new(self.workers),
                rates: ListenerRates::default(),
            })
        })
    }

    /// The pool's state, or a new one.
    pub fn pool(&self, id: PoolId) -> Arc<PoolState> {
        let known = self.pools.get(&id).map(|(state, _)| state.clone());
        known.unwrap_or_else(|| {
            Arc::new(PoolState {
                id,
                epoch: AtomicU64::new(1),
                slow_start: AtomicU32::new(0),
                alarm: Arc::clone(&self.alarm),
                counters: PerWorker::new(self.workers),
                rate: Rate::default(),
                handshakes: HandshakeRates::default(),
                history: Mutex::default(),
                departed: Mutex::default(),
            })
        })
    }

    /// What the pool remembers of its clients.
    pub fn persistence(&self, id: PoolId) -> Option<Arc<PersistState>> {
        self.pools.get(&id)?.1.clone()
    }

    /// The member's state, or a new one if it is new or has moved to another address.
    pub fn member(
        &self,
        pool: &Arc<PoolState>,
        id: MemberId,
        address: IpAddr,
        port: u16,
    ) -> Arc<MemberState> {
        let known = self.members.get(&(pool.id, id));
        if let Some(state) = known
            && (state.address, state.port) == (address, port)
        {
            return state.clone();
        }
        let (counters, record) = match known {
            Some(state) => (state.counters.clone(), state.record.clone()),
            None => (Arc::new(PerWorker::new(self.workers)), Arc::default()),
        };
        let mut id_text = [0; 36];
        id.0.hyphenated().encode_lower(&mut id_text);
        Arc::new(MemberState {
            id,
            id_text,
            address,
            port,
            pool: pool.clone(),
            health: HealthCell::default(),
            slow_start: SlowStart::default(),
            outlier: Outlier::default(),
            drained: AtomicBool::new(false),
            ejections: Mutex::default(),
            refused: Mutex::default(),
            sessions: AtomicU32::new(0),
            counters,
            record,
        })
    }

    /// What listeners counted that are known no more.
    pub fn departed(&self) -> PerWorker<ListenerCounters> {
        self.departed.sum()
    }

    /// What pools counted that are known no more.
    pub fn departed_pools(&self) -> PerWorker<PoolCounters> {
        self.departed_pools.sum()
    }

    /// Knows these states from now on and forgets all others, but for what they have counted.
    pub fn adopt<'a>(
        &mut self,
        listeners: impl IntoIterator<Item = Arc<ListenerState>>,
        pools: impl IntoIterator<Item = (Arc<PoolState>, Option<Arc<PersistState>>)>,
        members: impl IntoIterator<Item = &'a Arc<MemberState>>,
    ) {
        let listeners = listeners.into_iter().map(|state| (state.id, state)).collect();
        let before = std::mem::replace(&mut self.listeners, listeners);
        for (id, state) in before {
            if !self.listeners.contains_key(&id) {
                self.departed.add(state);
            }
        }
        let pools = pools.into_iter().map(|known| (known.0.id, known)).collect();
        let before = std::mem::replace(&mut self.pools, pools);
        for (id, (state, _)) in before {
            if !self.pools.contains_key(&id) {
                self.departed_pools.add(state);
            }
        }
        self.adopt_members(&members.into_iter().collect::<Vec<_>>());
    }

    /// Costs what lies between the first and the last that is another.
    fn adopt_members(&mut self, members: &[&Arc<MemberState>]) {
        let key = |state: &Arc<MemberState>| (state.pool.id, state.id);
        let same = |(old, new): &(&Arc<MemberState>, &&Arc<MemberState>)| Arc::ptr_eq(old, new);
        let first = self.listed.iter().zip(members).take_while(same).count();
        let (old, new) = (&self.listed[first..], &members[first..]);
        let last = old.iter().rev().zip(new.iter().rev()).take_while(same).count();
        let (old, new) = (first..self.listed.len() - last, &new[..new.len() - last]);
        let before: Vec<_> = self.listed.splice(old, new.iter().copied().cloned()).collect();
        for state in &before {
            self.members.remove(&key(state));
        }
        self.members.extend(new.iter().map(|state| (key(state), Arc::clone(state))));
        for state in before {
            if !self.members.contains_key(&key(&state)) {
                state.pool.departed().add(state.counters.clone());
            }
        }
        if self.members.capacity() / 4 > self.members.len() {
            self.members.shrink_to_fit();
            self.listed.shrink_to_fit();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use proptest::{collection::vec, prelude::*};
    use uuid::Uuid;

    use super::*;

    #[test]
    fn what_was_counted_is_kept_of_what_is_deleted() {
        let mut registry = Registry::new(2);
        let listener = registry.listener(ListenerId(Uuid::from_u128(1)));
        let pool = registry.pool(PoolId(Uuid::from_u128(2)));
        let address = Ipv4Addr::LOCALHOST.into();
        let member = registry.member(&pool, MemberId(Uuid::from_u128(3)), address, 80);
        listener.counters.of(0).requests.add(5);
        pool.counters.of(1).handshakes.completed.add(6);
        member.counters.of(1).requests.add(4);
        registry.adopt([listener], [(pool.clone(), None)], [&member]);

        // The same id elsewhere is the same member still.
        let moved = registry.member(&pool, member.id, address, 81);
        registry.adopt([], [(pool.clone(), None)], [&moved]);
        assert_eq!(pool.departed().sum().of(0).requests.get(), 0);
        assert_eq!(registry.departed().of(0).requests.get(), 5);
        assert_eq!(registry.departed_pools().of(0).handshakes.ended(), 0);

        registry.adopt([], [(pool.clone(), None)], []);
        assert_eq!(pool.departed().sum().of(0).requests.get(), 4);
        registry.adopt([], [], []);
        assert_eq!(registry.departed_pools().of(0).handshakes.ended(), 6);
    }

    proptest! {
        #[test]
        fn after_any_changes_those_of_the_last_document_are_known(
            documents in vec(vec((0_u128..12, 80_u16..82), 0..12), 1..8)
        ) {
            let mut registry = Registry::new(1);
            let pool = registry.pool(PoolId(Uuid::from_u128(1)));
            let address = Ipv4Addr::LOCALHOST.into();
            let mut counted = [false; 12];
            for document in documents {
                let mut seen = HashMap::new();
                let states: Vec<_> = document
                    .iter()
                    .filter(|(id, port)| seen.insert(*id, *port).is_none())
                    .map(|&(id, port)| registry.member(&pool, MemberId(Uuid::from_u128(id)), address, port))
                    .collect();
                for (id, counted) in counted.iter_mut().enumerate() {
                    let state = states.iter().find(|state| state.id.0.as_u128() == id as u128);
                    // Who counts is known by it as long as it is a member, wherever it moves.
                    if let Some(state) = state {
                        prop_assert_eq!(state.counters.of(0).requests.get(), u64::from(*counted));
                        if !*counted {
                            state.counters.of(0).requests.add(1);
                        }
                    }
                    *counted = state.is_some();
                }
                let before = pool.departed().sum().of(0).requests.get();
                let gone = registry.members.keys().filter(|(_, id)| states.iter().all(|s| s.id != *id)).count();
                registry.adopt([], [(pool.clone(), None)], &states);
                prop_assert_eq!(pool.departed().sum().of(0).requests.get(), before + gone as u64);
                prop_assert_eq!(registry.members.len(), states.len());
                for state in &states {
                    prop_assert!(Arc::ptr_eq(&registry.member(&pool, state.id, address, state.port), state));
                }
            }
        }
    }
}
