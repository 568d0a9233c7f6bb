//! Both ways at once, until both ends have finished.

use std::{
    future::poll_fn,
    io,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::time::Instant;

use super::{
    EndReason, Peer, RelayEnd, RelayOptions,
    direction::{Direction, Ended, Fault, Meter, Waiting},
};
use crate::{
    conn::{Buffer, Conn, Deadline, Pools},
    limits::rate::Farewell,
    local::{Charging, DrainWatch},
    state::{ListenerCounters, MemberCounters},
};

/// Carries bytes both ways until both ends have closed their side, one breaks, or one is inactive for too long; then
/// the caller drops both connections. Counts bytes as they pass, and at the end the abort, if it was one
/// (`client_aborts`, `server_aborts`, `response_errors`), as HAProxy does for `mode tcp`.
///
/// - An end that closes its side: what it sent is delivered, then the other end's connection is shut down for writing;
///   the other direction goes on.
/// - Inactivity is counted for each connection by itself. Both reading and writing are activity; a connection that
///   the proxy neither wants to read from nor has bytes for is not watched. When an inactive end owes bytes, it is
///   treated as if it had closed its side, so that the other end may still finish; when it does not take the bytes
///   pending for it, the session ends.
/// - A client that breaks its connection breaks the member's too (a reset), which frees the member at once.
///
/// Cancelled, it loses what was read and not written yet: the connections are of no more use then.
pub async fn relay(
    client: &mut Conn,
    member: &mut Conn,
    options: RelayOptions,
    pools: &Pools,
    listener_counters: &ListenerCounters,
    member_counters: &MemberCounters,
) -> RelayEnd {
    let mut session = Session::new(options);
    poll_fn(|cx| session.poll(cx, client, member, pools, listener_counters, member_counters)).await;
    session.count_rest();

    let reason = session.reason.unwrap_or(EndReason::Finished);
    match reason {
        EndReason::Finished => {}
        EndReason::Aborted(Peer::Client, _) => {
            member_counters.client_aborts.add(1);
            member.reset_on_close();
        }
        EndReason::Aborted(Peer::Member, _) => {
            member_counters.server_aborts.add(1);
            member_counters.response_errors.add(1);
        }
        EndReason::Limited(farewell) => {
            match farewell {
                Farewell::Reset => client.reset_on_close(),
                Farewell::Silent => client.vanish_on_close(),
            }
            member.reset_on_close();
        }
        EndReason::TimedOut(Peer::Client) => member_counters.client_aborts.add(1),
        EndReason::TimedOut(Peer::Member) | EndReason::Drained => member_counters.server_aborts.add(1),
    }
    RelayEnd {
        reason,
        client_to_member: session.up.direction.written(),
        member_to_client: session.down.direction.written(),
    }
}

struct Session {
    up: Half,
    down: Half,
    client: Inactivity,
    member: Inactivity,
    deadline: Deadline,
    drain: Option<DrainWatch>,
    /// The first cause of an end that was not orderly.
    reason: Option<EndReason>,
    charging: Option<Charging>,
    /// What had come before.
    early: u64,
    /// What of all that has passed is counted.
    charged: u64,
}

impl Session {
    fn new(options: RelayOptions) -> Self {
        let RelayOptions { client_timeout, member_timeout, from_client, from_member, charging, drain } =
            options;
        let early = [&from_client, &from_member].map(|buffer| buffer.as_ref().map_or(0, Buffer::len));
        Self {
            charging,
            early: early.iter().sum::<usize>() as u64,
            charged: 0,
            up: Half::new(Direction::new().preceded_by(from_client)),
            down: Half::new(Direction::new().preceded_by(from_member)),
            client: Inactivity::new(client_timeout),
            member: Inactivity::new(member_timeout),
            deadline: Deadline::never(),
            drain,
            reason: None,
        }
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        client: &mut Conn,
        member: &mut Conn,
        pools: &Pools,
        listener_counters: &ListenerCounters,
        member_counters: &MemberCounters,
    ) -> Poll<()> {
        let up = Meter { read: &listener_counters.bytes_in, written: &member_counters.bytes_in };
        let down = Meter { read: &member_counters.bytes_out, written: &listener_counters.bytes_out };
        loop {
            let before = (self.up.progress(), self.down.progress());
            let last = self.down.has_delivered();
            match self.up.poll(cx, client, member, pools, up, last) {
                Ok(()) => {}
                Err(Fault::Source(error)) => return self.abort(Peer::Client, &error),
                Err(Fault::Destination(error)) => {
                    // What the member sent before its connection broke is still delivered.
                    self.blame(EndReason::Aborted(Peer::Member, error.kind()));
                    self.up.abandon();
                }
            }
            let last = self.up.has_delivered();
            match self.down.poll(cx, member, client, pools, down, last) {
                Ok(()) => {}
                Err(Fault::Source(error)) => return self.abort(Peer::Member, &error),
                Err(Fault::Destination(error)) => return self.abort(Peer::Client, &error),
            }
            if self.charging.is_some() && self.is_too_much() {
                return Poll::Ready(());
            }
            if self.up.done && self.down.done {
                return Poll::Ready(());
            }
            if self.drain.as_mut().is_some_and(|drain| drain.is_over(cx)) {
                self.blame(EndReason::Drained);
                return Poll::Ready(());
            }
            self.observe(before);
            ready!(self.deadline.poll_expired(cx));
            if self.expire() {
                return Poll::Ready(());
            }
        }
    }

    /// What has passed and is not counted yet.
    fn uncharged(&mut self) -> u64 {
        let passed = self.early + self.up.progress().read + self.down.progress().read;
        passed - std::mem::replace(&mut self.charged, passed)
    }

    /// Counts what has passed; whether it is too much.
    fn is_too_much(&mut self) -> bool {
        let passed = self.uncharged();
        let Some(charging) = self.charging.as_mut().filter(|_| passed > 0) else { return false };
        let taken = charging.count(passed);
        if let Some(taken) = &taken {
            self.reason.get_or_insert(EndReason::Limited(taken.farewell()));
        }
        taken.is_some()
    }

    /// Counts what has passed before the end that has come of it, for who connects next.
    fn count_rest(&mut self) {
        let passed = self.uncharged();
        if let Some(charging) = self.charging.as_mut().filter(|_| passed > 0) {
            charging.add(passed);
        }
    }

    #[cold]
    fn abort(&mut self, peer: Peer, error: &io::Error) -> Poll<()> {
        self.blame(EndReason::Aborted(peer, error.kind()));
        Poll::Ready(())
    }

    fn blame(&mut self, reason: EndReason) {
        self.reason.get_or_insert(reason);
    }

    /// Moves the deadline according to what happened since `before`.
    #[inline]
    fn observe(&mut self, before: (Progress, Progress)) {
        let now = Instant::now();
        let (up, down) = (self.up.progress(), self.down.progress());
        let (up_waits, down_waits) = (self.up.waiting(), self.down.waiting());
        self.client.observe(
            up.read != before.0.read || down.written != before.1.written,
            up_waits == Waiting::Source || down_waits == Waiting::Destination,
            now,
        );
        self.member.observe(
            down.read != before.1.read || up.written != before.0.written,
            down_waits == Waiting::Source || up_waits == Waiting::Destination,
            now,
        );
        let due = match (self.client.due(), self.member.due()) {
            (Some(client), Some(member)) => Some(client.min(member)),
            (client, member) => client.or(member),
        };
        self.deadline.set(due);
    }

    /// Deals with an end that is overdue; true when that is the end of the session.
    #[cold]
    fn expire(&mut self) -> bool {
        let now = Instant::now();
        let overdue = |inactivity: &Inactivity| inactivity.due().is_some_and(|due| due <= now);
        let (client, member) = (overdue(&self.client), overdue(&self.member));
        if client {
            self.blame(EndReason::TimedOut(Peer::Client));
            self.up.direction.stop_reading();
        }
        if member {
            self.blame(EndReason::TimedOut(Peer::Member));
            self.down.direction.stop_reading();
        }
        client && self.down.waiting() == Waiting::Destination
            || member && self.up.waiting() == Waiting::Destination
    }
}

/// A direction, and the shutdown of its destination that follows it.
struct Half {
    direction: Direction,
    carried: bool,
    done: bool,
}

#[derive(Clone, Copy)]
struct Progress {
    read: u64,
    written: u64,
}

impl Half {
    fn new(direction: Direction) -> Self {
        Self { direction, carried: false, done: false }
    }

    /// `last`: the other direction [has delivered](Self::has_delivered).
    #[inline]
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut Conn,
        destination: &mut Conn,
        pools: &Pools,
        meter: Meter<'_>,
        last: bool,
    ) -> Result<(), Fault> {
        if !self.carried {
            match self.direction.poll(cx, source, destination, pools, meter) {
                Poll::Pending => return Ok(()),
                Poll::Ready(ended) => ended?,
            };
            self.carried = true;
        }
        if !self.done {
            // Closing says the same of a plain connection on which nothing is unread, and is about to be done: HAProxy leaves
            // it at that, too. Where shutting down fails, the connection is gone: reading from it tells.
            self.done = last && destination.as_plain().is_some() || destination.poll_shutdown(cx).is_ready();
        }
        Ok(())
    }

    /// Whether its source has sent all it had, and its destination has been told.
    #[inline]
    fn has_delivered(&self) -> bool {
        self.done && self.direction.ended() == Some(Ended::Closed)
    }

    #[cold]
    fn abandon(&mut self) {
        self.direction.abandon();
        self.carried = true;
        self.done = true;
    }

    fn waiting(&self) -> Waiting {
        match (self.carried, self.done) {
            (_, true) => Waiting::Nothing,
            (true, false) => Waiting::Destination,
            (false, false) => self.direction.waiting(),
        }
    }

    fn progress(&self) -> Progress {
        Progress { read: self.direction.read(), written: self.direction.written() }
    }
}

/// For how long a connection may be inactive, and since when it is.
struct Inactivity {
    timeout: Duration,
    since: Option<Instant>,
}

impl Inactivity {
    fn new(timeout: Duration) -> Self {
        Self { timeout, since: None }
    }

    /// `active`: bytes passed; `watched`: the proxy waits for the connection.
    #[inline]
    fn observe(&mut self, active: bool, watched: bool, now: Instant) {
        self.since = match self.since {
            Some(since) if watched && !active => Some(since),
            _ if watched => Some(now),
            _ => None,
        };
    }

    #[inline]
    fn due(&self) -> Option<Instant> {
        if self.timeout.is_zero() { None } else { self.since?.checked_add(self.timeout) }
    }
}
