//! What the connections of one worker have done, for metrics.

use super::guard::{Excess, Frames};
use crate::state::Counter;

/// Counters of one worker, which alone writes them.
#[derive(Debug, Default)]
pub struct Counters {
    /// Connections.
    pub connections: Counter,
    /// Streams that peers have opened.
    pub streams: Counter,
    /// RST_STREAM that came.
    pub resets_received: Counter,
    /// RST_STREAM that we sent.
    pub resets_sent: Counter,
    /// Connections that were ended for this, in the order of [`Excess::ALL`].
    pub excesses: [Counter; Excess::ALL.len()],
}

impl Counters {
    pub(super) fn excess(&self, excess: Excess) {
        self.excesses[excess as usize].add(1);
    }

    /// Adds what has passed on a connection since `before`.
    pub(super) fn report(&self, before: &Frames, after: &Frames) {
        self.streams.add(after.opened - before.opened);
        self.resets_received.add(after.resets_received - before.resets_received);
        self.resets_sent.add(after.resets_sent - before.resets_sent);
    }
}
