//! What a worker keeps of the present snapshot for itself: balancers, idle connections, and reference counts
//! that no other core touches.

use std::{
    cell::{Cell, Ref, RefCell},
    collections::HashMap,
    net::SocketAddr,
    rc::Rc,
    sync::{Arc, atomic::Ordering},
    task::Context,
    time::Duration,
};

use amphora_model::{ListenerProtocol, ListenerTimeouts, PoolId};
use rustls::ClientConfig;
use tokio::time::Instant;

use super::{
    idle::{IdleConnections, Trust},
    share::MemberShare,
    streams::{self, OverTls},
    tasks::{Enlisted, TaskList},
};
use crate::{
    balance::{Balance, Balancer, Flow, MembersView, Turn},
    conn::{Conn, MemberTls},
    http2::{MemberStreams, Watch},
    snapshot::{Chosen, ListenerPlan, PoolPlan, Snapshot, Split},
    state::{Http2Counters, ListenerState, MemberCounters, MemberState, PoolCounters},
    tls::ClientContext,
};

/// A snapshot as one worker runs it.
pub(crate) struct LocalSnapshot {
    pub(crate) shared: Arc<Snapshot>,
    pub(crate) pools: Vec<Rc<LocalPool>>,
}

/// A pool as one worker runs it. A request holds on to this, and not to the snapshot, once it is known where it goes.
pub(crate) struct LocalPool {
    pub(crate) plan: Arc<PoolPlan>,
    balance: RefCell<Balance>,
    /// Whether somebody may be picked, as of an epoch of the plan's.
    able: Cell<(u64, bool)>,
    pub(crate) members: Vec<Rc<LocalMember>>,
}

/// A member as one worker knows it. Lives as long as the member keeps its id and address, across snapshots.
pub(crate) struct LocalMember {
    pub(crate) state: Arc<MemberState>,
    idle: RefCell<IdleConnections>,
    share: Rc<MemberShare>,
    /// It is among the share's holders.
    holds: Cell<bool>,
    /// The pool has it no more: nobody will ask for an idle connection.
    left: Cell<bool>,
    worker: usize,
    /// With what it is spoken to over TLS, and its sessions that may be resumed.
    tls: RefCell<Option<Box<OverTls>>>,
}

impl LocalSnapshot {
    /// Takes over what `before` has in common with `shared`: whole pools that have not changed; of others the balancer's
    /// position and the members that stay, with their idle connections. Those of members that leave are closed.
    pub(crate) fn new(
        worker: usize,
        share: &Rc<MemberShare>,
        shared: Arc<Snapshot>,
        before: Option<&LocalSnapshot>,
    ) -> Self {
        let before = before.into_iter().flat_map(|before| &before.pools);
        let mut known: HashMap<PoolId, &Rc<LocalPool>> = before.map(|pool| (pool.plan.id(), pool)).collect();
        let pools = shared
            .pools
            .iter()
            .map(|plan| match known.remove(&plan.id()) {
                Some(old) if Arc::ptr_eq(&old.plan, plan) => Rc::clone(old),
                old => Rc::new(LocalPool::new(worker, share, Arc::clone(plan), old.map(|old| &**old))),
            })
            .collect();
        for pool in known.into_values() {
            pool.members.iter().for_each(|member| member.leave());
        }
        Self { shared, pools }
    }

    /// The plan of one listener.
    pub(crate) fn listener(&self, index: usize) -> &ListenerPlan {
        &self.shared.listeners[index]
    }

    /// Closes connections that are kept to members whose time to finish is over.
    pub(crate) fn end_drains(&self) {
        let members = self.pools.iter().flat_map(|pool| &pool.members);
        members.filter(|member| member.state.is_drained()).for_each(|member| member.leave());
    }

    /// Closes idle connections that are too old or that the member has closed.
    pub(crate) fn sweep(&self, now: Instant) {
        for member in self.pools.iter().flat_map(|pool| &pool.members) {
            member.sweep(now);
        }
    }
}

