//! A body between two connections of HTTP/1.1, through one buffer, or past the proxy altogether.

use std::task::{Context, Poll, ready};

use super::RelayError;
use crate::{
    conn::{Conn, Inlet, Pools, Then},
    http1::{Body, ChunkedDecoder, Transfer, write_chunk_header},
    session::relay::{Direction, Ended, Fault, Meter, Waiting},
    state::Counter,
};

/// A body with at least this much to come is spliced: the kernel moves it from socket to socket.
const SPLICE_MIN: u64 = 64 * 1024;

/// How much content a body has, its framing left out.
#[derive(Clone, Copy, Debug)]
enum Content {
    /// What was written.
    Written,
    /// So much, and it is framed on the way.
    Bytes(u64),
}

/// What is left of a body.
#[derive(Debug)]
enum Left {
    /// So much content has passed.
    Nothing(Content),
    Bytes(u64),
    Chunks(Box<ChunkedDecoder>),
    UntilClose(Content),
    Spliced(Box<Splice>),
}

/// The rest of a body of known length, on its way without passing through the proxy's memory.
#[derive(Debug)]
struct Splice {
    direction: Direction,
    /// What [`Direction`] counts is counted by the exchange, from [`WireRelay::moved`].
    sink: Counter,
}

/// A body on its way.
#[derive(Debug)]
pub(in crate::session::http) struct WireRelay {
    left: Left,
    /// Bytes at the front of the source's buffer that belong to the body and wait to be written.
    ready: usize,
    /// What has been written so far.
    moved: u64,
    framing: Transfer,
    /// Trailers were behind it.
    trailed: bool,
    /// What waits to be written when the framing changes on the way. At most a buffer's worth.
    converted: Vec<u8>,
}

impl WireRelay {
    /// A body that comes with this framing, and goes on as `transfer` says.
    pub(super) fn new(body: Body, transfer: Transfer) -> Self {
        let left = match body {
            Body::None | Body::Length(0) => Left::Nothing(Content::Written),
            Body::Length(length) => Left::Bytes(length),
            Body::Chunked => Left::Chunks(Box::default()),
            Body::UntilClose if transfer == Transfer::Chunked => Left::UntilClose(Content::Bytes(0)),
            Body::UntilClose => Left::UntilClose(Content::Written),
        };
        Self { left, ready: 0, moved: 0, framing: transfer, trailed: false, converted: Vec::new() }
    }

    /// Whether the whole body has been written.
    #[inline]
    pub(super) fn is_done(&self) -> bool {
        self.ready == 0 && matches!(self.left, Left::Nothing(_)) && self.converted.is_empty()
    }

    /// Whether bytes wait for the destination, rather than the destination for bytes.
    #[inline]
    pub(super) fn waits_for_destination(&self) -> bool {
        match &self.left {
            Left::Spliced(splice) => splice.direction.waiting() == Waiting::Destination,
            _ => self.ready > 0 || !self.converted.is_empty(),
        }
    }

    /// Bytes written so far.
    #[inline]
    pub(super) fn moved(&self) -> u64 {
        self.moved
    }

    /// Bytes of content so far, as HAProxy counts them: data, and when it comes in chunks names and values of trailers and one
    /// for the end.
    pub(super) fn content(&self) -> u64 {
        match &self.left {
            Left::Nothing(Content::Bytes(bytes)) | Left::UntilClose(Content::Bytes(bytes)) => *bytes,
            Left::Chunks(decoder) => decoder.data(),
            _ => self.moved,
        }
    }

    /// Whether trailers were behind it, which have been written.
    #[inline]
    pub(super) fn has_trailers(&self) -> bool {
        self.trailed
    }

