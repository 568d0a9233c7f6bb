//! Bodies and answers of streams, with flow control from end to end: what has come is released to the sender only when it was
//! written onwards, and what is to go is taken only when there is room for it.

use std::{
    collections::VecDeque,
    fmt,
    rc::Rc,
    task::{Context, Poll, ready},
};

use ::http::{HeaderMap, Response, StatusCode};
use bytes::{Buf, Bytes};
use h2::{Reason, RecvStream, SendStream, server::SendResponse};

use super::{
    budget::{Budget, Charge},
    head::{ResponseBlock, encode_trailers},
    heads::StreamHeads,
    hpack::FieldList,
    member::Backlog,
};
use crate::conn::Buffer;

/// Data below this is copied: it would keep all of the buffer that it was read into, 16 KiB or more.
const COPIED: usize = 4096;

/// What one chunk takes besides its data.
const CHUNK_OVERHEAD: usize = 256;

/// Why a stream has ended before its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// RST_STREAM, by either side.
    Reset(Reason),
    /// With the connection.
    Gone,
}

impl Broken {
    pub(super) fn of(error: &h2::Error) -> Self {
        match error.reason() {
            Some(reason) if error.is_reset() => Self::Reset(reason),
            _ => Self::Gone,
        }
    }
}

/// Data that is sent: it counts against the connection's budget until it is written.
#[derive(Debug)]
pub struct Chunk {
    data: Data,
    charge: Option<Charge>,
}

enum Data {
    Bytes(Bytes),
    Buffer(Buffer),
}

impl fmt::Debug for Data {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bytes(bytes) => write!(f, "{} bytes", bytes.len()),
            Self::Buffer(buffer) => write!(f, "{} bytes in a buffer", buffer.len()),
        }
    }
}

impl From<Bytes> for Chunk {
    fn from(bytes: Bytes) -> Self {
        Self { data: Data::Bytes(bytes), charge: None }
    }
}

/// The filled part of a buffer, without a copy when it is worth that.
impl From<Buffer> for Chunk {
    fn from(buffer: Buffer) -> Self {
        if buffer.len() < COPIED {
            return Bytes::copy_from_slice(buffer.filled()).into();
        }
        Self { data: Data::Buffer(buffer), charge: None }
    }
}

impl Chunk {
    /// What holding it takes.
    fn weight(&self) -> usize {
        CHUNK_OVERHEAD
            + match &self.data {
                Data::Bytes(bytes) => bytes.len(),
                Data::Buffer(buffer) => buffer.capacity(),
            }
    }
}

impl Buf for Chunk {
    fn remaining(&self) -> usize {
        match &self.data {
            Data::Bytes(bytes) => bytes.len(),
            Data::Buffer(buffer) => buffer.len(),
        }
    }

    fn chunk(&self) -> &[u8] {
        match &self.data {
            Data::Bytes(bytes) => bytes,
            Data::Buffer(buffer) => buffer.filled(),
        }
    }

    fn advance(&mut self, n: usize) {
        match &mut self.data {
            Data::Bytes(bytes) => bytes.advance(n),
            Data::Buffer(buffer) => buffer.consume(n),
        }
        if !self.has_remaining() {
            // The library may keep what is empty for a while.
            *self = Self::from(Bytes::new());
        }
    }
}

/// A body that comes.
///
/// Whoever has one calls [`poll_data`](Self::poll_data) or [`absorb`](Self::absorb) each time its task runs, even when it has no
/// use for data yet: what is left with the library takes several times its size there.
#[derive(Debug)]
pub struct RecvBody {
    stream: RecvStream,
    queue: VecDeque<Bytes>,
    /// Small data at the end of the queue.
    small: Vec<u8>,
    end: Option<Result<(), Broken>>,
    /// Bytes that were handed out, or have not been, and are not released.
    unreleased: usize,
    heads: Rc<StreamHeads>,
    /// Of a member's: where it counts as long as it is not released.
    backlog: Option<Rc<Backlog>>,
}

impl RecvBody {
    /// One of which nothing has come. Of a message that `ends` with its head the library is asked nothing any more.
    pub(super) fn new(
        stream: RecvStream,
        ends: bool,
        heads: Rc<StreamHeads>,
        backlog: Option<Rc<Backlog>>,
    ) -> Self {
        let end = ends.then_some(Ok(()));
        Self { stream, queue: VecDeque::new(), small: Vec::new(), end, unreleased: 0, heads, backlog }
    }

