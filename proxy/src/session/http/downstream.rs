//! Where a request has come from, and where its response goes.

use std::{
    future::poll_fn,
    io,
    net::SocketAddr,
    rc::Rc,
    task::{Context, Poll},
};

use tokio::time::Instant;

use super::{
    body::{Sink, Source},
    client::Client,
    decide::Waiting,
    own::OwnConnections,
    stream::ClientStream,
};
use crate::{http1::Body, tls::PeerFacts};

/// What one exchange has of its client.
pub(in crate::session) enum Downstream<'a> {
    /// A connection of HTTP/1.1, which carries one exchange at a time.
    Http1(&'a mut Client),
    /// A stream of HTTP/2, whose connection carries others meanwhile.
    Http2(&'a mut ClientStream),
}

impl Downstream<'_> {
    /// The client's.
    pub(in crate::session) fn address(&self) -> SocketAddr {
        match self {
            Self::Http1(client) => client.address,
            Self::Http2(stream) => stream.client.address,
        }
    }

    /// Whether it is a stream of HTTP/2.
    #[inline]
    pub(super) fn is_stream(&self) -> bool {
        matches!(self, Self::Http2(_))
    }

    /// The address that the client has connected to.
    pub(super) fn local_addr(&self) -> io::Result<SocketAddr> {
        match self {
            Self::Http1(client) => client.stream.local_addr(),
            Self::Http2(stream) => stream.client.local.ok_or_else(|| io::ErrorKind::NotConnected.into()),
        }
    }

    /// What is known of a client that speaks TLS.
    pub(super) fn facts(&self) -> Option<&Rc<PeerFacts>> {
        match self {
            Self::Http1(client) => client.stream.facts(),
            Self::Http2(stream) => stream.client.facts.as_ref(),
        }
    }

    /// Whether the client has asked for nothing before.
    pub(super) fn is_first(&self) -> bool {
        match self {
            Self::Http1(client) => client.requests == 1,
            Self::Http2(stream) => stream.is_first,
        }
    }

    /// Looks into the connections to members that serve this client alone.
    pub(super) fn own<T>(&mut self, look: impl FnOnce(&mut OwnConnections) -> T) -> T {
        match self {
            Self::Http1(client) => look(&mut client.own),
            Self::Http2(stream) => look(&mut stream.client.own.borrow_mut()),
        }
    }

    /// Something has come or gone.
    pub(super) fn set_active(&mut self, at: Instant) {
        match self {
            Self::Http1(client) => client.active = at,
            // The connection knows when it has streams.
            Self::Http2(_) => {}
        }
    }

    /// What has come of the body of the request, of which nothing was read.
    pub(super) fn waiting(&self, body: Body) -> Waiting {
        match self {
            Self::Http1(client) => Waiting::of(body, client.inlet.filled()),
            Self::Http2(_) => Waiting { is_all: body == Body::None, ..Waiting::default() },
        }
    }

    /// Where the body of the request comes from.
    #[inline]
    pub(super) fn source(&mut self) -> Source<'_> {
        match self {
            Self::Http1(client) => Source::Http1(&mut client.stream, &mut client.inlet),
            Self::Http2(stream) => stream.source(),
        }
    }

    /// Where the body of the response goes.
    #[inline]
    pub(super) fn sink(&mut self) -> Sink<'_> {
        match self {
            Self::Http1(client) => Sink::Http1(&mut client.stream),
            Self::Http2(stream) => stream.sink(),
        }
    }

    /// Ready when the client is not there any more.
    #[inline]
    pub(in crate::session) fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self {
            Self::Http1(client) => client.poll_gone(cx),
            Self::Http2(stream) => stream.poll_gone(cx),
        }
    }

    /// Waits until the client is not there any more, or has finished sending.
    pub(super) async fn left(&mut self) {
        match self {
            Self::Http1(client) => client.left().await,
            // A request that is complete ends its stream, and the stream is there until it is reset.
            Self::Http2(stream) => poll_fn(|cx| stream.poll_gone(cx)).await,
        }
    }

    /// Has the task woken when a member's time may be over. Those of HTTP/1.1 are woken with all clients of their listener, and all
    /// tasks that streams have, in any case.
    #[inline]
    pub(super) fn watch_drain(&mut self, cx: &Context<'_>) {
        match self {
            Self::Http1(client) => client.enlist(cx),
            Self::Http2(_) => {}
        }
    }

    /// Ready when it is `at`.
    #[inline]
    pub(in crate::session) fn poll_deadline(&mut self, cx: &mut Context<'_>, at: Instant) -> Poll<()> {
        let deadline = match self {
            Self::Http1(client) => &mut client.deadline,
            Self::Http2(stream) => &mut stream.deadline,
        };
        deadline.set(Some(at));
        deadline.poll_expired(cx)
    }

    /// No more responses follow: the client is told so. False when that takes [`Client::linger`]: the client does not read.
    pub(super) fn end(&mut self) -> bool {
        match self {
            Self::Http1(client) => client.stream.end(),
            Self::Http2(_) => true,
        }
    }
}
