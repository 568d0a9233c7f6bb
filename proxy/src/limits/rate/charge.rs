//! Whose the bytes of a session are.

use std::{sync::Arc, time::Duration};

use super::{ClientHash, Moment, RateLimits, Taken};

/// Counts what passes for one client. It holds the limits as they were when it began.
#[derive(Clone, Debug)]
pub struct Charge {
    limits: Arc<RateLimits>,
    client: ClientHash,
    worker: usize,
}

impl Charge {
    /// Of a client, if bytes are counted; on this worker.
    #[inline]
    pub fn of(limits: &Arc<RateLimits>, client: ClientHash, worker: usize) -> Option<Self> {
        limits.counts_bytes().then(|| Self { limits: Arc::clone(limits), client, worker })
    }

    /// Counts so many bytes, for what is judged next.
    pub fn add(&self, bytes: u64, since: Duration) {
        self.limits.bytes(self.client, bytes, Moment::after(since));
    }

    /// Counts so many bytes, which have passed so long after the clock's beginning; what is done if that is too much, as far as it can be
    /// done once there is no request to answer.
    pub fn count(&self, bytes: u64, since: Duration) -> Option<Taken> {
        let broken = self.limits.bytes(self.client, bytes, Moment::after(since))?;
        Some(broken.take(self.worker))
    }
}
