//! A body that comes from a stream of HTTP/2, or goes to one.
//!
//! Data of a stream is released to its sender when it was written onwards, and what goes to a stream is taken when its window
//! has room for it: a reader that is slow holds back the sender, and nothing but the windows is held in between.

mod from_wire;
mod to_wire;

use std::task::{Context, Poll, ready};

use bytes::Bytes;

use super::{Hops, RelayError, Sink, Source};
use crate::{
    http1::{Body, ChunkedDecoder, Transfer},
    http2::{RecvBody, SendBody, head, hpack::FieldList},
};

/// Data that is not longer is copied behind what else is to be written: one send(2) of both is cheaper than two.
const SMALL: usize = 2048;

/// The most of a request's body that is kept to be sent again. A member that goes away refuses what has just been sent.
const KEPT: usize = 16 * 1024;

/// What is left of a body that comes over HTTP/1.1.
#[derive(Debug)]
enum Left {
    Nothing,
    Bytes(u64),
    Chunks(Box<ChunkedDecoder>),
    UntilClose,
}

/// How a body goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outlet {
    /// Over HTTP/1.1, the data as it is.
    Data,
    /// Over HTTP/1.1, in chunks.
    Chunks,
    /// Over a stream.
    Frames,
}

/// A body on its way.
#[derive(Debug)]
pub(in crate::session::http) struct FrameRelay {
    left: Left,
    outlet: Outlet,
    /// Trailers went on over HTTP/1.1.
    trailed: bool,
    /// Of HTTP/1.1: lines of trailers. At most what the decoder bounds them to.
    lines: Vec<u8>,
    trailers: Option<FieldList>,
    /// What is to be written to HTTP/1.1 before `data`: chunk lines, and small data among them.
    text: Vec<u8>,
    /// Bytes of data in `text`.
    copied: usize,
    /// Data of a stream that is to be written.
    data: Bytes,
    /// A chunk has been written whose end of line has not.
    open: bool,
    moved: u64,
    /// Bytes of data written so far.
    content: u64,
    /// It comes in chunks, whose end counts as well.
    chunked: bool,
    /// Nothing comes any more.
    ended: bool,
    /// The end was written, or waits in `text`.
    finished: bool,
    /// Something was taken from the source.
    touched: bool,
    /// There is something to send, and no room in the destination's window.
    full: bool,
    kept: Option<Box<Kept>>,
}

/// What a member may have to be sent again by another stream.
#[derive(Debug, Default)]
struct Kept {
    /// All that was sent.
    data: Vec<u8>,
    trailers: Option<FieldList>,
    /// Bytes at the front of what waits that have been sent before.
    again: usize,
}

impl FrameRelay {
    pub(super) fn new(body: Body, transfer: Transfer, hops: Hops) -> Self {
        let left = match body {
            Body::None | Body::Length(0) => Left::Nothing,
            Body::Length(length) => Left::Bytes(length),
            Body::Chunked => Left::Chunks(Box::default()),
            Body::UntilClose => Left::UntilClose,
        };
        let none = matches!(left, Left::Nothing);
        let outlet = match hops {
            Hops::ToFrames | Hops::Frames => Outlet::Frames,
            _ if body == Body::Chunked && transfer != Transfer::UntilClose => Outlet::Chunks,
            _ => Outlet::Data,
        };
        Self {
            outlet,
            left,
            trailed: false,
            lines: Vec::new(),
            trailers: None,
            text: Vec::new(),
            copied: 0,
            data: Bytes::new(),
            open: false,
            moved: 0,
            content: 0,
            chunked: body == Body::Chunked && hops == Hops::ToFrames,
            ended: none,
            finished: none,
            touched: false,
            full: false,
            kept: None,
        }
    }

    pub(super) fn keep(&mut self) {
        if !self.finished {
            self.kept = Some(Box::default());
        }
    }

    pub(super) fn settle(&mut self) {
        self.kept = None;
    }

    pub(super) fn is_untouched(&self) -> bool {
        !self.touched
    }

    pub(super) fn rewind(&mut self) -> bool {
        if !self.touched {
            return true;
        }
        let Some(kept) = &mut self.kept else { return false };
        let mut data = std::mem::take(&mut kept.data);
        kept.again += data.len();
        data.extend_from_slice(&self.data);
        self.data = data.into();
        if let Some(trailers) = kept.trailers.take() {
            self.trailers = Some(trailers);
        }
        (self.finished, self.full) = (false, false);
        self.moved = 0;
        self.content = if self.ended { self.trailers.as_ref().map_or(0, size_of_trailers) } else { 0 };
        true
    }

    /// Sends from the front of what waits as much as there is room for; says how much of it had not been sent before.
    fn poll_send(&mut self, cx: &mut Context<'_>, to: &mut SendBody) -> Poll<Result<usize, RelayError>> {
        let n = ready!(self.poll_room(cx, to, self.data.len()))?;
        let piece = self.data.split_to(n);
        let again = self.note(&piece);
        let last = self.ended && self.data.is_empty() && self.trailers.is_none();
        self.moved += n as u64;
        self.content += n as u64;
        self.finished |= last;
        to.send(piece, last).map_err(|_| RelayError::Destination)?;
        Poll::Ready(Ok(n - again))
    }

