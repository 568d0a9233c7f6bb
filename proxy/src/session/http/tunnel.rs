//! After `101 Switching Protocols`: bytes both ways, as on a TCP listener.

use std::{
    future::poll_fn,
    io,
    rc::Rc,
    task::{Context, Poll},
};

use amphora_model::ListenerTimeouts;
use tokio::time::Instant;

use super::{
    body::{BodyRelay, Hops, RelayError, Sink},
    client::Client,
    downstream::Downstream,
    stream::ClientStream,
    upstream::{MemberConnection, Upstream},
};
use crate::{
    local::{Charging, Worker},
    session::relay::{self, EndReason, Peer, RelayEnd, RelayOptions},
    state::ListenerState,
};

/// What a member has left HTTP on: a connection, or a stream.
pub(super) struct Tunnel {
    member: Upstream,
    timeouts: ListenerTimeouts,
    /// Whose its bytes are.
    pub(super) charging: Option<Charging>,
}

impl Tunnel {
    /// `timeouts` are those of the request that asked for it.
    pub(super) fn new(member: Upstream, timeouts: ListenerTimeouts) -> Self {
        Self { member, timeouts, charging: None }
    }

    /// Relays until both sides have finished. It holds what it uses meanwhile, and no configuration.
    pub(super) async fn run(
        &mut self,
        worker: &Worker,
        listener: &ListenerState,
        client: &mut Client,
    ) -> RelayEnd {
        let Upstream::Http1(MemberConnection { stream, inlet, slot }) = &mut self.member else {
            return self.relay(worker, listener, Downstream::Http1(client)).await;
        };
        let options = RelayOptions {
            client_timeout: self.timeouts.client_data,
            member_timeout: self.timeouts.member_data,
            from_client: client.inlet.take(),
            from_member: inlet.take(),
            charging: self.charging.take(),
            drain: Some(slot.member().watch_drain()),
        };
        let counters = slot.member().counters();
        let listener = listener.counters.of(worker.index);
        relay::relay(&mut client.stream, stream, options, &worker.pools, listener, counters).await
    }

    /// The same for a stream, of an extended CONNECT.
    pub(super) async fn run_stream(
        &mut self,
        worker: &Worker,
        listener: &ListenerState,
        stream: &mut ClientStream,
    ) -> RelayEnd {
        self.relay(worker, listener, Downstream::Http2(stream)).await
    }

    /// The same where at least one side is a stream.
    async fn relay(
        &mut self,
        worker: &Worker,
        listener: &ListenerState,
        mut client: Downstream<'_>,
    ) -> RelayEnd {
        let Self { member, timeouts, charging } = self;
        let at = Rc::clone(member.member());
        let mut drain = at.watch_drain();
        let at = at.counters();
        let listener = listener.counters.of(worker.index);
        let (from, to) = (client.is_stream(), member.is_stream());
        let mut up = BodyRelay::tunnel(Hops::between(from, to));
        let mut down = BodyRelay::tunnel(Hops::between(to, from));
        let mut shut = (false, false);
        let mut last = Instant::now();
        let reason = poll_fn(|cx| {
            let before = (up.moved(), down.moved());
            let sent = up.poll(cx, client.source(), member.sink(), &worker.pools);
            let received = down.poll(cx, member.source(), client.sink(), &worker.pools);
            let (sent_bytes, received_bytes) = (up.moved() - before.0, down.moved() - before.1);
            if sent_bytes + received_bytes > 0 {
                listener.bytes_in.add(sent_bytes);
                at.bytes_in.add(sent_bytes);
                listener.bytes_out.add(received_bytes);
                at.bytes_out.add(received_bytes);
                last = Instant::now();
                let bytes = sent_bytes + received_bytes;
                let taken = charging.as_mut().and_then(|charging| charging.count(bytes));
                if let Some(taken) = taken {
                    return Poll::Ready(EndReason::Limited(taken.farewell()));
                }
            }
            match (&sent, &received) {
                (Poll::Ready(Err(RelayError::Source)), _)
                | (_, Poll::Ready(Err(RelayError::Destination))) => {
                    return Poll::Ready(EndReason::Aborted(Peer::Client, io::ErrorKind::BrokenPipe));
                }
                (Poll::Ready(Err(_)), _) | (_, Poll::Ready(Err(_))) => {
                    return Poll::Ready(EndReason::Aborted(Peer::Member, io::ErrorKind::BrokenPipe));
                }
                _ => {}
            }
            // A stream ends with its last data.
            if sent.is_ready() && !shut.0 {
                shut.0 = poll_shutdown(cx, member.sink());
            }
            if received.is_ready() && !shut.1 {
                shut.1 = poll_shutdown(cx, client.sink());
            }
            if sent.is_ready() && received.is_ready() && shut == (true, true) {
                return Poll::Ready(EndReason::Finished);
            }
            if drain.is_over(cx) {
                return Poll::Ready(EndReason::Drained);
            }
            let (patience, late) = if timeouts.client_data > timeouts.member_data {
                (timeouts.client_data, Peer::Client)
            } else {
                (timeouts.member_data, Peer::Member)
            };
            client.poll_deadline(cx, last + patience).map(|()| EndReason::TimedOut(late))
        })
        .await;
        RelayEnd { client_to_member: up.moved(), member_to_client: down.moved(), reason }
    }
}

/// Tells a connection that nothing more comes; whether it is told.
fn poll_shutdown(cx: &mut Context<'_>, sink: Sink<'_>) -> bool {
    match sink {
        Sink::Http1(conn) => conn.poll_shutdown(cx).is_ready(),
        Sink::Http2(_) | Sink::Ended => true,
    }
}
