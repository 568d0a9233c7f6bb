//! What a worker keeps of the present snapshot for itself: balancers, idle connections, and reference counts
//! that no other core touches.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    io,
    os::fd::AsRawFd,
    rc::Rc,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use nix::{
    errno::Errno,
    sys::socket::{MsgFlags, recv},
};
use tokio::{io::Interest, net::TcpStream, time::Instant};

use super::tasks::{Enlisted, TaskList};
use crate::{
    balance::{Balance, Balancer, Flow},
    model::{MemberId, PoolId},
    snapshot::{ListenerPlan, PoolPlan, Snapshot},
    state::{MemberCounters, MemberState, PoolCounters},
};

/// Idle connections that one worker keeps per member. Beyond this the oldest is closed: a burst of clients
/// leaves no burst of connections behind.
pub(crate) const IDLE_PER_MEMBER: usize = 64;

/// How long an idle connection to a member is kept. Shorter than the keep-alive of common servers, so that
/// it is mostly we who close and seldom a request that finds the connection dead.
pub(crate) const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// A snapshot as one worker runs it.
pub(crate) struct LocalSnapshot {
    pub(crate) shared: Arc<Snapshot>,
    pub(crate) pools: Vec<LocalPool>,
}

/// A pool as one worker runs it.
pub(crate) struct LocalPool {
    balance: RefCell<Balance>,
    pub(crate) members: Vec<Rc<LocalMember>>,
}

/// A member as one worker knows it. Lives as long as the member keeps its id and address, across snapshots.
pub(crate) struct LocalMember {
    pub(crate) state: Arc<MemberState>,
    idle: RefCell<Vec<Idle>>,
    worker: usize,
}

struct Idle {
    stream: TcpStream,
    since: Instant,
}

impl LocalSnapshot {
    /// Takes over what `before` has in common with `shared`: positions of balancers and idle connections.
    pub(crate) fn new(worker: usize, shared: Arc<Snapshot>, before: Option<&LocalSnapshot>) -> Self {
        let mut known: HashMap<(PoolId, MemberId), &Rc<LocalMember>> = HashMap::new();
        let mut balances: HashMap<PoolId, &RefCell<Balance>> = HashMap::new();
        if let Some(before) = before {
            for (plan, pool) in before.shared.pools.iter().zip(&before.pools) {
                balances.insert(plan.id(), &pool.balance);
                for member in &pool.members {
                    known.insert((plan.id(), member.state.id), member);
                }
            }
        }
        let pools = shared
            .pools
            .iter()
            .map(|plan| {
                let members = plan
                    .members
                    .iter()
                    .map(|member| match known.get(&(plan.id(), member.state.id)) {
                        Some(local) if Arc::ptr_eq(&local.state, &member.state) => Rc::clone(local),
                        _ => Rc::new(LocalMember {
                            state: member.state.clone(),
                            idle: RefCell::new(Vec::new()),
                            worker,
                        }),
                    })
                    .collect();
                let mut balance = Balance::new(plan.algorithm, worker as u64);
                if let Some(old) = balances.get(&plan.id()) {
                    balance.carry_over(&old.borrow());
                }
                LocalPool { balance: RefCell::new(balance), members }
            })
            .collect();
        Self { shared, pools }
    }

    /// The plan of one listener.
    pub(crate) fn listener(&self, index: usize) -> &ListenerPlan {
        &self.shared.listeners[index]
    }

    /// Closes idle connections that are too old or that the member has closed.
    pub(crate) fn sweep(&self, now: Instant) {
        for member in self.pools.iter().flat_map(|pool| &pool.members) {
            member.sweep(now);
        }
    }
}

impl LocalPool {
    /// Lets the pool's algorithm choose a member.
    pub(crate) fn pick(&self, plan: &PoolPlan, flow: &Flow, avoid: impl Fn(usize) -> bool) -> Option<usize> {
        self.balance.borrow_mut().pick(plan, flow, avoid)
    }
}

impl LocalMember {
    /// This worker's counters of the member.
    #[inline]
    pub(crate) fn counters(&self) -> &MemberCounters {
        self.state.counters.of(self.worker)
    }

    /// This worker's counters of the pool.
    #[inline]
    fn pool_counters(&self) -> &PoolCounters {
        self.state.pool.counters.of(self.worker)
    }

    /// The idle connection that was used last, for a request that can be repeated if the connection turns out to be
    /// dead. No system call: only those are passed over that the runtime has seen become readable.
    pub(crate) fn take_idle(&self) -> Option<TcpStream> {
        let mut idle = self.idle.borrow_mut();
        while let Some(entry) = idle.pop() {
            self.counters().idle.sub(1);
            if is_quiet_so_far(&entry.stream) {
                return Some(entry.stream);
            }
        }
        None
    }

