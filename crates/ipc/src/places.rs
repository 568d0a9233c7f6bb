//! Places for the connections of a server, and who gives his up when all are taken and one more comes.
//!
//! Never one whose request is being carried out. First those that lose nothing: who has had an answer and asks for
//! nothing. Then those who keep the server waiting, whose request is still to come or whose answer is still to be
//! read. Among equals it is one of the largest crowd: a connection has marks, such as its peer's address, and its
//! crowd is how many others have them, too. In a crowd it is the one that has kept the server waiting for longest,
//! where a byte now and then is no progress ([`LEAST_RATE`]).
//!
//! So that no crowd of peers, slow or many, keeps another out, and an honest one that is slow survives beside it.

#![expect(
    clippy::disallowed_types,
    reason = "held to note what a peer does, never while something is awaited"
)]

use std::{
    cmp::Reverse,
    collections::HashMap,
    hash::Hash,
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::Notify,
    time::Instant,
};

/// Bytes per second below which a peer falls behind. Who sends or reads at this rate keeps nobody waiting.
pub const LEAST_RATE: u64 = 1024;

/// Places of a server, for connections with marks of type `M`.
#[derive(Debug)]
pub struct Places<M> {
    shared: Arc<Shared<M>>,
}

#[derive(Debug)]
struct Shared<M> {
    limits: Limits,
    taken: Mutex<Vec<Taken<M>>>,
    freed: Notify,
}

/// How many at a time.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections.
    pub connections: usize,
    /// Requests that are carried out. With fewer than `connections` there is always a place for one more peer, without
    /// which it has to wait when all are being worked for.
    pub at_work: usize,
    /// So many fewer for each mark that a peer shares with one who is being worked for: kept for those who do not.
    pub kept_for_others: usize,
}

#[derive(Debug)]
struct Taken<M> {
    marks: Arc<[M]>,
    progress: Arc<Progress>,
}

/// A place that is taken, and free when this is dropped.
#[derive(Debug)]
pub struct Seat<M> {
    marks: Arc<[M]>,
    progress: Arc<Progress>,
    shared: Arc<Shared<M>>,
}

/// A request cannot be carried out now: as many are as may be, or the connection's place is another's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Busy;

impl<M: Eq + Hash> Places<M> {
    /// All of them free.
    pub fn new(limits: Limits) -> Self {
        Self { shared: Arc::new(Shared { limits, taken: Mutex::default(), freed: Notify::new() }) }
    }

    /// Takes a place, which may have been another's. Waits while all are being worked for. May be cancelled.
    pub async fn take(&self, marks: Vec<M>) -> Seat<M> {
        let marks: Arc<[M]> = marks.into();
        loop {
            let gave_up = {
                let mut taken = self.shared.taken();
                if taken.len() < self.shared.limits.connections {
                    let progress = Arc::new(Progress::new(Instant::now()));
                    taken.push(Taken { marks: Arc::clone(&marks), progress: Arc::clone(&progress) });
                    return Seat { marks, progress, shared: Arc::clone(&self.shared) };
                }
                let_go_one(&mut taken, &marks)
            };
            if gave_up {
                // He closes his connection before another is accepted: descriptors are set aside for the places alone.
                tokio::task::yield_now().await;
            } else {
                self.shared.freed.notified().await;
            }
        }
    }

    /// Has one give up his place although nobody takes it: something else has run out, such as descriptors.
    pub fn let_go_one(&self) {
        let_go_one(&mut self.shared.taken(), &[]);
    }
}

impl<M> Shared<M> {
    fn taken(&self) -> MutexGuard<'_, Vec<Taken<M>>> {
        // Nothing below can panic half-way through a change of the list.
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// False when all are being worked for.
fn let_go_one<M: Eq + Hash>(taken: &mut Vec<Taken<M>>, newcomer: &[M]) -> bool {
    let at = first_to_go(taken, newcomer);
    at.map(|at| taken.swap_remove(at).progress.let_go.notify_one()).is_some()
}

/// Who gives up his place for one with these marks; `None` when all are being worked for.
fn first_to_go<M: Eq + Hash>(taken: &[Taken<M>], newcomer: &[M]) -> Option<usize> {
    let mut with_mark: HashMap<&M, usize> = HashMap::new();
    for mark in taken.iter().flat_map(|one| one.marks.iter()).chain(newcomer) {
        *with_mark.entry(mark).or_default() += 1;
    }
    let ranked = taken.iter().enumerate().filter_map(|(at, one)| {
        let standing = *one.progress.standing();
        let crowd: usize = one.marks.iter().map(|mark| with_mark[mark]).sum();
        let idle = standing.phase == Phase::Idle;
        (standing.phase != Phase::Working).then_some((at, (idle, crowd, Reverse(standing.since))))
    });
    ranked.max_by_key(|(_, rank)| *rank).map(|(at, _)| at)
}

impl<M: Eq> Seat<M> {
    /// The request has arrived and is carried out from now on, until [`receives`](Self::receives) or [`answers`](Self::answers).
    ///
    /// # Errors
    /// When it must not be.
    pub fn work(&self) -> Result<(), Busy> {
        let taken = self.shared.taken();
        if !taken.iter().any(|one| Arc::ptr_eq(&one.progress, &self.progress)) {
            // It has been let go.
            return Err(Busy);
        }
        let Limits { at_work, kept_for_others, .. } = self.shared.limits;
        let working = || taken.iter().filter(|one| one.progress.standing().phase == Phase::Working);
        let shared = self.marks.iter().filter(|mark| working().any(|one| one.marks.contains(mark))).count();
        if working().count() >= at_work.saturating_sub(kept_for_others * shared).max(1) {
            return Err(Busy);
        }
        self.progress.enter(Phase::Working);
        Ok(())
    }
}

impl<M> Seat<M> {
    /// What it is marked with.
    pub fn marks(&self) -> &Arc<[M]> {
        &self.marks
    }