    /// A response may end before its request does: the member resets the stream with NO_ERROR then (RFC 9113 section 8.1), and
    /// the library forgets that it was whole.
    fn is_whole(&self, broken: Broken) -> bool {
        broken == Broken::Reset(Reason::NO_ERROR) && self.heads.was_whole()
    }

    /// Whether nothing comes: the head has ended the stream.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty() && self.small.is_empty() && matches!(self.end, Some(Ok(())))
    }

    /// Takes what has come from the library, where it takes more room. The task is woken when there is more.
    pub fn absorb(&mut self, cx: &mut Context<'_>) {
        while self.end.is_none() {
            match self.stream.poll_data(cx) {
                Poll::Pending => return,
                Poll::Ready(Some(Ok(data))) => {
                    self.unreleased += data.len();
                    if let Some(backlog) = &self.backlog {
                        backlog.add(data.len());
                    }
                    if data.len() < COPIED {
                        self.small.extend_from_slice(&data);
                    } else {
                        self.seal();
                        self.queue.push_back(data);
                    }
                }
                Poll::Ready(Some(Err(error))) => {
                    let broken = Broken::of(&error);
                    self.end = Some(if self.is_whole(broken) { Ok(()) } else { Err(broken) });
                }
                Poll::Ready(None) => self.end = Some(Ok(())),
            }
        }
    }

    fn seal(&mut self) {
        if !self.small.is_empty() {
            self.queue.push_back(std::mem::take(&mut self.small).into());
        }
    }

    /// The next data; `None` is the end of it, behind which there may be [trailers](Self::poll_trailers). It is to be
    /// [released](Self::release) when it was written onwards.
    ///
    /// # Errors
    /// When the stream, or its connection, ends before its end.
    pub fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Broken>>> {
        self.absorb(cx);
        if self.queue.is_empty() {
            self.seal();
        }
        if let Some(data) = self.queue.pop_front() {
            return Poll::Ready(Some(Ok(data)));
        }
        match self.end {
            None => Poll::Pending,
            Some(Ok(())) => Poll::Ready(None),
            Some(Err(broken)) => Poll::Ready(Some(Err(broken))),
        }
    }

    /// The trailers, behind the data.
    ///
    /// # Errors
    /// As [`poll_data`](Self::poll_data).
    pub fn poll_trailers(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<FieldList>, Broken>> {
        match ready!(self.stream.poll_trailers(cx)) {
            Ok(trailers) => Poll::Ready(Ok(trailers.and_then(|_| self.heads.take()))),
            Err(error) => {
                let broken = Broken::of(&error);
                Poll::Ready(if self.is_whole(broken) { Ok(None) } else { Err(broken) })
            }
        }
    }

    fn settle(&mut self, bytes: usize) {
        self.unreleased -= bytes;
        if let Some(backlog) = &self.backlog {
            backlog.take(bytes);
        }
    }

    /// Lets the peer send as many bytes more.
    pub fn release(&mut self, bytes: usize) {
        let bytes = bytes.min(self.unreleased);
        self.settle(bytes);
        // It fails when more is released than has come, or the stream has ended.
        let _ = self.stream.flow_control().release_capacity(bytes);
    }
}

impl Drop for RecvBody {
    fn drop(&mut self) {
        self.settle(self.unreleased);
    }
}

/// A body that goes.
#[derive(Debug)]
pub struct SendBody {
    stream: SendStream<Chunk>,
    budget: Budget,
    heads: Rc<StreamHeads>,
}

impl SendBody {
    pub(super) fn new(stream: SendStream<Chunk>, budget: Budget, heads: Rc<StreamHeads>) -> Self {
        Self { stream, budget, heads }
    }

    /// How many bytes may be [sent](Self::send) now, of `wanted` that are there. What the peer's window has room for is kept
    /// for this stream from then on and not given to others, so ask when there is something to send, and not before.
    ///
    /// # Errors
    /// When the stream, or its connection, has ended.
    pub fn poll_capacity(&mut self, cx: &mut Context<'_>, wanted: usize) -> Poll<Result<usize, Broken>> {
        if wanted == 0 {
            return Poll::Ready(Ok(0));
        }
        let room = self.budget.room();
        if room <= CHUNK_OVERHEAD {
            self.stream.reserve_capacity(0);
            self.budget.wait(cx);
            // The stream may be reset meanwhile.
            return match self.stream.poll_reset(cx) {
                Poll::Ready(Ok(reason)) => Poll::Ready(Err(Broken::Reset(reason))),
                Poll::Ready(Err(error)) => Poll::Ready(Err(Broken::of(&error))),
                Poll::Pending => Poll::Pending,
            };
        }
        let wanted = wanted.min(room - CHUNK_OVERHEAD);
        self.stream.reserve_capacity(wanted);
        loop {
            let capacity = self.stream.capacity().min(wanted);
            if capacity > 0 {
                return Poll::Ready(Ok(capacity));
            }
            match ready!(self.stream.poll_capacity(cx)) {
                Some(Ok(_)) => {}
                Some(Err(error)) => return Poll::Ready(Err(Broken::of(&error))),
                None => {
                    return Poll::Ready(Err(match self.stream.poll_reset(cx) {
                        Poll::Ready(Ok(reason)) => Broken::Reset(reason),
                        _ => Broken::Gone,
                    }));
                }
            }
        }
    }

