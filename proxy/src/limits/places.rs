//! Places that connections take.

use std::{
    pin::pin,
    sync::atomic::{AtomicU32, Ordering},
};

use tokio::sync::Notify;

/// How many there are of something, counted by all workers, and who waits for there to be fewer.
#[derive(Debug, Default)]
pub struct Places {
    taken: AtomicU32,
    waiting: AtomicU32,
    freed: Notify,
}

impl Places {
    /// How many are taken.
    #[inline]
    pub fn taken(&self) -> u32 {
        self.taken.load(Ordering::Relaxed)
    }

    /// Takes one if fewer than `limit` are taken, or if there is none.
    #[must_use]
    #[inline]
    pub fn take(&self, limit: Option<u32>) -> bool {
        let Some(limit) = limit else {
            self.taken.fetch_add(1, Ordering::SeqCst);
            return true;
        };
        let below = |taken| (taken < limit).then_some(taken + 1);
        self.taken.fetch_update(Ordering::SeqCst, Ordering::SeqCst, below).is_ok()
    }

    /// Gives one back.
    #[inline]
    pub fn give_back(&self) {
        self.taken.fetch_sub(1, Ordering::SeqCst);
        // The notification takes a lock, so it is for when all are taken alone.
        if self.waiting.load(Ordering::SeqCst) > 0 {
            // All of them: one that has nobody to give the place to would not pass it on.
            self.freed.notify_waiters();
        }
    }

    /// Whether somebody waits for one.
    #[inline]
    pub fn are_awaited(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0
    }

    /// Waits until one is given back, unless `has_room` says that there is room by now. May be cancelled.
    pub async fn freed(&self, has_room: impl FnOnce() -> bool) {
        let _waiting = Waiting::on(&self.waiting);
        let mut freed = pin!(self.freed.notified());
        // Registered before it is looked once more, so that none is given back unseen.
        freed.as_mut().enable();
        if !has_room() {
            freed.await;
        }
    }
}

struct Waiting<'a>(&'a AtomicU32);

impl<'a> Waiting<'a> {
    fn on(count: &'a AtomicU32) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// The clients of the process, and how many it may have.
#[derive(Debug)]
pub struct Clients {
    /// Their connections.
    pub places: Places,
    /// The bound on them.
    pub limit: u32,
}

impl Clients {
    /// Nobody yet.
    pub fn new(limit: u32) -> Self {
        Self { places: Places::default(), limit }
    }

    /// Whether another one has to wait.
    pub fn is_full(&self) -> bool {
        self.places.taken() >= self.limit
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    #[tokio::test]
    async fn who_waits_is_told_of_each_place_that_becomes_free() {
        let places = Places::default();
        assert!(places.take(Some(2)) && places.take(Some(2)) && !places.take(Some(2)));
        assert!(places.take(None), "without a limit there is always one");
        places.give_back();
        let mut freed = pin!(places.freed(|| false));
        poll_fn(|cx| {
            assert!(freed.as_mut().poll(cx).is_pending());
            std::task::Poll::Ready(())
        })
        .await;
        places.give_back();
        freed.await;
        assert!(places.take(Some(2)));
        // What was given back before it waits is not missed.
        places.freed(|| true).await;
        assert_eq!((places.taken(), places.waiting.load(Ordering::SeqCst)), (2, 0));
    }
}
