//! A worker's sign of life, to be looked at from another thread without asking the worker.

use std::{
    future::poll_fn,
    pin::pin,
    sync::{
        OnceLock,
        atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering},
    },
    task::Waker,
};

/// Counts what the worker has done. One that has nothing to do sleeps, so it is woken first by whoever wants to see it
/// count.
///
/// On a cache line of its own: the worker writes it with every request.
#[derive(Debug, Default)]
#[repr(align(64))]
pub(crate) struct WorkerPulse {
    turns: AtomicU64,
    ended: AtomicBool,
    /// As the kernel calls it; 0 before it has begun.
    thread: AtomicI32,
    waker: OnceLock<Waker>,
}

impl WorkerPulse {
    /// The worker has done something: it has been woken, or begins a request.
    #[inline]
    pub(crate) fn turn(&self) {
        // The worker alone writes, so that nothing is lost between the two.
        self.turns.store(self.turns.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
    }

    /// Runs what the worker is told to do, on the worker's thread. Turns when the event loop does and somebody has
    /// [woken](Self::wake) it.
    pub(crate) async fn of<T>(&self, work: impl Future<Output = T>) -> T {
        let _end = End(self);
        self.thread.store(nix::unistd::gettid().as_raw(), Ordering::Relaxed);
        let mut work = pin!(work);
        poll_fn(|cx| {
            self.waker.get_or_init(|| cx.waker().clone());
            self.turn();
            work.as_mut().poll(cx)
        })
        .await
    }

    /// How often it has turned.
    pub(crate) fn turns(&self) -> u64 {
        self.turns.load(Ordering::Relaxed)
    }

    /// Lets it turn soon, also when it has nothing to do.
    pub(crate) fn wake(&self) {
        if let Some(waker) = self.waker.get() {
            waker.wake_by_ref();
        }
    }

    /// Whether its thread has come to an end.
    pub(crate) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Relaxed)
    }

    /// The kernel's number of its thread; `None` before it has begun.
    pub(crate) fn thread(&self) -> Option<i32> {
        Some(self.thread.load(Ordering::Relaxed)).filter(|thread| *thread != 0)
    }
}

struct End<'a>(&'a WorkerPulse);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.ended.store(true, Ordering::Relaxed);
    }
}
