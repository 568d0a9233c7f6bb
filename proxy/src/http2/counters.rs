//! What connections of one worker have done, for metrics.

use super::{
    guard::{Excess, Fault, Frames, Verdict},
    server::ServerConnection,
};
use crate::state::Counter;

/// Counters of one worker, which alone writes them.
#[derive(Debug, Default)]
pub struct Counters {
    /// Connections.
    pub connections: Counter,
    /// Streams that clients have opened, or we at members.
    pub streams: Counter,
    /// RST_STREAM that came.
    pub resets_received: Counter,
    /// RST_STREAM that we sent.
    pub resets_sent: Counter,
    /// Connections that were ended for this, in the order of [`Excess::ALL`].
    pub excesses: [Counter; Excess::ALL.len()],
    /// Connections that were ended for this, in the order of [`Fault::ALL`].
    pub faults: [Counter; Fault::ALL.len()],
}

/// What of one connection is counted already.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counted {
    frames: Frames,
    connection: bool,
    verdict: bool,
}

impl Counters {
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
