//! The server's side of a connection: a client's.

use std::{
    cell::RefCell,
    fmt,
    future::Future,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
    time::Duration,
};

use h2::{Reason, server};
use tokio::time::Instant;

use super::{
    body::{Chunk, RecvBody, Responder},
    budget::{Budget, Charge, Limits},
    guard::{Excess, Fault, Frames, Role, Verdict},
    heads::{Opened, StreamHeads},
    hpack::FieldList,
    transport::{Pause, Transport, Wire},
};
use crate::conn::{Buffer, BufferPool, Conn, Deadline};

/// How long a connection may take to end once that was said, and how much is read meanwhile: what is unread when it is closed
/// resets it, and the peer may not get what was said last.
const CLOSE_TIME: Duration = Duration::from_secs(2);
const CLOSE_BYTES: usize = 1024 * 1024;

/// Streams that may be refused for want of room in the budget, before the connection is.
const REFUSALS: u32 = 100;

/// How long may be waited for what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// Without any stream.
    pub idle: Duration,
    /// For the end of a header block that has begun, and for the peer to take what is written.
    pub progress: Duration,
}

/// A request: its stream.
#[derive(Debug)]
pub struct Incoming {
    /// The head, for [`read_request`](super::head::read_request).
    pub head: FieldList,
    /// When the last of it was read.
    pub came: Instant,
    /// The body that comes.
    pub body: RecvBody,
    /// The answer.
    pub respond: Responder,
    /// What the head takes of the connection's budget: to be kept for as long as the head is, and [shrunk](Charge::shrink) to
    /// what is kept of it.
    pub charge: Charge,
}

/// How a connection has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The client has closed, or its connection failed.
    Gone,
    /// It was drained.
    Drained,
    /// Nothing came in time.
    Late,
    /// The client did what it may not.
    Refused(Verdict),
}

/// How long streams are still taken once a connection is drained: a client may have begun some before it could know (RFC 9113
/// section 6.8), and one that does not say that it knows would be served on.
const TELLING: Duration = Duration::from_secs(5);

/// A client's connection.
pub struct ServerConnection {
    state: State,
    wire: Rc<RefCell<Wire>>,
    budget: Budget,
    patience: Patience,
    deadline: Deadline,
    /// When the connection was last seen to have a stream.
    busy: Instant,
    /// There was a stream.
    asked: bool,
    /// When the drain is over, and from when on the client is taken to know of it.
    drain: Option<Instant>,
    told: Option<Instant>,
    /// A stream that is handed out when tasks have run.
    ready: Option<Incoming>,
    /// A stream for whose head there was no room: it is refused if there is none when tasks have run.
    waiting: Option<Box<Arrived>>,
    /// Streams that were handed out since tasks last ran.
    burst: u32,
    refusals: u32,
}

/// A stream as it comes from the library.
struct Arrived {
    head: Opened,
    came: Instant,
    body: h2::RecvStream,
    respond: server::SendResponse<Chunk>,
}

enum State {
    Handshake(Box<server::Handshake<Transport, Chunk>>),
    Open(Box<server::Connection<Transport, Chunk>>),
    /// What is to be said last is being written.
    Ending(Box<server::Connection<Transport, Chunk>>, Ended),
    /// What the peer still sends is read.
    Lingering(Ended, usize),
    Closed(Ended),
}

impl ServerConnection {
    /// A connection whose [preface](super::guard::PREFACE) is to come, or stands in `begun`, with whatever was read besides.
    pub fn new(
        conn: Conn,
        begun: Option<Buffer>,
        pool: &BufferPool,
        limits: Limits,
        patience: Patience,
    ) -> Self {
        let budget = Budget::new(limits);
        let wire = Wire::new(conn, begun, pool, Role::Client, budget.clone());
        let handshake = builder(&limits).handshake(Wire::transport(&wire));
        Self {
            state: State::Handshake(Box::new(handshake)),
            wire,
            budget,
            patience,
            deadline: Deadline::never(),
            busy: Instant::now(),
            asked: false,
            drain: None,
            told: None,
            ready: None,
            waiting: None,
            burst: 0,
            refusals: 0,
        }
    }

    /// What has passed.
    pub fn frames(&self) -> Frames {
        self.wire.borrow().frames()
    }