impl LocalPool {
    fn new(worker: usize, share: &Rc<MemberShare>, plan: Arc<PoolPlan>, before: Option<&Self>) -> Self {
        let mut balance = Balance::new(plan.algorithm, worker as u64);
        let mut old = Vec::new();
        if let Some(before) = before {
            balance.carry_over(&before.balance.borrow());
            old.extend(before.members.iter().map(|member| {
                member.left.set(true);
                (Arc::as_ptr(&member.state), member)
            }));
        }
        let mut by_state: Option<HashMap<*const MemberState, &Rc<LocalMember>>> = None;
        let members = plan
            .members
            .iter()
            .enumerate()
            .map(|(place, member)| {
                let state = Arc::as_ptr(&member.state);
                // Mostly everybody stays where it was.
                let known = match old.get(place) {
                    Some((at, local)) if *at == state => Some(*local),
                    _ => by_state.get_or_insert_with(|| old.iter().copied().collect()).get(&state).copied(),
                };
                match known {
                    Some(local) => {
                        local.left.set(false);
                        Rc::clone(local)
                    }
                    None => Rc::new(LocalMember::new(worker, Rc::clone(share), Arc::clone(&member.state))),
                }
            })
            .collect();
        old.iter().filter(|(_, member)| member.left.get()).for_each(|(_, member)| member.leave());
        Self { balance: RefCell::new(balance), able: Cell::default(), members, plan }
    }

    /// Lets the pool's algorithm choose a member.
    pub(crate) fn pick(&self, flow: &Flow, avoid: impl Fn(usize) -> bool) -> Option<usize> {
        self.balance.borrow_mut().pick(&*self.plan, flow, avoid)
    }

    /// Whether there is a member that the algorithm could choose.
    pub(crate) fn is_able(&self) -> bool {
        let epoch = self.plan.epoch();
        let (as_of, able) = self.able.get();
        if as_of == epoch {
            return able;
        }
        let able = self.plan.is_able();
        self.able.set((epoch, able));
        able
    }

    /// A session that begins at this member, `now` in seconds of the clock that all workers share.
    pub(crate) fn slot(&self, member: usize, now: u32) -> Slot {
        let turn = self.balance.borrow_mut().begin(&*self.plan, member);
        Slot::new(Rc::clone(&self.members[member]), turn, now)
    }
}

impl LocalMember {
    fn new(worker: usize, share: Rc<MemberShare>, state: Arc<MemberState>) -> Self {
        let (idle, holds, left, tls) = Default::default();
        Self { state, idle, share, holds, left, worker, tls }
    }

    /// Its pool has it no more, or is gone: idle connections are closed, however long sessions may still hold the member.
    fn leave(&self) {
        self.left.set(true);
        self.change_idle(std::mem::take);
        // Shared connections end with what is on them.
        self.tls.take();
    }

    /// With what it is spoken to over TLS: the same for as long as the context is made of the same.
    pub(crate) fn tls_config(&self, context: &ClientContext) -> Arc<ClientConfig> {
        self.over_tls(context, |over| Arc::clone(over.config()))
    }

    /// The same, for HTTP/1.1 alone; `None` when that may not be offered.
    pub(crate) fn http1_config(&self, context: &ClientContext) -> Option<Arc<ClientConfig>> {
        self.over_tls(context, |over| over.http1().cloned())
    }

    /// Connections of HTTP/2 that are shared by who would ask it for this host, behind this header of the PROXY protocol; `None`
    /// when HTTP/2 is not offered.
    pub(crate) fn streams(
        self: &Rc<Self>,
        context: &ClientContext,
        sni: Option<&str>,
        header: &[u8],
    ) -> Option<MemberStreams> {
        let counted = || (self.http2_counters(), Rc::clone(&self.share.backlog), self.watch());
        self.over_tls(context, |over| over.streams(sni, header, counted))
    }

    /// For one request in HTTP/2, on a connection that nobody shares.
    pub(crate) fn stream_alone(&self) -> MemberStreams {
        streams::alone(self.http2_counters(), Rc::clone(&self.share.backlog))
    }

    fn http2_counters(&self) -> Arc<Http2Counters> {
        Arc::clone(&self.pool_counters().http2)
    }