    /// Looks at what the buffer holds, and takes what belongs to the body. Returns the front of the buffer that can be written
    /// now, and whether it is all that is left.
    ///
    /// # Errors
    /// When the chunking is bad.
    #[inline]
    pub(super) fn claim<'b>(&mut self, inlet: &'b mut Inlet) -> Result<(&'b [u8], bool), RelayError> {
        self.classify(inlet)?;
        let all = matches!(self.left, Left::Nothing(_)) && self.converted.is_empty();
        Ok((&inlet.filled()[..self.ready], all))
    }

    /// `n` bytes of what [`claim`](Self::claim) returned were written.
    pub(super) fn wrote(&mut self, inlet: &mut Inlet, n: usize) {
        inlet.consume(n);
        self.ready -= n;
        self.moved += n as u64;
    }

    fn classify(&mut self, inlet: &mut Inlet) -> Result<(), RelayError> {
        let fresh = &inlet.filled()[self.ready..];
        if fresh.is_empty() {
            return Ok(());
        }
        match &mut self.left {
            Left::Nothing(_) | Left::Spliced(_) => {}
            Left::Bytes(length) => {
                let taken = usize::try_from(*length).map_or(fresh.len(), |length| length.min(fresh.len()));
                *length -= taken as u64;
                self.ready += taken;
                if *length == 0 {
                    self.left = Left::Nothing(Content::Written);
                }
            }
            Left::UntilClose(Content::Bytes(content)) => {
                let n = fresh.len();
                *content += n as u64;
                write_chunk_header(&mut self.converted, n as u64);
                self.converted.extend_from_slice(fresh);
                self.converted.extend_from_slice(b"\r\n");
                inlet.consume(n);
            }
            Left::UntilClose(Content::Written) => self.ready += fresh.len(),
            Left::Chunks(decoder) if self.framing == Transfer::UntilClose => {
                let mut consumed = 0;
                while consumed < fresh.len() {
                    let fresh = &fresh[consumed..];
                    let piece = decoder.decode_data(fresh).map_err(|_| RelayError::Malformed)?;
                    self.converted.extend_from_slice(&fresh[piece.data]);
                    consumed += piece.consumed;
                    if piece.done {
                        self.left = Left::Nothing(content(decoder));
                        break;
                    }
                }
                inlet.consume(consumed);
            }
            Left::Chunks(decoder) => {
                let step = decoder.decode(fresh).map_err(|_| RelayError::Malformed)?;
                if step.done {
                    self.trailed = decoder.has_trailers();
                    self.left = Left::Nothing(content(decoder));
                }
                self.ready += step.consumed;
            }
        }
        Ok(())
    }

    /// Moves what can be moved now. Ready when the whole body has been written.
    ///
    /// # Errors
    /// When either side fails, or the body is malformed.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut Conn,
        inlet: &mut Inlet,
        destination: &mut Conn,
        pools: &Pools,
    ) -> Poll<Result<(), RelayError>> {
        loop {
            self.classify(inlet)?;
            ready!(self.poll_flush(cx, inlet, destination))?;
            match &mut self.left {
                Left::Nothing(_) => return Poll::Ready(Ok(())),
                Left::Bytes(length) if *length >= SPLICE_MIN => {
                    let direction = Direction::exact(*length);
                    self.left = Left::Spliced(Box::new(Splice { direction, sink: Counter::default() }));
                    continue;
                }
                Left::Spliced(splice) => {
                    ready!(splice.poll(cx, source, destination, pools, &mut self.moved))?;
                    self.left = Left::Nothing(Content::Written);
                    continue;
                }
                Left::Bytes(_) | Left::Chunks(_) | Left::UntilClose(_) => {}
            }
            // Everything in the buffer belonged to the body and is written, so all of it is spare.
            match ready!(inlet.poll_fill(cx, source)) {
                Ok(0) if let Left::UntilClose(content) = self.left => {
                    self.left = Left::Nothing(content);
                    if self.framing == Transfer::Chunked {
                        self.converted.extend_from_slice(b"0\r\n\r\n");
                    }
                }
                Ok(0) | Err(_) => return Poll::Ready(Err(RelayError::Source)),
                Ok(_) => {}
            }
        }
    }

    /// Reads what is left of the body and passes it over; see [`BodyRelay::poll_discard`](super::BodyRelay::poll_discard).
    ///
    /// # Errors
    /// When the source fails, or the body is malformed.
    pub(super) fn poll_discard(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut Conn,
        inlet: &mut Inlet,
        passed: &mut u64,
    ) -> Poll<Result<(), RelayError>> {
        if let Left::Spliced(splice) = &self.left {
            self.left = match splice.direction.remaining() {
                0 => Left::Nothing(Content::Written),
                remaining => Left::Bytes(remaining),
            };
        }
        loop {
            self.classify(inlet)?;
            let taken = std::mem::take(&mut self.ready);
            inlet.consume(taken);
            *passed += taken as u64;
            if let Left::Nothing(_) = self.left {
                return Poll::Ready(Ok(()));
            }
            match ready!(inlet.poll_fill(cx, source)) {
                Ok(n) if n > 0 => {}
                _ => return Poll::Ready(Err(RelayError::Source)),
            }
        }
    }

    fn poll_flush(
        &mut self,
        cx: &mut Context<'_>,
        inlet: &mut Inlet,
        destination: &mut Conn,
    ) -> Poll<Result<(), RelayError>> {
        while !self.converted.is_empty() {
            match ready!(destination.poll_write(cx, &self.converted, Then::More)) {
                Ok(n) if n > 0 => {
                    self.converted.drain(..n);
                    self.moved += n as u64;
                }
                _ => return Poll::Ready(Err(RelayError::Destination)),
            }
        }
        while self.ready > 0 {
            match ready!(destination.poll_write(cx, &inlet.filled()[..self.ready], Then::More)) {
                Ok(n) if n > 0 => self.wrote(inlet, n),
                _ => return Poll::Ready(Err(RelayError::Destination)),
            }
        }
        Poll::Ready(Ok(()))
    }
}

fn content(decoder: &ChunkedDecoder) -> Content {
    Content::Bytes(decoder.data() + decoder.trailers() + 1)
}

impl Splice {
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut Conn,
        destination: &mut Conn,
        pools: &Pools,
        moved: &mut u64,
    ) -> Poll<Result<(), RelayError>> {
        let before = self.direction.written();
        let meter = Meter { read: &self.sink, written: &self.sink };
        let polled = self.direction.poll(cx, source, destination, pools, meter);
        *moved += self.direction.written() - before;
        Poll::Ready(match ready!(polled) {
            Ok(Ended::Limit) => Ok(()),
            Ok(Ended::Closed | Ended::Stopped) | Err(Fault::Source(_)) => Err(RelayError::Source),
            Err(Fault::Destination(_)) => Err(RelayError::Destination),
        })
    }
}
