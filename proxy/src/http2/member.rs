//! Connections to a member, shared by the clients of one worker.

use std::{
    cell::{Cell, RefCell},
    fmt,
    future::{Future, poll_fn},
    net::SocketAddr,
    pin::Pin,
    rc::{Rc, Weak},
    sync::Arc,
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use ::http::{Request, Response};
use h2::{
    Ping, PingPong, Reason,
    client::{self, ResponseFuture, SendRequest},
};
use tokio::time::Instant;

use super::{
    body::{Broken, Chunk, RecvBody, SendBody},
    budget::{Budget, Limits},
    counters::Counters,
    guard::{Frames, Role, Then, Verdict},
    transport::{Transport, Wire},
};
use crate::conn::{BufferPool, Conn, Deadline};

/// How connections to members are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keep {
    /// The most connections to a member.
    pub connections: usize,
    /// How long one without a stream is kept.
    pub idle: Duration,
    /// When nothing has come for this long, though there are streams, the member is asked whether it is there. When it has not said
    /// so after as long again, it is asked for nothing more on that connection.
    pub silence: Duration,
}

/// What a member has agreed on when it was connected to last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Spoken {
    /// It was not connected to yet.
    #[default]
    Unknown,
    /// HTTP/1.1.
    Http1,
    /// HTTP/2.
    Http2,
}

/// Is told how many connections there were without a stream, and how many there are.
pub type Watch = Box<dyn Fn(usize, usize)>;

/// Why a request has no response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The member has not processed it and will not: it may be sent to another connection, or another member, whatever its
    /// method (RFC 9113 section 8.7).
    NotProcessed,
    /// What the member has sent is no response.
    Malformed,
    /// The member may have processed it.
    Failed(Broken),
}

impl Failure {
    fn of(error: &h2::Error) -> Self {
        let refused = error.is_reset() && error.reason() == Some(Reason::REFUSED_STREAM);
        // GOAWAY fails the streams that it says are not processed, and no others.
        if error.is_remote() && (refused || error.is_go_away()) {
            return Self::NotProcessed;
        }
        if error.is_library() && error.is_reset() {
            return Self::Malformed;
        }
        Self::Failed(Broken::of(error))
    }
}

/// The connections to one member over which requests are sent with HTTP/2, all alike. Cloning shares them.
#[derive(Clone)]
pub struct MemberStreams(Rc<Shared>);

struct Shared {
    limits: Limits,
    keep: Keep,
    counters: Arc<Counters>,
    spoken: Rc<Cell<Spoken>>,
    connections: RefCell<Vec<Rc<Link>>>,
    connecting: Cell<usize>,
    /// Attempts to connect that have failed.
    failures: Cell<u64>,
    closed: Cell<bool>,
    /// Requests that wait for a connection.
    waiting: Cell<usize>,
    wakers: RefCell<Vec<Waker>>,
    /// Connections without a stream.
    idle: Cell<usize>,
    watch: Option<Watch>,
}

/// One connection.
struct Link {
    send: RefCell<SendRequest<Chunk>>,
    budget: Budget,
    streams: Cell<usize>,
    /// The member's SETTINGS have come. Before that it takes one request: how many more it would take is not known.
    settled: Cell<bool>,
    /// Takes no more requests.
    ended: Cell<bool>,
    /// Counts as one without a stream.
    idle: Cell<bool>,
    /// Ours.
    local: Option<SocketAddr>,
    wire: Rc<RefCell<Wire>>,
    /// Wakes its task.
    task: RefCell<Option<Waker>>,
}

impl MemberStreams {
    /// None yet.
    pub fn new(limits: Limits, keep: Keep, counters: Arc<Counters>) -> Self {
        Self::shared(limits, keep, counters, Rc::default(), None)
    }

    /// The same of a member of which it may be known what it speaks.
    pub fn shared(
        limits: Limits,
        keep: Keep,
        counters: Arc<Counters>,
        spoken: Rc<Cell<Spoken>>,
        watch: Option<Watch>,
    ) -> Self {
        Self(Rc::new(Shared {
            limits,
            keep,
            counters,
            spoken,
            connections: RefCell::default(),
            connecting: Cell::new(0),
            failures: Cell::new(0),
            closed: Cell::new(false),
            waiting: Cell::new(0),
            wakers: RefCell::default(),
            idle: Cell::new(0),
            watch,
        }))
    }

    /// For one request, whose connection nobody shares.
    pub fn alone(limits: Limits, keep: Keep, counters: Arc<Counters>) -> Self {
        let alone = Self::new(limits, keep, counters);
        alone.0.closed.set(true);
        alone
    }

