//! Rate limits at a request: whom it is counted of, and what becomes of who has asked too much.

use std::{net::IpAddr, rc::Rc, sync::Arc};

use tokio::time::Instant;

use super::{decide::Origin, downstream::Downstream};
use crate::{
    http::RequestView,
    limits::rate::{Broken, Charge, Done, Farewell, Queued, RateLimits, Taken},
    local::{LocalListener, Worker},
};

/// Counts a request that has come at `now`; `None` if it may go on.
#[inline]
pub(super) fn judge(
    limits: &Arc<RateLimits>,
    worker: &Worker,
    origin: &mut Origin<'_>,
    view: &RequestView<'_>,
    now: Instant,
) -> Option<Taken> {
    if !limits.judges_requests() {
        return None;
    }
    let peer = origin.address.ip();
    let sender = limits.client(peer);
    let (address, client) = match limits.believed() {
        Some(believed) if believed.includes(peer) => {
            let address = believed.client(peer, view.values(believed.header()));
            (address, limits.client(address))
        }
        _ => (peer, sender),
    };
    *origin.charge = Charge::of(limits, address, worker.index).map(Rc::new);
    if origin.charge.is_some() {
        // Whether that is too much is judged with all else.
        limits.bytes(client, origin.length as u64, worker.moment(now));
    }
    // What has no path (`OPTIONS *`) is none of those that are counted by it, or one of its own.
    let path = view.path().unwrap_or(b"*");
    let broken = limits.request(client, sender, path, worker.moment(now))?;
    Some(broken.take(worker.index))
}

/// Counts a request that is not understood, of which `length` bytes have come at `now`, for who has connected; how the connection goes,
/// if it does. Whose those are that somebody has brought who is believed, nobody knows.
#[cold]
pub(super) fn refused(
    worker: &Worker,
    listener: &LocalListener,
    peer: IpAddr,
    charge: &mut Option<Rc<Charge>>,
    length: usize,
    now: Instant,
) -> Option<Farewell> {
    let limits = listener.plan().limits.clone().filter(|limits| limits.judges_requests())?;
    if limits.believed().is_some_and(|believed| believed.includes(peer)) {
        return None;
    }
    let client = limits.client(peer);
    *charge = Charge::of(&limits, peer, worker.index).map(Rc::new);
    let now = worker.moment(now);
    if charge.is_some() {
        limits.bytes(client, length as u64, now);
    }
    // It has an answer of its own, for which it does not wait.
    match limits.request(client, client, b"*", now)? {
        broken @ Broken { done: Done::Reject | Done::SilentDrop, .. } => {
            Some(broken.take(worker.index).farewell())
        }
        _ => None,
    }
}

/// Counts bytes of an answer of the proxy's own, and of what it passes over of the request.
#[inline]
pub(super) fn charge(charge: Option<&Rc<Charge>>, worker: &Worker, bytes: usize) {
    if let Some(charge) = charge {
        charge.add(bytes as u64, worker.since(Instant::now()));
    }
}

/// Waits for the turn; `None` when the client goes before. One that has finished sending has gone: it leaves its place, and its turn to
/// those behind it.
pub(super) async fn turn(
    worker: &Worker,
    queued: Queued,
    downstream: &mut Downstream<'_>,
) -> Option<Instant> {
    let begun = Instant::now();
    let turn = tokio::select! {
        biased;
        () = downstream.left() => None,
        () = worker.turns(&queued) => Some(Instant::now()),
    };
    queued.end(worker.index, begun.elapsed());
    turn
}