    /// Sends data, not more than there is [room for](Self::poll_capacity), and with `end` ends the stream.
    ///
    /// # Errors
    /// When the stream, or its connection, has ended.
    pub fn send(&mut self, chunk: impl Into<Chunk>, end: bool) -> Result<(), Broken> {
        let mut chunk = chunk.into();
        chunk.charge = Some(self.budget.queue(chunk.weight()));
        self.stream.send_data(chunk, end).map_err(|error| Broken::of(&error))
    }

    /// Ends the stream with trailers.
    ///
    /// # Errors
    /// When the stream, or its connection, has ended.
    pub fn send_trailers(&mut self, trailers: &FieldList) -> Result<(), Broken> {
        self.stream.send_trailers(HeaderMap::new()).map_err(|error| Broken::of(&error))?;
        self.heads.put(encode_trailers(trailers));
        Ok(())
    }

    /// Ready when the peer has reset the stream, or the connection has ended.
    pub fn poll_broken(&mut self, cx: &mut Context<'_>) -> Poll<Broken> {
        match ready!(self.stream.poll_reset(cx)) {
            Ok(reason) => Poll::Ready(Broken::Reset(reason)),
            Err(error) => Poll::Ready(Broken::of(&error)),
        }
    }

    /// Ends the stream now: the peer is not to take what it got for the whole.
    pub fn reset(&mut self, reason: Reason) {
        self.stream.send_reset(reason);
    }
}

/// The answer to a request. Dropping it without one resets the stream.
#[derive(Debug)]
pub struct Responder {
    respond: SendResponse<Chunk>,
    budget: Budget,
    heads: Rc<StreamHeads>,
}

impl Responder {
    pub(super) fn new(respond: SendResponse<Chunk>, budget: Budget, heads: Rc<StreamHeads>) -> Self {
        Self { respond, budget, heads }
    }

    /// The stream's number.
    pub fn stream(&self) -> u32 {
        self.respond.stream_id().as_u32()
    }

    /// Sends an interim response (1xx).
    ///
    /// # Errors
    /// When the stream, or its connection, has ended.
    pub fn send_interim(&mut self, head: ResponseBlock) -> Result<(), Broken> {
        let skeleton = skeleton(&head)?;
        self.respond.send_informational(skeleton).map_err(|error| Broken::of(&error))?;
        self.heads.put(head.block);
        Ok(())
    }

    /// Sends the head of the response; with `end`, that is all.
    ///
    /// # Errors
    /// When the stream, or its connection, has ended.
    pub fn send_head(&mut self, head: ResponseBlock, end: bool) -> Result<SendBody, Broken> {
        let skeleton = skeleton(&head)?;
        let sent = self.respond.send_response(skeleton, end);
        let stream = sent.map_err(|error| Broken::of(&error))?;
        self.heads.put(head.block);
        Ok(SendBody::new(stream, self.budget.clone(), Rc::clone(&self.heads)))
    }

    /// Ready when the client has reset the stream, or the connection has ended; before the head is sent.
    pub fn poll_broken(&mut self, cx: &mut Context<'_>) -> Poll<Broken> {
        match ready!(self.respond.poll_reset(cx)) {
            Ok(reason) => Poll::Ready(Broken::Reset(reason)),
            Err(error) => Poll::Ready(Broken::of(&error)),
        }
    }

    /// Ends the stream now.
    pub fn reset(&mut self, reason: Reason) {
        self.respond.send_reset(reason);
    }
}

/// What the library is to see of a head.
fn skeleton(head: &ResponseBlock) -> Result<Response<()>, Broken> {
    let mut response = Response::new(());
    *response.status_mut() =
        StatusCode::from_u16(head.status).map_err(|_| Broken::Reset(Reason::INTERNAL_ERROR))?;
    Ok(response)
}
