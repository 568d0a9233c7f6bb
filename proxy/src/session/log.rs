//! What sessions and requests write into their records: nothing, where the listener has no log.

use std::{
    net::SocketAddr,
    rc::Rc,
    sync::{Arc, atomic::Ordering},
};

use tokio::time::Instant;

use super::{
    member::{Effort, Route},
    relay::{EndReason, Peer, RelayEnd},
};
use crate::{
    conn::Conn,
    local::{LocalListener, Worker},
    logs::{
        Draft, LogPlan, Record,
        record::Counts,
        termination::{Cause, Phase},
    },
    state::ListenerState,
    tls::PeerFacts,
};

/// The record of a session that lasts, with how it is to be written: that is as of its beginning.
pub(super) struct Logged {
    plan: Arc<LogPlan>,
    pub(super) record: Record,
}

impl Logged {
    /// For a connection that begins, if there is a log.
    pub(super) fn begin(
        worker: &Worker,
        listener: &LocalListener,
        conn: &Conn,
        client: SocketAddr,
        begun: Instant,
    ) -> Option<Box<Self>> {
        let plan = Arc::clone(listener.plan().log.as_ref()?);
        let mut record = Record::new(plan.format().needs(), client, begun);
        record.accepted_on(worker, || conn.local_addr().ok());
        Some(Box::new(Self { plan, record }))
    }

    /// For what a request becomes that leaves HTTP.
    pub(super) fn taken(draft: &mut Draft) -> Option<Box<Self>> {
        let (record, plan) = draft.take()?;
        Some(Box::new(Self { plan, record }))
    }

    /// It has ended now.
    pub(super) fn write(&mut self, worker: &Worker, listener: &ListenerState) {
        self.record.write(worker, listener, &self.plan);
    }
}

/// A request begins, or the wait for one, of a client that has connected to `local` and has waited since `begun`.
#[inline]
pub(super) fn begin(
    draft: &mut Draft,
    worker: &Worker,
    listener: &LocalListener,
    local: impl FnOnce() -> Option<SocketAddr>,
    client: SocketAddr,
    begun: Instant,
    facts: Option<&Rc<PeerFacts>>,
) {
    if let Some(plan) = &listener.plan().log {
        let record = draft.begin(plan, client, begun);
        record.scheme = plan.scheme();
        record.accepted_on(worker, local);
        if record.needs.tls {
            record.tls = facts.cloned();
        }
    }
}

/// It has ended now, and is written by the plan that it was begun under: another may name what this record was not asked for.
#[inline]
pub(super) fn end(draft: &mut Draft, worker: &Worker, listener: &LocalListener) {
    if let Some((record, plan)) = draft.end() {
        record.write(worker, listener.state(), plan);
    }
}

impl Record {
    fn accepted_on(&mut self, worker: &Worker, local: impl FnOnce() -> Option<SocketAddr>) {
        if self.needs.listener_address {
            self.listener = local();
        }
        if self.needs.numbers {
            self.number = worker.logs.number();
        }
    }

    /// What getting a connection to a member has taken, whether or not there is one.
    pub(super) fn routed(&mut self, route: &Route<'_>, at: Instant) {
        let effort = route.effort.get();
        let pool = &*route.pool.plan;
        self.pool = Some(pool.id());
        (self.retries, self.redispatched) = (effort.retries.into(), effort.redispatched);
        if let Some(member) = effort.tried().map(|member| &pool.members[member]) {
            self.marks.dispatched = Some(at);
            self.member = Some(member.state.id);
            self.member_address = Some(member.address());
            if self.needs.counts {
                self.at = Some(Arc::clone(&member.state));
            }
        }
    }

    /// There is a connection to a member.
    pub(super) fn connected(&mut self, local: impl FnOnce() -> Option<SocketAddr>, opened: Instant) {
        self.marks.connected = Some(opened);
        if self.needs.source_address {
            self.source = local();
        }
    }

    /// No member could be connected to.
    pub(super) fn unconnected(&mut self, effort: Effort) {
        let cause = if effort.late { Cause::ServerLate } else { Cause::ServerGone };
        self.termination.set(cause, Phase::Connect);
    }

    /// A relay has ended.
    pub(super) fn relayed(&mut self, end: &RelayEnd) {
        self.bytes_in += end.client_to_member;
        self.bytes_out += end.member_to_client;
        let cause = match end.reason {
            EndReason::Finished => return,
            EndReason::Aborted(Peer::Client, _) => Cause::ClientGone,
            EndReason::Aborted(Peer::Member, _) => Cause::ServerGone,
            EndReason::TimedOut(Peer::Client) => Cause::ClientLate,
            EndReason::TimedOut(Peer::Member) => Cause::ServerLate,
            EndReason::Limited(_) => Cause::Proxy,
            EndReason::Drained => Cause::Drained,
        };
        self.termination.set(cause, Phase::Data);
    }

    fn write(&mut self, worker: &Worker, listener: &ListenerState, plan: &LogPlan) {
        self.marks.ended = Instant::now();
        let member = self.at.take();
        if self.needs.counts {
            let member = member.as_deref();
            self.counts = Counts {
                process: worker.clients.places.taken().into(),
                frontend: listener.places.taken().into(),
                backend: member.map_or(0, |member| member.pool.counters.sum(|pool| &pool.sessions)),
                server: member.map_or(0, |member| member.sessions.load(Ordering::Relaxed).into()),
            };
        }
        worker.logs.write(plan, self);
        self.tls = None;
    }
}
