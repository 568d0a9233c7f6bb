//! What is counted of requests when they end.

use tokio::time::Instant;

use super::{
    decide::{Cause, LocalReply},
    exchange::Failure,
};
use crate::state::{ListenerCounters, MemberCounters, ResponseClass};

/// Counts an answer of the proxy's own.
pub(super) fn count_reply(reply: &LocalReply, counters: &ListenerCounters) {
    match reply.cause {
        Cause::Denied => counters.requests_denied.add(1),
        Cause::Answered | Cause::Redirected { .. } => counters.requests_intercepted.add(1),
        Cause::Unserved => {}
    }
    counters.responses[ResponseClass::of(reply.status) as usize].add(1);
}

/// Counts a request that is not answered because there are too many.
pub(super) fn count_drop(counters: &ListenerCounters) {
    counters.requests_denied.add(1);
    counters.responses[ResponseClass::Other as usize].add(1);
}

/// What of an attempt is counted when it ends.
pub(super) struct Times {
    pub(super) begun: Instant,
    pub(super) ready_at: Instant,
    pub(super) response_us: Option<u64>,
}

impl Times {
    pub(super) fn count(&self, at: &MemberCounters, ended: Instant) {
        let total = ended.duration_since(self.begun).as_micros() as u64;
        at.total_time_us.add(total);
        if let Some(response) = self.response_us {
            // Most find a connection.
            let connect = if self.ready_at == self.begun {
                0
            } else {
                self.ready_at.duration_since(self.begun).as_micros() as u64
            };
            at.times.add(connect, response, total);
        }
    }
}

/// Counts what failed at the member that had it last.
pub(super) fn count_failure(failure: Failure, at: &MemberCounters) {
    match failure {
        Failure::Unanswered
        | Failure::NotProcessed
        | Failure::CutHead
        | Failure::BadResponse
        | Failure::Unfit(_)
        | Failure::MemberLate => {
            at.response_errors.add(1);
        }
        Failure::Cut => {
            at.response_errors.add(1);
            at.server_aborts.add(1);
        }
        Failure::CutLate | Failure::Drained => at.server_aborts.add(1),
        Failure::CutBad => at.response_errors.add(1),
        Failure::ClientGone | Failure::ClientLate => at.client_aborts.add(1),
        Failure::BadBody => {}
    }
}