    fn over_tls<T>(&self, context: &ClientContext, look: impl FnOnce(&OverTls) -> T) -> T {
        let mut tls = self.tls.borrow_mut();
        if let Some(over) = tls.as_ref().filter(|over| over.is_of(context)) {
            return look(over);
        }
        let over = Box::new(OverTls::new(context));
        let result = look(&over);
        // A request that began before the member has left may still ask for it.
        let before = if self.left.get() { None } else { tls.replace(over) };
        drop(tls);
        drop(before);
        result
    }

    /// Counts shared connections without a stream with the idle ones.
    fn watch(self: &Rc<Self>) -> Watch {
        let (member, share) = (Rc::downgrade(self), Rc::clone(&self.share));
        let (state, worker) = (Arc::clone(&self.state), self.worker);
        Box::new(move |before, now| {
            share.changed(before, now);
            state.counters.of(worker).idle.add((now as u64).wrapping_sub(before as u64));
            if now > before
                && let Some(member) = member.upgrade()
            {
                member.holds_some();
            }
        })
    }

    fn holds_some(self: &Rc<Self>) {
        if !self.holds.replace(true) {
            self.share.join(self);
        }
        self.share.settle();
    }

    /// To look whether the time is over in which a session at the member may go on.
    pub(crate) fn watch_drain(self: &Rc<Self>) -> DrainWatch {
        DrainWatch { member: Rc::clone(self), enlisted: Enlisted::on(&self.share.sessions) }
    }

    /// This worker's counters of the member.
    #[inline]
    pub(crate) fn counters(&self) -> &MemberCounters {
        self.state.counters.of(self.worker)
    }

    /// This worker's counters of the pool.
    #[inline]
    pub(crate) fn pool_counters(&self) -> &PoolCounters {
        self.state.pool.counters.of(self.worker)
    }

    /// An idle connection for a request of `client` that can be repeated; see [`IdleConnections::take`].
    #[inline]
    pub(crate) fn take_idle(&self, client: SocketAddr, tls: Option<MemberTls<'_>>) -> Option<Conn> {
        self.change_idle(|idle| idle.take(client, tls))
    }

    /// One for a request that cannot be repeated; see [`IdleConnections::take_fresh`].
    pub(crate) fn take_fresh(
        &self,
        client: SocketAddr,
        tls: Option<MemberTls<'_>>,
        max_idle: Duration,
    ) -> Option<Conn> {
        self.change_idle(|idle| idle.take_fresh(client, tls, max_idle))
    }

    /// Keeps a connection whose exchange is complete for the next request. Beyond the worker's share another goes for it.
    pub(crate) fn put_idle(self: &Rc<Self>, stream: Conn, now: Instant, trust: Trust) {
        if self.left.get() || self.share.is_nothing() || self.state.is_drained() {
            return;
        }
        self.change_idle(|idle| idle.put(stream, now, trust));
        self.holds_some();
    }

    /// Closes the oldest idle connection; whether more are left. To be asked as one of the share's holders, which it is no
    /// more when none is.
    pub(super) fn give_oldest(&self) -> bool {
        let tls = self.tls.borrow();
        let shared = tls.as_ref().map_or(0, |over| over.idle());
        let own = self.idle.borrow().len();
        // One that is shared serves more.
        let left = if own > 0 {
            self.change_idle(IdleConnections::close_oldest);
            own + shared > 1
        } else {
            shared > 0 && tls.as_ref().is_some_and(|over| over.close_idle()) && shared > 1
        };
        self.holds.set(left);
        left
    }

    fn sweep(&self, now: Instant) {
        self.change_idle(|idle| idle.sweep(now));
    }

    #[inline]
    fn change_idle<T>(&self, change: impl FnOnce(&mut IdleConnections) -> T) -> T {
        let mut idle = self.idle.borrow_mut();
        let before = idle.len();
        let result = change(&mut idle);
        self.share.changed(before, idle.len());
        // Fewer are a negative number, modulo 2^64, as the counter counts.
        self.counters().idle.add((idle.len() as u64).wrapping_sub(before as u64));
        result
    }
}

impl Drop for LocalMember {
    fn drop(&mut self) {
        let kept = self.idle.borrow().len();
        self.share.changed(kept, 0);
        self.counters().idle.sub(kept as u64);
    }
}