    /// A place for a request on the connection that has the fewest, if there is one with room.
    pub fn place(&self) -> Option<Place> {
        let connections = self.0.connections.borrow();
        let link = connections
            .iter()
            .filter(|link| link.has_room(&self.0.limits))
            .min_by_key(|link| link.streams.get())
            .map(Rc::clone)?;
        drop(connections);
        Some(Place::on(&link, &self.0))
    }

    /// Leave to open a connection more, which lasts until it is dropped. There is none while others are being opened that may
    /// well have room for who waits; or when there are as many as there may be.
    pub fn connect(&self) -> Option<Connecting> {
        let shared = &*self.0;
        let (opening, all) = {
            let connections = shared.connections.borrow();
            let unsettled =
                connections.iter().filter(|link| !link.settled.get() && !link.ended.get()).count();
            (shared.connecting.get() + unsettled, shared.connecting.get() + connections.len())
        };
        // One that is not to be shared is nobody else's matter.
        let wanted = shared.closed.get()
            || match shared.spoken.get() {
                Spoken::Http1 => true,
                Spoken::Unknown => opening == 0,
                Spoken::Http2 => shared.waiting.get() > opening * self.expected() || opening == 0,
            };
        if wanted { self.connect_beside(all) } else { None }
    }

    /// Leave to open a connection beside `all` that there are, whether or not others are being opened.
    fn connect_beside(&self, all: usize) -> Option<Connecting> {
        let shared = &*self.0;
        if !shared.closed.get() && all >= shared.keep.connections {
            return None;
        }
        shared.connecting.set(shared.connecting.get() + 1);
        Some(Connecting(Rc::clone(&self.0)))
    }

    /// How many requests a connection is likely to take.
    fn expected(&self) -> usize {
        let connections = self.0.connections.borrow();
        let known = connections.iter().rev().find(|link| link.settled.get());
        known.map_or(self.0.limits.streams as usize, |link| link.allowed(&self.0.limits)).max(1)
    }

    /// A place for a request, or leave to open a connection. Waits for those that others open.
    ///
    /// # Errors
    /// When such a connection could not be opened: it would have been this one's.
    pub async fn join(&self) -> Result<Joined, NotOpened> {
        if let Some(place) = self.place() {
            return Ok(Joined::Place(place));
        }
        let waiting = Waiting::new(&self.0);
        let failures = self.0.failures.get();
        let mut patience = Deadline::never();
        patience.set(Some(Instant::now() + PATIENCE));
        loop {
            if let Some(connecting) = self.connect() {
                return Ok(Joined::Connect(connecting));
            }
            let mut waits = false;
            let late = poll_fn(|cx| match patience.poll_expired(cx) {
                Poll::Ready(()) => Poll::Ready(true),
                Poll::Pending => self.poll_changed(cx, &mut waits).map(|()| false),
            })
            .await;
            if let Some(place) = self.place() {
                return Ok(Joined::Place(place));
            }
            if waiting.0.failures.get() != failures {
                return Err(NotOpened);
            }
            if late {
                patience.set(None);
                if let Some(connecting) = self.connect_beside(self.connections() + self.0.connecting.get()) {
                    return Ok(Joined::Connect(connecting));
                }
            }
        }
    }

    /// Ready when a [place](Self::place) or [leave](Self::connect) is worth asking for again.
    pub fn poll_changed(&self, cx: &Context<'_>, waits: &mut bool) -> Poll<()> {
        if std::mem::replace(waits, true) {
            return Poll::Ready(());
        }
        self.0.wakers.borrow_mut().push(cx.waker().clone());
        Poll::Pending
    }

    /// Whether there is a connection, or somebody who waits for one.
    pub fn is_used(&self) -> bool {
        self.connections() + self.0.connecting.get() + self.0.waiting.get() > 0
    }

    /// Ends a connection that has no stream; whether there was one.
    pub fn close_idle(&self) -> bool {
        let link = self.0.connections.borrow().iter().find(|link| link.idle.get()).map(Rc::clone);
        let Some(link) = link else { return false };
        link.end(&self.0);
        true
    }

    /// How many connections are without a stream.
    pub fn idle(&self) -> usize {
        self.0.idle.get()
    }

    /// How many connections there are.
    pub fn connections(&self) -> usize {
        self.0.connections.borrow().len()
    }

    /// How many requests are on them.
    pub fn streams(&self) -> usize {
        self.0.connections.borrow().iter().map(|link| link.streams.get()).sum()
    }