    /// The same for a request that cannot be repeated: no longer idle than `max_idle`, and open at this moment.
    pub(crate) fn take_fresh(&self, max_idle: Duration) -> Option<TcpStream> {
        let mut idle = self.idle.borrow_mut();
        // Those below the first that is too old are older still.
        while let Some(entry) = idle.pop_if(|entry| entry.since.elapsed() <= max_idle) {
            self.counters().idle.sub(1);
            if is_quiet(&entry.stream) {
                return Some(entry.stream);
            }
        }
        None
    }

    /// Keeps a connection whose exchange is complete for the next request.
    pub(crate) fn put_idle(&self, stream: TcpStream, now: Instant) {
        let mut idle = self.idle.borrow_mut();
        if idle.len() >= IDLE_PER_MEMBER {
            idle.remove(0);
        } else {
            self.counters().idle.add(1);
        }
        idle.push(Idle { stream, since: now });
    }

    fn sweep(&self, now: Instant) {
        let mut idle = self.idle.borrow_mut();
        let before = idle.len();
        idle.retain(|entry| now.duration_since(entry.since) < IDLE_TIMEOUT && is_quiet(&entry.stream));
        self.counters().idle.sub((before - idle.len()) as u64);
        if idle.is_empty() {
            idle.shrink_to_fit();
        }
    }
}

impl Drop for LocalMember {
    fn drop(&mut self) {
        self.counters().idle.sub(self.idle.borrow().len() as u64);
    }
}

/// Whether a connection that nothing is expected on has indeed nothing to say, by asking the socket. A connection
/// that became readable while idle was closed by the member, or carries a response that nobody asked for.
fn is_quiet(stream: &TcpStream) -> bool {
    peek(stream) == Err(Errno::EAGAIN)
}

/// The same as of the runtime's last look at the kernel, which is no longer ago than the present batch of events: what
/// HAProxy goes by, too. The socket is asked only when the runtime believes it readable.
fn is_quiet_so_far(stream: &TcpStream) -> bool {
    let peeked = stream.try_io(Interest::READABLE, || peek(stream).map_err(io::Error::from));
    peeked.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
}

fn peek(stream: &TcpStream) -> Result<usize, Errno> {
    let mut byte = [0];
    recv(stream.as_raw_fd(), &mut byte, MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT)
}

/// A session or request under way at a member: while this lives it counts for LEAST_CONNECTIONS.
pub(crate) struct Slot(Rc<LocalMember>);

impl Slot {
    /// `now` is in seconds of the clock that all workers share.
    pub(crate) fn new(member: Rc<LocalMember>, now: u32) -> Self {
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
        Self(member)
    }

    pub(crate) fn member(&self) -> &Rc<LocalMember> {
        &self.0
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.state.sessions.fetch_sub(1, Ordering::Relaxed);
        self.0.pool_counters().sessions.sub(1);
    }
}

/// A listener as one worker runs it; its sessions hold on to it, and through it see the present snapshot.
pub(crate) struct LocalListener {
    present: RefCell<Present>,
    closing: Cell<bool>,
    closing_tasks: Rc<TaskList>,
}

/// A listener's plan, held through the snapshot that it belongs to.
#[derive(Clone)]
pub(crate) struct Present {
    pub(crate) snapshot: Rc<LocalSnapshot>,
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

    /// A pool's plan and what this worker keeps of it.
    #[inline]
    pub(crate) fn pool(&self, index: usize) -> (&PoolPlan, &LocalPool) {
        (&self.snapshot.shared.pools[index], &self.snapshot.pools[index])
    }
}

impl LocalListener {
    pub(crate) fn new(present: Present) -> Self {
        Self { present: RefCell::new(present), closing: Cell::new(false), closing_tasks: Rc::default() }
    }

    /// The plan that the next request or connection runs under.
    #[inline]
    pub(crate) fn present(&self) -> Present {
        self.present.borrow().clone()
    }

    /// Puts the listener on a new snapshot; requests under way stay on theirs.
    pub(crate) fn replace(&self, present: Present) {
        *self.present.borrow_mut() = present;
    }

    /// The listener is gone or the process stops: idle clients are let go, others after the response under way.
    pub(crate) fn close(&self) {
        self.closing.set(true);
        self.closing_tasks.wake();
    }

    /// The VIP is about to move: clients are let go as by [`close`](Self::close); or it is not, and they may stay.
    pub(crate) fn quiesce(&self, quiesce: bool) {
        self.closing.set(quiesce);
        if quiesce {
            self.closing_tasks.wake();
        }
    }

    /// Whether clients are to be let go.
    #[inline]
    pub(crate) fn is_closing(&self) -> bool {
        self.closing.get()
    }

    /// For one task, to be woken by [`close`](Self::close).
    pub(crate) fn enlist(&self) -> Enlisted {
        Enlisted::on(&self.closing_tasks)
    }
}
