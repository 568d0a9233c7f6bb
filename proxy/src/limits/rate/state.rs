//! What outlives a change of a policy.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    task::Waker,
};

use amphora_model::RateLimitPolicyId;

use super::{
    Limiter,
    line::{Entered, Lines},
    moment::Moment,
    table::Key,
};
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
    lines: Lines,
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
        Self { id, counters: PerWorker::new(workers), waiting: AtomicU32::new(0), lines: Lines::default() }
    }

    /// How many wait for their turn.
    pub fn waiting(&self) -> u32 {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Nobody has to wait any more.
    pub(super) fn release(&self) {
        self.lines.release();
    }
}

/// One who waits for a turn; while this lives it has one of the places of the queue. Who lets go of it before the turn has come leaves that
/// to those behind.
#[derive(Debug)]
pub struct Waiting {
    place: Place,
    limiter: Arc<Limiter>,
    key: Key,
    number: u64,
    /// How much may gather, as a span of time.
    ahead: u64,
}

/// One of the places of a queue.
#[derive(Debug)]
struct Place(Arc<PolicyState>);

/// How a turn is asked for, in spans of time.
#[derive(Clone, Copy, Debug)]
pub(super) struct TurnRequest {
    pub(super) key: Key,
    /// From one turn to the next.
    pub(super) each: u64,
    /// How much may gather.
    pub(super) ahead: u64,
    /// How long may be waited.
    pub(super) patience: u64,
}

/// How somebody was lined up who does not pass at once.
#[derive(Debug)]
pub(super) enum Lined {
    /// It waits, for so long at most.
    Waits(Waiting, Moment),
    /// It does not: its turn would come after so long.
    Refused(Moment),
}

impl Waiting {
    /// Lines somebody up who has found no turn at once, but one after `wait`. Takes a place among `size`; `None` if it passes after all.
    pub(super) fn line_up(
        state: &Arc<PolicyState>,
        limiter: &Arc<Limiter>,
        TurnRequest { key, each, ahead, patience }: TurnRequest,
        now: Moment,
        wait: Moment,
        size: u32,
    ) -> Option<Lined> {
        let Some(place) = Place::among(state, size) else { return Some(Lined::Refused(wait)) };
        match state.lines.enter(&limiter.table, key, now, each, ahead, patience) {
            Entered::AtOnce => None,
            Entered::Waits(number, wait) => {
                let limiter = Arc::clone(limiter);
                Some(Lined::Waits(Self { place, limiter, key, number, ahead }, wait))
            }
            Entered::TooLate(wait) => Some(Lined::Refused(Moment(wait.0 - patience))),
        }
    }

    /// When this is to be called again; `None`: the turn has come. Who asks is woken when that is to be earlier.
    pub fn look(&self, now: Moment, waker: &Waker) -> Option<Moment> {
        self.place.0.lines.look(self.key, self.number, now, waker)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.place.0.lines.leave(&self.limiter.table, self.key, self.number, self.ahead);
    }
}

impl Place {
    fn among(state: &Arc<PolicyState>, size: u32) -> Option<Self> {
        let below = |waiting| (waiting < size).then_some(waiting + 1);
        state.waiting.fetch_update(Ordering::Relaxed, Ordering::Relaxed, below).ok()?;
        Some(Self(Arc::clone(state)))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}