    /// No more requests are sent; connections end with those that are on them.
    pub fn close(&self) {
        self.0.closed.set(true);
        let connections = self.0.connections.borrow().clone();
        for link in connections {
            link.end(&self.0);
        }
        self.0.changed();
    }
}

impl fmt::Debug for MemberStreams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemberStreams")
            .field("connections", &self.connections())
            .field("streams", &self.streams())
            .finish_non_exhaustive()
    }
}

impl Shared {
    /// Something may have become possible for those who wait.
    fn changed(&self) {
        // Each of them may have gone meanwhile, so all are woken.
        for waker in std::mem::take(&mut *self.wakers.borrow_mut()) {
            waker.wake();
        }
    }

    fn set_idle(&self, link: &Link, idle: bool) {
        if link.idle.replace(idle) == idle {
            return;
        }
        let before = self.idle.get();
        let now = if idle { before + 1 } else { before - 1 };
        self.idle.set(now);
        if let Some(watch) = &self.watch {
            watch(before, now);
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if let Some(watch) = &self.watch {
            watch(self.idle.get(), 0);
        }
    }
}

/// How long a request waits for a connection that others open, before it opens its own: one that hangs is not to be the matter
/// of all.
const PATIENCE: Duration = Duration::from_millis(250);

/// What [`MemberStreams::join`] comes to.
#[derive(Debug)]
pub enum Joined {
    /// There is room on a connection.
    Place(Place),
    /// One is to be opened.
    Connect(Connecting),
}

/// The connection that was waited for could not be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotOpened;

/// A request that waits.
struct Waiting(Rc<Shared>);

impl Waiting {
    fn new(shared: &Rc<Shared>) -> Self {
        shared.waiting.set(shared.waiting.get() + 1);
        Self(Rc::clone(shared))
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.waiting.set(self.0.waiting.get() - 1);
    }
}

/// Leave to open a connection.
pub struct Connecting(Rc<Shared>);

impl fmt::Debug for Connecting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connecting").finish_non_exhaustive()
    }
}

impl Connecting {
    /// The connection was opened, and has not agreed on HTTP/2.
    pub fn is_http1(self) {
        self.0.spoken.set(Spoken::Http1);
    }

    /// It could not be opened.
    pub fn has_failed(self) {
        self.0.failures.set(self.0.failures.get() + 1);
    }

    /// Puts a connection to use that was opened, whose handshake is done and has agreed on HTTP/2 (or for which that is known);
    /// says so when the member's preface is sent, with a place on it. A task of its own serves it, on the present
    /// [`LocalSet`](tokio::task::LocalSet).
    ///
    /// # Errors
    /// When the connection fails.
    pub async fn start(self, conn: Conn, pool: &BufferPool) -> Result<Place, Broken> {
        let local = conn.local_addr().ok();
        self.0.spoken.set(Spoken::Http2);
        let wire = Wire::new(conn, None, pool, Role::Server);
        let limits = self.0.limits;
        let handshake = builder(&limits).handshake(Wire::transport(&wire));
        let (send, mut connection) = handshake.await.map_err(|error| Broken::of(&error))?;
        let ping = connection.ping_pong();
        let link = Rc::new(Link {
            send: RefCell::new(send),
            budget: Budget::new(limits),
            streams: Cell::new(0),
            settled: Cell::new(false),
            ended: Cell::new(self.0.closed.get()),
            idle: Cell::new(false),
            local,
            wire: Rc::clone(&wire),
            task: RefCell::default(),
        });
        let place = Place::on(&link, &self.0);
        self.0.connections.borrow_mut().push(Rc::clone(&link));
        self.0.counters.connections.add(1);
        let now = Instant::now();
        let driver = Driver {
            connection,
            wire,
            link,
            shared: Rc::downgrade(&self.0),
            keep: self.0.keep,
            counters: Arc::clone(&self.0.counters),
            deadline: Deadline::never(),
            ping,
            busy: now,
            idle: false,
            heard: now,
            asked: None,
            reported: Frames::default(),
        };
        tokio::task::spawn_local(driver);
        Ok(place)
    }
}

impl Drop for Connecting {
    fn drop(&mut self) {
        self.0.connecting.set(self.0.connecting.get() - 1);
        // There may be a connection with places now, or leave to open another.
        self.0.changed();
    }
}

