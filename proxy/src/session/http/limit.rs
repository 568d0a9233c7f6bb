//! Rate limits at a request: whom it is counted of, and what becomes of who has asked too much.

use std::{future::poll_fn, net::IpAddr, task::Poll, time::Duration};

use tokio::time::Instant;

use super::downstream::Downstream;
use crate::{
    http::RequestView,
    limits::rate::{Broken, Done, RateLimits, Waiting},
    local::Worker,
};

/// What is done with a request that is too much.
#[derive(Debug)]
pub(super) enum Limited {
    /// 429, with this many seconds in `Retry-After`.
    Denied(u64),
    /// Its connection goes.
    Dropped(Farewell),
    /// It waits for its turn.
    Queued(Queued),
}

/// How a connection goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::session) enum Farewell {
    /// It is reset.
    Reset,
    /// The client is not told.
    Silent,
}

/// A request that waits.
#[derive(Debug)]
pub(super) struct Queued {
    wait: Duration,
    place: Waiting,
}

/// Counts a request that has come at `now`; `None` if it may go on.
#[inline]
pub(super) fn judge(
    limits: &RateLimits,
    worker: &Worker,
    peer: IpAddr,
    view: &RequestView<'_>,
    now: Instant,
) -> Option<Limited> {
    if !limits.judges_requests() {
        return None;
    }
    let sender = limits.client(peer);
    let client = match limits.believed() {
        Some(believed) if believed.includes(peer) => {
            limits.client(believed.client(peer, view.values(believed.header())))
        }
        _ => sender,
    };
    // What has no path (`OPTIONS *`) is none of those that are counted by it, or one of its own.
    let path = view.path().unwrap_or(b"*");
    let broken = limits.request(client, sender, path, worker.moment(now))?;
    Some(limited(broken, worker))
}

#[cold]
fn limited(broken: Broken<'_>, worker: &Worker) -> Limited {
    let counters = broken.policy.counters.of(worker.index);
    let limited = match broken.done {
        Done::Deny(wait) => Limited::Denied(seconds(wait)),
        Done::Reject => Limited::Dropped(Farewell::Reset),
        Done::SilentDrop => Limited::Dropped(Farewell::Silent),
        Done::Wait(wait, place) => {
            counters.queued.add(1);
            counters.waited_ms.add(wait.as_millis() as u64);
            return Limited::Queued(Queued { wait, place });
        }
    };
    counters.limited.add(1);
    limited
}

/// As `Retry-After` says it: whole seconds, at least one.
fn seconds(wait: Duration) -> u64 {
    (wait.as_secs() + u64::from(wait.subsec_nanos() > 0)).max(1)
}

impl Queued {
    /// Waits for the turn; `None` when the client goes before. One that has finished sending has gone: what it leaves is a place.
    pub(super) async fn turn(self, downstream: &mut Downstream<'_>) -> Option<Instant> {
        let Self { wait, place } = self;
        let until = Instant::now() + wait;
        let turn = poll_fn(|cx| {
            if downstream.poll_left(cx).is_ready() {
                return Poll::Ready(None);
            }
            downstream.poll_deadline(cx, until).map(|()| Some(Instant::now()))
        })
        .await;
        drop(place);
        turn
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_told_in_whole_seconds() {
        for (millis, expected) in [(0, 1), (1, 1), (1000, 1), (1001, 2), (29_900, 30)] {
            assert_eq!(seconds(Duration::from_millis(millis)), expected);
        }
    }
}