    /// How far this connection has come.
    pub fn progress(&self) -> &Arc<Progress> {
        &self.progress
    }

    /// The server reads a request, or what is left of one that it will not carry out.
    pub fn receives(&self) {
        if self.progress.standing().phase != Phase::Receiving {
            self.progress.enter(Phase::Receiving);
            self.shared.freed.notify_one();
        }
    }

    /// The answer is ready, and sent from now on. More of it may be to come until [`Progress::completes`].
    pub fn answers(&self) {
        self.progress.enter(Phase::Answering { complete: false });
        self.shared.freed.notify_one();
    }
}

impl<M> Drop for Seat<M> {
    fn drop(&mut self) {
        self.shared.taken().retain(|one| !Arc::ptr_eq(&one.progress, &self.progress));
        self.shared.freed.notify_one();
    }
}

/// What a server waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Another request, after one that was answered.
    Idle,
    /// The rest of a request; the first one may not have begun.
    Receiving,
    /// Nothing of the peer: the request is carried out.
    Working,
    /// That the peer reads its answer, which is not complete yet or is.
    Answering { complete: bool },
}

/// What a server waits for, and since when.
#[derive(Clone, Copy, Debug)]
struct Standing {
    phase: Phase,
    /// Later than the phase began by the time that the bytes which came or went are worth.
    since: Instant,
}

impl Standing {
    fn moved(&mut self, bytes: usize, now: Instant) {
        let worth = Duration::from_micros((bytes as u64).saturating_mul(1_000_000) / LEAST_RATE);
        self.since = (self.since + worth).min(now);
    }

    fn has_read(&mut self, bytes: usize, now: Instant) {
        match self.phase {
            _ if bytes == 0 => {}
            Phase::Idle => *self = Self { phase: Phase::Receiving, since: now },
            Phase::Receiving => self.moved(bytes, now),
            Phase::Working | Phase::Answering { .. } => {}
        }
    }

    fn has_written(&mut self, bytes: usize, now: Instant) {
        if let Phase::Answering { .. } = self.phase {
            self.moved(bytes, now);
        }
    }

    fn has_flushed(&mut self, now: Instant) {
        if self.phase == (Phase::Answering { complete: true }) {
            *self = Self { phase: Phase::Idle, since: now };
        }
    }
}

/// How far a connection has come.
#[derive(Debug)]
pub struct Progress {
    standing: Mutex<Standing>,
    let_go: Notify,
}

impl Progress {
    fn new(now: Instant) -> Self {
        let standing = Mutex::new(Standing { phase: Phase::Receiving, since: now });
        Self { standing, let_go: Notify::new() }
    }

    fn standing(&self) -> MutexGuard<'_, Standing> {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enter(&self, phase: Phase) {
        *self.standing() = Standing { phase, since: Instant::now() };
    }

    /// There is no more of the answer than the server has taken.
    pub fn completes(&self) {
        let mut standing = self.standing();
        if let Phase::Answering { complete } = &mut standing.phase {
            *complete = true;
        }
    }

    /// How long the peer has kept the server waiting; nothing while it is being worked for.
    pub fn waited(&self) -> Duration {
        let standing = *self.standing();
        if standing.phase == Phase::Working { Duration::ZERO } else { standing.since.elapsed() }
    }

    /// How long the peer has not read its answer; nothing when there is none that it should.
    pub fn waited_for_reading(&self) -> Duration {
        let standing = *self.standing();
        if matches!(standing.phase, Phase::Answering { .. }) {
            standing.since.elapsed()
        } else {
            Duration::ZERO
        }
    }

    /// Whether a request of the peer is being carried out.
    pub fn is_worked_for(&self) -> bool {
        self.standing().phase == Phase::Working
    }

    /// Whether the peer has been answered and asks for nothing.
    pub fn is_idle(&self) -> bool {
        self.standing().phase == Phase::Idle
    }

    /// Resolves when the place is another's: the connection is to end. Once; may be cancelled.
    pub async fn let_go(&self) {
        self.let_go.notified().await;
    }
}

/// A stream that says when bytes come or go.
#[derive(Debug)]
pub struct Watched<S> {
    stream: S,
    progress: Arc<Progress>,
}

impl<S> Watched<S> {
    /// Watches a stream of this connection.
    pub fn new(stream: S, progress: Arc<Progress>) -> Self {
        Self { stream, progress }
    }

    fn written(&self, bytes: usize) {
        self.progress.standing().has_written(bytes, Instant::now());
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        let read = ready!(Pin::new(&mut this.stream).poll_read(cx, buf));
        this.progress.standing().has_read(buf.filled().len() - before, Instant::now());
        Poll::Ready(read)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = ready!(Pin::new(&mut this.stream).poll_write(cx, buf));
        this.written(*written.as_ref().unwrap_or(&0));
        Poll::Ready(written)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let flushed = ready!(Pin::new(&mut this.stream).poll_flush(cx));
        this.progress.standing().has_flushed(Instant::now());
        Poll::Ready(flushed)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = ready!(Pin::new(&mut this.stream).poll_write_vectored(cx, bufs));
        this.written(*written.as_ref().unwrap_or(&0));
        Poll::Ready(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests;