impl Link {
    fn has_room(&self, limits: &Limits) -> bool {
        if self.ended.get() {
            return false;
        }
        if self.streams.get() >= self.allowed(limits) {
            return false;
        }
        let send = self.send.borrow();
        // Only a connection that has failed, or says goodbye, is not ready for a request of whom none is waiting.
        let mut context = Context::from_waker(Waker::noop());
        matches!(send.clone().poll_ready(&mut context), Poll::Ready(Ok(())))
    }

    /// How many requests it takes at once. What the member allows may change.
    fn allowed(&self, limits: &Limits) -> usize {
        let allowed = if self.settled.get() { self.send.borrow().current_max_send_streams() } else { 1 };
        allowed.min(limits.streams as usize)
    }

    /// Takes no more requests, and ends with those that are on it.
    fn end(&self, shared: &Shared) {
        self.ended.set(true);
        shared.set_idle(self, false);
        self.wake();
    }

    fn wake(&self) {
        if let Some(task) = self.task.borrow().as_ref() {
            task.wake_by_ref();
        }
    }
}

/// A place for one request on a connection, until it is dropped.
pub struct Place {
    link: Rc<Link>,
    shared: Weak<Shared>,
}

impl Place {
    fn on(link: &Rc<Link>, shared: &Rc<Shared>) -> Self {
        link.streams.set(link.streams.get() + 1);
        shared.set_idle(link, false);
        Self { link: Rc::clone(link), shared: Rc::downgrade(shared) }
    }

    /// Whether the member takes extended CONNECT (RFC 8441), as far as it has said.
    pub fn takes_extended_connect(&self) -> bool {
        self.link.send.borrow().is_extended_connect_protocol_enabled()
    }

    /// Waits for the member's SETTINGS, or the end of the connection.
    pub async fn settled(&self) {
        let mut waits = false;
        while !self.link.settled.get()
            && !self.has_ended()
            && let Some(shared) = self.shared.upgrade()
        {
            let streams = MemberStreams(shared);
            poll_fn(|cx| streams.poll_changed(cx, &mut waits)).await;
            waits = false;
        }
    }

    /// Whether the connection takes no more requests.
    pub fn has_ended(&self) -> bool {
        self.link.ended.get()
    }

    /// Our address of the connection.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.link.local
    }

    /// Sends a request; with `end`, that is all of it. The place is the stream's until its [`Answer`] is dropped.
    ///
    /// # Errors
    /// When it is not sent.
    pub fn send(self, request: Request<()>, end: bool) -> Result<(Answer, SendBody), Failure> {
        let mut send = self.link.send.borrow().clone();
        let sent = send.send_request(request, end).map_err(|error| {
            // Nothing has left but what the library refuses to send.
            if error.is_io() || error.is_go_away() || error.is_reset() {
                Failure::NotProcessed
            } else {
                Failure::Failed(Broken::Gone)
            }
        });
        let (response, stream) = sent?;
        let body = SendBody::new(stream, self.link.budget.clone());
        Ok((Answer { response, place: self }, body))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.link.streams.set(self.link.streams.get() - 1);
        if self.link.streams.get() == 0 {
            // Its time begins.
            self.link.wake();
        }
        if let Some(shared) = self.shared.upgrade() {
            if self.link.streams.get() == 0 && !self.link.ended.get() {
                shared.set_idle(&self.link, true);
            }
            shared.changed();
        }
    }
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Place").field("streams", &self.link.streams.get()).finish_non_exhaustive()
    }
}

/// What comes of a request. Dropping it resets the stream, unless it has ended.
#[derive(Debug)]
pub struct Answer {
    response: ResponseFuture,
    place: Place,
}

/// The head of a response.
#[derive(Debug)]
pub enum Answered {
    /// Another follows.
    Interim(Response<()>),
    /// The last.
    Final(Response<()>, RecvBody),
}

impl Answer {
    /// The next head.
    ///
    /// # Errors
    /// When there is none; [`Failure::NotProcessed`] lets it be tried elsewhere.
    pub fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<Answered, Failure>> {
        if let Some(interim) = ready!(self.response.poll_informational(cx)) {
            return Poll::Ready(interim.map(Answered::Interim).map_err(|error| Failure::of(&error)));
        }
        let response = ready!(Pin::new(&mut self.response).poll(cx)).map_err(|error| Failure::of(&error))?;
        let (parts, body) = response.into_parts();
        let body = RecvBody::of_member(body, Rc::clone(&self.place.link.wire));
        Poll::Ready(Ok(Answered::Final(Response::from_parts(parts, ()), body)))
    }

    /// What it takes on its connection.
    pub fn place(&self) -> &Place {
        &self.place
    }
}