/// For one task: whether the time is over in which its session at a member may go on.
pub(crate) struct DrainWatch {
    member: Rc<LocalMember>,
    enlisted: Enlisted,
}

impl std::fmt::Debug for DrainWatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DrainWatch").finish_non_exhaustive()
    }
}

impl DrainWatch {
    /// Whether it is; otherwise the task is woken when it may be.
    #[inline]
    pub(crate) fn is_over(&mut self, cx: &Context<'_>) -> bool {
        self.enlisted.ensure(cx);
        self.member.state.is_drained()
    }
}

/// A session or request under way at a member: while this lives it counts for LEAST_CONNECTIONS.
pub(crate) struct Slot {
    member: Rc<LocalMember>,
    /// For the pool's algorithm.
    _turn: Option<Turn>,
}

impl Slot {
    fn new(member: Rc<LocalMember>, turn: Option<Turn>, now: u32) -> Self {
        let sessions = member.state.sessions.fetch_add(1, Ordering::Relaxed) + 1;
        let last_session = u64::from(now) + 1;
        let counters = member.counters();
        counters.sessions_total.add(1);
        counters.sessions_max.max(u64::from(sessions));
        counters.last_session.set(last_session);
        let pool = member.pool_counters();
        pool.sessions.add(1);
        pool.sessions_max.max(pool.sessions.get());
        pool.last_session.set(last_session);
        Self { member, _turn: turn }
    }

    pub(crate) fn member(&self) -> &Rc<LocalMember> {
        &self.member
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.member.state.sessions.fetch_sub(1, Ordering::Relaxed);
        self.member.pool_counters().sessions.sub(1);
    }
}

/// A listener as one worker runs it at one of its addresses; its sessions hold on to it, and through it see the present
/// snapshot.
pub(crate) struct LocalListener {
    /// The same for as long as the listener keeps its id, whatever the snapshot.
    state: Arc<ListenerState>,
    present: RefCell<Present>,
    closing: Cell<bool>,
    /// None of the clients who are here has shown what is asked for now.
    barred: Cell<bool>,
    /// Some of the clients who are here may be ones whom the present access list would not let in.
    narrowed: Cell<bool>,
    closing_tasks: Rc<TaskList>,
}

/// A listener's plan, held through the snapshot that it belongs to: for as long as it takes to find out where a request
/// goes.
#[derive(Clone)]
pub(crate) struct Present {
    snapshot: Rc<LocalSnapshot>,
    index: usize,
}

impl Present {
    pub(crate) fn new(snapshot: Rc<LocalSnapshot>, index: usize) -> Self {
        Self { snapshot, index }
    }

    /// The listener's plan.
    #[inline]
    pub(crate) fn plan(&self) -> &ListenerPlan {
        self.snapshot.listener(self.index)
    }

    /// One of [`Snapshot::pools`].
    #[inline]
    pub(crate) fn pool(&self, index: usize) -> Rc<LocalPool> {
        Rc::clone(&self.snapshot.pools[index])
    }

    /// Whether the connections of a TCP listener are of HTTP, as their pool is. HAProxy makes them so when a `mode tcp` frontend
    /// leads to a `mode http` backend, which is what Octavia writes: with all that HTTP has, requests in turn, cookies, answers
    /// of its own.
    pub(crate) fn is_of_http_by_its_pool(&self) -> bool {
        let plan = self.plan();
        // Those that share are of one kind.
        let shared = || plan.splits.as_ref().and_then(|splits| splits.default()?.any_pool());
        let pool = || plan.default_pool.or_else(shared);
        plan.protocol == ListenerProtocol::Tcp
            && pool().is_some_and(|pool| self.snapshot.pools[pool].plan.speaks_http)
    }

    /// Whether the connections of a listener that ran by `other` may be its own: it is the same listener, and a connection is of
    /// one kind for its life.
    pub(crate) fn continues(&self, other: &Self) -> bool {
        self.plan().continues(other.plan()) && self.is_of_http_by_its_pool() == other.is_of_http_by_its_pool()
    }

