//! After `101 Switching Protocols`: bytes both ways, as on a TCP listener.

use std::{future::poll_fn, io, task::Poll};

use amphora_model::ListenerTimeouts;
use tokio::time::Instant;

use super::{
    body::{BodyRelay, Hops, RelayError, Sink, Source},
    client::Client,
    stream::ClientStream,
    upstream::MemberConnection,
};
use crate::{
    local::Worker,
    session::relay::{self, EndReason, Peer, RelayEnd, RelayOptions},
    state::ListenerState,
};

/// A connection to a member that has left HTTP.
pub(super) struct Tunnel {
    member: MemberConnection,
    timeouts: ListenerTimeouts,
}

impl Tunnel {
    /// `timeouts` are those of the request that asked for it.
    pub(super) fn new(member: MemberConnection, timeouts: ListenerTimeouts) -> Self {
        Self { member, timeouts }
    }

    /// Relays until both sides have finished. It holds what it uses meanwhile, and no configuration.
    pub(super) async fn run(
        &mut self,
        worker: &Worker,
        listener: &ListenerState,
        client: &mut Client,
    ) -> RelayEnd {
        let Self { member: MemberConnection { stream, inlet, slot }, timeouts } = self;
        let options = RelayOptions {
            client_timeout: timeouts.client_data,
            member_timeout: timeouts.member_data,
            from_client: client.inlet.take(),
            from_member: inlet.take(),
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
        let Self { member: MemberConnection { stream: conn, inlet, slot }, timeouts } = self;
        let at = slot.member().counters();
        let listener = listener.counters.of(worker.index);
        let mut up = BodyRelay::tunnel(Hops::FromFrames);
        let mut down = BodyRelay::tunnel(Hops::ToFrames);
        let mut shut = false;
        let mut last = Instant::now();
        let reason = poll_fn(|cx| {
            let before = (up.moved(), down.moved());
            let (source, sink) = stream.both();
            let sent = up.poll(cx, source, Sink::Http1(conn), &worker.pools);
            let received = down.poll(cx, Source::Http1(conn, inlet), sink, &worker.pools);
            let (sent_bytes, received_bytes) = (up.moved() - before.0, down.moved() - before.1);
            if sent_bytes + received_bytes > 0 {
                listener.bytes_in.add(sent_bytes);
                at.bytes_in.add(sent_bytes);
                listener.bytes_out.add(received_bytes);
                at.bytes_out.add(received_bytes);
                last = Instant::now();
            }
            match (&sent, &received) {
                (Poll::Ready(Err(RelayError::Source)), _)
                | (_, Poll::Ready(Err(RelayError::Destination))) => {
                    return Poll::Ready(EndReason::Aborted(Peer::Client, io::ErrorKind::BrokenPipe));
                }
                (Poll::Ready(Err(_)), _) | (_, Poll::Ready(Err(_))) => {
                    return Poll::Ready(EndReason::Aborted(Peer::Member, io::ErrorKind::BrokenPipe));
                }
                (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => return Poll::Ready(EndReason::Finished),
                (Poll::Ready(Ok(())), _) if !shut => {
                    shut = conn.poll_shutdown(cx).is_ready();
                }
                _ => {}
            }
            let (patience, late) = if timeouts.client_data > timeouts.member_data {
                (timeouts.client_data, Peer::Client)
            } else {
                (timeouts.member_data, Peer::Member)
            };
            stream.deadline.set(Some(last + patience));
            stream.deadline.poll_expired(cx).map(|()| EndReason::TimedOut(late))
        })
        .await;
        RelayEnd { client_to_member: up.moved(), member_to_client: down.moved(), reason }
    }
}
