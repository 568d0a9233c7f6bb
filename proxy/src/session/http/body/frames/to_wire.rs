//! A body that comes over a stream and goes over HTTP/1.1.

use std::task::{Context, Poll, ready};

use bytes::Buf;

use super::{FrameRelay, Outlet, RelayError, SMALL, size_of_trailers};
use crate::{
    conn::{Conn, Then},
    http1::{Body, write_chunk_header},
    http2::{RecvBody, head, hpack::FieldList},
};

impl FrameRelay {
    /// Goes on over HTTP/1.1, once it was [rewound](Self::rewind) and is there as a whole; false when it is not.
    pub(in crate::session::http) fn divert_to_wire(&mut self, body: Body) -> bool {
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

    /// Says how much data was in it, once all of it is written.
    pub(super) fn wrote_text(&mut self, n: usize) -> usize {
        self.moved += n as u64;
        self.text.drain(..n);
        if !self.text.is_empty() {
            return 0;
        }
        let copied = std::mem::take(&mut self.copied);
        self.content += copied as u64;
        copied
    }

    /// Takes data of a stream until there is something to write.
    pub(super) fn gather(&mut self, cx: &mut Context<'_>, body: &mut RecvBody) -> Result<(), RelayError> {
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

    pub(super) fn poll_to_wire(
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
    pub(super) fn poll_rest(
        &mut self,
        cx: &mut Context<'_>,
        conn: &mut Conn,
    ) -> Poll<Result<(), RelayError>> {
        while !self.text.is_empty() {
            match ready!(conn.poll_write(cx, &self.text, Then::More)) {
                Ok(n) if n > 0 => drop(self.wrote_text(n)),
                _ => return Poll::Ready(Err(RelayError::Destination)),
            }
        }
        Poll::Ready(Ok(()))
    }
}
