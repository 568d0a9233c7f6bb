//! What connections have done is added to the counters of listeners and pools.

use super::{
    guard::{Excess, Fault, Frames, Verdict},
    server::ServerConnection,
};
use crate::state::Http2Counters;

const _: () = assert!(
    Excess::ALL.len() == Http2Counters::EXCESSES && Fault::ALL.len() == Http2Counters::FAULTS,
    "each has a counter"
);

/// What of one connection is counted already.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counted {
    frames: Frames,
    connection: bool,
    verdict: bool,
}

impl Http2Counters {
    /// Counts what has passed on a connection since it was last counted.
    pub fn observe(&self, connection: &ServerConnection, counted: &mut Counted) {
        let frames = connection.frames();
        self.report(&counted.frames, &frames);
        counted.frames = frames;
        if !std::mem::replace(&mut counted.connection, true) {
            self.connections.add(1);
        }
        if !counted.verdict
            && let Some(verdict) = connection.verdict()
        {
            counted.verdict = true;
            self.refused(verdict);
        }
    }

    /// Counts a connection that was ended for what the peer did.
    pub(super) fn refused(&self, verdict: Verdict) {
        match verdict {
            Verdict::Calm(excess) => self.excesses[excess as usize].add(1),
            Verdict::Fault(fault, _) => self.faults[fault as usize].add(1),
        }
    }

    /// Adds what has passed on a connection since `before`.
    pub(super) fn report(&self, before: &Frames, after: &Frames) {
        self.streams.add(after.opened - before.opened);
        self.resets_received.add(after.resets_received - before.resets_received);
        self.resets_sent.add(after.resets_sent - before.resets_sent);
    }
}
