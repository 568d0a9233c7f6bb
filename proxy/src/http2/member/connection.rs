//! One connection to a member: what requests are placed on, and the task that serves it.

use std::{
    cell::{Cell, RefCell},
    future::Future,
    net::SocketAddr,
    pin::Pin,
    rc::{Rc, Weak},
    sync::Arc,
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use h2::client::{self, SendRequest};
use tokio::time::Instant;

use super::{Backlog, Idle, Keep, Shared, place};
use crate::{
    conn::{BufferPool, Conn, Deadline},
    http2::{
        body::{Broken, Chunk},
        budget::{Budget, Limits},
        guard::{Frames, Role},
        transport::{Pause, Transport, Wire},
    },
    state::Http2Counters,
};

/// Bytes of heads that a member has sent and nobody has taken: half of what all streams may have.
const HEADS: usize = 1024 * 1024;

/// How long windows stay narrow at least: the member is to be told now and then, and not on and on.
const NARROW_TIME: Duration = Duration::from_secs(10);

/// How long a connection may take to end once the member was told so.
const CLOSE_TIME: Duration = Duration::from_secs(1);

/// One connection.
pub(super) struct Link {
    /// Nothing once the connection is to be closed: the library says so to the member then.
    pub(super) send: RefCell<Option<SendRequest<Chunk>>>,
    pub(super) budget: Budget,
    pub(super) backlog: Rc<Backlog>,
    pub(super) streams: Cell<usize>,
    /// The member's SETTINGS have come. Before that it takes one request: how many more it would take is not known.
    pub(super) settled: Cell<bool>,
    /// Takes no more requests.
    pub(super) ended: Cell<bool>,
    /// Takes none until something comes: the member owes an answer, and was asked whether it is there.
    pub(super) silent: Cell<bool>,
    opened: Instant,
    /// When it had a stream last, or was opened.
    pub(super) used: Cell<Instant>,
    /// Counts as one without a stream.
    pub(super) idle: Cell<bool>,
    /// Ours.
    pub(super) local: Option<SocketAddr>,
    pub(super) wire: Rc<RefCell<Wire>>,
    /// Wakes its task.
    pub(super) task: RefCell<Option<Waker>>,
}

impl Link {
    /// Whether it takes a request more, and as one without a stream is one that may be taken.
    pub(super) fn has_room(&self, shared: &Shared, idle: Idle) -> bool {
        if self.ended.get() || self.silent.get() || self.streams.get() >= self.allowed(&shared.limits) {
            return false;
        }
        let send = self.send.borrow().clone();
        // Only a connection that has failed, or says goodbye, is not ready for a request of whom none is waiting.
        let mut context = Context::from_waker(Waker::noop());
        let ready = send.is_some_and(|mut send| matches!(send.poll_ready(&mut context), Poll::Ready(Ok(()))));
        ready && self.takes(idle) && !self.is_stuck(shared.keep.silence)
    }

    fn takes(&self, idle: Idle) -> bool {
        let takes = match idle {
            Idle::Any => return true,
            // Its member may be about to leave.
            Idle::Since(since) if self.streams.get() > 0 && self.opened < since => return false,
            _ if self.streams.get() > 0 => return !self.wire.borrow().end_has_come(),
            Idle::Quiet => true,
            Idle::Since(since) => self.used.get() >= since,
        };
        if takes && !self.wire.borrow_mut().is_quiet() {
            // It may be the end of the connection, which its task is to see.
            self.wake();
            return false;
        }
        takes
    }

    /// Whether what is written has not gone out for so long, or never will.
    fn is_stuck(&self, long: Duration) -> bool {
        let wire = self.wire.borrow();
        let since = wire.blocked_since();
        wire.is_broken() || since.is_some_and(|since| Instant::from_std(since) + long <= Instant::now())
    }

    /// How many requests it takes at once. What the member allows may change.
    pub(super) fn allowed(&self, limits: &Limits) -> usize {
        let allowed = match &*self.send.borrow() {
            Some(send) if self.settled.get() => send.current_max_send_streams(),
            _ => 1,
        };
        allowed.min(limits.streams as usize)
    }

    /// Takes no more requests, and ends with those that are on it.
    pub(super) fn end(&self, shared: &Shared) {
        self.ended.set(true);
        shared.set_idle(self, false);
        self.wake();
    }

    pub(super) fn wake(&self) {
        if let Some(task) = self.task.borrow().as_ref() {
            task.wake_by_ref();
        }
    }
}

/// Begins to speak HTTP/2 on a connection; ready when our preface is sent. A task of its own serves it.
///
/// # Errors
/// When the connection fails.
pub(super) async fn open(conn: Conn, pool: &BufferPool, shared: &Rc<Shared>) -> Result<Rc<Link>, Broken> {
    let local = conn.local_addr().ok();
    let limits = shared.limits;
    let budget = Budget::new(Limits { budget: limits.queue + HEADS, ..limits });
    let wire = Wire::new(conn, None, pool, Role::Server, budget.clone());
    let window = shared.backlog.window(shared.limits.stream_window);
    let handshake = builder(&shared.limits, window).handshake(Wire::transport(&wire));
    let (send, connection) = handshake.await.map_err(|error| Broken::of(&error))?;
    let now = Instant::now();
    let link = Rc::new(Link {
        send: RefCell::new(Some(send)),
        budget,
        backlog: Rc::clone(&shared.backlog),
        streams: Cell::new(0),
        settled: Cell::new(false),
        ended: Cell::new(shared.closed.get()),
        silent: Cell::new(false),
        opened: now,
        used: Cell::new(now),
        idle: Cell::new(false),
        local,
        wire: Rc::clone(&wire),
        task: RefCell::default(),
    });
    tokio::task::spawn_local(Driver {
        connection,
        wire,
        link: Rc::clone(&link),
        shared: Rc::downgrade(shared),
        keep: shared.keep,
        counters: Arc::clone(&shared.counters),
        wide: shared.limits.stream_window,
        window,
        narrowed: now,
        deadline: Deadline::never(),
        owes: None,
        closing: false,
        reported: Frames::default(),
    });
    Ok(link)
}

/// The task of a connection.
struct Driver {
    connection: client::Connection<Transport, Chunk>,
    wire: Rc<RefCell<Wire>>,
    link: Rc<Link>,
    shared: Weak<Shared>,
    keep: Keep,
    counters: Arc<Http2Counters>,
    /// The window of a stream while the [backlog](Backlog) has room, and as the member was told last.
    wide: u32,
    window: u32,
    /// When it was made narrow.
    narrowed: Instant,
    deadline: Deadline,
    /// Since when there is a request behind which nothing has come.
    owes: Option<Instant>,
    /// The member is told that the connection ends.
    closing: bool,
    reported: Frames,
}

impl Future for Driver {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let polled = self.poll_connection(cx);
        let frames = self.wire.borrow().frames();
        self.counters.report(&self.reported, &frames);
        // What comes first is SETTINGS, which apply at once.
        if frames.control_received > 0 && !self.link.settled.replace(true) {
            self.changed();
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
        self.set_window();
        let polled = Pin::new(&mut self.connection).poll(cx);
        if let Poll::Ready(Err(error)) = &polled
            && place::requires_http1(error)
            && let Some(shared) = self.shared.upgrade()
        {
            shared.requires_http1();
        }
        let drained = self.wire.borrow_mut().poll_drain(cx);
        if polled.is_ready() || matches!(drained, Poll::Ready(Err(_))) {
            return Poll::Ready(());
        }
        let pause = self.wire.borrow_mut().take_pause();
        match pause {
            None | Some(Pause::Opened) => self.poll_late(cx),
            Some(Pause::Crowded) => {
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Some(Pause::Refused(verdict)) => {
                self.counters.refused(verdict);
                tracing::debug!(?verdict, "connection to a member ended");
                Poll::Ready(())
            }
        }
    }

    /// Tells the member how much of a body may be under way, where that has changed.
    fn set_window(&mut self) {
        let window = self.link.backlog.window(self.wide);
        if window == self.window {
            return;
        }
        let now = Instant::now();
        if window > self.window && now < self.narrowed + NARROW_TIME {
            return;
        }
        // It fails while the member has not acknowledged what it was told before.
        if self.connection.set_initial_window_size(window).is_ok() {
            self.window = window;
            self.narrowed = now;
        }
    }

    /// Ready when the connection is of no use any more.
    fn poll_late(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let frames = self.wire.borrow().frames();
        let now = Instant::now();
        if frames.bytes > self.reported.bytes {
            self.owes = None;
            if self.link.silent.replace(false) {
                self.changed();
            }
        }
        if frames.opened > self.reported.opened {
            self.owes.get_or_insert(now);
        }
        let has_streams = self.link.streams.get() > 0;
        if has_streams {
            self.link.used.set(now);
        }
        loop {
            if self.closing {
                return self.deadline.poll_expired(cx);
            }
            if !has_streams && (self.link.ended.get() || self.shared.strong_count() == 0) {
                self.close(cx);
                continue;
            }
            if self.link.ended.get() {
                // It ends with its streams, and they with their time.
                self.deadline.set(None);
                return Poll::Pending;
            }
            let silence = if self.link.silent.get() {
                self.keep.silence + self.keep.patience
            } else {
                self.keep.silence
            };
            let late = self.owes.map(|since| since + silence);
            let idle = (!has_streams).then(|| self.link.used.get() + self.keep.idle);
            self.deadline.set([late, idle].into_iter().flatten().min());
            ready!(self.deadline.poll_expired(cx));
            if late.is_some_and(|late| late <= Instant::now()) && !self.link.silent.replace(true) {
                // SETTINGS, which are answered at once as PING is. Of PING, servers of gRPC count how often it comes while they
                // have nothing to say, and leave. If it fails the member has not answered such a question before.
                let _ = self.connection.set_initial_window_size(self.window);
                cx.waker().wake_by_ref();
                self.changed();
                continue;
            }
            // It may only be busy: what it has been asked is waited for, and nothing is added to it.
            self.link.ended.set(true);
        }
    }

    /// Lets the library tell the member that the connection ends (RFC 9113 section 6.8), and end it.
    fn close(&mut self, cx: &Context<'_>) {
        self.closing = true;
        if let Some(shared) = self.shared.upgrade() {
            self.link.end(&shared);
        }
        self.link.ended.set(true);
        self.link.send.take();
        self.deadline.set(Some(Instant::now() + CLOSE_TIME));
        cx.waker().wake_by_ref();
    }

    /// What a request may be placed on is another.
    fn changed(&self) {
        if let Some(shared) = self.shared.upgrade() {
            shared.changed();
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

fn builder(limits: &Limits, window: u32) -> client::Builder {
    let mut builder = client::Builder::new();
    builder
        .enable_push(false)
        .initial_window_size(window)
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