    /// Why the connection is not served on, if it is for what the client has done.
    pub fn verdict(&self) -> Option<Verdict> {
        match self.state {
            State::Ending(_, Ended::Refused(verdict))
            | State::Lingering(Ended::Refused(verdict), _)
            | State::Closed(Ended::Refused(verdict)) => Some(verdict),
            _ => None,
        }
    }

    /// What the connection makes us hold.
    pub fn budget(&self) -> &Budget {
        &self.budget
    }

    /// Streams of which something is kept beside the library.
    #[cfg(test)]
    pub(super) fn known_streams(&self) -> usize {
        self.wire.borrow().traffic().borrow().heads.known_streams()
    }

    /// Whether the client has begun.
    pub fn is_open(&self) -> bool {
        matches!(self.state, State::Open(_))
    }

    /// Lets the connection end: no more streams are taken once the client can know, those that there are go on until they end
    /// or `bound` is over (RFC 9113 section 6.8). A client that does not say that it knows is taken to know after 5 s: then the
    /// connection ends as soon as it has no stream. With `awaits_first` one that has not asked for anything yet has for that the
    /// time that it has in any case, and these 5 s from then on. Poll afterwards.
    pub fn drain(&mut self, bound: Duration, awaits_first: bool) {
        if self.asked || !awaits_first {
            self.told.get_or_insert_with(|| Instant::now() + TELLING);
        }
        let until = Instant::now() + bound;
        if self.drain.is_none_or(|before| until < before) {
            self.drain = Some(until);
        }
        if let State::Open(connection) = &mut self.state {
            connection.graceful_shutdown();
        }
    }

    /// Whether a stream that comes now may be one that the client began before it could know of a [drain](Self::drain).
    pub fn takes_streams(&self) -> bool {
        self.told.is_none_or(|told| Instant::now() < told)
    }

    /// Whether the connection is being drained.
    pub fn is_draining(&self) -> bool {
        self.drain.is_some()
    }

    /// Changes how the connection is closed.
    pub fn with_conn(&mut self, change: impl FnOnce(&mut Conn)) {
        self.wire.borrow_mut().with_conn(change);
    }

    /// Ends the connection, and its streams with it.
    pub fn abort(&mut self, reason: Reason) {
        self.end(reason, Ended::Drained);
    }

    fn end(&mut self, reason: Reason, ended: Ended) {
        let closing = || Instant::now() + CLOSE_TIME;
        self.state = match std::mem::replace(&mut self.state, State::Closed(ended)) {
            State::Open(mut connection) => {
                connection.abrupt_shutdown(reason);
                self.deadline.set(Some(closing()));
                State::Ending(connection, ended)
            }
            State::Handshake(_) => State::Closed(ended),
            other => other,
        };
    }