/// The task of a connection.
struct Driver {
    connection: client::Connection<Transport, Chunk>,
    wire: Rc<RefCell<Wire>>,
    link: Rc<Link>,
    shared: Weak<Shared>,
    keep: Keep,
    counters: Arc<Counters>,
    deadline: Deadline,
    ping: Option<PingPong>,
    /// When there was a stream last.
    busy: Instant,
    /// There was none when last looked.
    idle: bool,
    /// When something came last.
    heard: Instant,
    /// When the member was asked whether it is there.
    asked: Option<Instant>,
    reported: Frames,
}

impl Future for Driver {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let polled = self.poll_connection(cx);
        let frames = *self.wire.borrow().guard.frames();
        self.counters.report(&self.reported, &frames);
        // What comes first is SETTINGS, which apply at once.
        if frames.control_received > 0
            && !self.link.settled.replace(true)
            && let Some(shared) = self.shared.upgrade()
        {
            shared.changed();
        }
        if polled.is_pending() {
            self.reported = frames;
            let mut task = self.link.task.borrow_mut();
            if !task.as_ref().is_some_and(|task| task.will_wake(cx.waker())) {
                *task = Some(cx.waker().clone());
            }
        }
        polled
    }
}

impl Driver {
    fn poll_connection(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let polled = Pin::new(&mut self.connection).poll(cx);
        let drained = self.wire.borrow_mut().poll_drain(cx);
        if polled.is_ready() || matches!(drained, Poll::Ready(Err(_))) {
            return Poll::Ready(());
        }
        let pause = self.wire.borrow_mut().take_pause();
        match pause {
            None | Some(Then::More | Then::Opened) => self.poll_late(cx),
            Some(Then::Crowded) => {
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Some(Then::Refuse(verdict)) => {
                if let Verdict::Calm(excess) = verdict {
                    self.counters.excess(excess);
                }
                tracing::debug!(?verdict, "connection to a member ended");
                Poll::Ready(())
            }
        }
    }

    /// Ready when the connection is of no use any more.
    fn poll_late(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let now = Instant::now();
            if self.wire.borrow().guard.frames().bytes > self.reported.bytes {
                self.heard = now;
                self.asked = None;
            }
            if self.link.streams.get() > 0 && self.link.ended.get() {
                // It ends with them, and they with their time.
                self.deadline.set(None);
                return Poll::Pending;
            }
            let at = if self.link.streams.get() > 0 {
                self.busy = now;
                if std::mem::take(&mut self.idle) {
                    // One that was idle is silent by right.
                    self.heard = now;
                }
                self.asked.unwrap_or(self.heard) + self.keep.silence
            } else if self.link.ended.get() || self.shared.strong_count() == 0 {
                return Poll::Ready(());
            } else {
                self.idle = true;
                self.asked = None;
                self.busy + self.keep.idle
            };
            self.deadline.set(Some(at));
            ready!(self.deadline.poll_expired(cx));
            if self.link.streams.get() == 0 {
                return Poll::Ready(());
            }
            if self.asked.is_some() {
                // It may only be busy: what it has been asked is waited for, and nothing is added to it.
                self.link.ended.set(true);
                continue;
            }
            self.asked = Some(now);
            // An earlier question may stand yet: then it is answered, or nothing is.
            if let Some(ping) = &mut self.ping {
                let _ = ping.poll_pong(cx);
                let _ = ping.send_ping(Ping::opaque());
            }
            cx.waker().wake_by_ref();
        }
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.link.ended.set(true);
        if let Some(shared) = self.shared.upgrade() {
            shared.set_idle(&self.link, false);
            shared.connections.borrow_mut().retain(|link| !Rc::ptr_eq(link, &self.link));
            shared.changed();
        }
    }
}

fn builder(limits: &Limits) -> client::Builder {
    let mut builder = client::Builder::new();
    builder
        .enable_push(false)
        .initial_window_size(limits.stream_window)
        // Enough for all: clients that read slowly share the connection with those that do not.
        .initial_connection_window_size(
            limits.stream_window.saturating_mul(limits.streams).min((1 << 31) - 1),
        )
        .initial_max_send_streams(limits.streams as usize)
        .max_header_list_size(limits.header_list)
        .header_table_size(limits.header_table)
        .max_send_buffer_size(limits.stream_queue)
        .max_concurrent_reset_streams(limits.streams as usize)
        .max_local_error_reset_streams(Some(1024))
        .data_frame_budget(256 * 1024);
    builder
}
