//! One direction of a message body, from where it comes from to where it goes, with back-pressure: nothing is read before what
//! was read has been written.

mod frames;
mod wire;

use std::task::{Context, Poll};

pub(super) use self::frames::FrameRelay;
use self::wire::WireRelay;
use crate::{
    conn::{Conn, Inlet, Pools},
    http1::{Body, Transfer},
    http2::{RecvBody, SendBody},
};

/// Why a body did not get through.
#[derive(Debug)]
pub(super) enum RelayError {
    /// The side that it comes from closed or failed before the end.
    Source,
    /// What came is not a body: bad chunking.
    Malformed,
    /// The side that it goes to failed.
    Destination,
}

/// What was sent of a body is not there to be sent again.
#[derive(Debug)]
pub(super) struct NotKept;

/// The beginning of a body that is not longer is copied behind the head.
const SMALL_BODY: usize = 1024;

/// Where a body comes from.
pub(super) enum Source<'a> {
    /// A connection of HTTP/1.1, and what was read from it.
    Http1(&'a mut Conn, &'a mut Inlet),
    /// A stream.
    Http2(&'a mut RecvBody),
    /// Nothing has come.
    Ended,
}

/// Where a body goes.
pub(super) enum Sink<'a> {
    /// A connection of HTTP/1.1.
    Http1(&'a mut Conn),
    /// A stream.
    Http2(&'a mut SendBody),
    /// The head has ended the stream, or there is none: nothing can be sent.
    Ended,
}

/// A body on its way.
#[derive(Debug)]
pub(super) enum BodyRelay {
    /// Between connections of HTTP/1.1.
    Wire(WireRelay),
    /// From a stream, or to one.
    Frames(Box<FrameRelay>),
    /// From a stream, or to one, and there is none.
    Nothing,
}

/// The versions between which a body goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hops {
    /// From HTTP/1.1 to HTTP/1.1.
    Wire,
    /// From HTTP/1.1 to a stream.
    ToFrames,
    /// From a stream to HTTP/1.1.
    FromFrames,
    /// From a stream to a stream.
    Frames,
}

impl Hops {
    /// `from` and `to` say whether that side is a stream.
    pub(super) fn between(from: bool, to: bool) -> Self {
        match (from, to) {
            (false, false) => Self::Wire,
            (false, true) => Self::ToFrames,
            (true, false) => Self::FromFrames,
            (true, true) => Self::Frames,
        }
    }
}

impl BodyRelay {
    /// A body that comes with this framing, and goes on as `transfer` says where both sides are HTTP/1.1.
    #[inline]
    pub(super) fn new(body: Body, transfer: Transfer, hops: Hops) -> Self {
        match hops {
            Hops::Wire => Self::Wire(WireRelay::new(body, transfer)),
            _ if matches!(body, Body::None | Body::Length(0)) => Self::Nothing,
            _ => Self::Frames(Box::new(FrameRelay::new(body, transfer, hops))),
        }
    }

    /// What is sent is kept, as long as it is not much, so that it can be sent [again](Self::rewind) by a member that has
    /// not processed it.
    pub(super) fn keep(mut self) -> Self {
        if let Self::Frames(relay) = &mut self {
            relay.keep();
        }
        self
    }

    /// Nothing is sent again any more.
    #[inline]
    pub(super) fn settle(&mut self) {
        if let Self::Frames(relay) = self {
            relay.settle();
        }
    }

    /// Goes back to the beginning, for another stream: returns what was sent, if anything has been taken from where it comes from.
    ///
    /// # Errors
    /// When too much has been sent to be kept.
    pub(super) fn rewind(&mut self) -> Result<Option<Box<FrameRelay>>, NotKept> {
        let relay = match self {
            Self::Frames(relay) => relay,
            Self::Nothing => return Ok(None),
            Self::Wire(_) => return Err(NotKept),
        };
        if relay.is_untouched() {
            return Ok(None);
        }
        if !relay.rewind() {
            return Err(NotKept);
        }
        let nothing = Self::Wire(WireRelay::new(Body::None, Transfer::AsIs));
        match std::mem::replace(self, nothing) {
            Self::Frames(relay) => Ok(Some(relay)),
            Self::Wire(_) | Self::Nothing => Err(NotKept),
        }
    }

    /// The bytes of a tunnel, which have no end but that of the side that they come from.
    pub(super) fn tunnel(hops: Hops) -> Self {
        Self::Frames(Box::new(FrameRelay::tunnel(hops)))
    }

    /// Whether the whole body has been written.
    #[inline]
    pub(super) fn is_done(&self) -> bool {
        match self {
            Self::Wire(relay) => relay.is_done(),
            Self::Frames(relay) => relay.is_done(),
            Self::Nothing => true,
        }
    }