    /// The next request, or how the connection has ended. The connection lives from being polled, and its streams with it.
    pub fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<Result<Incoming, Ended>> {
        loop {
            match &mut self.state {
                State::Handshake(handshake) => {
                    let polled = Pin::new(handshake).poll(cx);
                    if self.poll_drain(cx).is_err() {
                        self.state = State::Closed(Ended::Gone);
                        continue;
                    }
                    match polled {
                        Poll::Ready(Ok(mut connection)) => {
                            // One that is waited for is told with its first request: it would not send that any more.
                            if self.told.is_some() {
                                connection.graceful_shutdown();
                            }
                            self.state = State::Open(Box::new(connection));
                        }
                        Poll::Ready(Err(_)) => {
                            let verdict = self.wire.borrow().verdict();
                            self.state = State::Closed(verdict.map_or(Ended::Gone, Ended::Refused));
                        }
                        Poll::Pending => {
                            if let Some(verdict) = self.wire.borrow().verdict() {
                                self.state = State::Closed(Ended::Refused(verdict));
                                continue;
                            }
                            ready!(self.poll_late(cx, false));
                            self.state = State::Closed(Ended::Late);
                        }
                    }
                }
                State::Open(connection) => {
                    if let Some(incoming) = self.ready.take() {
                        return Poll::Ready(Ok(incoming));
                    }
                    if let Some(arrived) = self.waiting.take() {
                        match self.admit(*arrived) {
                            Ok(incoming) => return Poll::Ready(Ok(incoming)),
                            Err(mut arrived) => self.refuse(&mut arrived),
                        }
                        continue;
                    }
                    let polled = connection.poll_accept(cx);
                    if let Poll::Ready(Some(Ok((request, mut respond)))) = polled {
                        self.burst += 1;
                        if !std::mem::replace(&mut self.asked, true) && self.drain.is_some() {
                            self.told.get_or_insert_with(|| Instant::now() + TELLING);
                            connection.graceful_shutdown();
                        }
                        let body = request.into_body();
                        let Some((head, came)) = self.taken_head(respond.stream_id().as_u32()) else {
                            respond.send_reset(Reason::INTERNAL_ERROR);
                            continue;
                        };
                        self.busy = came;
                        match self.admit(Arrived { head, came, body, respond }) {
                            Ok(incoming) if self.burst <= self.budget.limits().streams => {
                                return Poll::Ready(Ok(incoming));
                            }
                            Ok(incoming) => self.ready = Some(incoming),
                            Err(waiting) => self.waiting = Some(waiting),
                        }
                        // Tasks are to run: they let go of heads, and of streams that were reset.
                        self.burst = 0;
                        cx.waker().wake_by_ref();
                        return Poll::Pending;
                    }
                    let drained = self.poll_drain(cx);
                    let ended = match polled {
                        Poll::Ready(None) => {
                            Some(if self.drain.is_some() { Ended::Drained } else { Ended::Gone })
                        }
                        Poll::Ready(Some(Err(error))) => Some(self.ended_by(&error)),
                        _ => drained.err().map(|_| Ended::Gone),
                    };
                    if let Some(ended) = ended {
                        self.linger(ended);
                        continue;
                    }
                    let pause = self.wire.borrow_mut().take_pause();
                    match pause {
                        None => {}
                        Some(Pause::Opened) => continue,
                        Some(Pause::Crowded) => {
                            self.burst = 0;
                            cx.waker().wake_by_ref();
                            return Poll::Pending;
                        }
                        Some(Pause::Refused(verdict)) => {
                            let reason = match verdict {
                                Verdict::Calm(_) => Reason::ENHANCE_YOUR_CALM,
                                Verdict::Fault(Fault::Protocol, _) => Reason::PROTOCOL_ERROR,
                                Verdict::Fault(Fault::FlowControl, _) => Reason::FLOW_CONTROL_ERROR,
                                Verdict::Fault(Fault::StreamClosed, _) => Reason::STREAM_CLOSED,
                                Verdict::Fault(Fault::FrameSize, _) => Reason::FRAME_SIZE_ERROR,
                                Verdict::Fault(Fault::Compression, _) => Reason::COMPRESSION_ERROR,
                            };
                            self.end(reason, Ended::Refused(verdict));
                            continue;
                        }
                    }
                    let streams = match &self.state {
                        State::Open(connection) => connection.has_streams(),
                        _ => false,
                    };
                    self.burst = 0;
                    ready!(self.poll_late(cx, streams));
                    let drained = self.drain.is_some();
                    self.end(Reason::NO_ERROR, if drained { Ended::Drained } else { Ended::Late });
                }
                State::Ending(connection, ended) => {
                    let ended = *ended;
                    // Requests that were there before are not taken any more.
                    let over = match connection.poll_closed(cx) {
                        Poll::Ready(_) => true,
                        Poll::Pending => {
                            let failed = self.poll_drain(cx).is_err();
                            failed || self.deadline.poll_expired(cx).is_ready()
                        }
                    };
                    if !over {
                        return Poll::Pending;
                    }
                    self.linger(ended);
                }
                State::Lingering(ended, left) => {
                    let ended = *ended;
                    let discarded = self.wire.borrow_mut().poll_discard(cx, left).is_ready();
                    if !discarded {
                        ready!(self.deadline.poll_expired(cx));
                    }
                    self.state = State::Closed(ended);
                }
                State::Closed(ended) => return Poll::Ready(Err(*ended)),
            }
        }
    }

    /// The library has ended. Its last words may be on their way to a peer that still sends.
    fn linger(&mut self, ended: Ended) {
        if matches!(ended, Ended::Gone) {
            self.state = State::Closed(ended);
            return;
        }
        self.deadline.set(Some(Instant::now() + CLOSE_TIME));
        self.state = State::Lingering(ended, CLOSE_BYTES);
    }

