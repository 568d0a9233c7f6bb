//! Whose the bytes of a session are.

use std::{cell::Cell, net::IpAddr, sync::Arc, time::Duration};

use super::{ClientHash, Moment, RateLimits, Taken};

/// Counts what passes for one client. It holds the limits as they were when it began.
#[derive(Clone, Debug)]
pub struct Charge {
    limits: Arc<RateLimits>,
    address: IpAddr,
    client: ClientHash,
    worker: usize,
    /// How much of the request's body is counted: what is sent again is so already.
    sent: Cell<u64>,
}

impl Charge {
    /// Of the client at this address, if bytes are counted; on this worker.
    #[inline]
    pub fn of(limits: &Arc<RateLimits>, address: IpAddr, worker: usize) -> Option<Self> {
        limits.counts_bytes().then(|| Self {
            limits: Arc::clone(limits),
            address,
            client: limits.client(address),
            worker,
            sent: Cell::new(0),
        })
    }

    /// The client.
    pub fn client(&self) -> IpAddr {
        self.address
    }

    /// By what it is counted.
    #[inline]
    pub fn limits(&self) -> *const RateLimits {
        Arc::as_ptr(&self.limits)
    }

    /// Counts so many bytes, for what is judged next.
    pub fn add(&self, bytes: u64, since: Duration) {
        self.limits.bytes(self.client, bytes, Moment::after(since));
    }

    /// So many bytes of a request's body have been sent: counts those that were not before.
    pub fn sent(&self, bytes: u64, since: Duration) {
        let before = self.sent.get();
        if bytes > before {
            self.sent.set(bytes);
            self.add(bytes - before, since);
        }
    }

    /// Counts so many bytes, which have passed so long after the clock's beginning; what is done if that is too much, as far as it can be
    /// done once there is no request to answer.
    pub fn count(&self, bytes: u64, since: Duration) -> Option<Taken> {
        let broken = self.limits.bytes(self.client, bytes, Moment::after(since))?;
        Some(broken.take(self.worker))
    }
}
