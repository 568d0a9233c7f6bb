//! Connections to a member, shared by the clients of one worker.

mod backlog;
mod connection;
mod place;

use std::{
    cell::{Cell, RefCell},
    fmt,
    future::poll_fn,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use tokio::time::Instant;

pub use self::backlog::Backlog;
use self::connection::Link;
pub use self::place::{Answer, Answered, Failure, Place};
use super::{body::Broken, budget::Limits};
use crate::{
    conn::{BufferPool, Conn, Deadline},
    state::Http2Counters,
};

/// How connections to members are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keep {
    /// The most connections to a member.
    pub connections: usize,
    /// How long one without a stream is kept.
    pub idle: Duration,
    /// When nothing has come for this long behind a request, the member is asked whether it is there, and until it says so
    /// the connection takes no request more.
    pub silence: Duration,
    /// When it has not said so after this long, the connection ends with the streams that are on it.
    pub patience: Duration,
    /// How long a member that requires HTTP/1.1 (RFC 9113 section 7) is not spoken to in HTTP/2.
    pub http1: Duration,
}

/// Which connections a request may be placed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Idle {
    /// Any: the request can be repeated, should the member have closed it.
    Any,
    /// Those whose end has not come, as far as the kernel knows.
    Quiet,
    /// Of these, those that were opened since, and those without a stream that were used since.
    Since(Instant),
}

/// What a member has agreed on when it was connected to last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Spoken {
    /// It was not connected to yet.
    #[default]
    Unknown,
    /// HTTP/1.1.
    Http1,
    /// HTTP/2.
    Http2,
}

/// What is known of the versions that a member speaks.
#[derive(Debug)]
pub struct Versions {
    spoken: Cell<Spoken>,
    /// It may be spoken to in HTTP/1.1.
    has_http1: bool,
    /// Until when it requires that.
    http1_until: Cell<Option<Instant>>,
}

impl Versions {
    /// Nothing. `has_http1`: it may be spoken to in HTTP/1.1.
    pub fn new(has_http1: bool) -> Self {
        Self { spoken: Cell::default(), has_http1, http1_until: Cell::default() }
    }

    /// Whether it has said that it requires HTTP/1.1, and may be spoken to in it.
    #[inline]
    pub fn require_http1(&self) -> bool {
        self.has_http1 && self.http1_until.get().is_some_and(|until| Instant::now() < until)
    }

    /// It has said so. Whether it can be asked again in HTTP/1.1.
    fn set_http1(&self, keep: Keep) -> bool {
        if self.has_http1 && !self.require_http1() {
            tracing::debug!("a member requires HTTP/1.1");
            self.http1_until.set(Some(Instant::now() + keep.http1));
        }
        self.has_http1
    }
}

/// Is told how many connections there were without a stream, and how many there are.
pub type Watch = Box<dyn Fn(usize, usize)>;

/// The connections to one member over which requests are sent with HTTP/2, all alike. Cloning shares them.
#[derive(Clone)]
pub struct MemberStreams(Rc<Shared>);

struct Shared {
    limits: Limits,
    keep: Keep,
    counters: Arc<Http2Counters>,
    backlog: Rc<Backlog>,
    versions: Rc<Versions>,
    connections: RefCell<Vec<Rc<Link>>>,
    connecting: Cell<usize>,
    /// Attempts to connect that have failed, and how the last has.
    failures: Cell<u64>,
    failed: Cell<NotOpened>,
    closed: Cell<bool>,
    /// Requests that wait for a connection.
    waiting: Cell<usize>,
    wakers: RefCell<Vec<Waker>>,
    /// Connections without a stream.
    idle: Cell<usize>,
    watch: Option<Watch>,
}

impl MemberStreams {
    /// None yet.
    pub fn new(limits: Limits, keep: Keep, counters: Arc<Http2Counters>, backlog: Rc<Backlog>) -> Self {
        Self::shared(limits, keep, counters, backlog, Rc::new(Versions::new(false)), None)
    }

