//! What outlives a change of a policy.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use amphora_model::RateLimitPolicyId;

use crate::state::{Counter, PerWorker};

/// The state of a policy.
#[derive(Debug)]
pub struct PolicyState {
    /// The policy's id.
    pub id: RateLimitPolicyId,
    /// Counters, a cell per worker.
    pub counters: PerWorker<PolicyCounters>,
    /// How many wait for their turn, over all workers.
    waiting: AtomicU32,
}

/// What one worker counts for one policy.
#[derive(Debug, Default)]
pub struct PolicyCounters {
    /// How often its action was taken: requests, connections or packets that were turned away.
    pub limited: Counter,
    /// Those that had to wait for their turn.
    pub queued: Counter,
    /// How long they had to, in ms.
    pub waited_ms: Counter,
}

impl PolicyState {
    pub(super) fn new(id: RateLimitPolicyId, workers: usize) -> Self {
        Self { id, counters: PerWorker::new(workers), waiting: AtomicU32::new(0) }
    }

    /// How many wait for their turn.
    pub fn waiting(&self) -> u32 {
        self.waiting.load(Ordering::Relaxed)
    }
}

/// One who waits; while this lives it has one of the places of the queue.
#[derive(Debug)]
pub struct Waiting(Arc<PolicyState>);

impl Waiting {
    /// Takes a place among so many.
    pub(super) fn among(state: &Arc<PolicyState>, size: u32) -> Option<Self> {
        let below = |waiting| (waiting < size).then_some(waiting + 1);
        state.waiting.fetch_update(Ordering::Relaxed, Ordering::Relaxed, below).ok()?;
        Some(Self(Arc::clone(state)))
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}