    /// Chooses one of several pools for what comes with these `Cookie` fields, on this worker.
    pub(crate) fn choose<'a>(
        &self,
        split: &Split,
        worker: usize,
        cookies: impl Iterator<Item = &'a [u8]>,
    ) -> Option<Chosen> {
        split.choose(worker, cookies, |pool| self.snapshot.pools[pool].is_able())
    }

    /// The pool of what no policy sends elsewhere, with these `Cookie` fields.
    #[inline]
    pub(crate) fn default_pool<'a>(
        &self,
        worker: usize,
        cookies: impl Iterator<Item = &'a [u8]>,
    ) -> Option<Chosen> {
        let plan = self.plan();
        match plan.splits.as_ref().and_then(|splits| splits.default()) {
            None => plan.default_pool.map(|pool| Chosen { pool, set_cookie: None }),
            Some(split) => self.choose(split, worker, cookies),
        }
    }

    /// Where an enabled pool stands in [`Snapshot::pools`].
    #[inline]
    pub(crate) fn pool_index(&self, id: PoolId) -> Option<usize> {
        self.snapshot.shared.pool_index(id)
    }
}

impl LocalListener {
    pub(crate) fn new(present: Present) -> Self {
        Self {
            state: Arc::clone(&present.plan().state),
            present: RefCell::new(present),
            closing: Cell::new(false),
            barred: Cell::new(false),
            narrowed: Cell::new(false),
            closing_tasks: Rc::default(),
        }
    }

    /// What outlives snapshots.
    #[inline]
    pub(crate) fn state(&self) -> &Arc<ListenerState> {
        &self.state
    }

    /// The present `timeout_*`.
    #[inline]
    pub(crate) fn timeouts(&self) -> ListenerTimeouts {
        self.plan().timeouts
    }

    /// The plan that is present, for as long as nothing is waited for.
    #[inline]
    pub(crate) fn plan(&self) -> Ref<'_, ListenerPlan> {
        Ref::map(self.present.borrow(), Present::plan)
    }

    /// The plan that the next request or connection runs under, held with its snapshot.
    #[inline]
    pub(crate) fn present(&self) -> Present {
        self.present.borrow().clone()
    }

    /// Puts the listener on a new snapshot; requests under way stay on theirs. Clients whom it would not let in any more are let
    /// go as by [`close`](Self::close).
    pub(crate) fn replace(&self, present: Present) {
        let access = &present.plan().access;
        let narrower = !access.allows_all_of(&self.plan().access);
        self.narrowed.set(narrower || self.narrowed.get() && !access.is_open());
        *self.present.borrow_mut() = present;
        if narrower {
            self.closing_tasks.wake();
        }
    }

    /// The listener or its address is gone, or the process stops: idle clients are let go, others after the response under way.
    pub(crate) fn close(&self) {
        self.closing.set(true);
        self.closing_tasks.wake();
    }

    /// Another asks for more of who shakes hands: clients are let go as by [`close`](Self::close), also those who have not asked for
    /// anything yet.
    pub(crate) fn bar(&self) {
        self.barred.set(true);
        self.close();
    }

    /// The VIP is about to move: clients are let go as by [`close`](Self::close); or it is not, and they may stay.
    pub(crate) fn quiesce(&self, quiesce: bool) {
        self.closing.set(quiesce);
        if quiesce {
            self.closing_tasks.wake();
        }
    }

    /// Whether the client at this address is to be let go.
    #[inline]
    pub(crate) fn is_closing(&self, client: SocketAddr) -> bool {
        self.closing.get() || self.bars(client)
    }

    /// Whether the client at this address would not be let in any more.
    #[inline]
    pub(crate) fn bars(&self, client: SocketAddr) -> bool {
        self.barred.get() || self.narrowed.get() && !self.plan().access.allows(client.ip())
    }

    /// Wakes those who wait for what they are let go for; they look at all that there may be.
    pub(crate) fn wake(&self) {
        self.closing_tasks.wake();
    }

    /// For one task, to be woken when clients are to be let go.
    pub(crate) fn enlist(&self) -> Enlisted {
        Enlisted::on(&self.closing_tasks)
    }
}