    /// Data is sent; says how much of it has been before.
    fn note(&mut self, data: &[u8]) -> usize {
        self.touched = true;
        let Some(kept) = &mut self.kept else { return 0 };
        let again = kept.again.min(data.len());
        kept.again -= again;
        if kept.data.len() + data.len() <= KEPT {
            kept.data.extend_from_slice(data);
        } else if kept.again == 0 {
            self.kept = None;
        }
        again
    }

    pub(super) fn tunnel(hops: Hops) -> Self {
        Self::new(Body::UntilClose, Transfer::UntilClose, hops)
    }

    pub(super) fn is_done(&self) -> bool {
        self.finished && self.text.is_empty() && self.data.is_empty()
    }

    pub(super) fn waits_for_destination(&self) -> bool {
        self.full || !self.text.is_empty() || !self.data.is_empty() || self.ended && !self.finished
    }

    pub(super) fn has_trailers(&self) -> bool {
        self.trailed
    }

    pub(super) fn moved(&self) -> u64 {
        self.moved
    }

    pub(super) fn content(&self) -> u64 {
        self.content + u64::from(self.chunked && self.finished)
    }

    pub(super) fn claim(
        &mut self,
        cx: &mut Context<'_>,
        source: Source<'_>,
    ) -> Result<(&[u8], bool), RelayError> {
        match source {
            Source::Http2(body) if self.outlet != Outlet::Frames => {
                // What has come before it has failed goes on, and the head anyway; then polling says what has happened.
                let _ = self.gather(cx, body);
                Ok((&self.text, self.finished && self.data.is_empty()))
            }
            _ if self.outlet != Outlet::Frames => Ok((&self.text, self.finished)),
            _ => Ok((&[], false)),
        }
    }

    pub(super) fn wrote(&mut self, source: Source<'_>, n: usize) {
        let copied = self.wrote_text(n);
        if let Source::Http2(body) = source {
            body.release(copied);
        }
    }

    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        source: Source<'_>,
        sink: Sink<'_>,
    ) -> Poll<Result<(), RelayError>> {
        match (source, sink) {
            (Source::Http2(body), Sink::Http1(conn)) => self.poll_to_wire(cx, body, conn),
            (Source::Http1(conn, inlet), Sink::Http2(body)) => self.poll_from_wire(cx, conn, inlet, body),
            (Source::Http2(from), Sink::Http2(to)) => self.poll_between(cx, from, to),
            (Source::Http1(..), Sink::Http1(conn)) if self.finished => self.poll_rest(cx, conn),
            (_, Sink::Ended) if self.finished => Poll::Ready(Ok(())),
            _ => Poll::Ready(Err(RelayError::Destination)),
        }
    }

    fn poll_between(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut RecvBody,
        to: &mut SendBody,
    ) -> Poll<Result<(), RelayError>> {
        loop {
            if self.finished {
                return Poll::Ready(Ok(()));
            }
            if !self.data.is_empty() {
                // What comes meanwhile is taken from the library, where it takes more room.
                from.absorb(cx);
                let n = ready!(self.poll_send(cx, to))?;
                from.release(n);
                continue;
            }
            if self.ended {
                self.finish(to)?;
                continue;
            }
            match ready!(from.poll_data(cx)) {
                Some(Ok(data)) => {
                    self.touched = true;
                    self.data = data;
                }
                Some(Err(_)) => return Poll::Ready(Err(RelayError::Source)),
                None => {
                    let trailers = ready!(from.poll_trailers(cx)).map_err(|_| RelayError::Source)?;
                    self.content += trailers.as_ref().map_or(0, size_of_trailers);
                    let trailers = trailers.map(head::passed_trailers);
                    self.trailers = trailers.filter(|trailers| !trailers.is_empty());
                    (self.ended, self.touched) = (true, true);
                }
            }
        }
    }

    fn poll_room(
        &mut self,
        cx: &mut Context<'_>,
        to: &mut SendBody,
        wanted: usize,
    ) -> Poll<Result<usize, RelayError>> {
        let room = to.poll_capacity(cx, wanted).map_err(|_| RelayError::Destination);
        self.full = room.is_pending();
        room
    }

    fn finish(&mut self, to: &mut SendBody) -> Result<(), RelayError> {
        self.finished = true;
        self.touched = true;
        if let Some(kept) = &mut self.kept {
            kept.trailers.clone_from(&self.trailers);
        }
        match self.trailers.take() {
            Some(trailers) => to.send_trailers(&trailers),
            None => to.send(Bytes::new(), true),
        }
        .map_err(|_| RelayError::Destination)
    }
}

/// What HAProxy counts of trailers: names and values.
fn size_of_trailers(trailers: &FieldList) -> u64 {
    trailers.iter().map(|(name, value)| (name.len() + value.len()) as u64).sum()
}