    /// Whether bytes wait for the destination, rather than the destination for bytes.
    #[inline]
    pub(super) fn waits_for_destination(&self) -> bool {
        match self {
            Self::Wire(relay) => relay.waits_for_destination(),
            Self::Frames(relay) => relay.waits_for_destination(),
            Self::Nothing => false,
        }
    }

    /// Bytes written so far.
    #[inline]
    pub(super) fn moved(&self) -> u64 {
        match self {
            Self::Wire(relay) => relay.moved(),
            Self::Frames(relay) => relay.moved(),
            Self::Nothing => 0,
        }
    }

    /// Bytes of content so far, as HAProxy counts them.
    #[inline]
    pub(super) fn content(&self) -> u64 {
        match self {
            Self::Wire(relay) => relay.content(),
            Self::Frames(relay) => relay.content(),
            Self::Nothing => 0,
        }
    }

    /// Whether trailers were behind it that went on over HTTP/1.1.
    #[inline]
    pub(super) fn has_trailers(&self) -> bool {
        match self {
            Self::Wire(relay) => relay.has_trailers(),
            Self::Frames(relay) => relay.has_trailers(),
            Self::Nothing => false,
        }
    }

    /// Takes what is there of the body, and returns what of it can be written to a connection of HTTP/1.1 now, so that a caller
    /// can send it together with the head, and whether that is all that is left; [`wrote`](Self::wrote) follows.
    ///
    /// # Errors
    /// When what has come is no body, or the side that it comes from has failed.
    #[inline]
    pub(super) fn claim<'b>(
        &'b mut self,
        cx: &mut Context<'_>,
        source: Source<'b>,
    ) -> Result<(&'b [u8], bool), RelayError> {
        match (self, source) {
            (Self::Wire(relay), Source::Http1(_, inlet)) => relay.claim(inlet),
            (Self::Wire(_), _) => Ok((&[], false)),
            (Self::Frames(relay), source) => relay.claim(cx, source),
            (Self::Nothing, _) => Ok((&[], true)),
        }
    }

    /// Copies the beginning of a small body behind its head in `out`: one send(2) of both is cheaper than a writev(2).
    ///
    /// # Errors
    /// When what has come is no body.
    #[inline]
    pub(super) fn begin(&mut self, out: &mut Vec<u8>, source: Source<'_>) -> Result<(), RelayError> {
        let (Self::Wire(relay), Source::Http1(_, inlet)) = (self, source) else { return Ok(()) };
        let (first, _) = relay.claim(inlet)?;
        if first.len() <= SMALL_BODY {
            let n = first.len();
            out.extend_from_slice(first);
            relay.wrote(inlet, n);
        }
        Ok(())
    }

    /// `n` bytes of what [`claim`](Self::claim) returned were written.
    #[inline]
    pub(super) fn wrote(&mut self, source: Source<'_>, n: usize) {
        match (self, source) {
            (Self::Wire(relay), Source::Http1(_, inlet)) => relay.wrote(inlet, n),
            (Self::Wire(_) | Self::Nothing, _) => {}
            (Self::Frames(relay), source) => relay.wrote(source, n),
        }
    }

    /// Reads what is left of a body that comes over HTTP/1.1, and passes it over: nobody takes it any more. Adds how much that was
    /// to `passed`; ready when there is no more of it.
    ///
    /// # Errors
    /// When the side that it comes from fails, or the body is malformed.
    pub(super) fn poll_discard(
        &mut self,
        cx: &mut Context<'_>,
        source: Source<'_>,
        passed: &mut u64,
    ) -> Poll<Result<(), RelayError>> {
        match (self, source) {
            (Self::Wire(relay), Source::Http1(conn, inlet)) => relay.poll_discard(cx, conn, inlet, passed),
            (Self::Frames(relay), Source::Http1(conn, inlet)) => relay.poll_discard(cx, conn, inlet, passed),
            // A stream ends by itself, and what is nothing has ended.
            _ => Poll::Ready(Ok(())),
        }
    }

    /// Moves what can be moved now. Ready when the whole body has been written.
    ///
    /// # Errors
    /// When either side fails, or the body is malformed.
    #[inline]
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        source: Source<'_>,
        sink: Sink<'_>,
        pools: &Pools,
    ) -> Poll<Result<(), RelayError>> {
        match (self, source, sink) {
            (Self::Wire(relay), Source::Http1(conn, inlet), Sink::Http1(destination)) => {
                relay.poll(cx, conn, inlet, destination, pools)
            }
            // Made for other sides.
            (Self::Wire(_), ..) => Poll::Ready(Err(RelayError::Destination)),
            (Self::Frames(relay), source, sink) => relay.poll(cx, source, sink),
            (Self::Nothing, ..) => Poll::Ready(Ok(())),
        }
    }
}
