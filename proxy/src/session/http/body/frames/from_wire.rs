//! A body that comes over HTTP/1.1 and goes over a stream.

use std::task::{Context, Poll, ready};

use bytes::Bytes;

use super::{FrameRelay, Left, RelayError};
use crate::{
    conn::{Conn, Inlet},
    http::scan,
    http2::{SendBody, head},
};

impl FrameRelay {
    pub(super) fn poll_from_wire(
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

    /// Reads what is left of the body and passes it over; see [`BodyRelay::poll_discard`].
    ///
    /// [`BodyRelay::poll_discard`]: crate::session::http::body::BodyRelay::poll_discard
    pub(in crate::session::http::body) fn poll_discard(
        &mut self,
        cx: &mut Context<'_>,
        conn: &mut Conn,
        inlet: &mut Inlet,
        passed: &mut u64,
    ) -> Poll<Result<(), RelayError>> {
        self.data.clear();
        while !self.ended {
            if inlet.is_empty() {
                match ready!(inlet.poll_fill(cx, conn)) {
                    Ok(n) if n > 0 => {}
                    _ => return Poll::Ready(Err(RelayError::Source)),
                }
            }
            let there = inlet.filled().len();
            let taken = match &mut self.left {
                Left::Nothing => {
                    self.ended = true;
                    0
                }
                Left::Bytes(length) => {
                    let n = usize::try_from(*length).map_or(there, |length| length.min(there));
                    *length -= n as u64;
                    self.ended = *length == 0;
                    n
                }
                Left::Chunks(decoder) => {
                    let step = decoder.decode(inlet.filled()).map_err(|_| RelayError::Malformed)?;
                    self.ended = step.done;
                    step.consumed
                }
                Left::UntilClose => there,
            };
            inlet.consume(taken);
            *passed += taken as u64;
        }
        self.trailers = None;
        Poll::Ready(Ok(()))
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
