//! What one worker has of its own: the present snapshot as it runs it, idle connections, scratch memory, its sign of life.
//! Sessions work on it, and the worker's thread keeps it up to date; it knows neither of the two.

mod charging;
mod idle;
mod pulse;
mod runners;
mod scratch;
mod share;
mod snapshot;
mod streams;
mod tasks;
mod turns;

use std::{cell::Cell, rc::Rc, sync::Arc, time::Duration};

use tokio::{sync::Notify, time::Instant};

pub(crate) use self::{
    charging::Charging,
    idle::Trust,
    pulse::WorkerPulse,
    runners::Runners,
    scratch::{Borrowed, Extras, Scratch, Work},
    share::MemberShare,
    snapshot::{DrainWatch, LocalListener, LocalMember, LocalPool, LocalSnapshot, Present, Slot},
    tasks::Enlisted,
};
use crate::{
    conn::Pools,
    limits::{Bounds, Clients, rate::Moment},
    logs::FlowLogs,
    metrics::Scrapes,
};

/// What the sessions of one worker share.
pub(crate) struct Worker {
    pub(crate) index: usize,
    pub(crate) pools: Pools,
    pub(crate) scratch: Scratch,
    pub(crate) runners: Runners,
    pub(crate) scrapes: Scrapes,
    pub(crate) pulse: Arc<WorkerPulse>,
    pub(crate) logs: FlowLogs,
    /// Those of all workers.
    pub(crate) clients: Arc<Clients>,
    /// What connections to members may take of this one.
    pub(crate) idle: Rc<MemberShare>,
    epoch: Instant,
    sessions: Cell<usize>,
    ending: Cell<bool>,
    ended: Notify,
}

impl Worker {
    pub(crate) fn new(
        index: usize,
        bounds: Bounds,
        clients: Arc<Clients>,
        epoch: Instant,
        scrapes: Scrapes,
        pulse: Arc<WorkerPulse>,
        logs: FlowLogs,
    ) -> Self {
        let idle = Rc::new(MemberShare::new(bounds.idle, bounds.backlog));
        Self {
            index,
            pools: Pools::with_pipes(bounds.pipes),
            clients,
            runners: Runners::on(Rc::clone(&idle.sessions)),
            idle,
            scratch: Scratch::default(),
            scrapes,
            pulse,
            logs,
            epoch,
            sessions: Cell::new(0),
            ending: Cell::new(false),
            ended: Notify::new(),
        }
    }

    /// A moment in seconds on a clock that all workers share.
    #[inline]
    pub(crate) fn seconds(&self, at: Instant) -> u32 {
        u32::try_from(at.duration_since(self.epoch).as_secs()).unwrap_or(u32::MAX)
    }

    /// Where the clock that all workers share begins.
    pub(crate) fn epoch(&self) -> Instant {
        self.epoch
    }

    /// A moment on the same clock.
    #[inline]
    pub(crate) fn since(&self, at: Instant) -> Duration {
        at.duration_since(self.epoch)
    }

    /// A moment on the same clock, as rate limits have it.
    #[inline]
    pub(crate) fn moment(&self, at: Instant) -> Moment {
        Moment::after(at.duration_since(self.epoch))
    }

    /// Counts a session for as long as the guard lives.
    pub(crate) fn session(self: &Rc<Self>) -> SessionGuard {
        self.sessions.set(self.sessions.get() + 1);
        SessionGuard(Rc::clone(self))
    }

    /// How many sessions there are.
    pub(crate) fn sessions(&self) -> usize {
        self.sessions.get()
    }

    /// This is the end of the process, and not of a listener alone.
    pub(crate) fn end(&self) {
        self.ending.set(true);
    }

    /// Whether [`end`](Self::end) was called.
    pub(crate) fn is_ending(&self) -> bool {
        self.ending.get()
    }

    /// Waits until the last session is over. May be cancelled and called again.
    pub(crate) async fn ended(&self) {
        loop {
            let ended = self.ended.notified();
            if self.sessions.get() == 0 {
                return;
            }
            ended.await;
        }
    }
}

/// See [`Worker::session`].
pub(crate) struct SessionGuard(Rc<Worker>);

impl SessionGuard {
    /// The worker that counts it.
    pub(crate) fn worker(&self) -> &Worker {
        &self.0
    }
}

impl Drop for SessionGuard {
    fn drop(&mut self) {
        self.0.sessions.set(self.0.sessions.get() - 1);
        if self.0.sessions.get() == 0 {
            self.0.ended.notify_one();
        }
    }
}
