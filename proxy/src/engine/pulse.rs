//! Whether the workers serve, and whether anybody is still served.

#![expect(clippy::disallowed_types, reason = "held to put or to take one finding; workers never do")]

use std::{
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Instant,
};

use amphora_ipc::threads::{Account, Starvation};
use nix::unistd::{getpid, gettid};
use tokio::sync::{mpsc, oneshot};

use super::stall::{Lateness, Stall};
use crate::{local::WorkerPulse, worker::Command};

/// Looks at every worker, apart from the engine: a change that is being applied does not hold it up, and no worker has to
/// answer. Whoever looks wakes them, so that those who can have turned by the next look.
#[derive(Clone, Debug)]
pub struct Pulse {
    workers: Vec<Felt>,
    others: Starvation,
    stalled: Arc<Stalled>,
}

#[derive(Clone, Debug)]
struct Felt {
    pulse: Arc<WorkerPulse>,
    commands: mpsc::UnboundedSender<Command>,
    turns: u64,
    stall: Stall,
}

/// What the looks have found, for who writes the log.
#[derive(Debug, Default)]
pub struct Stalled(Mutex<Option<(usize, Lateness)>>);

impl Pulse {
    pub(super) fn new(
        workers: impl Iterator<Item = (Arc<WorkerPulse>, mpsc::UnboundedSender<Command>)>,
        now: Instant,
    ) -> Self {
        let felt = |(pulse, commands): (Arc<WorkerPulse>, _)| {
            pulse.wake();
            Felt { turns: pulse.turns(), pulse, commands, stall: Stall::new(now) }
        };
        Self { workers: workers.map(felt).collect(), others: Starvation::default(), stalled: Arc::default() }
    }

    /// Whether every worker serves. Does not wait.
    pub fn look(&mut self, now: Instant) -> bool {
        let Self { workers, others, stalled } = self;
        let process = getpid().as_raw();
        let mut fit = true;
        let mut late = false;
        for (index, worker) in workers.iter_mut().enumerate() {
            if worker.pulse.has_ended() {
                fit = false;
                continue;
            }
            let turns = worker.pulse.turns();
            if turns != worker.turns {
                worker.turns = turns;
                worker.stall = Stall::new(now);
                worker.pulse.wake();
                continue;
            }
            let account = || Account::of(process, worker.pulse.thread()?);
            let starved = || {
                // For as long as some worker is late.
                late = true;
                others.look(process, Some(gettid().as_raw()), now)
            };
            if let Some(lateness) = worker.stall.look(now, account, starved) {
                stalled.note(index, lateness);
                fit = false;
            }
        }
        if !late {
            others.forget();
        }
        fit
    }

    /// What the looks find.
    pub fn stalled(&self) -> Arc<Stalled> {
        Arc::clone(&self.stalled)
    }

    /// Lets no new clients in and the present ones go, after the response under way; or lets new ones in again. Resolves, once every
    /// worker does so, to the number of clients that there are, sessions of TCP included, which nobody ends; to `None` when a
    /// worker has ended.
    pub fn quiesce(&self, quiesce: bool) -> Quiescing {
        let tell = |worker: &Felt| {
            let (clients, counted) = oneshot::channel();
            // The receiver learns that it is gone.
            let _ = worker.commands.send(Command::Quiesce { quiesce, clients });
            counted
        };
        Quiescing { told: self.workers.iter().map(tell).collect(), clients: 0 }
    }

    /// Lets new clients in again, for whoever cannot wait for it.
    pub fn resume(&self) {
        drop(self.quiesce(false));
    }
}

/// See [`Pulse::quiesce`].
#[derive(Debug)]
pub struct Quiescing {
    told: Vec<oneshot::Receiver<usize>>,
    clients: usize,
}

impl Future for Quiescing {
    type Output = Option<usize>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<usize>> {
        let this = self.get_mut();
        while let Some(counted) = this.told.last_mut() {
            match Pin::new(counted).poll(cx) {
                Poll::Ready(Ok(clients)) => this.clients += clients,
                Poll::Ready(Err(_)) => return Poll::Ready(None),
                Poll::Pending => return Poll::Pending,
            }
            this.told.pop();
        }
        Poll::Ready(Some(this.clients))
    }
}

impl Stalled {
    fn note(&self, worker: usize, lateness: Lateness) {
        // Whoever reads it holds it for a moment, and the next look notes it again.
        if let Ok(mut last) = self.0.try_lock() {
            *last = Some((worker, lateness));
        }
    }

    /// The last worker that was found not to serve, and how late it was, since the last call.
    pub fn take(&self) -> Option<(usize, Lateness)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}
