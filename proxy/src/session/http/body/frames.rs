//! A body that comes from a stream of HTTP/2, or goes to one.
//!
//! Data of a stream is released to its sender when it was written onwards, and what goes to a stream is taken when its window
//! has room for it: a reader that is slow holds back the sender, and nothing but the windows is held in between.

use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};

use super::{Hops, RelayError, Sink, Source};
use crate::{
    conn::{Conn, Inlet, Then},
    http::scan,
    http1::{Body, ChunkedDecoder, Transfer, write_chunk_header},
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

    /// Goes on over HTTP/1.1, once it was [rewound](Self::rewind) and is there as a whole; false when it is not.
    pub(in crate::session::http) fn to_wire(&mut self, body: Body) -> bool {
        if !self.ended {
            return false;
        }
        let data = std::mem::take(&mut self.data);
        let again = self.kept.take().map_or(0, |kept| kept.again);
        self.outlet = if body == Body::Chunked { Outlet::Chunks } else { Outlet::Data };
        self.begin_chunk(data.len());
        self.text.extend_from_slice(&data);
        self.copied = data.len().saturating_sub(again);
        self.content += (data.len() - self.copied) as u64;
        let trailers = self.trailers.take();
        self.end_chunks(trailers);
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

    /// Says how much data was in it, once all of it is written.
    fn wrote_text(&mut self, n: usize) -> usize {
        self.moved += n as u64;
        self.text.drain(..n);
        if !self.text.is_empty() {
            return 0;
        }
        let copied = std::mem::take(&mut self.copied);
        self.content += copied as u64;
        copied
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

    /// Takes data of a stream until there is something to write.
    fn gather(&mut self, cx: &mut Context<'_>, body: &mut RecvBody) -> Result<(), RelayError> {
        while self.data.is_empty() && !self.finished && self.text.len() < SMALL {
            let data = match body.poll_data(cx) {
                Poll::Pending => break,
                Poll::Ready(Some(Ok(data))) => data,
                Poll::Ready(Some(Err(_))) => return Err(RelayError::Source),
                Poll::Ready(None) => {
                    self.ended = true;
                    let Poll::Ready(trailers) = body.poll_trailers(cx) else { break };
                    let trailers = trailers.map_err(|_| RelayError::Source)?;
                    self.content += trailers.as_ref().map_or(0, size_of_trailers);
                    self.end_chunks(trailers);
                    break;
                }
            };
            if data.is_empty() {
                continue;
            }
            self.begin_chunk(data.len());
            if data.len() <= SMALL {
                self.text.extend_from_slice(&data);
                self.copied += data.len();
            } else {
                self.data = data;
            }
        }
        Ok(())
    }

    fn begin_chunk(&mut self, length: usize) {
        self.close_chunk();
        if self.outlet == Outlet::Chunks && length > 0 {
            write_chunk_header(&mut self.text, length as u64);
            self.open = true;
        }
    }

    fn end_chunks(&mut self, trailers: Option<FieldList>) {
        self.close_chunk();
        if self.outlet == Outlet::Chunks {
            self.text.extend_from_slice(b"0\r\n");
            match trailers {
                Some(trailers) => {
                    head::write_trailers(&trailers, &mut self.text);
                    self.trailed = true;
                }
                None => self.text.extend_from_slice(b"\r\n"),
            }
        }
        self.finished = true;
    }

    fn close_chunk(&mut self) {
        if std::mem::take(&mut self.open) {
            self.text.extend_from_slice(b"\r\n");
        }
    }

    fn poll_to_wire(
        &mut self,
        cx: &mut Context<'_>,
        body: &mut RecvBody,
        conn: &mut Conn,
    ) -> Poll<Result<(), RelayError>> {
        loop {
            self.gather(cx, body)?;
            if self.data.is_empty() {
                // The next may be long in coming, and the receiver wait for the end of this one.
                self.close_chunk();
            }
            if self.text.is_empty() && self.data.is_empty() {
                return if self.finished { Poll::Ready(Ok(())) } else { Poll::Pending };
            }
            let n = match conn.poll_write_two(cx, &self.text, &self.data, Then::More) {
                Poll::Ready(Ok(n)) if n > 0 => n,
                Poll::Ready(_) => return Poll::Ready(Err(RelayError::Destination)),
                Poll::Pending => {
                    body.absorb(cx);
                    return Poll::Pending;
                }
            };
            let of_text = n.min(self.text.len());
            if of_text > 0 {
                let copied = self.wrote_text(of_text);
                body.release(copied);
            }
            if n > of_text {
                self.data.advance(n - of_text);
                self.moved += (n - of_text) as u64;
                self.content += (n - of_text) as u64;
                body.release(n - of_text);
            }
        }
    }

    /// Writes what is left of a body that was to go over a stream, and goes over HTTP/1.1.
    fn poll_rest(&mut self, cx: &mut Context<'_>, conn: &mut Conn) -> Poll<Result<(), RelayError>> {
        while !self.text.is_empty() {
            match ready!(conn.poll_write(cx, &self.text, Then::More)) {
                Ok(n) if n > 0 => drop(self.wrote_text(n)),
                _ => return Poll::Ready(Err(RelayError::Destination)),
            }
        }
        Poll::Ready(Ok(()))
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

    fn poll_from_wire(
        &mut self,
        cx: &mut Context<'_>,
        conn: &mut Conn,
        inlet: &mut Inlet,
        to: &mut SendBody,
    ) -> Poll<Result<(), RelayError>> {
        loop {
            if self.finished {
                return Poll::Ready(Ok(()));
            }
            if !self.data.is_empty() {
                ready!(self.poll_send(cx, to))?;
                continue;
            }
            if self.ended {
                self.finish(to)?;
                continue;
            }
            if inlet.is_empty() {
                match ready!(inlet.poll_fill(cx, conn)) {
                    Ok(0) if matches!(self.left, Left::UntilClose) => self.ended = true,
                    Ok(0) | Err(_) => return Poll::Ready(Err(RelayError::Source)),
                    Ok(_) => {}
                }
                continue;
            }
            match &mut self.left {
                Left::Chunks(_) => ready!(self.poll_chunks(cx, inlet, to))?,
                left => {
                    let there = inlet.filled().len();
                    let wanted = match left {
                        Left::Bytes(length) => {
                            usize::try_from(*length).map_or(there, |length| length.min(there))
                        }
                        _ => there,
                    };
                    let n = ready!(self.poll_room(cx, to, wanted))?;
                    self.send_bytes(inlet, to, n)?;
                }
            }
        }
    }

    /// Sends the first `n` bytes of what was read, all of them data.
    fn send_bytes(&mut self, inlet: &mut Inlet, to: &mut SendBody, n: usize) -> Result<(), RelayError> {
        let mut last = false;
        if let Left::Bytes(length) = &mut self.left {
            *length -= n as u64;
            last = *length == 0;
        }
        self.note(&inlet.filled()[..n]);
        let sent = if n == inlet.filled().len() {
            match inlet.take() {
                Some(buffer) => to.send(buffer, last),
                None => Ok(()),
            }
        } else {
            let piece = Bytes::copy_from_slice(&inlet.filled()[..n]);
            inlet.consume(n);
            to.send(piece, last)
        };
        self.moved += n as u64;
        self.content += n as u64;
        if last {
            self.left = Left::Nothing;
            (self.ended, self.finished) = (true, true);
        }
        sent.map_err(|_| RelayError::Destination)
    }

    /// Takes chunks apart, no more of them than there is room for.
    fn poll_chunks(
        &mut self,
        cx: &mut Context<'_>,
        inlet: &mut Inlet,
        to: &mut SendBody,
    ) -> Poll<Result<(), RelayError>> {
        let room = ready!(self.poll_room(cx, to, inlet.filled().len()))?;
        let Left::Chunks(decoder) = &mut self.left else { return Poll::Ready(Ok(())) };
        let mut data = Vec::new();
        let mut consumed = 0;
        let input = inlet.filled();
        // Behind the room there may be the end, which takes none.
        while consumed < input.len() && !self.ended {
            let rest = &input[consumed..];
            let rest =
                if data.len() < room { &rest[..rest.len().min(room - data.len())] } else { &rest[..1] };
            if data.len() >= room && decoder.is_in_data() {
                break;
            }
            let run = decoder.decode_run_of(rest).map_err(|_| RelayError::Malformed)?;
            data.extend_from_slice(&rest[run.data]);
            self.lines.extend_from_slice(&rest[run.trailers]);
            consumed += run.consumed;
            self.ended = run.done;
        }
        inlet.consume(consumed);
        self.touched = true;
        if self.ended {
            self.content += decoder.trailers();
            self.left = Left::Nothing;
            let trailers = head::trailers(field_lines(&self.lines));
            self.trailers = (!trailers.is_empty()).then_some(trailers);
            self.lines = Vec::new();
        }
        let last = self.ended && self.trailers.is_none();
        if !data.is_empty() || last {
            self.moved += data.len() as u64;
            self.content += data.len() as u64;
            self.note(&data);
            to.send(Bytes::from(data), last).map_err(|_| RelayError::Destination)?;
            self.finished = last;
        }
        Poll::Ready(Ok(()))
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

/// The fields of lines that were checked as they came.
fn field_lines(lines: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    lines.split(|&byte| byte == b'\n').filter_map(|line| {
        let (name, value) = line.split_at(memchr::memchr(b':', line)?);
        Some((name, scan::trim(value[1..].strip_suffix(b"\r").unwrap_or(&value[1..]))))
    })
}

#[cfg(test)]
mod tests {
    use super::field_lines;

    #[test]
    fn lines_are_fields() {
        let fields: Vec<_> = field_lines(b"X-Sum:  7 \r\nx-sum: a:b\r\nDate:\r\n").collect();
        assert_eq!(fields, [(&b"X-Sum"[..], &b"7"[..]), (b"x-sum", b"a:b"), (b"Date", b"")]);
        assert_eq!(field_lines(b"").count(), 0);
    }
}
