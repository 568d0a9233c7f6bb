//! Rate limits of bytes for what lasts: a session that is relayed is judged by what its listener limits now, not when it began.

use std::{
    net::IpAddr,
    rc::{Rc, Weak},
    sync::Arc,
};

use tokio::time::Instant;

use super::{LocalListener, Worker};
use crate::limits::rate::{Charge, RateLimits, Taken};

/// Whose the bytes of a session are. It holds no configuration but the limits that it has gone by last, which stay when its listener
/// goes.
#[derive(Debug)]
pub(crate) struct Charging {
    listener: Weak<LocalListener>,
    peer: IpAddr,
    worker: usize,
    /// Where the clock that all workers share begins.
    epoch: Instant,
    charge: Option<Charge>,
}

impl Charging {
    /// Of who has connected as `peer`, or of whom a request was counted that the session has begun with.
    pub(crate) fn new(
        worker: &Worker,
        listener: &Rc<LocalListener>,
        peer: IpAddr,
        request: Option<Charge>,
    ) -> Self {
        let listener = Rc::downgrade(listener);
        let mut charging =
            Self { listener, peer, worker: worker.index, epoch: worker.epoch(), charge: request };
        charging.follow();
        charging
    }

    /// Counts bytes that have passed; what is done if that is too much.
    #[inline]
    pub(crate) fn count(&mut self, bytes: u64) -> Option<Taken> {
        self.follow();
        self.charge.as_ref()?.count(bytes, self.epoch.elapsed())
    }

    /// Counts bytes that have passed, for what is judged next.
    pub(crate) fn add(&mut self, bytes: u64) {
        self.follow();
        if let Some(charge) = &self.charge {
            charge.add(bytes, self.epoch.elapsed());
        }
    }

    /// Goes by what the listener limits now.
    #[inline]
    fn follow(&mut self) {
        let Some(listener) = self.listener.upgrade() else { return };
        let plan = listener.plan();
        let present = plan.limits.as_ref().filter(|limits| limits.counts_bytes());
        if present.map(Arc::as_ptr) != self.charge.as_ref().map(Charge::limits) {
            self.charge = present.and_then(|limits| self.charge_by(limits));
        }
    }

    /// What somebody has brought who is believed, and whose it was not asked, is nobody's.
    #[cold]
    fn charge_by(&self, limits: &Arc<RateLimits>) -> Option<Charge> {
        let believed = || limits.believed().is_some_and(|believed| believed.includes(self.peer));
        let client = match &self.charge {
            Some(charge) => charge.client(),
            None if believed() => return None,
            None => self.peer,
        };
        Charge::of(limits, client, self.worker)
    }

    /// Without a listener, for tests.
    #[cfg(test)]
    pub(crate) fn by(limits: &Arc<RateLimits>, client: IpAddr) -> Self {
        let charge = Charge::of(limits, client, 0);
        Self { listener: Weak::new(), peer: client, worker: 0, epoch: Instant::now(), charge }
    }
}