    /// The same of a member of which it may be known what it speaks.
    pub fn shared(
        limits: Limits,
        keep: Keep,
        counters: Arc<Http2Counters>,
        backlog: Rc<Backlog>,
        versions: Rc<Versions>,
        watch: Option<Watch>,
    ) -> Self {
        Self(Rc::new(Shared {
            limits,
            keep,
            counters,
            backlog,
            versions,
            connections: RefCell::default(),
            connecting: Cell::new(0),
            failures: Cell::new(0),
            failed: Cell::default(),
            closed: Cell::new(false),
            waiting: Cell::new(0),
            wakers: RefCell::default(),
            idle: Cell::new(0),
            watch,
        }))
    }

    /// For one request, whose connection nobody shares.
    pub fn alone(limits: Limits, keep: Keep, counters: Arc<Http2Counters>, backlog: Rc<Backlog>) -> Self {
        let alone = Self::new(limits, keep, counters, backlog);
        alone.0.closed.set(true);
        alone
    }

    /// A place for a request on the connection that has the fewest, if there is one with room.
    pub fn place(&self, idle: Idle) -> Option<Place> {
        let connections = self.0.connections.borrow();
        let link = connections
            .iter()
            .filter(|link| link.has_room(&self.0, idle))
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
            || match shared.versions.spoken.get() {
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
    pub async fn join(&self, idle: Idle) -> Result<Joined, NotOpened> {
        if let Some(place) = self.place(idle) {
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
            if let Some(place) = self.place(idle) {
                return Ok(Joined::Place(place));
            }
            if waiting.0.failures.get() != failures {
                return Err(waiting.0.failed.get());
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

    /// The member requires HTTP/1.1. Whether it can be asked in that.
    fn requires_http1(&self) -> bool {
        self.versions.set_http1(self.keep)
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
/// of all. Shaking hands with one that is far away takes less.
const PATIENCE: Duration = Duration::from_secs(1);

/// What [`MemberStreams::join`] comes to.
#[derive(Debug)]
pub enum Joined {
    /// There is room on a connection.
    Place(Place),
    /// One is to be opened.
    Connect(Connecting),
}

/// The connection that was waited for could not be opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NotOpened {
    /// Nor could another: the member is not what is asked for.
    pub for_good: bool,
}

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
        self.0.versions.spoken.set(Spoken::Http1);
    }

    /// It could not be opened, which those who wait for it are told.
    pub fn has_failed(self, how: NotOpened) {
        self.0.failed.set(how);
        self.0.failures.set(self.0.failures.get() + 1);
    }

    /// Puts a connection to use that was opened, whose handshake is done and has agreed on HTTP/2 (or for which that is known);
    /// says so when the member's preface is sent, with a place on it. A task of its own serves it, on the present
    /// [`LocalSet`](tokio::task::LocalSet).
    ///
    /// # Errors
    /// When the connection fails.
    pub async fn start(self, conn: Conn, pool: &BufferPool) -> Result<Place, Broken> {
        self.0.versions.spoken.set(Spoken::Http2);
        let link = connection::open(conn, pool, &self.0).await?;
        let place = Place::on(&link, &self.0);
        self.0.connections.borrow_mut().push(link);
        self.0.counters.connections.add(1);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn http_1_1_is_required_for_a_while_and_where_it_may_be_spoken() {
        let second = Duration::from_secs(1);
        let keep =
            Keep { connections: 1, idle: second, silence: second, patience: second, http1: 60 * second };
        let versions = Versions::new(true);
        assert!(!versions.require_http1());
        assert!(versions.set_http1(keep));
        tokio::time::advance(59 * second).await;
        // Saying so again meanwhile makes it no longer.
        assert!(versions.require_http1() && versions.set_http1(keep));
        tokio::time::advance(second).await;
        assert!(!versions.require_http1());
        let without = Versions::new(false);
        assert!(!without.set_http1(keep) && !without.require_http1());
    }
}
