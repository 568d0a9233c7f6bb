//! Where a request goes, and its response comes from.

use std::rc::Rc;

use super::body::{Sink, Source};
use crate::{
    conn::{Conn, Inlet},
    local::{LocalMember, Slot},
    state::MemberCounters,
};

/// What one exchange has of its member.
pub(super) enum Upstream {
    /// A connection of HTTP/1.1, which carries one exchange at a time.
    Http1(MemberConnection),
}

/// A connection of HTTP/1.1 to a member.
pub(super) struct MemberConnection {
    pub(super) stream: Conn,
    pub(super) inlet: Inlet,
    pub(super) slot: Slot,
}

impl Upstream {
    /// Whether it is a stream of HTTP/2.
    #[inline]
    pub(super) fn is_stream(&self) -> bool {
        match self {
            Self::Http1(_) => false,
        }
    }

    /// The member.
    #[inline]
    pub(super) fn member(&self) -> &Rc<LocalMember> {
        match self {
            Self::Http1(connection) => connection.slot.member(),
        }
    }

    /// The member's connection.
    pub(super) fn conn(&self) -> &Conn {
        match self {
            Self::Http1(connection) => &connection.stream,
        }
    }

    /// The member's.
    #[inline]
    pub(super) fn counters(&self) -> &MemberCounters {
        self.member().counters()
    }

    /// What begins with the head of a response, once one was read.
    #[inline]
    pub(super) fn head(&self) -> &[u8] {
        match self {
            Self::Http1(connection) => connection.inlet.filled(),
        }
    }

    /// Drops a head, whose length this is.
    #[inline]
    pub(super) fn consume_head(&mut self, length: usize) {
        match self {
            Self::Http1(connection) => connection.inlet.consume(length),
        }
    }

    /// Where the body of the response comes from.
    #[inline]
    pub(super) fn source(&mut self) -> Source<'_> {
        match self {
            Self::Http1(connection) => Source::Http1(&mut connection.stream, &mut connection.inlet),
        }
    }

    /// Where the body of the request goes.
    #[inline]
    pub(super) fn sink(&mut self) -> Sink<'_> {
        match self {
            Self::Http1(connection) => Sink::Http1(&mut connection.stream),
        }
    }
}
