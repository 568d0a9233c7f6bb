//! Where a request has come from, and where its response goes.

use std::{
    io,
    net::SocketAddr,
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::Instant;

use super::{
    body::{Sink, Source},
    client::Client,
    own::OwnConnections,
};
use crate::conn::Conn;

/// What one exchange has of its client.
pub(super) enum Downstream<'a> {
    /// A connection of HTTP/1.1, which carries one exchange at a time.
    Http1(&'a mut Client),
}

impl Downstream<'_> {
    /// The same for a shorter time.
    pub(super) fn reborrow(&mut self) -> Downstream<'_> {
        match self {
            Self::Http1(client) => Downstream::Http1(client),
        }
    }

    /// The client's.
    pub(super) fn address(&self) -> SocketAddr {
        match self {
            Self::Http1(client) => client.address,
        }
    }

    /// The client's connection.
    pub(super) fn conn(&self) -> &Conn {
        match self {
            Self::Http1(client) => &client.stream,
        }
    }

    /// Whether the client has asked for nothing before.
    pub(super) fn is_first(&self) -> bool {
        match self {
            Self::Http1(client) => client.requests == 1,
        }
    }

    /// Connections to members that serve this client alone.
    pub(super) fn own(&mut self) -> &mut OwnConnections {
        match self {
            Self::Http1(client) => &mut client.own,
        }
    }

    /// Something has come or gone.
    pub(super) fn set_active(&mut self, at: Instant) {
        match self {
            Self::Http1(client) => client.active = at,
        }
    }

    /// Where the body of the request comes from.
    #[inline]
    pub(super) fn source(&mut self) -> Source<'_> {
        match self {
            Self::Http1(client) => Source::Http1(&mut client.stream, &mut client.inlet),
        }
    }

    /// Where the body of the response goes.
    #[inline]
    pub(super) fn sink(&mut self) -> Sink<'_> {
        match self {
            Self::Http1(client) => Sink::Http1(&mut client.stream),
        }
    }

    /// Ready when the client is not there any more.
    #[inline]
    pub(super) fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self {
            Self::Http1(client) => client.poll_gone(cx),
        }
    }

    /// Ready when it is `at`.
    #[inline]
    pub(super) fn poll_deadline(&mut self, cx: &mut Context<'_>, at: Instant) -> Poll<()> {
        let deadline = match self {
            Self::Http1(client) => &mut client.deadline,
        };
        deadline.set(Some(at));
        deadline.poll_expired(cx)
    }

    /// Writes all of `bytes`, within `timeout` without progress.
    pub(super) async fn write_all(&mut self, bytes: &[u8], timeout: Duration) -> io::Result<()> {
        match self {
            Self::Http1(client) => client.write_all(bytes, timeout).await,
        }
    }

    /// No more responses follow: the client is told so.
    pub(super) fn end(&mut self) {
        match self {
            Self::Http1(client) => client.stream.end(),
        }
    }
}