    fn ended_by(&mut self, error: &h2::Error) -> Ended {
        match error.reason() {
            Some(Reason::ENHANCE_YOUR_CALM) if error.is_go_away() && error.is_library() => {
                Ended::Refused(Verdict::Calm(Excess::Library))
            }
            Some(_) if error.is_go_away() && error.is_library() => {
                Ended::Refused(Verdict::Fault(Fault::Protocol, "error of the connection"))
            }
            _ => Ended::Gone,
        }
    }

    fn poll_drain(&mut self, cx: &mut Context<'_>) -> std::io::Result<()> {
        match self.wire.borrow_mut().poll_drain(cx) {
            Poll::Ready(drained) => drained,
            Poll::Pending => Ok(()),
        }
    }

    /// Ready when the connection has waited for too long.
    fn poll_late(&mut self, cx: &mut Context<'_>, streams: bool) -> Poll<()> {
        if streams {
            self.busy = Instant::now();
        }
        let wire = self.wire.borrow();
        let idle = self.busy + self.patience.idle;
        let idle = (!streams).then(|| self.told.map_or(idle, |told| told.min(idle)));
        let blocked = wire.blocked_since().map(|since| Instant::from_std(since) + self.patience.progress);
        let block = wire.block_since().map(|since| Instant::from_std(since) + self.patience.progress);
        let at = [idle, blocked, block, self.drain].into_iter().flatten().min();
        drop(wire);
        self.deadline.set(at);
        self.deadline.poll_expired(cx)
    }

    /// The head of the request that has opened this stream, and when it was read.
    fn taken_head(&self, stream: u32) -> Option<(Opened, Instant)> {
        let mut wire = self.wire.borrow_mut();
        wire.taken_over();
        let head = wire.traffic().borrow_mut().heads.take_opened(stream);
        head.map(|head| (head, Instant::from_std(wire.read_at())))
    }

    fn admit(&mut self, arrived: Arrived) -> Result<Incoming, Box<Arrived>> {
        let Some(charge) = self.budget.head(arrived.head.fields.held()) else {
            return Err(Box::new(arrived));
        };
        let Arrived { head: Opened { stream, ends, fields }, came, body, respond } = arrived;
        self.refusals = 0;
        let heads = StreamHeads::new(self.wire.borrow().traffic(), stream);
        Ok(Incoming {
            head: fields,
            came,
            body: RecvBody::new(body, ends, Rc::clone(&heads), None),
            respond: Responder::new(respond, self.budget.clone(), heads),
            charge,
        })
    }

    /// The client may try again, but not on and on.
    fn refuse(&mut self, arrived: &mut Arrived) {
        arrived.respond.send_reset(Reason::REFUSED_STREAM);
        self.refusals += 1;
        if self.refusals > REFUSALS {
            self.end(Reason::ENHANCE_YOUR_CALM, Ended::Refused(Verdict::Calm(Excess::Memory)));
        }
    }
}

impl fmt::Debug for ServerConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match &self.state {
            State::Handshake(_) => "handshake",
            State::Open(_) => "open",
            State::Ending(..) => "ending",
            State::Lingering(..) => "lingering",
            State::Closed(_) => "closed",
        };
        f.debug_struct("ServerConnection")
            .field("state", &state)
            .field("budget", &self.budget)
            .finish_non_exhaustive()
    }
}

fn builder(limits: &Limits) -> server::Builder {
    let mut builder = server::Builder::new();
    builder
        .initial_window_size(limits.stream_window)
        .initial_connection_window_size(limits.connection_window)
        .max_concurrent_streams(limits.streams)
        .max_header_list_size(limits.header_list)
        .header_table_size(limits.header_table)
        .max_send_buffer_size(limits.stream_queue)
        // Data of streams that were reset may be on its way: it is passed over, and of streams beyond these answered STREAM_CLOSED.
        .max_concurrent_reset_streams(limits.streams as usize)
        .reset_stream_duration(Duration::from_secs(1))
        // Streams are taken over one by one.
        .max_pending_accept_reset_streams(4)
        // The guard has rates; this is for all of the connection's time.
        .max_local_error_reset_streams(Some(1024))
        // Tasks take data from the library after a crowd of 64 frames, for each of which it counts 255 bytes.
        .data_frame_budget(64 * 1024)
        .enable_connect_protocol();
    builder
}
